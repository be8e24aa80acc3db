//! Field offsets of the running kernel's structures, read from its BTF. Rust emits no relocations
//! of the kind that BPF C programs carry, so that finject looks the offsets up itself and hands
//! them to the program as constants. Format: Documentation/bpf/btf.rst of the kernel.

use std::collections::{BTreeMap, BTreeSet};

/// Where the kernel shows its BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// BTF that finject cannot use.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file is cut short or no BTF.
    #[error("the kernel's type information ({VMLINUX}) is damaged at byte {at}")]
    Damaged {
        /// Byte offset in the file.
        at: usize,
    },
    /// A structure or a field is not there.
    #[error("this kernel's `struct {structure}` has no field `{field}`")]
    NoField {
        /// The structure.
        structure: &'static str,
        /// The field, dots between levels.
        field: &'static str,
    },
}

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_FUNCTION: u32 = 12;
/// Names for types, and `volatile`, `const`, `restrict` and tags of them: a field of one is a field of the type.
const MODIFIERS: [u32; 5] = [8, 9, 10, 11, 18];
const MAGIC: u16 = 0xeb9f;

/// The structures whose fields are looked up.
const STRUCTURES: [&str; 18] = [
    "cred",
    "task_struct",
    "signal_struct",
    "mm_struct",
    "vm_area_struct",
    "files_struct",
    "fdtable",
    "file",
    "inode",
    "socket",
    "sock",
    "unix_sock",
    "fs_struct",
    "dentry",
    "dentry_operations",
    "vfsmount",
    "mount",
    "bpf_link_info",
];

/// Parsed far enough to find fields of a few structures by name: a kernel has a hundred thousand
/// types, and this runs at every start.
#[derive(Debug)]
pub struct Btf<'a> {
    strings: &'a [u8],
    /// Byte offset of each type's record, by type id (from 1).
    types: Vec<usize>,
    data: &'a [u8],
    /// Type ids of [`STRUCTURES`].
    structures: [Option<u32>; STRUCTURES.len()],
}

fn word(data: &[u8], at: usize) -> Result<u32, BtfError> {
    let bytes = data.get(at..at + 4).ok_or(BtfError::Damaged { at })?;
    Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// Bytes that follow a type's record, by its kind and number of members.
fn tail(kind: u32, members: usize) -> Option<usize> {
    Some(match kind {
        // integer, variable, declaration tag: one word
        1 | 14 | 17 => 4,
        // pointer, forward, typedef, volatile, const, restrict, function, float, type tag
        2 | 7..=12 | 16 | 18 => 0,
        // array
        3 => 12,
        // structure, union, data section, 64-bit enumeration
        4 | 5 | 15 | 19 => 12 * members,
        // enumeration, function prototype
        6 | 13 => 8 * members,
        _ => return None,
    })
}

impl<'a> Btf<'a> {
    /// Walks the types once.
    pub fn parse(data: &'a [u8]) -> Result<Self, BtfError> {
        let magic = u16::try_from(word(data, 0)? & 0xffff).unwrap_or(0);
        if magic != MAGIC {
            return Err(BtfError::Damaged { at: 0 });
        }
        let header = word(data, 4)? as usize;
        let section = |at| -> Result<&'a [u8], BtfError> {
            let start = header + word(data, at)? as usize;
            let end = start + word(data, at + 4)? as usize;
            data.get(start..end).ok_or(BtfError::Damaged { at })
        };
        let (types_data, strings) = (section(8)?, section(16)?);
        let mut btf = Self {
            strings,
            types: vec![0],
            data: types_data,
            structures: [None; STRUCTURES.len()],
        };
        let mut at = 0;
        while at < types_data.len() {
            let info = word(types_data, at + 4)?;
            let (kind, members) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            if kind == KIND_STRUCT && members > 0 {
                let name = word(types_data, at)?;
                if let Some(known) = STRUCTURES.iter().position(|wanted| btf.is(name, wanted)) {
                    btf.structures[known].get_or_insert(btf.types.len() as u32);
                }
            }
            btf.types.push(at);
            at += 12 + tail(kind, members).ok_or(BtfError::Damaged { at })?;
        }
        Ok(btf)
    }

    /// The numbers of kernel functions, by their names; those that it does not know are left out.
    pub fn functions<'n>(
        &self,
        names: &BTreeSet<&'n str>,
    ) -> Result<BTreeMap<&'n str, u32>, BtfError> {
        let mut found = BTreeMap::new();
        for (id, &at) in self.types.iter().enumerate().skip(1) {
            if word(self.data, at + 4)? >> 24 & 0x1f != KIND_FUNCTION {
                continue;
            }
            let name = word(self.data, at)? as usize;
            let rest = self.strings.get(name..).unwrap_or_default();
            let text = rest.split(|byte| *byte == 0).next().unwrap_or_default();
            if let Some(name) = std::str::from_utf8(text).ok().and_then(|it| names.get(it)) {
                found.insert(*name, id as u32);
            }
        }
        Ok(found)
    }

    /// Whether the string at an offset is this one.
    fn is(&self, offset: u32, wanted: &str) -> bool {
        self.strings
            .get(offset as usize..)
            .and_then(|rest| rest.strip_prefix(wanted.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    /// The byte offset of a field, `a.b` for a field of a field. Descends into members without
    /// names.
    pub fn offset(&self, structure: &'static str, field: &'static str) -> Result<u32, BtfError> {
        let missing = || BtfError::NoField { structure, field };
        let known = STRUCTURES.iter().position(|known| *known == structure);
        let mut id = known
            .and_then(|known| self.structures[known])
            .ok_or_else(missing)?;
        let mut bits = 0;
        for name in field.split('.') {
            let (offset, next) = self.member(id, name)?.ok_or_else(missing)?;
            bits += offset;
            id = next;
        }
        Ok(bits / 8)
    }

    /// A member's offset in bits and its type.
    fn member(&self, mut id: u32, name: &str) -> Result<Option<(u32, u32)>, BtfError> {
        let (at, info, kind) = loop {
            let Some(&at) = self.types.get(id as usize) else {
                return Ok(None);
            };
            let info = word(self.data, at + 4)?;
            let kind = info >> 24 & 0x1f;
            if !MODIFIERS.contains(&kind) {
                break (at, info, kind);
            }
            id = word(self.data, at + 8)?;
        };
        if kind != KIND_STRUCT && kind != KIND_UNION {
            return Ok(None);
        }
        let has_bit_fields = info >> 31 == 1;
        for index in 0..(info & 0xffff) as usize {
            let member = at + 12 + 12 * index;
            let (member_name, next) = (word(self.data, member)?, word(self.data, member + 4)?);
            let offset = word(self.data, member + 8)?;
            let offset = if has_bit_fields {
                offset & 0x00ff_ffff
            } else {
                offset
            };
            if member_name == 0 {
                if let Some((inner, found)) = self.member(next, name)? {
                    return Ok(Some((offset + inner, found)));
                }
            } else if self.is(member_name, name) {
                return Ok(Some((offset, next)));
            }
        }
        Ok(None)
    }
}

/// The offsets that the kernel program takes as constants, by the constant's symbol.
pub fn offsets(btf: &Btf<'_>) -> Result<Vec<(&'static str, u32)>, BtfError> {
    const FIELDS: [Field; 27] = [
        ("OFF_STATUS", "task_struct", "thread_info.status"),
        ("OFF_TGID", "task_struct", "tgid"),
        ("OFF_LEADER", "task_struct", "group_leader"),
        ("OFF_COMM", "task_struct", "comm"),
        ("OFF_CRED", "task_struct", "cred"),
        ("OFF_EUID", "cred", "euid"),
        ("OFF_START", "task_struct", "start_boottime"),
        ("OFF_SIGNAL", "task_struct", "signal"),
        ("OFF_EXIT_CODE", "task_struct", "exit_code"),
        ("OFF_MM", "task_struct", "mm"),
        ("OFF_PTRACE", "task_struct", "ptrace"),
        ("OFF_BLOCKED", "task_struct", "blocked"),
        ("OFF_PENDING", "task_struct", "pending.signal"),
        ("OFF_AUXV", "mm_struct", "saved_auxv"),
        ("OFF_START_STACK", "mm_struct", "start_stack"),
        ("OFF_VM_FILE", "vm_area_struct", "vm_file"),
        ("OFF_FILES", "task_struct", "files"),
        ("OFF_FDT", "files_struct", "fdt"),
        ("OFF_MAX_FDS", "fdtable", "max_fds"),
        ("OFF_FD", "fdtable", "fd"),
        ("OFF_INODE", "file", "f_inode"),
        ("OFF_FILE_FLAGS", "file", "f_flags"),
        ("OFF_PRIVATE", "file", "private_data"),
        ("OFF_MODE", "inode", "i_mode"),
        ("OFF_SOCKET_TYPE", "socket", "type"),
        ("OFF_LIVE", "signal_struct", "live"),
        ("OFF_GROUP_EXIT", "signal_struct", "group_exit_code"),
    ];
    let of = |fields: &[Field]| -> Result<Vec<_>, BtfError> {
        let offset =
            |(symbol, structure, field): &Field| Ok((*symbol, btf.offset(structure, field)?));
        fields.iter().map(offset).collect()
    };
    let mut offsets = of(&FIELDS)?;
    // All of each or none: a kernel that has changed them is good for all other rules.
    offsets.extend(of(&PATH_FIELDS).unwrap_or_default());
    offsets.extend(of(&SOCKET_FIELDS).unwrap_or_default());
    Ok(offsets)
}

/// Whether the offsets are there by which paths are walked.
pub fn has_paths(offsets: &[(&'static str, u32)]) -> bool {
    has(offsets, &PATH_FIELDS)
}

/// Whether those are by which sockets' ends are found.
pub fn has_sockets(offsets: &[(&'static str, u32)]) -> bool {
    has(offsets, &SOCKET_FIELDS)
}

fn has(offsets: &[(&'static str, u32)], fields: &[Field]) -> bool {
    let is_there = |(wanted, ..): &Field| offsets.iter().any(|(symbol, _)| symbol == wanted);
    fields.iter().all(is_there)
}

/// What only rules about sockets need.
const SOCKET_FIELDS: [Field; 10] = [
    ("OFF_SOCKET_SOCK", "socket", "sk"),
    ("OFF_SOCK_FAMILY", "sock", "__sk_common.skc_family"),
    ("OFF_SOCK_PEER_PORT", "sock", "__sk_common.skc_dport"),
    ("OFF_SOCK_PORT", "sock", "__sk_common.skc_num"),
    ("OFF_SOCK_PEER", "sock", "__sk_common.skc_daddr"),
    ("OFF_SOCK_OWN", "sock", "__sk_common.skc_rcv_saddr"),
    ("OFF_SOCK_PEER6", "sock", "__sk_common.skc_v6_daddr"),
    ("OFF_SOCK_OWN6", "sock", "__sk_common.skc_v6_rcv_saddr"),
    ("OFF_UNIX_PEER", "unix_sock", "peer"),
    ("OFF_UNIX_ADDRESS", "unix_sock", "addr"),
];

/// What only rules about files need.
const PATH_FIELDS: [Field; 14] = [
    ("OFF_FILE_ENTRY", "file", "f_path.dentry"),
    ("OFF_FILE_MOUNT", "file", "f_path.mnt"),
    ("OFF_FS", "task_struct", "fs"),
    ("OFF_ROOT_ENTRY", "fs_struct", "root.dentry"),
    ("OFF_ROOT_MOUNT", "fs_struct", "root.mnt"),
    ("OFF_ENTRY_PARENT", "dentry", "d_parent"),
    ("OFF_ENTRY_NAME", "dentry", "d_name.name"),
    ("OFF_ENTRY_LENGTH", "dentry", "d_name.len"),
    ("OFF_ENTRY_OPERATIONS", "dentry", "d_op"),
    ("OFF_ENTRY_NAMES", "dentry_operations", "d_dname"),
    ("OFF_MOUNT_ROOT", "vfsmount", "mnt_root"),
    ("OFF_MOUNT", "mount", "mnt"),
    ("OFF_MOUNT_PARENT", "mount", "mnt_parent"),
    ("OFF_MOUNTPOINT", "mount", "mnt_mountpoint"),
];

/// A constant's symbol, a structure, and its field.
type Field = (&'static str, &'static str, &'static str);

/// Whether the kernel counts runs of kprobe programs that it left out: the counts and the fields
/// that show them came in the same series (Linux 6.7), and distributions carry them back together.
pub fn counts_misses(btf: &Btf<'_>) -> bool {
    btf.offset("bpf_link_info", "kprobe_multi.missed").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A type's record: name, kind with the number of members, size or type, and what follows.
    fn record(types: &mut Vec<u8>, words: &[u32]) {
        types.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }

    /// Since Linux 6.18 a file's name and path are fields that only some may write: an anonymous union of the structure and
    /// of a constant one.
    #[test]
    fn a_constant_field_of_an_anonymous_union_is_found() {
        let strings = b"\0dentry\0qstr\0len\0name\0__d_name\0d_name\0";
        let at = |text: &str| {
            let text = format!("\0{text}\0");
            let found = strings
                .windows(text.len())
                .position(|it| it == text.as_bytes());
            u32::try_from(found.unwrap() + 1).unwrap()
        };
        let kind = |kind: u32, members: u32| kind << 24 | members;
        let mut types = Vec::new();
        // 1: a word; 2: qstr; 3: const qstr; 4: the union; 5: dentry, with it at byte 32; 6: a name for it.
        record(&mut types, &[0, kind(1, 0), 4, 32]);
        record(
            &mut types,
            &[
                at("qstr"),
                kind(4, 2),
                16,
                at("len"),
                1,
                32,
                at("name"),
                1,
                64,
            ],
        );
        record(&mut types, &[0, kind(10, 0), 2]);
        record(
            &mut types,
            &[0, kind(5, 2), 16, at("__d_name"), 2, 0, at("d_name"), 3, 0],
        );
        record(&mut types, &[at("dentry"), kind(4, 1), 48, 0, 4, 256]);
        let mut data = Vec::new();
        record(
            &mut data,
            &[u32::from(MAGIC) | 1 << 16, 24, 0, types.len() as u32],
        );
        record(&mut data, &[types.len() as u32, strings.len() as u32]);
        data.extend(&types);
        data.extend(strings);
        let btf = Btf::parse(&data).unwrap();
        for (field, offset) in [
            ("d_name.len", 36),
            ("d_name.name", 40),
            ("__d_name.len", 36),
        ] {
            assert_eq!(btf.offset("dentry", field).unwrap(), offset, "{field}");
        }
        assert!(btf.offset("dentry", "d_name.hash").is_err());
        let all = PATH_FIELDS.map(|(symbol, ..)| (symbol, 1));
        assert!(has_paths(&all) && !has_paths(&all[1..]) && !has_sockets(&all));
    }
}
