//! Addresses of the functions by which system calls enter the kernel, from /proc/kallsyms.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};

/// Where the kernel lists its symbols.
pub const KALLSYMS: &str = "/proc/kallsyms";

/// Where the kernel lists the functions that may be overridden, with debugfs mounted.
const INJECTABLE: &str = "/sys/kernel/debug/error_injection/list";

/// How the names of the functions begin by which system calls enter the kernel
/// (arch/x86/include/asm/syscall_wrapper.h).
const STUBS: [&[u8]; 3] = [b"__x64_", b"__ia32_", BODY.as_bytes()];

/// How the name begins of what they call. Without arguments they are second names of it (`SYSCALL_DEFINE0`), by which
/// type information does not know it.
const BODY: &str = "__do_sys_";

/// The symbol behind the kernel's own code (arch/x86/kernel/vmlinux.lds.S). Symbols are listed by address, so that none of
/// them comes after it; the kernel's data and its modules do.
const END_OF_CODE: &[u8] = b"_etext";

/// The addresses of the functions by which system calls enter the kernel. Several names may have one
/// address; an address of 0 means that the reader may not see any (sysctl kernel.kptr_restrict).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stubs(HashMap<String, u64>);

impl Stubs {
    /// Reads them, in one pass and no further than they go: the kernel takes long to write the list.
    pub fn read() -> io::Result<Self> {
        Self::of(BufReader::new(File::open(KALLSYMS)?))
    }

    fn of(mut list: impl BufRead) -> io::Result<Self> {
        let mut stubs = HashMap::new();
        let mut line = Vec::new();
        while list.read_until(b'\n', &mut line)? > 0 {
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            if text.get(19..) == Some(END_OF_CODE) {
                break;
            }
            if let Some((name, address)) = stub_of(text) {
                stubs.insert(name.to_owned(), address);
            }
            line.clear();
        }
        Ok(Self(stubs))
    }

    /// A function's address, if the kernel has it.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// The names by which type information may have a function: its own, and its body's where they are one.
    pub fn names(&self, function: &str) -> Vec<String> {
        let call = function.split_once("_sys_").map_or("", |(_, call)| call);
        let body = format!("{BODY}{call}");
        let is_one = self.address(&body) == self.address(function);
        let names = [function.to_owned()].into_iter();
        names.chain(is_one.then_some(body)).collect()
    }

    /// The addresses of those that may be overridden; [`None`] where the list cannot be read. It has
    /// one of several names of an address.
    pub fn injectable(&self) -> Option<HashSet<u64>> {
        let list = fs::read_to_string(INJECTABLE).ok()?;
        let names = list.lines().filter_map(function_of);
        Some(names.filter_map(|name| self.address(name)).collect())
    }
}

/// A line is 16 digits, a space, a letter, a space and the name (kernel/kallsyms.c, `s_show`).
fn stub_of(line: &[u8]) -> Option<(&str, u64)> {
    let name = line.get(19..)?;
    if !STUBS.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    let address = std::str::from_utf8(&line[..16]).ok()?;
    let address = u64::from_str_radix(address, 16).ok()?;
    Some((std::str::from_utf8(name).ok()?, address))
}

/// A line is `function+0x0/0x20  ERRNO`, or without the offset (lib/error-inject.c, `ei_seq_show`).
fn function_of(line: &str) -> Option<&str> {
    line.split(['+', '\t', ' '])
        .next()
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_list_begin_with_a_function() {
        for line in [
            "__x64_sys_fsync+0x0/0x20\tERRNO",
            "__x64_sys_fsync\tERRNO",
            "__x64_sys_fsync",
        ] {
            assert_eq!(function_of(line), Some("__x64_sys_fsync"), "{line}");
        }
        assert_eq!(function_of(""), None);
    }

    #[test]
    fn aliases_share_an_address_and_modules_are_no_obstacle() {
        let list = b"ffffffff81000010 T __x64_sys_getppid\n\
                     ffffffff81000010 T __ia32_sys_getppid\n\
                     ffffffff81000010 t __do_sys_getppid\n\
                     ffffffff81000030 t __do_sys_fsync\n\
                     ffffffffc0000000 t other\t[module]\n\
                     ffffffff81000020 T __x64_sys_fsync\n\
                     ffffffff82000000 T _etext\n\
                     ffffffff82000010 T __x64_sys_none\n";
        let stubs = Stubs::of(&list[..]).unwrap();
        assert_eq!(stubs.address("__x64_sys_none"), None, "it is no code");
        assert_eq!(
            stubs.address("__x64_sys_getppid"),
            Some(0xffff_ffff_8100_0010)
        );
        assert_eq!(
            stubs.address("__ia32_sys_getppid"),
            Some(0xffff_ffff_8100_0010)
        );
        assert_eq!(
            stubs.address("__x64_sys_fsync"),
            Some(0xffff_ffff_8100_0020)
        );
        assert_eq!(
            stubs.names("__x64_sys_getppid"),
            ["__x64_sys_getppid", "__do_sys_getppid"]
        );
        assert_eq!(stubs.names("__x64_sys_fsync"), ["__x64_sys_fsync"]);
        assert_eq!(stubs.address("other"), None);
        assert_eq!(stubs.address("absent"), None);
    }
}
