//! What this backend carries out: one place for `admit` and for the documents' tables.

use crate::backend::unsupported::Why;
use crate::backend::{Unsupported, support};
use crate::plan::Plan;
use crate::rule::ast::Action;

/// The backend's name.
pub const NAME: &str = "ebpf";

/// Why an action is not carried out; [`None`] where it is. What needs more than a result or a signal
/// needs a thread that is held.
fn action(action: &Action) -> Option<Why> {
    support::by_decider(action).map(|_| Why::NeedsTracer)
}

/// Whether the whole plan can be carried out; every part that cannot.
pub fn admit(plan: &Plan) -> Result<(), Vec<Unsupported>> {
    support::admit(plan, NAME, action)
}
