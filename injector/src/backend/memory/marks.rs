//! The marks of threads whose calls the kernel program hands to the tracer, from finject's side.

use std::mem::offset_of;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use injector_common::limits::MARKS;
use injector_common::mark::mark_of;
use injector_common::{Mark, MarkState, Shared};

use super::{CallSlot, Memory};

impl Memory {
    fn mark(&self, tid: u32, field: usize) -> &AtomicU64 {
        self.word(place_of_mark(tid) + field)
    }

    /// What a thread's mark says; [`MarkState::Free`] where it is another thread's.
    pub fn mark_state(&self, tid: u32) -> MarkState {
        let word = self.mark(tid, offset_of!(Mark, word)).load(Acquire);
        if word as u32 == tid {
            MarkState::from_wire((word >> 32) as u32)
        } else {
            MarkState::Free
        }
    }

    /// The call that a thread's mark hands to the tracer, and whether it has run.
    pub fn handed_over(&self, tid: u32) -> Option<(Mark, bool)> {
        let asked = self.mark_in(tid, MarkState::Asked);
        let asked = asked.map(|mark| (mark, false));
        asked.or_else(|| Some((self.mark_in(tid, MarkState::Ran)?, true)))
    }

    /// Takes over the call of a thread's that was to be handed to the tracer when it has run.
    pub fn take_running(&self, tid: u32) -> Option<Mark> {
        let mark = self.mark_in(tid, MarkState::Runs)?;
        self.free_in(tid, MarkState::Runs).then_some(mark)
    }

    /// The call of a thread's that is let through when it comes again.
    pub fn passing(&self, tid: u32) -> Option<Mark> {
        self.mark_in(tid, MarkState::Passes)
    }

    fn mark_in(&self, tid: u32, state: MarkState) -> Option<Mark> {
        let is_so = self.mark_state(tid) == state;
        is_so.then(|| self.mapping.read(place_of_mark(tid)))
    }

    /// A thread's mark is free again.
    pub fn free_mark(&self, tid: u32) {
        let word = self.mark(tid, offset_of!(Mark, word));
        if word.load(Acquire) as u32 == tid {
            word.store(0, Release);
        }
    }

    /// A marked thread's call is let through when it comes again.
    pub fn pass_marked(&self, tid: u32) {
        let (asked, passes) = (MarkState::Asked.word(tid), MarkState::Passes.word(tid));
        let word = self.mark(tid, offset_of!(Mark, word));
        // Its thread may have ended, and the mark be another's.
        let _ = word.compare_exchange(asked, passes, AcqRel, Acquire);
        self.free_unnamed_mark(tid);
    }

    /// Of a call that no rule names any more nobody looks at the mark when it comes again, or has run.
    fn free_unnamed_mark(&self, tid: u32) {
        for state in [MarkState::Passes, MarkState::Runs] {
            if let Some(mark) = self.mark_in(tid, state)
                && self.rules_of(CallSlot::from(&mark)) == 0
            {
                self.free_in(tid, state);
            }
        }
    }

    /// Frees a mark that says this; whether it did so until then.
    fn free_in(&self, tid: u32, state: MarkState) -> bool {
        let word = self.mark(tid, offset_of!(Mark, word));
        word.compare_exchange(state.word(tid), 0, AcqRel, Acquire)
            .is_ok()
    }

    /// The same of all threads' marks, once a rule names no calls any more.
    pub fn free_unnamed_marks(&self) {
        for mark in 0..MARKS {
            let word =
                offset_of!(Shared, marks) + mark * size_of::<Mark>() + offset_of!(Mark, word);
            let tid = self.word(word).load(Acquire) as u32;
            if tid != 0 {
                self.free_unnamed_mark(tid);
            }
        }
    }

    /// The same for a call that was not marked, which is made again for the tracer; whether there was a mark
    /// for it.
    pub fn pass_again(&self, tid: u32, call: CallSlot, instruction: u64, stack: u64) -> bool {
        let word = self.mark(tid, offset_of!(Mark, word));
        let filling = MarkState::Filling.word(tid);
        let is_claimed = word.compare_exchange(0, filling, AcqRel, Acquire).is_ok();
        if !is_claimed && self.mark_state(tid) != MarkState::Passes {
            return false;
        }
        let halves = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        const { assert!(offset_of!(Mark, nr) == offset_of!(Mark, tgid) + 4) };
        const { assert!(offset_of!(Mark, firings_len) == offset_of!(Mark, abi) + 4) };
        for (field, value) in [
            (offset_of!(Mark, instruction), instruction),
            (offset_of!(Mark, stack), stack),
            (offset_of!(Mark, tgid), halves(0, call.nr.into())),
            (offset_of!(Mark, abi), halves(call.compat.into(), 0)),
        ] {
            self.mark(tid, field).store(value, Relaxed);
        }
        word.store(MarkState::Passes.word(tid), Release);
        true
    }
}

fn place_of_mark(tid: u32) -> usize {
    offset_of!(Shared, marks) + mark_of(tid) * size_of::<Mark>()
}
