//! Processes: pidfds, capabilities, ids.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::SysError;

/// pidfd_open(2): a handle on a process, which stays that process's whatever happens to its id.
pub fn pidfd_open(pid: u32) -> Result<OwnedFd, SysError> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just given it to us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(SysError::last("pidfd_open")),
    }
}

/// Whether the process behind a pidfd has ended.
pub fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut poll = [PollFd::readable(pidfd)];
    matches!(poll_fds(&mut poll, 0), Ok(count) if count > 0)
}

/// Effective user id.
pub fn effective_uid() -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::geteuid() }
}

/// Real user id: under sudo, root's; `SUDO_UID` tells the rest.
pub fn real_uid() -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::getuid() }
}

/// One descriptor to poll(2).
#[repr(transparent)]
pub struct PollFd(libc::pollfd);

impl PollFd {
    /// Waits for it to be readable.
    pub fn readable(fd: BorrowedFd<'_>) -> Self {
        Self::of(fd, libc::POLLIN)
    }

    /// Waits for it to be writable.
    pub fn writable(fd: BorrowedFd<'_>) -> Self {
        Self::of(fd, libc::POLLOUT)
    }

    fn of(fd: BorrowedFd<'_>, events: libc::c_short) -> Self {
        Self(libc::pollfd {
            fd: fd.as_raw_fd(),
            events,
            revents: 0,
        })
    }

    /// Whether it is (or is in an error, which reading tells).
    pub fn is_ready(&self) -> bool {
        self.0.revents != 0
    }
}

/// poll(2): how many are ready within `timeout_ms` (-1: wait for ever). An interruption by a signal
/// counts as none.
pub fn poll_fds(fds: &mut [PollFd], timeout_ms: i32) -> Result<usize, SysError> {
    // SAFETY: `PollFd` is transparent over `pollfd`.
    let ready = unsafe {
        libc::poll(
            fds.as_mut_ptr().cast(),
            fds.len() as libc::nfds_t,
            timeout_ms,
        )
    };
    if let Ok(ready) = usize::try_from(ready) {
        return Ok(ready);
    }
    let error = SysError::last("poll");
    if error.errno() == libc::EINTR {
        Ok(0)
    } else {
        Err(error)
    }
}

/// Takes over a descriptor that the caller of finject left open for it. Standard input, output and
/// error stay the process's own.
pub fn inherited_fd(fd: i32) -> Result<OwnedFd, SysError> {
    // SAFETY: no pointers.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(SysError::last("fcntl(F_GETFD)"));
    }
    if fd > 2 {
        // SAFETY: open, as the kernel has just said, and given to finject for this alone: whoever
        // reads the other end sees its end once finject has closed it.
        return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    // SAFETY: no pointers.
    let own = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if own < 0 {
        return Err(SysError::last("fcntl(F_DUPFD_CLOEXEC)"));
    }
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(own) })
}
