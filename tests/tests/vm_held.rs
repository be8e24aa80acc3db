//! Threads that wait for a rule of the kernel program's.

use finject_tests::{
    child::PATIENCE,
    conformance::Way,
    guest,
    held::{
        Caller, Who, a_timer_does_not_make_it_longer, calls_give_what_they_give, go_on,
        others_are_not_held_up, signals_are_the_programs_own, they_wait_at_once,
    },
    kernel, needs_override,
    scale::scaled,
    victim::stay_on_first_processor,
};
use rustix::process::Signal;

#[test]
fn go_on_when_finject_or_the_tracer_is_killed() {
    needs_override!();
    // They call while hooks go.
    stay_on_first_processor();
    for who in [Who::Finject, Who::Holder] {
        go_on(Way::EbpfAttach, guest::finject(), who, Signal::KILL);
        kernel::is_clean_within(PATIENCE);
    }
}

#[test]
fn go_on_when_finject_or_the_tracer_is_stopped() {
    needs_override!();
    // They call while hooks go.
    stay_on_first_processor();
    for who in [Who::Finject, Who::Holder] {
        go_on(Way::EbpfAttach, guest::finject(), who, Signal::STOP);
        kernel::is_clean_within(PATIENCE);
    }
}

#[test]
fn hold_nobody_up() {
    needs_override!();
    others_are_not_held_up(Way::EbpfAttach, guest::finject(), 9);
}

#[test]
fn get_their_own_signals_and_no_other() {
    needs_override!();
    // Each takes a millisecond and more on the emulated machine.
    let delays = scaled(10_000).max(1000);
    for caller in Caller::ALL {
        signals_are_the_programs_own(Way::EbpfAttach, guest::finject(), caller, delays);
    }
}

#[test]
fn give_what_they_give_while_finject_is_killed() {
    needs_override!();
    // They call while hooks come and go.
    stay_on_first_processor();
    for caller in Caller::ALL {
        let calls = scaled(10_000_000 / 3);
        calls_give_what_they_give(Way::EbpfAttach, guest::finject(), caller, calls);
        kernel::is_clean_within(PATIENCE);
    }
}

#[test]
fn wait_no_longer_for_a_timer() {
    needs_override!();
    a_timer_does_not_make_it_longer(Way::EbpfAttach, guest::finject());
}

#[test]
fn wait_at_once() {
    needs_override!();
    they_wait_at_once(Way::EbpfAttach, guest::finject());
}
