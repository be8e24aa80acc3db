//! Every action and every condition, on a real kernel. Rules on write end before the victim writes
//! what it saw.

use std::fs;

use finject_tests::{
    child::PATIENCE,
    errno::{EINTR, EIO, ENOSPC, SIGKILL},
    finject::{Outcome, attach, calls_under, work_under},
    needs_override,
    victim::{Seen, Victim},
};
use std::os::unix::process::ExitStatusExt as _;

/// The numbers of the calls that fire among twenty of one thread.
fn counts_of_twenty(rule: &str) -> Vec<u64> {
    let (seen, outcome) = calls_under(20, "fsync", rule);
    assert_eq!(
        (seen.calls, outcome.matched()),
        (20, 20),
        "{rule}: {}",
        outcome.ended
    );
    assert_eq!(seen.errors, outcome.fired(), "{rule}: {}", outcome.ended);
    outcome.counts()
}

#[test]
fn an_errno_is_what_the_caller_sees() {
    needs_override!();
    for (name, number) in [
        ("EIO", EIO),
        ("ENOSPC", ENOSPC),
        ("error:122", 122),
        ("error:4095", 4095),
    ] {
        let (seen, outcome) = calls_under(3, "fsync", &format!("fsync={name}@2"));
        assert_eq!(
            (seen.errors, seen.errno),
            (1, number),
            "{name}: {}",
            outcome.ended
        );
        assert_eq!(outcome.kind("fired")[0]["value"], -number, "{name}");
    }
}

#[test]
fn a_made_up_result_is_what_the_caller_sees() {
    needs_override!();
    let (seen, outcome) = calls_under(5, "write", "write=ret:1@2..5");
    assert_eq!(
        (seen.errors, seen.size),
        (0, 1),
        "only the first ran: {}",
        outcome.ended
    );
    assert_eq!(outcome.kind("fired")[0]["action"], "ret:1");
    let (seen, outcome) = calls_under(5, "getppid", "getppid=ret:0@3");
    assert_eq!((seen.errors, seen.zeros), (0, 1), "{}", outcome.ended);
}

#[test]
fn a_signal_comes_and_the_call_runs() {
    needs_override!();
    let (seen, outcome) = calls_under(5, "write", "write=signal:SIGUSR1@2");
    assert_eq!(
        (seen.signals, seen.errors, seen.size),
        (1, 0, 5),
        "{}",
        outcome.ended
    );
    assert_eq!(outcome.counts(), [2], "{}", outcome.ended);
    assert_eq!(outcome.kind("fired")[0]["action"], "signal:SIGUSR1");
}

#[test]
fn a_signal_interrupts_a_call_that_blocks() {
    needs_override!();
    let (seen, outcome) = calls_under(1, "pause", "pause=signal:SIGUSR1@1");
    assert_eq!(
        (seen.signals, seen.errors, seen.errno),
        (1, 1, EINTR),
        "{}",
        outcome.ended
    );
}

#[test]
fn a_signal_and_an_errno_come_together() {
    needs_override!();
    let (seen, outcome) = calls_under(5, "write", "write=signal:SIGUSR1+ENOSPC@4");
    assert_eq!(
        (seen.signals, seen.errors, seen.errno),
        (1, 1, ENOSPC),
        "{}",
        outcome.ended
    );
    assert_eq!(seen.size, 4, "{}", outcome.ended);
    assert_eq!(outcome.kind("fired")[0]["action"], "signal:SIGUSR1+ENOSPC");
}

#[test]
fn a_signal_goes_to_the_thread_that_calls() {
    needs_override!();
    let mut victim = Victim::threads(4, 100, "write");
    let (seen, outcome) = work_under(&mut victim, &["write=signal:SIGUSR1@50+50,max:6"], &[]);
    assert_eq!(
        (seen.signals, seen.errors, seen.size),
        (6, 0, 400),
        "{}",
        outcome.ended
    );
}

#[test]
fn a_kill_ends_the_process_and_the_call_does_not_run() {
    needs_override!();
    let mut victim = Victim::threads(1, 10, "write");
    let path = victim.file();
    let session = attach(&victim, "write=kill@4").start();
    victim.go();
    let ended = victim.child().wait(PATIENCE);
    assert_eq!(ended.status.signal(), Some(SIGKILL), "{ended}");
    assert_eq!(fs::metadata(&path).unwrap().len(), 3);
    let outcome = session.wait(PATIENCE);
    assert_eq!(
        (outcome.code(), outcome.fired()),
        (Some(0), 1),
        "{}",
        outcome.ended
    );
    assert_eq!(outcome.summary["ending"], "targets-ended");
    assert_eq!(outcome.kind("fired")[0]["action"], "kill");
    assert_eq!(outcome.kind("target-killed")[0]["signal"], SIGKILL);
}

#[test]
fn of_several_results_the_first_rule_decides() {
    needs_override!();
    let rules = ["fsync=ENOSPC@3..4", "fsync=EIO"];
    let (seen, outcome) = work_under(&mut Victim::threads(1, 6, "fsync"), &rules, &[]);
    assert_eq!(seen.errors, 6, "{}", outcome.ended);
    let tally = |rule| {
        (
            outcome.tally(rule, "matched"),
            outcome.tally(rule, "fired"),
            outcome.tally(rule, "shadowed"),
        )
    };
    assert_eq!(
        (tally(0), tally(1)),
        ((6, 2, 0), (6, 4, 2)),
        "{}",
        outcome.ended
    );
    let values: Vec<_> = outcome
        .kind("fired")
        .iter()
        .map(|event| event["value"].as_i64().unwrap())
        .collect();
    assert_eq!(values, [-5, -5, -28, -28, -5, -5], "in the order of calls");
}

#[test]
fn a_signal_of_one_rule_goes_with_the_result_of_another() {
    needs_override!();
    let rules = ["write=EIO@2", "%write=signal:SIGUSR1@2"];
    let (seen, outcome) = work_under(&mut Victim::threads(1, 3, "write"), &rules, &[]);
    assert_eq!(
        (seen.signals, seen.errors, seen.size),
        (1, 1, 2),
        "{}",
        outcome.ended
    );
    assert_eq!(
        (outcome.tally(0, "fired"), outcome.tally(1, "fired")),
        (1, 1),
        "{}",
        outcome.ended
    );
}

#[test]
fn a_result_that_lost_uses_up_nothing() {
    needs_override!();
    let rules = ["fsync=ENOSPC@1..3", "fsync=EIO@max:2"];
    let (seen, outcome) = work_under(&mut Victim::threads(1, 10, "fsync"), &rules, &[]);
    assert_eq!(seen.errors, 5, "{}", outcome.ended);
    assert_eq!(
        (outcome.tally(1, "fired"), outcome.tally(1, "shadowed")),
        (2, 3),
        "{}",
        outcome.ended
    );
}

#[test]
fn calls_are_selected_by_number() {
    needs_override!();
    for (when, expected) in [
        ("@3", vec![3]),
        ("@18+", vec![18, 19, 20]),
        ("@5..7", vec![5, 6, 7]),
        ("@2+6", vec![2, 8, 14, 20]),
        ("@1..10+4", vec![1, 5, 9]),
        ("@4+,max:3", vec![4, 5, 6]),
        ("@21", vec![]),
    ] {
        assert_eq!(
            counts_of_twenty(&format!("fsync=EIO{when}")),
            expected,
            "{when}"
        );
    }
}

#[test]
fn a_chain_goes_step_by_step() {
    needs_override!();
    for (chain, expected) in [
        ("fsync=2*off->EIO->off", vec![3]),
        ("fsync=3*EIO->2*off->ENOSPC->off", vec![1, 2, 3, 6]),
        ("fsync=2*EIO", vec![1, 2]),
        ("fsync=17*off->EIO", vec![18, 19, 20]),
        ("fsync=off->EIO->off@2+5", vec![7]),
        ("fsync=off->EIO@5+,max:2", vec![6, 7]),
    ] {
        assert_eq!(counts_of_twenty(chain), expected, "{chain}");
    }
}

#[test]
fn a_chain_of_eight_threads_takes_each_step_once() {
    needs_override!();
    let rule = "fsync=1000*off->7*EIO->off";
    let (seen, outcome) = work_under(&mut Victim::threads(8, 250, "fsync"), &[rule], &[]);
    assert_eq!((seen.calls, seen.errors), (2000, 7), "{}", outcome.ended);
    assert_eq!(
        (outcome.fired(), outcome.tally(0, "contended")),
        (7, 0),
        "{}",
        outcome.ended
    );
}

#[test]
fn each_thread_has_a_count_of_its_own() {
    needs_override!();
    let mut victim = Victim::threads(8, 100, "fsync");
    let (_, outcome) = work_under(&mut victim, &["fsync=EIO@7,per:thread"], &[]);
    assert_eq!(victim.errors_of_threads(), [1; 8], "{}", outcome.ended);
    assert_eq!(
        (outcome.matched(), outcome.counts()),
        (800, vec![7; 8]),
        "{}",
        outcome.ended
    );
}

fn drawn(seed: &str) -> (Seen, Outcome) {
    let mut victim = Victim::threads(1, 1000, "fsync");
    work_under(&mut victim, &["fsync=EIO@10%"], &["--seed", seed])
}

#[test]
fn the_same_seed_draws_the_same_calls() {
    needs_override!();
    let ((seen, first), (_, second), (_, other)) = (drawn("7"), drawn("7"), drawn("8"));
    assert_eq!(first.counts(), second.counts());
    assert_ne!(first.counts(), other.counts());
    // Four standard deviations of a thousand draws of one in ten.
    assert!((62..=138).contains(&seen.errors), "{}", first.ended);
    assert_eq!(first.summary["seed"], 7);
}

#[test]
fn a_run_prints_a_seed_that_repeats_it() {
    needs_override!();
    let mut victim = Victim::threads(1, 500, "fsync");
    let (_, first) = work_under(&mut victim, &["fsync=EIO@20%"], &[]);
    let seed = first.summary["seed"].to_string();
    assert!(
        first.ended.err().contains(&format!("seed {seed}")),
        "{}",
        first.ended
    );
    let mut victim = Victim::threads(1, 500, "fsync");
    let (_, second) = work_under(&mut victim, &["fsync=EIO@20%"], &["--seed", &seed]);
    assert_eq!(first.counts(), second.counts());
}

#[test]
fn faults_keep_to_their_time() {
    const SECOND: u64 = 1_000_000_000;
    needs_override!();
    let victim = Victim::looping("fsync");
    let session = attach(&victim, "fsync=EIO@start:1s,for:1s")
        .args(["--duration", "6s"])
        .start();
    let outcome = session.wait(PATIENCE);
    let armed = outcome.kind("armed")[0]["mono_ns"].as_u64().unwrap();
    let changes: Vec<_> = victim
        .changes()
        .iter()
        .filter(|change| change.at_ns > armed)
        .map(|change| (change.fails, change.at_ns - armed))
        .collect();
    let [(true, from), (false, to)] = changes[..] else {
        panic!("not one storm: {changes:?}: {}", outcome.ended);
    };
    println!("from {from} to {to} ns");
    assert!((SECOND..2 * SECOND).contains(&from), "{from}");
    assert!((2 * SECOND..4 * SECOND).contains(&to), "{to}");
}

#[test]
fn a_dry_run_counts_and_fires_nothing() {
    needs_override!();
    let mut victim = Victim::threads(1, 10, "write");
    let rules = ["write=signal:SIGUSR1+EIO@3..10"];
    let (seen, outcome) = work_under(&mut victim, &rules, &["--dry-run"]);
    assert_eq!(
        (seen.errors, seen.signals, seen.size),
        (0, 0, 10),
        "{}",
        outcome.ended
    );
    assert_eq!(
        (outcome.fired(), outcome.summary["dry_run"].as_bool()),
        (8, Some(true)),
        "{}",
        outcome.ended
    );
    assert!(outcome.kind("fired").is_empty());
    assert_eq!(outcome.summary["dry_run"], true);
    assert!(
        outcome.ended.err().contains("would fire"),
        "{}",
        outcome.ended
    );
}

#[test]
fn classes_regexes_and_complements_name_calls() {
    needs_override!();
    for rule in [
        "%sync=EIO@2",
        "/^fsync$/=EIO@2",
        "fdatasync,fsync=EIO@2",
        "%sync,!fdatasync=EIO@2",
        "74=EIO@2",
    ] {
        let (seen, outcome) = calls_under(5, "fsync", rule);
        assert_eq!(
            (seen.errors, outcome.matched()),
            (1, 5),
            "{rule}: {}",
            outcome.ended
        );
    }
    let (seen, outcome) = calls_under(5, "fsync", "%sync,!fsync=EIO");
    assert_eq!(
        (seen.errors, outcome.matched()),
        (0, 0),
        "{}",
        outcome.ended
    );
}

#[test]
fn a_firing_puts_others_in_force_and_itself_out_of_it() {
    needs_override!();
    let file = "/tmp/arming.toml";
    fs::write(
        file,
        "[[rule]]\nname = \"first\"\nrule = \"fsync=EIO@3\"\narms = [\"second\"]\ndisarms = [\"first\"]\n\
         [[rule]]\nname = \"second\"\nrule = \"fsync=ENOSPC@2\"\narmed = false\n",
    )
    .unwrap();
    let mut victim = Victim::threads(1, 10, "fsync");
    let (seen, outcome) = work_under(&mut victim, &[], &["--rules", file]);
    assert_eq!((seen.errors, seen.errno), (2, EIO), "{}", outcome.ended);
    let counts = |rule| (outcome.tally(rule, "matched"), outcome.tally(rule, "fired"));
    assert_eq!([0, 1].map(counts), [(3, 1), (7, 1)], "{}", outcome.ended);
    // The fifth call of all: the second begins with one.
    assert_eq!(outcome.counts(), [2, 3], "{}", outcome.ended);
}

#[test]
fn a_short_delay_is_spun_away_without_a_tracer() {
    needs_override!();
    let mut victim = Victim::threads(1, 200, "fsync");
    let pid = victim.pid();
    let session = attach(&victim, "fsync=delay:50us..100us+EIO@2+2").start();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("TracerPid:\t0\n"), "{status}");
    let seen = victim.work();
    let outcome = session.stop();
    assert_eq!(
        (seen.errors, outcome.fired()),
        (100, 100),
        "{}",
        outcome.ended
    );
    let waited = outcome
        .kind("fired")
        .into_iter()
        .map(|event| event["delay_ns"].as_u64());
    let waited: Vec<u64> = waited.flatten().collect();
    assert!(waited.iter().all(|ns| *ns >= 50_000), "{waited:?}");
    assert_eq!(waited.len(), 100);
    assert_eq!(outcome.kind("fired")[0]["action"], "delay+EIO");
}
