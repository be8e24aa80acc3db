//! Others who use the kernel's tracing beside finject.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a helper of tests: to panic is how it fails"
)]

use std::{process::Command, time::Duration};

use rustix::process::Signal;

use crate::{
    child::{Child, PATIENCE},
    kernel, programs,
};

/// A bpftrace script of one probe that counts.
#[derive(Debug)]
pub struct Bpftrace {
    child: Child,
}

impl Bpftrace {
    /// Starts counting at a probe of `function`, such as `kprobe` or `kfunc`, and waits until the
    /// kernel has it.
    pub fn counting(kind: &str, function: &str) -> Self {
        let script = format!("{kind}:{function} {{ @ = count(); }}");
        // finject may be there already.
        let entry = || {
            let mut lines = kernel::hooked().into_iter();
            lines.find(|line| line.starts_with(function))
        };
        let before = entry();
        let mut child = Child::start(Command::new("bpftrace").args(["-e", &script]));
        crate::child::eventually(PATIENCE, "bpftrace is attached", || {
            assert!(!child.has_ended(), "bpftrace: {:?}", child.stderr_now());
            entry() != before
        });
        // It tries out a few things before it settles.
        let mut held = Vec::new();
        crate::child::eventually(PATIENCE, "bpftrace has settled", || {
            std::thread::sleep(Duration::from_millis(500));
            let before = std::mem::replace(&mut held, kernel::holders());
            held == before
        });
        Self { child }
    }

    /// Ends it; how often its probe ran.
    pub fn end(mut self) -> u64 {
        self.child.signal(Signal::INT);
        // The kernel may be long in taking a trampoline away while the emulator has little time.
        let ended = self.child.wait(3 * PATIENCE);
        let count = ended
            .stdout
            .iter()
            .find_map(|line| line.strip_prefix("@: "));
        count.unwrap_or_else(|| no_count(&ended)).parse().unwrap()
    }
}

#[expect(clippy::panic, reason = "a test's way to fail")]
fn no_count(ended: &crate::child::Ended) -> &str {
    panic!("bpftrace printed no count: {ended}")
}

/// The hammer of map system calls (programs/hammer.c).
#[derive(Debug)]
pub struct Hammer {
    child: Child,
}

impl Hammer {
    /// Starts it, on every processor.
    pub fn start() -> Self {
        let mut child = Child::start(&mut Command::new(programs::HAMMER));
        child.expect_line(PATIENCE, |line| line == "hammering");
        Self { child }
    }

    /// Ends it; how many map calls it made.
    pub fn end(mut self) -> u64 {
        self.child.close();
        let ended = self.child.wait(PATIENCE);
        let calls = ended
            .stdout
            .iter()
            .find_map(|line| line.strip_prefix("calls="));
        calls.unwrap().parse().unwrap()
    }
}
