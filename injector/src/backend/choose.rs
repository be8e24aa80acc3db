//! Which backend carries a plan out.

use super::ebpf::Ebpf;
use super::notify::Notify;
use super::{Backend, BackendError, Unsupported, ebpf, notify};
use crate::plan::{Plan, Targets};

/// A backend, before it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Faults decided and injected inside the kernel.
    Ebpf,
    /// seccomp's user notification.
    Notify,
}

impl Choice {
    /// The backend for a plan: running processes can only be reached in the kernel, and a command
    /// that finject launches needs no privilege.
    pub fn of(plan: &Plan) -> Self {
        match plan.targets {
            Targets::Running(_) => Self::Ebpf,
            Targets::Launched(_) => Self::Notify,
        }
    }

    /// Whether it can carry out the whole plan. Nothing is touched.
    pub fn admit(self, plan: &Plan) -> Result<(), Vec<Unsupported>> {
        match self {
            Self::Ebpf => ebpf::support::admit(plan),
            Self::Notify => notify::support::admit(plan),
        }
    }

    /// Makes it. Before any thread is started.
    pub fn make(self) -> Result<Box<dyn Backend>, BackendError> {
        Ok(match self {
            Self::Ebpf => Box::new(Ebpf::new()?),
            Self::Notify => Box::new(Notify::new()?),
        })
    }
}
