//! Faults end with finject, however it ends.

use std::{thread, time::Duration};

use finject_tests::{
    child::{PATIENCE, eventually},
    conformance::Way,
    finject::{Finject, attach},
    guest, kernel, needs_override,
    scale::scaled,
    storm,
    victim::Victim,
};
use rustix::process::Signal;

#[test]
fn killed_in_a_storm() {
    needs_override!();
    kernel::is_clean_within(PATIENCE);
    let victim = Victim::looping("fsync");
    for round in 0..scaled(50) {
        let mut session = attach(&victim, "fsync=EIO").args(["--quiet"]).start();
        victim.until(PATIENCE, true);
        if round == 0 {
            // What is looked for afterwards is there before.
            let is_fsync = |line: &String| line.starts_with("__x64_sys_fsync ");
            assert!(
                kernel::hooked().iter().any(is_fsync),
                "{:?}",
                kernel::hooked()
            );
            assert!(!kernel::programs().is_empty() && !kernel::holders().is_empty());
        }
        session.child().signal(Signal::KILL);
        victim.until(Duration::from_secs(2), false);
        assert_eq!(session.child().wait(PATIENCE).code(), None);
        kernel::is_clean_within(Duration::from_secs(10));
    }
    let changes = victim.changes();
    let (works, fails) = (
        changes.iter().filter(|change| !change.fails).count(),
        changes.len() / 2,
    );
    assert_eq!(works, fails + 1, "each storm ended once: {changes:?}");
    victim.end();
}

fn is_clean_soon() {
    kernel::is_clean_within(Duration::from_secs(10));
}

#[test]
fn killed_at_random_moments() {
    needs_override!();
    kernel::is_clean_within(PATIENCE);
    storm::killed(
        Way::EbpfAttach,
        guest::finject(),
        // Each takes seconds on the emulated machine; in full a half on each of two kernels.
        scaled(scaled(100)).max(5),
        is_clean_soon,
    );
}

#[test]
fn stopped_at_random_moments() {
    needs_override!();
    kernel::is_clean_within(PATIENCE);
    storm::stopped(Way::EbpfAttach, guest::finject(), scaled(20), is_clean_soon);
}

#[test]
fn stopped_injects_nothing() {
    needs_override!();
    let victim = Victim::looping("fsync");
    let mut session = attach(&victim, "fsync=EIO").with_its_own_lease().start();
    victim.until(PATIENCE, true);
    session.child().signal(Signal::STOP);
    victim.until(Duration::from_secs(3), false);
    let changes = victim.changes().len();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(victim.changes().len(), changes, "it stays healed");
    session.child().signal(Signal::CONT);
    let outcome = session.wait(PATIENCE);
    assert_eq!(outcome.code(), Some(125), "{}", outcome.ended);
    assert!(
        outcome.ended.err().contains("longer than its --lease"),
        "{}",
        outcome.ended
    );
    assert_eq!(outcome.summary["ending"], "lapsed");
    assert_eq!(
        victim.changes().len(),
        changes,
        "not armed again on its way out"
    );
    kernel::is_clean_within(PATIENCE);
}

#[test]
fn stopped_for_less_than_its_lease_goes_on() {
    needs_override!();
    let victim = Victim::looping("fsync");
    let mut session = attach(&victim, "fsync=EIO").start();
    victim.until(PATIENCE, true);
    session.child().signal(Signal::STOP);
    thread::sleep(Duration::from_secs(4));
    session.child().signal(Signal::CONT);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(victim.fails(), Some(true));
    let outcome = session.stop();
    assert_eq!(outcome.code(), Some(0), "{}", outcome.ended);
}

#[test]
fn asked_to_end_leaves_nothing() {
    needs_override!();
    kernel::is_clean_within(PATIENCE);
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let victim = Victim::looping("fsync");
        let mut session = attach(&victim, "fsync=EIO").start();
        victim.until(PATIENCE, true);
        session.child().signal(signal);
        let outcome = session.wait(PATIENCE);
        assert_eq!(outcome.code(), Some(0), "{}", outcome.ended);
        assert_eq!(outcome.summary["ending"], "signal");
        assert_eq!(outcome.summary["healed"], true);
        let kinds: Vec<_> = outcome
            .events
            .iter()
            .rev()
            .take(2)
            .map(|event| &event["kind"])
            .collect();
        assert_eq!(kinds, ["healed", "disarmed"]);
        assert!(
            outcome.ended.err().contains("r1"),
            "a summary: {}",
            outcome.ended
        );
        eventually(Duration::from_secs(2), "calls work", || {
            victim.fails() == Some(false)
        });
        kernel::is_clean_within(PATIENCE);
    }
}

#[test]
fn a_target_that_dies_while_it_is_attached_leaves_nothing() {
    needs_override!();
    for round in 0..6_u64 {
        let mut victim = Victim::looping("fsync");
        let pid = victim.pid();
        let killer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(round * 400));
            victim.child().signal(Signal::KILL);
            victim.child().wait(PATIENCE);
        });
        let result = Finject::pinned()
            .pid(pid)
            .rule("fsync=EIO@1000000000")
            .try_start();
        let (code, text) = match result {
            Ok(session) => {
                let outcome = session.wait(PATIENCE);
                assert_eq!(outcome.summary["ending"], "targets-ended");
                (outcome.code(), outcome.ended.err())
            }
            Err(ended) => (ended.code(), ended.err()),
        };
        killer.join().unwrap();
        match code {
            Some(0) => assert!(text.contains("the last target ended"), "{text}"),
            Some(64 | 125) => assert!(
                text.contains("ended") || text.contains("there is no process"),
                "{text}"
            ),
            other => panic!("{other:?}: {text}"),
        }
        println!("round {round}: {code:?}");
    }
    kernel::is_clean_within(PATIENCE);
}
