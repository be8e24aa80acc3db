//! Rules that join a session of the kernel program's and leave it.

use finject_tests::{
    conformance::Way,
    guest,
    joining::{
        a_refused_rule_changes_nothing, a_rule_joins_and_leaves, a_rule_that_holds_joins,
        counts_go_on_while_rules_join, only_what_is_needed_is_hooked, rules_by_thread_are_refused,
    },
    needs_override,
    victim::stay_on_first_processor,
};

const WAYS: [Way; 2] = [Way::EbpfAttach, Way::EbpfLaunch];

#[test]
fn join_and_leave() {
    needs_override!();
    // They call while hooks come and go.
    stay_on_first_processor();
    for way in WAYS {
        a_rule_joins_and_leaves(way, guest::finject());
    }
}

#[test]
fn hold_threads_where_nobody_was_held() {
    needs_override!();
    stay_on_first_processor();
    for way in WAYS {
        a_rule_that_holds_joins(way, guest::finject());
    }
}

/// Programs take each other's place.
#[test]
fn leave_the_counts_of_others_alone() {
    needs_override!();
    stay_on_first_processor();
    counts_go_on_while_rules_join(Way::EbpfAttach, guest::finject());
}

#[test]
fn hook_and_unhook() {
    needs_override!();
    stay_on_first_processor();
    only_what_is_needed_is_hooked(guest::finject());
}

#[test]
fn are_refused_without_a_trace() {
    needs_override!();
    stay_on_first_processor();
    a_refused_rule_changes_nothing(guest::finject());
}

#[test]
fn are_refused_where_there_is_no_table_for_their_counters() {
    needs_override!();
    stay_on_first_processor();
    rules_by_thread_are_refused(guest::finject());
}
