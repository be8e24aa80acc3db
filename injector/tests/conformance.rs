//! The conformance suite on the kernel at hand: every case by every way that needs no kernel with error
//! injection, and by a backend without any.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod played;

use finject_tests::conformance::{Need, Way, all, all_played};
use injector::backend::mock::Unsupported;

#[test]
fn notify_launch() {
    all(Way::NotifyLaunch, env!("CARGO_BIN_EXE_finject"));
}

#[test]
fn ptrace_launch() {
    all(Way::PtraceLaunch, env!("CARGO_BIN_EXE_finject"));
}

#[test]
fn ptrace_attach() {
    all(Way::PtraceAttach, env!("CARGO_BIN_EXE_finject"));
}

#[test]
fn mock() {
    let lacks = |need| {
        let lacking = match need {
            Need::Sleep => Unsupported::Sleep,
            Need::Loader => Unsupported::Loader,
            Need::Others => Unsupported::Others,
            Need::Callers => Unsupported::Callers,
            Need::Results => Unsupported::Results,
            Need::Data => Unsupported::Data,
            Need::Files => Unsupported::Files,
            Need::Sockets => Unsupported::Sockets,
        };
        Some(lacking.to_string())
    };
    all_played(played::play, lacks);
}
