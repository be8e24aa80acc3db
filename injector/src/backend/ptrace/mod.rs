//! The backend for kernels that offer nothing better: a process of finject's traces the targets, and
//! decides at the entry of each call. Attached, every call of a target stops it twice; launched, a
//! seccomp filter makes only the calls stop that rules name, and those once. ptrace(2).

pub(super) mod act;
mod acting;
mod behind;
pub mod census;
pub mod count;
mod data;
mod edit;
mod editing;
mod filters;
mod held;
mod keeper;
mod mending;
mod owed;
mod place;
mod pulse;
mod seen;
mod sleep;
mod stopping;
pub mod support;
mod tracer;
mod tracing;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use injector_common::Event;

use self::keeper::{Care, Kept};
use self::owed::Owed;
use self::pulse::{Phase, Pulse};
use self::seen::Seen;
use self::tracer::{Mode, Tracer, Work};
use super::decider::Decider;
use super::launching::{self, filter_of, gains_nothing, image};
use super::memory::Memory;
use super::recorder::{self, Recorder};
use super::ring::{Receiver, ring};
use super::spec::Spec;
use super::{Backend, BackendError, HookReport, Lost, Report};
use crate::plan::{Plan, Targets};
use crate::sys::helper::{Helper, Orphaned, pipe};
use crate::sys::launch::Command;
use crate::sys::process::{is_privileged, may_trace};
use crate::sys::seccomp::To;
use crate::sys::time::monotonic_ns;
use crate::syscall::CallId;
use crate::target::process::{Proc, Tgid};

/// The backend's name.
pub const NAME: &str = "ptrace";

/// How long the tracer may take to attach, and to let go.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long calls that are being decided are waited for.
const SETTLING: Duration = Duration::from_millis(500);
/// Between two looks at the tracer.
const LOOK: Duration = Duration::from_millis(1);

/// A target that cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// A process has one tracer.
    #[error("thread {tid} is traced already, by process {tracer} ({comm})")]
    Traced {
        /// The thread.
        tid: u32,
        /// Its tracer.
        tracer: u32,
        /// The tracer's name.
        comm: String,
    },
    /// It had one, which has gone.
    #[error("thread {0} is traced already, by a process that has ended since")]
    WasTraced(u32),
    /// Yama's word: kernel.yama.ptrace_scope.
    #[error("the kernel lets this user trace no running process (kernel.yama.ptrace_scope is {0})")]
    Yama(u8),
    /// Another user's, or one that may more than finject.
    #[error("this user may not trace thread {0}")]
    NotPermitted(u32),
    /// The target's own filter would judge the calls that are to fail.
    #[error("process {0} has a seccomp filter of its own, which would judge the calls that fail")]
    Filtered(u32),
    /// Anything else.
    #[error("thread {tid} cannot be traced")]
    Other {
        /// The thread.
        tid: u32,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The tracer ended or hung before it had attached.
    #[error("finject's own process that traces did not attach")]
    NoTracer,
}

impl TraceError {
    fn of(proc: &Proc, tid: u32, errno: i32) -> Self {
        let tracer = proc.tracer_of(Tgid(tid)).map_or(0, |tracer| tracer.0);
        if tracer != 0 {
            let comm = proc.process(Tgid(tracer)).map(|tracer| tracer.comm);
            let comm = comm.unwrap_or_default();
            return Self::Traced { tid, tracer, comm };
        }
        if errno == libc::EBUSY {
            return Self::WasTraced(tid);
        }
        if errno != libc::EPERM {
            let source = std::io::Error::from_raw_os_error(errno);
            return Self::Other { tid, source };
        }
        match proc.yama_scope() {
            scope @ 1..=2 if !may_trace() => Self::Yama(scope),
            scope @ 3.. => Self::Yama(scope),
            _ => Self::NotPermitted(tid),
        }
    }

    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::Traced { .. } => {
                "a process has one tracer: end that one (a debugger, strace, another finject)"
                    .into()
            }
            Self::WasTraced(_) => "try again".into(),
            Self::Yama(3) => {
                "this lasts until the machine is booted again, without kernel.yama.ptrace_scope=3"
                    .into()
            }
            Self::Yama(_) | Self::NotPermitted(_) => {
                "run it as root (sudo finject ...; in a container with --cap-add=SYS_PTRACE), or \
                 launch the program under finject: finject --rule RULE -- COMMAND"
                    .into()
            }
            Self::Filtered(_) => {
                "run finject as root and outside of a container that filters calls: it \
                                  may then suspend the target's filter for the calls that fail"
                    .into()
            }
            Self::Other { .. } | Self::NoTracer => {
                "finject doctor tells what this machine has and lacks".into()
            }
        }
    }
}

/// The backend.
#[derive(Debug)]
pub struct Ptrace {
    memory: Arc<Memory>,
    spec: Option<Spec>,
    seen: Arc<Seen>,
    running: Option<Running>,
}

/// Targets that are traced.
#[derive(Debug)]
struct Running {
    command: Option<Command>,
    kept: Kept,
    /// In the keeper's place.
    care: Care,
    pulse: Arc<Pulse>,
    events: Receiver,
    /// Its other end tells the tracer when finject is gone, or wants all threads let go.
    alive: Option<OwnedFd>,
}

impl Ptrace {
    /// Nothing is started yet.
    pub fn new() -> Result<Self, BackendError> {
        Ok(Self {
            memory: Arc::new(Memory::anonymous()?),
            spec: None,
            seen: Arc::new(Seen::new()?),
            running: None,
        })
    }

    /// Those whose own filters would judge a call that is to fail, where finject may not suspend them.
    fn check_filters(targets: &[Tgid]) -> Result<(), BackendError> {
        let proc = Proc::default();
        // The kernel lets no tracer suspend filters that has one itself.
        let may_suspend = is_privileged() && !proc.has_filter(Tgid(std::process::id()));
        let is_filtered =
            |target: &&Tgid| proc.process(**target).is_some() && proc.has_filter(**target);
        match targets.iter().find(is_filtered) {
            Some(target) if !may_suspend => Err(TraceError::Filtered(target.0).into()),
            _ => Ok(()),
        }
    }
}

/// A tracer that was started.
#[derive(Debug)]
struct Started {
    kept: Kept,
    pulse: Arc<Pulse>,
    /// Its other end tells the tracer when finject is gone, or wants all threads let go.
    alive: OwnedFd,
}

/// Whose calls count, and from when on.
#[derive(Clone, Copy, Debug)]
struct Whose {
    /// Children of targets are targets.
    follow: bool,
    /// Calls before the entry point count too.
    from_exec: bool,
}

/// Starts the tracer, which goes on without finject as at the end of any session, and the process that looks after
/// it.
fn start(
    work: Work,
    memory: &Arc<Memory>,
    mode: Mode,
    whose: Whose,
) -> Result<Started, BackendError> {
    let (finject, alive) = pipe()?;
    let pulse = Arc::new(Pulse::new()?);
    let tracer = Tracer {
        work,
        memory: Arc::clone(memory),
        pulse: Arc::clone(&pulse),
        finject,
        parent: std::process::id(),
        mode,
        follow: whose.follow,
        from_exec: whose.from_exec,
        never: Proc::default().lineage(Tgid(std::process::id())),
        owed: Owed::new()?,
        refused: OnceLock::new(),
    };
    let process = Helper::start(
        c"finject-tracer",
        &tracer.descriptors(),
        Orphaned::GoesOn,
        || tracer.serve(),
    )?;
    drop(tracer);
    let keeper = Helper::start(
        c"finject-keeper",
        &[process.handle()],
        Orphaned::GoesOn,
        || keeper::keep(&process, &pulse),
    )?;
    let kept = Kept {
        tracer: process,
        keeper,
    };
    Ok(Started { kept, pulse, alive })
}

/// Waits until calls that are decided are carried out and recorded, or let go, but not for longer than `time`.
fn settled(kept: &Kept, pulse: &Pulse, time: Duration) {
    let until = Instant::now() + time;
    while pulse.is_at_work() && !kept.tracer.has_ended() && Instant::now() < until {
        kept.wake();
        std::thread::sleep(LOOK);
    }
}

/// Waits until the tracer has attached to all threads; how many there are. One that hangs is ended: it would
/// hold a command that is to be ended.
fn await_tracer(tracer: &Helper, pulse: &Pulse) -> Result<u32, BackendError> {
    let attached = attached(tracer, pulse);
    if matches!(attached, Err(BackendError::Trace(TraceError::NoTracer))) {
        tracer.kill();
    }
    attached
}

fn attached(tracer: &Helper, pulse: &Pulse) -> Result<u32, BackendError> {
    let until = Instant::now() + PATIENCE;
    loop {
        // It tells before it ends.
        let has_ended = tracer.has_ended();
        match pulse.phase() {
            Phase::Attached(threads) => return Ok(threads),
            Phase::Refused { tid, errno } => {
                return Err(TraceError::of(&Proc::default(), tid, errno).into());
            }
            Phase::Starting | Phase::Staying if has_ended || Instant::now() > until => {
                return Err(TraceError::NoTracer.into());
            }
            Phase::Starting | Phase::Staying => std::thread::sleep(LOOK),
        }
    }
}

impl Backend for Ptrace {
    fn load(&mut self, plan: &Plan) -> Result<(), BackendError> {
        self.spec.insert(Spec::of(plan)?).write(&self.memory);
        Ok(())
    }

    fn attach(&mut self, plan: &Plan) -> Result<HookReport, BackendError> {
        let spec = self.spec.as_ref().ok_or(BackendError::NotLoaded)?;
        let mut warnings = Vec::new();
        let (command, mode) = match &plan.targets {
            Targets::Running(targets) => {
                let targets: Vec<Tgid> = targets.iter().map(|target| target.tgid).collect();
                Self::check_filters(&targets)?;
                (None, Mode::Attach(targets))
            }
            Targets::Launched(launch) => {
                warnings.extend(gains_nothing(launch));
                let filter = filter_of(spec, To::Tracer);
                let (command, latch) =
                    Command::start_traced(&image(launch), Some(&filter), is_privileged())?;
                let mode = Mode::Launch {
                    pid: command.pid(),
                    latch,
                    is_filtered: true,
                };
                (Some(command), mode)
            }
        };
        let (sender, events) = ring()?;
        let decider = Decider::new(Arc::clone(&self.memory), spec);
        let recorder = Box::new(Recorder::new(decider, sender));
        let work = Work::Decide(recorder, Arc::clone(&self.seen));
        let whose = Whose {
            follow: plan.follow,
            from_exec: plan.from_exec,
        };
        let Started { kept, pulse, alive } = start(work, &self.memory, mode, whose)?;
        let running = self.running.insert(Running {
            command,
            kept,
            care: Care::of(&pulse),
            pulse,
            events,
            alive: Some(alive),
        });
        let threads = await_tracer(&running.kept.tracer, &running.pulse)?;
        if let Some(command) = &mut running.command {
            command.filter()?;
        }
        let mechanism = if running.command.is_some() {
            "seccomp and ptrace".to_owned()
        } else {
            format!(
                "ptrace of {}",
                crate::text::counted(threads.into(), "thread", "threads")
            )
        };
        Ok(HookReport {
            backend: NAME,
            functions: spec.named(),
            mechanism,
            targets: self.memory.report(0).targets_seen,
            warnings,
            ..HookReport::default()
        })
    }

    fn join(&mut self, plan: &Plan, rule: usize) -> Result<Vec<String>, BackendError> {
        let spec = self.spec.as_mut().ok_or(BackendError::NotLoaded)?;
        match plan.targets {
            // All calls of theirs are seen.
            Targets::Running(_) => spec.join(plan, rule, &self.memory)?,
            Targets::Launched(_) => {
                launching::join(spec, plan, rule, To::Tracer, &self.memory)?;
            }
        }
        Ok(Vec::new())
    }

    fn memory(&self) -> Option<&Arc<Memory>> {
        Some(&self.memory)
    }

    fn wake(&self) {
        if let Some(running) = &self.running {
            running.kept.wake();
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
        let command = running.command.as_ref().and_then(Command::handle);
        command
            .into_iter()
            .chain([running.kept.tracer.handle()])
            .collect()
    }

    fn watch(&mut self) -> Option<Lost> {
        let running = self.running.as_mut()?;
        running.kept.look(&mut running.care, &running.pulse);
        let report = self.memory.report(0);
        let ends_by_itself = report.targets_exited >= report.targets_seen;
        if !running.kept.tracer.has_ended() || ends_by_itself {
            return None;
        }
        self.memory.switch_off();
        Some(Lost {
            why: "finject's own process that traces has died or hung; the targets run on without \
                  faults"
                .into(),
            since_ns: monotonic_ns(),
        })
    }

    fn poll(&mut self) -> Option<Event> {
        self.running.as_ref()?.events.next()
    }

    fn heal(&mut self) -> Result<(), BackendError> {
        self.memory.switch_off();
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        if running.command.is_some() {
            // Calls that were decided before are answered and recorded.
            settled(&running.kept, &running.pulse, SETTLING);
            return Ok(());
        }
        // Its end lets every thread go on.
        running.alive = None;
        running.kept.see_off(&running.pulse);
        Ok(())
    }

    fn command(&mut self) -> Option<&mut Command> {
        self.running.as_mut()?.command.as_mut()
    }

    fn seen(&self) -> Option<Vec<(CallId, u64)>> {
        // A command's calls come by a filter.
        let sees_all = self.running.as_ref()?.command.is_none();
        sees_all.then(|| self.seen.calls())
    }

    fn report(&self) -> Report {
        recorder::report(&self.memory, self.spec.as_ref())
    }
}
