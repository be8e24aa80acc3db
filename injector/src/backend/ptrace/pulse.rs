//! What the tracer tells the processes that look after it, in memory that all of them share: whether
//! it has attached, and that it still moves.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::sys::SysError;
use crate::sys::mapping::Mapping;

// By offset.
const BEATS: usize = 0;
const PHASE: usize = 8;
const ERRNO: usize = 12;
const TID: usize = 16;
const THREADS: usize = 20;
const SINCE: usize = 24;
const OPEN: usize = 32;
const FINISHED: usize = 36;
const STOPPED: usize = 40;

/// How far the tracer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not all targets are attached yet.
    Starting,
    /// All are: that many threads.
    Attached(u32),
    /// One could not be: its thread, and the errno.
    Refused {
        /// The thread.
        tid: u32,
        /// The errno.
        errno: i32,
    },
    /// The faults are over, and it stays for what it owes to threads.
    Staying,
}

/// The memory.
#[derive(Debug)]
pub(super) struct Pulse(Mapping);

impl Pulse {
    pub(super) fn new() -> Result<Self, SysError> {
        Ok(Self(Mapping::anonymous(STOPPED + 4)?))
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        static NOWHERE: AtomicU32 = AtomicU32::new(0);
        self.0.half(offset).unwrap_or(&NOWHERE)
    }

    /// A sign of life.
    pub(super) fn beat(&self) {
        self.word(BEATS).fetch_add(1, Relaxed);
    }

    /// The signs given so far.
    pub(super) fn beats(&self) -> u32 {
        self.word(BEATS).load(Relaxed)
    }

    fn since(&self) -> &AtomicU64 {
        static NOWHERE: AtomicU64 = AtomicU64::new(0);
        self.0.word(SINCE).unwrap_or(&NOWHERE)
    }

    /// From now on a stop is looked at, `CLOCK_MONOTONIC` nanoseconds.
    pub(super) fn begin(&self, now_ns: u64) {
        self.since().store(now_ns, Release);
    }

    /// No stop is looked at.
    pub(super) fn rest(&self) {
        self.since().store(0, Release);
    }

    /// Since when a stop is looked at; 0 while none is.
    pub(super) fn at_work_since(&self) -> u64 {
        self.since().load(Acquire)
    }

    /// So many calls are decided, and not settled: their threads wait, or something is to happen once they
    /// have run. Before it rests.
    pub(super) fn set_open(&self, calls: usize) {
        self.word(OPEN)
            .store(u32::try_from(calls).unwrap_or(u32::MAX), Release);
    }

    /// It was found stopped.
    pub(super) fn tell_stopped(&self) {
        self.word(STOPPED).store(1, Release);
    }

    /// Whether it was, since this was last asked.
    pub(super) fn was_stopped(&self) -> bool {
        let stopped = self.word(STOPPED);
        stopped.load(Relaxed) != 0 && stopped.swap(0, Acquire) != 0
    }

    /// It ends since no tracee is left.
    pub(super) fn finish(&self) {
        self.word(FINISHED).store(1, Release);
    }

    /// Whether it did.
    pub(super) fn has_finished(&self) -> bool {
        self.word(FINISHED).load(Acquire) != 0
    }

    /// Whether a stop is looked at, or a call is not settled.
    pub(super) fn is_at_work(&self) -> bool {
        self.at_work_since() != 0 || self.word(OPEN).load(Acquire) != 0
    }

    /// Tells how far it has come.
    pub(super) fn tell(&self, phase: Phase) {
        let number = match phase {
            Phase::Starting => 0,
            Phase::Attached(threads) => {
                self.word(THREADS).store(threads, Relaxed);
                1
            }
            Phase::Refused { tid, errno } => {
                self.word(TID).store(tid, Relaxed);
                self.word(ERRNO).store(errno.unsigned_abs(), Relaxed);
                2
            }
            Phase::Staying => 3,
        };
        self.word(PHASE).store(number, Release);
    }

    /// How far it has come.
    pub(super) fn phase(&self) -> Phase {
        match self.word(PHASE).load(Acquire) {
            0 => Phase::Starting,
            1 => Phase::Attached(self.word(THREADS).load(Relaxed)),
            3 => Phase::Staying,
            _ => Phase::Refused {
                tid: self.word(TID).load(Relaxed),
                errno: self.word(ERRNO).load(Relaxed).cast_signed(),
            },
        }
    }
}
