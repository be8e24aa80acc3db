//! What the backends that launch commands have in common: the command as the kernel takes it, and the
//! filter that hands over the calls that rules name.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use super::decider::Spec;
use super::memory::CallSlot;
use crate::sys::launch::{Image, environment};
use crate::sys::process::is_privileged;
use crate::sys::seccomp::{Filter, To, filter};
use crate::target::launch::Launch;

/// execve and execveat, of the native ABI and of the 32-bit one.
const EXEC: [[u16; 2]; 2] = [[59, 322], [11, 358]];

/// Whether a call executes another program.
pub(super) fn is_exec(call: CallSlot) -> bool {
    EXEC[usize::from(call.compat)].contains(&call.nr)
}

/// The filter for the calls that rules name, and for exec: a command waits at its first, and after
/// one the loader's calls are told apart.
pub(super) fn filter_of(spec: &Spec, to: To) -> Filter {
    let numbers = |compat: bool| -> Vec<u16> {
        let named = spec.rules.iter().flat_map(|(_, calls)| calls);
        let mut numbers: Vec<u16> = named
            .filter(|call| call.compat == compat)
            .map(|call| call.nr)
            .chain(EXEC[usize::from(compat)])
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    };
    filter(to, &numbers(false), &numbers(true))
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
