//! The conformance suite on every kernel: each case by each way, so that a rule means the same whatever
//! carries it out.

use std::panic::{AssertUnwindSafe, catch_unwind};

use finject_tests::{
    conformance::{CASES, Rig, Way},
    guest, needs_override,
};

fn all(way: Way) {
    let rig = Rig::all(&[way], guest::finject()).remove(0);
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
fn ebpf_attach() {
    needs_override!();
    all(Way::EbpfAttach);
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
