//! Backends: what carries a plan out. `ebpf` decides and injects inside the kernel; others follow.
//! Each says what it found on this machine, which plans it admits, and then, in this order, loads,
//! attaches, activates and heals.

pub mod ebpf;
pub mod report;
pub mod unsupported;

use injector_common::Event;

use crate::plan::Plan;
use crate::sys::SysError;

pub use report::{HookReport, Report, RuleReport};
pub use unsupported::Unsupported;

mod sealed {
    /// Only this crate adds backends.
    pub trait Sealed {}
    impl Sealed for super::ebpf::Ebpf {}
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
    /// A target ended while it was being attached.
    #[error("process {0} ended before the faults were in force")]
    TargetGone(u32),
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
            Self::NoFault { .. } => {
                vec!["finject doctor tells what else is on this kernel's functions".into()]
            }
            Self::TargetGone(_) => vec!["start the program again, and give its new number".into()],
            _ => vec!["finject doctor tells what this machine has and lacks".into()],
        }
    }

    /// Whether it is the machine that cannot do it, rather than finject that failed.
    pub fn is_machine(&self) -> bool {
        matches!(
            self,
            Self::Machine { .. } | Self::Collision { .. } | Self::NoSuchStub { .. }
        )
    }
}

/// Faults that arrived once and no longer do: another agent has come after finject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The call of the test that showed it.
    pub call: String,
    /// What the test call met instead of its fault.
    pub saw: String,
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
pub trait Backend: sealed::Sealed {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// What probing found, with the reason of each no.
    fn capabilities(&self) -> &ebpf::probe::Capabilities;

    /// Whether it can carry out the whole plan. Nothing is touched.
    fn admit(&self, plan: &Plan) -> Result<(), Vec<Unsupported>>;

    /// Makes everything ready; nothing is attached.
    fn load(&mut self, plan: &Plan) -> Result<(), BackendError>;

    /// Ties it to the targets and to the calls, and proves by test calls that faults arrive.
    /// Nothing is in force yet.
    fn attach(&mut self, plan: &Plan) -> Result<HookReport, BackendError>;

    /// Puts the rules in force; returns `CLOCK_MONOTONIC` nanoseconds of that moment.
    fn activate(&mut self) -> Result<u64, BackendError>;

    /// Tries some of the hooked calls again, others each time: whether faults still arrive.
    fn watch(&mut self) -> Option<Lost>;

    /// The next event, [`None`] when there is none now.
    fn poll(&mut self) -> Option<Event>;

    /// Ends all faults, takes everything away, and proves by test calls that none arrives any more.
    /// Idempotent; events may still be polled after it.
    fn heal(&mut self) -> Result<(), BackendError>;

    /// The counters as they are now.
    fn report(&self) -> Report;
}
