//! Threads that wait for a rule, on the kernel at hand: by every way that needs no kernel with error injection.

use finject_tests::{
    conformance::Way,
    held::{
        Caller, Who, a_timer_does_not_make_it_longer, calls_give_what_they_give, go_on,
        others_are_not_held_up, signals_are_the_programs_own, they_wait_at_once,
    },
    scale::scaled,
};
use rustix::process::Signal;

const FINJECT: &str = env!("CARGO_BIN_EXE_finject");

#[test]
fn go_on_when_finject_is_killed() {
    for way in [Way::NotifyLaunch, Way::PtraceLaunch, Way::PtraceAttach] {
        go_on(way, FINJECT, Who::Finject, Signal::KILL);
    }
}

#[test]
fn go_on_when_finject_is_stopped() {
    for way in [Way::NotifyLaunch, Way::PtraceLaunch, Way::PtraceAttach] {
        go_on(way, FINJECT, Who::Finject, Signal::STOP);
    }
}

/// Launched and traced, they die with the tracer (doc/semantics.md).
#[test]
fn go_on_when_their_holder_is_killed() {
    for way in [Way::NotifyLaunch, Way::PtraceAttach] {
        go_on(way, FINJECT, Who::Holder, Signal::KILL);
    }
}

#[test]
fn go_on_when_their_holder_is_stopped() {
    for way in [Way::NotifyLaunch, Way::PtraceAttach] {
        go_on(way, FINJECT, Who::Holder, Signal::STOP);
    }
}

#[test]
fn hold_nobody_up() {
    for way in [Way::NotifyLaunch, Way::PtraceLaunch, Way::PtraceAttach] {
        others_are_not_held_up(way, FINJECT, 9);
    }
}

#[test]
fn get_their_own_signals_and_no_other_notified() {
    signals_are_the_programs_own(Way::NotifyLaunch, FINJECT, Caller::C, scaled(100_000));
}

#[test]
fn get_their_own_signals_and_no_other_launched_and_traced() {
    signals_are_the_programs_own(Way::PtraceLaunch, FINJECT, Caller::C, scaled(100_000));
}

#[test]
fn get_their_own_signals_and_no_other_traced() {
    for caller in Caller::ALL {
        signals_are_the_programs_own(Way::PtraceAttach, FINJECT, caller, scaled(100_000));
    }
}

#[test]
fn give_what_they_give_while_finject_is_killed() {
    for caller in Caller::ALL {
        let calls = scaled(10_000_000 / 3);
        calls_give_what_they_give(Way::PtraceAttach, FINJECT, caller, calls);
    }
}

#[test]
fn wait_no_longer_for_a_timer() {
    for way in [Way::NotifyLaunch, Way::PtraceLaunch, Way::PtraceAttach] {
        a_timer_does_not_make_it_longer(way, FINJECT);
    }
}

#[test]
fn wait_at_once() {
    for way in [Way::NotifyLaunch, Way::PtraceLaunch, Way::PtraceAttach] {
        they_wait_at_once(way, FINJECT);
    }
}
