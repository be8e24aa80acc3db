//! Real programs under finject: the scripts of `apps/`, each of which checks what it shows.

use std::{path::Path, process::Command};

use finject_tests::{guest, unsupported};

/// Whether the kernel lets results be overridden.
fn overrides() -> bool {
    matches!(guest::kernel().as_str(), "6.1" | "6.12")
}

fn run(script: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let status = Command::new(root.join("apps").join(script)).status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn redis_third_fsync() {
    if !overrides() {
        unsupported!("redis_third_fsync", "a kernel without override");
    }
    assert!(run("redis-third-fsync"));
}

#[test]
fn demo() {
    if !overrides() {
        unsupported!("demo", "a kernel without override");
    }
    assert!(run("demo.sh"));
}
