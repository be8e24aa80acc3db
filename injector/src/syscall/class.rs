//! Classes: sets of calls with a name. The first group is strace's, by the meaning its manual
//! gives each (strace(1), "Filtering"); the second is ours and names a family by what it does.
//! Memberships are by name, over all ABIs.

use std::{collections::BTreeSet, fmt};

use super::{CallId, by_name};

macro_rules! classes {
    ($($(#[$doc:meta])* $variant:ident $name:literal [$($call:literal)*])*) => {
        /// A class of calls, written `%name` in a rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Class {
            $($(#[$doc])* $variant,)*
        }

        impl Class {
            /// Every class, strace's first.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name, without the `%`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Names of its calls, sorted.
            pub fn members(self) -> &'static [&'static str] {
                match self {
                    $(Self::$variant => &[$($call,)*],)*
                }
            }
        }
    };
}

impl Class {
    /// Looks a name up, without `%`; `net` is `network`.
    pub fn by_name(name: &str) -> Option<Self> {
        let name = if name == "net" { "network" } else { name };
        Self::ALL.iter().copied().find(|class| class.name() == name)
    }

    /// Its calls in every ABI.
    pub fn calls(self) -> BTreeSet<CallId> {
        self.members()
            .iter()
            .flat_map(|name| by_name(name))
            .map(|call| call.id())
            .collect()
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.name())
    }
}

classes! {
    /// Calls that take a file name.
    File "file" [
        "access" "acct" "chdir" "chmod" "chown" "chown32" "chroot" "creat" "execve" "execveat"
        "faccessat" "faccessat2" "fanotify_mark" "fchmodat" "fchmodat2" "fchownat"
        "file_getattr" "file_setattr" "fspick" "fstatat64" "futimesat" "getcwd" "getxattr"
        "getxattrat" "inotify_add_watch" "lchown" "lchown32" "lgetxattr" "link" "linkat"
        "listxattr" "listxattrat" "llistxattr" "lremovexattr" "lsetxattr" "lstat" "lstat64"
        "mkdir" "mkdirat" "mknod" "mknodat" "mount" "mount_setattr" "move_mount"
        "name_to_handle_at" "newfstatat" "oldlstat" "oldstat" "open" "open_tree"
        "open_tree_attr" "openat" "openat2" "pivot_root" "quotactl" "readlink" "readlinkat"
        "removexattr" "removexattrat" "rename" "renameat" "renameat2" "rmdir" "setxattr"
        "setxattrat" "stat" "stat64" "statfs" "statfs64" "statx" "swapoff" "swapon" "symlink"
        "symlinkat" "truncate" "truncate64" "umount" "umount2" "unlink" "unlinkat" "uselib"
        "utime" "utimensat" "utimensat_time64" "utimes"
    ]
    /// Calls that take or give a file descriptor.
    Desc "desc" [
        "_llseek" "_newselect" "bpf" "cachestat" "close" "close_range" "copy_file_range" "creat"
        "dup" "dup2" "dup3" "epoll_create" "epoll_create1" "epoll_ctl" "epoll_ctl_old"
        "epoll_pwait" "epoll_pwait2" "epoll_wait" "epoll_wait_old" "eventfd" "eventfd2"
        "execveat" "faccessat" "faccessat2" "fadvise64" "fadvise64_64" "fallocate"
        "fanotify_init" "fanotify_mark" "fchdir" "fchmod" "fchmodat" "fchmodat2" "fchown"
        "fchown32" "fchownat" "fcntl" "fcntl64" "fdatasync" "fgetxattr" "file_getattr"
        "file_setattr" "finit_module" "flistxattr" "flock" "fremovexattr" "fsconfig"
        "fsetxattr" "fsmount" "fsopen" "fspick" "fstat" "fstat64" "fstatat64" "fstatfs"
        "fstatfs64" "fsync" "ftruncate" "ftruncate64" "futimesat" "getdents" "getdents64"
        "getxattrat" "inotify_add_watch" "inotify_init" "inotify_init1" "inotify_rm_watch"
        "io_uring_enter" "io_uring_register" "io_uring_setup" "ioctl" "kexec_file_load"
        "landlock_add_rule" "landlock_create_ruleset" "landlock_restrict_self" "linkat"
        "listxattrat" "lseek" "memfd_create" "memfd_secret" "mkdirat" "mknodat" "mmap" "mmap2"
        "mount_setattr" "move_mount" "mq_getsetattr" "mq_notify" "mq_open" "mq_timedreceive"
        "mq_timedreceive_time64" "mq_timedsend" "mq_timedsend_time64" "name_to_handle_at"
        "newfstatat" "oldfstat" "open" "open_by_handle_at" "open_tree" "open_tree_attr"
        "openat" "openat2" "perf_event_open" "pidfd_getfd" "pidfd_open" "pidfd_send_signal"
        "pipe" "pipe2" "poll" "ppoll" "ppoll_time64" "pread64" "preadv" "preadv2"
        "process_madvise" "process_mrelease" "pselect6" "pselect6_time64" "pwrite64" "pwritev"
        "pwritev2" "quotactl_fd" "read" "readahead" "readdir" "readlinkat" "readv"
        "removexattrat" "renameat" "renameat2" "select" "sendfile" "sendfile64" "setns"
        "setxattrat" "signalfd" "signalfd4" "splice" "statx" "symlinkat" "sync_file_range"
        "syncfs" "tee" "timerfd_create" "timerfd_gettime" "timerfd_gettime64"
        "timerfd_settime" "timerfd_settime64" "unlinkat" "userfaultfd" "utimensat"
        "utimensat_time64" "vmsplice" "write" "writev"
    ]
    /// Calls on memory mappings.
    Memory "memory" [
        "break" "brk" "get_mempolicy" "io_destroy" "io_setup" "madvise" "map_shadow_stack"
        "mbind" "migrate_pages" "mincore" "mlock" "mlock2" "mlockall" "mmap" "mmap2"
        "move_pages" "mprotect" "mremap" "mseal" "msync" "munlock" "munlockall" "munmap"
        "pkey_mprotect" "process_madvise" "process_mrelease" "remap_file_pages"
        "set_mempolicy" "set_mempolicy_home_node" "shmat" "shmdt"
    ]
    /// Calls of a process's life: creation, execution, end, waiting for it, signals to it.
    Process "process" [
        "clone" "clone3" "execve" "execveat" "exit" "exit_group" "fork" "kill"
        "pidfd_send_signal" "rt_sigqueueinfo" "rt_tgsigqueueinfo" "tgkill" "tkill" "vfork"
        "wait4" "waitid" "waitpid"
    ]
    /// Calls that read or change user ids, group ids or capabilities.
    Creds "creds" [
        "capget" "capset" "getegid" "getegid32" "geteuid" "geteuid32" "getgid" "getgid32"
        "getgroups" "getgroups32" "getresgid" "getresgid32" "getresuid" "getresuid32" "getuid"
        "getuid32" "prctl" "setfsgid" "setfsgid32" "setfsuid" "setfsuid32" "setgid" "setgid32"
        "setgroups" "setgroups32" "setregid" "setregid32" "setresgid" "setresgid32"
        "setresuid" "setresuid32" "setreuid" "setreuid32" "setuid" "setuid32"
    ]
    /// Calls on signals.
    Signal "signal" [
        "kill" "pause" "pidfd_send_signal" "rt_sigaction" "rt_sigpending" "rt_sigprocmask"
        "rt_sigqueueinfo" "rt_sigreturn" "rt_sigsuspend" "rt_sigtimedwait"
        "rt_sigtimedwait_time64" "rt_tgsigqueueinfo" "sgetmask" "sigaction" "sigaltstack"
        "signal" "signalfd" "signalfd4" "sigpending" "sigprocmask" "sigreturn" "sigsuspend"
        "ssetmask" "tgkill" "tkill"
    ]
    /// System V inter-process communication.
    Ipc "ipc" [
        "ipc" "msgctl" "msgget" "msgrcv" "msgsnd" "semctl" "semget" "semop" "semtimedop"
        "semtimedop_time64" "shmat" "shmctl" "shmdt" "shmget"
    ]
    /// Calls on sockets; `%net` is the same.
    Network "network" [
        "accept" "accept4" "bind" "connect" "getpeername" "getsockname" "getsockopt" "listen"
        "recvfrom" "recvmmsg" "recvmmsg_time64" "recvmsg" "sendmmsg" "sendmsg" "sendto"
        "setsockopt" "shutdown" "socket" "socketcall" "socketpair"
    ]
    /// stat by name, links followed.
    Stat "stat" ["oldstat" "stat" "stat64"]
    /// stat by name, links not followed.
    Lstat "lstat" ["lstat" "lstat64" "oldlstat"]
    /// stat by descriptor, and the calls that can do either.
    Fstat "fstat" ["fstat" "fstat64" "fstatat64" "newfstatat" "oldfstat" "statx"]
    /// State of a file system.
    Statfs "statfs" ["fstatfs" "fstatfs64" "statfs" "statfs64" "ustat"]
    /// Calls that read or set system clocks.
    Clock "clock" [
        "adjtimex" "clock_adjtime" "clock_adjtime64" "clock_getres" "clock_getres_time64"
        "clock_gettime" "clock_gettime64" "clock_settime" "clock_settime64" "gettimeofday"
        "settimeofday" "stime" "time"
    ]
    /// Calls that always succeed and take no argument.
    Pure "pure" [
        "getegid" "getegid32" "geteuid" "geteuid32" "getgid" "getgid32" "getpgrp" "getpid"
        "getppid" "gettid" "getuid" "getuid32"
    ]
    /// Reading from a descriptor.
    Read "read" ["pread64" "preadv" "preadv2" "read" "readv"]
    /// Writing to a descriptor.
    Write "write" ["pwrite64" "pwritev" "pwritev2" "write" "writev"]
    /// Making written data durable.
    Sync "sync" ["fdatasync" "fsync" "msync" "sync" "sync_file_range" "syncfs"]
    /// Opening a file.
    Open "open" ["creat" "open" "open_by_handle_at" "openat" "openat2"]
    /// Closing descriptors.
    Close "close" ["close" "close_range"]
    /// Renaming a file.
    Rename "rename" ["rename" "renameat" "renameat2"]
    /// Removing a name.
    Unlink "unlink" ["rmdir" "unlink" "unlinkat"]
    /// Sending on a socket (`write` on a socket is of `%write`).
    Send "send" ["sendmmsg" "sendmsg" "sendto"]
    /// Receiving from a socket (`read` on a socket is of `%read`).
    Recv "recv" ["recvfrom" "recvmmsg" "recvmmsg_time64" "recvmsg"]
    /// Accepting a connection.
    Accept "accept" ["accept" "accept4"]
    /// Waiting for descriptors.
    Poll "poll" [
        "_newselect" "epoll_pwait" "epoll_pwait2" "epoll_wait" "epoll_wait_old" "poll" "ppoll"
        "ppoll_time64" "pselect6" "pselect6_time64" "select"
    ]
    /// Waiting for time to pass.
    Sleep "sleep" ["clock_nanosleep" "clock_nanosleep_time64" "nanosleep"]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_known_sorted_and_named_once() {
        for class in Class::ALL {
            let members = class.members();
            assert!(members.is_sorted_by(|a, b| a < b), "{class}");
            for name in members {
                assert!(!by_name(name).is_empty(), "{class}: {name}");
            }
        }
    }

    #[test]
    fn every_class_reads_back() {
        for class in Class::ALL {
            assert_eq!(Class::by_name(class.name()), Some(*class));
        }
        assert_eq!(Class::by_name("net"), Some(Class::Network));
        assert_eq!(Class::by_name("files"), None);
    }

    #[test]
    fn pure_calls_take_no_argument() {
        for name in Class::Pure.members() {
            for call in by_name(name) {
                assert!(call.args().is_none_or(<[_]>::is_empty), "{name}");
            }
        }
    }

    #[test]
    fn calls_that_take_a_path_or_a_descriptor_are_in_their_class() {
        for name in super::super::names() {
            for call in by_name(name) {
                let roles = call.roles();
                if !roles.paths.is_empty() {
                    assert!(Class::File.members().contains(name), "%file lacks {name}");
                }
                let socket = Class::Network.members().contains(name);
                if !roles.fds.is_empty() && !socket {
                    assert!(Class::Desc.members().contains(name), "%desc lacks {name}");
                }
            }
        }
    }
}
