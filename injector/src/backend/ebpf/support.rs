//! What this backend carries out: one place for `admit` and for the documents' tables.

use crate::backend::unsupported::Why;
use crate::backend::{Unsupported, support};
use crate::plan::Plan;
use crate::rule::ast::Action;

/// The backend's name.
pub const NAME: &str = "ebpf";

/// Why an action is not carried out; [`None`] where it is.
fn action(action: &Action) -> Option<Why> {
    match action {
        // By a tracer that acts for the program.
        Action::After(_) => None,
        other => support::by_decider(other),
    }
}

/// Whether the whole plan can be carried out; every part that cannot.
pub fn admit(plan: &Plan) -> Result<(), Vec<Unsupported>> {
    let arming = plan.rules.iter().enumerate().filter(|(index, _)| {
        let arming = plan.arming_of(*index);
        arming.arms | arming.disarms != 0
    });
    let mut problems: Vec<_> = arming
        .map(|(_, rule)| Unsupported::Arming {
            rule: rule.name.to_string(),
            backend: NAME,
        })
        .collect();
    problems.extend(
        support::admit(plan, NAME, action)
            .err()
            .into_iter()
            .flatten(),
    );
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}
