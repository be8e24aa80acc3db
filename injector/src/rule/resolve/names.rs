//! From items to calls: looking names up, putting sets together, and leaving out what may not be
//! replaced.

use std::collections::BTreeSet;

use crate::{
    rule::{
        ast::{Action, After, Item, Node, Rule, Select},
        error::{CallError, RuleError},
        near::{alternatives, near},
        warning::Warning,
    },
    syscall::{Abi, CallId, Class, Replace, Syscall, all, by_id, by_name, library_name, names},
};

/// Which results a rule puts in the place of the kernel's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Results {
    before: bool,
    after: bool,
}

impl Results {
    pub(super) const NONE: Self = Self {
        before: false,
        after: false,
    };

    pub(super) fn of(rule: &Rule) -> Self {
        let any = |test: fn(&Action) -> bool| {
            rule.chain
                .iter()
                .flat_map(|step| &step.actions)
                .any(|action| test(&action.node))
        };
        Self {
            before: any(|action| matches!(action, Action::Error(_) | Action::Ret(_))),
            after: any(|action| matches!(action, Action::After(After::Error(_) | After::Ret(_)))),
        }
    }

    /// Why the call may not be given one of these, and what to write instead.
    fn refused(self, name: &str) -> Option<(&'static str, Option<&'static str>)> {
        match Replace::of(name) {
            Replace::Never { reason } if self.before || self.after => Some((reason, None)),
            Replace::NeverBefore { reason, hint } if self.before => Some((reason, Some(hint))),
            _ => None,
        }
    }
}

/// The calls of a set: the union of its items, without those of its negated items.
pub(super) fn resolve(
    items: &[Node<Item>],
    results: Results,
    errors: &mut Vec<RuleError>,
    warnings: &mut Vec<Warning>,
) -> BTreeSet<CallId> {
    let mut set = BTreeSet::new();
    let mut away = BTreeSet::new();
    let mut from_sets = Vec::new();
    if items.first().is_some_and(|item| item.node.negated) {
        let every: BTreeSet<CallId> = Abi::ALL.into_iter().flat_map(everything).collect();
        from_sets.extend(items.first().map(|item| (item, every)));
    }
    for item in items {
        let found = match look_up(item, warnings) {
            Ok(found) => found,
            Err(error) => {
                errors.push(error.into());
                continue;
            }
        };
        if item.node.negated {
            away.extend(found);
        } else if matches!(item.node.select, Select::Class(_) | Select::Regex(_)) {
            from_sets.push((item, found));
        } else {
            let refused = found.iter().find_map(|id| {
                let name = by_id(*id).map_or("", |call| call.name());
                results.refused(name).map(|why| (name, why))
            });
            if let Some((name, (reason, hint))) = refused {
                errors.push(
                    CallError::NeverReplaced(item.span, name.to_owned(), reason, hint).into(),
                );
            }
            set.extend(found);
        }
    }
    for (item, found) in from_sets {
        let mut dropped: BTreeSet<&'static str> = BTreeSet::new();
        let mut reasons: BTreeSet<&'static str> = BTreeSet::new();
        for id in found.difference(&away) {
            let name = by_id(*id).map_or("", |call| call.name());
            if let Some((reason, _)) = results.refused(name) {
                dropped.insert(name);
                reasons.insert(reason);
            } else {
                set.insert(*id);
            }
        }
        let names: Vec<_> = dropped.into_iter().collect();
        let reason = match reasons.first() {
            None => continue,
            Some(reason) if reasons.len() == 1 => *reason,
            Some(_) => "given a result, these would break the program as no real failure does",
        };
        warnings.push(Warning::Dropped(item.span, names.join(", "), reason));
    }
    set.difference(&away).copied().collect()
}

/// Every call that the kernel has a function for.
fn everything(abi: Abi) -> impl Iterator<Item = CallId> {
    all(abi)
        .filter(|call| !call.stubs().is_empty())
        .map(|call| call.id())
}

fn look_up(item: &Node<Item>, warnings: &mut Vec<Warning>) -> Result<BTreeSet<CallId>, CallError> {
    let Item {
        negated,
        select,
        abi,
    } = &item.node;
    let wanted = |id: &CallId| abi.is_none_or(|abi| abi == id.abi);
    match select {
        Select::Name(name) => {
            let found = by_name(name);
            if found.is_empty() {
                return Err(unknown(item, name));
            }
            let ids: BTreeSet<CallId> = found.iter().map(Syscall::id).filter(wanted).collect();
            if ids.is_empty() {
                return Err(not_in_abi(item, name, *abi));
            }
            if !negated {
                warn_of_name(item, name, *abi, &ids, warnings);
            }
            Ok(ids)
        }
        Select::Optional(name) => {
            let ids: BTreeSet<CallId> = by_name(name)
                .iter()
                .map(Syscall::id)
                .filter(wanted)
                .collect();
            if ids.is_empty() {
                warnings.push(Warning::Missing(item.span, name.clone()));
            }
            Ok(ids)
        }
        Select::Class(class) => {
            let ids: BTreeSet<CallId> = class.calls().into_iter().filter(wanted).collect();
            if !negated && *class == Class::Clock {
                warnings.push(Warning::Vdso(item.span, class.to_string()));
            }
            Ok(ids)
        }
        Select::Regex(regex) => {
            // The parser has compiled it once already.
            let regex = regex_lite::Regex::new(regex)
                .map_err(|error| CallError::BadRegex(item.span, error.to_string()))?;
            let ids: BTreeSet<CallId> = names()
                .iter()
                .filter(|name| regex.is_match(name))
                .flat_map(|name| by_name(name))
                .filter(|call| !call.stubs().is_empty())
                .map(|call| call.id())
                .filter(wanted)
                .collect();
            if ids.is_empty() {
                Err(CallError::RegexMatchesNothing(item.span))
            } else {
                Ok(ids)
            }
        }
        Select::Number(nr) => {
            let id = CallId {
                abi: abi.unwrap_or(Abi::NATIVE),
                nr: *nr,
            };
            if by_id(id).is_none() {
                let bits = if id.abi == Abi::I386 { "32" } else { "64" };
                return Err(CallError::UnknownNumber(item.span, nr.to_string(), bits));
            }
            Ok(BTreeSet::from([id]))
        }
    }
}

fn not_in_abi(item: &Node<Item>, name: &str, abi: Option<Abi>) -> CallError {
    let bits = abi.unwrap_or(Abi::NATIVE).to_string();
    let help = library_name(name).map(|known| format!("there, it is `{}`", known.write));
    CallError::NotInAbi(item.span, name.to_owned(), bits, help)
}

fn warn_of_name(
    item: &Node<Item>,
    name: &str,
    abi: Option<Abi>,
    ids: &BTreeSet<CallId>,
    warnings: &mut Vec<Warning>,
) {
    if abi.is_none() && ids.iter().all(|id| id.abi != Abi::NATIVE) {
        let help = library_name(name).map(|known| {
            format!(
                "64-bit programs make it as {}: write `{}`",
                known.really, known.write
            )
        });
        warnings.push(Warning::OtherAbiOnly(item.span, name.to_owned(), help));
    } else if let Some(known) = library_name(name) {
        let warning = Warning::LibraryName(item.span, name.to_owned(), known.really, known.write);
        warnings.push(warning);
    }
    if ["clock_gettime", "gettimeofday", "time", "getcpu"].contains(&name) && abi != Some(Abi::I386)
    {
        warnings.push(Warning::Vdso(item.span, format!("`{name}`")));
    }
}

fn unknown(item: &Node<Item>, name: &str) -> CallError {
    let lower = name.to_lowercase();
    if lower != name && !by_name(&lower).is_empty() {
        return CallError::WrongCase(item.span, lower);
    }
    for prefix in [
        "__x64_sys_",
        "__ia32_compat_sys_",
        "__ia32_sys_",
        "__se_sys_",
        "__do_sys_",
        "compat_sys_",
        "ksys_",
        "sys_enter_",
        "sys_exit_",
        "sys_",
        "__nr_",
        "__syscall_",
    ] {
        if let Some(bare) = lower.strip_prefix(prefix) {
            // Entry points have names of their own: sys_newfstat is fstat.
            let found = all(Abi::NATIVE).find(|call| call.stubs() == [format!("__x64_sys_{bare}")]);
            let call = found
                .map(|call| call.name())
                .or_else(|| names().iter().copied().find(|known| *known == bare));
            if let Some(call) = call {
                return CallError::Symbol(item.span, name.to_owned(), call.to_owned());
            }
        }
    }
    if let Some(known) = library_name(name) {
        return CallError::LibraryFunction(item.span, name.to_owned(), known.really, known.write);
    }
    let native = all(Abi::NATIVE)
        .filter(|call| !call.stubs().is_empty())
        .map(|call| call.name());
    let mut near: Vec<String> = near(name, native).into_iter().map(str::to_owned).collect();
    // `pwrite` is a kind of `%write`.
    let class = Class::by_name(&lower).or_else(|| {
        Class::ALL.iter().copied().find(|class| {
            let member = |name: &String| class.members().contains(&name.as_str());
            lower.contains(class.name()) && near.first().is_some_and(member)
        })
    });
    let help = match class {
        Some(class) if near.is_empty() => Some(format!("did you mean the class `{class}`?")),
        Some(class) => {
            near.truncate(1);
            alternatives(&near).map(|names| {
                format!(
                    "did you mean {names}, or `{class}` for all kinds of {}?",
                    class.name()
                )
            })
        }
        None => alternatives(&near).map(|names| format!("did you mean {names}?")),
    };
    CallError::UnknownCall(item.span, name.to_owned(), help)
}
