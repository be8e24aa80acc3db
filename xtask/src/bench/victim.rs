//! The processes that are measured: each says that it is ready, waits for a line so that a tool can be armed, and then
//! runs to its end. And what tests/programs/bench_call.c, the usual one, prints.

use super::figures::{PerCall, median};
use super::programs;
use super::row::{Call, Unit};
use anyhow::Context as _;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

/// How often a loop makes its call: `rounds` times `calls` in each thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repeats {
    /// Rounds, each of which is timed.
    pub(super) rounds: u32,
    /// Calls of a thread in a round.
    pub(super) calls: u32,
    /// Threads that make them at once.
    pub(super) threads: u32,
}

impl Repeats {
    /// Calls of a round, of all threads together.
    fn in_a_round(self) -> u32 {
        self.calls * self.threads
    }

    /// All calls.
    pub(super) fn total(self) -> u32 {
        self.rounds * self.in_a_round()
    }
}

/// The words that start `bench_call`.
pub(super) fn bench_call(call: Call, unit: Unit, repeats: Repeats) -> Vec<OsString> {
    let mut words = vec![
        programs().join("bench_call").into(),
        call.word().into(),
        unit.word().into(),
        repeats.rounds.to_string().into(),
        repeats.calls.to_string().into(),
    ];
    if repeats.threads != 1 {
        words.push(repeats.threads.to_string().into());
    }
    words
}

/// A process that waits for a line and then runs.
#[derive(Debug)]
pub(super) struct Victim {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Victim {
    /// Starts it, and waits until it says that it is ready.
    pub(super) fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut victim = Self {
            child,
            stdout: BufReader::new(stdout),
        };
        let ready = victim.line()?;
        anyhow::ensure!(ready == "ready", "{command:?} says {ready:?}");
        Ok(victim)
    }

    /// The process, or that of the tool that launched it.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it says.
    pub(super) fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Lets it run.
    pub(super) fn release(&mut self) -> anyhow::Result<()> {
        let stdin = self.child.stdin.as_mut().context("no standard input")?;
        stdin.write_all(b"\n")?;
        Ok(())
    }

    /// Ends it and returns the rest of what it said.
    pub(super) fn finish(mut self) -> anyhow::Result<String> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.stdout.read_to_string(&mut text)?;
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "what was measured ended with {status}");
        Ok(text)
    }
}

/// Reads what `bench_call` printed. Every call must have failed with `errno`, or none where that is 0.
pub(super) fn read(text: &str, repeats: Repeats, errno: i32) -> anyhow::Result<PerCall> {
    let field = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .with_context(|| format!("no {key:?} in {text:?}"))
    };
    let expected = if errno == 0 {
        String::new()
    } else {
        format!("{errno}={}", repeats.total())
    };
    let errors = field("errors")?.trim();
    anyhow::ensure!(
        errors == expected,
        "the calls failed as {errors:?}, not as {expected:?}"
    );
    let rounds: Vec<f64> = field("rounds")?
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    anyhow::ensure!(
        rounds.len() == repeats.rounds as usize,
        "rounds are missing"
    );
    let calls = f64::from(repeats.in_a_round());
    Ok(PerCall {
        median: median(rounds.iter().copied()).context("no rounds")? / calls,
        mean: rounds.iter().sum::<f64>() / calls / f64::from(repeats.rounds),
    })
}

#[cfg(test)]
mod tests {
    use super::{Repeats, read};

    #[test]
    fn a_figure_is_taken_only_where_every_call_ended_as_it_should() {
        let repeats = Repeats {
            rounds: 3,
            calls: 10,
            threads: 1,
        };
        let figure = read("rounds 100 4000 200\nerrors 9=30\n", repeats, libc::EBADF).unwrap();
        assert!((figure.median - 20.0).abs() < 1e-9);
        assert!((figure.mean - 4300.0 / 30.0).abs() < 1e-9);
        assert!(read("rounds 1 2 3\nerrors\n", repeats, 0).is_ok());
        for (text, errno) in [
            ("rounds 1 2 3\nerrors 5=1 9=29\n", libc::EIO),
            ("rounds 1 2 3\nerrors 9=30\n", libc::EIO),
            ("rounds 1 2 3\nerrors 9=30\n", 0),
            ("rounds 1 2\nerrors 9=30\n", libc::EBADF),
            ("errors 9=30\n", libc::EBADF),
            ("", 0),
        ] {
            assert!(read(text, repeats, errno).is_err(), "{text}");
        }
    }

    #[test]
    fn threads_share_a_rounds_length() {
        let repeats = Repeats {
            rounds: 1,
            calls: 10,
            threads: 8,
        };
        let figure = read("rounds 800\nerrors 5=80\n", repeats, libc::EIO).unwrap();
        assert!((figure.median - 10.0).abs() < 1e-9);
        assert!(read("rounds 800\nerrors 5=10\n", repeats, libc::EIO).is_err());
    }
}
