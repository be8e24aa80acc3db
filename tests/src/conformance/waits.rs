//! The cases of calls that wait, and of what comes after a call.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use super::{Observed, Rig, fired};
use crate::{
    child::{PATIENCE, eventually},
    programs,
};

/// How long each firing's thread waited, before its call and after it, in milliseconds.
fn waits(seen: &Observed) -> Vec<(Option<u64>, Option<u64>)> {
    let ms = |event: &Value, name: &str| event[name].as_u64().map(|ns| ns / 1_000_000);
    fired(&seen.events)
        .into_iter()
        .map(|event| (ms(event, "delay_ns"), ms(event, "after_delay_ns")))
        .collect()
}

fn lasted(wait: Option<u64>, least_ms: u64) -> bool {
    wait.is_some_and(|ms| ms >= least_ms)
}

pub(super) fn a_call_waits_and_then_runs(rig: &Rig) {
    let rule = ["--rule", "write(fd!=1)=delay:20ms@4..6"];
    let seen = rig.work(&rule, &["threads", "1", "10", "write"]);
    assert_eq!((seen.own().errors, seen.own().size), (0, 10));
    assert_eq!(seen.counts(), [4, 5, 6]);
    for (before, after) in waits(&seen) {
        assert!(
            lasted(before, 20) && after.is_none(),
            "{before:?} {after:?}"
        );
    }
}

pub(super) fn a_call_waits_and_then_fails(rig: &Rig) {
    let rule = ["--rule", "getppid=delay:20ms+signal:SIGUSR1+EPERM@2"];
    let seen = rig.work(&rule, &["threads", "1", "3", "getppid"]);
    assert_eq!((seen.own().errors, seen.own().signals), (1, 1));
    assert!(lasted(waits(&seen)[0].0, 20), "{:?}", seen.events);
    assert_eq!(
        fired(&seen.events)[0]["action"],
        "delay+signal:SIGUSR1+EPERM"
    );
}

pub(super) fn a_hold_that_nobody_ends_ends_by_itself(rig: &Rig) {
    let rule = ["--rule", "getppid=hold:50ms+EPERM@2"];
    let seen = rig.work(&rule, &["threads", "1", "3", "getppid"]);
    assert_eq!(seen.own().errors, 1);
    assert!(lasted(waits(&seen)[0].0, 50), "{:?}", seen.events);
}

pub(super) fn waits_of_several_rules_come_one_after_another(rig: &Rig) {
    let rules = [
        ["--rule", "getppid=delay:20ms@2"],
        ["--rule", "getppid=EPERM@2"],
        ["--rule", "getppid=delay:30ms@2"],
    ];
    let seen = rig.work(&rules.concat(), &["threads", "1", "3", "getppid"]);
    assert_eq!(seen.own().errors, 1);
    let waits = waits(&seen);
    assert!(
        lasted(waits[0].0, 20) && lasted(waits[2].0, 30),
        "{waits:?}"
    );
    assert_eq!(waits[1], (None, None));
}

/// None is shorter than it was drawn; without a kernel, where no time passes, each is that to the millisecond.
pub(super) fn the_seed_draws_the_lengths(rig: &Rig) {
    let rule = ["--seed", "7", "--rule", "getppid=delay:1ms..200ms"];
    let seen = rig.work(&rule, &["threads", "1", "5", "getppid"]);
    let waits: Vec<u64> = waits(&seen).iter().filter_map(|wait| wait.0).collect();
    for (least, wait) in LENGTHS.iter().zip(&waits) {
        assert!(wait >= least, "{waits:?}");
    }
    assert_eq!(waits.len(), LENGTHS.len());
    if rig.mock.is_some() {
        assert_eq!(waits, LENGTHS);
    }
}

/// What the seed 7 draws, milliseconds.
const LENGTHS: [u64; 5] = [197, 9, 75, 22, 187];

/// One after another they would wait for more than half a minute.
pub(super) fn threads_wait_beside_one_another(rig: &Rig) {
    let rule = ["--rule", "getppid=delay:1s@1,per:thread"];
    let begun = Instant::now();
    let seen = rig.work(&rule, &["threads", "40", "2", "getppid"]);
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!((seen.own().errors, waits(&seen).len()), (0, 40));
}

/// The first thread, which waits for the others, too; then all go on as if nothing had been.
pub(super) fn all_threads_are_held(rig: &Rig) {
    let options = ["--rule", "getppid=stop@100"];
    // So many that none is through before it is held.
    let calls = if rig.way.backend() == "ebpf" {
        100_000
    } else {
        2000
    };
    let victim = ["threads", "4", &calls.to_string(), "getppid"];
    let mut running = rig.start(&options, programs::VICTIM, &victim);
    running.victim.go();
    let tasks = format!("/proc/{}/task", running.victim.worker());
    eventually(PATIENCE, "all threads are held", || {
        let threads = fs::read_dir(&tasks).unwrap().flatten();
        let stats =
            threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
        let held: Vec<_> = stats.map(|stat| stat.contains(") t ")).collect();
        held.len() == 5 && held.iter().all(|is_held| *is_held)
    });
    // And not by the session's end: nobody calls while hooks go.
    assert_eq!(rig.ctl(&mut running, &["release", "r1"])["released"], 1);
    let seen = running.victim.seen("self");
    assert_eq!((seen.calls, seen.errors), (4 * calls, 0));
    let (_, summary, events) = running.finish();
    assert_eq!(summary["rules"][0]["fired"], 1, "{summary}");
    assert_eq!(fired(&events)[0]["action"], "stop");
}

/// Like any other, and the session ends with it.
pub(super) fn a_held_process_can_be_killed(rig: &Rig) {
    let victim = ["threads", "2", "1", "getppid"];
    let mut running = rig.start(&["--rule", "getppid=hold:60s@1"], programs::VICTIM, &victim);
    running.victim.go();
    rig.ctl(&mut running, &["wait-hit", "r1", "--timeout", "10s"]);
    running.victim.signal_worker(Signal::KILL);
    let (ended, summary, _) = running.finish();
    let killed = if rig.way.launches() { Some(137) } else { None };
    assert_eq!(ended.code(), killed, "{ended}");
    assert_eq!(summary["ending"], "targets-ended", "{summary}");
}

/// A signal comes while the second call is held, which is released then: what the program says of it, and what finject does.
fn signalled_while_held(rig: &Rig, rule: &str, mode: &str) -> (String, Value, Vec<Value>) {
    let mut running = rig.start(&["--rule", rule], programs::BEFALLEN, &[mode, "5"]);
    running.victim.go();
    rig.ctl(&mut running, &["wait-hit", "r1", "--timeout", "10s"]);
    running.victim.signal_worker(Signal::USR1);
    thread::sleep(Duration::from_millis(100));
    assert_eq!(rig.ctl(&mut running, &["release", "r1"])["released"], 1);
    running.victim.done();
    let said = running.victim.lines().into_iter();
    let saw = said.filter(|line| line.starts_with("who=self")).collect();
    let (_, summary, events) = running.finish();
    (saw, summary, events)
}

/// It runs when the thread is let go, and no sooner.
pub(super) fn a_handler_may_jump_out_of_a_held_call(rig: &Rig) {
    let (saw, summary, _) = signalled_while_held(rig, "getppid=hold:60s@2", "jump");
    assert_eq!(saw, "who=self calls=4 errors=0 jumps=1");
    assert_eq!(summary["rules"][0]["matched"], 6, "{summary}");
}

/// And the call is followed by what the rule says, as if there had been no handler.
pub(super) fn a_handler_may_run_before_a_held_call(rig: &Rig) {
    let rule = "getppid=hold:60s+after:EPERM@2";
    let (saw, summary, events) = signalled_while_held(rig, rule, "handle");
    assert_eq!(saw, "who=self calls=5 errors=1 jumps=1");
    let rule = &summary["rules"][0];
    assert_eq!(
        (&rule["matched"], &rule["moot"]),
        (&6.into(), &0.into()),
        "{summary}"
    );
    let fired = fired(&events);
    assert_eq!(fired.len(), 1, "{summary}");
    assert_eq!(fired[0]["value"], -1, "{}", fired[0]);
}

/// The held thread is no more, and the program goes on under its rules.
pub(super) fn another_thread_may_exec_while_one_is_held(rig: &Rig) {
    for first in ["caller", "executer"] {
        let rules = ["--rule", "getppid=hold:60s@1", "--rule", "getppid=EPERM@3"];
        let then = [
            "exec",
            first,
            programs::VICTIM,
            "threads",
            "1",
            "3",
            "getppid",
        ];
        let mut running = rig.start(&rules, programs::BEFALLEN, &then);
        running.victim.go();
        rig.ctl(&mut running, &["wait-hit", "r1", "--timeout", "10s"]);
        // It executes the other program, and that begins.
        running.victim.go();
        running.victim.go();
        let seen = running.victim.seen("self");
        assert_eq!((seen.calls, seen.errors), (3, 1), "{first}");
        let (_, summary, _) = running.finish();
        assert_eq!(summary["rules"][1]["matched"], 4, "{first}: {summary}");
        assert_eq!(summary["rules"][1]["fired"], 1, "{first}: {summary}");
    }
}

/// They run the real call then.
pub(super) fn the_session_ends_waits(rig: &Rig) {
    let rule = ["--rule", "getppid=hold+EPERM@1,per:thread"];
    let options = [&rule[..], &["--duration", "1s"]].concat();
    let mut running = rig.start(
        &options,
        programs::VICTIM,
        &["threads", "8", "2", "getppid"],
    );
    running.victim.go();
    let seen = running.victim.seen("self");
    assert_eq!((seen.calls, seen.errors), (16, 0));
    let (_, summary, events) = running.finish();
    assert_eq!(summary["rules"][0]["fired"], 8, "{summary}");
    assert_eq!(summary["rules"][0]["lost"], 0, "{summary}");
    let fired = fired(&events);
    assert!(fired.iter().all(|event| event["action"] == "hold"));
    assert_eq!(fired.len(), 8);
}

pub(super) fn an_error_comes_after_the_write(rig: &Rig) {
    let rule = ["--rule", "write(fd!=1)=after:EIO@4..6"];
    let seen = rig.work(&rule, &["threads", "1", "10", "write"]);
    assert_eq!((seen.own().errors, seen.own().errno), (3, 5));
    assert_eq!(seen.own().size, 10, "all is written");
    assert_eq!(fired(&seen.events)[0]["action"], "after:EIO");
    assert_eq!(fired(&seen.events)[0]["value"], -5);
}

/// The second time there is no such file.
pub(super) fn an_error_comes_after_a_success_only(rig: &Rig) {
    let rule = ["--rule", "unlink=after:EIO@1..2"];
    let seen = rig.work(&rule, &["threads", "1", "2", "unlink"]);
    assert_eq!((seen.own().errors, seen.own().errno), (2, 5));
    assert!(!seen.own().exists);
    assert_eq!((seen.tally(0, "fired"), seen.tally(0, "moot")), (1, 1));
    assert_eq!(seen.tally(0, "lost"), 0);
}

pub(super) fn a_made_up_result_comes_after_the_call(rig: &Rig) {
    let rule = ["--rule", "write(fd!=1)=after:ret:0@3"];
    let seen = rig.work(&rule, &["threads", "1", "5", "write"]);
    assert_eq!((seen.own().zeros, seen.own().size), (1, 5));
}

pub(super) fn a_kill_comes_after_its_call(rig: &Rig) {
    let rule = ["--rule", "unlink=after:kill@1"];
    let mut running = rig.start(&rule, programs::VICTIM, &["threads", "1", "2", "unlink"]);
    let file = running.victim.file();
    assert!(fs::exists(&file).unwrap());
    running.victim.go();
    let (ended, summary, _) = running.finish();
    let status = if rig.way.launches() { Some(137) } else { None };
    assert_eq!(ended.code(), status, "{ended}");
    assert!(!fs::exists(&file).unwrap());
    assert_eq!(summary["rules"][0]["fired"], 1, "{summary}");
}

pub(super) fn a_signal_comes_after_the_call(rig: &Rig) {
    let rule = ["--rule", "getppid=after:signal:SIGUSR1@2"];
    let seen = rig.work(&rule, &["threads", "1", "5", "getppid"]);
    assert_eq!((seen.own().errors, seen.own().signals), (0, 1));
    assert_eq!(fired(&seen.events)[0]["action"], "after:signal:SIGUSR1");
}

pub(super) fn a_call_waits_after_it_has_run(rig: &Rig) {
    let rule = ["--rule", "write(fd!=1)=after:EIO+after:delay:20ms@2"];
    let seen = rig.work(&rule, &["threads", "1", "3", "write"]);
    assert_eq!((seen.own().errors, seen.own().size), (1, 3));
    let waits = waits(&seen);
    assert!(waits[0].0.is_none() && lasted(waits[0].1, 20), "{waits:?}");
}
