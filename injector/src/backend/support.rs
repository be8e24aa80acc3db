//! Whether a backend carries a whole plan out, from what it says of single actions.

use injector_common::limits::{MAX_NR, MAX_RULES, MAX_STEPS, MAX_TESTS};

use super::Unsupported;
use super::unsupported::Why;
use crate::plan::Plan;
use crate::rule::ast::Action;
use crate::rule::lower::{NotLowered, lower};

/// Why an action is not carried out by a backend that lets calls run, replaces them and sends signals, and
/// no more than that; [`None`] where it is.
pub(super) fn by_decider(action: &Action) -> Option<Why> {
    match action {
        Action::Off | Action::Error(_) | Action::Ret(_) | Action::Kill | Action::Signal(_) => None,
        Action::Delay(_)
        | Action::Hold(_)
        | Action::Stop
        | Action::Short(_)
        | Action::Corrupt(_)
        | Action::After(_) => Some(Why::NotBuilt),
    }
}

/// Whether the whole plan can be carried out by a backend; every part that cannot. `action` says
/// why the backend does not carry one out; [`None`] where it does.
pub(super) fn admit(
    plan: &Plan,
    backend: &'static str,
    action: impl Fn(&Action) -> Option<Why>,
) -> Result<(), Vec<Unsupported>> {
    let mut problems = Vec::new();
    if plan.rules.len() > MAX_RULES {
        problems.push(Unsupported::TooManyRules {
            number: plan.rules.len(),
            backend,
            limit: MAX_RULES,
        });
    }
    for rule in &plan.arming {
        problems.push(Unsupported::Arming {
            rule: rule.to_string(),
        });
    }
    for rule in &plan.rules {
        let name = || rule.name.to_string();
        for call in &rule.calls {
            if u32::from(call.nr.0) >= MAX_NR {
                problems.push(Unsupported::Number {
                    rule: name(),
                    nr: call.nr.0.into(),
                });
            }
        }
        for problem in lower(rule).err().unwrap_or_default() {
            problems.push(match problem {
                NotLowered::Action(unknown) => Unsupported::Action {
                    rule: name(),
                    action: unknown.to_string(),
                    backend,
                    why: action(&unknown).unwrap_or(Why::NotBuilt),
                },
                NotLowered::Predicate(unknown) => Unsupported::Predicate {
                    rule: name(),
                    predicate: unknown.to_string(),
                    backend,
                    why: Why::NotBuilt,
                },
                NotLowered::TooManyTests(number) => Unsupported::TooManyTests {
                    rule: name(),
                    number,
                    limit: MAX_TESTS,
                },
                NotLowered::ChainTooLong(steps) => Unsupported::ChainTooLong {
                    rule: name(),
                    steps,
                    backend,
                    limit: MAX_STEPS,
                },
                NotLowered::ChainTooWide(calls) => Unsupported::ChainTooWide {
                    rule: name(),
                    calls,
                },
            });
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}
