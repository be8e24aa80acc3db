//! What this backend carries out: one place for `admit` and for the documents' tables.

use crate::backend::{Unsupported, support};
use crate::plan::Plan;

/// The backend's name.
pub const NAME: &str = "ebpf";

/// Whether the whole plan can be carried out; every part that cannot.
pub fn admit(plan: &Plan) -> Result<(), Vec<Unsupported>> {
    // A tracer acts for the program.
    support::admit(plan, NAME, support::with_tracer)
}
