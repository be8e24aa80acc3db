//! Ten million calls and not one count that is wrong, lost or doubled, by every way that needs no kernel
//! with error injection. A hundredth of the calls, and all of them in `cargo xtask soak`.

use finject_tests::{
    conformance::Way,
    exact::{every_thousandth, firings_without_room},
    scale::scaled,
};

const FINJECT: &str = env!("CARGO_BIN_EXE_finject");
const CALLS: u64 = 10_000_000;

#[test]
fn ten_million_notified_calls() {
    every_thousandth(Way::NotifyLaunch, FINJECT, scaled(scaled(CALLS)));
}

#[test]
fn ten_million_traced_calls_of_a_command() {
    every_thousandth(Way::PtraceLaunch, FINJECT, scaled(scaled(CALLS)));
}

#[test]
fn ten_million_traced_calls_of_a_process() {
    every_thousandth(Way::PtraceAttach, FINJECT, scaled(scaled(CALLS)));
}

#[test]
fn firings_that_leave_no_record_are_said_to() {
    for way in [Way::NotifyLaunch, Way::PtraceLaunch, Way::PtraceAttach] {
        firings_without_room(way, FINJECT);
    }
}
