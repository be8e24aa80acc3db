//! Which traced threads have seccomp filters of their own: those would judge a call that is skipped. /proc tells, at the
//! cost of many stops; so a thread is asked of once, and again after any was in a call that can give it a filter. Only
//! where every call is seen.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use crate::backend::memory::CallSlot;
use crate::syscall::by_name;

/// The calls that give a thread a filter, or all threads of its process (seccomp(2), `SECCOMP_FILTER_FLAG_TSYNC`).
const CALLS: [&str; 2] = ["seccomp", "prctl"];

/// What is known of the threads.
#[derive(Debug, Default)]
pub(super) struct Filters {
    /// By thread id.
    known: HashMap<u32, bool>,
    /// Threads that are in such a call. While there is one, nothing is known for long.
    changing: HashSet<u32>,
}

fn can_add(call: CallSlot) -> bool {
    static SLOTS: LazyLock<Vec<CallSlot>> = LazyLock::new(|| {
        let calls = CALLS.iter().flat_map(|name| by_name(name));
        calls.map(|call| call.id().into()).collect()
    });
    SLOTS.contains(&call)
}

impl Filters {
    /// A thread is at the entry of a call.
    pub(super) fn entered(&mut self, tid: u32, call: CallSlot) {
        if can_add(call) {
            self.known.clear();
            self.changing.insert(tid);
        }
    }

    /// A thread has left its call.
    pub(super) fn left(&mut self, tid: u32) {
        if !self.changing.is_empty() && self.changing.remove(&tid) {
            self.known.clear();
        }
    }

    /// A thread has ended, or has taken another's id.
    pub(super) fn forget(&mut self, tid: u32) {
        self.known.remove(&tid);
        self.left(tid);
    }

    /// Whether a thread has one; `ask` finds out.
    pub(super) fn has(&mut self, tid: u32, ask: impl FnOnce() -> bool) -> bool {
        if self.changing.is_empty() {
            *self.known.entry(tid).or_insert_with(ask)
        } else {
            ask()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRCTL: CallSlot = CallSlot {
        compat: false,
        nr: 157,
    };
    const FSYNC: CallSlot = CallSlot {
        compat: false,
        nr: 74,
    };

    fn never() -> bool {
        panic!("it was known")
    }

    #[test]
    fn the_calls_that_add_filters_are_known_in_both_abis() {
        for (compat, nr) in [(false, 157), (false, 317), (true, 172), (true, 354)] {
            assert!(can_add(CallSlot { compat, nr }), "{compat} {nr}");
            assert!(!can_add(CallSlot {
                compat: !compat,
                nr
            }));
        }
    }

    #[test]
    fn a_thread_is_asked_of_once() {
        let mut filters = Filters::default();
        assert!(filters.has(1, || true));
        assert!(!filters.has(2, || false));
        filters.entered(2, FSYNC);
        filters.left(2);
        assert!(filters.has(1, never));
        assert!(!filters.has(2, never));
        filters.forget(1);
        assert!(!filters.has(1, || false), "another with its id");
    }

    #[test]
    fn what_may_have_changed_is_asked_of_again() {
        let mut filters = Filters::default();
        assert!(!filters.has(1, || false));
        filters.entered(2, PRCTL);
        // It may not have come about yet: what is found now may not hold after.
        assert!(!filters.has(1, || false));
        assert!(filters.has(1, || true));
        filters.left(2);
        assert!(filters.has(1, || true));
        assert!(filters.has(1, never));
        filters.entered(2, PRCTL);
        filters.forget(2);
        assert!(!filters.has(1, || false));
        assert!(!filters.has(1, never), "nobody is in such a call");
    }
}
