//! Processes of finject's own beside the one that the user started: forks that share chosen memory
//! and chosen descriptors with it, and nothing else.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::SysError;
use super::process::{PollFd, has_ended, pidfd_open, pidfd_signal, poll_fds};

/// What becomes of a helper when finject ends without ending it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orphaned {
    /// It is killed.
    Dies,
    /// It goes on, since others depend on it.
    GoesOn,
}

/// A helper. Dropping it ends it, unless it [goes on](Orphaned::GoesOn).
#[derive(Debug)]
pub struct Helper {
    pid: i32,
    handle: OwnedFd,
    orphaned: Orphaned,
}

impl Helper {
    /// Forks one, in a process group of its own, under the name given, with only the descriptors of `keep`
    /// open, so that no reader of finject's output waits for it. It ends when `body` returns. Other
    /// threads of finject's do not go on in it: none of them holds a lock that `body` takes, but the allocator's,
    /// which is whole (fork(2) of glibc).
    pub fn start(
        name: &'static CStr,
        keep: &[BorrowedFd<'_>],
        orphaned: Orphaned,
        body: impl FnOnce(),
    ) -> Result<Self, SysError> {
        // SAFETY: by the promise above the child is whole.
        match unsafe { libc::fork() } {
            -1 => Err(SysError::last("fork")),
            0 => {
                seclude(name, keep, orphaned);
                // Nothing of the parent's is to be unwound or run at exit here.
                let _ = catch_unwind(AssertUnwindSafe(body));
                // SAFETY: ends this process.
                unsafe { libc::_exit(0) }
            }
            pid => {
                let handle = pidfd_open(pid.unsigned_abs())?;
                Ok(Self {
                    pid,
                    handle,
                    orphaned,
                })
            }
        }
    }

    /// Its process id, in finject's own pid namespace.
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Becomes readable when it has ended.
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        has_ended(self.handle.as_fd())
    }

    /// Waits for its end, but not for longer than `time`.
    pub fn wait_for(&self, time: Duration) {
        let time = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
        let _ = poll_fds(&mut [PollFd::readable(self.handle.as_fd())], time);
    }

    /// Sends it a signal; none reaches a later process that has its number.
    pub fn signal(&self, signal: i32) {
        pidfd_signal(self.handle.as_fd(), signal);
    }

    /// Kills it, and waits for that. Idempotent.
    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
        // SAFETY: a handle of ours, and room for what is told.
        unsafe {
            let mut told: libc::siginfo_t = std::mem::zeroed();
            let handle = self.handle.as_raw_fd().unsigned_abs();
            libc::waitid(libc::P_PIDFD, handle, &raw mut told, libc::WEXITED);
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if self.orphaned == Orphaned::Dies || self.has_ended() {
            self.kill();
        }
    }
}

/// Leaves finject's process group and descriptors. Not its session: the kernel schedules each session as a group of its own
/// (sched(7), autogroup), and to go from the command's to another one and back makes a notified call dearer.
fn seclude(name: &CStr, keep: &[BorrowedFd<'_>], orphaned: Orphaned) {
    let mut keep: Vec<u32> = keep
        .iter()
        .map(|fd| fd.as_raw_fd().unsigned_abs())
        .collect();
    keep.sort_unstable();
    // SAFETY: plain system calls on a process that is ours alone.
    unsafe {
        if orphaned == Orphaned::Dies {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        }
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        libc::setpgid(0, 0);
        for signal in [libc::SIGINT, libc::SIGTERM] {
            libc::signal(signal, libc::SIG_DFL);
        }
        // When finject ends, the kernel sends it to a process that is stopped, since the group has nobody left in the session
        // who could let it go on (setpgid(2)).
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        let mut first = 0;
        for fd in keep {
            if first < fd {
                libc::syscall(libc::SYS_close_range, first, fd - 1, 0);
            }
            first = fd + 1;
        }
        libc::syscall(libc::SYS_close_range, first, u32::MAX, 0);
    }
}

/// A pipe(2), closed on exec: the end that is read, and the one that is written.
pub fn pipe() -> Result<(OwnedFd, OwnedFd), SysError> {
    pipe_with(libc::O_CLOEXEC)
}

/// The same, of which neither end ever waits.
pub fn pipe_without_waits() -> Result<(OwnedFd, OwnedFd), SysError> {
    pipe_with(libc::O_CLOEXEC | libc::O_NONBLOCK)
}

fn pipe_with(flags: i32) -> Result<(OwnedFd, OwnedFd), SysError> {
    use std::os::fd::FromRawFd;
    let mut ends = [-1; 2];
    // SAFETY: room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), flags) } < 0 {
        return Err(SysError::last("pipe2"));
    }
    // SAFETY: the kernel has just given them to us.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}
