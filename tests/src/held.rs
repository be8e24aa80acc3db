//! Threads that wait for a rule: whatever befalls finject meanwhile they go on, no other thread is held up by them, and
//! no signal of the program's is lost or invented. One body for every backend.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a helper of tests: to panic is how it fails"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    child::{PATIENCE, alone, eventually},
    conformance::{Rig, Running, Way, fired},
    finject::Finject,
    programs,
    victim::Victim,
};

/// Threads that are held.
const THREADS: u64 = 100;
/// How long they may be without finject.
const HEALED: Duration = Duration::from_secs(2);

/// Whom it befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The user's finject.
    Finject,
    /// The process that holds the threads: of `notify` the keeper, else the tracer.
    Holder,
}

/// The children of a process, by their names.
fn children(pid: u32) -> BTreeMap<String, u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let lists: Vec<String> = lists.collect();
    let pids = lists.iter().flat_map(|list| list.split_ascii_whitespace());
    let named = pids.filter_map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some((name.trim().to_owned(), pid.parse().ok()?))
    });
    named.collect()
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// A hundred threads are held, and finject, or who holds them, is killed or stopped: all of them go on, and no call has
/// failed.
pub fn go_on(way: Way, finject: impl Into<PathBuf>, who: Who, wound: Signal) {
    let _alone = alone();
    let rig = Rig::of(way, finject).with_its_own_lease();
    let threads = THREADS.to_string();
    let rule = if way == Way::EbpfExits {
        "getppid=after:hold:5m@1,per:thread"
    } else {
        "getppid=hold:5m+EPERM@1,per:thread"
    };
    let rule = ["--rule", rule];
    let mut running = rig.start(
        &rule,
        programs::VICTIM,
        &["threads", &threads, "2", "getppid"],
    );
    running.victim.go();
    eventually(PATIENCE, "all threads are held", || {
        rig.ctl(&mut running, &["status"])["rules"][0]["held"] == THREADS
    });
    let finject = running.finject().pid();
    let name = if way == Way::NotifyLaunch {
        "finject-keeper"
    } else {
        "finject-tracer"
    };
    let wounded = match who {
        Who::Finject => finject,
        Who::Holder => children(finject)[name],
    };
    signal(wounded, wound);
    let since = Instant::now();
    let seen = running.victim.seen("self");
    let took = since.elapsed();
    assert_eq!(
        (seen.calls, seen.errors),
        (2 * THREADS, 0),
        "{way:?} {who:?} {wound:?}"
    );
    assert!(took < HEALED, "{way:?} {who:?} {wound:?}: {took:?}");
    // Whoever was stopped does no harm when it goes on.
    if wound == Signal::STOP {
        let _ = kill_process(Pid::from_raw(wounded.cast_signed()).unwrap(), Signal::CONT);
    }
    let ended = running.end();
    if !way.launches() {
        assert_eq!(ended.code(), Some(0), "{ended}");
    }
}

/// A thread waits most of the time, and another one counts beside it as far as without, and is never seen stopped.
pub fn others_are_not_held_up(way: Way, finject: impl Into<PathBuf>, windows: usize) {
    let _alone = alone();
    let rig = Rig::of(way, finject);
    let rule = ["--rule", "getppid=delay:50ms"];
    let mut running = rig.start(&rule, programs::SIBLINGS, &["1"]);
    running.victim.go();
    let counting = {
        let pid = running.victim.worker();
        let mut threads: Vec<u32> = fs::read_dir(format!("/proc/{pid}/task"))
            .unwrap()
            .flatten()
            .filter_map(|task| task.file_name().to_str()?.parse().ok())
            .collect();
        threads.sort_unstable();
        // The first waits for input; the next was made for counting.
        format!("/proc/{pid}/task/{}/stat", threads[1])
    };
    let mut asked = 0;
    let mut look = |running: &mut Running| {
        running.victim.go();
        asked += 1;
        let told = |lines: Vec<String>| -> Vec<(u64, u64)> {
            let line = |line: &String| {
                let (calls, counted) = line.strip_prefix("calls=")?.split_once(" counted=")?;
                Some((calls.parse().unwrap(), counted.parse().unwrap()))
            };
            lines.iter().filter_map(line).collect()
        };
        eventually(PATIENCE, "it says how far it has come", || {
            told(running.victim.child().stdout_now()).len() >= asked
        });
        told(running.victim.child().stdout_now())[asked - 1]
    };
    let mut percents = Vec::new();
    for _ in 0..windows {
        let mut counted = [0; 2];
        for (window, command) in ["arm", "disarm"].into_iter().enumerate() {
            rig.ctl(&mut running, &[command]);
            let (calls, before) = look(&mut running);
            let until = Instant::now() + Duration::from_millis(400);
            while Instant::now() < until {
                let stat = fs::read_to_string(&counting).unwrap();
                let is_stopped = stat.contains(") t ") || stat.contains(") T ");
                assert!(!is_stopped, "{way:?}: {stat}");
                thread::sleep(Duration::from_millis(1));
            }
            let (more, after) = look(&mut running);
            counted[window] = after - before;
            if command == "arm" {
                assert!(more - calls < 20, "it was to wait: {calls} {more}");
            }
        }
        percents.push(100 * counted[0] / counted[1].max(1));
    }
    percents.sort_unstable();
    println!("{way:?}: {percents:?}");
    assert!(percents[percents.len() / 2] >= 85, "{way:?}: {percents:?}");
    running.finish();
}

/// What the caller among signals says.
fn caller_saw(running: &Running) -> BTreeMap<String, u64> {
    numbers(&running.victim.lines())
}

fn numbers(lines: &[String]) -> BTreeMap<String, u64> {
    let line = lines
        .iter()
        .find(|line| line.starts_with("who=self"))
        .unwrap();
    let words = line.split(' ').filter_map(|word| word.split_once('='));
    let numbers = words.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    numbers.collect()
}

/// A program that calls among signals of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// It handles SIGURG itself.
    C,
    /// Its runtime sends SIGURG to its own threads.
    Go,
    /// An interpreter, which handles signals later.
    Python,
}

impl Caller {
    /// All.
    pub const ALL: [Self; 3] = [Self::C, Self::Go, Self::Python];

    /// The program and its arguments, which makes so many calls.
    fn program(self, calls: &str) -> (&'static str, Vec<&str>) {
        match self {
            Self::C => (programs::URGENT, vec![calls]),
            Self::Go => (programs::GO_URGENT, vec![calls]),
            Self::Python => (programs::PYTHON, vec![programs::PYTHON_URGENT, calls]),
        }
    }

    /// What is missing to run it.
    fn is_there(self) {
        let (program, _) = self.program("");
        assert!(!program.is_empty(), "there is nothing to run {self:?} with");
    }
}

/// Where a way has threads wait, as rules have it.
fn side(way: Way) -> &'static str {
    if way == Way::EbpfExits { "after:" } else { "" }
}

/// Calls that wait while signals of the program's own come: none is lost or invented, no call gives anything but what it
/// gives, and every wait that was decided was taken in full.
pub fn signals_are_the_programs_own(
    way: Way,
    finject: impl Into<PathBuf>,
    caller: Caller,
    delays: u64,
) {
    let _alone = alone();
    caller.is_there();
    let rig = Rig::of(way, finject);
    let rule = format!("getppid={}delay:200us@2+3", side(way));
    let rule = ["--rule", &rule, "--spin-max", "0s"];
    let calls = (3 * delays).to_string();
    let (program, arguments) = caller.program(&calls);
    let mut running = rig.start(&rule, program, &arguments);
    running.victim.go();
    running.victim.done();
    let saw = caller_saw(&running);
    let (_, summary, events) = running.finish();
    let saw_of = |name: &str| saw[name];
    assert_eq!(
        (saw_of("errors"), saw_of("codes")),
        (0, 0),
        "{saw:?} {summary}"
    );
    assert_eq!(saw_of("sent"), saw_of("got"), "{saw:?} {summary}");
    assert!(saw_of("sent") > 10, "{saw:?}");
    let tally = |name: &str| summary["rules"][0][name].as_u64().unwrap();
    assert_eq!(
        (tally("fired"), tally("matched")),
        (delays, 3 * delays),
        "{saw:?} {summary}"
    );
    assert_eq!((tally("lost"), tally("moot")), (0, 0), "{summary}");
    let waited = fired(&events);
    let length = ["delay_ns", "after_delay_ns"][usize::from(way == Way::EbpfExits)];
    let is_short = |event: &&Value| event[length].as_u64().unwrap() < 200_000;
    assert_eq!(waited.iter().filter(|event| is_short(event)).count(), 0);
    assert_eq!(waited.len() as u64 + tally("dropped"), delays, "{summary}");
}

/// finjects that delay some of a program's calls come, and are killed at random moments, while it makes so many: none
/// gives anything but what it gives, and no signal of its own is lost or invented.
pub fn calls_give_what_they_give(
    way: Way,
    finject: impl Into<PathBuf>,
    caller: Caller,
    calls: u64,
) {
    let _alone = alone();
    caller.is_there();
    let finject = finject.into();
    // A fast machine may be done with a few before much has happened.
    let several = (0..6).map(|times| calls << times);
    let mut several = several.map(|calls| killed_and_sent(way, &finject, caller, calls));
    let is_enough = several.any(|(killed, sent)| killed > 1 && sent > 10);
    assert!(is_enough, "{way:?} {caller:?}: it was done too early");
}

/// One such program; how many finjects were killed, and how many signals of its own it sent.
fn killed_and_sent(way: Way, finject: &Path, caller: Caller, calls: u64) -> (u64, u64) {
    let number = calls.to_string();
    let (program, arguments) = caller.program(&number);
    let mut victim = Victim::of(program, &arguments);
    victim.go();
    let seed = fastrand::u64(..);
    let mut rng = fastrand::Rng::with_seed(seed);
    println!("{way:?} {caller:?}: seed {seed}");
    let rules = ["100us@50+97", "10us..2ms@0.1%"];
    let rules = rules.map(|delay| format!("getppid={}delay:{delay}", side(way)));
    let rules = rules.iter().flat_map(|rule| ["--rule", rule]);
    let mut killed = 0_u64;
    while !victim.is_done() {
        let mut session = Finject::of(finject)
            .args(["--backend", way.backend(), "--quiet", "--spin-max", "20us"])
            .args(rules.clone())
            .pid(victim.pid())
            .begin();
        // From before it attaches until long after.
        thread::sleep(Duration::from_millis(rng.u64(0..600)));
        session.signal(Signal::KILL);
        let ended = session.wait(PATIENCE);
        // It may have ended with the program; or the tracer of the last one was still waiting for a thread to call.
        let is_early = ended.err().contains("is traced already");
        let is_right = ended.code().is_none() || victim.is_done() || is_early;
        assert!(is_right, "{ended}");
        killed += u64::from(!is_early);
    }
    let saw = numbers(&victim.lines());
    println!("{way:?} {caller:?}: {killed} killed: {saw:?}");
    assert_eq!(
        (saw["calls"], saw["errors"], saw["codes"]),
        (calls, 0, 0),
        "{saw:?}"
    );
    assert_eq!(saw["sent"], saw["got"], "{saw:?}");
    let ended = victim.end();
    assert_eq!(ended.code(), Some(0), "{ended}");
    (killed, saw["sent"])
}

/// A wait under a timer that comes two hundred times a second is as long as it says.
pub fn a_timer_does_not_make_it_longer(way: Way, finject: impl Into<PathBuf>) {
    let _alone = alone();
    let rig = Rig::of(way, finject);
    let rule = ["--rule", "getppid=delay:300ms@2"];
    let mut running = rig.start(&rule, programs::URGENT, &["3", "timer"]);
    running.victim.go();
    running.victim.done();
    let saw = caller_saw(&running);
    assert_eq!((saw["errors"], saw["codes"]), (0, 0), "{saw:?}");
    assert!(saw["ticks"] > 0, "{saw:?}");
    let (_, summary, events) = running.finish();
    let fired = fired(&events);
    assert_eq!(fired.len(), 1, "{summary}");
    let waited = Duration::from_nanos(fired[0]["delay_ns"].as_u64().unwrap());
    let asked = Duration::from_millis(300);
    assert!((asked..2 * asked).contains(&waited), "{waited:?}");
    assert_eq!(summary["rules"][0]["matched"], 3, "{summary}");
}

/// A hundred threads that wait for a second each take about one, and not a hundred.
pub fn they_wait_at_once(way: Way, finject: impl Into<PathBuf>) {
    let _alone = alone();
    let rig = Rig::of(way, finject);
    let threads = THREADS.to_string();
    let rule = ["--rule", "getppid=delay:1s@1,per:thread"];
    let mut running = rig.start(
        &rule,
        programs::VICTIM,
        &["threads", &threads, "2", "getppid"],
    );
    let since = Instant::now();
    running.victim.go();
    let seen = running.victim.seen("self");
    let took = since.elapsed();
    assert_eq!((seen.calls, seen.errors), (2 * THREADS, 0));
    assert!(took < Duration::from_secs(10), "{took:?}");
    let (_, summary, _) = running.finish();
    assert_eq!(summary["rules"][0]["fired"], THREADS, "{summary}");
}
