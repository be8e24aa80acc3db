//! What backends that decide in user space leave of a firing: its tally, and its record.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use injector_common::{Event, limits::MAX_RULES};

use super::Report;
use super::decider::{Decider, Firing, Spec};
use super::memory::{CallSlot, Memory};
use crate::sys::{bytes_of, event_of};

/// The next record in the pipe that a recorder writes to; [`None`] when there is none now.
pub(super) fn next(records: &mut File) -> Option<Event> {
    let mut bytes = [0; size_of::<Event>()];
    let read = records.read(&mut bytes).ok()?;
    event_of(bytes.get(..read)?)
}

/// The counters of a decider's rules, of whose calls none is missed: each waits until it was seen.
pub(super) fn report(memory: &Memory, spec: Option<&Spec>) -> Report {
    let rules = spec.map_or(0, |spec| spec.rules.len());
    Report {
        misses: Some(0),
        ..memory.report(rules.min(MAX_RULES))
    }
}

/// A decider, and where the records of its firings go.
#[derive(Debug)]
pub(super) struct Recorder {
    pub(super) decider: Decider,
    /// Never waits.
    events: File,
}

impl Recorder {
    /// Records go to the end of a pipe that does not wait.
    pub(super) fn new(decider: Decider, events: File) -> Self {
        Self { decider, events }
    }

    /// The descriptor that a process has to keep.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// The call's part of a record. Before the caller goes on: then it may be gone.
    pub(super) fn facts(tgid: u32, tid: u32, call: CallSlot, args: [u64; 6]) -> Event {
        let name = std::fs::read(format!("/proc/{tid}/comm")).unwrap_or_default();
        let mut comm = [0; 16];
        for (to, from) in comm.iter_mut().take(15).zip(name) {
            *to = if from == b'\n' { 0 } else { from };
        }
        Event {
            comm,
            ..Self::call(tgid, tid, call, args)
        }
    }

    /// The same without the thread's name.
    pub(super) fn call(tgid: u32, tid: u32, call: CallSlot, args: [u64; 6]) -> Event {
        Event {
            kind: 0,
            rule: 0,
            count: 0,
            ordinal: 0,
            mono_ns: 0,
            tgid,
            tid,
            comm: [0; 16],
            abi: u32::from(call.compat),
            nr: call.nr.into(),
            args,
            actions: 0,
            signal: 0,
            value: 0,
        }
    }

    /// Tallies a firing, and records one that was carried out.
    pub(super) fn settle(&self, firing: &Firing, was_carried_out: bool, facts: &Event) {
        if let Some(event) = self.decider.settle(firing, was_carried_out, facts)
            && !self.emit(&event)
        {
            self.decider.dropped(&event);
        }
    }

    /// Leaves a record; false where there was no room.
    fn emit(&self, event: &Event) -> bool {
        // Whole or not at all: shorter than PIPE_BUF.
        loop {
            match (&self.events).write(bytes_of(event)) {
                Ok(_) => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }
}
