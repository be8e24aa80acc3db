//! `finject count`: the numbers are those of the calls that were made, and each rule named is one.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{path::Path, process::Command};

use finject_tests::{
    child::{Child, Ended, PATIENCE},
    conformance::summary_of,
    programs,
    victim::Victim,
};
use rustix::process::Signal;
use serde_json::Value;

fn count(options: &[&str]) -> Command {
    let mut command = Command::new("env");
    command
        .arg("--default-signal")
        .arg(Path::new(env!("CARGO_BIN_EXE_finject")))
        .arg("count")
        .args(options)
        .env("NO_COLOR", "1");
    command
}

/// What was counted of one call: how many, and by how many threads.
fn of(answer: &Value, call: &str) -> (u64, usize) {
    let mut calls = answer["calls"].as_array().unwrap().iter();
    let line = calls.find(|line| line["call"] == call);
    let line = line.unwrap_or_else(|| panic!("no {call}: {answer}"));
    let threads = line["threads"].as_array().unwrap();
    let sum: u64 = threads
        .iter()
        .map(|thread| thread["number"].as_u64().unwrap())
        .sum();
    assert_eq!(line["number"], sum);
    (sum, threads.len())
}

fn launched(victim: &[&str], program: &str) -> (Value, Ended) {
    let mut launcher = count(&["--json", "--", program]);
    let mut victim = Victim::launched_by(&mut launcher, victim);
    victim.go();
    let ended = victim.end();
    assert_eq!(ended.code(), Some(0), "{ended}");
    (summary_of(&ended), ended)
}

#[test]
fn a_launched_command_is_counted_from_its_entry_to_its_end() {
    let (answer, _) = launched(&["threads", "4", "250", "getppid"], programs::VICTIM);
    assert_eq!(of(&answer, "getppid"), (1000, 4));
    assert_eq!(of(&answer, "exit_group"), (1, 1));
    // The loader's are none of the program's.
    assert_eq!(of(&answer, "openat"), (1, 1));
}

#[test]
fn descendants_count_and_programs_after_an_exec() {
    let (answer, _) = launched(&["family", "10", "getppid"], programs::VICTIM);
    assert_eq!(of(&answer, "getppid"), (40, 4));
}

#[test]
fn calls_of_32_bit_programs_are_told_apart() {
    let (answer, _) = launched(&["threads", "1", "7", "fsync"], programs::VICTIM32);
    assert_eq!(of(&answer, "fsync@32"), (7, 1));
}

#[test]
fn a_running_process_is_counted_until_asked() {
    let mut victim = Victim::of(programs::VICTIM, &["threads", "3", "100", "getppid"]);
    let mut counting = Child::start(count(&["--json", "--pid"]).arg(victim.pid().to_string()));
    // It is traced from its first call on that is seen.
    finject_tests::child::eventually(PATIENCE, "it is traced", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", victim.pid())).unwrap();
        !status.contains("TracerPid:\t0\n")
    });
    assert_eq!(victim.work().errors, 0);
    counting.signal(Signal::INT);
    let ended = counting.wait(PATIENCE);
    assert_eq!(ended.code(), Some(0), "{ended}");
    let answer: Value = serde_json::from_str(&ended.out()).unwrap();
    assert_eq!(of(&answer, "getppid"), (300, 3));
    assert_eq!(victim.end().code(), Some(0));
}

#[test]
fn the_table_has_a_rule_to_begin_with() {
    let ended = Child::run(count(&["--"]).args(["sh", "-c", "cat /etc/hostname; exit 3"]));
    assert_eq!(ended.code(), Some(3), "{ended}");
    for words in [
        "   calls  call ",
        "to begin with",
        "--rule 'openat=ENOENT@1'",
        "exit_group",
    ] {
        assert!(ended.out().contains(words), "{words}: {ended}");
    }
    assert!(
        ended
            .err()
            .contains("calls of sh -c cat /etc/hostname; exit 3 by 2 threads"),
        "{ended}"
    );
}

#[test]
fn mistakes_are_told_as_elsewhere() {
    for (arguments, status, words) in [
        (&["--", "no-such-command"][..], 127, "command not found"),
        (&["--", "/etc/passwd"], 126, "not executable"),
        (&["--pid", "4000000"], 64, "there is no process"),
        (&[], 64, "no target"),
    ] {
        let ended = Child::run(&mut count(arguments));
        assert_eq!(ended.code(), Some(status), "{ended}");
        assert!(ended.err().contains(words), "{ended}");
    }
}
