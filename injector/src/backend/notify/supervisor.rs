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

use injector_common::rule::{ACT_SIGNAL, ACT_WAITS};
use injector_common::{CallerFacts, Data, Event, RunState};

use super::crew::{Advice, Crew, Queue};
use super::parking::{Parked, Parking};
use crate::backend::bell::Bell;
use crate::backend::decider::{Asked, Caller};
use crate::backend::files::{CallFiles, Files};
use crate::backend::firing::Fate;
use crate::backend::gate::{self, Gate, Look};
use crate::backend::launching::is_exec;
use crate::backend::memory::{CallSlot, Memory};
use crate::backend::recorder::Recorder;
use crate::backend::sockets::{CallSocket, Sockets};
use crate::backend::waits::{Stay, Then, has_wait};
use crate::sys::launch::Latch;
use crate::sys::process::{PollFd, poll_fds, send_signal, send_thread_signal};
use crate::sys::seccomp::{Answer, InFlight, Listener, Notification};
use crate::sys::time::{Timer, monotonic_ns};
use crate::target::process::{Proc, Tgid};

/// How often it gives a sign of life, milliseconds.
const BEAT_MS: i32 = 100;
/// How long the records of calls that were answered are waited for.
pub(super) const SETTLING: Duration = Duration::from_millis(500);
/// How long a call that came before arming waits between two looks.
const IDLE: Duration = Duration::from_micros(200);

/// How often it is looked whether threads that wait are still there, nanoseconds.
const LOOK_NS: u64 = 1_000_000_000;

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
    /// Rung when calls that wait may have to go on.
    pub(super) bell: Arc<Bell>,
    /// Set for when the next of them has to.
    pub(super) timer: Timer,
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
    parking: Parking,
    /// The last process with the filter has ended.
    none_is_left: AtomicBool,
    proc: Proc,
}

impl Supervisor {
    /// The descriptors that the process has to keep.
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 6] {
        let [ear, rope] = self.bell.fds();
        [
            self.listener.fd().as_fd(),
            self.recorder.fd(),
            self.finject.as_fd(),
            ear,
            rope,
            self.timer.fd(),
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
            parking: Parking::default(),
            none_is_left: AtomicBool::new(false),
            proc: Proc::default(),
        };
        std::thread::scope(|scope| {
            let work = &work;
            scope.spawn(move || work.receive());
            scope.spawn(move || work.keep_time());
            for slot in 1..self.in_flight.slots() {
                scope.spawn(move || work.help(slot));
            }
            self.watch(work);
            work.none_is_left.store(true, Relaxed);
            self.bell.ring();
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
                self.bell.ring();
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
        let Supervisor {
            in_flight,
            listener,
            recorder,
            ..
        } = self.own;
        let answer = |answer| in_flight.answer(slot, listener, answer).is_ok();
        let in_force = self.own.memory.state() == RunState::Armed;
        if !in_force || self.comes_before_the_program(call) || !self.is_target(call.tid) {
            answer(Answer::Run);
            return false;
        }
        // Before it is its turn: to look at files may take as long as whoever serves them takes.
        let asked = AskedOf { recorder, call };
        let about = recorder.decider.about(slot_of(call), &call.args, &asked);
        if about == 0 {
            answer(Answer::Run);
            return false;
        }
        let order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let decided = recorder.decider.decide_by(about, &asked);
        if decided.disarms {
            // Threads may wait for rules that are out of force from here on.
            self.own.bell.ring();
        }
        if decided.firings.is_empty() {
            drop(order);
            answer(Answer::Run);
            return false;
        }
        // Before the answer: then the caller goes on, and may be gone.
        let facts = recorder.facts(call.tid, slot_of(call), call.args);
        let waits = has_wait(&decided);
        let mut stay = Stay::of(decided);
        if waits {
            drop(order);
            if !self.park(call, stay, facts) {
                answer(Answer::Run);
            }
            return false;
        }
        self.carry_out(call, &mut stay, answer);
        self.settle(&stay, &facts);
        true
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

    /// Has a call wait whose decision says so; whether there was room.
    fn park(&self, call: &Notification, mut stay: Stay, facts: Event) -> bool {
        let now_ns = monotonic_ns();
        let Some(until_ns) = stay.next(now_ns) else {
            return false;
        };
        let mut parking = self.parking.look();
        let Some(place) = parking.place() else {
            drop(parking);
            self.settle(&stay, &facts);
            return false;
        };
        self.own.in_flight.park(place, call.id);
        stay.count_begin(&self.own.memory);
        let is_next = parking.waiting.next_ns().is_none_or(|next| until_ns < next);
        let parked = Parked {
            stay,
            call: *call,
            facts,
            place,
        };
        let waits_for = parked.stay.waits_for(self.own.memory.armed());
        parking.waiting.add(until_ns, parked);
        drop(parking);
        // Its rule may be out of force since it was decided.
        if is_next || waits_for.is_some_and(|it| it.is_disarmed) {
            self.own.bell.ring();
        }
        true
    }

    /// Lets parked calls go on when their time has come, or the faults are over.
    fn keep_time(&self) {
        let mut looked_ns = monotonic_ns();
        loop {
            let now_ns = monotonic_ns();
            let is_over = self.is_over(now_ns);
            loop {
                let mut parking = self.parking.look();
                let next = if is_over {
                    parking.waiting.take()
                } else {
                    parking.waiting.take_due(now_ns)
                };
                drop(parking);
                let Some(parked) = next else {
                    break;
                };
                self.go_on(parked, now_ns, is_over);
            }
            self.release(now_ns);
            if now_ns.saturating_sub(looked_ns) >= LOOK_NS {
                looked_ns = now_ns;
                let listener = &self.own.listener;
                let is_gone =
                    |parked: &Parked| (!listener.still_waits(parked.call.id)).then_some(0);
                let gone = self.parking.look().waiting.take_some(usize::MAX, is_gone);
                for parked in gone {
                    self.go_on(parked, now_ns, true);
                }
            }
            let until_ns = self.parking.look().waiting.next_ns().map(|next_ns| {
                let looks_ns = now_ns + LOOK_NS;
                next_ns.min(looks_ns).min(self.own.memory.lease())
            });
            self.own.timer.set(until_ns);
            let mut fds = [
                PollFd::readable(self.own.bell.ear()),
                PollFd::readable(self.own.timer.fd()),
            ];
            let _ = poll_fds(&mut fds, -1);
            self.own.bell.heard();
        }
    }

    /// Lets calls go on whose rules are out of force, and those that finject asks for.
    fn release(&self, now_ns: u64) {
        let memory = &self.own.memory;
        let armed = memory.armed();
        if self.is_over(now_ns) {
            return; // All of them are let go.
        }
        if memory.holds_for_disarmed() {
            let is_disarmed = |parked: &Parked| {
                let waits_for = parked.stay.waits_for(armed)?;
                waits_for.is_disarmed.then_some(waits_for.since_ns)
            };
            let disarmed = self
                .parking
                .look()
                .waiting
                .take_some(usize::MAX, is_disarmed);
            for parked in disarmed {
                self.go_on(parked, now_ns, false);
            }
        }
        if let Some(asked) = memory.release_asked() {
            let is_meant = |parked: &Parked| parked.stay.waits_for(armed)?.is_meant(&asked);
            let meant = self.parking.look().waiting.take_some(asked.most, is_meant);
            let number = meant.len();
            for mut parked in meant {
                parked.stay.release(Then::of(&asked));
                self.go_on(parked, now_ns, false);
            }
            memory.answer_release(asked.request, number);
        }
    }

    /// Whether no call waits any longer.
    fn is_over(&self, now_ns: u64) -> bool {
        let memory = &self.own.memory;
        if memory.state() == RunState::Armed && now_ns > memory.lease() {
            memory.lapse();
        }
        memory.state() != RunState::Armed || self.none_is_left.load(Relaxed)
    }

    /// A parked call's wait is over.
    fn go_on(&self, mut parked: Parked, now_ns: u64, is_over: bool) {
        let armed = self.own.memory.armed();
        parked.stay.count_end(&self.own.memory);
        if is_over {
            parked.stay.let_go(now_ns);
        } else {
            parked.stay.disarm(armed);
        }
        if let Some(until_ns) = parked.stay.next(now_ns) {
            parked.stay.count_begin(&self.own.memory);
            self.parking.look().waiting.add(until_ns, parked);
            return;
        }
        let Supervisor {
            in_flight,
            listener,
            ..
        } = self.own;
        let Parked {
            mut stay,
            call,
            facts,
            place,
        } = parked;
        let is_answered = self.carry_out(&call, &mut stay, |answer| {
            in_flight.answer_parked(place, listener, answer).is_ok()
        });
        if !is_answered {
            // Its thread was killed meanwhile.
            stay.let_go(now_ns);
        }
        self.settle(&stay, &facts);
        in_flight.leave(place);
        self.parking.look().leave(place);
    }

    /// Does what was decided and is left to do, and answers; whether the call still waited for it.
    fn carry_out(
        &self,
        call: &Notification,
        stay: &mut Stay,
        answer: impl Fn(Answer) -> bool,
    ) -> bool {
        for (firing, done) in stay.firings() {
            if let Some(signal) = firing.signal()
                && self.send(call, |tgid| send_thread_signal(tgid, call.tid, signal))
            {
                done.actions |= ACT_SIGNAL;
            }
        }
        let (is_answered, is_done) = match stay.fate() {
            Fate::Gets(value) => {
                let is_answered = answer(Answer::Value(value));
                (is_answered, is_answered)
            }
            Fate::Dies => {
                let is_killed = self.send(call, |tgid| send_signal(tgid, libc::SIGKILL as u32));
                // Where it could not be killed, the call still does not run.
                let is_answered = answer(Answer::Value(-i64::from(libc::EINTR)));
                (is_answered || is_killed, is_killed)
            }
            // What comes after a call is no notification's, and was refused.
            Fate::Runs | Fate::RunsThenGets(_) | Fate::RunsThenDies => (answer(Answer::Run), false),
        };
        if is_done {
            stay.replaced();
        }
        if !is_answered {
            for (_, done) in stay.firings() {
                done.actions &= ACT_WAITS;
            }
        }
        is_answered
    }

    /// Sends a signal to a caller that still waits.
    fn send(&self, call: &Notification, send: impl Fn(u32) -> bool) -> bool {
        self.own.listener.still_waits(call.id) && self.tgid(call.tid).is_some_and(send)
    }

    fn settle(&self, stay: &Stay, facts: &Event) {
        for (firing, done) in stay.ended() {
            self.own.recorder.settle(firing, done, facts);
        }
    }
}

/// A call that a thread waits for the answer of.
struct AskedOf<'a> {
    recorder: &'a Recorder,
    call: &'a Notification,
}

impl AskedOf<'_> {
    /// The process; a thread that is gone has neither files nor sockets.
    fn tgid(&self) -> u32 {
        self.caller().map_or(self.call.tid, |caller| caller.tgid)
    }
}

impl Asked for AskedOf<'_> {
    fn caller(&self) -> Option<Caller> {
        self.recorder.caller(self.call.tid)
    }

    fn caller_facts(&self) -> Option<CallerFacts> {
        self.recorder.caller_facts(self.call.tid)
    }

    /// No call of this backend's is changed.
    fn data(&self) -> Data {
        Data::NONE
    }

    fn files(&self) -> impl Files {
        let Notification { tid, args, .. } = self.call;
        CallFiles::of(self.tgid(), *tid, slot_of(self.call), args)
    }

    fn sockets(&self) -> impl Sockets {
        CallSocket::of(self.tgid(), slot_of(self.call), &self.call.args)
    }
}
