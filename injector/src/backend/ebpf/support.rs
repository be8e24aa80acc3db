//! What this backend carries out: one place for `admit` and for the documents' tables.

use crate::backend::unsupported::Why;
use crate::backend::{Unsupported, support};
use crate::plan::Plan;
use crate::rule::ast::{Action, After};

/// The backend's name.
pub const NAME: &str = "ebpf";

/// Why an action is not carried out; [`None`] where it is.
fn action(action: &Action) -> Option<Why> {
    match action {
        Action::Off | Action::Error(_) | Action::Ret(_) | Action::Kill | Action::Signal(_) => None,
        Action::Delay(_)
        | Action::Hold(_)
        | Action::Stop
        | Action::Short(_)
        | Action::Corrupt(_)
        | Action::After(
            After::Error(_)
            | After::Ret(_)
            | After::Delay(_)
            | After::Hold(_)
            | After::Kill
            | After::Signal(_),
        ) => Some(Why::NeedsTracer),
    }
}

/// Whether the whole plan can be carried out; every part that cannot.
pub fn admit(plan: &Plan) -> Result<(), Vec<Unsupported>> {
    support::admit(plan, NAME, action)
}
