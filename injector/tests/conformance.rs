//! The conformance suite on the kernel at hand: every case by every way that needs no kernel with error
//! injection.

use std::panic::{AssertUnwindSafe, catch_unwind};

use finject_tests::conformance::{CASES, Rig, Way};

fn all(way: Way) {
    let rig = Rig::all(&[way], env!("CARGO_BIN_EXE_finject")).remove(0);
    let mut failed = Vec::new();
    for case in CASES {
        assert!(rig.admits(&["--rule", case.rule]), "{way:?}: {}", case.name);
        if catch_unwind(AssertUnwindSafe(|| (case.run)(&rig))).is_err() {
            failed.push(case.name);
        }
    }
    assert!(failed.is_empty(), "{way:?}: {failed:?}");
}

#[test]
fn notify_launch() {
    all(Way::NotifyLaunch);
}

#[test]
fn ptrace_launch() {
    all(Way::PtraceLaunch);
}

#[test]
fn ptrace_attach() {
    all(Way::PtraceAttach);
}
