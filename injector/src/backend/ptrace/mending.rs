//! Calls that ended for the tracer, and for nobody else: they are made again with the time that is left, or end when
//! their own time is over.

use injector_common::mark::RESTART;

use super::sleep::{self, Sleep};
use super::tracing::Tracing;
use crate::sys::ptrace::{self, Registers};
use crate::sys::time::monotonic_ns;

/// Why a thread's call may have ended that had not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The thread was asked to stop.
    Asked,
    /// A signal is about to be delivered.
    Signal(i32),
    /// A signal woke it that this thread or another of its process is to get.
    Another,
}

/// Whether a call that a thread leaves ended for a signal; what becomes of it is seen when that is
/// delivered.
fn is_cut_short(tid: u32) -> bool {
    let result = Registers::of(tid).map(|registers| registers.result());
    result.is_ok_and(|result| {
        result == sleep::INTERRUPTED || (sleep::RESTARTS..=sleep::RESTARTS_LAST).contains(&result)
    })
}

impl Tracing<'_> {
    /// Asks threads to stop whose call is over; when the next one's is.
    pub(super) fn expire(&mut self) -> u64 {
        let mut next = 0;
        let now = monotonic_ns();
        for (tid, tracee) in &mut self.tracees {
            match tracee.deadline {
                Some((at, _)) if at <= now && tracee.asked.is_none() => {
                    tracee.asked = Some(Sleep::of(*tid).still(*tid));
                    let _ = ptrace::interrupt(*tid);
                }
                Some((at, _)) if at > now && (next == 0 || at < next) => next = at,
                _ => {}
            }
        }
        next
    }

    /// A thread leaves a call that a signal may have cut short; another thread of its process may take
    /// the signal.
    pub(super) fn left(&mut self, tid: u32, cause: Cause) {
        if is_cut_short(tid) {
            self.mend(tid, cause);
        } else if let Some(tracee) = self.tracees.get_mut(&tid) {
            tracee.deadline = None;
        }
    }

    /// A signal is not delivered, since it is nobody's: the call that it may have ended goes on.
    pub(super) fn mend_for_nothing(&mut self, tid: u32) {
        self.mend(tid, Cause::Another);
    }

    /// A call that ended for the tracer, and for nobody else, is made again with the time that is
    /// left. At a stop on the way back to user mode.
    pub(super) fn mend(&mut self, tid: u32, cause: Cause) {
        let Some(tracee) = self.tracees.get_mut(&tid) else {
            return;
        };
        let asked = tracee.asked.take();
        if cause == Cause::Asked && asked.is_none() {
            return; // Newly born, or after a group-stop.
        }
        let signal = match cause {
            Cause::Signal(signal) => Some(signal),
            Cause::Asked | Cause::Another => None,
        };
        let Ok(mut registers) = Registers::of(tid) else {
            return;
        };
        let is_before = tracee
            .made_again
            .is_some_and(|call| registers.is_before(call));
        if sleep::is_handled(tid, signal, tracee.is_late) {
            // Whatever became of the call before, it ends now, and what comes next is another.
            tracee.again = false;
            tracee.deadline = None;
            tracee.made_again = None;
            // It comes again only behind the handler, if at all.
            if registers.result() != RESTART && !tracee.is_handed_over {
                self.own.let_pass_no_longer(tid);
            }
            if is_before {
                registers.pass_over(sleep::INTERRUPTED);
                let _ = registers.set(tid);
                self.is_elsewhere(tid);
            }
            return;
        }
        if registers.nr() < 0 {
            // In no call. It may be about to enter one again, whose time may be over by now.
            let now_ns = monotonic_ns();
            let over = tracee
                .deadline
                .take_if(|(at, _)| !is_before || *at <= now_ns);
            if is_before && let Some((_, value)) = over {
                tracee.again = false;
                tracee.made_again = None;
                registers.pass_over(value);
                let _ = registers.set(tid);
                self.own.let_pass_no_longer(tid);
                self.is_elsewhere(tid);
            }
            return;
        }
        let is_seen_again = self.own.sees_again(&registers);
        match registers.result() {
            // The kernel makes it again by itself.
            sleep::RESTARTS..=sleep::RESTARTS_LAST => {
                tracee.again = is_seen_again;
                // One that was handed over stays so behind a signal that does nothing.
                tracee.is_handed_over &= registers.result() == RESTART;
                self.own.let_pass(tid, &registers);
            }
            // The descriptor is closed all the same (close(2)), and by now it may be another's.
            sleep::INTERRUPTED if sleep::is_close(&registers) => {}
            sleep::INTERRUPTED => {
                let deadline = tracee.deadline.take().or_else(|| {
                    let sleep = asked.unwrap_or_else(|| Sleep::since(tracee.entered_ns));
                    sleep.deadline(tracee.tgid, tid, &registers)
                });
                match deadline {
                    Some((at, value)) if at <= monotonic_ns() => registers.give(value),
                    _ => {
                        tracee.is_handed_over = false;
                        self.own.let_pass(tid, &registers);
                        tracee.deadline = deadline;
                        tracee.again = is_seen_again;
                        tracee.made_again = Some(registers.make_again());
                    }
                }
                self.is_owing = true;
                let _ = registers.set(tid);
            }
            _ => tracee.deadline = None,
        }
    }
}
