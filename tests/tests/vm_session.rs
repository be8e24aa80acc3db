//! A session from the command line's side: how it starts, what it says, and how it ends.

use std::{
    fs,
    io::{Read as _, Write as _},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use finject_tests::{
    child::{Child, PATIENCE, eventually},
    errno::EIO,
    finject::{Finject, attach, finject, work_under},
    guest, kernel, needs_override,
    victim::Victim,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const FIRED: Option<i32> = Some(0);
const NEVER_FIRED: Option<i32> = Some(124);

#[test]
fn a_rule_that_must_fire_and_does() {
    needs_override!();
    let mut victim = Victim::threads(1, 5, "fsync");
    let (_, outcome) = work_under(&mut victim, &["fsync=EIO@3"], &["--must-fire"]);
    assert_eq!(outcome.code(), FIRED, "{}", outcome.ended);
}

#[test]
fn a_rule_that_must_fire_and_does_not() {
    needs_override!();
    let mut victim = Victim::threads(1, 2, "fsync");
    let rules = ["fsync=EIO@1", "fsync=EIO@3", "unlink=EIO"];
    let (_, outcome) = work_under(&mut victim, &rules, &["--must-fire"]);
    assert_eq!(outcome.code(), NEVER_FIRED, "{}", outcome.ended);
    for why in [
        "r2 never fired: 2 calls came, and the rule begins with number 3",
        "r3 never fired: no target called unlink",
    ] {
        assert!(
            outcome.ended.err().contains(why),
            "no {why:?}: {}",
            outcome.ended
        );
    }
    assert!(
        !outcome.ended.err().contains("r1 never"),
        "{}",
        outcome.ended
    );
}

#[test]
fn time_that_is_up_heals() {
    needs_override!();
    let victim = Victim::looping("fsync");
    let started = Instant::now();
    let session = attach(&victim, "fsync=EIO")
        .args(["--duration", "2s"])
        .start();
    victim.until(PATIENCE, true);
    let outcome = session.wait(PATIENCE);
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert_eq!(
        (outcome.code(), &outcome.summary["ending"]),
        (Some(0), &"time-up".into())
    );
    let elapsed = outcome.summary["elapsed_ns"].as_u64().unwrap();
    assert!(
        (2_000_000_000..10_000_000_000).contains(&elapsed),
        "{elapsed}"
    );
    victim.until(Duration::from_secs(2), false);
}

#[test]
fn a_target_that_ends_ends_the_session() {
    needs_override!();
    let mut victim = Victim::threads(1, 5, "fsync");
    let session = attach(&victim, "fsync=EIO@2").start();
    victim.work();
    assert_eq!(victim.end().code(), Some(0));
    let outcome = session.wait(PATIENCE);
    assert_eq!(
        (outcome.code(), &outcome.summary["ending"]),
        (Some(0), &"targets-ended".into())
    );
    let kinds: Vec<_> = outcome
        .events
        .iter()
        .map(|event| event["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["armed", "fired", "target-exited", "disarmed", "healed"]
    );
}

#[test]
fn the_last_of_several_targets_ends_the_session() {
    needs_override!();
    let (mut first, mut second) = (
        Victim::threads(1, 5, "fsync"),
        Victim::threads(1, 5, "fsync"),
    );
    let mut session = Finject::new()
        .pid(first.pid())
        .pid(second.pid())
        .pid(first.pid())
        .rule("fsync=EIO@4+4")
        .start();
    assert_eq!(first.work().errors, 1);
    first.end();
    thread::sleep(Duration::from_secs(1));
    assert!(!session.child().has_ended());
    assert_eq!(second.work().errors, 1);
    second.end();
    let outcome = session.wait(PATIENCE);
    assert_eq!(
        (outcome.code(), outcome.counts()),
        (Some(0), vec![4, 8]),
        "{}",
        outcome.ended
    );
    assert_eq!(outcome.summary["targets"], 2);
}

#[test]
fn rules_come_from_the_environment_too() {
    needs_override!();
    let mut victim = Victim::threads(1, 5, "fsync");
    let session = Finject::new()
        .pid(victim.pid())
        .env("FINJECT_RULES", "fsync=EIO@2;unlink=EIO")
        .start();
    let seen = victim.work();
    let outcome = session.stop();
    assert_eq!(
        (seen.errors, outcome.counts()),
        (1, vec![2]),
        "{}",
        outcome.ended
    );
    assert_eq!(outcome.summary["rules"][1]["rule"], "unlink=EIO");
}

#[test]
fn rules_come_from_files_too() {
    needs_override!();
    let path = "/tmp/rules.toml";
    let text = "description = \"one\"\n[vars]\nwhich = \"EIO\"\n\
                [[rule]]\nname = \"second\"\nrule = 'fsync=EIO@2'\npurpose = \"?\"\n";
    fs::write(path, text).unwrap();
    let mut victim = Victim::threads(1, 5, "fsync");
    let session = Finject::new()
        .pid(victim.pid())
        .args(["--rules", path])
        .rule("fsync=EIO@4")
        .start();
    let seen = victim.work();
    let outcome = session.stop();
    assert_eq!(
        (seen.errors, outcome.counts()),
        (2, vec![2, 4]),
        "{}",
        outcome.ended
    );
    let rules: Vec<_> = outcome
        .kind("fired")
        .iter()
        .map(|event| event["rule"].clone())
        .collect();
    assert_eq!(rules, ["second", "r1"]);
}

#[test]
fn events_go_to_standard_output_when_asked() {
    needs_override!();
    let mut victim = Victim::threads(1, 5, "fsync");
    let pid = victim.pid().to_string();
    let mut command = finject([
        "--pid",
        &pid,
        "--rule",
        "fsync=EIO@3",
        "--events",
        "-",
        "--quiet",
    ]);
    let mut session = Child::start(&mut command);
    session.expect_line(PATIENCE, |line| line.contains("\"armed\""));
    victim.work();
    victim.end();
    let ended = session.wait(PATIENCE);
    assert_eq!(
        (ended.code(), ended.err().as_str()),
        (Some(0), ""),
        "{ended}"
    );
    let events: Vec<Value> = ended
        .stdout
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let fired: Vec<_> = events
        .iter()
        .filter(|event| event["kind"] == "fired")
        .collect();
    assert_eq!(fired.len(), 1, "{ended}");
    let event = fired[0];
    for (key, value) in [
        ("rule", Value::from("r1")),
        ("count", 3.into()),
        ("pid", pid.parse::<u32>().unwrap().into()),
        ("comm", "victim".into()),
        ("call", "fsync".into()),
        ("abi", "64".into()),
        ("nr", 74.into()),
        ("action", "EIO".into()),
        ("value", (-EIO).into()),
    ] {
        assert_eq!(event[key], value, "{key}: {event}");
    }
    // CLOCK_REALTIME: after 2020.
    assert!(
        event["wall_ns"].as_u64() > Some(1_577_836_800_000_000_000),
        "{event}"
    );
}

#[test]
fn firings_are_shown_as_they_come() {
    needs_override!();
    let mut victim = Victim::threads(1, 100, "fsync");
    let mut session = attach(&victim, "fsync=EIO@3+").start();
    let pid = session.pid();
    victim.work();
    let line = session
        .child()
        .expect_stderr(PATIENCE, |line| line.contains("r1 #3: fsync("));
    assert!(line.contains("= EIO  [victim "), "{line}");
    let outcome = session.stop();
    let shown = outcome
        .ended
        .stderr
        .iter()
        .filter(|line| line.contains("= EIO  ["))
        .count();
    assert!(
        (20..98).contains(&shown),
        "{shown} of 98 lines: {}",
        outcome.ended
    );
    let left_out = format!("... and {} more firings not shown here", 98 - shown);
    assert!(
        outcome.ended.err().contains(&left_out),
        "{left_out}: {}",
        outcome.ended
    );
    assert!(outcome.ended.err().contains("armed on "), "{pid}");
}

#[test]
fn arming_and_healing_are_in_the_systems_log() {
    needs_override!();
    let mut victim = Victim::threads(1, 5, "fsync");
    let session = attach(&victim, "fsync=EIO@3")
        .env("SUDO_UID", "1234")
        .start();
    let (pid, own) = (victim.pid(), format!("finject[{}]: ", session.pid()));
    victim.work();
    session.stop();
    let lines: Vec<_> = kernel::log()
        .into_iter()
        .filter(|line| line.contains(&own))
        .collect();
    let [armed, healed] = &lines[..] else {
        panic!("not two lines: {lines:?}");
    };
    let who = format!("uid 0 (sudo by 1234), target {pid} (victim)");
    let armed_line = format!("armed: {who}, rules fsync=EIO@3");
    assert!(armed.ends_with(&armed_line), "{armed}");
    let came = "interrupted; fsync=EIO@3: 5 calls matched, 1 fired";
    assert!(
        healed.ends_with(&format!("healed: {who}, {came}")),
        "{healed}"
    );
}

#[test]
fn the_second_interrupt_leaves_at_once() {
    needs_override!();
    // Its answer finds no room, so that it hangs after healing, until it is asked again.
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let filler = writer.try_clone().unwrap();
    rustix::io::ioctl_fionbio(&filler, true).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&filler, false).unwrap();
    drop(filler);
    let victim = Victim::looping("fsync");
    let pid = victim.pid().to_string();
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", "0"]).arg(guest::finject());
    command.args(["--json", "--pid", &pid, "--rule", "fsync=EIO"]);
    command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    let signal =
        |child: &std::process::Child| kill_process(Pid::from_child(child), Signal::INT).unwrap();
    victim.until(PATIENCE, true);
    signal(&child);
    victim.until(PATIENCE, false);
    thread::sleep(Duration::from_secs(1));
    assert!(
        child.try_wait().unwrap().is_none(),
        "its output is still full"
    );
    signal(&child);
    let mut status = None;
    eventually(Duration::from_secs(5), "it has left", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(130));
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(rest.iter().all(|byte| *byte == b'x'));
    kernel::is_clean_within(PATIENCE);
}

#[test]
fn a_reader_of_events_that_hangs_holds_up_neither_faults_nor_healing() {
    needs_override!();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let victim = Victim::looping("fsync");
    let pid = victim.pid().to_string();
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", "0"]).arg(guest::finject());
    command.args([
        "--quiet",
        "--events",
        "-",
        "--pid",
        &pid,
        "--rule",
        "fsync=EIO",
    ]);
    command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    victim.until(PATIENCE, true);
    // By now nobody has read megabytes of records; faults go on.
    thread::sleep(Duration::from_secs(12));
    victim.until(Duration::from_secs(1), true);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    victim.until(Duration::from_secs(2), false);
    eventually(PATIENCE, "no function is hooked", || {
        kernel::hooked().is_empty()
    });
    // What was recorded still waits for its reader, and the second interrupt gives it up.
    thread::sleep(Duration::from_secs(1));
    assert_eq!(child.try_wait().unwrap(), None);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    eventually(PATIENCE, "the second interrupt makes it leave", || {
        child.try_wait().unwrap().is_some()
    });
    drop(child);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    kernel::is_clean_within(PATIENCE);
}

#[test]
fn readers_that_have_gone_end_nothing() {
    needs_override!();
    let mut victim = Victim::threads(1, 5, "fsync");
    let mut command = finject([
        "--pid",
        &victim.pid().to_string(),
        "--rule",
        "fsync=EIO@3+",
        "--events",
        "-",
        "--json",
    ]);
    let (reader, writer) = std::io::pipe().unwrap();
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().unwrap())
        .stderr(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    eventually(PATIENCE, "its programs are there", || {
        !kernel::hooked().is_empty()
    });
    drop(reader);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(victim.work().errors, 3);
    victim.end();
    let mut status = None;
    eventually(PATIENCE, "it has ended", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
}

#[test]
fn nothing_is_hooked_that_no_rule_names() {
    needs_override!();
    let victim = Victim::threads(1, 1, "fsync");
    kernel::is_clean_within(PATIENCE);
    let session = attach(&victim, "fsync=EIO@3").start();
    let mut hooked: Vec<_> = kernel::hooked()
        .iter()
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect();
    hooked.sort();
    session.stop();
    assert_eq!(
        hooked,
        ["__ia32_sys_fsync", "__x64_sys_fsync"],
        "each ABI's own"
    );
}

#[test]
fn explain_touches_nothing() {
    let victim = Victim::threads(1, 1, "fsync");
    let before = kernel::Traces::now();
    let ended = Child::run(&mut finject([
        "explain",
        "--pid",
        &victim.pid().to_string(),
        "--rule",
        "fsync=EIO@3",
    ]));
    assert_eq!(ended.code(), Some(0), "{ended}");
    assert!(ended.out().contains("fsync, fsync@32"), "{ended}");
    assert_eq!(kernel::Traces::now(), before);
}
