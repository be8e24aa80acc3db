//! What the kernel holds: hooked functions, loaded programs, and who keeps them.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a helper of tests: to panic is how it fails"
)]

use std::{fs, time::Duration};

use crate::child::eventually;

fn lines(path: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let text = fs::read(path).unwrap_or_else(|error| panic_of(path, &error));
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .filter(|line| wanted(line))
        .map(str::to_owned)
        .collect()
}

#[expect(clippy::panic, reason = "a test's way to fail")]
fn panic_of(path: &str, error: &std::io::Error) -> Vec<u8> {
    panic!("{path}: {error}")
}

/// The system calls' functions that the function tracer calls somebody for.
pub fn hooked() -> Vec<String> {
    lines("/sys/kernel/tracing/enabled_functions", |line| {
        line.contains("_sys_")
    })
}

/// The kernel's single probes.
pub fn kprobes() -> Vec<String> {
    lines("/sys/kernel/debug/kprobes/list", |_| true)
}

/// finject's programs in the kernel, by the symbols that the kernel gives to what it translates.
pub fn programs() -> Vec<String> {
    lines("/proc/kallsyms", |line| line.contains("_finject_"))
}

/// Descriptors on BPF objects, `PID FD KEY VALUE`, of all processes.
pub fn holders() -> Vec<String> {
    let mut holders = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let name = process.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let Ok(descriptors) = fs::read_dir(process.path().join("fdinfo")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            let text = fs::read_to_string(descriptor.path()).unwrap_or_default();
            for line in text.lines() {
                if ["prog_id:", "map_id:", "link_id:"]
                    .iter()
                    .any(|key| line.starts_with(key))
                {
                    let fd = descriptor.file_name().to_string_lossy().into_owned();
                    holders.push(format!("{name} {fd} {line}"));
                }
            }
        }
    }
    holders
}

/// Everything that another program could have left, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    hooked: Vec<String>,
    kprobes: Vec<String>,
    holders: Vec<String>,
}

impl Traces {
    /// Looks.
    pub fn now() -> Self {
        Self {
            hooked: hooked(),
            kprobes: kprobes(),
            holders: holders(),
        }
    }

    /// Whether there are none of a finject, nor of anybody else's on system calls.
    pub fn are_none(&self) -> bool {
        self.hooked.is_empty() && self.kprobes.is_empty() && self.holders.is_empty()
    }
}

/// Waits until nothing is left in the kernel. Programs go a little after their last user, since the
/// kernel frees them from a work queue.
pub fn is_clean_within(time: Duration) {
    eventually(time, "the kernel is as it was", || {
        Traces::now().are_none() && programs().is_empty()
    });
}

/// Lines of the kernel's log that finject has written.
pub fn log() -> Vec<String> {
    let output = std::process::Command::new("dmesg").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter(|line| line.contains("finject["))
        .map(str::to_owned)
        .collect()
}
