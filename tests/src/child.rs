//! A child process under a test's control: its output is read by threads as it comes, every wait has
//! an end, and it dies with the test that started it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a helper of tests: to panic is how it fails"
)]

use std::{
    fmt,
    io::{BufRead as _, BufReader, Read, Write as _},
    process::{Child as StdChild, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take that does not depend on a count: the machine is emulated, and shared.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Lines that a thread reads from a stream.
#[derive(Clone, Default)]
struct Lines(Arc<(Mutex<Heard>, Condvar)>);

#[derive(Default)]
struct Heard {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn read(stream: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let shared = lines.clone();
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream
                .read_until(b'\n', &mut line)
                .is_ok_and(|length| length > 0)
            {
                let text = String::from_utf8_lossy(&line);
                let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
                shared.0.0.lock().unwrap().lines.push(text);
                shared.0.1.notify_all();
                line.clear();
            }
            shared.0.0.lock().unwrap().ended = true;
            shared.0.1.notify_all();
        });
        lines
    }

    /// The first line that `wanted` takes, when there is one in time.
    fn find(&self, time: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let until = Instant::now() + time;
        let mut read = self.0.0.lock().unwrap();
        loop {
            if let Some(line) = read.lines.iter().find(|line| wanted(line)) {
                return Some(line.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if read.ended || left.is_zero() {
                return None;
            }
            read = self.0.1.wait_timeout(read, left).unwrap().0;
        }
    }

    fn now(&self) -> Vec<String> {
        self.0.0.lock().unwrap().lines.clone()
    }

    /// All of it, once the stream has ended.
    fn all(&self) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        let mut read = self.0.0.lock().unwrap();
        while !read.ended && Instant::now() < until {
            read = self
                .0
                .1
                .wait_timeout(read, Duration::from_secs(1))
                .unwrap()
                .0;
        }
        assert!(
            read.ended,
            "an output that nobody writes to any more did not end"
        );
        read.lines.clone()
    }
}

/// A process that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// The lines of its standard output.
    pub stdout: Vec<String>,
    /// The lines of its standard error.
    pub stderr: Vec<String>,
}

impl Ended {
    /// The exit status, where no signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Standard output as one text.
    pub fn out(&self) -> String {
        self.stdout.join("\n")
    }

    /// Standard error as one text.
    pub fn err(&self) -> String {
        self.stderr.join("\n")
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}\n--- stdout\n{}\n--- stderr\n{}\n---",
            self.status,
            self.out(),
            self.err()
        )
    }
}

/// A running child.
pub struct Child {
    process: StdChild,
    stdin: Option<ChildStdin>,
    stdout: Lines,
    stderr: Lines,
    ended: bool,
}

impl fmt::Debug for Child {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "process {}", self.pid())
    }
}

impl Child {
    /// Starts it, with all three streams in the test's hand.
    pub fn start(command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            stdin: child.stdin.take(),
            stdout: Lines::read(child.stdout.take().unwrap()),
            stderr: Lines::read(child.stderr.take().unwrap()),
            process: child,
            ended: false,
        }
    }

    /// Runs it to its end.
    pub fn run(command: &mut Command) -> Ended {
        let mut child = Self::start(command);
        child.close();
        child.wait(PATIENCE)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        assert!(!self.ended, "its number may be another's by now");
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Writes a line to its standard input.
    pub fn say(&mut self, line: &str) {
        self.press(&format!("{line}\n"));
    }

    /// Writes to its standard input.
    pub fn press(&mut self, keys: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(keys.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Ends its standard input.
    pub fn close(&mut self) {
        self.stdin = None;
    }

    /// Waits for a line of its standard output.
    pub fn expect_line(&mut self, time: Duration, wanted: impl Fn(&str) -> bool) -> String {
        let line = self.stdout.find(time, wanted);
        line.unwrap_or_else(|| {
            panic!(
                "{self:?} did not print what was waited for\n--- stdout\n{}\n--- stderr\n{}\n---",
                self.stdout.now().join("\n"),
                self.stderr.now().join("\n")
            )
        })
    }

    /// The same, where none may come: [`None`] when the output has ended or the time is over.
    pub fn find_line(&self, time: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        self.stdout.find(time, wanted)
    }

    /// Waits for a line of its standard error.
    pub fn expect_stderr(&mut self, time: Duration, wanted: impl Fn(&str) -> bool) -> String {
        let line = self.stderr.find(time, wanted);
        line.unwrap_or_else(|| {
            panic!(
                "{self:?} did not print what was waited for\n--- stderr\n{}\n---",
                self.stderr.now().join("\n")
            )
        })
    }

    /// What it has printed until now.
    pub fn stdout_now(&self) -> Vec<String> {
        self.stdout.now()
    }

    /// What it has complained of until now.
    pub fn stderr_now(&self) -> Vec<String> {
        self.stderr.now()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.ended = self.ended || self.process.try_wait().unwrap().is_some();
        self.ended
    }

    /// Waits for its end, and for the end of its output.
    pub fn wait(&mut self, time: Duration) -> Ended {
        let until = Instant::now() + time;
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(
                Instant::now() < until,
                "{self:?} had not ended after {time:?}\n--- stdout\n{}\n--- stderr\n{}\n---",
                self.stdout.now().join("\n"),
                self.stderr.now().join("\n")
            );
            thread::sleep(Duration::from_millis(5));
        };
        self.ended = true;
        Ended {
            status,
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            // Its end may come between the look and the kill; the process is not reaped before.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// Waits for the other tests of this program that fill all processors: beside each other they would
/// measure how little is left to finject.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks again and again until `holds`, or panics with `what`.
pub fn eventually(time: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + time;
    while !holds() {
        assert!(Instant::now() < until, "not within {time:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
