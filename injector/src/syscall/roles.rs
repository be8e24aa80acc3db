//! What the arguments of a call mean: descriptors, file names, data with its length, socket
//! addresses. Kept by hand (section 2 of the manual, one page a call), and checked by a test
//! against the types that the kernel declares. Arguments are numbered from 1, as in `arg1`.

use super::{Abi, CallId, by_id};

/// The roles of a call's arguments; all empty where a rule cannot say anything about them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Descriptors of the file or socket that is acted on, the first one first (not the directory
    /// descriptors of `*at` calls, which belong to their path).
    pub fds: &'static [u8],
    /// File names.
    pub paths: &'static [PathArg],
    /// Data that is moved, with its length.
    pub data: Option<DataArg>,
    /// A socket address that the caller gives.
    pub address: Option<AddressArg>,
}

impl Roles {
    /// The argument that `fd=` means.
    pub fn fd(&self) -> Option<u8> {
        self.fds.first().copied()
    }

    /// Whether the call has two names, which `from=` and `to=` mean.
    pub fn has_two_names(&self) -> bool {
        self.paths.iter().any(|path| path.role == To)
    }

    /// Whether the call refers to files at all.
    pub fn has_files(&self) -> bool {
        !self.fds.is_empty() || !self.paths.is_empty()
    }
}

/// A file name among the arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathArg {
    /// Which name of the call it is.
    pub role: PathRole,
    /// The argument that points to it.
    pub name: u8,
    /// The argument with the directory a relative name starts from; without one, the current
    /// directory.
    pub dirfd: Option<u8>,
    /// Whether a symbolic link as its last component is followed.
    pub follow: Follow,
}

/// Which name of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathRole {
    /// The only one.
    Only,
    /// The old name of a rename or link; the target of a symbolic link, which is text and need
    /// not exist.
    From,
    /// The new name.
    To,
}

/// What happens to a symbolic link as last component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Followed.
    Always,
    /// Followed; without any name the descriptor's own file is meant.
    AlwaysOrFile,
    /// Followed, and the directory's own root, as the `struct open_how` says to which that argument points.
    How {
        /// The argument with the pointer.
        arg: u8,
    },
    /// Taken itself.
    Never,
    /// Followed unless `flag` is set in that argument.
    Unless {
        /// The argument with the flags.
        arg: u8,
        /// `AT_SYMLINK_NOFOLLOW`, `O_NOFOLLOW`.
        flag: u32,
    },
    /// Followed only if `flag` is set in that argument.
    If {
        /// The argument with the flags.
        arg: u8,
        /// `AT_SYMLINK_FOLLOW`.
        flag: u32,
    },
}

/// Data that a call moves: what `short:` cuts and `corrupt:` flips bits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataArg {
    /// Whether the call brings data in or sends it out.
    pub direction: Direction,
    /// Where it is.
    pub place: DataPlace,
}

/// Which way data moves, as the program sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Read or received.
    In,
    /// Written or sent.
    Out,
}

/// How the arguments describe the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPlace {
    /// A pointer and a length in bytes.
    Buffer {
        /// The pointer.
        at: u8,
        /// The length.
        len: u8,
    },
    /// An array of `struct iovec` and its count.
    Vector {
        /// The array.
        at: u8,
        /// How many.
        count: u8,
    },
    /// One `struct msghdr`.
    Message {
        /// The message.
        at: u8,
    },
    /// An array of `struct mmsghdr` and its count.
    Messages {
        /// The array.
        at: u8,
        /// How many.
        count: u8,
    },
}

/// A socket address that the caller gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressArg {
    /// The pointer to it; may be null for `sendto`.
    pub at: u8,
    /// Its length.
    pub len: u8,
    /// Whether it is the other side's (`peer=`) or this side's (`addr=`).
    pub peer: bool,
}

/// The roles of a call's arguments.
pub fn roles(id: CallId) -> Roles {
    // The old 32-bit mmap takes a pointer to its arguments.
    let Some(call) = by_id(id).filter(|c| !(id.abi == Abi::I386 && c.name() == "mmap")) else {
        return Roles::default();
    };
    ROLES
        .iter()
        .find(|(name, _)| *name == call.name())
        .map(|(_, roles)| *roles)
        .unwrap_or_default()
}

const NONE: Roles = Roles {
    fds: &[],
    paths: &[],
    data: None,
    address: None,
};

const fn fds(fds: &'static [u8]) -> Roles {
    Roles { fds, ..NONE }
}

const fn paths(paths: &'static [PathArg]) -> Roles {
    Roles { paths, ..NONE }
}

const fn data(direction: Direction, place: DataPlace) -> Roles {
    Roles {
        fds: &[1],
        data: Some(DataArg { direction, place }),
        ..NONE
    }
}

const fn path(role: PathRole, dirfd: Option<u8>, name: u8, follow: Follow) -> PathArg {
    PathArg {
        role,
        name,
        dirfd,
        follow,
    }
}

/// The name in that argument, from the current directory.
const fn at_cwd(name: u8, follow: Follow) -> PathArg {
    path(Only, None, name, follow)
}

/// The name in the argument after the directory's.
const fn at(dirfd: u8, follow: Follow) -> PathArg {
    path(Only, Some(dirfd), dirfd + 1, follow)
}

const fn nofollow(arg: u8) -> Follow {
    // AT_SYMLINK_NOFOLLOW
    Follow::Unless { arg, flag: 0x100 }
}

const fn follow_if(arg: u8) -> Follow {
    // AT_SYMLINK_FOLLOW
    Follow::If { arg, flag: 0x400 }
}

const fn o_nofollow(arg: u8) -> Follow {
    // O_NOFOLLOW
    Follow::Unless {
        arg,
        flag: 0o400_000,
    }
}

use DataPlace::{Buffer, Message, Messages, Vector};
use Direction::{In, Out};
use Follow::{Always, Never};
use PathRole::{From, Only, To};

#[rustfmt::skip]
const ROLES: &[(&str, Roles)] = &[
    ("_llseek", fds(&[1])),
    ("accept", fds(&[1])),
    ("accept4", fds(&[1])),
    ("access", paths(&[at_cwd(1, Always)])),
    ("acct", paths(&[at_cwd(1, Always)])),
    ("bind", Roles { fds: &[1], address: Some(AddressArg { at: 2, len: 3, peer: false }), ..NONE }),
    ("cachestat", fds(&[1])),
    ("chdir", paths(&[at_cwd(1, Always)])),
    ("chmod", paths(&[at_cwd(1, Always)])),
    ("chown", paths(&[at_cwd(1, Always)])),
    ("chown32", paths(&[at_cwd(1, Always)])),
    ("chroot", paths(&[at_cwd(1, Always)])),
    ("close", fds(&[1])),
    ("connect", Roles { fds: &[1], address: Some(AddressArg { at: 2, len: 3, peer: true }), ..NONE }),
    ("copy_file_range", fds(&[1, 3])),
    ("creat", paths(&[at_cwd(1, Always)])),
    ("dup", fds(&[1])),
    ("dup2", fds(&[1])),
    ("dup3", fds(&[1])),
    ("epoll_ctl", fds(&[1, 3])),
    ("epoll_pwait", fds(&[1])),
    ("epoll_pwait2", fds(&[1])),
    ("epoll_wait", fds(&[1])),
    ("execve", paths(&[at_cwd(1, Always)])),
    ("execveat", paths(&[at(1, nofollow(5))])),
    ("faccessat", paths(&[at(1, Always)])),
    ("faccessat2", paths(&[at(1, nofollow(4))])),
    ("fadvise64", fds(&[1])),
    ("fadvise64_64", fds(&[1])),
    ("fallocate", fds(&[1])),
    ("fchdir", fds(&[1])),
    ("fchmod", fds(&[1])),
    ("fchmodat", paths(&[at(1, Always)])),
    ("fchmodat2", paths(&[at(1, nofollow(4))])),
    ("fchown", fds(&[1])),
    ("fchown32", fds(&[1])),
    ("fchownat", paths(&[at(1, nofollow(5))])),
    ("fcntl", fds(&[1])),
    ("fcntl64", fds(&[1])),
    ("fdatasync", fds(&[1])),
    ("fgetxattr", fds(&[1])),
    ("file_getattr", paths(&[at(1, nofollow(5))])),
    ("file_setattr", paths(&[at(1, nofollow(5))])),
    ("flistxattr", fds(&[1])),
    ("flock", fds(&[1])),
    ("fremovexattr", fds(&[1])),
    ("fsetxattr", fds(&[1])),
    ("fstat", fds(&[1])),
    ("fstat64", fds(&[1])),
    ("fstatat64", paths(&[at(1, nofollow(4))])),
    ("fstatfs", fds(&[1])),
    ("fstatfs64", fds(&[1])),
    ("fsync", fds(&[1])),
    ("ftruncate", fds(&[1])),
    ("ftruncate64", fds(&[1])),
    // Without a name it is about the descriptor.
    ("futimesat", paths(&[at(1, Follow::AlwaysOrFile)])),
    ("getdents", fds(&[1])),
    ("getdents64", fds(&[1])),
    ("getpeername", fds(&[1])),
    ("getsockname", fds(&[1])),
    ("getsockopt", fds(&[1])),
    ("getxattr", paths(&[at_cwd(1, Always)])),
    ("getxattrat", paths(&[at(1, nofollow(3))])),
    ("inotify_add_watch", Roles { fds: &[1], paths: &[at_cwd(2, Always)], ..NONE }),
    ("ioctl", fds(&[1])),
    ("lchown", paths(&[at_cwd(1, Never)])),
    ("lchown32", paths(&[at_cwd(1, Never)])),
    ("lgetxattr", paths(&[at_cwd(1, Never)])),
    ("link", paths(&[path(From, None, 1, Never), path(To, None, 2, Never)])),
    ("linkat", paths(&[path(From, Some(1), 2, follow_if(5)), path(To, Some(3), 4, Never)])),
    ("listen", fds(&[1])),
    ("listxattr", paths(&[at_cwd(1, Always)])),
    ("listxattrat", paths(&[at(1, nofollow(3))])),
    ("llistxattr", paths(&[at_cwd(1, Never)])),
    ("lremovexattr", paths(&[at_cwd(1, Never)])),
    ("lseek", fds(&[1])),
    ("lsetxattr", paths(&[at_cwd(1, Never)])),
    ("lstat", paths(&[at_cwd(1, Never)])),
    ("lstat64", paths(&[at_cwd(1, Never)])),
    ("mkdir", paths(&[at_cwd(1, Never)])),
    ("mkdirat", paths(&[at(1, Never)])),
    ("mknod", paths(&[at_cwd(1, Never)])),
    ("mknodat", paths(&[at(1, Never)])),
    ("mmap", fds(&[5])),
    ("mmap2", fds(&[5])),
    ("mount", paths(&[at_cwd(2, Always)])),
    ("mount_setattr", paths(&[at(1, nofollow(3))])),
    ("name_to_handle_at", paths(&[at(1, follow_if(5))])),
    ("newfstatat", paths(&[at(1, nofollow(4))])),
    ("oldfstat", fds(&[1])),
    ("oldlstat", paths(&[at_cwd(1, Never)])),
    ("oldstat", paths(&[at_cwd(1, Always)])),
    ("open", paths(&[at_cwd(1, o_nofollow(2))])),
    ("openat", paths(&[at(1, o_nofollow(3))])),
    ("openat2", paths(&[at(1, Follow::How { arg: 3 })])),
    ("open_tree", paths(&[at(1, nofollow(3))])),
    ("pread64", data(In, Buffer { at: 2, len: 3 })),
    ("preadv", data(In, Vector { at: 2, count: 3 })),
    ("preadv2", data(In, Vector { at: 2, count: 3 })),
    ("pwrite64", data(Out, Buffer { at: 2, len: 3 })),
    ("pwritev", data(Out, Vector { at: 2, count: 3 })),
    ("pwritev2", data(Out, Vector { at: 2, count: 3 })),
    ("read", data(In, Buffer { at: 2, len: 3 })),
    ("readahead", fds(&[1])),
    ("readdir", fds(&[1])),
    ("readlink", paths(&[at_cwd(1, Never)])),
    ("readlinkat", paths(&[at(1, Never)])),
    ("readv", data(In, Vector { at: 2, count: 3 })),
    ("recvfrom", data(In, Buffer { at: 2, len: 3 })),
    ("recvmmsg", data(In, Messages { at: 2, count: 3 })),
    ("recvmmsg_time64", data(In, Messages { at: 2, count: 3 })),
    ("recvmsg", data(In, Message { at: 2 })),
    ("removexattr", paths(&[at_cwd(1, Always)])),
    ("removexattrat", paths(&[at(1, nofollow(3))])),
    ("rename", paths(&[path(From, None, 1, Never), path(To, None, 2, Never)])),
    ("renameat", paths(&[path(From, Some(1), 2, Never), path(To, Some(3), 4, Never)])),
    ("renameat2", paths(&[path(From, Some(1), 2, Never), path(To, Some(3), 4, Never)])),
    ("rmdir", paths(&[at_cwd(1, Never)])),
    ("sendfile", fds(&[1, 2])),
    ("sendfile64", fds(&[1, 2])),
    ("sendmmsg", data(Out, Messages { at: 2, count: 3 })),
    ("sendmsg", data(Out, Message { at: 2 })),
    ("sendto", Roles {
        address: Some(AddressArg { at: 5, len: 6, peer: true }),
        ..data(Out, Buffer { at: 2, len: 3 })
    }),
    ("setsockopt", fds(&[1])),
    ("setxattr", paths(&[at_cwd(1, Always)])),
    ("setxattrat", paths(&[at(1, nofollow(3))])),
    ("shutdown", fds(&[1])),
    ("splice", fds(&[1, 3])),
    ("stat", paths(&[at_cwd(1, Always)])),
    ("stat64", paths(&[at_cwd(1, Always)])),
    ("statfs", paths(&[at_cwd(1, Always)])),
    ("statfs64", paths(&[at_cwd(1, Always)])),
    ("statx", paths(&[at(1, nofollow(3))])),
    ("swapoff", paths(&[at_cwd(1, Always)])),
    ("swapon", paths(&[at_cwd(1, Always)])),
    ("symlink", paths(&[path(From, None, 1, Never), path(To, None, 2, Never)])),
    ("symlinkat", paths(&[path(From, None, 1, Never), path(To, Some(2), 3, Never)])),
    ("sync_file_range", fds(&[1])),
    ("syncfs", fds(&[1])),
    ("tee", fds(&[1, 2])),
    ("timerfd_gettime", fds(&[1])),
    ("timerfd_gettime64", fds(&[1])),
    ("timerfd_settime", fds(&[1])),
    ("timerfd_settime64", fds(&[1])),
    ("truncate", paths(&[at_cwd(1, Always)])),
    ("truncate64", paths(&[at_cwd(1, Always)])),
    ("umount", paths(&[at_cwd(1, Always)])),
    // UMOUNT_NOFOLLOW
    ("umount2", paths(&[at_cwd(1, Follow::Unless { arg: 2, flag: 8 })])),
    ("unlink", paths(&[at_cwd(1, Never)])),
    ("unlinkat", paths(&[at(1, Never)])),
    ("utime", paths(&[at_cwd(1, Always)])),
    ("utimensat", paths(&[at(1, nofollow(4))])),
    ("utimensat_time64", paths(&[at(1, nofollow(4))])),
    ("utimes", paths(&[at_cwd(1, Always)])),
    ("vmsplice", fds(&[1])),
    ("write", data(Out, Buffer { at: 2, len: 3 })),
    ("writev", data(Out, Vector { at: 2, count: 3 })),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syscall::{Arg, ArgKind, by_name};

    /// The declared arguments that a role names, with what the kernel must say of each.
    fn check(name: &str, args: &[Arg], roles: &Roles) {
        let arg = |n: u8| {
            args.get(usize::from(n) - 1)
                .unwrap_or_else(|| panic!("{name}: arg{n}"))
        };
        let number = |n: u8| {
            assert!(
                matches!(arg(n).kind, ArgKind::Number { .. }),
                "{name}: {:?}",
                arg(n)
            );
        };
        let pointer = |n: u8, to: &[&str]| {
            let ctype = arg(n).ctype.trim_start_matches("const ");
            assert!(to.contains(&ctype), "{name}: {:?}", arg(n));
        };
        for &fd in roles.fds {
            number(fd);
            let known = ["fd", "fildes", "epfd", "ufd", "sockfd", "out_fd", "in_fd"];
            let name_fits = |n: &str| known.contains(&n) || n.contains("fd");
            assert!(
                name_fits(arg(fd).name),
                "{name}: {:?} is no descriptor",
                arg(fd)
            );
        }
        for path in roles.paths {
            pointer(path.name, &["char *"]);
            if let Some(dirfd) = path.dirfd {
                number(dirfd);
                let fits = arg(dirfd).name.contains("fd");
                assert!(fits, "{name}: {:?} is no directory", arg(dirfd));
            }
            if let Follow::Unless { arg: flags, .. } | Follow::If { arg: flags, .. } = path.follow {
                number(flags);
                assert!(arg(flags).name.contains("flag"), "{name}: {:?}", arg(flags));
            }
        }
        match roles.data.map(|data| data.place) {
            Some(Buffer { at, len }) => {
                pointer(at, &["char *", "void *"]);
                assert_eq!(arg(len).ctype, "size_t", "{name}");
            }
            Some(Vector { at, count }) => {
                pointer(at, &["struct iovec *"]);
                number(count);
            }
            Some(Message { at }) => pointer(at, &["struct user_msghdr *"]),
            Some(Messages { at, count }) => {
                pointer(at, &["struct mmsghdr *"]);
                number(count);
            }
            None => {}
        }
        if let Some(address) = roles.address {
            pointer(address.at, &["struct sockaddr *"]);
            number(address.len);
        }
    }

    #[test]
    fn roles_agree_with_the_types_that_the_kernel_declares() {
        let mut checked = 0;
        for (name, roles) in ROLES {
            let calls = by_name(name);
            assert!(!calls.is_empty(), "{name} is no call");
            for call in calls {
                if let Some(args) = call.args()
                    && call.roles() == *roles
                {
                    check(name, args, roles);
                    checked += 1;
                }
            }
        }
        assert!(
            checked > 200,
            "only {checked} calls had types to check against"
        );
    }

    #[test]
    fn the_table_is_sorted_and_names_each_call_once() {
        assert!(ROLES.is_sorted_by(|a, b| a.0.trim_start_matches('_') != b.0 || a.0 < b.0));
        let mut names: Vec<_> = ROLES.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROLES.len());
    }

    #[test]
    fn every_call_with_a_descriptor_or_name_by_its_type_has_a_role() {
        // Calls that a rule by path or descriptor cannot mean: no file, or no file yet.
        let left_out = [
            "add_key",
            "request_key",
            "delete_module",
            "init_module",
            "finit_module",
            "fsconfig",
            "fsopen",
            "fsmount",
            "fspick",
            "kexec_file_load",
            "memfd_create",
            "mq_open",
            "mq_unlink",
            "pivot_root",
            "quotactl",
            "sethostname",
            "setdomainname",
            "mount",
            "move_mount",
            "fanotify_mark",
            "io_uring_enter",
            "io_uring_register",
            "inotify_rm_watch",
            "perf_event_open",
            "pidfd_getfd",
            "pidfd_send_signal",
            "process_madvise",
            "process_mrelease",
            "setns",
            "open_by_handle_at",
            "close_range",
            "signalfd",
            "signalfd4",
            "fsetxattr",
            "fgetxattr",
            "fremovexattr",
            "process_mrelease",
            "memfd_secret",
            "uselib",
            "syslog",
            "lsm_get_self_attr",
            "dup2",
            "dup3",
            "bpf",
        ];
        for name in crate::syscall::names() {
            for call in by_name(name)
                .into_iter()
                .filter(|c| c.id().abi == Abi::X86_64)
            {
                let Some(args) = call.args() else { continue };
                let named = args.iter().any(|a| {
                    a.name == "fd"
                        || a.name.ends_with("fd") && a.kind != ArgKind::Pointer
                        || a.ctype == "const char *" && a.name.contains("name")
                });
                if named && !left_out.contains(name) {
                    let roles = call.roles();
                    assert!(roles.has_files(), "{name} has no role: {args:?}");
                }
            }
        }
    }
}
