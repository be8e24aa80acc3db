//! The backend for commands that finject launches, without privilege and on any kernel since 5.19:
//! a seccomp filter hands exactly the calls that rules name to a process of finject's, which decides
//! and answers. All other calls run at full speed. seccomp_unotify(2).

mod crew;
mod parking;
mod supervisor;
pub mod support;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use injector_common::Event;

use self::supervisor::{SETTLING, Supervisor, processors};
use super::bell::Bell;
use super::decider::Decider;
use super::launching::{self, filter_of, gains_nothing, image};
use super::memory::{CallSlot, Memory};
use super::recorder::{self, Recorder};
use super::ring::{Receiver, ring};
use super::spec::{Spec, SpecRule};
use super::{Backend, BackendError, HookReport, Lost, Report};
use crate::plan::{Plan, Targets};
use crate::sys::helper::{Helper, Orphaned, pipe};
use crate::sys::launch::Command;
use crate::sys::process::{has_hung_up, is_privileged, may_trace};
use crate::sys::seccomp::{Answer, InFlight, Listener, To};
use crate::sys::time::{Timer, monotonic_ns};
use crate::syscall::roles;
use crate::target::process::{Proc, Tgid};

/// The backend's name.
pub const NAME: &str = "notify";

/// The time without a sign of life after which the supervisor counts as hung: it gives ten signs a second. One that only lacks a processor is waited for.
const SILENT: Duration = Duration::from_secs(1);
/// The time after which it is waited for no longer.
const LOST: Duration = Duration::from_secs(10);

/// The backend.
#[derive(Debug)]
pub struct Notify {
    memory: Arc<Memory>,
    spec: Option<Spec>,
    running: Option<Running>,
}

/// A command that runs under the filter.
#[derive(Debug)]
struct Running {
    command: Command,
    supervisor: Helper,
    listener: Arc<Listener>,
    in_flight: Arc<InFlight>,
    /// Wakes the supervisor for calls that wait.
    bell: Arc<Bell>,
    events: Receiver,
    /// Its other end tells the supervisor when finject is gone.
    _alive: OwnedFd,
    /// The supervisor's last sign of life, and when it was first seen.
    beat: (u64, u64),
    /// finject lets the calls run in the supervisor's place.
    taken_over: bool,
}

impl Notify {
    /// Nothing is started yet.
    pub fn new() -> Result<Self, BackendError> {
        Ok(Self {
            memory: Arc::new(Memory::anonymous()?),
            spec: None,
            running: None,
        })
    }

    fn running(&mut self) -> Result<&mut Running, BackendError> {
        self.running.as_mut().ok_or(BackendError::NotLoaded)
    }
}

/// Whether the keeper can look at what a rule asks for: it is no ancestor of the command's processes, as Yama asks of
/// whoever reads names in their memory, or asks their sockets.
fn can_look(rule: &SpecRule) -> Result<(), BackendError> {
    let names = |call: &CallSlot| !roles((*call).into()).paths.is_empty();
    let has_names = rule.wire.has_paths() && rule.calls.iter().any(names);
    let scope = Proc::default().yama_scope();
    let is_kept_out = scope > 2 || scope > 0 && !may_trace();
    if is_kept_out && (has_names || rule.wire.has_sockets()) {
        return Err(BackendError::NamesUnread(scope));
    }
    Ok(())
}

impl Drop for Running {
    /// The supervisor ends by itself with the last target; then nothing of it is left to whoever
    /// started finject, whatever somebody has done to it.
    fn drop(&mut self) {
        if has_hung_up(self.listener.fd().as_fd()) {
            self.supervisor.wait_for(SETTLING);
            self.supervisor.kill();
        }
    }
}

impl Running {
    /// Answers in the place of a supervisor that is dead or hung: every call runs. Without it they
    /// would fail for ever, or wait.
    fn take_over(&mut self) {
        self.supervisor.kill();
        self.taken_over = true;
        let (listener, in_flight) = (Arc::clone(&self.listener), Arc::clone(&self.in_flight));
        in_flight.let_run(&listener);
        std::thread::spawn(move || {
            while let Ok(call) = in_flight.receive(0, &listener) {
                if call.is_some() {
                    let _ = in_flight.answer(0, &listener, Answer::Run);
                    in_flight.clear(0);
                }
            }
        });
    }

    /// Whether the supervisor answers.
    fn is_supervised(&mut self) -> bool {
        if self.taken_over {
            return true;
        }
        if self.supervisor.has_ended() {
            // It ends by itself with the last target.
            return has_hung_up(self.listener.fd().as_fd());
        }
        let (beats, now) = (self.in_flight.beats(), monotonic_ns());
        if beats != self.beat.0 {
            self.beat = (beats, now);
        }
        let silent = Duration::from_nanos(now - self.beat.1);
        let starves = || Proc::default().wants_processor(Tgid(self.supervisor.pid()));
        silent < SILENT || silent < LOST && starves()
    }
}

impl Backend for Notify {
    fn load(&mut self, plan: &Plan) -> Result<(), BackendError> {
        self.spec.insert(Spec::of(plan)?).write(&self.memory);
        Ok(())
    }

    fn attach(&mut self, plan: &Plan) -> Result<HookReport, BackendError> {
        let spec = self.spec.as_ref().ok_or(BackendError::NotLoaded)?;
        let Targets::Launched(launch) = &plan.targets else {
            return Err(BackendError::NotLoaded);
        };
        for rule in &spec.rules {
            can_look(rule)?;
        }
        let filter = filter_of(spec, To::Listener);
        let in_flight = Arc::new(InFlight::new(processors().clamp(2, 8))?);
        let (command, listener, latch) = Command::start(&image(launch), &filter, is_privileged())?;
        let listener = Arc::new(listener);
        listener.wake_on_callers_processor();
        let (sender, events) = ring()?;
        let (finject_end, alive) = pipe()?;
        let bell = Arc::new(Bell::new()?);
        let supervisor = Supervisor {
            recorder: Recorder::new(Decider::new(Arc::clone(&self.memory), spec), sender),
            memory: Arc::clone(&self.memory),
            listener: Arc::clone(&listener),
            in_flight: Arc::clone(&in_flight),
            bell: Arc::clone(&bell),
            timer: Timer::new()?,
            finject: finject_end,
            parent: std::process::id(),
            from_exec: plan.from_exec,
            alone: (!plan.follow).then(|| command.pid()),
            command: command.pid(),
            latch: latch.clone(),
        };
        let process = Helper::start(
            c"finject-keeper",
            &supervisor.descriptors(),
            Orphaned::GoesOn,
            || supervisor.serve(),
        )?;
        latch.open();
        self.memory.next_target();
        self.running = Some(Running {
            command,
            supervisor: process,
            listener,
            in_flight,
            bell,
            events,
            _alive: alive,
            beat: (0, monotonic_ns()),
            taken_over: false,
        });
        Ok(HookReport {
            backend: NAME,
            functions: spec.named(),
            mechanism: "seccomp notification".into(),
            targets: 1,
            warnings: gains_nothing(launch).into_iter().collect(),
            ..HookReport::default()
        })
    }

    fn join(&mut self, plan: &Plan, rule: usize) -> Result<Vec<String>, BackendError> {
        can_look(&SpecRule::of(plan, rule)?)?;
        let spec = self.spec.as_mut().ok_or(BackendError::NotLoaded)?;
        launching::join(spec, plan, rule, To::Listener, &self.memory)?;
        Ok(Vec::new())
    }

    fn memory(&self) -> Option<&Arc<Memory>> {
        Some(&self.memory)
    }

    fn wake(&self) {
        if let Some(running) = &self.running {
            running.bell.ring();
        }
    }

    fn event_fds(&self) -> Vec<BorrowedFd<'_>> {
        let running = self.running.iter();
        running.map(|running| running.events.fd()).collect()
    }

    fn end_fds(&self) -> Vec<BorrowedFd<'_>> {
        let Some(running) = &self.running else {
            return Vec::new();
        };
        let supervisor = running.supervisor.handle();
        running
            .command
            .handle()
            .into_iter()
            .chain([supervisor])
            .collect()
    }

    /// Calls wait for one that hangs: its silence is noticed in time.
    fn watched_every(&self) -> Duration {
        SILENT / 4
    }

    fn watch(&mut self) -> Option<Lost> {
        let running = self.running.as_mut()?;
        if running.is_supervised() {
            return None;
        }
        self.memory.switch_off();
        let since_ns = running.beat.1;
        running.take_over();
        Some(Lost {
            why: "finject's own process that answers the calls has died or hung; from here on all \
                  calls run"
                .into(),
            since_ns,
        })
    }

    fn poll(&mut self) -> Option<Event> {
        self.running.as_ref()?.events.next()
    }

    fn heal(&mut self) -> Result<(), BackendError> {
        self.memory.switch_off();
        let Ok(running) = self.running() else {
            return Ok(());
        };
        // Calls that were decided before are answered and recorded, and none waits any longer.
        running.bell.ring();
        if !running.supervisor.has_ended() {
            running.in_flight.settle(SETTLING);
        }
        Ok(())
    }

    fn command(&mut self) -> Option<&mut Command> {
        self.running.as_mut().map(|running| &mut running.command)
    }

    fn is_needed(&self) -> bool {
        self.running.as_ref().is_some_and(|running| {
            running.taken_over && !has_hung_up(running.listener.fd().as_fd())
        })
    }

    fn report(&self) -> Report {
        recorder::report(&self.memory, self.spec.as_ref())
    }
}
