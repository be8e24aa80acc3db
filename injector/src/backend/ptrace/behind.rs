//! Calls that the kernel program has handed over, and that come again only behind a handler of the program's. Until
//! the handler has returned to such a call, what its thread enters is other calls; where it has jumped out of the
//! call, that never comes. So the thread is followed through its handler.

use std::cmp::Ordering;

use super::sleep;
use super::tracing::Tracing;
use crate::backend::memory::CallSlot;
use crate::sys::ptrace::{Entry, MadeAgain, Registers};

/// rt_sigreturn of the native ABI; sigreturn and rt_sigreturn of the 32-bit one.
const RETURNS: u64 = 15;
const RETURNS_I386: [u64; 2] = [119, 173];

/// Calls of a handler's through which its thread is followed: each stops it twice. One that makes more is taken to have
/// jumped into something else.
const FOLLOWED: u32 = 1000;

/// A call that is to come again behind a handler.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behind {
    call: CallSlot,
    instruction: u64,
    stack: u64,
    /// Calls that were entered meanwhile.
    entered: u32,
}

/// What a call that a thread enters is to one that it is to come to behind a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// One of the handler's.
    InHandler,
    /// The handler was left by a jump, and nothing returns to that call.
    Jumped,
    /// It cannot be told: the handler may have a stack of its own, above the thread's (sigaltstack(2)).
    Elsewhere,
}

impl Behind {
    fn see(&mut self, entry: &Entry) -> Seen {
        self.entered += 1;
        let returns = if entry.compat {
            RETURNS_I386.contains(&entry.nr)
        } else {
            entry.nr == RETURNS
        };
        match entry.stack.cmp(&self.stack) {
            _ if returns => Seen::InHandler,
            Ordering::Less if self.entered <= FOLLOWED => Seen::InHandler,
            Ordering::Less | Ordering::Equal => Seen::Jumped,
            Ordering::Greater => Seen::Elsewhere,
        }
    }
}

impl Tracing<'_> {
    /// A thread is about to get a signal. Whether it has a handler, and a call that was handed over comes again behind
    /// that: until then none is let through in its place.
    pub(super) fn goes_behind(&mut self, tid: u32, signal: i32) -> bool {
        let memory = &self.own.memory;
        let Some(tracee) = self.tracees.get_mut(&tid) else {
            return false;
        };
        if tracee.behind.is_none()
            && tracee.is_handed_over
            && let Some(mark) = memory.passing(tid)
            && sleep::is_caught(tid, signal)
        {
            memory.free_mark(tid);
            tracee.is_handed_over = false;
            tracee.behind = Some(Behind {
                call: CallSlot::from(&mark),
                instruction: mark.instruction,
                stack: mark.stack,
                entered: 0,
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
        let Some(behind) = &mut tracee.behind else {
            return false;
        };
        let seen = behind.see(entry);
        if seen == Seen::InHandler {
            return true;
        }
        let left = tracee.behind.take();
        if let Some(behind) = left.filter(|_| seen == Seen::Elsewhere) {
            // Should it come, it is not counted twice.
            tracee.is_handed_over = true;
            self.pass_behind(tid, behind);
        }
        self.is_elsewhere(tid);
        false
    }

    fn pass_behind(&self, tid: u32, behind: Behind) {
        let (instruction, stack) = (behind.instruction, behind.stack);
        // Without a mark it counts once more.
        self.own
            .memory
            .pass_again(tid, behind.call, instruction, stack);
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
            self.pass_behind(tid, behind);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(nr: u64, stack: u64) -> Entry {
        Entry {
            compat: false,
            nr,
            instruction: 0x1002,
            stack,
            args: [0; 6],
        }
    }

    fn behind() -> Behind {
        Behind {
            call: CallSlot {
                compat: false,
                nr: 110,
            },
            instruction: 0x1002,
            stack: 0x8000,
            entered: 0,
        }
    }

    #[test]
    fn a_handler_is_told_from_what_a_jump_leads_to_by_the_stack() {
        for (nr, stack, seen) in [
            (39, 0x7000, Seen::InHandler),
            (RETURNS, 0x7000, Seen::InHandler),
            (RETURNS, 0x9000, Seen::InHandler),
            (110, 0x8000, Seen::Jumped),
            (39, 0x9000, Seen::Elsewhere),
        ] {
            assert_eq!(behind().see(&entry(nr, stack)), seen, "{nr} {stack:x}");
        }
    }

    #[test]
    fn a_handler_is_not_followed_for_ever() {
        let mut behind = behind();
        let mut seen = (0..).map(|_| behind.see(&entry(39, 0x7000)));
        let followed = seen.position(|seen| seen == Seen::Jumped);
        assert_eq!(followed, Some(FOLLOWED as usize));
    }
}
