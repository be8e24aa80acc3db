//! Whether a backend carries a whole plan out, from what it says of single actions.

use injector_common::limits::{
    MAX_CALLER_TESTS, MAX_NR, MAX_PATH_TESTS, MAX_RULES, MAX_SOCKET_TESTS, MAX_STEPS, MAX_TESTS,
};

use super::Unsupported;
use super::unsupported::Why;
use crate::plan::Plan;
use crate::rule::ResolvedRule;
use crate::rule::address::AddressPattern;
use crate::rule::ast::{Action, Integer, Predicate, Side};
use crate::rule::lower::{NotLowered, lower};
use crate::syscall::{CallId, roles};

/// Why an action is not carried out by a backend whose callers wait while it decides, and which lets calls run and
/// replaces them; [`None`] where it is.
pub(super) fn without_tracer(action: &Action) -> Option<Why> {
    match action {
        Action::Off
        | Action::Error(_)
        | Action::Ret(_)
        | Action::Kill
        | Action::Signal(_)
        | Action::Delay(_)
        | Action::Hold(_) => None,
        Action::Stop | Action::Short(_) | Action::Corrupt(_) | Action::After(_) => {
            Some(Why::NeedsTracer)
        }
    }
}

/// The same of a backend that has a tracer.
pub(super) fn with_tracer(_: &Action) -> Option<Why> {
    None
}

/// Why a predicate is not looked at by a backend whose callers wait while it looks; [`None`] where it is.
pub(super) fn from_outside(_: &ResolvedRule, _: &Predicate<Integer>) -> Option<Why> {
    None
}

/// The same of a backend that looks at calls within the kernel.
pub(super) fn in_the_kernel(rule: &ResolvedRule, predicate: &Predicate<Integer>) -> Option<Why> {
    let is_looked_at = match predicate {
        Predicate::Path {
            side: Side::Any,
            glob,
            ..
        } => {
            let has_one = |call: &CallId| {
                let roles = roles(*call);
                roles.paths.is_empty() && roles.fds.len() < 2
            };
            glob.begins_anywhere() && rule.calls.iter().all(has_one)
        }
        Predicate::Path { .. } | Predicate::Exe { .. } => false,
        Predicate::Socket { address, .. } => matches!(address, AddressPattern::Ip { .. }),
        _ => true,
    };
    (!is_looked_at).then_some(Why::NotBuilt)
}

/// Whether the whole plan can be carried out by a backend; every part that cannot. `action` and `predicate` say
/// why the backend does not carry one out; [`None`] where it does.
pub(super) fn admit(
    plan: &Plan,
    backend: &'static str,
    action: impl Fn(&Action) -> Option<Why>,
    predicate: impl Fn(&ResolvedRule, &Predicate<Integer>) -> Option<Why>,
) -> Result<(), Vec<Unsupported>> {
    let mut problems = Vec::new();
    if plan.rules.len() > MAX_RULES {
        problems.push(Unsupported::TooManyRules {
            number: plan.rules.len(),
            backend,
            limit: MAX_RULES,
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
        for unknown in rule.chain.iter().flat_map(|step| &step.actions) {
            if let Some(why) = action(unknown) {
                problems.push(Unsupported::Action {
                    rule: name(),
                    action: unknown.to_string(),
                    backend,
                    why,
                });
            }
        }
        for unknown in &rule.preds {
            if let Some(why) = predicate(rule, unknown) {
                problems.push(Unsupported::Predicate {
                    rule: name(),
                    predicate: unknown.to_string(),
                    backend,
                    why,
                });
            }
        }
        for problem in lower(rule).err().unwrap_or_default() {
            problems.push(match problem {
                NotLowered::TooManyBits(number) => Unsupported::TooManyBits {
                    rule: name(),
                    number,
                },
                NotLowered::TooManyTests(number) => Unsupported::TooManyTests {
                    rule: name(),
                    number,
                    limit: MAX_TESTS,
                },
                NotLowered::TooManyCallerTests(number) => Unsupported::TooManyCallerTests {
                    rule: name(),
                    number,
                    limit: MAX_CALLER_TESTS,
                },
                NotLowered::TooManySocketTests(number) => Unsupported::TooManySocketTests {
                    rule: name(),
                    number,
                    limit: MAX_SOCKET_TESTS,
                },
                NotLowered::TooManyPathTests(number) => Unsupported::TooManyPathTests {
                    rule: name(),
                    number,
                    limit: MAX_PATH_TESTS,
                },
                NotLowered::Glob(glob, too_large) => Unsupported::Glob {
                    rule: name(),
                    glob,
                    too_large,
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
