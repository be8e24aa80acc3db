//! Flags that a rule may name in `argN`, by the calls and arguments that take them. Values are
//! those of x86 in both ABIs (`asm-generic/fcntl.h`, `linux/*.h`, `asm/mman.h`).

use super::{CallId, by_id};

/// Why a name has no one value in a set of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagError {
    /// No call takes a flag of that name anywhere.
    Unknown,
    /// The argument of at least this call does not take it.
    NotThere(CallId),
    /// It has different values in different calls of the set.
    Differs,
}

/// The value that `name` has in argument `arg` (from 1) of every call of the set.
///
/// # Errors
/// Where one of the calls does not take it there.
pub fn flag_value(
    name: &str,
    arg: u8,
    calls: impl IntoIterator<Item = CallId>,
) -> Result<u64, FlagError> {
    if !GROUPS.iter().any(|group| group.value(name).is_some()) {
        return Err(FlagError::Unknown);
    }
    let mut found = None;
    for id in calls {
        let call = by_id(id).map_or("", |call| call.name());
        let value = GROUPS
            .iter()
            .filter(|group| group.places.contains(&(call, arg)))
            .find_map(|group| group.value(name))
            .ok_or(FlagError::NotThere(id))?;
        if found.is_some_and(|earlier| earlier != value) {
            return Err(FlagError::Differs);
        }
        found = Some(value);
    }
    found.ok_or(FlagError::Unknown)
}

/// Every name, for suggestions.
pub fn flag_names() -> impl Iterator<Item = &'static str> {
    GROUPS
        .iter()
        .flat_map(|group| group.flags.iter().map(|(name, _)| *name))
}

struct Group {
    places: &'static [(&'static str, u8)],
    flags: &'static [(&'static str, u64)],
}

impl Group {
    fn value(&self, name: &str) -> Option<u64> {
        self.flags
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value)
    }
}

#[rustfmt::skip]
const GROUPS: &[Group] = &[
    Group {
        places: &[("open", 2), ("openat", 3), ("open_by_handle_at", 3)],
        flags: &[
            ("O_RDONLY", 0), ("O_WRONLY", 1), ("O_RDWR", 2), ("O_ACCMODE", 3), ("O_CREAT", 0o100),
            ("O_EXCL", 0o200), ("O_NOCTTY", 0o400), ("O_TRUNC", 0o1000), ("O_APPEND", 0o2000),
            ("O_NONBLOCK", 0o4000), ("O_DSYNC", 0o10000), ("O_DIRECT", 0o40000),
            ("O_LARGEFILE", 0o100_000), ("O_DIRECTORY", 0o200_000), ("O_NOFOLLOW", 0o400_000),
            ("O_NOATIME", 0o1_000_000), ("O_CLOEXEC", 0o2_000_000), ("O_SYNC", 0o4_010_000),
            ("O_PATH", 0o10_000_000), ("O_TMPFILE", 0o20_200_000),
        ],
    },
    Group {
        places: &[("pipe2", 2), ("dup3", 3)],
        flags: &[("O_CLOEXEC", 0o2_000_000), ("O_NONBLOCK", 0o4000), ("O_DIRECT", 0o40000)],
    },
    Group {
        places: &[
            ("newfstatat", 4), ("fstatat64", 4), ("statx", 3), ("unlinkat", 3), ("linkat", 5),
            ("faccessat2", 4), ("fchownat", 5), ("fchmodat2", 4), ("utimensat", 4), ("execveat", 5),
            ("name_to_handle_at", 5),
        ],
        flags: &[
            ("AT_SYMLINK_NOFOLLOW", 0x100), ("AT_EACCESS", 0x200), ("AT_REMOVEDIR", 0x200),
            ("AT_SYMLINK_FOLLOW", 0x400), ("AT_NO_AUTOMOUNT", 0x800), ("AT_EMPTY_PATH", 0x1000),
        ],
    },
    Group {
        places: &[("renameat2", 5)],
        flags: &[("RENAME_NOREPLACE", 1), ("RENAME_EXCHANGE", 2), ("RENAME_WHITEOUT", 4)],
    },
    Group {
        places: &[("mmap", 3), ("mmap2", 3), ("mprotect", 3), ("pkey_mprotect", 3)],
        flags: &[("PROT_NONE", 0), ("PROT_READ", 1), ("PROT_WRITE", 2), ("PROT_EXEC", 4)],
    },
    Group {
        places: &[("mmap", 4), ("mmap2", 4)],
        flags: &[
            ("MAP_SHARED", 1), ("MAP_PRIVATE", 2), ("MAP_FIXED", 0x10), ("MAP_ANONYMOUS", 0x20),
            ("MAP_GROWSDOWN", 0x100), ("MAP_LOCKED", 0x2000), ("MAP_NORESERVE", 0x4000),
            ("MAP_POPULATE", 0x8000), ("MAP_STACK", 0x20000), ("MAP_HUGETLB", 0x40000),
            ("MAP_FIXED_NOREPLACE", 0x10_0000),
        ],
    },
    Group {
        places: &[("msync", 3)],
        flags: &[("MS_ASYNC", 1), ("MS_INVALIDATE", 2), ("MS_SYNC", 4)],
    },
    Group {
        places: &[("madvise", 3)],
        flags: &[
            ("MADV_NORMAL", 0), ("MADV_RANDOM", 1), ("MADV_SEQUENTIAL", 2), ("MADV_WILLNEED", 3),
            ("MADV_DONTNEED", 4), ("MADV_FREE", 8), ("MADV_REMOVE", 9), ("MADV_HUGEPAGE", 14),
        ],
    },
    Group {
        places: &[("fallocate", 2)],
        flags: &[
            ("FALLOC_FL_KEEP_SIZE", 1), ("FALLOC_FL_PUNCH_HOLE", 2), ("FALLOC_FL_COLLAPSE_RANGE", 8),
            ("FALLOC_FL_ZERO_RANGE", 0x10), ("FALLOC_FL_INSERT_RANGE", 0x20),
            ("FALLOC_FL_UNSHARE_RANGE", 0x40),
        ],
    },
    Group {
        places: &[("sync_file_range", 4)],
        flags: &[
            ("SYNC_FILE_RANGE_WAIT_BEFORE", 1), ("SYNC_FILE_RANGE_WRITE", 2),
            ("SYNC_FILE_RANGE_WAIT_AFTER", 4),
        ],
    },
    Group {
        places: &[
            ("sendto", 4), ("recvfrom", 4), ("sendmsg", 3), ("recvmsg", 3), ("sendmmsg", 4),
            ("recvmmsg", 4), ("recvmmsg_time64", 4),
        ],
        flags: &[
            ("MSG_OOB", 1), ("MSG_PEEK", 2), ("MSG_DONTROUTE", 4), ("MSG_TRUNC", 0x20),
            ("MSG_DONTWAIT", 0x40), ("MSG_EOR", 0x80), ("MSG_WAITALL", 0x100),
            ("MSG_NOSIGNAL", 0x4000), ("MSG_MORE", 0x8000), ("MSG_ZEROCOPY", 0x400_0000),
            ("MSG_FASTOPEN", 0x2000_0000),
        ],
    },
    Group {
        places: &[("socket", 1), ("socketpair", 1)],
        flags: &[
            ("AF_UNSPEC", 0), ("AF_UNIX", 1), ("AF_LOCAL", 1), ("AF_INET", 2), ("AF_INET6", 10),
            ("AF_NETLINK", 16), ("AF_PACKET", 17), ("AF_VSOCK", 40),
        ],
    },
    Group {
        places: &[("socket", 2), ("socketpair", 2), ("accept4", 4)],
        flags: &[
            ("SOCK_STREAM", 1), ("SOCK_DGRAM", 2), ("SOCK_RAW", 3), ("SOCK_SEQPACKET", 5),
            ("SOCK_NONBLOCK", 0o4000), ("SOCK_CLOEXEC", 0o2_000_000),
        ],
    },
    Group {
        places: &[("shutdown", 2)],
        flags: &[("SHUT_RD", 0), ("SHUT_WR", 1), ("SHUT_RDWR", 2)],
    },
    Group {
        places: &[("setsockopt", 2), ("getsockopt", 2)],
        flags: &[
            ("SOL_SOCKET", 1), ("IPPROTO_IP", 0), ("IPPROTO_TCP", 6), ("IPPROTO_UDP", 17),
            ("IPPROTO_IPV6", 41),
        ],
    },
    Group {
        places: &[("fcntl", 2), ("fcntl64", 2)],
        flags: &[
            ("F_DUPFD", 0), ("F_GETFD", 1), ("F_SETFD", 2), ("F_GETFL", 3), ("F_SETFL", 4),
            ("F_GETLK", 5), ("F_SETLK", 6), ("F_SETLKW", 7), ("F_OFD_GETLK", 36),
            ("F_OFD_SETLK", 37), ("F_OFD_SETLKW", 38), ("F_SETLEASE", 1024),
            ("F_DUPFD_CLOEXEC", 1030), ("F_SETPIPE_SZ", 1031), ("F_ADD_SEALS", 1033),
        ],
    },
    Group {
        places: &[("flock", 2)],
        flags: &[("LOCK_SH", 1), ("LOCK_EX", 2), ("LOCK_NB", 4), ("LOCK_UN", 8)],
    },
    Group {
        places: &[("lseek", 3)],
        flags: &[
            ("SEEK_SET", 0), ("SEEK_CUR", 1), ("SEEK_END", 2), ("SEEK_DATA", 3), ("SEEK_HOLE", 4),
        ],
    },
    Group {
        places: &[("epoll_ctl", 2)],
        flags: &[("EPOLL_CTL_ADD", 1), ("EPOLL_CTL_DEL", 2), ("EPOLL_CTL_MOD", 3)],
    },
    Group {
        places: &[("preadv2", 6), ("pwritev2", 6)],
        flags: &[
            ("RWF_HIPRI", 1), ("RWF_DSYNC", 2), ("RWF_SYNC", 4), ("RWF_NOWAIT", 8),
            ("RWF_APPEND", 0x10),
        ],
    },
    Group {
        places: &[("splice", 6), ("tee", 4), ("vmsplice", 4)],
        flags: &[
            ("SPLICE_F_MOVE", 1), ("SPLICE_F_NONBLOCK", 2), ("SPLICE_F_MORE", 4), ("SPLICE_F_GIFT", 8),
        ],
    },
    Group {
        places: &[("getrandom", 3)],
        flags: &[("GRND_NONBLOCK", 1), ("GRND_RANDOM", 2), ("GRND_INSECURE", 4)],
    },
    Group {
        places: &[("clone", 1), ("unshare", 1), ("setns", 2)],
        flags: &[
            ("CLONE_VM", 0x100), ("CLONE_FS", 0x200), ("CLONE_FILES", 0x400),
            ("CLONE_SIGHAND", 0x800), ("CLONE_VFORK", 0x4000), ("CLONE_THREAD", 0x1_0000),
            ("CLONE_NEWNS", 0x2_0000), ("CLONE_NEWCGROUP", 0x200_0000),
            ("CLONE_NEWUTS", 0x400_0000), ("CLONE_NEWIPC", 0x800_0000),
            ("CLONE_NEWUSER", 0x1000_0000), ("CLONE_NEWPID", 0x2000_0000),
            ("CLONE_NEWNET", 0x4000_0000),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syscall::{Abi, by_name};

    fn ids(name: &str) -> Vec<CallId> {
        by_name(name)
            .iter()
            .map(super::super::Syscall::id)
            .collect()
    }

    #[test]
    fn places_are_arguments_that_exist() {
        for (call, arg) in GROUPS.iter().flat_map(|group| group.places) {
            let native = by_name(call);
            assert!(!native.is_empty(), "{call}");
            for call in native.iter().filter(|c| c.id().abi == Abi::X86_64) {
                let arity = call.args().map_or(6, <[_]>::len);
                assert!(usize::from(*arg) <= arity, "{}: arg{arg}", call.name());
            }
        }
    }

    #[test]
    fn values_are_those_of_libc() {
        for (name, arg, call, value) in [
            ("O_SYNC", 2, "open", libc::O_SYNC),
            ("O_TMPFILE", 3, "openat", libc::O_TMPFILE),
            ("O_DIRECT", 3, "openat", libc::O_DIRECT),
            ("AT_REMOVEDIR", 3, "unlinkat", libc::AT_REMOVEDIR),
            ("MAP_ANONYMOUS", 4, "mmap", libc::MAP_ANONYMOUS),
            ("MSG_NOSIGNAL", 4, "sendto", libc::MSG_NOSIGNAL),
            ("SOCK_CLOEXEC", 2, "socket", libc::SOCK_CLOEXEC),
            ("F_OFD_SETLKW", 2, "fcntl", libc::F_OFD_SETLKW),
            ("CLONE_NEWNET", 1, "unshare", libc::CLONE_NEWNET),
        ] {
            let found = flag_value(name, arg, ids(call));
            assert_eq!(found, Ok(u64::try_from(value).unwrap()), "{name}");
        }
    }

    #[test]
    fn a_flag_must_mean_the_same_in_every_call() {
        let mut both = ids("openat");
        both.extend(ids("open"));
        assert!(matches!(
            flag_value("O_SYNC", 3, both),
            Err(FlagError::NotThere(_))
        ));
        assert_eq!(
            flag_value("O_SINK", 3, ids("openat")),
            Err(FlagError::Unknown)
        );
    }
}
