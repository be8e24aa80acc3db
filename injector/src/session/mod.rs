//! Runs a plan: load, attach, activate, watch, heal. One loop hears events, signals and the ends of
//! targets, and is the only author of the history. Whatever happens, healing is what ends it; when
//! finject is killed the kernel takes the hooks away with the descriptors.

mod control;
pub mod decode;
pub mod heartbeat;
pub mod summary;
pub mod syslog;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use injector_common::event::EventKind;

use self::control::Control;
use self::heartbeat::Heartbeat;
use self::summary::{Ending, Summary};
use self::syslog::Syslog;
use crate::backend::choose::{Choice, NotChosen, choose, first_of};
use crate::backend::{Backend, BackendError, HookReport, Leased};
use crate::control::{Server, place};
use crate::history::{Kind, Record, Writer};
use crate::plan::{Plan, Targets};
use crate::sys::SysError;
use crate::sys::launch::Ended;
use crate::sys::process::{PollFd, poll_fds, real_uid};
use crate::sys::signals::{Forwarded, Signals};
use crate::sys::time::{monotonic_ns, realtime_ns};
use crate::text::{counted, some_of};

/// How long the loop sleeps at most, milliseconds: ends of descendants and the backend's own switch
/// are looked at this often.
const TURN_MS: u64 = 200;
/// Events taken in one turn, so that a storm of them cannot keep signals from being heard.
const BATCH: usize = 4096;
/// How long events are gathered once they have begun to come, milliseconds: to be woken for each would cost finject, and
/// the target that shares its processor, more than the event.
const GATHER_MS: i32 = 1;
/// Bytes of records that may wait for their reader. Above it events stay in the kernel's buffer, and
/// are counted as dropped once that is full.
const WAITING: usize = 1 << 22;

/// How long it may take to have a rule join, nanoseconds: the kernel looks through another program, and a tracer
/// attaches.
const JOINING_NS: u64 = 60_000_000_000;

/// How often a command that outlives its faults is looked at.
const SEEING_OFF: Duration = Duration::from_millis(10);

/// A session that could not be run.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No backend carries out this plan.
    #[error(transparent)]
    NotChosen(#[from] NotChosen),
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A call failed.
    #[error(transparent)]
    Sys(#[from] SysError),
}

/// Who wants to hear of a session while it runs. Called from the session's own thread.
pub trait Observer {
    /// Faults are in force; `passed_over` are better backends, each with the reason why not.
    fn armed(&mut self, hooks: &HookReport, passed_over: &[(Choice, String)]);
    /// Whether a record of this kind is wanted. Where no history keeps it either, one that is not is
    /// counted and not made: that costs more than a firing.
    fn wants(&mut self, _kind: EventKind) -> bool {
        true
    }
    /// A record was made.
    fn record(&mut self, record: &Record);
    /// Something that the user should know.
    fn warning(&mut self, warning: &str);
    /// Something that may be of use.
    fn note(&mut self, _note: &str) {}
    /// One turn of the loop is over.
    fn turn(&mut self) {}
}

/// Whose the signals are that finject gets.
#[derive(Debug)]
enum Heard {
    /// finject's: the first asks it to heal and end.
    Own(Signals),
    /// The command's.
    Commands(Forwarded),
}

impl Heard {
    fn open(plan: &Plan) -> Result<Self, SysError> {
        Ok(match plan.targets {
            Targets::Running(_) => Self::Own(Signals::open()?),
            Targets::Launched(_) => Self::Commands(Forwarded::open()?),
        })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(signals) => signals.fd().as_fd(),
            Self::Commands(forwarded) => forwarded.fd(),
        }
    }
}

/// What the loop is woken by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hear {
    /// Everything.
    All,
    /// Events may wait; signals, ends and streams may not.
    AllButEvents,
}

/// One run of a plan.
#[derive(Debug)]
pub struct Session {
    /// Rules may join it.
    plan: Plan,
    backend: Box<dyn Backend>,
    /// Which it is, where it was chosen.
    choice: Option<Choice>,
    /// Better backends, and why not.
    passed_over: Vec<(Choice, String)>,
    /// Those that may take its place where it cannot attach.
    rest: &'static [Choice],
    /// [`None`] before it runs: until then a signal simply ends finject.
    heard: Option<Heard>,
    /// A signal has ended the rules already; it is not the one that gives records up.
    ended_by_signal: bool,
    history: Writer,
    /// `CLOCK_REALTIME` minus `CLOCK_MONOTONIC`.
    offset_ns: u64,
    known_losses: Vec<(u64, u64)>,
    /// When it is looked next whether faults arrive.
    next_watch_ns: u64,
    /// Who may ask something while it runs.
    control: Option<Control>,
}

impl Session {
    /// Checks that the plan can be carried out, and makes everything ready. `wanted` names the backend;
    /// without it the best that can is taken. Nothing is attached. Before any thread is started.
    pub fn prepare(plan: &Plan, wanted: Option<Choice>) -> Result<Self, SessionError> {
        let chosen = choose(plan, wanted)?;
        let mut session = Self::of(plan, chosen.backend);
        session.choice = Some(chosen.choice);
        session.passed_over = chosen.passed_over;
        session.rest = chosen.rest;
        Ok(session)
    }

    /// The same by a backend at hand, which carries the plan out or refuses to.
    pub fn with(plan: &Plan, mut backend: Box<dyn Backend>) -> Result<Self, SessionError> {
        backend.load(plan)?;
        Ok(Self::of(plan, backend))
    }

    fn of(plan: &Plan, backend: Box<dyn Backend>) -> Self {
        Self {
            plan: plan.clone(),
            backend,
            choice: None,
            passed_over: Vec::new(),
            rest: &[],
            heard: None,
            ended_by_signal: false,
            history: Writer::none(),
            offset_ns: realtime_ns().saturating_sub(monotonic_ns()),
            known_losses: vec![(0, 0); plan.rules.len()],
            next_watch_ns: 0,
            control: None,
        }
    }

    /// Better backends than the one taken, and why not.
    pub fn passed_over(&self) -> &[(Choice, String)] {
        &self.passed_over
    }

    /// Runs it to its end, and leaves its records in `history`.
    pub fn run(
        mut self,
        history: Writer,
        observer: &mut dyn Observer,
    ) -> Result<Summary, SessionError> {
        self.history = history;
        self.heard = Some(Heard::open(&self.plan)?);
        let result = self.run_armed(observer);
        // Also when attaching failed half-way; healing twice is harmless.
        let healed = self.backend.heal();
        if let Some(mut control) = self.control.take() {
            control.ended(healed.as_ref().copied().map_err(ToString::to_string));
        }
        let (hooks, ending, armed_ns) = result?;
        self.ended_by_signal = matches!(ending, Ending::Signal(_));
        loop {
            self.hand_on_all()?;
            if self.take_events(observer) == 0 {
                break;
            }
        }
        self.note_losses(observer);
        let ended_ns = monotonic_ns();
        self.write(Record::new(Kind::Disarmed, ended_ns, 0), observer);
        match &healed {
            Ok(()) => self.write(Record::new(Kind::Healed, monotonic_ns(), 0), observer),
            Err(error) => self.warn(&error.to_string(), observer),
        }
        self.hand_on_all()?;
        let (report, seen) = (self.backend.report(), self.backend.seen());
        let command = self.see_off()?;
        let summary = Summary {
            ending,
            command,
            report,
            seen,
            hooks,
            armed_ns,
            ended_ns,
            healed: healed.is_ok(),
            plan: self.plan.clone(),
            unwritten: self
                .history
                .failure()
                .map(|(number, error)| (number, error.to_string())),
        };
        let line = format!("healed: {}, {}", self.who(), summary.one_line());
        self.log(&line, observer);
        healed?;
        Ok(summary)
    }

    fn run_armed(
        &mut self,
        observer: &mut dyn Observer,
    ) -> Result<(HookReport, Ending, u64), SessionError> {
        let hooks = self.attach()?;
        for warning in &hooks.warnings {
            self.warn(warning, observer);
        }
        // Before anything runs that could ask for it.
        self.open_control(&hooks, observer);
        let armed_ns = self.backend.activate(&self.plan)?;
        if let Some(control) = &mut self.control {
            control.armed(armed_ns);
        }
        let leased = self.backend.leased().ok_or(BackendError::NotLoaded)?;
        let heartbeat = Heartbeat::start(Arc::clone(&leased), self.plan.lease)?;
        let rules: Vec<&str> = self
            .plan
            .rules
            .iter()
            .map(|rule| rule.text.as_str())
            .collect();
        self.log(
            &format!("armed: {}, rules {}", self.who(), rules.join("; ")),
            observer,
        );
        self.write(Record::new(Kind::Armed, armed_ns, 0), observer);
        self.hand_on(0)?;
        observer.armed(&hooks, &self.passed_over);
        let ending = self.watch(&heartbeat, &*leased, armed_ns, observer)?;
        leased.switch_off();
        Ok((hooks, ending, armed_ns))
    }

    /// Opens the socket by which the session is controlled. Without one it runs all the same.
    fn open_control(&mut self, hooks: &HookReport, observer: &mut dyn Observer) {
        let Some(choice) = self.choice else {
            return; // Its calls are made up, and it is controlled by whoever makes them.
        };
        let name = std::process::id().to_string();
        match Server::open_in(&place::directories(), &name) {
            Ok((server, dead)) => {
                if dead > 0 {
                    let sockets = counted(dead as u64, "socket", "sockets");
                    self.note(&format!("took away {sockets} of dead sessions"), observer);
                }
                self.control = Some(Control::of(server, choice, hooks.backend));
            }
            Err(error) => {
                let why = std::error::Error::source(&error)
                    .map_or_else(String::new, |source| format!(": {source}"));
                self.note(
                    &format!("finject ctl will not find this session: {error}{why}"),
                    observer,
                );
            }
        }
    }

    /// Attaches; where this machine does not let the backend, by the next best one. Where none can, the
    /// best one's reason is told: it is what the user would rather have.
    fn attach(&mut self) -> Result<HookReport, SessionError> {
        let mut first = None;
        loop {
            let error = match self.backend.attach(&self.plan) {
                Ok(hooks) => return Ok(hooks),
                Err(error) => error,
            };
            let passed = self.choice.map(|choice| (choice, error.to_string()));
            let others = if error.leaves_others() {
                self.rest
            } else {
                &[]
            };
            first.get_or_insert(error);
            // It may have failed half-way.
            self.backend.heal()?;
            let Ok(next) = first_of(&self.plan, others) else {
                return Err(first.map_or(BackendError::NotLoaded.into(), SessionError::from));
            };
            self.passed_over.extend(passed);
            self.passed_over.extend(next.passed_over);
            self.choice = Some(next.choice);
            self.rest = next.rest;
            self.backend = next.backend;
        }
    }

    /// The loop.
    fn watch(
        &mut self,
        heartbeat: &Heartbeat,
        leased: &dyn Leased,
        armed_ns: u64,
        observer: &mut dyn Observer,
    ) -> Result<Ending, SessionError> {
        let duration = self.plan.duration.map_or(u64::MAX, |duration| {
            u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
        });
        let until = armed_ns.saturating_add(duration);
        self.next_watch_ns = armed_ns + self.watch_ns();
        loop {
            let now = monotonic_ns();
            if heartbeat.has_lapsed() || self.backend.report().lapsed {
                return Ok(Ending::Lapsed);
            }
            if let Some(Heard::Own(signals)) = &self.heard
                && let Some(signal) = signals.take()
            {
                return Ok(Ending::Signal(signal));
            }
            if let Some(signal) = self.forward(&mut |stop| heartbeat.suspended(leased, stop)) {
                return Ok(Ending::Signal(signal));
            }
            // Before Linux 6.11 a command that was not waited for still counts as one that has the
            // filter.
            if let Some(command) = self.backend.command() {
                command.wait(false)?;
            }
            if let Some(control) = &mut self.control {
                let takes = || heartbeat.takes(JOINING_NS);
                control.turn(&mut self.plan, &mut *self.backend, &takes);
                heartbeat.turn();
                let (is_to_stop, changes) = (control.is_to_stop(), control.take_changes());
                for change in changes {
                    self.log(&format!("{change}: {}", self.who()), observer);
                }
                if is_to_stop {
                    return Ok(Ending::Asked);
                }
            }
            if now >= until {
                return Ok(Ending::TimeUp);
            }
            let report = self.backend.report();
            // One that was not taken in is not seen to end.
            if report.targets_exited + report.targets_lost >= report.targets_seen {
                return Ok(Ending::TargetsEnded);
            }
            if now >= self.next_watch_ns {
                self.next_watch_ns = now + self.watch_ns();
                if let Some(lost) = self.backend.watch() {
                    self.warn(&lost.why, observer);
                    return Ok(Ending::Lost {
                        since_ns: lost.since_ns,
                    });
                }
            }
            let taken = self.take_events(observer);
            self.note_losses(observer);
            self.hand_on(0)?;
            observer.turn();
            heartbeat.turn();
            if taken > 0 && taken < BATCH {
                self.wait(GATHER_MS, Hear::AllButEvents)?;
            } else if taken == 0 {
                let left_ms = until.saturating_sub(now) / 1_000_000;
                let turn_ms = self.control.as_ref().and_then(Control::turn_ms);
                let turn_ms = turn_ms.unwrap_or(TURN_MS);
                let wait = i32::try_from(left_ms.min(turn_ms)).unwrap_or(0);
                self.wait(wait.max(1), Hear::All)?;
            }
        }
    }

    /// How often the backend is looked after.
    fn watch_ns(&self) -> u64 {
        u64::try_from(self.backend.watched_every().as_nanos()).unwrap_or(u64::MAX)
    }

    fn wait(&self, timeout_ms: i32, hear: Hear) -> Result<(), SessionError> {
        let mut fds = Vec::new();
        fds.extend(
            self.heard
                .as_ref()
                .map(|heard| PollFd::readable(heard.fd())),
        );
        fds.extend(self.backend.end_fds().into_iter().map(PollFd::readable));
        let control = self.control.iter().flat_map(|control| control.server.fds());
        fds.extend(control.map(PollFd::readable));
        if hear == Hear::All && self.history.waiting() < WAITING {
            fds.extend(self.backend.event_fds().into_iter().map(PollFd::readable));
        }
        fds.extend(self.history.stream().map(PollFd::writable));
        poll_fds(&mut fds, timeout_ms)?;
        Ok(())
    }

    /// Hands the command its signals; the one that asks finject to end, where the command has.
    fn forward(&mut self, suspended: &mut dyn FnMut(fn())) -> Option<i32> {
        let Some(Heard::Commands(forwarded)) = &mut self.heard else {
            return None;
        };
        self.backend.command()?.hear(forwarded, suspended)
    }

    /// Waits until the command has ended, which runs on unfaulted; how it did.
    fn see_off(&mut self) -> Result<Option<Ended>, SysError> {
        loop {
            let asked = self.look_after();
            let Some(command) = self.backend.command() else {
                return Ok(None);
            };
            if let Some(ended) = command.wait(false)?
                && (asked.is_some() || !self.backend.is_needed())
            {
                return Ok(Some(ended));
            }
            std::thread::sleep(SEEING_OFF);
        }
    }

    /// What a command still needs when its faults are over: its signals, and somebody who answers its
    /// calls. The signal that asks finject to end.
    fn look_after(&mut self) -> Option<i32> {
        let now_ns = monotonic_ns();
        if now_ns >= self.next_watch_ns {
            self.next_watch_ns = now_ns + self.watch_ns();
            // There are no faults left to be lost.
            let _ = self.backend.watch();
        }
        if let Some(Heard::Own(signals)) = &self.heard {
            return signals.take().filter(|_| !self.ended_by_signal);
        }
        self.forward(&mut |stop| stop())
    }

    /// Writes all records, however long their reader takes. Whoever ends finject meanwhile gives those up
    /// that are left.
    fn hand_on_all(&mut self) -> Result<(), SysError> {
        while self.history.stream().is_some() {
            self.hand_on(TURN_MS as i32)?;
            if self.look_after().is_some() {
                self.history.give_up();
            }
        }
        Ok(())
    }

    /// Writes records as far as their stream takes them, waiting for it so many milliseconds each
    /// time.
    fn hand_on(&mut self, timeout_ms: i32) -> Result<(), SysError> {
        while let Some(stream) = self.history.stream() {
            let is_ready = poll_fds(&mut [PollFd::writable(stream)], timeout_ms)? > 0;
            let before = self.history.waiting();
            if is_ready {
                self.history.hand_on();
            }
            // A terminal may be called writable and yet take nothing.
            if self.history.waiting() == before {
                break;
            }
        }
        Ok(())
    }

    fn take_events(&mut self, observer: &mut dyn Observer) -> usize {
        let mut taken = 0;
        while taken < BATCH
            && self.history.waiting() < WAITING
            && let Some(event) = self.backend.poll()
        {
            taken += 1;
            let Some(kind) = EventKind::from_wire(event.kind) else {
                continue;
            };
            let is_wanted = observer.wants(kind);
            if !is_wanted && !self.history.is_kept() {
                continue;
            }
            let record = decode::record(&event, &self.plan, self.offset_ns);
            if is_wanted {
                self.write(record, observer);
            } else {
                self.history.write(record);
            }
        }
        taken
    }

    /// A record for each new loss, so that the history never claims more than it holds.
    fn note_losses(&mut self, observer: &mut dyn Observer) {
        let report = self.backend.report();
        // Rules may have joined.
        self.known_losses.resize(report.rules.len(), (0, 0));
        for (index, rule) in report.rules.iter().enumerate() {
            let (dropped, lost) = self.known_losses[index];
            for (new, message) in [
                (
                    rule.dropped - dropped,
                    "firings without a record of their own",
                ),
                (rule.lost - lost, "firings that could not be carried out"),
            ] {
                if new > 0 {
                    let mut record = Record::new(Kind::Lost, monotonic_ns(), 0);
                    record.rule = Some(self.plan.rules[index].name.to_string());
                    record.number = Some(new);
                    record.message = Some(message.into());
                    self.write(record, observer);
                }
            }
            self.known_losses[index] = (rule.dropped, rule.lost);
        }
    }

    fn write(&mut self, mut record: Record, observer: &mut dyn Observer) {
        if record.wall_ns == 0 {
            record.wall_ns = record.mono_ns + self.offset_ns;
        }
        observer.record(&record);
        self.history.write(record);
    }

    /// What matters to few: a warning in the records, and a line for those who read.
    fn note(&mut self, note: &str, observer: &mut dyn Observer) {
        let mut record = Record::new(Kind::Warning, monotonic_ns(), 0);
        record.message = Some(note.to_owned());
        self.write(record, observer);
        observer.note(note);
    }

    fn warn(&mut self, warning: &str, observer: &mut dyn Observer) {
        let mut record = Record::new(Kind::Warning, monotonic_ns(), 0);
        record.message = Some(warning.to_owned());
        self.write(record, observer);
        observer.warning(warning);
    }

    /// By whom and on what, for the system's log.
    fn who(&self) -> String {
        let sudo = std::env::var("SUDO_UID").map(|uid| format!(" (sudo by {uid})"));
        format!(
            "uid {}{}, target {}",
            real_uid(),
            sudo.unwrap_or_default(),
            some_of(self.plan.targets.names().into_iter())
        )
    }

    /// Tells the system's log. A user's own command is the user's own matter, where the log is not
    /// theirs to write to.
    fn log(&mut self, line: &str, observer: &mut dyn Observer) {
        let is_own = matches!(self.plan.targets, Targets::Launched(_));
        if let Err(error) = Syslog::default().send(line)
            && !is_own
        {
            let line = format!("this could not be written to the system's log ({error}): {line}");
            self.warn(&line, observer);
        }
    }
}

/// `3 calls matched, 1 fired`.
pub(crate) fn matched_and_fired(matched: u64, fired: u64) -> String {
    format!(
        "{} matched, {fired} fired",
        counted(matched, "call", "calls")
    )
}
