//! Calls that wait for their answers because a rule says so: received, decided, and answered when their time
//! has come. One thread keeps the time of all of them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use injector_common::Event;

use crate::backend::waits::{Schedule, Stay};
use crate::sys::seccomp::{Notification, PARKED};

/// A call that waits.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) stay: Stay,
    pub(super) call: Notification,
    /// The call's part of its records.
    pub(super) facts: Event,
    /// Where its number is kept for whoever answers in this process's place.
    pub(super) place: usize,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Parking(Mutex<State>);

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) waiting: Schedule<Parked>,
    free: Vec<usize>,
    used: usize,
}

impl State {
    /// A free place.
    pub(super) fn place(&mut self) -> Option<usize> {
        self.free.pop().or_else(|| {
            let next = self.used;
            (next < PARKED).then(|| {
                self.used += 1;
                next
            })
        })
    }

    /// A place is free again.
    pub(super) fn leave(&mut self, place: usize) {
        self.free.push(place);
    }
}

impl Parking {
    /// The calls, for as long as they are looked at.
    pub(super) fn look(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
