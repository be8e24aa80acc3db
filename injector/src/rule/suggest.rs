//! A rule to begin with, for somebody who knows the call and not yet the language.

use std::collections::BTreeSet;

use crate::syscall::{CallId, Class, Replace, by_id};

/// A rule that makes the first of these calls fail as such calls do; [`None`] for calls that have no
/// result to replace. A call that must not be skipped gets a signal.
pub fn to_begin_with(call: CallId) -> Option<String> {
    let name = by_id(call)?.name();
    let is = |class: Class| class.members().contains(&name);
    let action = match Replace::of(name) {
        Replace::Never { .. } => return None,
        Replace::NeverBefore { .. } => "signal:SIGTERM",
        Replace::Always => match name {
            "connect" => "ECONNREFUSED",
            "socket" | "pipe2" => "EMFILE",
            "clone" | "clone3" | "vfork" => "EAGAIN",
            _ if is(Class::Accept) => "EMFILE",
            _ if is(Class::Send) => "EPIPE",
            _ if is(Class::Recv) => "ECONNRESET",
            _ if is(Class::Memory) => "ENOMEM",
            _ if is(Class::Write) => "ENOSPC",
            _ if is(Class::File) => "ENOENT",
            _ => "EIO",
        },
    };
    Some(format!("{call}={action}@1"))
}

/// Calls up to which a class is a family: those of one have one purpose.
const FAMILY: usize = 10;

/// The smallest family that has all of these calls and others too: what somebody may have meant who
/// named them.
pub fn family_of(calls: &BTreeSet<CallId>) -> Option<Class> {
    let names: BTreeSet<&str> = calls
        .iter()
        .filter_map(|call| by_id(*call))
        .map(|call| call.name())
        .collect();
    let has_all = |class: &Class| {
        let members = class.members();
        (names.len() + 1..=FAMILY).contains(&members.len())
            && names.iter().all(|name| members.contains(name))
    };
    let fitting = Class::ALL.iter().copied().filter(has_all);
    let smallest = fitting.min_by_key(|class| class.members().len())?;
    (!names.is_empty()).then_some(smallest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{RuleText, compile};
    use crate::syscall::{Abi, all, by_name};

    #[test]
    fn a_call_belongs_to_the_smallest_family_that_has_others_too() {
        let calls = |names: &[&str]| -> BTreeSet<CallId> {
            let known = names.iter().flat_map(|name| by_name(name));
            known.map(|call| call.id()).collect()
        };
        for (names, family) in [
            (&["fsync"] as &[&str], Some(Class::Sync)),
            (&["write"], Some(Class::Write)),
            (&["fsync", "fdatasync"], Some(Class::Sync)),
            (&["fsync", "write"], None),
            (&["getppid"], None),
            (&[], None),
        ] {
            assert_eq!(family_of(&calls(names)), family, "{names:?}");
        }
        // Who has named all of a family has meant it.
        assert_eq!(family_of(&calls(Class::Sync.members())), None);
    }

    #[test]
    fn every_one_is_a_rule() {
        for abi in Abi::ALL {
            for call in all(abi).filter(|call| !call.stubs().is_empty()) {
                if let Some(rule) = to_begin_with(call.id()) {
                    let compiled = compile(&[RuleText::new(rule.as_str())]).unwrap();
                    assert!(compiled.rules[0].calls.contains(&call.id()), "{rule}");
                }
            }
        }
    }

    #[test]
    fn calls_fail_as_they_do() {
        for (call, rule) in [
            ("fsync", Some("fsync=EIO@1")),
            ("read", Some("read=EIO@1")),
            ("write", Some("write=ENOSPC@1")),
            ("openat", Some("openat=ENOENT@1")),
            ("connect", Some("connect=ECONNREFUSED@1")),
            ("socket", Some("socket=EMFILE@1")),
            ("accept4", Some("accept4=EMFILE@1")),
            ("sendto", Some("sendto=EPIPE@1")),
            ("recvfrom", Some("recvfrom=ECONNRESET@1")),
            ("mmap", Some("mmap=ENOMEM@1")),
            ("clone3", Some("clone3=EAGAIN@1")),
            ("close", Some("close=signal:SIGTERM@1")),
            ("exit_group", None),
        ] {
            let id = by_name(call)
                .iter()
                .map(crate::syscall::Syscall::id)
                .find(|id| id.abi == Abi::X86_64);
            assert_eq!(to_begin_with(id.unwrap()).as_deref(), rule, "{call}");
        }
    }
}
