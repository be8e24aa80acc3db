//! The conformance suite on every kernel: each case by each way, so that a rule means the same whatever
//! carries it out.

use finject_tests::{
    conformance::{Way, all},
    guest, needs_no_override, needs_override,
};

#[test]
fn ebpf_attach() {
    needs_override!();
    all(Way::EbpfAttach, guest::finject());
}

#[test]
fn ebpf_launch() {
    needs_override!();
    all(Way::EbpfLaunch, guest::finject());
}

#[test]
fn ebpf_exits() {
    needs_no_override!();
    all(Way::EbpfExits, guest::finject());
}

#[test]
fn notify_launch() {
    all(Way::NotifyLaunch, guest::finject());
}

#[test]
fn ptrace_launch() {
    all(Way::PtraceLaunch, guest::finject());
}

#[test]
fn ptrace_attach() {
    all(Way::PtraceAttach, guest::finject());
}
