//! What backends that decide in user space leave of a firing: its tally, and its record.

use std::os::fd::BorrowedFd;

use injector_common::{CallerFacts, Event, EventKind, limits::MAX_RULES};

use super::Report;
use super::decider::{Caller, Decider};
use super::firing::{Done, Firing};
use super::memory::{CallSlot, Memory};
use super::ring::Sender;
use super::spec::Spec;
use super::threads::Threads;
use crate::sys::time::monotonic_ns;
use crate::target::process::{Proc, Tgid};

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
    threads: Threads,
    events: Sender,
}

impl Recorder {
    /// Records go into a ring.
    pub(super) fn new(decider: Decider, events: Sender) -> Self {
        Self {
            decider,
            threads: Threads::default(),
            events,
        }
    }

    /// The descriptor that a process has to keep.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.events.fd()
    }

    /// Who calls; [`None`] where the thread is gone.
    pub(super) fn caller(&self, tid: u32) -> Option<Caller> {
        self.threads.look(tid).map(|(caller, _)| caller)
    }

    /// What rules ask of who calls; [`None`] where the thread is gone.
    pub(super) fn caller_facts(&self, tid: u32) -> Option<CallerFacts> {
        self.threads.facts(tid)
    }

    /// A process executes another program, or is about to.
    pub(super) fn forget_names(&self) {
        self.threads.forget_names();
    }

    /// The call's part of a record. Before the caller goes on: then it may be gone.
    pub(super) fn facts(&self, tid: u32, call: CallSlot, args: [u64; 6]) -> Event {
        let found = self.threads.look(tid);
        let (tgid, comm) = found.map_or((tid, [0; 16]), |(caller, comm)| (caller.tgid, comm));
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
            delay_ns: 0,
            after_delay_ns: 0,
            after_signal: 0,
            bits: 0,
            flipped: 0,
            bytes: 0,
        }
    }

    /// Lets counters go whose process or thread is gone.
    pub(super) fn prune(&self, proc: &Proc) {
        self.decider.prune(|id, start| {
            let found = proc.process(Tgid(id));
            found.is_some_and(|found| found.start_ticks == start)
        });
    }

    /// Records what a target has come to; false where there was no room.
    pub(super) fn note(&self, kind: EventKind, tgid: u32, count: u64, value: i64) -> bool {
        let comm = self.threads.look(tgid).map_or([0; 16], |(_, comm)| comm);
        let no_call = CallSlot {
            compat: false,
            nr: 0,
        };
        self.events.send(&Event {
            kind: kind as u32,
            count,
            value,
            mono_ns: monotonic_ns(),
            comm,
            ..Self::call(tgid, tgid, no_call, [0; 6])
        })
    }

    /// Tallies a firing, and records what of it was carried out.
    pub(super) fn settle(&self, firing: &Firing, done: &Done, facts: &Event) {
        if let Some(event) = self.decider.settle(firing, done, facts)
            && !self.events.send(&event)
        {
            self.decider.dropped(&event);
        }
    }
}
