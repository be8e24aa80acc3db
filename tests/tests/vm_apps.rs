//! Real programs under finject: the scripts of `apps/`, each of which checks what it shows.

use std::{path::Path, process::Command};

use finject_tests::needs_override;

fn run(script: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let status = Command::new(root.join("apps").join(script)).status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn redis_third_fsync() {
    needs_override!();
    assert!(run("redis-third-fsync"));
}

#[test]
fn demo() {
    needs_override!();
    assert!(run("demo.sh"));
}

#[test]
fn postgres_wal_enospc() {
    needs_override!();
    assert!(run("postgres-wal-enospc"));
}
