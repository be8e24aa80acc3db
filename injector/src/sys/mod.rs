//! The one door to raw system calls. Unsafe code of the user side lives here and nowhere else; every
//! function takes and returns checked types, and says which call failed.

mod before_main;
pub mod bpf;
pub mod canary;
pub mod helper;
pub mod launch;
pub mod mapping;
pub mod perf;
pub mod process;
pub mod ptrace;
pub mod seccomp;
pub mod signals;
pub mod time;
mod wire;

use std::io;

pub(crate) use self::wire::{bytes_of, value_of};

/// A system call that failed.
#[derive(Debug, thiserror::Error)]
#[error("{call} failed")]
pub struct SysError {
    /// The call, with the part that tells it from others of its name.
    pub call: &'static str,
    /// What the kernel answered.
    #[source]
    pub source: io::Error,
}

impl SysError {
    /// The error of the call that just failed, from `errno`.
    pub(crate) fn last(call: &'static str) -> Self {
        Self {
            call,
            source: io::Error::last_os_error(),
        }
    }

    /// The errno, 0 where there was none.
    pub fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(0)
    }
}

/// A descriptor whose owner shows it as a number only, borrowed from that owner.
pub(crate) fn borrow_fd<T>(_owner: &T, fd: std::os::fd::RawFd) -> std::os::fd::BorrowedFd<'_> {
    // SAFETY: open as long as its owner is, which the result borrows.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }
}
