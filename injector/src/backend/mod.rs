//! Backends: what carries a plan out. `ebpf` decides and injects inside the kernel; to the others the calls
//! come, of commands that finject launches (`notify`) or of threads that it traces (`ptrace`). Each says which plans it admits, and then, in this order, loads, attaches, activates and heals.

mod bell;
pub mod choose;
pub mod decider;
pub mod ebpf;
pub mod files;
pub mod firing;
mod gate;
mod launching;
pub mod matrix;
pub mod memory;
pub mod mock;
pub mod notify;
pub mod ptrace;
mod recorder;
pub mod report;
mod ring;
pub mod sockets;
pub mod spec;
mod support;
mod threads;
pub mod unsupported;
mod waits;

use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use injector_common::Event;

use self::memory::Memory;
use crate::plan::Plan;
use crate::rule::lower::nanoseconds;
use crate::sys::SysError;
use crate::sys::launch::{Command, LaunchError};
use crate::syscall::CallId;

pub use report::{HookReport, Report, RuleReport};
pub use unsupported::Unsupported;

mod sealed {
    /// Only this crate adds backends.
    pub trait Sealed {}
    impl Sealed for super::ebpf::Ebpf {}
    impl Sealed for super::notify::Notify {}
    impl Sealed for super::ptrace::Ptrace {}
    impl Sealed for super::mock::Mock {}
}

/// A backend that did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The machine lacks something.
    #[error("this machine cannot do it: {}", describe(needs))]
    Machine {
        /// What is missing, and what would provide it.
        needs: Vec<ebpf::probe::Finding>,
    },
    /// The engine in the kernel.
    #[error(transparent)]
    Engine(#[from] ebpf::engine::EngineError),
    /// Other agents hold functions that the rules name.
    #[error("another agent has a trampoline on {}", functions.join(", "))]
    Collision {
        /// The functions.
        functions: Vec<String>,
    },
    /// A call that this kernel does not have.
    #[error("this kernel has no {call} ({function} is not among its symbols)")]
    NoSuchStub {
        /// The call's name in the rule.
        call: String,
        /// The kernel's function.
        function: String,
    },
    /// A test call was not answered by the fault.
    #[error("a test call of {call} was not failed: {saw}")]
    NoFault {
        /// The call.
        call: String,
        /// What it met instead.
        saw: String,
    },
    /// A test call was not met where no call can be failed.
    #[error("a test call of {call} was not seen to enter and leave: {saw}")]
    NotSeen {
        /// The call.
        call: String,
        /// What it met.
        saw: String,
    },
    /// A test call was met after everything was taken away.
    #[error("a test call of {0} was still met after everything was taken away")]
    NotHealed(String),
    /// A rule names a call that does not come to finject, as the command's filter was made before it.
    #[error("the command runs under a filter that does not hand over all calls of {call}")]
    NotHandedOver {
        /// The call.
        call: String,
    },
    /// A rule counts by process or thread, and there is no table of their counters.
    #[error(
        "the session began without a rule that counts by process or thread, and has no room for their counters"
    )]
    NoScopes,
    /// Which of two programs of one function runs first is told by a test call, and none of the hooked calls may be tried.
    #[error(
        "it is not known in which order this kernel runs two programs: none of the hooked calls can be tried"
    )]
    NoOrder,
    /// `membarrier(2)` waits for nothing where processors are kept free of the kernel's own work.
    #[error("this kernel does not tell when its programs have ended (nohz_full)")]
    NoGracePeriod,
    /// More functions than are hooked one by one while others call.
    #[error("{0} more functions are too many for a session that runs")]
    TooManyFunctions(usize),
    /// Threads cannot be handed over on such a kernel.
    #[error(
        "this kernel preempts its own programs (PREEMPT_RT): they cannot hand a thread over before its call goes on"
    )]
    Realtime,
    /// A rule is about these, and the kernel's structures of them are others than this version knows.
    #[error("this kernel's structures of {0} are none that this version of finject knows")]
    Unknown(&'static str),
    /// A rule asks for names or sockets that the kernel does not let finject look at.
    #[error(
        "the kernel does not let finject's process look at the names and sockets of a command's calls (kernel.yama.ptrace_scope is {0})"
    )]
    NamesUnread(u8),
    /// A process is another session's target.
    #[error("process {0} is a target of another finject already")]
    AnothersTarget(u32),
    /// A target ended while it was being attached.
    #[error("process {0} ended before the faults were in force")]
    TargetGone(u32),
    /// The command was not started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A target cannot be traced.
    #[error(transparent)]
    Trace(#[from] ptrace::TraceError),
    /// A call.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// Used out of order: a mistake of finject's.
    #[error("a backend was used before it was loaded")]
    NotLoaded,
}

fn describe(needs: &[ebpf::probe::Finding]) -> String {
    let need = |finding: &ebpf::probe::Finding| format!("{}: {}", finding.need, finding.seen);
    needs.iter().map(need).collect::<Vec<_>>().join("; ")
}

impl BackendError {
    /// What to do about it, a line each.
    pub fn help(&self) -> Vec<String> {
        match self {
            Self::Machine { needs } => needs
                .iter()
                .filter_map(|finding| match &finding.state {
                    ebpf::probe::State::Missing { remedy } => Some(remedy.clone()),
                    _ => None,
                })
                .collect(),
            Self::Collision { .. } => vec![
                "stop that agent's fentry, fexit or fmod_ret programs on these functions (bpftool \
                 link list shows them): an override beside a trampoline is lost, or returns garbage"
                    .into(),
            ],
            Self::NoSuchStub { .. } => vec![
                "leave the call out, or write ?NAME, which is dropped where a kernel lacks it"
                    .into(),
            ],
            Self::NoFault { .. } | Self::NotSeen { .. } | Self::NotHealed(_) => {
                vec!["finject doctor tells what else is on this kernel's functions".into()]
            }
            Self::Engine(error) if error.is_machine() => vec![
                "use --backend ptrace, which stops threads at every call; or name fewer calls".into(),
            ],
            Self::NamesUnread(scope) => vec![
                match scope {
                    0 | 1 => "use --backend ptrace, or run finject as root (in a container with --cap-add=SYS_PTRACE)",
                    2 => "run finject as root (in a container with --cap-add=SYS_PTRACE)",
                    _ => "this lasts until the machine is booted again, without kernel.yama.ptrace_scope=3",
                }
                .into(),
            ],
            Self::Unknown(_) => vec!["use --backend ptrace, which looks at them on any kernel".into()],
            Self::Realtime => vec!["use --backend ptrace, which holds threads on any kernel".into()],
            Self::AnothersTarget(_) => vec![
                "finject ctl add has a rule join that session; finject ctl list tells which run"
                    .into(),
            ],
            Self::NotHandedOver { .. } => vec![
                "begin the session with that rule, out of force: `armed = false` in a file of rules; or attach to \
                 the process by --pid"
                    .into(),
            ],
            Self::NoScopes
            | Self::NoOrder
            | Self::NoGracePeriod
            | Self::TooManyFunctions(_) => vec![
                "begin the session with that rule, out of force: `armed = false` in a file of rules"
                    .into(),
            ],
            Self::Launch(LaunchError::Filter(error)) => vec![
                match error.raw_os_error() {
                    Some(libc::EBUSY) => {
                        "a process can have one listener: finject was itself launched under finject, \
                         or by a container manager that listens; name all rules in one run"
                    }
                    Some(libc::EMFILE | libc::ENFILE) => {
                        "allow it a few more descriptors (ulimit -n)"
                    }
                    _ => {
                        "finject needs Linux 5.19 or newer with CONFIG_SECCOMP_FILTER, and a \
                         container that allows seccomp(2), as Docker's default profile does"
                    }
                }
                .into(),
            ],
            Self::Trace(error) => vec![error.help()],
            Self::TargetGone(_) => vec!["start the program again, and give its new number".into()],
            _ => vec!["finject doctor tells what this machine has and lacks".into()],
        }
    }

    /// Whether it is the machine that cannot do it, rather than finject that failed.
    pub fn is_machine(&self) -> bool {
        if let Self::Engine(error) = self {
            return error.is_machine();
        }
        matches!(
            self,
            Self::Machine { .. }
                | Self::Collision { .. }
                | Self::NoSuchStub { .. }
                | Self::Realtime
                | Self::Unknown(_)
                | Self::NamesUnread(_)
                | Self::AnothersTarget(_)
                | Self::Launch(LaunchError::Filter(_))
                | Self::Trace(_)
        )
    }
}

impl BackendError {
    /// Whether another backend may do it. A process that has a listener already is not traced
    /// instead: calls that both name would come to that listener alone (seccomp(2): of several
    /// filters' answers the one of higher precedence).
    pub(super) fn leaves_others(&self) -> bool {
        match self {
            Self::Launch(LaunchError::Filter(error)) => {
                let errno = error.raw_os_error();
                !matches!(errno, Some(libc::EBUSY | libc::EMFILE | libc::ENFILE))
            }
            Self::NoFault { .. } | Self::NotSeen { .. } => true,
            Self::AnothersTarget(_) => false,
            _ => self.is_machine(),
        }
    }
}

/// Faults that arrived once and no longer do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// What was seen.
    pub why: String,
    /// When faults were last known to arrive, `CLOCK_MONOTONIC` nanoseconds: what fired since then
    /// may not have reached its caller.
    pub since_ns: u64,
}

/// What holds a lease: it injects only until then.
pub trait Leased: Send + Sync {
    /// Until when, `CLOCK_MONOTONIC` nanoseconds.
    fn lease(&self) -> u64;
    /// Extends it.
    fn renew(&self, until_ns: u64);
    /// Ends all faults for good.
    fn switch_off(&self);
}

/// What carries a plan out. Sealed: backends are of this crate.
pub trait Backend: sealed::Sealed + Debug {
    /// Makes everything ready; nothing is attached.
    fn load(&mut self, plan: &Plan) -> Result<(), BackendError>;

    /// Ties it to the targets and to the calls, and proves by test calls that faults arrive; or
    /// launches the command, which waits. Nothing is in force yet.
    fn attach(&mut self, plan: &Plan) -> Result<HookReport, BackendError>;

    /// Puts those rules in force that are from the start; returns `CLOCK_MONOTONIC` nanoseconds of that moment.
    fn activate(&mut self, plan: &Plan) -> Result<u64, BackendError> {
        let memory = self.memory().ok_or(BackendError::NotLoaded)?;
        Ok(memory.arm_now(plan.armed(), nanoseconds(plan.lease)))
    }

    /// A rule, by index, has come to the plan while the session runs, as its last one, or once more after it had
    /// [parted](Self::part): makes everything ready for it. It is not in force yet. What there is to warn of. Where it
    /// fails, all is as it was.
    fn join(&mut self, plan: &Plan, rule: usize) -> Result<Vec<String>, BackendError>;

    /// A rule, by index, is out of force, and holds nobody: what only it needed is taken away.
    fn part(&mut self, rule: usize) -> Result<(), BackendError> {
        let memory = self.memory().ok_or(BackendError::NotLoaded)?;
        memory.forget_calls(rule);
        Ok(())
    }

    /// The rules' counters and switches, once loaded.
    fn memory(&self) -> Option<&Arc<Memory>>;

    /// Has whoever holds threads look which are to go on.
    fn wake(&self) {}

    /// What holds the lease, once loaded.
    fn leased(&self) -> Option<Arc<dyn Leased>> {
        let memory = Arc::clone(self.memory()?);
        Some(memory as Arc<dyn Leased>)
    }

    /// The descriptors that become readable when there are events.
    fn event_fds(&self) -> Vec<BorrowedFd<'_>>;

    /// Descriptors that become readable when targets end, where there are any.
    fn end_fds(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// How often it is looked whether faults still arrive.
    fn watched_every(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// Looks whether faults still arrive.
    fn watch(&mut self) -> Option<Lost>;

    /// The next event, [`None`] when there is none now.
    fn poll(&mut self) -> Option<Event>;

    /// Ends all faults, takes everything away, and proves by test calls that none arrives any more.
    /// Idempotent; events may still be polled after it.
    fn heal(&mut self) -> Result<(), BackendError>;

    /// The command that was launched.
    fn command(&mut self) -> Option<&mut Command> {
        None
    }

    /// Whether targets need finject itself to stay, although no fault is in force.
    fn is_needed(&self) -> bool {
        false
    }

    /// Every call that targets made while the rules were in force, the most frequent first; [`None`]
    /// where only those come to finject that rules name. For the end: it looks through all numbers.
    fn seen(&self) -> Option<Vec<(CallId, u64)>> {
        None
    }

    /// The counters as they are now.
    fn report(&self) -> Report;
}
