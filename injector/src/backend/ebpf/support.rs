//! What this backend carries out: one place for `admit` and for the documents' tables.

use crate::backend::{Unsupported, support};
use crate::plan::Plan;
use crate::rule::ast::Action;

/// The backend's name.
pub const NAME: &str = "ebpf";

/// Whether the whole plan can be carried out; every part that cannot.
pub fn admit(plan: &Plan) -> Result<(), Vec<Unsupported>> {
    // A tracer acts for the program.
    support::admit(plan, NAME, support::with_tracer, support::in_the_kernel)
}

/// Whether a plan's rules need calls that are overridden. What comes once a call has run does not: its thread is stopped
/// when it leaves the call. Nor does what the program itself can do before it.
pub fn overrides(plan: &Plan) -> bool {
    let steps = plan.rules.iter().flat_map(|rule| &rule.chain);
    let is_before = |action: &Action| match action {
        Action::Off | Action::Signal(_) => true,
        Action::Delay(delay) => delay.max() <= plan.spin_max,
        _ => false,
    };
    let is_after = |action: &Action| matches!(action, Action::Off | Action::After(_));
    let mut steps = steps.map(|step| &step.actions);
    // One firing is carried out on one side of its call.
    steps.any(|actions| !(actions.iter().all(is_before) || actions.iter().all(is_after)))
}
