//! What this backend carries out: one place for `admit` and for the documents' tables.

use injector_common::limits::{MAX_NR, MAX_RULES, MAX_STEPS};

use crate::backend::Unsupported;
use crate::backend::unsupported::Why;
use crate::plan::Plan;
use crate::rule::ast::{Action, After, Predicate};
use crate::rule::lower::{NotLowered, lower};

const NAME: &str = "ebpf";

/// Why an action is not carried out; [`None`] where it is.
pub fn action(action: &Action) -> Option<Why> {
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
pub fn predicate<V>(predicate: &Predicate<V>) -> Option<Why> {
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
    let mut problems = Vec::new();
    if plan.rules.len() > MAX_RULES {
        problems.push(Unsupported::TooManyRules {
            number: plan.rules.len(),
            backend: NAME,
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
        for held in &rule.preds {
            if let Some(why) = predicate(held) {
                let predicate = held.to_string();
                problems.push(Unsupported::Predicate {
                    rule: name(),
                    predicate,
                    backend: NAME,
                    why,
                });
            }
        }
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
                    backend: NAME,
                    why: action(&unknown).unwrap_or(Why::NotBuilt),
                },
                NotLowered::ChainTooLong(steps) => Unsupported::ChainTooLong {
                    rule: name(),
                    steps,
                    backend: NAME,
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
