//! Names that people know from the C library and the kernel knows otherwise: functions that are
//! no system call, and calls that a present-day glibc makes under another number.

/// What a name of the C library means to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LibraryName {
    /// What the library really calls, in words that name kernel calls.
    pub really: &'static str,
    /// What to write in a rule: a class or names.
    pub write: &'static str,
}

/// What the C library does under that name, if that is something else than the kernel's call.
pub fn library_name(name: &str) -> Option<LibraryName> {
    TABLE
        .iter()
        .find(|(known, ..)| *known == name)
        .map(|&(_, really, write)| LibraryName { really, write })
}

/// (name, what glibc 2.31 and later call on `x86_64`, what to write)
#[rustfmt::skip]
const TABLE: &[(&str, &str, &str)] = &[
    // Kernel calls that glibc makes under another name.
    ("creat", "openat", "%open"),
    ("epoll_create", "epoll_create1", "epoll_create,epoll_create1"),
    ("eventfd", "eventfd2", "eventfd,eventfd2"),
    ("exit", "exit_group", "exit,exit_group"),
    ("fork", "clone", "fork,clone,clone3"),
    ("fstat", "newfstatat", "%fstat"),
    ("getdents", "getdents64", "getdents,getdents64"),
    ("getrlimit", "prlimit64", "getrlimit,prlimit64"),
    ("inotify_init", "inotify_init1", "inotify_init,inotify_init1"),
    ("lstat", "newfstatat", "%lstat,newfstatat"),
    ("nanosleep", "clock_nanosleep", "%sleep"),
    ("open", "openat", "%open"),
    ("pipe", "pipe2", "pipe,pipe2"),
    ("recv", "recvfrom", "%recv"),
    ("select", "pselect6", "%poll"),
    ("send", "sendto", "%send"),
    ("setrlimit", "prlimit64", "setrlimit,prlimit64"),
    ("signal", "rt_sigaction", "rt_sigaction"),
    ("signalfd", "signalfd4", "signalfd,signalfd4"),
    ("sigaction", "rt_sigaction", "rt_sigaction"),
    ("sigpending", "rt_sigpending", "rt_sigpending"),
    ("sigprocmask", "rt_sigprocmask", "rt_sigprocmask"),
    ("sigsuspend", "rt_sigsuspend", "rt_sigsuspend"),
    ("stat", "newfstatat", "%stat,newfstatat"),
    ("umount", "umount2", "umount2"),
    ("utime", "utimensat", "utime,utimes,utimensat"),
    ("utimes", "utimensat", "utime,utimes,utimensat"),
    ("vfork", "vfork, or clone for posix_spawn", "vfork,clone,clone3"),
    ("waitpid", "wait4", "wait4,waitid"),
    // Functions that are no call at all.
    ("aio_read", "pread64 in a thread", "%read"),
    ("aio_write", "pwrite64 in a thread", "%write"),
    ("abort", "tgkill", "tgkill"),
    ("calloc", "brk and mmap, for large blocks and new arenas only", "brk,mmap"),
    ("closedir", "close", "%close"),
    ("execl", "execve", "execve"),
    ("execvp", "execve", "execve"),
    ("execv", "execve", "execve"),
    ("fclose", "close", "%close"),
    ("fdopen", "fcntl", "fcntl"),
    ("fflush", "write", "%write"),
    ("fgets", "read", "%read"),
    ("fopen", "openat", "%open"),
    ("fprintf", "write, when the buffer is full", "%write"),
    ("fputs", "write, when the buffer is full", "%write"),
    ("fread", "read", "%read"),
    ("free", "munmap, for large blocks only", "munmap"),
    ("fseek", "lseek", "lseek"),
    ("fstatat", "newfstatat", "newfstatat"),
    ("fwrite", "write, when the buffer is full", "%write"),
    ("getaddrinfo", "sendto and recvfrom on a socket to the name server", "connect,%send,%recv"),
    ("gethostbyname", "sendto and recvfrom on a socket to the name server", "connect,%send,%recv"),
    ("llseek", "lseek", "lseek"),
    ("lseek64", "lseek", "lseek"),
    ("malloc", "brk and mmap, for large blocks and new arenas only", "brk,mmap"),
    ("mmap64", "mmap", "mmap"),
    ("open64", "openat", "%open"),
    ("opendir", "openat", "%open"),
    ("popen", "clone and execve", "clone,clone3,execve"),
    ("posix_fadvise", "fadvise64", "fadvise64"),
    ("posix_fallocate", "fallocate", "fallocate"),
    ("posix_spawn", "clone and execve", "clone,clone3,execve"),
    ("printf", "write, when the buffer is full", "%write"),
    ("pselect", "pselect6", "pselect6"),
    ("pthread_create", "clone3", "clone,clone3"),
    ("pthread_mutex_lock", "futex, only when it has to wait", "futex"),
    ("ptsname", "ioctl", "ioctl"),
    ("puts", "write, when the buffer is full", "%write"),
    ("raise", "tgkill", "tgkill"),
    ("realloc", "brk, mmap and mremap", "brk,mmap,mremap"),
    ("remove", "unlink or rmdir", "%unlink"),
    ("sbrk", "brk", "brk"),
    ("sem_wait", "futex, only when it has to wait", "futex"),
    ("sleep", "clock_nanosleep", "%sleep"),
    ("system", "clone and execve", "clone,clone3,execve"),
    ("usleep", "clock_nanosleep", "%sleep"),
    ("wait", "wait4", "wait4,waitid"),
    ("wait3", "wait4", "wait4"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syscall::{Class, by_name};

    #[test]
    fn what_is_to_be_written_exists() {
        for (name, _, write) in TABLE {
            for item in write.split(',') {
                let known = match item.strip_prefix('%') {
                    Some(class) => Class::by_name(class).is_some(),
                    None => !by_name(item).is_empty(),
                };
                assert!(known, "{name}: {item}");
            }
        }
    }
}
