//! The virtual machine itself: what every other test in it takes for granted.

use std::{fs, path::Path, process::Command};

use finject_tests::{guest, unsupported};

#[test]
fn is_the_kernel_that_it_is_called() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let version = match guest::kernel().as_str() {
        "debian" => "6.1",
        other => other.strip_suffix("-no-override").unwrap_or(other),
    }
    .to_owned();
    assert!(
        release
            .trim()
            .strip_prefix(&version)
            .is_some_and(|rest| rest.starts_with(['.', '-'])),
        "{release} is no {version}"
    );
}

#[test]
fn runs_tests_as_root_on_two_processors() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    assert!(status.contains("\nUid:\t0\t0\t0\t0\n"), "{status}");
    assert_eq!(std::thread::available_parallelism().unwrap().get(), 2);
}

#[test]
fn has_the_kernels_own_file_systems() {
    for path in [
        "/sys/kernel/btf/vmlinux",
        "/sys/kernel/tracing/events",
        "/proc/kallsyms",
    ] {
        assert!(Path::new(path).exists(), "no {path}");
    }
}

#[test]
fn writes_to_memory_and_not_to_the_host() {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("written-in-the-guest");
    fs::write(&place, "x").unwrap();
    assert_eq!(fs::read(&place).unwrap(), b"x");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let root = mounts
        .lines()
        .find(|line| line.split(' ').nth(1) == Some("/"))
        .unwrap();
    assert_eq!(root.split(' ').nth(2), Some("overlay"), "{root}");
    fs::remove_file(place).unwrap();
}

#[test]
fn has_the_finject_under_test() {
    let output = Command::new(guest::finject())
        .arg("--version")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.starts_with(b"finject "), "{output:?}");
}

#[test]
fn lists_what_may_be_overridden() {
    if guest::kernel() == "debian" {
        unsupported!(
            "lists_what_may_be_overridden",
            "built without error injection"
        );
    }
    let list = fs::read_to_string("/sys/kernel/debug/error_injection/list").unwrap();
    assert!(
        list.contains("__x64_sys_fsync\t"),
        "no fsync among {} lines",
        list.lines().count()
    );
}
