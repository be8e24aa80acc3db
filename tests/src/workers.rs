//! Programs in languages with runtimes of their own (programs/worker.*) under rules: what they do comes
//! out as it does without, and what they count is what finject counts.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a helper of tests: to panic is how it fails"
)]

use std::{env, fs, path::PathBuf, process::Command, sync::atomic::AtomicU64, time::Duration};

use serde_json::Value;

use crate::{
    child::{Child, PATIENCE, alone},
    conformance::{Rig, Way},
    programs,
};

/// The errors that a rule makes.
const ERRORS: u64 = 9;

/// A language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Its runtime interrupts its own threads, by SIGURG.
    Go,
    /// With a timer's signal.
    Python,
    /// With nothing between it and the C library.
    Rust,
}

impl Language {
    /// The program and its first arguments, or what is missing to run it.
    pub fn program(self) -> Result<Vec<&'static str>, &'static str> {
        let there = |path: &'static str, what| match path {
            "" => Err(what),
            path => Ok(path),
        };
        match self {
            Self::Go => Ok(vec![there(
                programs::GO_WORKER,
                "there was no Go when the tests were built",
            )?]),
            Self::Python => Ok(vec![
                there(
                    programs::PYTHON,
                    "there was no Python when the tests were built",
                )?,
                programs::PYTHON_WORKER,
            ]),
            Self::Rust => Ok(vec![programs::RUST_WORKER]),
        }
    }
}

/// What a worker says of its work.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Done {
    digest: String,
    laps: u64,
    wrong: u64,
    calls: u64,
    errors: u64,
    other: u64,
    alarms: u64,
}

impl Done {
    fn parse(line: &str) -> Self {
        let word = |name: &str| -> String {
            let value = line
                .split(' ')
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            value.unwrap().to_owned()
        };
        let number = |name: &str| word(name).parse().unwrap();
        Self {
            digest: word("digest"),
            laps: number("laps"),
            wrong: number("wrong"),
            calls: number("calls"),
            errors: number("errors"),
            other: number("other"),
            alarms: number("alarms"),
        }
    }
}

/// A file that costs no disk anything, as far as there is one; gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let memory = PathBuf::from("/dev/shm");
        let directory = if memory.is_dir() {
            memory
        } else {
            env::temp_dir()
        };
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self(directory.join(format!("finject-worker-{}-{number}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Rules that match much and never fire, for the way and the program.
///
/// Python's handlers have no SA_RESTART, and under notification a signal that comes before a call's
/// receipt ends the call with EINTR (doc/semantics.md). What the C library does not expect that of, such
/// as the futex that wakes, is left out there.
fn never(way: Way, program: &[&str]) -> [&'static str; 4] {
    let is_cut = way == Way::NotifyLaunch && program.contains(&programs::PYTHON_WORKER);
    let most = if is_cut {
        "read,write,openat,wait4=EIO@1000000000"
    } else {
        "!fsync=EIO@1000000000"
    };
    ["--rule", most, "--rule", "fsync=EIO@1000000000"]
}

/// Lets a worker work without finject, then under rules that match most of what it does and never fire,
/// then under one that fires a few times; each for so many seconds, and without finject for one.
pub fn works_as_without(way: Way, finject: impl Into<PathBuf>, program: &[&str], seconds: u64) {
    let _alone = alone();
    let rig = Rig::of(way, finject);
    // Other programs want the processors, too.
    let _load = Child::start(Command::new(programs::STORM).args(["1", "spin"]));
    let bare = bare(program);
    println!("bare: {bare:?}");
    assert_eq!((bare.wrong, bare.errors, bare.other), (0, 0, 0), "{bare:?}");
    assert!(bare.alarms > 0, "{bare:?}");

    let (done, summary) = under(&rig, &never(way, program), program, seconds);
    is_as_bare(&done, &bare, 0);
    let tally = |rule: usize, counter| summary["rules"][rule][counter].as_u64();
    assert_eq!(tally(1, "matched"), Some(done.calls), "{done:?}: {summary}");
    assert!(tally(0, "matched") > Some(done.calls), "{summary}");
    for rule in 0..2 {
        for counter in ["fired", "lost", "dropped", "contended", "shadowed"] {
            assert_eq!(tally(rule, counter), Some(0), "{counter}: {summary}");
        }
    }

    let fires = format!("fsync=EIO@2+2,max:{ERRORS}");
    let (done, summary) = under(&rig, &["--rule", &fires], program, seconds);
    is_as_bare(&done, &bare, ERRORS);
    let tally = |counter: &str| summary["rules"][0][counter].as_u64();
    assert_eq!(tally("matched"), Some(done.calls), "{done:?}: {summary}");
    assert_eq!(tally("fired"), Some(ERRORS), "{summary}");
}

/// Whether it did what it does without finject, but for the errors that were asked for.
fn is_as_bare(done: &Done, bare: &Done, errors: u64) {
    println!("{done:?}");
    assert_eq!((&done.digest, done.wrong), (&bare.digest, 0), "{done:?}");
    assert_eq!((done.errors, done.other), (errors, 0), "{done:?}");
    assert_eq!(done.calls * bare.laps, bare.calls * done.laps, "{done:?}");
    assert!(done.alarms > 0, "{done:?}");
}

fn bare(program: &[&str]) -> Done {
    let scratch = Scratch::new();
    let mut child = Child::start(
        Command::new(program[0])
            .args(&program[1..])
            .arg(&scratch.0)
            .arg("1"),
    );
    child.expect_line(PATIENCE, |line| line.starts_with("ready "));
    child.say("");
    let done = child.expect_line(PATIENCE, |line| line.starts_with("done "));
    child.close();
    let ended = child.wait(PATIENCE);
    assert_eq!(
        (ended.code(), ended.err().as_str()),
        (Some(0), ""),
        "{ended}"
    );
    Done::parse(&done)
}

/// What it says, and finject's summary.
fn under(rig: &Rig, options: &[&str], program: &[&str], seconds: u64) -> (Done, Value) {
    let scratch = Scratch::new();
    let (path, time) = (scratch.0.display().to_string(), seconds.to_string());
    let arguments: Vec<&str> = program[1..]
        .iter()
        .copied()
        .chain([path.as_str(), &time])
        .collect();
    let mut running = rig.start(options, program[0], &arguments);
    running.victim.go();
    let patience = PATIENCE + 2 * Duration::from_secs(seconds);
    let child = running.victim.child();
    let done = child.expect_line(patience, |line| line.starts_with("done "));
    let (ended, summary, _) = running.finish();
    // Another ending, such as "lapsed" on a machine that has no time for finject, explains all else.
    let ending = (ended.code(), summary["ending"].as_str());
    assert_eq!(ending, (Some(0), Some("targets-ended")), "{done}: {ended}");
    (Done::parse(&done), summary)
}
