//! Threads that are kept at a stop, before their call or after it, since a rule has them wait; and calls of
//! which something is to happen once they have run.

use std::collections::HashMap;

use injector_common::Event;

use super::editing::Edit;
use super::sleep;
use crate::backend::firing::Decided;
use crate::backend::waits::{Schedule, Stay};
use crate::sys::ptrace::Entry;
use crate::sys::time::Alarm;

/// How often it is looked whether the faults are over while threads are kept, nanoseconds.
const LOOK_NS: u64 = 20_000_000;

/// restart_syscall(2), in either ABI.
const RESTART: u64 = libc::SYS_restart_syscall as u64;
const RESTART_I386: u64 = 0;

/// A call that is not settled yet.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) stay: Stay,
    /// The call's part of its records.
    pub(super) facts: Event,
    /// The kernel may end the call with EINTR for a signal without a handler.
    pub(super) is_prone: bool,
    /// Behind the instruction by which the thread called, and its stack pointer: a handler's calls have others.
    pub(super) place: (u64, u64),
    /// The thread is stopped behind its call, which begins anew, rather than at its entry.
    pub(super) begins_anew: bool,
    /// What was changed of its data.
    pub(super) edit: Option<Edit>,
    /// Its thread was made to map memory for that.
    pub(super) has_mapped: bool,
}

impl Held {
    /// A call of which nothing was done yet.
    pub(super) fn of(entry: &Entry, facts: Event, decided: Decided) -> Self {
        Self {
            is_prone: sleep::is_prone(entry),
            place: (entry.instruction, entry.stack),
            begins_anew: false,
            stay: Stay::of(decided),
            facts,
            edit: None,
            has_mapped: false,
        }
    }

    /// Whether its thread makes it with other arguments than it had asked for.
    pub(super) fn is_changed(&self) -> bool {
        self.edit.as_ref().is_some_and(Edit::is_on)
    }
}

/// Those threads and calls, by thread id.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// The tracing thread's, once one waits.
    alarm: Option<Alarm>,
    /// For when it is set; 0 for never.
    set_ns: u64,
    /// Kept at a stop, and until when.
    kept: HashMap<u32, (u64, Held)>,
    due: Schedule<u32>,
    /// In their calls.
    running: HashMap<u32, Held>,
}

impl Keeping {
    /// Whether this thread can be woken in time.
    pub(super) fn can_wait(&mut self) -> bool {
        if self.alarm.is_none() {
            self.alarm = Alarm::of_this_thread().ok();
        }
        self.alarm.is_some()
    }

    /// Keeps a thread at its stop until then.
    pub(super) fn keep(&mut self, tid: u32, until_ns: u64, held: Held) {
        self.kept.insert(tid, (until_ns, held));
        self.due.add(until_ns, tid);
    }

    /// How many calls are not settled.
    pub(super) fn open(&self) -> usize {
        self.kept.len() + self.running.len()
    }

    /// Whether a thread is kept at its stop.
    pub(super) fn keeps(&self, tid: u32) -> bool {
        self.kept.contains_key(&tid)
    }

    /// Whether any is.
    pub(super) fn keeps_any(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Whether none is, and the alarm is not set for any.
    pub(super) fn is_idle(&self) -> bool {
        self.kept.is_empty() && self.set_ns == 0
    }

    /// A thread whose time has come, or, where the faults are over, any that is kept.
    pub(super) fn take_due(&mut self, now_ns: u64, is_over: bool) -> Option<(u32, Held)> {
        loop {
            let tid = if is_over {
                self.due.take()?
            } else {
                self.due.take_due(now_ns)?
            };
            // It may have ended, and its id be another's by now.
            if let Some((until_ns, _)) = self.kept.get(&tid)
                && (is_over || *until_ns <= now_ns)
                && let Some((_, held)) = self.kept.remove(&tid)
            {
                return Some((tid, held));
            }
        }
    }

    /// Threads that are kept and for which there is a number, those of the lowest first and at most so many.
    pub(super) fn take_some(
        &mut self,
        most: usize,
        number: impl Fn(&Stay) -> Option<u64>,
    ) -> Vec<(u32, Held)> {
        let kept = self.kept.iter();
        let kept = kept.filter_map(|(tid, (_, held))| Some((number(&held.stay)?, *tid)));
        let mut found: Vec<_> = kept.collect();
        found.sort_unstable();
        found.truncate(most);
        let take = |(_, tid)| Some((tid, self.kept.remove(&tid)?.1));
        found.into_iter().filter_map(take).collect()
    }

    /// A thread's call runs, and something is to happen then.
    pub(super) fn let_run(&mut self, tid: u32, held: Held) {
        self.running.insert(tid, held);
    }

    /// Whether something is to happen when a thread's call has run.
    pub(super) fn waits_for(&self, tid: u32) -> bool {
        self.running.contains_key(&tid)
    }

    /// A thread's call has run.
    pub(super) fn has_run(&mut self, tid: u32) -> Option<Held> {
        // Most have none.
        if self.running.is_empty() {
            return None;
        }
        self.running.remove(&tid)
    }

    /// Whether the call that a thread enters may be the one that it was in, made again: under its own
    /// number, or by the kernel as restart_syscall(2).
    pub(super) fn may_go_on_as(&self, tid: u32, entry: &Entry) -> bool {
        let restart = if entry.compat { RESTART_I386 } else { RESTART };
        self.running.get(&tid).is_none_or(|held| {
            held.place == (entry.instruction, entry.stack)
                && [u64::from(held.facts.nr), restart].contains(&entry.nr)
        })
    }

    /// All whose calls run as their threads had asked for them.
    pub(super) fn take_running(&mut self) -> Vec<Held> {
        let unchanged = self.running.extract_if(|_, held| !held.is_changed());
        unchanged.map(|(_, held)| held).collect()
    }

    /// A thread has ended.
    pub(super) fn ended(&mut self, tid: u32) -> Option<Held> {
        let kept = self.kept.remove(&tid).map(|(_, held)| held);
        kept.or_else(|| self.running.remove(&tid))
    }

    /// A thread has another id now.
    pub(super) fn rename(&mut self, former: u32, tid: u32) {
        if let Some(held) = self.running.remove(&former) {
            self.running.insert(tid, held);
        }
    }

    /// Sets the alarm for the next, where it is not set for a time before.
    pub(super) fn set_alarm(&mut self, now_ns: u64) {
        let next = self.due.next_ns().filter(|_| self.keeps_any());
        let next = next.map_or(0, |next| next.min(now_ns + LOOK_NS));
        let is_early = self.set_ns > now_ns && next != 0 && self.set_ns <= next;
        if is_early || next == self.set_ns {
            return;
        }
        if let Some(alarm) = &self.alarm {
            alarm.set(Some(next).filter(|next| *next != 0));
        }
        self.set_ns = next;
    }
}
