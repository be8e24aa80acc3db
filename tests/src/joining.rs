//! Rules that join a session and leave it while calls are decided: each means what it would have meant from the start, and
//! the counts of the others go on as if it had not come. One body for every backend.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a helper of tests: to panic is how it fails"
)]

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::{
    child::{Ended, PATIENCE, eventually},
    conformance::{Rig, Running, Way},
    finject::Finject,
    programs,
    victim::Victim,
};

/// A rule that names the call from the start, where only such calls come to finject.
fn first_rule(way: Way) -> &'static str {
    if way.launches() {
        "getppid=EPERM@999999999"
    } else {
        "fsync=EPERM"
    }
}

fn rules(rig: &Rig, running: &mut Running) -> Vec<Value> {
    let status = rig.ctl(running, &["status"]);
    status["rules"].as_array().unwrap().clone()
}

fn refused(ended: &Ended, says: &[&str]) {
    assert_eq!(ended.code(), Some(64), "{ended}");
    for part in says {
        assert!(ended.err().contains(part), "{part}: {ended}");
    }
}

/// It comes, is there once however often it is asked for, goes, and comes again under its name.
pub fn a_rule_joins_and_leaves(way: Way, finject: impl Into<PathBuf>) {
    let rig = Rig::of(way, finject);
    let mut running = rig.start(
        &["--rule", first_rule(way)],
        programs::VICTIM,
        &["loop", "getppid"],
    );
    let rule = "getppid=EIO";
    let added = rig.ctl(&mut running, &["add", rule]);
    assert_eq!(
        (&added["added"], &added["rule"], &added["armed"]),
        (&1.into(), &"r2".into(), &true.into()),
        "{way:?}"
    );
    running.victim.until(PATIENCE, true);
    // In whatever way it is spelled.
    let again = rig.ctl(&mut running, &["add", " getppid=EIO "]);
    assert_eq!((&again["added"], &again["rule"]), (&0.into(), &"r2".into()));
    let fired = rules(&rig, &mut running)[1]["fired"].as_u64().unwrap();
    assert!(fired > 0, "{way:?}");
    for removed in [1, 0] {
        let answer = rig.ctl(&mut running, &["remove", "r2"]);
        assert_eq!(answer["removed"], removed, "{way:?}");
        running.victim.until(PATIENCE, false);
    }
    assert_eq!(rules(&rig, &mut running).len(), 1, "{way:?}");
    for command in ["arm", "disarm", "release", "wait-hit"] {
        let ended = rig.try_ctl(&mut running, &[command, "r2"]);
        refused(&ended, &["r2 was removed", "ctl add"]);
    }
    let added = rig.ctl(&mut running, &["add", rule]);
    assert_eq!((&added["added"], &added["rule"]), (&1.into(), &"r2".into()));
    // What it did before is not forgotten.
    let status = rules(&rig, &mut running);
    assert!(status[1]["fired"].as_u64() >= Some(fired), "{way:?}");
    running.victim.until(PATIENCE, true);
    rig.ctl(&mut running, &["remove", "r2"]);
    running.victim.until(PATIENCE, false);

    let named = ["add", "--name", "lies", "--disarmed", "getppid=ret:7"];
    let added = rig.ctl(&mut running, &named);
    assert_eq!(
        (&added["rule"], &added["armed"]),
        (&"lies".into(), &false.into())
    );
    assert_eq!(rig.ctl(&mut running, &["arm", "lies"])["armed"], 1);
    rig.ctl(&mut running, &["wait-hit", "lies", "--timeout", "10s"]);
    for (command, says) in [
        (&["remove", "r9"][..], &["no rule r9", "r1, r2, lies"][..]),
        (&["add", "fsync=EWHAT"], &["EWHAT"]),
        (
            &["add", "--name", "a b", "getppid=EIO"],
            &["`a b`", "letters"],
        ),
        (
            &["add", "--name", "lies", "getppid=EINTR"],
            &["lies is the name of another rule", "choose another"],
        ),
    ] {
        refused(&rig.try_ctl(&mut running, command), says);
    }
    assert_eq!(rules(&rig, &mut running).len(), 2, "{way:?}");
    rig.ctl(&mut running, &["stop"]);
    let (_, summary, _) = running.finish();
    assert_eq!(summary["rules"].as_array().unwrap().len(), 3, "{summary}");
}

/// A session in which nobody was to be held holds somebody.
pub fn a_rule_that_holds_joins(way: Way, finject: impl Into<PathBuf>) {
    let rig = Rig::of(way, finject);
    let mut running = rig.start(
        &["--rule", first_rule(way)],
        programs::VICTIM,
        &["threads", "2", "3", "getppid"],
    );
    rig.ctl(&mut running, &["add", "getppid=hold:60s+EPERM@1,per:rule"]);
    rig.ctl(&mut running, &["add", "getppid=hold:60s@2"]);
    running.victim.go();
    for rule in ["r2", "r3"] {
        rig.ctl(&mut running, &["wait-hit", rule, "--timeout", "10s"]);
    }
    assert_eq!(rig.ctl(&mut running, &["release", "r2"])["released"], 1);
    // Whoever is held by a rule that goes, goes on.
    let removed = rig.ctl(&mut running, &["remove", "r3"]);
    assert_eq!(
        (&removed["removed"], &removed["released"]),
        (&1.into(), &1.into()),
        "{way:?}"
    );
    let seen = running.victim.seen("self");
    assert_eq!((seen.calls, seen.errors), (6, 1), "{way:?}");
    rig.ctl(&mut running, &["stop"]);
    running.finish();
}

/// Rules join that need more of whoever decides, one by one, while a program calls: every thousandth of its calls is hit all
/// the same, and none is counted twice or not at all.
pub fn counts_go_on_while_rules_join(way: Way, finject: impl Into<PathBuf>) {
    let rig = Rig::of(way, finject);
    let every = "getppid=EPERM@1000+1000";
    let mut running = rig.start(&["--rule", every], programs::BEFALLEN, &["count", "0"]);
    let matched = |rig: &Rig, running: &mut Running| {
        let rules = rules(rig, running);
        rules[0]["matched"].as_u64().unwrap()
    };
    let goes_on = |running: &mut Running| {
        let before = matched(&rig, running);
        eventually(PATIENCE, "it goes on calling", || {
            matched(&rig, running) > before
        });
    };
    running.victim.go();
    for rule in [
        // Each needs what the ones before did not: arguments, a spin, a tracer, data.
        "lseek(fd=77)=EIO",
        "getppid=delay:3us@1",
        "getppid=delay:2ms@7",
        "pwrite64=short:50%@999999999",
    ] {
        if !rule.starts_with("getppid") && way.launches() {
            continue;
        }
        goes_on(&mut running);
        rig.ctl(&mut running, &["add", rule]);
    }
    goes_on(&mut running);
    running.victim.go();
    running.victim.done();
    let said = running.victim.lines();
    let saw = said
        .iter()
        .find(|line| line.starts_with("who=self"))
        .unwrap();
    let number = |name: &str| -> u64 {
        let word = saw.split(' ').find_map(|word| word.strip_prefix(name));
        word.unwrap().parse().unwrap()
    };
    // It has called once before, to know what to expect.
    let (calls, errors) = (number("calls=") + 1, number("errors="));
    assert_eq!(errors, calls / 1000, "{way:?}: {saw}");
    let rules = rules(&rig, &mut running);
    assert_eq!(
        (&rules[0]["matched"], &rules[0]["fired"]),
        (&calls.into(), &errors.into()),
        "{way:?}: {saw}"
    );
    rig.ctl(&mut running, &["stop"]);
    running.finish();
}

/// What does not come to finject is refused, with what to do, and nothing has changed.
pub fn calls_that_are_not_handed_over_are_refused(way: Way, finject: impl Into<PathBuf>) {
    let rig = Rig::of(way, finject);
    let mut running = rig.start(
        &["--rule", first_rule(way)],
        programs::VICTIM,
        &["loop", "getppid"],
    );
    let ended = rig.try_ctl(&mut running, &["add", "fsync=EIO"]);
    refused(&ended, &["fsync", "armed = false"]);
    assert_eq!(rules(&rig, &mut running).len(), 1, "{way:?}");
    rig.ctl(&mut running, &["stop"]);
    running.finish();
}

/// The functions of no rule are hooked no longer, and those of a new one are.
pub fn only_what_is_needed_is_hooked(finject: impl Into<PathBuf>) {
    let rig = Rig::of(Way::EbpfAttach, finject);
    let mut running = rig.start(
        &["--rule", "fsync=EPERM"],
        programs::VICTIM,
        &["loop", "fdatasync"],
    );
    // Kprobes on the first instruction of a function are the tracer's, which lists them.
    let hooked = || {
        let list = fs::read_to_string("/sys/kernel/tracing/enabled_functions").unwrap();
        ["__x64_sys_fsync", "__x64_sys_fdatasync"]
            .map(|function| list.lines().any(|line| line.starts_with(function)))
    };
    assert_eq!(hooked(), [true, false]);
    rig.ctl(&mut running, &["add", "fdatasync=EIO"]);
    assert_eq!(hooked(), [true, true]);
    running.victim.until(PATIENCE, true);
    rig.ctl(&mut running, &["remove", "r1"]);
    assert_eq!(hooked(), [false, true]);
    rig.ctl(&mut running, &["remove", "r2"]);
    assert_eq!(hooked(), [false, false]);
    running.victim.until(PATIENCE, false);
    rig.ctl(&mut running, &["add", "fdatasync=EIO"]);
    running.victim.until(PATIENCE, true);
    rig.ctl(&mut running, &["stop"]);
    running.finish();
    assert_eq!(hooked(), [false, false]);
}

/// The table of such counters is made when a session begins.
pub fn rules_by_thread_are_refused(finject: impl Into<PathBuf>) {
    let rig = Rig::of(Way::EbpfAttach, finject);
    let mut running = rig.start(
        &["--rule", "fsync=EPERM"],
        programs::VICTIM,
        &["loop", "getppid"],
    );
    let ended = rig.try_ctl(&mut running, &["add", "getppid=EIO@3,per:thread"]);
    refused(&ended, &["by process or thread", "armed = false"]);
    assert_eq!(rules(&rig, &mut running).len(), 1);
    rig.ctl(&mut running, &["add", "getppid=EIO"]);
    running.victim.until(PATIENCE, true);
    rig.ctl(&mut running, &["stop"]);
    running.finish();
}

/// A rule whose threads cannot be held is refused, and the session goes on as before: also where some of its targets'
/// could be.
pub fn a_refused_rule_changes_nothing(finject: impl Into<PathBuf>) {
    let finject = finject.into();
    let traced = Victim::of(programs::VICTIM, &["threads", "1", "1", "fsync"]);
    let other = Finject::of(&finject).args(["--backend", "ptrace"]);
    let other = other.rule("fsync=EPERM").pid(traced.pid()).start();
    let rig = Rig::of(Way::EbpfAttach, finject);
    let pid = traced.pid().to_string();
    let mut running = rig.start(
        &["--rule", "getppid=EIO", "--pid", &pid],
        programs::VICTIM,
        &["loop", "getppid"],
    );
    running.victim.until(PATIENCE, true);
    let ended = rig.try_ctl(&mut running, &["add", "getppid=hold@999999999"]);
    refused(&ended, &["is traced already", "one tracer"]);
    assert_eq!(rules(&rig, &mut running).len(), 1);
    for _ in 0..2 {
        rig.ctl(&mut running, &["disarm", "r1"]);
        running.victim.until(PATIENCE, false);
        assert_eq!(rig.ctl(&mut running, &["arm", "r1"])["armed"], 1);
        running.victim.until(PATIENCE, true);
    }
    other.stop();
    rig.ctl(&mut running, &["add", "getppid=hold@999999999"]);
    rig.ctl(&mut running, &["stop"]);
    running.finish();
}
