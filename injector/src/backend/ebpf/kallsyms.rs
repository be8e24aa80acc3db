//! Addresses of kernel functions, from /proc/kallsyms.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;

/// Where the kernel lists its symbols.
pub const KALLSYMS: &str = "/proc/kallsyms";

/// Looks names up in one pass over the list. A name that is not there is not in the result; an
/// address of 0 means that the reader may not see addresses (sysctl kernel.kptr_restrict).
pub fn addresses<'n>(names: &[&'n str]) -> io::Result<HashMap<&'n str, u64>> {
    Ok(find(&fs::read(KALLSYMS)?, names))
}

/// Where the kernel lists the functions that may be overridden, with debugfs mounted.
const INJECTABLE: &str = "/sys/kernel/debug/error_injection/list";

/// The addresses of the functions that may be overridden; [`None`] where the list cannot be read.
/// Its lines are `function+0x0/0x20  ERRNO` or without the offset (lib/error-inject.c, `ei_seq_show`);
/// of several names of one address it has one.
pub fn injectable() -> Option<HashSet<u64>> {
    let list = fs::read_to_string(INJECTABLE).ok()?;
    let names: Vec<&str> = list.lines().filter_map(function_of).collect();
    Some(addresses(&names).ok()?.into_values().collect())
}

fn function_of(line: &str) -> Option<&str> {
    line.split(['+', '\t', ' '])
        .next()
        .filter(|name| !name.is_empty())
}

fn find<'n>(list: &[u8], names: &[&'n str]) -> HashMap<&'n str, u64> {
    let wanted: HashMap<&[u8], &'n str> =
        names.iter().map(|name| (name.as_bytes(), *name)).collect();
    let mut found = HashMap::new();
    for line in list.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ' || *byte == b'\t');
        let (Some(address), Some(_kind), Some(name)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if let Some(name) = wanted.get(name)
            && let Ok(address) = std::str::from_utf8(address)
            && let Ok(address) = u64::from_str_radix(address, 16)
        {
            found.entry(*name).or_insert(address);
        }
    }
    found
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
                     ffffffffc0000000 t other\t[module]\n\
                     ffffffff81000020 T __x64_sys_fsync\n";
        let found = find(
            list,
            &["__x64_sys_getppid", "__ia32_sys_getppid", "other", "absent"],
        );
        assert_eq!(found["__x64_sys_getppid"], found["__ia32_sys_getppid"]);
        assert_eq!(found["other"], 0xffff_ffff_c000_0000);
        assert!(!found.contains_key("absent"));
    }
}
