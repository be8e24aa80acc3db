//! The process that traces. One thread attaches, waits and answers, since ptrace(2) knows one tracer
//! for each thread; another gives signs of life, and ends the process when the faults are over: the
//! kernel then lets every thread go on where it is, which nobody notices.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use injector_common::RunState;

use super::census::Census;
use super::pulse::{Phase, Pulse};
use super::sleep::{self, Sleep};
use crate::backend::decider::{Caller, Decided, Fate};
use crate::backend::gate::{self, Gate};
use crate::backend::memory::{CallSlot, Memory};
use crate::backend::recorder::Recorder;
use crate::sys::SysError;
use crate::sys::launch::Latch;
use crate::sys::process::{PollFd, leave, poll_fds, send_signal, send_thread_signal};
use crate::sys::ptrace::{self, Entry, Options, Registers, Resume, Side, Stop, Waited};
use crate::sys::signals::Waker;
use crate::sys::time::monotonic_ns;
use crate::target::process::{Proc, Process, Tgid};
use crate::target::select::descendants;

/// How often it gives a sign of life, milliseconds.
const BEAT_MS: i32 = 100;
/// How long one stop may take before the tracer counts as hung, nanoseconds.
const HUNG_NS: u64 = 500_000_000;
/// How long threads that sleep in calls made again are seen to their time's end when the faults are
/// over.
const LINGERING_NS: u64 = 1_500_000_000;
/// How long threads that make no call are waited for when the faults are over.
const DRAINING_NS: u64 = 100_000_000;
/// How long a command that is launched waits between two looks whether rules are in force.
const IDLE: Duration = Duration::from_micros(200);

/// What it does with the calls that it sees.
#[derive(Debug)]
pub(super) enum Work {
    /// Decides them by rules.
    Decide(Recorder),
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
        /// Calls before the entry point count too.
        from_exec: bool,
    },
}

/// What the process works with.
#[derive(Debug)]
pub(super) struct Tracer {
    pub(super) work: Work,
    pub(super) memory: Arc<Memory>,
    pub(super) pulse: Arc<Pulse>,
    /// Becomes readable when finject is gone, or wants all threads let go.
    pub(super) finject: OwnedFd,
    pub(super) mode: Mode,
    /// Children of targets are targets.
    pub(super) follow: bool,
    /// Never targets.
    pub(super) never: Vec<Tgid>,
}

/// A thread.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of a thread, not a state"
)]
struct Tracee {
    tgid: u32,
    /// It is in a call whose entry was seen.
    inside: bool,
    /// The call that it enters next is one that it had entered already, and left for the tracer.
    again: bool,
    /// The call that it is in is one that a signal may cut short for good.
    is_prone: bool,
    /// When it entered the call that it is in, or the last one, `CLOCK_MONOTONIC` nanoseconds; 0 where
    /// that was not seen.
    entered_ns: u64,
    /// It was asked to stop, and in this sleep.
    asked: Option<Sleep>,
    /// The faults are over, and its calls are no longer looked at.
    released: bool,
    /// Its seccomp filters are suspended until the call that is skipped is over.
    unfiltered: bool,
    /// When the call that it makes again is over, `CLOCK_MONOTONIC` nanoseconds, and what it gives.
    deadline: Option<(u64, i64)>,
}

/// What the thread that traces tells the one that watches.
#[derive(Debug, Default)]
struct Shared {
    /// Held while a stop is looked at, so that nothing is left half done.
    at_work: Mutex<()>,
    /// When it has to be woken, 0 for never.
    wake_ns: AtomicU64,
    /// Threads were asked to stop that have not yet: a call of theirs may have ended for it.
    asked: AtomicBool,
    /// The faults are over, and no thread will be found at the entry of a call: one that is there when
    /// the tracer ends would enter it with a signal pending that is none, and be told EINTR
    /// (kernel/ptrace.c, `ptrace_signal_wake_up`).
    drained: AtomicBool,
}

impl Tracer {
    /// The descriptors that the process has to keep.
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        let out = match &self.work {
            Work::Decide(recorder) => recorder.fd(),
            Work::Count(census) => census.fd(),
        };
        [out, self.finject.as_fd()]
    }

    /// Whether the calls come by a filter, rather than that all are seen.
    fn is_filtered(&self) -> bool {
        matches!(
            self.mode,
            Mode::Launch {
                is_filtered: true,
                ..
            }
        )
    }

    /// Whether all threads are to be let go.
    fn is_over(&self) -> bool {
        !self.is_filtered() && self.memory.state() == RunState::Off
    }

    /// Whether a call that is made again is reported at its entry. By a filter only those are that it
    /// names, and none that the kernel goes on with under another number.
    fn sees_again(&self, registers: &Registers) -> bool {
        if !self.is_filtered() {
            return true;
        }
        let call = u16::try_from(registers.nr()).map(|nr| CallSlot {
            compat: !registers.is_native(),
            nr,
        });
        match (&self.work, call) {
            (Work::Decide(recorder), Ok(call)) => {
                recorder.decider.names(call) && registers.result() != sleep::RESTARTS
            }
            _ => false,
        }
    }

    /// Ends the process.
    fn leave(&self) -> ! {
        if let Work::Count(census) = &self.work {
            census.hand_over();
        }
        leave(0)
    }

    fn options(&self) -> Options {
        Options {
            // A child has the filter too, and without a tracer its calls would fail.
            follow: self.follow || self.is_filtered(),
            filtered: self.is_filtered(),
        }
    }

    /// Whether a process's calls are decided, where descendants are left alone.
    fn is_target(&self, tgid: u32) -> bool {
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
        let mut tracing = Tracing {
            own: self,
            tracees: HashMap::new(),
            gate: Gate::default(),
            is_owing: true,
            has_begun: matches!(self.mode, Mode::Attach(_)),
            proc: Proc::default(),
        };
        if let Err((tid, error)) = tracing.attach() {
            let errno = error.errno();
            return self.pulse.tell(Phase::Refused { tid, errno });
        }
        let threads = u32::try_from(tracing.tracees.len()).unwrap_or(u32::MAX);
        self.pulse.tell(Phase::Attached(threads));
        let shared = Shared::default();
        // Every thread was.
        shared.asked.store(true, Release);
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
        loop {
            let now = monotonic_ns();
            let since = self.pulse.at_work_since();
            if since == 0 || now.saturating_sub(since) < HUNG_NS {
                self.pulse.beat();
            }
            let wake = shared.wake_ns.load(Acquire);
            let mut wait_ms = if self.is_over() { 1 } else { BEAT_MS };
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
            if self.is_over() {
                waker.wake();
                let off_ns = *off_ns.get_or_insert_with(monotonic_ns);
                let since_ns = monotonic_ns().saturating_sub(off_ns);
                let _at_work = shared
                    .at_work
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                let is_owed = shared.wake_ns.load(Acquire) != 0 || shared.asked.load(Acquire);
                let is_drained = shared.drained.load(Acquire) || since_ns > DRAINING_NS;
                if since_ns > LINGERING_NS || is_drained && !is_owed {
                    self.leave();
                }
            }
        }
    }
}

/// Why a thread's call may have ended that had not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
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

/// The thread that traces.
struct Tracing<'t> {
    own: &'t Tracer,
    /// By thread id.
    tracees: HashMap<u32, Tracee>,
    gate: Gate,
    /// The command's own exec, which is no call of its program's, has come.
    has_begun: bool,
    /// A thread was asked to stop, or is in a call made again that has a time.
    is_owing: bool,
    proc: Proc,
}

impl Tracing<'_> {
    fn attach(&mut self) -> Result<(), (u32, SysError)> {
        match &self.own.mode {
            Mode::Launch { pid, latch, .. } => {
                ptrace::seize(*pid, self.own.options()).map_err(|error| (*pid, error))?;
                self.add(*pid, *pid);
                latch.open();
                Ok(())
            }
            Mode::Attach(roots) => self.attach_running(roots),
        }
    }

    /// Attaches to all threads of all targets, until a look finds no other.
    fn attach_running(&mut self, roots: &[Tgid]) -> Result<(), (u32, SysError)> {
        loop {
            let before = self.tracees.len();
            let mut targets: Vec<Tgid> = roots.to_vec();
            if self.own.follow {
                let all = self.proc.processes();
                let found = descendants(&all, roots, &self.own.never);
                targets.extend(found.iter().map(|process| process.tgid));
            }
            for tgid in targets {
                for tid in self.proc.threads_of(tgid) {
                    if !self.tracees.contains_key(&tid.0) {
                        self.attach_thread(tgid, tid.0)?;
                    }
                }
            }
            if self.tracees.len() == before {
                return Ok(());
            }
        }
    }

    fn attach_thread(&mut self, tgid: Tgid, tid: u32) -> Result<(), (u32, SysError)> {
        let sleep = Sleep::of(tid);
        let attached = ptrace::seize(tid, self.own.options()).and_then(|()| ptrace::interrupt(tid));
        match attached {
            Ok(()) => {
                self.add(tid, tgid.0).asked = Some(sleep);
                Ok(())
            }
            // It has ended, or was attached with the thread that made it.
            Err(error) if error.errno() == libc::ESRCH => Ok(()),
            Err(_) if self.proc.tracer_of(Tgid(tid)) == Some(Tgid(std::process::id())) => Ok(()),
            Err(_) if self.proc.process(Tgid(tid)).is_none_or(|it| it.has_ended()) => Ok(()),
            Err(error) => Err((tid, error)),
        }
    }

    fn add(&mut self, tid: u32, tgid: u32) -> &mut Tracee {
        if tid == tgid && !self.tracees.contains_key(&tid) {
            self.own.memory.next_target();
        }
        self.tracees.entry(tid).or_insert(Tracee {
            tgid,
            inside: false,
            again: false,
            released: false,
            unfiltered: false,
            is_prone: false,
            entered_ns: 0,
            asked: None,
            deadline: None,
        })
    }

    fn trace(&mut self, shared: &Shared) {
        loop {
            let waited = ptrace::wait();
            let _at_work = shared
                .at_work
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            self.own.pulse.begin(monotonic_ns());
            match waited {
                Ok(Waited::Stopped(tid, stop)) => self.stopped(tid, stop),
                Ok(Waited::Ended(tid)) => self.ended(tid),
                Ok(Waited::Interrupted) => {}
                Ok(Waited::NoneLeft) | Err(_) => {
                    self.own.pulse.rest();
                    return;
                }
            }
            self.tell(shared);
            self.own.pulse.rest();
        }
    }

    /// Tells what is still owed to threads, where anything is.
    fn tell(&mut self, shared: &Shared) {
        if self.is_owing {
            let wake_ns = self.expire();
            let is_asked = self.tracees.values().any(|tracee| tracee.asked.is_some());
            shared.wake_ns.store(wake_ns, Release);
            shared.asked.store(is_asked, Release);
            self.is_owing = wake_ns != 0 || is_asked;
        }
        if self.own.is_over() {
            let is_away = |tracee: &Tracee| tracee.released || tracee.inside;
            shared
                .drained
                .store(self.tracees.values().all(is_away), Release);
        }
    }

    fn ended(&mut self, tid: u32) {
        if let Some(tracee) = self.tracees.remove(&tid)
            && tracee.tgid == tid
        {
            self.own.memory.add_exited();
        }
    }

    /// Asks threads to stop whose call is over; when the next one's is.
    fn expire(&mut self) -> u64 {
        let mut next = 0;
        let now = monotonic_ns();
        for (tid, tracee) in &mut self.tracees {
            match tracee.deadline {
                Some((at, _)) if at <= now && tracee.asked.is_none() => {
                    tracee.asked = Some(Sleep::of(*tid));
                    let _ = ptrace::interrupt(*tid);
                }
                Some((at, _)) if at > now && (next == 0 || at < next) => next = at,
                _ => {}
            }
        }
        next
    }

    fn go_on(&mut self, tid: u32, signal: i32) {
        let is_over = self.own.is_over();
        let how = match self.tracees.get_mut(&tid) {
            // Until the call that is made again is over, which no filter tells.
            Some(tracee) if self.own.is_filtered() && tracee.deadline.is_some() => {
                Resume::ToSyscall
            }
            _ if self.own.is_filtered() => Resume::Go,
            Some(tracee) if is_over && tracee.deadline.is_none() => {
                tracee.released = true;
                Resume::Go
            }
            _ => Resume::ToSyscall,
        };
        // A thread that was killed meanwhile is reported as ended.
        let _ = ptrace::resume(tid, how, signal);
    }

    fn stopped(&mut self, tid: u32, stop: Stop) {
        match stop {
            Stop::Syscall => self.at_syscall(tid),
            Stop::Seccomp => {
                if let Ok(Side::Entry(entry)) = ptrace::side(tid) {
                    self.entered(tid, &entry);
                }
            }
            Stop::Signal(signal) => {
                self.mend(tid, Cause::Signal(signal));
                return self.go_on(tid, signal);
            }
            Stop::Group => {
                let _ = ptrace::resume(tid, Resume::StayStopped, 0);
                return;
            }
            Stop::Trap => {
                if self.known(tid).is_none() {
                    // Not to be followed.
                    let _ = ptrace::detach(tid);
                    return;
                }
                self.mend(tid, Cause::Asked);
            }
            Stop::Exec(former) => self.executed(tid, former),
            // A new one is added when it reports itself, which may have been before: it may even have
            // ended by now.
            Stop::Born | Stop::Other => {}
        }
        self.go_on(tid, 0);
    }

    /// A thread that is traced; one that is not known yet is newly born. [`None`] for one that is not
    /// followed.
    fn known(&mut self, tid: u32) -> Option<Tracee> {
        if let Some(tracee) = self.tracees.get(&tid) {
            return Some(*tracee);
        }
        let tgid = self.proc.group_of(Tgid(tid)).map_or(tid, |tgid| tgid.0);
        if !self.own.options().follow && !self.tracees.values().any(|known| known.tgid == tgid) {
            return None;
        }
        Some(*self.add(tid, tgid))
    }

    fn executed(&mut self, tid: u32, former: u32) {
        if former != tid {
            self.tracees.remove(&former);
        }
        let is_filtered = self.own.is_filtered();
        let tracee = self.add(tid, tid);
        tracee.again = false;
        tracee.deadline = None;
        // Seen from the entry of exec to its exit, which is reported where calls' sides are.
        tracee.inside = !is_filtered;
        let from_exec = match &self.own.mode {
            Mode::Launch { from_exec, .. } => *from_exec,
            Mode::Attach(_) => false,
        };
        self.has_begun = true;
        if !from_exec {
            self.gate.exec(tid, tid, None);
        }
    }

    fn at_syscall(&mut self, tid: u32) {
        let Some(tracee) = self.tracees.get_mut(&tid) else {
            return;
        };
        if std::mem::take(&mut tracee.inside) {
            if std::mem::take(&mut tracee.unfiltered) {
                let _ = ptrace::set_options(tid, self.own.options(), false);
            }
            if tracee.asked.is_some() {
                // The stop at its entry stood for the one that was asked for, and the call ended all
                // the same (kernel/signal.c, `ptrace_stop`: any trap clears a pending one).
                self.mend(tid, Cause::Asked);
            } else if tracee.is_prone {
                self.left(tid);
            }
            return;
        }
        match ptrace::side(tid) {
            Ok(Side::Entry(entry)) => {
                tracee.inside = true;
                if !tracee.again {
                    tracee.entered_ns = monotonic_ns();
                }
                tracee.is_prone = tracee.deadline.is_some() || sleep::is_prone(&entry);
                // Where there is a filter, it tells of the calls that count.
                if !self.own.is_filtered() {
                    self.entered(tid, &entry);
                }
            }
            Ok(Side::Exit | Side::Neither) | Err(_) => {}
        }
    }

    /// A thread leaves a call that a signal may have cut short; another thread of its process may take
    /// the signal.
    fn left(&mut self, tid: u32) {
        if is_cut_short(tid) {
            self.mend(tid, Cause::Another);
        } else if let Some(tracee) = self.tracees.get_mut(&tid) {
            tracee.deadline = None;
        }
    }

    /// A thread is at the entry of a call.
    fn entered(&mut self, tid: u32, entry: &Entry) {
        if !self.has_begun {
            while self.own.is_filtered() && self.own.memory.state() == RunState::Idle {
                std::thread::sleep(IDLE);
            }
            return;
        }
        let Some(tracee) = self.tracees.get_mut(&tid) else {
            return;
        };
        if std::mem::take(&mut tracee.again) {
            return;
        }
        let tgid = tracee.tgid;
        // A number of x32's ABI is beyond all that rules name.
        let Ok(nr) = u16::try_from(entry.nr) else {
            return;
        };
        let call = CallSlot {
            compat: entry.compat,
            nr,
        };
        let recorder = match &self.own.work {
            Work::Decide(recorder) => {
                let in_force = self.own.memory.state() == RunState::Armed;
                if !recorder.decider.names(call) || !in_force || !self.own.is_target(tgid) {
                    return;
                }
                Some(recorder)
            }
            Work::Count(_) => None,
        };
        let has_begun = self.gate.has_begun(tid)
            || !self
                .gate
                .holds(tgid, tid, entry.instruction, || gate::loader_of(tgid));
        match (recorder, &self.own.work) {
            _ if !has_begun => {}
            (Some(recorder), _) => {
                let decided = recorder.decider.decide(call, || self.caller(tgid, tid));
                if !decided.firings.is_empty() {
                    self.carry_out(recorder, tgid, tid, call, entry, &decided);
                }
            }
            (None, Work::Count(census)) => census.count(tid, call),
            (None, Work::Decide(_)) => {}
        }
    }

    fn caller(&self, tgid: u32, tid: u32) -> Option<Caller> {
        let start = |id| {
            let process: Option<Process> = self.proc.process(Tgid(id));
            process.map(|process| process.start_ticks)
        };
        Some(Caller {
            tgid,
            tid,
            process_start: start(tgid)?,
            thread_start: start(tid)?,
        })
    }

    fn carry_out(
        &mut self,
        recorder: &Recorder,
        tgid: u32,
        tid: u32,
        call: CallSlot,
        entry: &Entry,
        decided: &Decided,
    ) {
        let facts = Recorder::facts(tgid, tid, call, entry.args);
        let mut sent = Vec::new();
        for firing in &decided.firings {
            let signal = firing.signal();
            sent.push(signal.is_none_or(|signal| send_thread_signal(tgid, tid, signal)));
        }
        let done = match decided.fate {
            Fate::Runs => true,
            Fate::Gets(value) => self.skip(tid, value),
            Fate::Dies => {
                self.skip(tid, -i64::from(libc::EINTR)) && send_signal(tgid, libc::SIGKILL as u32)
            }
        };
        for (firing, sent) in decided.firings.iter().zip(sent) {
            recorder.settle(firing, done && sent, &facts);
        }
    }

    /// A call at whose entry a thread is does not run, and gives this; whether that could be done. The
    /// target's own filters would judge it as the call -1, after this stop; in a launched command
    /// they have judged the real one before (kernel/entry/common.c, `syscall_trace_enter`).
    fn skip(&mut self, tid: u32, value: i64) -> bool {
        if !self.own.is_filtered() && self.proc.has_filter(Tgid(tid)) {
            if ptrace::set_options(tid, self.own.options(), true).is_err() {
                return false;
            }
            if let Some(tracee) = self.tracees.get_mut(&tid) {
                tracee.unfiltered = true;
            }
        }
        let skipped = Registers::of(tid).and_then(|mut registers| {
            registers.skip(value);
            registers.set(tid)
        });
        skipped.is_ok()
    }

    /// A call that ended for the tracer, and for nobody else, is made again with the time that is
    /// left. At a stop on the way back to user mode.
    fn mend(&mut self, tid: u32, cause: Cause) {
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
        if registers.nr() < 0 || sleep::is_handled(tid, signal) {
            return;
        }
        let is_seen_again = self.own.sees_again(&registers);
        match registers.result() {
            // The kernel makes it again by itself.
            sleep::RESTARTS..=sleep::RESTARTS_LAST => tracee.again = is_seen_again,
            sleep::INTERRUPTED => {
                let over = tracee.deadline.take();
                match over {
                    Some((at, value)) if at <= monotonic_ns() => registers.give(value),
                    Some(_) => {
                        tracee.deadline = over;
                        tracee.again = is_seen_again;
                        registers.make_again();
                    }
                    None => {
                        tracee.deadline = match asked {
                            Some(sleep) => sleep.deadline(tracee.tgid, tid, &registers),
                            None => Sleep::since(tracee.entered_ns).deadline(
                                tracee.tgid,
                                tid,
                                &registers,
                            ),
                        };
                        tracee.again = is_seen_again;
                        registers.make_again();
                    }
                }
                self.is_owing = true;
                let _ = registers.set(tid);
            }
            _ => tracee.deadline = None,
        }
    }
}
