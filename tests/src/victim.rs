//! The victim: a process that says what it saw of its own calls (programs/victim.c).
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a helper of tests: to panic is how it fails"
)]

use std::{collections::BTreeMap, ffi::OsStr, path::PathBuf, process::Command, time::Duration};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    child::{Child, Ended, PATIENCE},
    programs,
    scale::scaled,
};

/// How long the largest count of calls may take, which is ten times as many in a run of all of them.
fn work_time() -> Duration {
    Duration::from_secs(scaled(2000).max(200))
}

/// A command that stays on the first processor.
///
/// Who calls a function while its hooks come and go does so on the processor that changes them:
/// qemu's emulation with a thread for each processor can keep a breakpoint that the kernel has
/// already taken away again, when one processor translates the instruction while another writes it,
/// and the kernel then dies of a breakpoint that nobody knows (`Oops: int3`).
pub(crate) fn on_first_processor(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", "0"]).arg(program);
    command
}

/// Has this thread, and what it starts from here on, stay on the first processor.
pub fn stay_on_first_processor() {
    let thread = std::fs::read_link("/proc/thread-self").unwrap();
    let tid = thread.file_name().unwrap();
    let mut taskset = Command::new("taskset");
    let ended = Child::run(taskset.args(["--cpu-list", "--pid", "0"]).arg(tid));
    assert_eq!(ended.code(), Some(0), "{ended}");
}

/// What one process saw of its calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which process of a family: `self`, `child-before`, `child-after`, `grandchild`, `after-exec`.
    pub who: String,
    /// Its process id.
    pub pid: u32,
    /// Calls made.
    pub calls: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Calls that returned 0.
    pub zeros: u64,
    /// The first error's number, 0 without one.
    pub errno: i32,
    /// SIGUSR1 handled.
    pub signals: u64,
    /// Its file's size.
    pub size: i64,
    /// Whether its file has a name.
    pub exists: bool,
}

impl Seen {
    fn parse(line: &str) -> Option<Self> {
        let fields: BTreeMap<_, _> = line
            .split(' ')
            .filter_map(|word| word.split_once('='))
            .collect();
        let number = |name| fields.get(name)?.parse::<i64>().ok();
        let count = |name| fields.get(name)?.parse::<u64>().ok();
        Some(Self {
            who: (*fields.get("who")?).to_owned(),
            pid: u32::try_from(number("pid")?).ok()?,
            calls: count("calls")?,
            errors: count("errors")?,
            zeros: count("zeros")?,
            errno: i32::try_from(number("errno")?).ok()?,
            signals: count("signals")?,
            size: number("size")?,
            exists: number("exists")? == 1,
        })
    }
}

/// A change that the looping victim saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whether its calls fail from here on.
    pub fails: bool,
    /// `CLOCK_MONOTONIC`.
    pub at_ns: u64,
}

/// A running victim.
#[derive(Debug)]
pub struct Victim {
    child: Child,
    is_pinned: bool,
}

impl Victim {
    fn start(program: &str, arguments: &[&str], is_pinned: bool) -> Self {
        assert!(!program.is_empty(), "the compiler could not build it");
        let mut command = if is_pinned {
            on_first_processor(program)
        } else {
            Command::new(program)
        };
        Self::ready(command.args(arguments), is_pinned)
    }

    fn ready(command: &mut Command, is_pinned: bool) -> Self {
        let child = Child::start(command);
        let mut victim = Self { child, is_pinned };
        // A family has no line of readiness of its own: its first child's is.
        victim.child.expect_line(PATIENCE, |line| {
            line.starts_with("ready ") || line.starts_with("child-before ")
        });
        victim
    }

    /// One that another program launches, whose arguments are complete up to the command's. The
    /// process that this knows is the launcher.
    pub fn launched(launcher: &mut Command, arguments: &[&str]) -> Self {
        Self::ready(launcher.arg(programs::VICTIM).args(arguments), false)
    }

    /// The same; the launcher names the program too.
    pub fn launched_by(launcher: &mut Command, arguments: &[&str]) -> Self {
        Self::ready(launcher.args(arguments), false)
    }

    /// One of the programs, started with these arguments.
    pub fn of(program: &str, arguments: &[&str]) -> Self {
        Self::start(program, arguments, false)
    }

    /// The process that calls: of a launched one, the one that its first line names.
    pub fn worker(&self) -> u32 {
        self.ready_line().0
    }

    /// Its file.
    pub fn file(&self) -> PathBuf {
        self.ready_line().1
    }

    fn ready_line(&self) -> (u32, PathBuf) {
        let lines = self.child.stdout_now();
        let told = lines.iter().find_map(|line| line.strip_prefix("ready "));
        let (pid, file) = told.unwrap().split_once(' ').unwrap();
        (pid.parse().unwrap(), file.into())
    }

    /// Sends a signal to the process that calls.
    pub fn signal_worker(&self, signal: Signal) {
        let pid = Pid::from_raw(self.worker().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// The same of a 32-bit program, where there is one ([`programs::VICTIM32`]).
    pub fn launched32(launcher: &mut Command, arguments: &[&str]) -> Self {
        assert!(
            !programs::VICTIM32.is_empty(),
            "the compiler could not build it"
        );
        Self::ready(launcher.arg(programs::VICTIM32).args(arguments), false)
    }

    /// `threads` threads that make `calls` calls each, all at once, when told to.
    pub fn threads(threads: u64, calls: u64, call: &str) -> Self {
        Self::threads_of(programs::VICTIM, threads, calls, call, false)
    }

    /// The same on one processor, so that they may call while a finject arms or heals.
    pub fn pinned_threads(threads: u64, calls: u64, call: &str) -> Self {
        Self::threads_of(programs::VICTIM, threads, calls, call, true)
    }

    /// The same of a 32-bit program, where there is one ([`programs::VICTIM32`]).
    pub fn threads32(threads: u64, calls: u64, call: &str) -> Self {
        Self::threads_of(programs::VICTIM32, threads, calls, call, false)
    }

    fn threads_of(program: &str, threads: u64, calls: u64, call: &str, pin: bool) -> Self {
        let arguments = ["threads", &threads.to_string(), &calls.to_string(), call];
        Self::start(program, &arguments, pin)
    }

    /// One that calls a thousand times a second and more, on one processor, and tells changes. Without
    /// a pause it would take half of the time of a finject on its processor.
    pub fn looping(call: &str) -> Self {
        Self::start(programs::VICTIM, &["loop", call, "200"], true)
    }

    /// A child, a child and a grandchild born when told, and the program itself after an exec, with
    /// `calls` calls each.
    pub fn family(calls: u64, call: &str) -> Self {
        Self::start(
            programs::VICTIM,
            &["family", &calls.to_string(), call],
            false,
        )
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Whether it keeps to one processor, and a finject on it should, too.
    pub fn is_pinned(&self) -> bool {
        self.is_pinned
    }

    /// The process, for signals and waits.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Lets it call.
    pub fn go(&mut self) {
        self.child.say("");
    }

    /// Waits for what process `who` saw.
    pub fn seen(&mut self, who: &str) -> Seen {
        let start = format!("who={who} ");
        let line = self
            .child
            .expect_line(work_time(), |line| line.starts_with(&start));
        Seen::parse(&line).unwrap_or_else(|| panic!("{line}"))
    }

    /// What it has said so far.
    pub fn lines(&self) -> Vec<String> {
        self.child.stdout_now()
    }

    /// Whether it has made its calls.
    pub fn is_done(&self) -> bool {
        let lines = self.child.stdout_now();
        lines.iter().any(|line| line.starts_with("who=self"))
    }

    /// Waits until it has made its calls.
    pub fn done(&mut self) {
        self.child
            .expect_line(work_time(), |line| line.starts_with("who=self"));
    }

    /// Lets it call, and waits for what it saw. It lives on.
    pub fn work(&mut self) -> Seen {
        self.go();
        self.seen("self")
    }

    /// The errors that each thread saw, once [`Victim::work`] is done.
    pub fn errors_of_threads(&self) -> Vec<u64> {
        self.child
            .stdout_now()
            .iter()
            .filter_map(|line| line.strip_prefix("thread=")?.split_once(" errors="))
            .map(|(_, errors)| errors.parse().unwrap())
            .collect()
    }

    /// The changes seen until now.
    pub fn changes(&self) -> Vec<Change> {
        let change = |line: &String| {
            let (word, at) = line.split_once(' ')?;
            let fails = match word {
                "fails" => true,
                "works" => false,
                _ => return None,
            };
            let at_ns = at.parse().ok()?;
            Some(Change { fails, at_ns })
        };
        self.child.stdout_now().iter().filter_map(change).collect()
    }

    /// Whether its last call failed; [`None`] before the first.
    pub fn fails(&self) -> Option<bool> {
        self.changes().last().map(|change| change.fails)
    }

    /// Waits until its calls fail, or work.
    pub fn until(&self, time: Duration, fails: bool) {
        crate::child::eventually(
            time,
            if fails { "calls fail" } else { "calls work" },
            || self.fails() == Some(fails),
        );
    }

    /// Lets it end, and waits for that.
    pub fn end(mut self) -> Ended {
        self.child.close();
        self.child.wait(PATIENCE)
    }
}
