//! What the thread that traces does for rules that fire: before a call, in its place, and after it. Threads
//! that wait stay at the stop at which they are.

use injector_common::mark::MARK_SIGNAL;
use injector_common::rule::{ACT_AFTER_SIGNAL, ACT_SIGNAL};
use injector_common::{Event, Mark, MarkState, RunState};

use super::held::Held;
use super::mending::Cause;
use super::sleep;
use super::tracer::Work;
use super::tracing::Tracing;
use crate::backend::firing::{Decided, Fate};
use crate::backend::memory::CallSlot;
use crate::backend::recorder::Recorder;
use crate::backend::waits::{Stay, Then};
use crate::sys::process::{send_signal, send_thread_signal};
use crate::sys::ptrace::{self, Entry, Registers};
use crate::sys::time::monotonic_ns;
use crate::target::process::Tgid;

/// The signal by which the kernel program stops a thread, and where it says that it comes from (sigaction(2)).
const MARKS_SIGNAL: i32 = MARK_SIGNAL as i32;
const SI_KERNEL: i32 = 0x80;

/// The call that a mark tells of, and its part of records.
fn told(mark: &Mark, tid: u32) -> (Entry, Event) {
    let call = CallSlot::from(mark);
    let facts = Event {
        comm: mark.comm,
        ..Recorder::call(mark.tgid, tid, call, mark.args)
    };
    let entry = Entry {
        compat: call.compat,
        nr: mark.nr.into(),
        instruction: mark.instruction,
        stack: mark.stack,
        args: mark.args,
    };
    (entry, facts)
}

impl Tracing<'_> {
    /// Carries out what was decided for the call at whose entry a thread is, or which
    /// [begins anew](Held::begins_anew).
    pub(super) fn carry_out(
        &mut self,
        tid: u32,
        entry: &Entry,
        facts: Event,
        decided: Decided,
        begins_anew: bool,
    ) {
        let mut held = Held {
            begins_anew,
            ..Held::of(entry, facts, decided)
        };
        let now_ns = monotonic_ns();
        match held.stay.next(now_ns) {
            Some(until_ns) => self.keep(tid, until_ns, held, now_ns),
            None => self.act(tid, held),
        }
    }

    /// A thread is about to get a signal. Where the kernel program has stopped it, this is its stop, whatever the signal
    /// is: what was decided is carried out, and a signal of the program's own is delivered when it goes on. Whether
    /// it was so, or the signal nobody's; then the thread is kept, or goes on.
    pub(super) fn takes_for_the_kernel(&mut self, tid: u32, signal: i32) -> bool {
        let own = self.own;
        let Work::Act(recorder) = &own.work else {
            return false;
        };
        let is_ours = signal == MARKS_SIGNAL && ptrace::signal_code(tid) == Some(SI_KERNEL);
        let Some((mark, has_run)) = own.memory.handed_over(tid) else {
            let state = own.memory.mark_state(tid);
            let is_late = state == MarkState::Late;
            if is_late {
                own.memory.free_mark(tid);
            }
            let Some(tracee) = self.tracees.get_mut(&tid) else {
                return false;
            };
            tracee.is_late |= is_late;
            // The first that comes is the one that was on its way, whoever sent it.
            let is_nobodys =
                signal == MARKS_SIGNAL && std::mem::take(&mut tracee.is_late) && is_ours;
            if is_nobodys {
                // One whose call is to come again, behind a handler perhaps, was not cut short by it.
                if state != MarkState::Passes {
                    self.mend_for_nothing(tid);
                }
                self.go_on(tid, 0);
            }
            return is_nobodys;
        };
        if !self.tracees.contains_key(&tid) {
            return false;
        }
        // What was to happen after another call of its does not.
        self.is_elsewhere(tid);
        if let Some(tracee) = self.tracees.get_mut(&tid) {
            tracee.signal = if is_ours { 0 } else { signal };
            // One that is sent while one is pending is none.
            tracee.is_late = signal != MARKS_SIGNAL;
        }
        let (entry, facts) = told(&mark, tid);
        let decided = recorder.decider.marked(&mark);
        if has_run {
            own.memory.free_mark(tid);
            self.has_left(tid, mark.firings[0].at_ns, Held::of(&entry, facts, decided));
        } else {
            self.carry_out(tid, &entry, facts, decided, true);
        }
        if !self.keeping.keeps(tid) {
            self.go_on(tid, 0);
        }
        true
    }

    /// A thread has left a call of which something was decided for then, and nothing for before.
    fn has_left(&mut self, tid: u32, entered_ns: u64, held: Held) {
        let is_prone = held.is_prone;
        self.keeping.let_run(tid, held);
        let Some(tracee) = self.tracees.get_mut(&tid) else {
            return;
        };
        tracee.entered_ns = entered_ns;
        if is_prone {
            let cause = match tracee.signal {
                0 => Cause::Another,
                signal => Cause::Signal(signal),
            };
            self.left(tid, cause);
        }
        if self.tracees.get(&tid).is_some_and(|it| !it.comes_again()) {
            self.ran(tid);
        }
    }

    /// A thread is about to have another id, and the kernel program would not find the mark of the exec that it is in.
    pub(super) fn take_running(&mut self, tid: u32) {
        if let Work::Act(recorder) = &self.own.work
            && let Some(mark) = self.own.memory.take_running(tid)
        {
            let (entry, facts) = told(&mark, tid);
            let held = Held::of(&entry, facts, recorder.decider.marked(&mark));
            self.keeping.let_run(tid, held);
        }
    }

    /// Keeps a thread at its stop until then; where it could not be woken, its call runs at once.
    fn keep(&mut self, tid: u32, until_ns: u64, held: Held, now_ns: u64) {
        if !self.keeping.can_wait() {
            if held.begins_anew {
                self.pass_handed_over(tid);
            }
            return self.settle(&held);
        }
        self.begin_wait(tid, until_ns, held);
        self.keeping.set_alarm(now_ns);
    }

    fn begin_wait(&mut self, tid: u32, until_ns: u64, mut held: Held) {
        held.stay.count_begin(&self.own.memory);
        let (stops, tgid) = (held.stay.stops(), held.facts.tgid);
        self.keeping.keep(tid, until_ns, held);
        if stops {
            self.stop_all(tgid);
        }
    }

    /// Before the next wait is looked for.
    fn end_wait(&mut self, held: &mut Held) {
        held.stay.count_end(&self.own.memory);
        if held.stay.stops() {
            self.let_all_go(held.facts.tgid);
        }
    }

    /// Lets threads go on whose wait is over.
    pub(super) fn keep_time(&mut self) {
        let own = self.own;
        let memory = &own.memory;
        let was_stopped = own.pulse.was_stopped();
        // As after nearly every stop.
        if self.keeping.is_idle() && memory.release_asked().is_none() {
            return;
        }
        let now_ns = monotonic_ns();
        if self.keeping.keeps_any() {
            if memory.state() == RunState::Armed && now_ns > memory.lease() {
                memory.lapse();
            }
            // Whoever was held meanwhile by one that somebody had stopped is not held on.
            let is_over = was_stopped || memory.state() == RunState::Off;
            while let Some((tid, held)) = self.keeping.take_due(now_ns, is_over) {
                let then = if is_over { None } else { Some(Then::Rest) };
                self.wait_is_over(tid, held, then, now_ns);
            }
        }
        self.release(now_ns);
        self.keeping.set_alarm(now_ns);
    }

    /// Lets threads go on whose rules are out of force, and those that finject asks for.
    fn release(&mut self, now_ns: u64) {
        let own = self.own;
        let memory = &own.memory;
        let armed = memory.armed();
        if self.keeping.keeps_any()
            && memory.state() == RunState::Armed
            && memory.holds_for_disarmed()
        {
            let is_disarmed = |stay: &Stay| {
                let waits_for = stay.waits_for(armed)?;
                waits_for.is_disarmed.then_some(waits_for.since_ns)
            };
            for (tid, held) in self.keeping.take_some(usize::MAX, is_disarmed) {
                self.wait_is_over(tid, held, Some(Then::Rest), now_ns);
            }
        }
        if let Some(asked) = memory.release_asked() {
            let is_meant = |stay: &Stay| stay.waits_for(armed)?.is_meant(&asked);
            let meant = self.keeping.take_some(asked.most, is_meant);
            let number = meant.len();
            for (tid, held) in meant {
                self.wait_is_over(tid, held, Some(Then::of(&asked)), now_ns);
            }
            memory.answer_release(asked.request, number);
        }
    }

    /// A kept thread's wait is over; `then` says what becomes of its call, [`None`] that the faults are over.
    fn wait_is_over(&mut self, tid: u32, mut held: Held, then: Option<Then>, now_ns: u64) {
        self.end_wait(&mut held);
        match then {
            None => held.stay.let_go(now_ns),
            Some(then) => {
                held.stay.release(then);
                held.stay.disarm(self.own.memory.armed());
            }
        }
        if let Some(until_ns) = held.stay.next(now_ns) {
            return self.begin_wait(tid, until_ns, held);
        }
        if held.stay.has_run() {
            self.act_after(tid, held);
        } else {
            self.act(tid, held);
        }
        self.go_on(tid, 0);
    }

    /// What comes before the call, and of the call itself.
    fn act(&mut self, tid: u32, mut held: Held) {
        let tgid = held.facts.tgid;
        for (firing, done) in held.stay.firings() {
            if let Some(signal) = firing.signal()
                && send_thread_signal(tgid, tid, signal)
            {
                done.actions |= ACT_SIGNAL;
            }
        }
        let begins_anew = held.begins_anew;
        let replace = |tracing: &mut Self, value| {
            if begins_anew {
                tracing.end_with(tid, value)
            } else {
                tracing.skip(tid, value)
            }
        };
        let is_done = match held.stay.fate() {
            Fate::Gets(value) => replace(self, value),
            Fate::Dies => {
                replace(self, -i64::from(libc::EINTR)) && send_signal(tgid, libc::SIGKILL as u32)
            }
            Fate::Runs | Fate::RunsThenGets(_) | Fate::RunsThenDies => false,
        };
        if is_done {
            held.stay.replaced();
            held.stay.miss_edits();
        } else if begins_anew {
            self.pass_handed_over(tid);
        }
        if !is_done && held.stay.has_waited() && Registers::of(tid).is_err() {
            // It was killed while it waited.
            held.stay.let_go(monotonic_ns());
        }
        let has_after = held.stay.has_after();
        let changes = held.stay.has_edits() && !begins_anew;
        let is_late = held.stay.has_waited() && !self.own.sees_few();
        if let Some(tracee) = self.tracees.get_mut(&tid)
            && (has_after || is_late)
        {
            // Its time begins only now.
            tracee.entered_ns = monotonic_ns();
        }
        if !has_after {
            return self.settle(&held);
        }
        if let Some(tracee) = self.tracees.get_mut(&tid) {
            // A filter's stop comes behind the one of the entry, which may not have been asked for.
            tracee.inside = !begins_anew;
            tracee.is_prone |= held.is_prone;
        }
        self.keeping.let_run(tid, held);
        if changes {
            self.edit(tid);
        }
    }

    /// A call that the kernel program has handed over is let through when it comes again.
    fn pass_handed_over(&mut self, tid: u32) {
        self.own.memory.pass_marked(tid);
        if let Some(tracee) = self.tracees.get_mut(&tid) {
            tracee.is_handed_over = true;
        }
    }

    /// A call that would begin anew does not, and gives this.
    fn end_with(&mut self, tid: u32, value: i64) -> bool {
        self.own.memory.free_mark(tid);
        let given = Registers::of(tid).and_then(|mut registers| {
            registers.give(value);
            registers.set(tid)
        });
        given.is_ok()
    }

    /// A thread's call has run, and is not made again for the tracer.
    pub(super) fn ran(&mut self, tid: u32) {
        let Some(mut held) = self.keeping.has_run(tid) else {
            return;
        };
        let now_ns = monotonic_ns();
        let registers = Registers::of(tid);
        let result = registers.as_ref().map_or(0, Registers::result);
        let comes_again = (sleep::RESTARTS..=sleep::RESTARTS_LAST).contains(&result);
        let is_judged = !comes_again && self.is_judged(tid);
        if !comes_again && !is_judged {
            self.tell_edits(tid, &mut held, result);
        }
        if self.own.memory.state() != RunState::Armed {
            held.stay.let_go(now_ns);
            return self.settle(&held);
        }
        held.stay.disarm(self.own.memory.armed());
        if comes_again {
            held.edit = None;
            let tracee = self.tracees.get(&tid);
            let (own, is_late) = tracee.map_or((0, false), |it| (it.signal, it.is_late));
            let is_handled = sleep::is_handled(tid, None, is_late)
                || own != 0 && sleep::is_handled(tid, Some(own), is_late);
            if !is_handled {
                // The kernel makes it again by itself.
                if let (Some(tracee), Ok(registers)) = (self.tracees.get_mut(&tid), &registers) {
                    tracee.again = self.own.sees_again(registers);
                    tracee.is_handed_over = false;
                    self.own.let_pass(tid, registers);
                }
                return self.keeping.let_run(tid, held);
            }
            if !sleep::ends_for_a_handler(result) {
                // Where it is made again after the handler, it is another call.
                held.stay.be_moot();
                return self.settle(&held);
            }
        }
        if is_judged {
            // The target's own filter has taken the call back, and raises SIGSYS in its place.
            held.stay.be_moot();
            return self.settle(&held);
        }
        let is_done = match held.stay.fate() {
            Fate::RunsThenGets(_) if (-4095..0).contains(&result) => {
                held.stay.miss_result();
                false
            }
            Fate::RunsThenGets(value) => registers.is_ok_and(|mut registers| {
                registers.give(value);
                registers.set(tid).is_ok()
            }),
            Fate::RunsThenDies => send_signal(held.facts.tgid, libc::SIGKILL as u32),
            Fate::Runs | Fate::Gets(_) | Fate::Dies => false,
        };
        if is_done {
            held.stay.changed();
        }
        held.stay.turn();
        match held.stay.next(now_ns) {
            Some(until_ns) => self.keep(tid, until_ns, held, now_ns),
            None => self.act_after(tid, held),
        }
    }

    /// What comes last.
    fn act_after(&self, tid: u32, mut held: Held) {
        let tgid = held.facts.tgid;
        if let Some(value) = held.stay.given_late()
            && let Ok(mut registers) = Registers::of(tid)
        {
            registers.give(value);
            if registers.set(tid).is_ok() {
                held.stay.changed();
            }
        }
        for (firing, done) in held.stay.firings() {
            if let Some(signal) = firing.after_signal()
                && send_thread_signal(tgid, tid, signal)
            {
                done.actions |= ACT_AFTER_SIGNAL;
            }
        }
        self.settle(&held);
    }

    pub(super) fn settle(&self, held: &Held) {
        if let Some(recorder) = self.own.recorder() {
            for (firing, done) in held.stay.ended() {
                recorder.settle(firing, done, &held.facts);
            }
        }
    }

    /// A call at whose entry a thread is does not run, and gives this; whether that could be done. The
    /// target's own filters would judge it as the call -1, after this stop; in a launched command
    /// they have judged the real one before (kernel/entry/common.c, `syscall_trace_enter`).
    fn skip(&mut self, tid: u32, value: i64) -> bool {
        let is_filtered =
            !self.own.is_filtered() && self.filters.has(tid, || self.proc.has_filter(Tgid(tid)));
        if is_filtered && !self.unfilter(tid) {
            return false;
        }
        ptrace::skip(tid, value).is_ok()
    }

    /// A thread's filters judge nothing until the call is over that it is at the entry of; whether that could be done.
    pub(super) fn unfilter(&mut self, tid: u32) -> bool {
        let is_done = ptrace::set_options(tid, self.own.options(), true).is_ok();
        if let Some(tracee) = self.tracees.get_mut(&tid).filter(|_| is_done) {
            tracee.unfiltered = true;
        }
        is_done
    }

    /// Whether a filter of the target's own is about to raise SIGSYS for the call that a thread was in.
    fn is_judged(&mut self, tid: u32) -> bool {
        let proc = &self.proc;
        self.filters.has(tid, || proc.has_filter(Tgid(tid))) && sleep::is_pending(tid, libc::SIGSYS)
    }

    /// A thread is gone, or its place in the kernel is another's.
    pub(super) fn let_go(&mut self, tid: u32) {
        if let Some(mut held) = self.keeping.ended(tid) {
            self.spare_memory(&held);
            self.end_wait(&mut held);
            held.stay.let_go(monotonic_ns());
            self.settle(&held);
        }
    }

    /// A thread is at the entry of another call than the one after which something was to happen.
    pub(super) fn is_elsewhere(&mut self, tid: u32) {
        if let Some(mut held) = self.keeping.has_run(tid) {
            held.stay.be_moot();
            self.settle(&held);
        }
    }

    /// The faults are over: nothing happens any more after calls that run.
    pub(super) fn let_all_run(&mut self) {
        self.end_edits();
        for tracee in self.tracees.values_mut() {
            tracee.behind = None;
        }
        for mut held in self.keeping.take_running() {
            held.stay.let_go(monotonic_ns());
            self.settle(&held);
        }
    }
}
