//! finject killed and stopped at random moments, on the kernel at hand: by every way that needs no kernel
//! with error injection. A tenth of the rounds, and all of them in `cargo xtask soak`.

use finject_tests::{
    conformance::Way,
    scale::scaled,
    storm::{killed, stopped},
};

const FINJECT: &str = env!("CARGO_BIN_EXE_finject");
/// How often it is killed.
const KILLS: u64 = 200;
/// How often it is stopped.
const STOPS: u64 = 20;

#[test]
fn killed_at_random_a_notified_command_goes_on() {
    killed(Way::NotifyLaunch, FINJECT, scaled(KILLS), || {});
}

#[test]
fn killed_at_random_a_traced_command_goes_on() {
    killed(Way::PtraceLaunch, FINJECT, scaled(KILLS), || {});
}

#[test]
fn killed_at_random_a_traced_process_goes_on() {
    killed(Way::PtraceAttach, FINJECT, scaled(KILLS), || {});
}

#[test]
fn stopped_at_random_a_notified_command_goes_on() {
    stopped(Way::NotifyLaunch, FINJECT, scaled(STOPS), || {});
}

#[test]
fn stopped_at_random_a_traced_command_goes_on() {
    stopped(Way::PtraceLaunch, FINJECT, scaled(STOPS), || {});
}

#[test]
fn stopped_at_random_a_traced_process_goes_on() {
    stopped(Way::PtraceAttach, FINJECT, scaled(STOPS), || {});
}
