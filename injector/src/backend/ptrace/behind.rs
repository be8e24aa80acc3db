//! Calls that the kernel program has handed over, and that come again only behind a handler of the program's. Until
//! the handler has returned to such a call, what its thread enters is other calls; where it has jumped out of the
//! call, that never comes. So the thread is followed through its handler.

use super::tracing::Tracing;
use crate::backend::memory::CallSlot;
use crate::sys::ptrace::{Entry, MadeAgain, Registers};

/// rt_sigreturn of the native ABI; sigreturn and rt_sigreturn of the 32-bit one.
const RETURNS: u64 = 15;
const RETURNS_I386: [u64; 2] = [119, 173];

/// A call that is to come again behind a handler.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behind {
    call: CallSlot,
    instruction: u64,
    stack: u64,
}

impl Tracing<'_> {
    /// A thread is about to run a handler. Whether a call that was handed over comes again behind it: until then
    /// none is let through in its place.
    pub(super) fn goes_behind(&mut self, tid: u32) -> bool {
        let memory = &self.own.memory;
        let Some(tracee) = self.tracees.get_mut(&tid) else {
            return false;
        };
        if tracee.behind.is_none()
            && tracee.is_handed_over
            && let Some(mark) = memory.passing(tid)
        {
            memory.free_mark(tid);
            tracee.is_handed_over = false;
            tracee.behind = Some(Behind {
                call: CallSlot {
                    compat: mark.abi != 0,
                    nr: mark.nr as u16,
                },
                instruction: mark.instruction,
                stack: mark.stack,
            });
        }
        tracee.behind.is_some()
    }

    /// A thread enters a call; whether it is one of its handler's. From where that has been left by a jump, nothing
    /// returns to the call that was handed over.
    pub(super) fn is_in_handler(&mut self, tid: u32, entry: &Entry) -> bool {
        let Some(tracee) = self.tracees.get_mut(&tid) else {
            return false;
        };
        let Some(behind) = tracee.behind else {
            return false;
        };
        let returns = if entry.compat {
            RETURNS_I386.contains(&entry.nr)
        } else {
            entry.nr == RETURNS
        };
        if returns || entry.stack < behind.stack {
            return true;
        }
        tracee.behind = None;
        self.is_elsewhere(tid);
        false
    }

    /// A thread has left a call, perhaps the one by which a handler returns; whether it is still to come to the call that was
    /// handed over, as it was before it left this one. That one is let through.
    pub(super) fn comes_back(&mut self, tid: u32) -> bool {
        let Some(tracee) = self.tracees.get_mut(&tid) else {
            return false;
        };
        let Some(behind) = tracee.behind else {
            return false;
        };
        let again = MadeAgain::of(behind.instruction, behind.call.nr.into());
        let is_back = Registers::of(tid)
            .is_ok_and(|registers| registers.is_before(again) && registers.stack() == behind.stack);
        if is_back {
            tracee.behind = None;
            tracee.is_handed_over = true;
            let (instruction, stack) = (behind.instruction, behind.stack);
            // Without a mark it counts once more.
            self.own
                .memory
                .pass_again(tid, behind.call, instruction, stack);
        }
        true
    }
}
