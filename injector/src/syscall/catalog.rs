//! Looking calls up: by number, by name, all of them; their arguments and kernel entry points.

use std::{collections::HashMap, sync::LazyLock};

use super::{Abi, CallId, Roles, Sysno, roles, table_i386, table_x86_64};

/// One line of a generated table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) nr: u16,
    pub(super) name: &'static str,
    pub(super) entry: &'static str,
    pub(super) compat: &'static str,
    pub(super) args: Option<&'static [Arg]>,
}

/// An argument of a call as the kernel declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arg {
    /// The kernel's name of it, `count`.
    pub name: &'static str,
    /// Its C type, `size_t`.
    pub ctype: &'static str,
    /// Its width and sign.
    pub kind: ArgKind,
}

/// How the kernel reads the register of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgKind {
    /// A number of that many low bits (16, 32 or 64), sign-extended if `signed`.
    Number {
        /// Bits that count; those above are ignored.
        bits: u8,
        /// Whether the highest of them is a sign.
        signed: bool,
    },
    /// An address in the caller's memory, of the ABI's word.
    Pointer,
}

pub(super) const fn int(bits: u8) -> ArgKind {
    ArgKind::Number { bits, signed: true }
}

pub(super) const fn uint(bits: u8) -> ArgKind {
    ArgKind::Number {
        bits,
        signed: false,
    }
}

pub(super) const fn ptr() -> ArgKind {
    ArgKind::Pointer
}

pub(super) const fn arg(name: &'static str, ctype: &'static str, kind: ArgKind) -> Arg {
    Arg { name, ctype, kind }
}

/// What is known of one call of one ABI.
#[derive(Clone, Copy, Debug)]
pub struct Syscall {
    abi: Abi,
    row: &'static Row,
}

impl Syscall {
    /// ABI and number.
    pub fn id(&self) -> CallId {
        CallId {
            abi: self.abi,
            nr: Sysno(self.row.nr),
        }
    }

    /// The kernel's name, `pwrite64`.
    pub fn name(&self) -> &'static str {
        self.row.name
    }

    /// Arguments in order, at most six; `None` where they are not known (calls newer than the
    /// facts, calls without a tracepoint, 32-bit calls that split a 64-bit argument).
    pub fn args(&self) -> Option<&'static [Arg]> {
        self.row.args
    }

    /// What the arguments mean: descriptor, paths, length, address.
    pub fn roles(&self) -> Roles {
        roles(self.id())
    }

    /// Kernel symbols that may be this call's entry point, best first, to be looked up in
    /// kallsyms. Empty where the kernel has none (the number answers ENOSYS). Names follow
    /// `arch/x86/include/asm/syscall_wrapper.h` of the kernel.
    pub fn stubs(&self) -> Vec<String> {
        let Row { entry, compat, .. } = self.row;
        match self.abi {
            Abi::X86_64 if entry.is_empty() => Vec::new(),
            Abi::X86_64 => vec![format!("__x64_{entry}")],
            Abi::I386 => [compat, entry]
                .into_iter()
                .filter(|symbol| !symbol.is_empty())
                .map(|symbol| format!("__ia32_{symbol}"))
                // A kernel built with the compat entry never enters by the other one.
                .take(1)
                .collect(),
        }
    }
}

fn table(abi: Abi) -> &'static [Row] {
    match abi {
        Abi::X86_64 => table_x86_64::TABLE,
        Abi::I386 => table_i386::TABLE,
    }
}

/// Every call of an ABI, by number.
pub fn all(abi: Abi) -> impl Iterator<Item = Syscall> {
    table(abi).iter().map(move |row| Syscall { abi, row })
}

/// The call with this number, if the ABI has one.
pub fn by_id(id: CallId) -> Option<Syscall> {
    let rows = table(id.abi);
    let at = rows.binary_search_by_key(&id.nr.0, |row| row.nr).ok()?;
    rows.get(at).map(|row| Syscall { abi: id.abi, row })
}

/// Width in bits and sign of argument `arg` (from 1) of a call; [`None`] where the call does not have
/// it. Where a call's arguments are not known, each of six may be one, and is a word.
pub fn arg_width(id: CallId, arg: u8) -> Option<(u8, bool)> {
    let word = id.abi.word_bits();
    let index = usize::from(arg).checked_sub(1)?;
    match by_id(id).and_then(|call| call.args()) {
        None => (index < 6).then_some((word, false)),
        Some(args) => args.get(index).map(|arg| match arg.kind {
            ArgKind::Number { bits, signed } => (bits.min(word), signed),
            ArgKind::Pointer => (word, false),
        }),
    }
}

/// The calls of that name: none, or one in each ABI that has it, the native one first.
pub fn by_name(name: &str) -> Vec<Syscall> {
    static INDEX: LazyLock<HashMap<&'static str, Vec<Syscall>>> = LazyLock::new(|| {
        let mut index: HashMap<_, Vec<_>> = HashMap::new();
        for abi in Abi::ALL {
            for call in all(abi) {
                index.entry(call.name()).or_default().push(call);
            }
        }
        index
    });
    INDEX.get(name).cloned().unwrap_or_default()
}

/// Every name once, sorted.
pub fn names() -> &'static [&'static str] {
    static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
        let mut names: Vec<_> = Abi::ALL
            .into_iter()
            .flat_map(|abi| all(abi).map(|call| call.name()))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    });
    &NAMES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_by_number_and_names_are_unique() {
        for abi in Abi::ALL {
            assert!(table(abi).is_sorted_by(|a, b| a.nr < b.nr), "{abi:?}");
            let mut names: Vec<_> = table(abi).iter().map(|row| row.name).collect();
            names.sort_unstable();
            let before = names.len();
            names.dedup();
            assert_eq!(names.len(), before, "{abi:?}");
        }
    }

    #[test]
    fn no_call_has_more_than_six_arguments() {
        for call in Abi::ALL.into_iter().flat_map(all) {
            assert!(
                call.args().is_none_or(|args| args.len() <= 6),
                "{}",
                call.name()
            );
        }
    }

    #[test]
    fn native_numbers_are_those_of_libc() {
        for (name, nr) in [
            ("read", libc::SYS_read),
            ("fsync", libc::SYS_fsync),
            ("pwrite64", libc::SYS_pwrite64),
            ("newfstatat", libc::SYS_newfstatat),
            ("openat2", libc::SYS_openat2),
            ("mseal", libc::SYS_mseal),
        ] {
            let call = by_name(name)
                .into_iter()
                .find(|c| c.id().abi == Abi::X86_64)
                .unwrap();
            assert_eq!(i64::from(call.id().nr.0), nr, "{name}");
        }
    }

    #[test]
    fn stubs_are_named_as_the_kernel_names_them() {
        let stubs = |abi, name: &str| {
            by_name(name)
                .into_iter()
                .find(|c| c.id().abi == abi)
                .map(|c| c.stubs())
                .unwrap()
        };
        assert_eq!(stubs(Abi::X86_64, "fsync"), ["__x64_sys_fsync"]);
        assert_eq!(stubs(Abi::X86_64, "stat"), ["__x64_sys_newstat"]);
        assert_eq!(stubs(Abi::I386, "fsync"), ["__ia32_sys_fsync"]);
        assert_eq!(stubs(Abi::I386, "open"), ["__ia32_compat_sys_open"]);
        assert_eq!(stubs(Abi::I386, "pwrite64"), ["__ia32_sys_ia32_pwrite64"]);
        assert!(stubs(Abi::X86_64, "tuxcall").is_empty());
    }

    #[test]
    fn an_id_prints_as_a_rule_would_name_it() {
        let ids: Vec<_> = by_name("fsync")
            .iter()
            .map(|c| c.id().to_string())
            .collect();
        assert_eq!(ids, ["fsync", "fsync@32"]);
    }
}
