//! What the parts of a rule must agree on: predicates with the calls, actions with the calls, the
//! chain with its conditions, one rule with those before it.

use std::collections::BTreeSet;

use injector_common::DataKind;

use super::{ResolvedRule, When};
use crate::{
    rule::{
        ast::{
            Action, After, ArgOp, ArgValue, Integer, Node, Phase, Predicate, Rule, Short, Side,
            Span,
        },
        error::{ActionError, PredicateError, RuleError},
        lower::kinds_of,
        near::near,
        value::Percent,
        warning::Warning,
    },
    syscall::{CallId, Class, FlagError, arg_width, by_id, flag_names, flag_value},
};

/// Resolves a predicate for the calls of its rule.
pub(super) fn predicate(
    pred: &Node<Predicate>,
    calls: &BTreeSet<CallId>,
    warnings: &mut Vec<Warning>,
) -> Result<Predicate<Integer>, RuleError> {
    let roles = || {
        calls
            .iter()
            .filter_map(|id| by_id(*id))
            .map(|call| call.roles())
    };
    let never = match &pred.node {
        Predicate::Path {
            side: Side::Any, ..
        } if !roles().any(|r| r.has_files()) => Some("no call of this rule refers to a file"),
        Predicate::Path {
            side: Side::From | Side::To,
            ..
        } if !roles().any(|r| r.has_two_names()) => Some("no call of this rule has two names"),
        Predicate::Fd { .. } if !roles().any(|r| r.fd().is_some()) => {
            Some("no call of this rule takes a descriptor")
        }
        Predicate::Socket { .. } if !roles().any(|r| r.fd().is_some() || r.address.is_some()) => {
            Some("no call of this rule takes a socket")
        }
        _ => None,
    };
    if let Some(why) = never {
        warnings.push(Warning::NeverActs(pred.span, why.to_owned()));
    }
    let mut number = Integer::from(0);
    if let Predicate::Arg { arg, value, .. } = &pred.node {
        check_arity(pred.span, arg.get(), calls)?;
        number = match value {
            ArgValue::Integer(integer) => *integer,
            ArgValue::Flag(name) => flag(name, arg.get(), pred.span, calls)?,
        };
    }
    if let Predicate::Arg {
        arg,
        op: ArgOp::Equal,
        ..
    } = &pred.node
        && let Some(why) = beyond(number, arg.get(), calls)
    {
        warnings.push(Warning::NeverActs(pred.span, why));
    }
    Ok(pred.node.with_value(|_| number))
}

/// Why the argument is the number in none of the calls: it is too narrow in each.
fn beyond(number: Integer, arg: u8, calls: &BTreeSet<CallId>) -> Option<String> {
    let widths = calls.iter().filter_map(|call| arg_width(*call, arg));
    let widest = widths.map(|(bits, _)| bits).max()?;
    (!number.fits(widest)).then(|| format!("arg{arg} has {widest} bits, and {number} needs more"))
}

/// An argument that no call has is a mistake; where arguments are not known, six are possible.
fn check_arity(span: Span, arg: u8, calls: &BTreeSet<CallId>) -> Result<(), RuleError> {
    let known = calls.iter().filter_map(|id| by_id(*id));
    let mut most = None;
    for call in known {
        let arity = call.args().map_or(6, <[_]>::len);
        if arity >= usize::from(arg) {
            return Ok(());
        }
        if most.is_none_or(|(_, so_far)| arity > so_far) {
            most = Some((call.name(), arity));
        }
    }
    let label = match most {
        Some((name, 0)) => format!("{name} takes no argument"),
        Some((name, 1)) => format!("{name} takes 1 argument"),
        Some((name, arity)) => format!("{name} takes {arity} arguments"),
        None => "no call".to_owned(),
    };
    Err(PredicateError::ArgBeyondArity(span, arg, label).into())
}

fn flag(name: &str, arg: u8, span: Span, calls: &BTreeSet<CallId>) -> Result<Integer, RuleError> {
    let found = flag_value(name, arg, calls.iter().copied());
    found.map(Integer::from).map_err(|error| {
        match error {
            FlagError::Unknown => {
                let upper = name.to_uppercase();
                let guess = near(&upper, flag_names());
                let help = guess
                    .first()
                    .map(|known| format!("did you mean `{known}`?"))
                    .or_else(|| {
                        Some(
                            "a flag without a name here is written by number: `arg3&0x1000`"
                                .to_owned(),
                        )
                    });
                PredicateError::UnknownFlag(span, name.to_owned(), help)
            }
            FlagError::Differs => PredicateError::FlagDiffers(span, name.to_owned()),
            FlagError::NotThere(id) => {
                let take: BTreeSet<String> = calls
                    .iter()
                    .filter(|id| flag_value(name, arg, [**id]).is_ok())
                    .filter_map(|id| by_id(*id).map(|call| call.name().to_owned()))
                    .collect();
                let elsewhere =
                    (1..=6).find(|n| flag_value(name, *n, calls.iter().copied()).is_ok());
                let help = match (elsewhere, take.is_empty()) {
                    (Some(n), _) => Some(format!("it is a flag of argument {n}: `arg{n}&{name}`")),
                    (None, false) => {
                        let names: Vec<_> = take.into_iter().collect();
                        Some(format!(
                            "name only calls that take it there: `{}`",
                            names.join(",")
                        ))
                    }
                    (None, true) => None,
                };
                PredicateError::FlagNotThere(span, name.to_owned(), arg, id.to_string(), help)
            }
        }
        .into()
    })
}

/// The chain with its conditions: what is never reached, what may go round for ever.
pub(super) fn chain(rule: &Rule, errors: &mut Vec<RuleError>, warnings: &mut Vec<Warning>) {
    let when = When::of(&rule.when);
    let last = rule.chain.len().saturating_sub(1);
    let mut selected = 0u64;
    let mut fired = 0u64;
    let mut acts = false;
    for (i, step) in rule.chain.iter().enumerate() {
        let Some(first) = step.actions.first() else {
            continue;
        };
        let passes = first.node == Action::Off;
        let why = match (when.count.selected(), when.max) {
            (Some(total), _) if selected >= total => {
                Some(format!("the condition selects {} only", calls(total)))
            }
            (_, Some(max)) if fired >= u64::from(max.get()) && !passes => {
                Some(format!("max:{max} is used up before"))
            }
            _ => None,
        };
        match why {
            Some(why) => {
                // A last `off` only says what would happen anyway.
                if !(passes && i == last) {
                    warnings.push(Warning::Unreachable(first.span, why));
                }
            }
            None => acts |= !passes && !cuts_nothing(step.actions.iter().map(|a| &a.node)),
        }
        let lasts = match &step.repeat {
            Some(repeat) => u64::from(repeat.node.get()),
            None if i < last => 1,
            None => u64::MAX,
        };
        selected = selected.saturating_add(lasts);
        if !passes {
            fired = fired.saturating_add(lasts);
        }
        let bounded = lasts != u64::MAX || when.count.last().is_some() || when.max.is_some();
        for action in &step.actions {
            if let Action::Signal(signal) = action.node
                && signal.can_be_caught()
                && !bounded
            {
                errors.push(ActionError::UnboundedSignal(action.span, signal.to_string()).into());
            }
        }
    }
    if !acts && let Some(first) = rule.chain.first().and_then(|step| step.actions.first()) {
        let why = if first.node == Action::Off {
            "every call passes"
        } else {
            "nothing is ever cut off"
        };
        warnings.push(Warning::NeverActs(first.span, why.to_owned()));
    }
}

fn calls(count: u64) -> String {
    if count == 1 {
        "1 call".to_owned()
    } else {
        format!("{count} calls")
    }
}

/// `short:100%` alone.
fn cuts_nothing<'a>(mut actions: impl Iterator<Item = &'a Action>) -> bool {
    actions.all(|action| match action {
        Action::Short(Short::Percent(percent)) => percent.parts() == Percent::PARTS,
        _ => false,
    })
}

/// Actions that the calls must be able to bear.
pub(super) fn actions_and_calls(
    rule: &Rule,
    calls: &BTreeSet<CallId>,
    errors: &mut Vec<RuleError>,
    warnings: &mut Vec<Warning>,
) {
    let names = |test: &dyn Fn(&str, CallId) -> bool| -> Vec<&'static str> {
        let mut names: Vec<_> = calls
            .iter()
            .filter_map(|id| by_id(*id))
            .filter(|call| test(call.name(), call.id()))
            .map(|call| call.name())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let has_data = |id| kinds_of(id).data() != DataKind::None;
    let without_data = names(&|_, id| !has_data(id));
    let with_data = names(&|_, id| has_data(id));
    let creators = names(&|name, _| creates(name));
    let mut edited = false;
    let mut leaked = false;
    for action in rule.chain.iter().flat_map(|step| &step.actions) {
        if action.node.phase() == Some(Phase::Edit) {
            let word = if matches!(action.node, Action::Short(_)) {
                "short"
            } else {
                "corrupt"
            };
            if with_data.is_empty() {
                errors.push(ActionError::NoData(action.span, word).into());
            } else if !without_data.is_empty() && !edited {
                edited = true;
                warnings.push(Warning::PartlyEdited(action.span, few(&without_data)));
            }
        }
        let replaced = matches!(action.node, Action::After(After::Error(_) | After::Ret(_)));
        if replaced && !creators.is_empty() && !leaked {
            leaked = true;
            warnings.push(Warning::Leaks(action.span, few(&creators)));
        }
    }
}

/// At most four names.
fn few(names: &[&str]) -> String {
    match names {
        [first, second, third, _, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second}, {third} and {} more", rest.len() + 1)
        }
        names => names.join(", "),
    }
}

/// Calls whose success leaves something that the program must know of to be rid of it.
fn creates(name: &str) -> bool {
    Class::Open.members().contains(&name)
        || Class::Accept.members().contains(&name)
        || [
            "clone",
            "clone3",
            "dup",
            "dup2",
            "dup3",
            "epoll_create",
            "epoll_create1",
            "eventfd",
            "eventfd2",
            "fanotify_init",
            "fork",
            "fsmount",
            "fsopen",
            "inotify_init",
            "inotify_init1",
            "io_setup",
            "io_uring_setup",
            "memfd_create",
            "memfd_secret",
            "mmap",
            "mmap2",
            "mq_open",
            "mremap",
            "msgget",
            "open_tree",
            "perf_event_open",
            "pidfd_getfd",
            "pidfd_open",
            "pipe",
            "pipe2",
            "semget",
            "shmat",
            "shmget",
            "signalfd",
            "signalfd4",
            "socket",
            "socketpair",
            "timer_create",
            "timerfd_create",
            "userfaultfd",
            "vfork",
        ]
        .contains(&name)
}

/// Whether an earlier rule decides every call that a later one could.
pub(super) fn shadows(earlier: &ResolvedRule, later: &ResolvedRule) -> bool {
    let decides = earlier.chain.first().is_some_and(|step| {
        step.repeat.is_none()
            && step
                .actions
                .iter()
                .any(|a| a.phase() == Some(Phase::Result))
    });
    // Waits, signals and edits of all rules happen; only results are lost.
    let only_results = later
        .chain
        .iter()
        .flat_map(|step| &step.actions)
        .all(|action| action.phase() == Some(Phase::Result));
    // A result after the call leaves those that fail of themselves to the later rule's.
    let before = earlier
        .chain
        .iter()
        .flat_map(|s| &s.actions)
        .any(Action::skips_call);
    decides
        && before
        && only_results
        && earlier.preds.is_empty()
        && earlier.when.is_always()
        && later.calls.is_subset(&earlier.calls)
}
