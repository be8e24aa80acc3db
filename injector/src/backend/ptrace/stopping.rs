//! Processes all of whose threads are held (`stop`): each stays at the stop to which it comes next, and goes on from there.

use std::collections::HashMap;

use super::sleep::Sleep;
use super::tracing::Tracing;
use crate::sys::ptrace;
use crate::sys::time::monotonic_ns;

/// The processes, and their threads that have come to their stops.
#[derive(Debug, Default)]
pub(super) struct Stopped {
    /// By process id, how many threads' calls hold them.
    by: HashMap<u32, usize>,
    /// By thread id, of which process, and the signal with which it goes on.
    there: HashMap<u32, (u32, i32)>,
}

impl Stopped {
    /// A process is held once more; whether it was not before.
    fn begin(&mut self, tgid: u32) -> bool {
        let number = self.by.entry(tgid).or_default();
        *number += 1;
        *number == 1
    }

    /// It is held once less; the threads that go on, where it no longer is.
    fn end(&mut self, tgid: u32) -> Vec<(u32, i32)> {
        let Some(number) = self.by.get_mut(&tgid) else {
            return Vec::new();
        };
        *number -= 1;
        if *number != 0 {
            return Vec::new();
        }
        self.by.remove(&tgid);
        let mut going = Vec::new();
        self.there.retain(|tid, (of, signal)| {
            if *of == tgid {
                going.push((*tid, *signal));
            }
            *of != tgid
        });
        going
    }

    /// Whether a thread stays at the stop at which it is, since its process is held.
    pub(super) fn keeps(&mut self, tgid: u32, tid: u32, signal: i32) -> bool {
        let is_held = self.holds(tgid);
        if is_held {
            self.there.insert(tid, (tgid, signal));
        }
        is_held
    }

    /// Whether a process is held.
    pub(super) fn holds(&self, tgid: u32) -> bool {
        self.by.contains_key(&tgid)
    }

    /// Whether any process is held.
    pub(super) fn is_any(&self) -> bool {
        !self.by.is_empty()
    }

    /// A thread has ended.
    pub(super) fn forget(&mut self, tid: u32) {
        self.there.remove(&tid);
    }
}

impl Tracing<'_> {
    /// Holds all threads of a process; those that call wherever they are then.
    pub(super) fn stop_all(&mut self, tgid: u32) {
        if !self.stopped.begin(tgid) {
            return;
        }
        for (tid, tracee) in &mut self.tracees {
            if tracee.tgid == tgid && !self.keeping.keeps(*tid) && tracee.asked.is_none() {
                self.own.pulse.begin(monotonic_ns());
                tracee.asked = Some(Sleep::of(*tid).still(*tid));
                self.is_owing = true;
                let _ = ptrace::interrupt(*tid);
            }
        }
    }

    /// Lets them go on.
    pub(super) fn let_all_go(&mut self, tgid: u32) {
        for (tid, signal) in self.stopped.end(tgid) {
            if self.tracees.get(&tid).is_some_and(|tracee| tracee.inside) {
                // At the entry of a call whose data was not changed so far.
                self.edit(tid);
            }
            self.go_on(tid, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_held_until_nobody_holds_it() {
        let mut stopped = Stopped::default();
        assert!(!stopped.keeps(1, 11, 0));
        assert!(stopped.begin(1) && !stopped.begin(1) && stopped.begin(2));
        assert!(stopped.keeps(1, 11, 0) && stopped.keeps(1, 12, 15) && stopped.keeps(2, 21, 0));
        assert!(!stopped.keeps(3, 31, 0));
        assert_eq!(stopped.end(1), []);
        stopped.forget(11);
        assert_eq!(stopped.end(1), [(12, 15)]);
        assert_eq!(stopped.end(1), [], "nobody does");
        assert!(!stopped.keeps(1, 11, 0) && stopped.is_any());
        assert_eq!(stopped.end(2), [(21, 0)]);
        assert!(!stopped.is_any());
    }
}
