//! The process that traces. One thread attaches, waits and answers, since ptrace(2) knows one tracer
//! for each thread; another gives signs of life, and ends the process when the faults are over: the
//! kernel then lets every thread go on where it is, which nobody notices.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};

use injector_common::{MarkState, RunState};

use super::census::Census;
use super::owed::{LEAVING, Owed};
use super::pulse::{Phase, Pulse};
use super::seen::Seen;
use super::sleep;
use super::tracing::Tracing;
use crate::backend::memory::{CallSlot, Memory};
use crate::backend::recorder::Recorder;
use crate::sys::bpf::grace_period;
use crate::sys::launch::Latch;
use crate::sys::process::{PollFd, leave, poll_fds};
use crate::sys::ptrace::{Options, Registers};
use crate::sys::signals::Waker;
use crate::sys::time::monotonic_ns;
use crate::target::process::{Proc, Tgid};

/// How often it gives a sign of life, milliseconds.
const BEAT_MS: i32 = 100;
/// How long one stop may take before the tracer counts as hung, nanoseconds.
const HUNG_NS: u64 = 500_000_000;
/// How long finject waits, when the faults are over, for threads that sleep in calls made again to come to
/// their time's end.
const LINGERING_NS: u64 = 1_500_000_000;
/// How long the tracer stays for them without it.
const STAYING_NS: u64 = 60_000_000_000;
/// How long threads that make no call are waited for when the faults are over.
const DRAINING_NS: u64 = 100_000_000;

/// What it does with the calls that it sees.
#[derive(Debug)]
pub(super) enum Work {
    /// Decides them by rules, and takes note of all.
    Decide(Box<Recorder>, Arc<Seen>),
    /// Does what the program in the kernel has decided, which stops those threads.
    Act(Box<Recorder>),
    /// Counts them.
    Count(Census),
}

/// Whom it traces.
#[derive(Debug)]
pub(super) enum Mode {
    /// Processes that run.
    Attach(Vec<Tgid>),
    /// A command, which waits for the latch.
    Launch {
        /// The command.
        pid: u32,
        /// What it waits for.
        latch: Latch,
        /// It has a filter that hands over the calls that rules name, and so have all that it starts.
        is_filtered: bool,
    },
}

/// What the process works with.
#[derive(Debug)]
pub(super) struct Tracer {
    pub(super) work: Work,
    pub(super) memory: Arc<Memory>,
    pub(super) pulse: Arc<Pulse>,
    /// Becomes readable when finject is gone, or wants all threads let go; of a command, once it has
    /// executed: until then it has the other end open, too.
    pub(super) finject: OwnedFd,
    /// finject's process id.
    pub(super) parent: u32,
    pub(super) mode: Mode,
    /// Children of targets are targets.
    pub(super) follow: bool,
    /// Calls before the entry point count too.
    pub(super) from_exec: bool,
    /// Never targets.
    pub(super) never: Vec<Tgid>,
    /// What is owed to threads when the faults are over.
    pub(super) owed: Owed,
    /// A thread could not be attached; told once those that were are let go.
    pub(super) refused: OnceLock<Phase>,
}

/// What the thread that traces tells the one that watches.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The faults are over: whether the process is to end, a [`Leave`] as its number. The thread that
    /// traces does it between two stops, since a signal whose stop was reported, and then forgotten with
    /// the process, is lost (kernel/signal.c, `ptrace_stop`).
    pub(super) leave: AtomicU32,
    /// When it has to be woken, 0 for never.
    pub(super) wake_ns: AtomicU64,
    /// Threads were asked to stop that have not yet: a call of theirs may have ended for it.
    pub(super) asked: AtomicBool,
    /// The faults are over, and no thread will be found at the entry of a call: one that is there when
    /// the tracer ends would enter it with a signal pending that is none, and be told EINTR
    /// (kernel/ptrace.c, `ptrace_signal_wake_up`).
    pub(super) drained: AtomicBool,
}

/// Whether the process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Leave {
    /// Not yet.
    Not = 0,
    /// As soon as nothing is owed to a thread.
    Settled = 1,
    /// Whatever is owed.
    Now = 2,
    /// As [`Leave::Settled`], and while no thread is where its call would be cut short.
    Drained = 3,
}

impl Shared {
    /// Whether the process is to end, where something `is_owing` to threads or not.
    pub(super) fn may_leave(&self, is_owing: bool) -> bool {
        let leave = self.leave.load(Acquire);
        let is_settled = leave == Leave::Settled as u32
            || leave == Leave::Drained as u32 && self.drained.load(Acquire);
        leave == Leave::Now as u32 || is_settled && !is_owing
    }
}

impl Tracer {
    /// The descriptors that the process has to keep.
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        let out = match &self.work {
            Work::Decide(recorder, _) | Work::Act(recorder) => recorder.fd(),
            Work::Count(census) => census.fd(),
        };
        [out, self.finject.as_fd(), self.owed.fd()]
    }

    /// Whether the calls come by a filter, rather than that all are seen.
    pub(super) fn is_filtered(&self) -> bool {
        matches!(
            self.mode,
            Mode::Launch {
                is_filtered: true,
                ..
            }
        )
    }

    /// Whether the kernel program stops the threads of which something is to be done, and none other stops for
    /// a call.
    pub(super) fn acts(&self) -> bool {
        matches!(self.work, Work::Act(_))
    }

    /// Whether threads stop for few calls, rather than for all.
    pub(super) fn sees_few(&self) -> bool {
        self.is_filtered() || self.acts()
    }

    /// Whose firings are settled.
    pub(super) fn recorder(&self) -> Option<&Recorder> {
        match &self.work {
            Work::Decide(recorder, _) | Work::Act(recorder) => Some(recorder),
            Work::Count(_) => None,
        }
    }

    /// Whether all threads are to be let go.
    pub(super) fn is_over(&self) -> bool {
        !self.is_filtered() && self.memory.state() == RunState::Off
    }

    /// Whether a call that is made again is reported at its entry. By a filter only those are that it
    /// names, and none that the kernel goes on with under another number.
    pub(super) fn sees_again(&self, registers: &Registers) -> bool {
        if !self.sees_few() {
            return true;
        }
        let call = u16::try_from(registers.nr()).map(|nr| CallSlot {
            compat: !registers.is_native(),
            nr,
        });
        match (&self.work, call) {
            (Work::Decide(recorder, _), Ok(call)) => {
                recorder.decider.names(call) && registers.result() != sleep::RESTARTS
            }
            _ => false,
        }
    }

    /// A call that is made again though its thread would not have noticed is not counted a second time by the
    /// kernel program.
    pub(super) fn let_pass(&self, tid: u32, registers: &Registers) {
        if let Work::Act(recorder) = &self.work
            && let Ok(nr) = u16::try_from(registers.nr())
            && registers.result() != sleep::RESTARTS
        {
            let call = CallSlot {
                compat: !registers.is_native(),
                nr,
            };
            // Without a mark it counts once more.
            if recorder.decider.names(call) {
                self.memory
                    .pass_again(tid, call, registers.instruction(), registers.stack());
            }
        }
    }

    /// It does not come again.
    pub(super) fn let_pass_no_longer(&self, tid: u32) {
        if self.acts() && self.memory.mark_state(tid) == MarkState::Passes {
            self.memory.free_mark(tid);
        }
    }

    /// Ends the process.
    pub(super) fn leave(&self) -> ! {
        self.tell_refused();
        if let Work::Count(census) = &self.work {
            census.hand_over();
        }
        leave(0)
    }

    fn tell_refused(&self) {
        if let Some(refused) = self.refused.get() {
            self.pulse.tell(*refused);
        }
    }

    /// From now on finject waits no longer, and whoever wants to trace may ask it to go.
    fn stay(&self) {
        let own = std::process::id();
        let _ = std::fs::write(format!("/proc/self/task/{own}/comm"), LEAVING);
        self.pulse.tell(Phase::Staying);
        self.tell_refused();
    }

    pub(super) fn options(&self) -> Options {
        Options {
            // A child has the filter too, and without a tracer its calls would fail.
            follow: self.follow || self.is_filtered(),
            filtered: self.is_filtered(),
        }
    }

    /// Whether a process's calls are decided, where descendants are left alone.
    pub(super) fn is_target(&self, tgid: u32) -> bool {
        match &self.mode {
            Mode::Launch { pid, .. } => self.follow || tgid == *pid,
            // No other is traced.
            Mode::Attach(_) => true,
        }
    }

    /// Traces until no tracee is left, or until the faults are over.
    pub(super) fn serve(&self) {
        let Ok(waker) = Waker::of_this_thread() else {
            return;
        };
        let mut tracing = Tracing::of(self);
        if let Err((tid, error)) = tracing.attach() {
            let errno = error.errno();
            let refused = Phase::Refused { tid, errno };
            // Where it was to act, nobody was stopped, and its end lets all go.
            if tracing.threads() == 0 || self.acts() {
                return self.pulse.tell(refused);
            }
            // Calls of those that were attached have ended for it, and are made again.
            let _ = self.refused.set(refused);
            self.memory.switch_off();
        } else {
            let threads = u32::try_from(tracing.threads()).unwrap_or(u32::MAX);
            self.pulse.tell(Phase::Attached(threads));
        }
        let shared = Shared::default();
        // Every thread was.
        shared.asked.store(!self.acts(), Release);
        std::thread::scope(|scope| {
            scope.spawn(|| self.watch(&shared, waker));
            tracing.trace(&shared);
            self.leave();
        });
    }

    /// Gives signs of life while the other thread does not hang, and ends the process.
    fn watch(&self, shared: &Shared, waker: Waker) {
        let mut with_finject = true;
        let mut off_ns: Option<u64> = None;
        let mut stays = false;
        let proc = Proc::default();
        loop {
            let now = monotonic_ns();
            let since = self.pulse.at_work_since();
            if since == 0 || now.saturating_sub(since) < HUNG_NS {
                self.pulse.beat();
            }
            let wake = shared.wake_ns.load(Acquire);
            let mut wait_ms = if self.is_over() && !stays { 1 } else { BEAT_MS };
            if wake != 0 {
                if wake <= now {
                    waker.wake();
                }
                let left_ms = wake.saturating_sub(now) / 1_000_000;
                wait_ms = i32::try_from(left_ms).unwrap_or(BEAT_MS).clamp(1, wait_ms);
            }
            let mut fds = Vec::new();
            if with_finject {
                fds.push(PollFd::readable(self.finject.as_fd()));
            }
            let _ = poll_fds(&mut fds, wait_ms);
            if fds.first().is_some_and(PollFd::is_ready) {
                with_finject = false;
                self.memory.switch_off();
            }
            if self.memory.state() == RunState::Armed && monotonic_ns() > self.memory.lease() {
                self.memory.lapse();
            }
            if let Work::Decide(recorder, _) = &self.work {
                recorder.prune(&proc);
            }
            if self.memory.state() == RunState::Off && self.pulse.is_at_work() {
                // A launched command's thread may be in a call that is changed.
                waker.wake();
            }
            if self.is_over() {
                waker.wake();
                let off_ns = *off_ns.get_or_insert_with(|| {
                    if self.acts() {
                        // What the kernel program still sends, it sends till then. Not every kernel tells.
                        let _ = grace_period();
                    }
                    monotonic_ns()
                });
                let since_ns = monotonic_ns().saturating_sub(off_ns);
                let has_deadlines = shared.wake_ns.load(Acquire) != 0;
                let is_owed = has_deadlines || shared.asked.load(Acquire);
                let most_ns = if has_deadlines {
                    STAYING_NS
                } else {
                    LINGERING_NS
                };
                if since_ns > most_ns.saturating_add(HUNG_NS) {
                    self.leave();
                }
                if since_ns > LINGERING_NS && has_deadlines && !stays {
                    stays = true;
                    self.stay();
                }
                let leave = if since_ns > most_ns {
                    Leave::Now
                } else if is_owed {
                    Leave::Not
                } else if since_ns > DRAINING_NS {
                    Leave::Settled
                } else {
                    Leave::Drained
                };
                shared.leave.store(leave as u32, Release);
            }
        }
    }
}
