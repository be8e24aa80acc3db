//! Which backend carries a plan out: the cheapest that can do the whole of it, unless the user names
//! one.

use std::fmt;

use super::ebpf::Ebpf;
use super::notify::Notify;
use super::ptrace::Ptrace;
use super::{Backend, BackendError, Unsupported, ebpf, notify, ptrace};
use crate::plan::{Plan, Targets};

/// A backend, before it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Faults decided and injected inside the kernel.
    Ebpf,
    /// seccomp's user notification.
    Notify,
    /// Tracing.
    Ptrace,
}

impl fmt::Display for Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ebpf => ebpf::support::NAME,
            Self::Notify => notify::NAME,
            Self::Ptrace => ptrace::NAME,
        })
    }
}

/// A plan that no backend in question carries out.
#[derive(Debug, thiserror::Error)]
pub enum NotChosen {
    /// Parts of it are beyond the backend.
    #[error("this plan cannot be carried out")]
    Refused(Vec<Unsupported>),
    /// The machine, or finject, failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl NotChosen {
    /// In one line.
    fn why(&self) -> String {
        match self {
            Self::Refused(reasons) => reasons
                .first()
                .map_or_else(|| self.to_string(), ToString::to_string),
            Self::Backend(error) => error.to_string(),
        }
    }

    /// Whether another backend may do it.
    fn leaves_others(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Backend(error) => error.leaves_others(),
        }
    }
}

/// A backend that has loaded a plan.
#[derive(Debug)]
pub struct Chosen {
    /// Which.
    pub choice: Choice,
    /// The backend.
    pub backend: Box<dyn Backend>,
    /// The better ones, and why not.
    pub passed_over: Vec<(Choice, String)>,
    /// Those that may take its place where it turns out that it cannot attach.
    pub rest: &'static [Choice],
}

impl Choice {
    /// Those in question for a plan, the best first: deciding in the kernel costs a call next to
    /// nothing, and being asked about only the calls that rules name costs less than being stopped
    /// at each. A command is launched by notify all the same, since loading programs into the kernel
    /// takes longer than most commands run; for one that makes millions of matched calls the user
    /// names ebpf.
    pub fn candidates(plan: &Plan) -> &'static [Self] {
        match plan.targets {
            Targets::Running(_) => &[Self::Ebpf, Self::Ptrace],
            Targets::Launched(_) => &[Self::Notify, Self::Ptrace],
        }
    }

    /// It alone.
    fn alone(self) -> &'static [Self] {
        match self {
            Self::Ebpf => &[Self::Ebpf],
            Self::Notify => &[Self::Notify],
            Self::Ptrace => &[Self::Ptrace],
        }
    }

    /// Whether it can carry out the whole plan. Nothing is touched.
    pub fn admit(self, plan: &Plan) -> Result<(), Vec<Unsupported>> {
        if self == Self::Notify && matches!(plan.targets, Targets::Running(_)) {
            return Err(vec![Unsupported::Attaching {
                backend: notify::NAME,
            }]);
        }
        match self {
            Self::Ebpf => ebpf::support::admit(plan),
            Self::Notify => notify::support::admit(plan),
            Self::Ptrace => ptrace::support::admit(plan),
        }
    }

    /// Makes it. Before any thread is started.
    fn make(self) -> Result<Box<dyn Backend>, BackendError> {
        Ok(match self {
            Self::Ebpf => Box::new(Ebpf::new()?),
            Self::Notify => Box::new(Notify::new()?),
            Self::Ptrace => Box::new(Ptrace::new()?),
        })
    }

    fn load(self, plan: &Plan) -> Result<Box<dyn Backend>, NotChosen> {
        self.admit(plan).map_err(NotChosen::Refused)?;
        let mut backend = self.make()?;
        backend.load(plan)?;
        Ok(backend)
    }
}

/// Chooses, makes and loads. `wanted` leaves no choice. Nothing is attached; before any thread is
/// started.
///
/// # Errors
/// Those of the best backend in question: it is what the user would rather have.
pub fn choose(plan: &Plan, wanted: Option<Choice>) -> Result<Chosen, NotChosen> {
    let candidates = wanted.map_or_else(|| Choice::candidates(plan), Choice::alone);
    first_of(plan, candidates)
}

/// The same of these.
pub fn first_of(plan: &Plan, candidates: &'static [Choice]) -> Result<Chosen, NotChosen> {
    let mut passed_over = Vec::new();
    let mut first = None;
    let mut rest = candidates;
    while let Some((choice, others)) = rest.split_first() {
        rest = others;
        match choice.load(plan) {
            Ok(backend) => {
                return Ok(Chosen {
                    choice: *choice,
                    backend,
                    passed_over,
                    rest,
                });
            }
            Err(error) if !error.leaves_others() => return Err(error),
            Err(error) => {
                passed_over.push((*choice, error.why()));
                first.get_or_insert(error);
            }
        }
    }
    Err(first.unwrap_or(NotChosen::Refused(Vec::new())))
}
