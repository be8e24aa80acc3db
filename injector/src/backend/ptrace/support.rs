//! What this backend carries out: one place for `admit` and for the documents' tables.

use super::NAME;
use crate::backend::unsupported::Why;
use crate::backend::{Unsupported, support};
use crate::plan::Plan;
use crate::rule::ast::Action;

/// Why an action is not carried out; [`None`] where it is.
fn action(action: &Action) -> Option<Why> {
    match action {
        Action::After(_) => None,
        other => support::by_decider(other),
    }
}

/// Whether the whole plan can be carried out; every part that cannot.
pub fn admit(plan: &Plan) -> Result<(), Vec<Unsupported>> {
    support::admit(plan, NAME, action)
}
