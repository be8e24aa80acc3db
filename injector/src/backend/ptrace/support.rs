//! What this backend carries out: one place for `admit` and for the documents' tables.

use super::NAME;
use crate::backend::{Unsupported, support};
use crate::plan::Plan;

/// Whether the whole plan can be carried out; every part that cannot.
pub fn admit(plan: &Plan) -> Result<(), Vec<Unsupported>> {
    support::admit(plan, NAME, support::with_tracer, support::from_outside)
}
