//! Counts are exact: each call gets one number, each firing is one error and one record, and what
//! was lost or missed is said.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;

use finject_tests::{
    agents::{Bpftrace, Hammer},
    child::Child,
    conformance::Way,
    exact::every_thousandth,
    finject::{Outcome, attach, finject, work_under},
    guest, needs_override,
    scale::scaled,
    test_name, unsupported,
    victim::{Seen, Victim},
};
use serde_json::Value;

const THREADS: u64 = 8;

/// `USER_HZ` ticks that each processor has spent in programs and in the kernel for them
/// (proc_stat(5)).
fn busy() -> Vec<u64> {
    let text = fs::read_to_string("/proc/stat").unwrap();
    let ticks = |line: &str| {
        let fields: Vec<u64> = line
            .split(' ')
            .skip(1)
            .filter_map(|f| f.parse().ok())
            .collect();
        fields[0] + fields[2]
    };
    text.lines()
        .filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "))
        .map(ticks)
        .collect()
}

/// What the kernel left out of the counting: nothing while nobody works on maps.
fn nothing_missed(outcome: &Outcome) {
    let expected = (guest::kernel() != "6.1").then_some(0);
    assert_eq!(outcome.misses(), expected, "{}", outcome.ended);
}

/// Each firing is an error, and has a record or is among the dropped.
fn every_firing_is_accounted_for(seen: &Seen, outcome: &Outcome) {
    assert_eq!(seen.errors, outcome.fired(), "{seen:?}: {}", outcome.ended);
    let recorded = outcome.kind("fired").len() as u64;
    assert_eq!(
        recorded + outcome.dropped(),
        seen.errors,
        "{}",
        outcome.ended
    );
    assert_eq!(
        outcome.dropped(),
        outcome.tally(0, "dropped"),
        "{}",
        outcome.ended
    );
    let mut counts = outcome.counts();
    counts.dedup();
    assert_eq!(counts.len() as u64, recorded, "no number was given twice");
    assert_eq!(
        outcome.tally(0, "lost") + outcome.tally(0, "contended"),
        0,
        "{}",
        outcome.ended
    );
}

#[test]
fn third_call_of_eight_threads_fires_once() {
    needs_override!();
    for _ in 0..3 {
        let mut victim = Victim::threads(THREADS, 500, "fsync");
        let (seen, outcome) = work_under(&mut victim, &["fsync=EIO@3"], &[]);
        let errors = victim.errors_of_threads();
        assert_eq!(
            (errors.len() as u64, errors.iter().sum::<u64>()),
            (THREADS, 1),
            "{errors:?}"
        );
        assert_eq!((seen.calls, seen.errors), (THREADS * 500, 1), "{seen:?}");
        assert_eq!(outcome.counts(), [3], "{}", outcome.ended);
        assert_eq!(outcome.matched(), seen.calls, "{}", outcome.ended);
        nothing_missed(&outcome);
    }
}

#[test]
fn every_hundredth_of_a_million_calls_on_both_cpus() {
    needs_override!();
    let each = scaled(1_000_000) / THREADS;
    let before = busy();
    let mut victim = Victim::threads(THREADS, each, "fsync");
    let (seen, outcome) = work_under(&mut victim, &["fsync=EIO@100+100"], &["--quiet"]);
    let worked: Vec<_> = busy()
        .iter()
        .zip(&before)
        .map(|(now, then)| now - then)
        .collect();
    let calls = THREADS * each;
    println!(
        "{calls} calls, {worked:?} ticks of the processors, {} dropped",
        outcome.dropped()
    );
    assert!(
        worked.len() == 2 && worked.iter().all(|ticks| *ticks >= 5),
        "{worked:?}"
    );
    assert_eq!(
        (seen.calls, seen.errors),
        (calls, calls / 100),
        "{}",
        outcome.ended
    );
    assert_eq!(outcome.matched(), calls, "{}", outcome.ended);
    every_firing_is_accounted_for(&seen, &outcome);
    let counts = outcome.counts();
    assert!(
        counts
            .iter()
            .all(|count| count % 100 == 0 && *count <= calls),
        "{counts:?}"
    );
    if outcome.dropped() == 0 {
        let expected: Vec<_> = (1..=calls / 100).map(|number| number * 100).collect();
        assert_eq!(counts, expected);
    }
    nothing_missed(&outcome);
}

#[test]
fn every_thousandth_of_ten_million_calls() {
    needs_override!();
    every_thousandth(
        Way::EbpfAttach,
        guest::finject(),
        scaled(scaled(10_000_000)),
    );
}

#[test]
fn firings_that_leave_no_record_are_said_to() {
    needs_override!();
    let mut victim = Victim::threads(THREADS, scaled(500_000) / THREADS, "fsync");
    let mut session = attach(&victim, "fsync=EIO").args(["--quiet"]).start();
    // While finject does not read, the buffer of records runs full: it holds 13,107 at most.
    session.child().signal(rustix::process::Signal::STOP);
    victim.go();
    let seen = victim.seen("self");
    session.child().signal(rustix::process::Signal::CONT);
    let outcome = session.stop();
    println!("{} of {} dropped", outcome.dropped(), seen.errors);
    assert!(outcome.dropped() > 0, "{}", outcome.ended);
    every_firing_is_accounted_for(&seen, &outcome);
}

#[test]
fn beside_another_agent_and_map_calls() {
    needs_override!();
    let each = scaled(1_000_000) / THREADS;
    let agent = Bpftrace::counting("kprobe", "__x64_sys_fsync");
    let hammer = Hammer::start();
    let mut victim = Victim::threads(THREADS, each, "fsync");
    let (seen, outcome) = work_under(&mut victim, &["fsync=EIO@100+100"], &["--quiet"]);
    let (hammered, counted) = (hammer.end(), agent.end());
    let calls = THREADS * each;
    println!(
        "{calls} calls, {} matched, {:?} missed, {} dropped; {hammered} map calls, the other agent \
         counted {counted}",
        outcome.matched(),
        outcome.misses(),
        outcome.dropped()
    );
    assert!(hammered > 1000 && counted > 0, "{hammered} {counted}");
    assert_eq!(seen.calls, calls, "{seen:?}");
    every_firing_is_accounted_for(&seen, &outcome);
    assert!(outcome.matched() <= calls, "{}", outcome.ended);
    assert_eq!(
        outcome.fired(),
        outcome.matched() / 100,
        "{}",
        outcome.ended
    );
    if let Some(misses) = outcome.misses() {
        assert!(
            outcome.matched() + misses >= calls,
            "{misses} missed: {}",
            outcome.ended
        );
    } else {
        assert_eq!(guest::kernel(), "6.1");
    }
    // Ending that agent took nothing of finject's, and the other way round.
    let (seen, outcome) = work_under(&mut Victim::threads(1, 10, "fsync"), &["fsync=EIO@3"], &[]);
    assert_eq!(
        (seen.errors, outcome.matched()),
        (1, 10),
        "{}",
        outcome.ended
    );
}

#[test]
fn misses_are_unknown_before_6_7() {
    needs_override!();
    if guest::kernel() != "6.1" {
        unsupported!(test_name!(), "this kernel counts misses");
    }
    let doctor = Child::run(&mut finject(["doctor"]));
    assert!(doctor.out().contains("misses: unknown"), "{doctor}");
    let doctor = Child::run(&mut finject(["doctor", "--json"]));
    let answer: Value = serde_json::from_str(&doctor.out()).unwrap();
    let finding = answer["findings"].as_array().unwrap();
    let finding = finding
        .iter()
        .find(|finding| finding["need"] == "miss counts")
        .unwrap();
    assert_eq!(
        (&finding["state"], &finding["seen"]),
        (&"lacking".into(), &"misses: unknown".into())
    );
    let mut victim = Victim::threads(1, 10, "fsync");
    let (_, outcome) = work_under(&mut victim, &["fsync=EIO@3"], &[]);
    assert_eq!(outcome.summary["misses"], "unknown");
    assert!(
        outcome.ended.err().contains("misses: unknown"),
        "{}",
        outcome.ended
    );
}

#[test]
fn misses_are_a_number_from_6_7_on() {
    needs_override!();
    if guest::kernel() == "6.1" {
        unsupported!(test_name!(), "this kernel does not count misses");
    }
    let doctor = Child::run(&mut finject(["doctor"]));
    assert!(!doctor.out().contains("unknown"), "{doctor}");
    let mut victim = Victim::threads(1, 10, "fsync");
    let (_, outcome) = work_under(&mut victim, &["fsync=EIO@3"], &[]);
    assert_eq!(outcome.summary["misses"], 0);
    assert!(
        outcome
            .ended
            .stderr
            .iter()
            .any(|line| line.trim() == "misses: 0"),
        "{}",
        outcome.ended
    );
}

#[test]
fn calls_that_come_while_finject_arms_and_heals_are_never_counted_wrongly() {
    needs_override!();
    let mut victim = Victim::pinned_threads(THREADS, scaled(400_000) / THREADS, "fsync");
    victim.go();
    let session = attach(&victim, "fsync=EIO@1+2").args(["--quiet"]).start();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let outcome = session.stop();
    let seen = victim.seen("self");
    println!("{} of {} calls while armed", outcome.matched(), seen.calls);
    every_firing_is_accounted_for(&seen, &outcome);
    assert_eq!(
        outcome.fired(),
        outcome.matched().div_ceil(2),
        "{}",
        outcome.ended
    );
}
