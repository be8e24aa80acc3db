//! The finject under test: started with arguments, waited for until its faults are in force, ended,
//! and asked for everything that it said.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a helper of tests: to panic is how it fails"
)]

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, PipeReader},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::Signal,
};
use serde_json::Value;

use crate::{
    child::{Child, Ended, PATIENCE},
    guest,
    victim::{Seen, Victim, on_first_processor},
};

/// finject, not yet started.
#[derive(Debug)]
pub struct Finject {
    command: Command,
    lease: Option<[&'static str; 2]>,
}

/// A virtual machine may stand still for longer than the lease that finject has by itself, and faults would end as they
/// should: what is no test of that asks for one that is long enough.
pub const LONG_LEASE: [&str; 2] = ["--lease", "30s"];

const IN_THE_KERNEL: [&str; 2] = ["--backend", "ebpf"];

/// Any finject with these arguments.
pub fn finject<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(guest::finject());
    command.args(arguments);
    quiet_environment(&mut command);
    command
}

fn quiet_environment(command: &mut Command) {
    command.env_remove("FINJECT_RULES").env("NO_COLOR", "1");
}

/// One that is attached to a victim by a rule, and keeps to one processor where the victim does.
pub fn attach(victim: &Victim, rule: &str) -> Finject {
    let finject = if victim.is_pinned() {
        Finject::pinned()
    } else {
        Finject::new()
    };
    finject.pid(victim.pid()).rule(rule)
}

impl Default for Finject {
    fn default() -> Self {
        Self::new()
    }
}

impl Finject {
    /// That decides in the kernel, which is what the virtual machines are for: it must not pass its
    /// tests by another backend.
    pub fn new() -> Self {
        Self {
            command: finject(IN_THE_KERNEL),
            lease: Some(LONG_LEASE),
        }
    }

    /// Another finject than the one of the virtual machine, without any argument. Whoever runs the
    /// tests may have signals ignored, as nohup(1) has; finject would leave them so.
    pub fn of(program: &Path) -> Self {
        let mut command = Command::new("env");
        command.arg("--default-signal").arg(program);
        quiet_environment(&mut command);
        Self {
            command,
            lease: None,
        }
    }

    /// The same, on the first processor; for victims that call while it arms or heals.
    pub fn pinned() -> Self {
        let mut command = on_first_processor(guest::finject());
        command.args(IN_THE_KERNEL);
        quiet_environment(&mut command);
        Self {
            command,
            lease: Some(LONG_LEASE),
        }
    }

    /// With `--pid`.
    #[must_use]
    pub fn pid(self, pid: u32) -> Self {
        self.args(["--pid", &pid.to_string()])
    }

    /// With the lease that finject has by itself.
    #[must_use]
    pub fn with_its_own_lease(mut self) -> Self {
        self.lease = None;
        self
    }

    /// With `--rule`.
    #[must_use]
    pub fn rule(self, rule: &str) -> Self {
        self.args(["--rule", rule])
    }

    /// With more arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// With a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts it and waits for nothing.
    pub fn begin(mut self) -> Child {
        self.command.args(self.lease.iter().flatten());
        Child::start(&mut self.command)
    }

    /// Runs it to its end, which is expected to come by itself.
    pub fn run(mut self) -> Ended {
        self.command.args(self.lease.iter().flatten());
        Child::run(&mut self.command)
    }

    /// Starts it and waits until its faults are in force.
    pub fn start(self) -> Session {
        match self.try_start() {
            Ok(session) => session,
            Err(ended) => panic!("finject did not arm: {ended}"),
        }
    }

    /// Starts it and waits until its faults are in force, or it has ended.
    pub fn try_start(mut self) -> Result<Session, Ended> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!(
            "finject-{}-{}.jsonl",
            std::process::id(),
            NEXT.fetch_add(1, Relaxed)
        );
        let events = std::env::temp_dir().join(name);
        let (reader, writer) = std::io::pipe().unwrap();
        fcntl_setfd(&writer, FdFlags::empty()).unwrap();
        self.command
            .args(self.lease.iter().flatten())
            .args([
                "--json",
                "--ready-fd",
                &writer.as_raw_fd().to_string(),
                "--events",
            ])
            .arg(&events);
        let child = Child::start(&mut self.command);
        drop(writer);
        let mut session = Session { child, events };
        let line = first_line(reader);
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let has_ended = session.child.has_ended();
            match line.recv_timeout(Duration::from_millis(10)) {
                Ok(line) if line == "ready\n" => return Ok(session),
                Ok(line) => assert!(line.is_empty(), "{line:?}"),
                Err(_) => {}
            }
            if has_ended {
                return Err(session.child.wait(PATIENCE));
            }
        }
        panic!("neither ready nor ended: {:?}", session.child.stderr_now());
    }
}

/// What is written first. The end of it is not waited for: whatever another test starts meanwhile may have
/// inherited the end that is written.
fn first_line(reader: PipeReader) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(reader).read_line(&mut line);
        let _ = send.send(line);
    });
    receive
}

/// A finject whose faults are in force.
#[derive(Debug)]
pub struct Session {
    child: Child,
    events: PathBuf,
}

impl Session {
    /// The process, for signals and waits.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Asks it to end, as Ctrl-C does, and waits for that.
    pub fn stop(self) -> Outcome {
        self.child.signal(Signal::INT);
        self.wait(PATIENCE)
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self, time: Duration) -> Outcome {
        let ended = self.child.wait(time);
        Outcome::new(ended, &self.events)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.events);
    }
}

/// Everything that a session said.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The process.
    pub ended: Ended,
    /// The summary (`--json`).
    pub summary: Value,
    /// The records (`--events`).
    pub events: Vec<Value>,
}

impl Outcome {
    fn new(ended: Ended, events: &PathBuf) -> Self {
        let events = fs::read_to_string(events).unwrap_or_default();
        let events: Vec<Value> = events
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect();
        for (index, event) in events.iter().enumerate() {
            assert_eq!(event["seq"], index + 1, "{event}");
        }
        let summary = serde_json::from_str(&ended.out()).unwrap_or(Value::Null);
        Self {
            ended,
            summary,
            events,
        }
    }

    /// The exit status.
    pub fn code(&self) -> Option<i32> {
        self.ended.code()
    }

    /// A counter of a rule, by the rule's position.
    pub fn tally(&self, rule: usize, counter: &str) -> u64 {
        let value = &self.summary["rules"][rule][counter];
        value
            .as_u64()
            .unwrap_or_else(|| panic!("no {counter} of rule {rule}: {}", self.ended))
    }

    /// The counters of the first rule.
    pub fn matched(&self) -> u64 {
        self.tally(0, "matched")
    }

    /// The firings of the first rule.
    pub fn fired(&self) -> u64 {
        self.tally(0, "fired")
    }

    /// The misses, where they are known.
    pub fn misses(&self) -> Option<u64> {
        match &self.summary["misses"] {
            Value::Number(number) => number.as_u64(),
            Value::String(word) if word == "unknown" => None,
            other => panic!("misses: {other}: {}", self.ended),
        }
    }

    /// The records of a kind.
    pub fn kind(&self, kind: &str) -> Vec<&Value> {
        self.events
            .iter()
            .filter(|event| event["kind"] == kind)
            .collect()
    }

    /// The numbers of the calls that failed, in their own order.
    pub fn counts(&self) -> Vec<u64> {
        let fired = self.kind("fired");
        let mut counts: Vec<u64> = fired
            .iter()
            .map(|event| event["count"].as_u64().unwrap())
            .collect();
        counts.sort_unstable();
        counts
    }

    /// Firings that have no record of their own, as the records themselves tell.
    pub fn dropped(&self) -> u64 {
        let dropped = |event: &&Value| event["message"] == "firings without a record of their own";
        let lost = self.kind("lost").into_iter().filter(dropped);
        lost.map(|event| event["number"].as_u64().unwrap()).sum()
    }
}

/// Lets a victim work under rules, from arming to healing.
pub fn work_under(victim: &mut Victim, rules: &[&str], arguments: &[&str]) -> (Seen, Outcome) {
    let attached = Finject::new().pid(victim.pid()).args(arguments);
    let session = rules
        .iter()
        .fold(attached, |finject, rule| finject.rule(rule))
        .start();
    let seen = victim.work();
    (seen, session.stop())
}

/// Lets one thread make `calls` calls under a rule.
pub fn calls_under(calls: u64, call: &str, rule: &str) -> (Seen, Outcome) {
    work_under(&mut Victim::threads(1, calls, call), &[rule], &[])
}
