//! What the backends that launch commands have in common: the command as the kernel takes it, and the
//! filter that hands over the calls that rules name.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use injector_common::WireRule;
use injector_common::args::{OP_ANY_BIT, OP_EQUAL, OP_NEGATIVE};

use super::BackendError;
use super::memory::{CallSlot, Memory};
use super::spec::{Spec, SpecRule};
use crate::plan::Plan;
use crate::rule::lower::kinds_of;
use crate::sys::launch::{Image, environment};
use crate::sys::process::is_privileged;
use crate::sys::seccomp::{Filter, Low, Must, To, Wanted, filter};
use crate::syscall::CallId;
use crate::target::launch::Launch;

/// execve and execveat, of the native ABI and of the 32-bit one.
const EXEC: [[u16; 2]; 2] = [[59, 322], [11, 358]];

/// Whether a call executes another program.
pub(super) fn is_exec(call: CallSlot) -> bool {
    EXEC[usize::from(call.compat)].contains(&call.nr)
}

/// The filter for the calls that rules name, and for exec: a command waits at its first, and after
/// one the loader's calls are told apart. A listener gets only calls whose arguments may be meant; a
/// tracer all of a number, since it has to know which calls it will be shown again.
pub(super) fn filter_of(spec: &Spec, to: To) -> Filter {
    let numbers = |compat: bool| -> Vec<Wanted> {
        let mut numbers: BTreeMap<u16, Option<Vec<Vec<Low>>>> = BTreeMap::new();
        for rule in &spec.rules {
            for call in rule.calls.iter().filter(|call| call.compat == compat) {
                let only = numbers.entry(call.nr).or_insert_with(|| Some(Vec::new()));
                let narrowed = narrowed_to(to, &rule.wire, *call);
                match (only.as_mut(), narrowed) {
                    (_, Narrowed::Never) | (None, _) => {}
                    (Some(only_some), Narrowed::To(conditions)) => only_some.push(conditions),
                    (Some(_), Narrowed::All) => *only = None,
                }
            }
        }
        for nr in EXEC[usize::from(compat)] {
            numbers.insert(nr, None);
        }
        let wanted = numbers.into_iter();
        wanted.map(|(nr, only)| Wanted { nr, only }).collect()
    };
    filter(to, &numbers(false), &numbers(true))
}

/// A rule of the plan joins those of a command that runs already, whose filter cannot be another any more.
///
/// # Errors
/// The filter does not hand over all of its calls.
pub(super) fn join(
    spec: &mut Spec,
    plan: &Plan,
    index: usize,
    to: To,
    memory: &Memory,
) -> Result<(), BackendError> {
    if index < spec.rules.len() {
        // The filter was made for it, or it has joined before.
        return spec.join(plan, index, memory);
    }
    let rule = SpecRule::of(plan, index)?;
    let is_handed_over = |call: &CallSlot| {
        is_exec(*call)
            || matches!(narrowed(&rule.wire, *call), Narrowed::Never)
            || spec.rules.iter().any(|known| {
                known.calls.contains(call)
                    && matches!(narrowed_to(to, &known.wire, *call), Narrowed::All)
            })
    };
    let mut beyond = rule.calls.iter().filter(|call| !is_handed_over(call));
    match beyond.next() {
        None => spec.join(plan, index, memory),
        Some(call) => Err(BackendError::NotHandedOver {
            call: CallId::from(*call).to_string(),
        }),
    }
}

fn narrowed_to(to: To, rule: &WireRule, call: CallSlot) -> Narrowed {
    match to {
        To::Listener => narrowed(rule, call),
        To::Tracer => Narrowed::All,
    }
}

/// Which of a call's calls a rule may be about, as far as a filter can tell.
enum Narrowed {
    /// Any.
    All,
    /// Those of which all of this holds; never empty.
    To(Vec<Low>),
    /// None: it asks for an argument that the call does not have.
    Never,
}

fn narrowed(rule: &WireRule, call: CallSlot) -> Narrowed {
    let kinds = kinds_of(call.into());
    let mut conditions = Vec::new();
    for test in rule.tests.iter().take_while(|test| test.op != 0) {
        let Some(index) = test.index(kinds) else {
            return Narrowed::Never;
        };
        // Of 16 bits a filter would have to cut the rest off: there are few such arguments.
        let is_wide = kinds.bits(index) >= 32;
        let low = test.value as u32;
        let must = match test.op & !OP_NEGATIVE {
            OP_EQUAL if is_wide => Must::Equal(low),
            OP_ANY_BIT if test.value == u64::from(low) => Must::AnyBit(low),
            _ => continue,
        };
        conditions.push(Low { index, must });
    }
    if conditions.is_empty() {
        Narrowed::All
    } else {
        Narrowed::To(conditions)
    }
}

/// A command as the kernel takes it. No argument that finject was given can hold a NUL.
pub(super) fn image(launch: &Launch) -> Image {
    let string = |bytes: &[u8]| CString::new(bytes).unwrap_or_default();
    Image {
        path: string(launch.path.as_os_str().as_bytes()),
        args: launch
            .args
            .iter()
            .map(|arg| string(arg.as_bytes()))
            .collect(),
        env: environment(),
    }
}

/// A warning where the command's file would give it more than finject has.
pub(super) fn gains_nothing(launch: &Launch) -> Option<String> {
    let mode = launch.path.metadata().ok()?.permissions().mode();
    (!is_privileged() && mode & 0o6000 != 0).then(|| {
        format!(
            "{} is setuid or setgid, and gains nothing by it here: a filter may stay on such a \
             program only where finject has CAP_SYS_ADMIN (run finject as root)",
            launch.path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::lower::lower;
    use crate::rule::{RuleText, compile};
    use crate::syscall::by_name;

    /// What of a call's calls a rule may be about.
    fn of(rule: &str, call: &str) -> Option<Vec<Low>> {
        let rule = compile(&[RuleText::new(rule)]).unwrap().rules.remove(0);
        let call = by_name(call)[0].id();
        match narrowed(&lower(&rule).unwrap().wire, call.into()) {
            Narrowed::All => Some(Vec::new()),
            Narrowed::To(conditions) => Some(conditions),
            Narrowed::Never => None,
        }
    }

    #[test]
    fn a_filter_hands_over_all_that_a_rule_may_be_about() {
        let low = |index, must| Low { index, must };
        for (rule, call, expected) in [
            ("write=EIO", "write", Some(vec![])),
            (
                "write(fd=3)=EIO",
                "write",
                Some(vec![low(0, Must::Equal(3))]),
            ),
            ("mmap(fd=3)=EIO", "mmap", Some(vec![low(4, Must::Equal(3))])),
            // Orders, and what must not be, are left to whoever decides.
            (
                "write(fd=3,arg3>9,arg2!=0)=EIO",
                "write",
                Some(vec![low(0, Must::Equal(3))]),
            ),
            ("write(fd!=3)=EIO", "write", Some(vec![])),
            // A mode has 16 bits; what is above them in the register does not matter.
            ("creat(arg2=0x1a4)=EIO", "creat", Some(vec![])),
            (
                "openat(arg1=-100,arg3&O_SYNC)=EIO",
                "openat",
                Some(vec![
                    low(0, Must::Equal(0xffff_ff9c)),
                    low(2, Must::AnyBit(0o4_010_000)),
                ]),
            ),
            // Bits beyond the half that is looked at.
            ("write(arg3&0x100000000)=EIO", "write", Some(vec![])),
            ("write,getppid(arg1=1)=EIO", "getppid", None),
        ] {
            assert_eq!(of(rule, call), expected, "{rule}");
        }
    }
}
