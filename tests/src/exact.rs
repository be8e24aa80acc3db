//! Counts over many calls, by every way: each call gets one number and no other call's, each firing is
//! one error and one record.
#![expect(
    clippy::missing_panics_doc,
    reason = "a helper of tests: to panic is how it fails"
)]

use std::{path::PathBuf, time::Instant};

use rustix::process::Signal;

use crate::{
    conformance::{Rig, Way},
    programs,
};

const THREADS: u64 = 8;
const EVERY: u64 = 1000;

/// Every thousandth of `calls` calls of eight threads that race, or of as many as make whole thousands
/// of each thread's.
pub fn every_thousandth(way: Way, finject: impl Into<PathBuf>, calls: u64) {
    let each = (calls / THREADS).next_multiple_of(EVERY);
    let (calls, firings) = (each * THREADS, each * THREADS / EVERY);
    let rig = Rig::of(way, finject);
    let rule = format!("getppid=EPERM@{EVERY}+{EVERY}");
    let start = Instant::now();
    let (threads, each) = (THREADS.to_string(), each.to_string());
    let victim = ["threads", &threads, &each, "getppid"];
    let seen = rig.work(&["--rule", &rule], &victim);
    println!("{way:?}: {calls} calls, {:.1?}", start.elapsed());
    let summary = &seen.summary;
    assert_eq!(
        (seen.own().calls, seen.own().errors, seen.own().errno),
        (calls, firings, 1),
        "{summary}"
    );
    assert_eq!(seen.threads.len() as u64, THREADS);
    assert_eq!(seen.threads.iter().sum::<u64>(), firings);
    assert_eq!(
        (seen.tally(0, "matched"), seen.tally(0, "fired")),
        (calls, firings),
        "{summary}"
    );
    for counter in ["lost", "contended", "shadowed"] {
        assert_eq!(seen.tally(0, counter), 0, "{summary}");
    }
    // The kernel tells nothing of what it left out before Linux 6.7.
    assert!(
        summary["misses"] == 0 || summary["misses"] == "unknown",
        "{summary}"
    );
    // Those without a record are said to be.
    let (counts, dropped) = (seen.counts(), seen.tally(0, "dropped"));
    assert_eq!(counts.len() as u64 + dropped, firings, "{summary}");
    let wanted: Vec<u64> = (1..=firings).map(|number| number * EVERY).collect();
    if dropped == 0 {
        assert_eq!(counts, wanted);
    } else {
        println!("{dropped} dropped");
        let is_wanted = |count: &u64| wanted.binary_search(count).is_ok();
        assert!(counts.is_sorted_by(|one, next| one < next) && counts.iter().all(is_wanted));
    }
}

/// More calls fail than there is room for records, while finject is stopped and reads none: those that
/// found no room are counted, in the summary and as a record.
pub fn firings_without_room(way: Way, finject: impl Into<PathBuf>) {
    const CALLS: u64 = 12_000;
    let rig = Rig::of(way, finject);
    let victim = ["threads", "2", &(CALLS / 2).to_string(), "getppid"];
    let mut running = rig.start(&["--rule", "getppid=EPERM"], programs::VICTIM, &victim);
    running.finject().signal(Signal::STOP);
    running.victim.go();
    let errors = running.victim.seen("self").errors;
    running.finject().signal(Signal::CONT);
    let (ended, summary, events) = running.finish();
    let counter = |name: &str| summary["rules"][0][name].as_u64().unwrap_or(u64::MAX);
    assert_eq!(
        (errors, counter("fired")),
        (CALLS, CALLS),
        "{way:?}: {ended}"
    );
    assert!(counter("dropped") > 0, "{way:?}: {summary}");
    let number = |kind: &str| events.iter().filter(|event| event["kind"] == kind).count() as u64;
    assert_eq!(
        number("fired") + counter("dropped"),
        CALLS,
        "{way:?}: {summary}"
    );
    let lost = events.iter().filter(|event| event["kind"] == "lost");
    let told: u64 = lost.filter_map(|event| event["number"].as_u64()).sum();
    assert_eq!(told, counter("dropped"), "{way:?}: {summary}");
}
