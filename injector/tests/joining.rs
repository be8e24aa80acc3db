//! Rules that join a session and leave it, on the kernel at hand: by every way that needs no kernel with error injection.

use finject_tests::{
    conformance::Way,
    joining::{
        a_rule_joins_and_leaves, a_rule_that_holds_joins,
        calls_that_are_not_handed_over_are_refused, counts_go_on_while_rules_join,
    },
};

const FINJECT: &str = env!("CARGO_BIN_EXE_finject");
const WAYS: [Way; 3] = [Way::NotifyLaunch, Way::PtraceLaunch, Way::PtraceAttach];

#[test]
fn join_and_leave() {
    for way in WAYS {
        a_rule_joins_and_leaves(way, FINJECT);
    }
}

#[test]
fn hold_threads_where_nobody_was_held() {
    for way in WAYS {
        a_rule_that_holds_joins(way, FINJECT);
    }
}

#[test]
fn leave_the_counts_of_others_alone() {
    for way in WAYS {
        counts_go_on_while_rules_join(way, FINJECT);
    }
}

#[test]
fn are_refused_where_their_calls_do_not_come() {
    for way in [Way::NotifyLaunch, Way::PtraceLaunch] {
        calls_that_are_not_handed_over_are_refused(way, FINJECT);
    }
}
