//! What one side writes as a number and the other reads.

use injector_common::limits::MARKS;
use injector_common::mark::{MARK_SIGNAL, RESTART, mark_of};
use injector_common::random::CERTAIN;
use injector_common::rule::{
    ACT_AFTER_RESULT, ACT_CORRUPT, ACT_DELAY, ACT_HOLD, ACT_RESULT, ACT_SHORT,
};
use injector_common::{MarkState, Released, WireRule, WireStep, WireWait};

#[test]
fn the_states_of_a_mark_are_known_by_their_numbers() {
    for state in [
        MarkState::Free,
        MarkState::Filling,
        MarkState::Asked,
        MarkState::Passes,
        MarkState::Late,
        MarkState::Runs,
        MarkState::Ran,
    ] {
        assert_eq!(MarkState::from_wire(state as u32), state);
        let word = state.word(0x89ab_cdef);
        assert_eq!((word >> 32, word as u32), (state as u64, 0x89ab_cdef));
    }
    assert_eq!(MarkState::from_wire(7), MarkState::Free);
}

#[test]
fn threads_share_a_mark_where_their_ids_differ_by_a_multiple() {
    assert_eq!((mark_of(0), mark_of(7), mark_of(4095)), (0, 7, 4095));
    assert_eq!((mark_of(4096), mark_of(3 * 4096 + 7)), (0, 7));
    assert_eq!(MARKS, 4096);
}

/// What the kernel fixes: include/linux/errno.h, signal(7).
#[test]
fn a_call_is_made_again_by_the_kernels_own_number() {
    assert_eq!((RESTART, MARK_SIGNAL), (-513, 28));
}

#[test]
fn what_a_released_call_comes_to_is_known_by_its_number() {
    for released in [Released::Rest, Released::Run, Released::Result] {
        assert_eq!(Released::from_wire(released as u64), released);
    }
    assert_eq!(Released::from_wire(3), Released::Rest);
}

fn rule(actions: u32, wait: (u64, u64)) -> WireRule {
    let mut rule = WireRule {
        steps_len: 2,
        ..WireRule::PASS
    };
    rule.steps[1] = WireStep {
        actions,
        wait: WireWait {
            min_ns: wait.0,
            max_ns: wait.1,
        },
        ..WireStep::OFF
    };
    rule
}

#[test]
fn delays_that_are_short_enough_are_spun_away() {
    for (actions, wait, holds, spins) in [
        (ACT_RESULT, (0, 0), false, false),
        (ACT_DELAY, (10, 100), false, true),
        (ACT_DELAY, (10, 101), true, true),
        (ACT_DELAY, (100, 101), true, true),
        (ACT_DELAY, (101, 200), true, false),
        (ACT_HOLD, (10, 10), true, false),
        (ACT_DELAY | ACT_AFTER_RESULT, (10, 10), true, true),
        (ACT_SHORT, (0, 0), true, false),
        (ACT_DELAY | ACT_CORRUPT, (10, 10), true, true),
    ] {
        let rule = rule(actions, wait);
        let found = (rule.has_holds(100), rule.has_spins(100));
        assert_eq!(found, (holds, spins), "{actions:#x} {wait:?}");
        assert!(!rule.has_spins(0));
        assert_eq!(rule.has_holds(0), actions != ACT_RESULT);
    }
    assert!(!WireRule::PASS.has_holds(0) && !WireRule::PASS.has_spins(100));
}

#[test]
fn arguments_are_looked_at_for_tests_and_for_data() {
    let tested = {
        let mut rule = WireRule::PASS;
        rule.tests[0].op = 1;
        rule
    };
    let edits = WireRule {
        edits: 1,
        ..WireRule::PASS
    };
    assert!(tested.looks_at_args() && edits.looks_at_args() && !WireRule::PASS.looks_at_args());
    assert!(edits.has_edits() && !tested.has_edits());
    assert_eq!(CERTAIN & WireStep::SHARE, 0);
}
