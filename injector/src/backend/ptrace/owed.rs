//! What is owed to threads when the faults are over: calls that are made again with the time that is left. The
//! tracer stays for them, without faults and under another name, and for a minute at most. Whoever wants to
//! trace meanwhile asks it to go, and takes over what it owes.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use crate::sys::SysError;
use crate::sys::process::{PollFd, has_ended, memory_file, pidfd_open, pidfd_signal, poll_fds};
use crate::sys::time::monotonic_ns;
use crate::target::process::{Proc, Tgid};

/// What a tracer is called that stays for what it owes.
pub(super) const LEAVING: &str = "finject-leaving";
/// What /proc/PID/fd shows of the table.
const LINK: &str = "/memfd:finject-owed (deleted)";
/// How long it may take to go, milliseconds.
const GOING_MS: i32 = 1000;

/// When a call is over, `CLOCK_MONOTONIC` nanoseconds, and what it gives then.
pub(super) type Deadline = (u64, i64);

/// The table, in memory that others can open by /proc.
#[derive(Debug)]
pub(super) struct Owed(File);

impl Owed {
    /// Nothing is owed yet.
    pub(super) fn new() -> Result<Self, SysError> {
        Ok(Self(memory_file(c"finject-owed")?))
    }

    /// The descriptor that the tracer has to keep.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Tells what is owed, by thread id.
    pub(super) fn tell(&self, owed: &[(u32, Deadline)]) {
        let mut text = String::new();
        for (tid, (at, value)) in owed {
            // Into a string: cannot fail.
            let _ = writeln!(text, "{tid} {at} {value}");
        }
        // Memory that is not to be had costs a wait its time, and nothing else.
        let _ = self.0.write_all_at(text.as_bytes(), 0);
        let _ = self.0.set_len(text.len() as u64);
    }
}

fn parse(text: &str) -> HashMap<u32, Deadline> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let tid = words.next()?.parse().ok()?;
        let at = words.next()?.parse().ok()?;
        Some((tid, (at, words.next()?.parse().ok()?)))
    };
    text.lines().filter_map(line).collect()
}

/// The table in which a tracer says what it owes; [`None`] where it is no finject's.
fn table_of(tracer: Tgid) -> Option<File> {
    let fds = std::fs::read_dir(format!("/proc/{}/fd", tracer.0)).ok()?;
    let mut fds = fds.flatten().map(|fd| fd.path());
    let table = fds.find(|fd| std::fs::read_link(fd).is_ok_and(|to| to.as_os_str() == LINK))?;
    File::open(table).ok()
}

/// What a tracer has left behind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// What it owed, by thread id.
    pub(super) owed: HashMap<u32, Deadline>,
    /// When it was asked to go, `CLOCK_MONOTONIC` nanoseconds. Of what came later it did not tell.
    pub(super) at_ns: u64,
}

/// Asks a thread's tracer to go, where it is one that only stays for what it owes; what it leaves.
pub(super) fn take_over(proc: &Proc, tid: u32) -> Option<Left> {
    let tracer = proc.tracer_of(Tgid(tid))?;
    let is_leaving = || proc.process(tracer).is_some_and(|it| it.comm == LEAVING);
    if !is_leaving() {
        return None;
    }
    let handle = pidfd_open(tracer.0).ok()?;
    // The handle is that process's.
    if !is_leaving() {
        return None;
    }
    let table = table_of(tracer)?;
    let at_ns = monotonic_ns();
    pidfd_signal(handle.as_fd(), libc::SIGTERM);
    let _ = poll_fds(&mut [PollFd::readable(handle.as_fd())], GOING_MS);
    if !has_ended(handle.as_fd()) {
        return None;
    }
    // Only now, since it goes on telling until it has ended.
    let text = std::io::read_to_string(table).ok()?;
    let owed = parse(&text);
    Some(Left { owed, at_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_last_is_found_by_the_process() {
        let owed = Owed::new().unwrap();
        owed.tell(&[(7, (1_000_000_000_000, 0)), (8, (5, -11))]);
        owed.tell(&[(8, (6, -11))]);
        let table = table_of(Tgid(std::process::id())).unwrap();
        let found = parse(&std::io::read_to_string(table).unwrap());
        assert_eq!(found, HashMap::from([(8, (6, -11))]));
    }

    #[test]
    fn nobody_else_is_asked_to_go() {
        assert_eq!(take_over(&Proc::default(), std::process::id()), None);
        let mut other = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        assert!(table_of(Tgid(other.id())).is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
