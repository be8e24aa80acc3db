//! The process that answers notified calls. It decides with memory that finject shares, so that
//! finject controls it as it controls the kernel program: by the state, by the lease. It outlives
//! finject, since a filter whose listener is gone makes every call fail; with finject gone, each call
//! is let run. It ends with the last process that has the filter.

use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::parent_id;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use injector_common::RunState;

use super::crew::{Advice, Crew, Queue};
use crate::backend::decider::{Decided, Fate};
use crate::backend::gate::{self, Gate, Look};
use crate::backend::launching::is_exec;
use crate::backend::memory::{CallSlot, Memory};
use crate::backend::recorder::Recorder;
use crate::sys::launch::Latch;
use crate::sys::process::{PollFd, poll_fds, send_signal, send_thread_signal};
use crate::sys::seccomp::{Answer, InFlight, Listener, Notification};
use crate::target::process::{Proc, Tgid};

/// How often it gives a sign of life, milliseconds.
const BEAT_MS: i32 = 100;
/// How long the records of calls that were answered are waited for.
pub(super) const SETTLING: Duration = Duration::from_millis(500);
/// How long a call that came before arming waits between two looks.
const IDLE: Duration = Duration::from_micros(200);

/// Processors that this process may use.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// The call that a filter named, whose numbers are small.
fn slot_of(call: &Notification) -> CallSlot {
    CallSlot {
        compat: call.compat,
        nr: call.nr as u16,
    }
}

/// What the process works with.
#[derive(Debug)]
pub(super) struct Supervisor {
    pub(super) recorder: Recorder,
    pub(super) memory: Arc<Memory>,
    pub(super) listener: Arc<Listener>,
    pub(super) in_flight: Arc<InFlight>,
    /// Becomes readable when finject is gone, once the command has executed: until then it has the
    /// other end open, too.
    pub(super) finject: OwnedFd,
    /// finject's process id.
    pub(super) parent: u32,
    /// Calls before the entry point count too.
    pub(super) from_exec: bool,
    /// The one process whose calls count, where its descendants' do not.
    pub(super) alone: Option<u32>,
    /// The command.
    pub(super) command: u32,
    pub(super) latch: Latch,
}

/// What is shared by the receivers.
struct Work<'s> {
    own: &'s Supervisor,
    crew: Crew,
    gate: Gate,
    /// The command's own exec, which is no call of its program's, has come.
    started: AtomicBool,
    /// So has the one that has /bin/sh read it.
    started_again: AtomicBool,
    /// Held from a decision to its record, so that records come in the order of the counts.
    order: Mutex<()>,
    proc: Proc,
}

impl Supervisor {
    /// The descriptors that the process has to keep.
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [
            self.listener.fd().as_fd(),
            self.recorder.fd(),
            self.finject.as_fd(),
        ]
    }

    /// Answers calls until no process has the filter any more.
    pub(super) fn serve(&self) {
        let work = Work {
            own: self,
            crew: Crew::of(self.in_flight.slots() - 1, processors()),
            gate: Gate::default(),
            started: AtomicBool::new(false),
            started_again: AtomicBool::new(false),
            order: Mutex::new(()),
            proc: Proc::default(),
        };
        std::thread::scope(|scope| {
            let work = &work;
            scope.spawn(move || work.receive());
            for slot in 1..self.in_flight.slots() {
                scope.spawn(move || work.help(slot));
            }
            self.watch(work);
            // The last target may have ended at once upon an answer that is not yet recorded.
            self.in_flight.settle(SETTLING);
            self.memory.add_exited();
            // Receivers wait in the kernel, for calls that no longer come.
            crate::sys::process::leave(0);
        });
    }

    /// Returns when the last process with the filter has ended.
    fn watch(&self, work: &Work<'_>) {
        let mut with_finject = true;
        let mut last = 0;
        loop {
            self.in_flight.beat();
            // A receiver that is held up in one call, by a /proc that does not answer, say, holds up no other.
            let now = self.in_flight.at_work_on(0);
            if now != 0 && now == last {
                work.crew.relieve();
            }
            last = now;
            self.recorder.prune(&work.proc);
            work.gate.prune(|tgid| {
                work.proc
                    .process(Tgid(tgid))
                    .is_some_and(|it| !it.has_ended())
            });
            let mut fds = vec![PollFd::hung_up(self.listener.fd().as_fd())];
            if with_finject {
                fds.push(PollFd::readable(self.finject.as_fd()));
            }
            if poll_fds(&mut fds, BEAT_MS).is_err() || fds[0].is_ready() {
                return;
            }
            if fds.get(1).is_some_and(PollFd::is_ready) {
                with_finject = false;
                self.memory.switch_off();
            }
        }
    }
}

impl Work<'_> {
    /// The first receiver.
    fn receive(&self) {
        let mut queue = Queue::default();
        while let Some(advice) = self.next(0, &mut queue) {
            if advice == Advice::CallIn {
                self.crew.call_in();
            }
        }
    }

    /// One of the others: receives while it is needed.
    fn help(&self, slot: usize) {
        loop {
            self.crew.wait();
            let mut queue = Queue::default();
            loop {
                match self.next(slot, &mut queue) {
                    Some(Advice::Leave) => break,
                    Some(_) => {}
                    None => return,
                }
            }
            self.crew.leave();
        }
    }

    /// Receives the next call and answers it; [`None`] where none will come.
    fn next(&self, slot: usize, queue: &mut Queue) -> Option<Advice> {
        let Supervisor {
            in_flight,
            listener,
            ..
        } = self.own;
        match in_flight.receive(slot, listener) {
            Ok(Some(call)) => {
                let advice = queue.with_a_call(|| listener.has_waiting());
                let fires = self.handle(slot, &call);
                in_flight.clear(slot);
                // Those are answered one after another, so that another receiver would only wait.
                Some(if fires { Advice::Leave } else { advice })
            }
            Ok(None) => Some(Advice::GoOn),
            Err(_) => None,
        }
    }

    /// Answers a call; whether a rule fired on it.
    fn handle(&self, slot: usize, call: &Notification) -> bool {
        while self.own.memory.state() == RunState::Idle {
            if parent_id() != self.own.parent {
                self.own.memory.switch_off();
            }
            std::thread::sleep(IDLE);
        }
        let in_force = self.own.memory.state() == RunState::Armed;
        if !in_force || self.comes_before_the_program(call) || !self.is_target(call.tid) {
            self.carry_out(slot, call, &Decided::PASSES);
            return false;
        }
        let order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let decided = self
            .own
            .recorder
            .decider
            .decide(slot_of(call), &call.args, || {
                self.own.recorder.caller(call.tid)
            });
        let fires = !decided.firings.is_empty();
        if !fires {
            drop(order);
        }
        self.carry_out(slot, call, &decided);
        fires
    }

    fn tgid(&self, tid: u32) -> Option<u32> {
        self.own.recorder.caller(tid).map(|caller| caller.tgid)
    }

    fn is_target(&self, tid: u32) -> bool {
        let alone = self.own.alone;
        alone.is_none_or(|alone| tid == alone || self.tgid(tid) == Some(alone))
    }

    /// Whether the call is the loader's, or the exec that starts the command. Takes note of execs.
    fn comes_before_the_program(&self, call: &Notification) -> bool {
        let is_exec = is_exec(slot_of(call));
        if is_exec {
            self.own.recorder.forget_names();
        }
        if !is_exec && !self.started.load(Relaxed) {
            return true; // The child's that is going to execute the command.
        }
        let is_start = is_exec && self.is_start(call.tid);
        if self.own.from_exec {
            return is_start;
        }
        if !is_exec && self.gate.has_begun(call.tid) {
            return false;
        }
        let Some(tgid) = self.tgid(call.tid) else {
            return true; // It is gone.
        };
        let look = Look {
            tgid,
            still_waits: || self.own.listener.still_waits(call.id),
        };
        let held = self.gate.holds(tgid, call.tid, call.instruction, &look);
        if is_exec {
            self.gate.exec(tgid, call.tid, gate::loader_of(tgid));
        }
        held || is_start
    }

    /// Whether an exec is the one that starts the command, or that has /bin/sh read it.
    fn is_start(&self, tid: u32) -> bool {
        let is_first = |seen: &AtomicBool| !seen.load(Relaxed) && !seen.swap(true, AcqRel);
        let Supervisor { command, latch, .. } = self.own;
        is_first(&self.started)
            || tid == *command && latch.executes_again() && is_first(&self.started_again)
    }

    fn carry_out(&self, slot: usize, call: &Notification, decided: &Decided) {
        let Supervisor {
            in_flight,
            listener,
            ..
        } = self.own;
        // Before the answer: then the caller goes on, and may be gone.
        let facts = (!decided.firings.is_empty()).then(|| {
            let recorder = &self.own.recorder;
            recorder.facts(call.tid, slot_of(call), call.args)
        });
        let mut sent = Vec::new();
        for firing in &decided.firings {
            sent.push(firing.signal().is_none_or(|signal| {
                listener.still_waits(call.id)
                    && self
                        .tgid(call.tid)
                        .is_some_and(|tgid| send_thread_signal(tgid, call.tid, signal))
            }));
        }
        let answered = match decided.fate {
            Fate::Runs => in_flight.answer(slot, listener, Answer::Run).is_ok(),
            Fate::Gets(value) => in_flight
                .answer(slot, listener, Answer::Value(value))
                .is_ok(),
            Fate::Dies => {
                let killed = listener.still_waits(call.id)
                    && self
                        .tgid(call.tid)
                        .is_some_and(|tgid| send_signal(tgid, libc::SIGKILL as u32));
                // Where it could not be killed, the call still does not run.
                let _ = in_flight.answer(slot, listener, Answer::Value(-i64::from(libc::EINTR)));
                killed
            }
        };
        let Some(facts) = facts else {
            return;
        };
        for (firing, sent) in decided.firings.iter().zip(sent) {
            self.own.recorder.settle(firing, answered && sent, &facts);
        }
    }
}
