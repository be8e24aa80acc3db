//! What this backend carries out: one place for `admit` and for the documents' tables.

use crate::backend::unsupported::Why;
use crate::backend::{Unsupported, support};
use crate::plan::Plan;
use crate::rule::ast::{Action, After, Predicate};

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

/// Why a predicate is not looked at; [`None`] where it is.
#[expect(
    clippy::unnecessary_wraps,
    reason = "None is what a predicate that is looked at gives"
)]
fn predicate<V>(predicate: &Predicate<V>) -> Option<Why> {
    match predicate {
        Predicate::Path { .. }
        | Predicate::Fd { .. }
        | Predicate::Socket { .. }
        | Predicate::Arg { .. }
        | Predicate::Comm { .. }
        | Predicate::Exe { .. }
        | Predicate::Uid { .. } => Some(Why::NotBuilt),
    }
}

/// Whether the whole plan can be carried out; every part that cannot.
pub fn admit(plan: &Plan) -> Result<(), Vec<Unsupported>> {
    support::admit(plan, NAME, action, predicate)
}
