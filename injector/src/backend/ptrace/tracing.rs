//! The thread that traces: attaches, waits for stops, and answers each. What it knows of a thread is one
//! [`Tracee`].

use std::collections::HashMap;
use std::os::unix::process::parent_id;
use std::sync::atomic::Ordering::Release;
use std::time::Duration;

use injector_common::{CallerFacts, Data, Event, EventKind, RunState};

use super::behind::Behind;
use super::editing::Spare;
use super::filters::Filters;
use super::held::Keeping;
use super::mending::Cause;
use super::owed::{self, Deadline};
use super::place::Place;
use super::sleep::{self, Sleep};
use super::stopping::Stopped;
use super::tracer::{Mode, Shared, Tracer, Work};
use crate::backend::decider::{Asked, Caller};
use crate::backend::files::{CallFiles, Files};
use crate::backend::gate::{Gate, Look};
use crate::backend::memory::CallSlot;
use crate::backend::recorder::Recorder;
use crate::backend::sockets::{CallSocket, Sockets};
use crate::sys::SysError;
use crate::sys::ptrace::{self, Entry, MadeAgain, Registers, Resume, Side, Stop, Waited};
use crate::sys::time::monotonic_ns;
use crate::target::process::{Proc, Tgid};
use crate::target::select::descendants;

/// How long a command that is launched waits between two looks whether rules are in force.
const IDLE: Duration = Duration::from_micros(200);
/// How often a thread is seized that nobody traces and that the kernel does not give.
const TRIES: u32 = 3;

/// A thread.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of a thread, not a state"
)]
pub(super) struct Tracee {
    pub(super) tgid: u32,
    /// It is in a call whose entry was seen.
    pub(super) inside: bool,
    /// The call that it enters next is one that it had entered already, and left for the tracer.
    pub(super) again: bool,
    /// The call that it is in is one that a signal may cut short for good.
    pub(super) is_prone: bool,
    /// When it entered the call that it is in, or the last one, `CLOCK_MONOTONIC` nanoseconds; 0 where
    /// that was not seen.
    pub(super) entered_ns: u64,
    /// It was asked to stop, and in this sleep.
    pub(super) asked: Option<Sleep>,
    /// The faults are over, and its calls are no longer looked at.
    released: bool,
    /// Its seccomp filters are suspended until the call that is skipped, or changed, is over.
    pub(super) unfiltered: bool,
    /// It makes its call with other arguments than it had asked for.
    pub(super) is_edited: bool,
    /// The signals that it has blocked itself; it has all of them blocked until it comes to the entry of its call once
    /// more.
    pub(super) blocked: Option<u64>,
    /// It maps memory, in place of the call at whose entry it had these registers.
    pub(super) mapping: Option<Registers>,
    /// When the call that it makes again is over, `CLOCK_MONOTONIC` nanoseconds, and what it gives.
    pub(super) deadline: Option<Deadline>,
    /// The call that it was sent back to, and may not have entered yet.
    pub(super) made_again: Option<MadeAgain>,
    /// The signal of its own for which it had stopped when it was to wait; 0 for none.
    pub(super) signal: i32,
    /// The signal by which the kernel program has stopped it is still to come.
    pub(super) is_late: bool,
    /// The call that the kernel program lets through is the one that it has handed over: it comes behind whatever
    /// handlers run first.
    pub(super) is_handed_over: bool,
    /// Such a call, while a handler runs before it.
    pub(super) behind: Option<Behind>,
}

impl Tracee {
    /// Whether it is to have something back that is its own.
    fn is_altered(&self) -> bool {
        self.unfiltered || self.is_edited || self.blocked.is_some()
    }

    /// Whether the call that it has left is made again.
    pub(super) fn comes_again(&self) -> bool {
        self.again || self.made_again.is_some()
    }

    /// One of which nothing is known.
    fn of(tgid: u32) -> Self {
        Self {
            tgid,
            inside: false,
            again: false,
            released: false,
            unfiltered: false,
            is_edited: false,
            blocked: None,
            mapping: None,
            is_prone: false,
            entered_ns: 0,
            asked: None,
            deadline: None,
            made_again: None,
            signal: 0,
            is_late: false,
            is_handed_over: false,
            behind: None,
        }
    }
}

/// The thread that traces.
pub(super) struct Tracing<'t> {
    pub(super) own: &'t Tracer,
    /// By thread id.
    pub(super) tracees: HashMap<u32, Tracee>,
    gate: Gate,
    pub(super) filters: Filters,
    /// The command's own exec, which is no call of its program's, has come.
    has_begun: bool,
    /// A thread was asked to stop, or is in a call made again that has a time.
    pub(super) is_owing: bool,
    /// What a tracer that has gone for this one owed to threads.
    left: owed::Left,
    /// What is owed by this one, as it was last told.
    told: Vec<(u32, Deadline)>,
    pub(super) keeping: Keeping,
    /// Processes all of whose threads are held.
    pub(super) stopped: Stopped,
    /// What was mapped for calls that are changed.
    pub(super) spare: Spare,
    pub(super) proc: Proc,
    place: Place,
}

impl<'t> Tracing<'t> {
    /// Nothing is attached yet.
    pub(super) fn of(own: &'t Tracer) -> Self {
        Self {
            own,
            tracees: HashMap::new(),
            gate: Gate::default(),
            filters: Filters::default(),
            is_owing: !own.acts(),
            left: owed::Left::default(),
            told: Vec::new(),
            has_begun: matches!(own.mode, Mode::Attach(_)),
            keeping: Keeping::default(),
            stopped: Stopped::default(),
            spare: Spare::default(),
            proc: Proc::default(),
            place: Place::of_this_thread(),
        }
    }

    /// How many threads are attached.
    pub(super) fn threads(&self) -> usize {
        self.tracees.len()
    }

    /// Attaches to the targets; the thread that could not be.
    pub(super) fn attach(&mut self) -> Result<(), (u32, SysError)> {
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
                        // None goes on before all are attached.
                        self.own.pulse.beat();
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
        let mut seized = self.seize(tid);
        if seized.is_err()
            && let Some(left) = owed::take_over(&self.proc, tid)
        {
            self.left.at_ns = left.at_ns;
            self.left.owed.extend(left.owed);
            seized = self.seize(tid);
        }
        let owed = self.left.owed.remove(&tid);
        let mut sleep = sleep.owing(owed, self.left.at_ns);
        let acts = self.own.acts();
        let asked = seized.and_then(|()| {
            if acts {
                return Ok(()); // It is only to stop when it is to wait.
            }
            sleep = sleep.still(tid);
            ptrace::interrupt(tid)
        });
        match asked {
            Ok(()) => {
                self.add(tid, tgid.0).asked = (!acts).then_some(sleep);
                Ok(())
            }
            // It has ended, or was attached with the thread that made it.
            Err(error) if error.errno() == libc::ESRCH => Ok(()),
            Err(_) if self.proc.tracer_of(Tgid(tid)) == Some(Tgid(std::process::id())) => Ok(()),
            Err(_) if self.proc.process(Tgid(tid)).is_none_or(|it| it.has_ended()) => Ok(()),
            Err(error) => Err((tid, error)),
        }
    }

    /// Seizes a thread; once more where whoever traced it has gone meanwhile.
    ///
    /// # Errors
    /// The kernel's, but `EBUSY` for one that another process traces.
    fn seize(&self, tid: u32) -> Result<(), SysError> {
        for _ in 1..TRIES {
            match ptrace::seize(tid, self.own.options()) {
                Err(error) if error.errno() == libc::EPERM => {}
                seized => return seized,
            }
            if self.proc.tracer_of(Tgid(tid)).is_some() {
                return Err(SysError {
                    call: "ptrace(PTRACE_SEIZE)",
                    source: std::io::Error::from_raw_os_error(libc::EBUSY),
                });
            }
        }
        ptrace::seize(tid, self.own.options())
    }

    fn add(&mut self, tid: u32, tgid: u32) -> &mut Tracee {
        // Where the kernel program decides, it counts them.
        if tid == tgid && !self.tracees.contains_key(&tid) && !self.own.acts() {
            self.own.memory.next_target();
        }
        self.tracees.entry(tid).or_insert(Tracee::of(tgid))
    }

    /// Answers stops until no tracee is left.
    pub(super) fn trace(&mut self, shared: &Shared) {
        loop {
            let waited = ptrace::wait();
            let now_ns = monotonic_ns();
            self.own.pulse.begin(now_ns);
            match waited {
                Ok(Waited::Stopped(tid, stop)) => {
                    self.stopped(tid, stop);
                    self.move_to(tid, now_ns);
                }
                Ok(Waited::Ended(tid, status)) => self.ended(tid, status),
                Ok(Waited::Interrupted) => {}
                Ok(Waited::NoneLeft) | Err(_) => {
                    self.own.pulse.finish();
                    self.own.pulse.rest();
                    return;
                }
            }
            self.keep_time();
            self.tell(shared);
            if shared.may_leave(self.is_owing) {
                self.own.leave();
            }
            self.own.pulse.rest();
        }
    }

    /// Runs where the threads that stop are best traced from.
    fn move_to(&mut self, tid: u32, now_ns: u64) {
        let proc = &self.proc;
        self.place.stopped(tid, now_ns, |tid| {
            proc.process(Tgid(tid)).map(|thread| thread.processor)
        });
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
        if self.own.memory.state() == RunState::Off {
            self.let_all_run();
        }
        self.own.pulse.set_open(self.keeping.open());
        if self.own.is_over() {
            let owed = |(tid, tracee): (&u32, &Tracee)| tracee.deadline.map(|at| (*tid, at));
            let owed: Vec<_> = self.tracees.iter().filter_map(owed).collect();
            if owed != self.told {
                self.own.owed.tell(&owed);
                self.told = owed;
            }
            // One whose filters are suspended is waited for, since they would judge the call -1, and one that is to
            // have its registers or its signals back.
            let acts = self.own.acts();
            let is_away = |tracee: &Tracee| {
                let is_elsewhere = tracee.released || tracee.inside != acts;
                is_elsewhere && !tracee.is_altered()
            };
            // A signal of the kernel program's is on its way to such a thread, which would get it from nobody.
            let is_called = |(tid, tracee): (&u32, &Tracee)| {
                tracee.is_late || acts && self.own.memory.handed_over(*tid).is_some()
            };
            let is_drained = self.tracees.values().all(is_away)
                && !self.tracees.iter().any(is_called)
                && !self.keeping.keeps_any();
            shared.drained.store(is_drained, Release);
        }
    }

    fn ended(&mut self, tid: u32, status: i32) {
        if self.own.acts() {
            self.own.memory.free_mark(tid);
        }
        self.filters.forget(tid);
        self.stopped.forget(tid);
        self.let_go(tid);
        let tracee = self.tracees.remove(&tid);
        if let Some(tracee) = &tracee {
            self.spare.leave(tracee.tgid, tid);
        }
        if tracee.is_some_and(|tracee| tracee.tgid == tid) {
            self.spare.forget(tid);
            self.note(EventKind::Exited, tid, 0, status);
            if !self.own.acts() {
                self.own.memory.add_exited();
            }
        }
    }

    /// Records what a target has come to, while rules are in force.
    fn note(&self, kind: EventKind, tgid: u32, count: u64, value: i32) {
        let own = self.own;
        if let Work::Decide(recorder, _) = &own.work
            && own.memory.state() == RunState::Armed
            && own.is_target(tgid)
            && !recorder.note(kind, tgid, count, value.into())
        {
            own.memory.add_note_dropped();
        }
    }

    pub(super) fn go_on(&mut self, tid: u32, signal: i32) {
        let own = self
            .tracees
            .get_mut(&tid)
            .map(|tracee| std::mem::take(&mut tracee.signal));
        let signal = if signal == 0 {
            own.unwrap_or(0)
        } else {
            signal
        };
        if self.stopped.is_any()
            && let Some(tracee) = self.tracees.get(&tid)
            && self.stopped.keeps(tracee.tgid, tid, signal)
        {
            return;
        }
        if signal != 0 {
            self.goes_behind(tid, signal);
        }
        let is_over = self.own.is_over();
        let how = match self.tracees.get_mut(&tid) {
            // Until the call that is made again is over, which no filter tells.
            Some(tracee)
                if self.own.sees_few()
                    && (tracee.deadline.is_some()
                        || tracee.asked.is_some()
                        || tracee.is_altered()
                        || tracee.behind.is_some()
                        || self.keeping.waits_for(tid)) =>
            {
                Resume::ToSyscall
            }
            // Its exit will not be seen.
            Some(tracee) if self.own.sees_few() => {
                tracee.inside = false;
                tracee.entered_ns = 0;
                Resume::Go
            }
            None if self.own.sees_few() => Resume::Go,
            Some(tracee) if is_over && tracee.deadline.is_none() && !tracee.is_altered() => {
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
                    if let Some(tracee) = self.tracees.get_mut(&tid) {
                        // This stop stands for the one that it was asked for, and its call may end all the same.
                        tracee.inside |= tracee.asked.is_some();
                    }
                    self.entered(tid, &entry);
                }
            }
            Stop::Signal(signal) => {
                if self.takes_for_the_kernel(tid, signal) {
                    return;
                }
                if self.is_between(tid) {
                    // SIGSTOP, which cannot be blocked.
                    return self.go_on(tid, signal);
                }
                self.mend(tid, Cause::Signal(signal));
                if !self.goes_behind(tid, signal)
                    && self.keeping.waits_for(tid)
                    && sleep::is_handled(tid, Some(signal), false)
                {
                    // A handler comes next, and then another call.
                    self.is_elsewhere(tid);
                }
                return self.go_on(tid, signal);
            }
            Stop::Group => {
                let _ = ptrace::resume(tid, Resume::StayStopped, 0);
                return;
            }
            Stop::Trap => {
                if !self.is_followed(tid) {
                    let _ = ptrace::detach(tid);
                    return;
                }
                self.mend(tid, Cause::Asked);
            }
            Stop::Exec(former) => self.executed(tid, former),
            // A new one is added when it reports itself, which may have been before: it may even have
            // ended by now.
            Stop::Born | Stop::Other => {
                // Where not every call is seen, nobody asks later what became of this one.
                if self.own.sees_few()
                    && let Some(tracee) = self.tracees.get_mut(&tid)
                {
                    tracee.asked = None;
                }
            }
        }
        if !self.keeping.keeps(tid) {
            self.go_on(tid, 0);
        }
    }

    /// Whether a thread has mapped memory, and is not back at the entry of its call.
    fn is_between(&self, tid: u32) -> bool {
        let tracee = self.tracees.get(&tid);
        tracee.is_some_and(|tracee| tracee.blocked.is_some())
    }

    /// Whether a thread is traced on; one that is not known yet is newly born, and not where its
    /// process is not followed.
    fn is_followed(&mut self, tid: u32) -> bool {
        if self.tracees.contains_key(&tid) {
            return true;
        }
        let tgid = self.proc.group_of(Tgid(tid)).map_or(tid, |tgid| tgid.0);
        let is_known = || self.tracees.values().any(|known| known.tgid == tgid);
        let is_followed = self.own.options().follow || is_known();
        if is_followed {
            self.add(tid, tgid);
        }
        if is_followed && tid == tgid && self.own.follow {
            let parent = self
                .proc
                .process(Tgid(tid))
                .map_or(0, |child| child.parent.0);
            self.note(EventKind::Started, parent, tid.into(), 0);
        }
        is_followed
    }

    fn executed(&mut self, tid: u32, former: u32) {
        if former != tid {
            self.tracees.remove(&former);
            self.stopped.forget(former);
            self.filters.forget(former);
            // The first thread is gone without a word, and its id is this one's now.
            self.let_go(tid);
            if self.own.acts() {
                self.take_running(former);
                self.own.memory.free_mark(tid);
                self.own.memory.free_mark(former);
            }
            self.keeping.rename(former, tid);
        }
        // It may be another thread's id so far.
        self.filters.forget(tid);
        self.spare.forget(tid);
        if let Work::Decide(recorder, _) = &self.own.work {
            recorder.forget_names();
        }
        let is_filtered = self.own.sees_few();
        let waits = self.keeping.waits_for(tid);
        let tracee = self.add(tid, tid);
        // What there was belongs to the program before, or to the first thread that is gone.
        *tracee = Tracee::of(tid);
        // Seen from the entry of exec to its exit, which is reported where calls' sides are.
        tracee.inside = !is_filtered || waits;
        if std::mem::replace(&mut self.has_begun, true) {
            self.note(EventKind::Execed, tid, 0, 0);
        }
        if !self.own.from_exec && !self.own.acts() {
            self.gate.exec(tid, tid, None);
        }
    }

    fn at_syscall(&mut self, tid: u32) {
        let Some(tracee) = self.tracees.get_mut(&tid) else {
            return;
        };
        if tracee.mapping.is_some() {
            return self.mapped(tid);
        }
        if tracee.inside && tracee.is_edited {
            self.change_back(tid);
        }
        let Some(tracee) = self.tracees.get_mut(&tid) else {
            return;
        };
        if std::mem::take(&mut tracee.inside) {
            self.filters.left(tid);
            if std::mem::take(&mut tracee.unfiltered) {
                let _ = ptrace::set_options(tid, self.own.options(), false);
            }
            if tracee.asked.is_some() {
                // The stop at its entry stood for the one that was asked for, and the call ended all
                // the same (kernel/signal.c, `ptrace_stop`: any trap clears a pending one).
                self.mend(tid, Cause::Asked);
            } else if tracee.is_prone {
                self.left(tid, Cause::Another);
            }
            let is_over = |tracee: &Tracee| !tracee.comes_again();
            if !self.comes_back(tid) && self.tracees.get(&tid).is_some_and(is_over) {
                self.ran(tid);
            }
            // Where there is a filter, the next call's entry may not be seen.
            if self.own.sees_few()
                && let Some(tracee) = self.tracees.get_mut(&tid)
            {
                tracee.entered_ns = 0;
            }
            return;
        }
        match ptrace::side(tid) {
            Ok(Side::Entry(entry)) => {
                if let Some(mask) = tracee.blocked.take() {
                    let _ = ptrace::block_signals(tid, mask);
                }
                tracee.inside = true;
                tracee.made_again = None;
                if !tracee.again {
                    tracee.entered_ns = monotonic_ns();
                }
                tracee.is_prone = tracee.deadline.is_some() || sleep::is_prone(&entry);
                // Where there is a filter, it tells of the calls that count.
                if !self.own.sees_few() {
                    self.entered(tid, &entry);
                } else if self.is_in_handler(tid, &entry) {
                    // What comes after another call waits for that.
                } else if !self.keeping.may_go_on_as(tid, &entry) {
                    self.is_elsewhere(tid);
                } else if self.own.acts() {
                    self.edit(tid);
                }
            }
            Ok(Side::Exit | Side::Neither) | Err(_) => {}
        }
    }

    /// A thread is at the entry of a call.
    fn entered(&mut self, tid: u32, entry: &Entry) {
        if !self.has_begun {
            while self.own.is_filtered() && self.own.memory.state() == RunState::Idle {
                if parent_id() != self.own.parent {
                    self.own.memory.switch_off();
                }
                // finject may be stopped, for as long as somebody likes; the tracer does not hang.
                self.own.pulse.begin(monotonic_ns());
                std::thread::sleep(IDLE);
            }
            return;
        }
        let Some(tracee) = self.tracees.get_mut(&tid) else {
            return;
        };
        if std::mem::take(&mut tracee.again) {
            return self.edit(tid);
        }
        let tgid = tracee.tgid;
        self.is_elsewhere(tid);
        // A number of x32's ABI is beyond all that rules name. What it may give the thread counts all the
        // same.
        let Ok(nr) = u16::try_from(entry.nr) else {
            self.filters.entered(
                tid,
                CallSlot {
                    compat: false,
                    nr: entry.nr as u16,
                },
            );
            return;
        };
        let call = CallSlot {
            compat: entry.compat,
            nr,
        };
        let own = self.own;
        self.filters.entered(tid, call);
        if let Work::Decide(recorder, seen) = &own.work {
            let in_force = own.memory.state() == RunState::Armed;
            if in_force {
                seen.add(call);
            }
            if !recorder.decider.names(call) || !in_force || !own.is_target(tgid) {
                return;
            }
        }
        if self.comes_before_the_program(tgid, tid, entry) {
            return;
        }
        match &own.work {
            Work::Count(census) => census.count(tid, call),
            Work::Act(_) => {}
            Work::Decide(recorder, _) => {
                let asked = AskedOf {
                    tracing: self,
                    recorder,
                    process: tgid,
                    thread: tid,
                    call,
                    args: &entry.args,
                };
                let decided = recorder.decider.decide(call, &entry.args, &asked);
                if !decided.firings.is_empty() {
                    let facts = recorder.facts(tid, call, entry.args);
                    let facts = Event { tgid, ..facts };
                    self.carry_out(tid, entry, facts, decided, false);
                }
            }
        }
    }

    fn comes_before_the_program(&self, tgid: u32, tid: u32, entry: &Entry) -> bool {
        let look = Look {
            tgid,
            // One that is stopped at the entry of its call is in it.
            still_waits: || true,
        };
        !self.gate.has_begun(tid) && self.gate.holds(tgid, tid, entry.instruction, &look)
    }
}

/// A call at whose entry a thread is.
struct AskedOf<'a, 't> {
    tracing: &'a Tracing<'t>,
    recorder: &'a Recorder,
    process: u32,
    thread: u32,
    call: CallSlot,
    args: &'a [u64; 6],
}

impl Asked for AskedOf<'_, '_> {
    fn caller(&self) -> Option<Caller> {
        self.recorder.caller(self.thread)
    }

    fn caller_facts(&self) -> Option<CallerFacts> {
        self.recorder.caller_facts(self.thread)
    }

    fn data(&self) -> Data {
        self.tracing
            .data(self.process, self.thread, self.call, self.args)
    }

    fn files(&self) -> impl Files {
        CallFiles::of(self.process, self.thread, self.call, self.args)
    }

    fn sockets(&self) -> impl Sockets {
        CallSocket::of(self.process, self.call, self.args)
    }
}
