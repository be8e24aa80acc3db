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

use std::io;

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

/// A record's bytes.
pub(crate) fn bytes_of(event: &injector_common::Event) -> &[u8] {
    // SAFETY: integers only, without padding, as many bytes as the structure has.
    unsafe {
        std::slice::from_raw_parts(
            std::ptr::from_ref(event).cast(),
            size_of::<injector_common::Event>(),
        )
    }
}

/// The record in a ring buffer's item; [`None`] where the size is another.
pub(crate) fn event_of(item: &[u8]) -> Option<injector_common::Event> {
    if item.len() != size_of::<injector_common::Event>() {
        return None;
    }
    // SAFETY: integers only, as many bytes as the structure has, alignment not needed.
    Some(unsafe { std::ptr::read_unaligned(item.as_ptr().cast()) })
}

/// A mark from its bytes.
pub(crate) fn mark_of_bytes(
    bytes: &[u8; size_of::<injector_common::Mark>()],
) -> injector_common::Mark {
    // SAFETY: integers only, each of which may be anything, as many bytes as the structure has.
    unsafe {
        bytes
            .as_ptr()
            .cast::<injector_common::Mark>()
            .read_unaligned()
    }
}
