//! How many threads receive calls at once. The kernel wakes all that wait for one, each time one comes (kernel/seccomp.c,
//! `recv_wait_event`), so that two that wait cost more than they bring. One receives; it calls another in while calls queue
//! up behind it, and that one leaves when they no longer do.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Calls from one look for others that wait to the next.
const EVERY: u32 = 32;
/// Looks in a row that found some, before another receiver is called in.
const QUEUED: u32 = 4;

/// What a receiver does after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// It goes on.
    GoOn,
    /// It goes on, and another helps.
    CallIn,
    /// It is not needed, where it is not the only one.
    Leave,
}

/// What a receiver sees of the calls that wait while it has one to answer: once it has answered, the
/// caller may be there again.
#[derive(Debug, Default)]
pub(super) struct Queue {
    calls: u32,
    found: u32,
}

impl Queue {
    /// With a call; `others_wait` is asked now and then.
    pub(super) fn with_a_call(&mut self, others_wait: impl FnOnce() -> bool) -> Advice {
        self.calls += 1;
        if !self.calls.is_multiple_of(EVERY) {
            return Advice::GoOn;
        }
        if !others_wait() {
            self.found = 0;
            return Advice::Leave;
        }
        self.found += 1;
        if self.found < QUEUED {
            return Advice::GoOn;
        }
        self.found = 0;
        Advice::CallIn
    }
}

#[derive(Debug, Default)]
struct State {
    called: usize,
    at_work: usize,
}

/// The receivers beyond the first.
#[derive(Debug)]
pub(super) struct Crew {
    all: usize,
    /// Those that could run at once beside the first.
    useful: usize,
    state: Mutex<State>,
    bell: Condvar,
}

impl Crew {
    /// So many, none of them at work, on so many processors.
    pub(super) fn of(all: usize, processors: usize) -> Self {
        Self {
            all,
            useful: all.min(processors.saturating_sub(1)),
            state: Mutex::default(),
            bell: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls one in, where there is one left that could run at once.
    pub(super) fn call_in(&self) {
        self.call_in_up_to(self.useful);
    }

    /// Calls one in for a receiver that is held up, where one is left.
    pub(super) fn relieve(&self) {
        self.call_in_up_to(self.all);
    }

    fn call_in_up_to(&self, most: usize) {
        let mut state = self.state();
        if state.called + state.at_work < most {
            state.called += 1;
            self.bell.notify_one();
        }
    }

    /// Waits to be called in.
    pub(super) fn wait(&self) {
        let state = self.state();
        let mut state = self
            .bell
            .wait_while(state, |state| state.called == 0)
            .unwrap_or_else(PoisonError::into_inner);
        state.called -= 1;
        state.at_work += 1;
    }

    /// One leaves.
    pub(super) fn leave(&self) {
        self.state().at_work -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(queue: &mut Queue, others_wait: bool) -> Advice {
        for _ in 1..EVERY {
            let seldom = queue.with_a_call(|| panic!("asked too often"));
            assert_eq!(seldom, Advice::GoOn);
        }
        queue.with_a_call(|| others_wait)
    }

    #[test]
    fn another_is_called_in_for_a_queue_that_lasts() {
        let mut queue = Queue::default();
        for _ in 0..2 {
            for _ in 1..QUEUED {
                assert_eq!(advice(&mut queue, true), Advice::GoOn);
            }
            assert_eq!(advice(&mut queue, true), Advice::CallIn);
        }
        for _ in 1..QUEUED {
            assert_eq!(advice(&mut queue, true), Advice::GoOn);
        }
        assert_eq!(advice(&mut queue, false), Advice::Leave);
        assert_eq!(advice(&mut queue, true), Advice::GoOn, "it begins anew");
    }

    #[test]
    fn no_more_are_called_in_than_there_are() {
        let crew = Crew::of(1, 2);
        crew.call_in();
        crew.call_in();
        crew.wait();
        crew.call_in();
        assert_eq!(crew.state().called, 0);
        crew.leave();
        crew.call_in();
        assert_eq!(crew.state().called, 1);
    }

    #[test]
    fn on_one_processor_another_only_relieves() {
        let crew = Crew::of(1, 1);
        crew.call_in();
        assert_eq!(crew.state().called, 0);
        crew.relieve();
        assert_eq!(crew.state().called, 1);
    }
}
