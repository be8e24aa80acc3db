//! Targets beyond the process that was named: children from before and after the attach, their
//! children, and a program after exec.

use finject_tests::{
    finject::{Outcome, attach},
    needs_override,
    victim::{Seen, Victim},
};
use serde_json::Value;

const WHO: [&str; 4] = ["child-before", "child-after", "grandchild", "after-exec"];

/// Lets a family call under a rule that makes each process's second getppid a zero.
fn family(arguments: &[&str]) -> (Vec<Seen>, Outcome, u32) {
    let mut victim = Victim::family(5, "getppid");
    let session = attach(&victim, "getppid=ret:0@2,per:process")
        .args(arguments)
        .start();
    victim.go();
    let seen = WHO.map(|who| victim.seen(who)).to_vec();
    let root = victim.pid();
    (seen, session.stop(), root)
}

fn pids(outcome: &Outcome, kind: &str) -> Vec<u64> {
    let pid = |event: &&Value| event["pid"].as_u64();
    outcome.kind(kind).iter().filter_map(pid).collect()
}

#[test]
fn children_grandchildren_and_the_program_after_exec_are_targets() {
    needs_override!();
    let (seen, outcome, root) = family(&[]);
    for process in &seen {
        assert_eq!(
            (process.calls, process.zeros),
            (5, 1),
            "{process:?}\n{}",
            outcome.ended
        );
    }
    assert_eq!(seen[3].pid, root, "exec keeps the process");
    let [before, after, grandchild, _] = [0, 1, 2, 3].map(|index| u64::from(seen[index].pid));
    assert_eq!(pids(&outcome, "target-started"), [after, grandchild]);
    assert_eq!(pids(&outcome, "target-execed"), [u64::from(root)]);
    assert_eq!(pids(&outcome, "target-exited"), [before, grandchild, after]);
    assert!(
        outcome
            .kind("target-exited")
            .iter()
            .all(|event| event["status"] == 0)
    );
    assert_eq!(outcome.counts(), [2, 2, 2, 2]);
    assert_eq!(outcome.matched(), 20, "{}", outcome.ended);
    assert_eq!(outcome.summary["targets"], 4);
}

#[test]
fn descendants_are_left_alone_when_asked() {
    needs_override!();
    let (seen, outcome, root) = family(&["--no-follow"]);
    let zeros: Vec<_> = seen.iter().map(|process| process.zeros).collect();
    assert_eq!(zeros, [0, 0, 0, 1], "{seen:?}\n{}", outcome.ended);
    assert_eq!(pids(&outcome, "fired"), [u64::from(root)]);
    assert!(outcome.kind("target-started").is_empty());
    assert_eq!(
        (outcome.matched(), &outcome.summary["targets"]),
        (5, &1.into())
    );
}

#[test]
fn a_family_is_counted_together_unless_told_otherwise() {
    needs_override!();
    let mut victim = Victim::family(5, "getppid");
    let session = attach(&victim, "getppid=ret:0@7").start();
    victim.go();
    let zeros = WHO.map(|who| victim.seen(who).zeros);
    let outcome = session.stop();
    assert_eq!(zeros, [0, 1, 0, 0], "{}", outcome.ended);
    assert_eq!(outcome.matched(), 20, "{}", outcome.ended);
}
