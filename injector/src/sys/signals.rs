//! SIGINT, SIGTERM and SIGHUP as a descriptor, so that the loop which heals is also the one that
//! hears them. The second one ends finject at once, wherever the loop is: also where it waits for a
//! reader of events that does not read, and would never have heard the first.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::{Acquire, SeqCst};

use super::SysError;
use super::helper::pipe_without_waits;

/// The first signal that came; 0 before.
static FIRST: AtomicI32 = AtomicI32::new(0);
/// In place of a first signal, once nobody listens any more.
const NOBODY_LISTENS: i32 = -1;
/// How long finject may then still be at its last words, seconds.
const LAST_WORDS_S: u32 = 1;
/// The descriptor that the handler writes to; -1 before there is one.
static BELL: AtomicI32 = AtomicI32::new(-1);

/// Ends what a thread waits for in the kernel, so that it looks around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waker {
    tgid: i32,
    tid: i32,
}

extern "C" fn woken(_: libc::c_int) {}

impl Waker {
    /// For the thread that asks.
    pub fn of_this_thread() -> Result<Self, SysError> {
        // SAFETY: a handler that does nothing, installed without SA_RESTART.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = woken as extern "C" fn(libc::c_int) as libc::sighandler_t;
            if libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) != 0 {
                return Err(SysError::last("sigaction"));
            }
            // Whoever started finject may have blocked it.
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGUSR1);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
            Ok(Self {
                tgid: libc::getpid(),
                tid: libc::gettid(),
            })
        }
    }

    /// Wakes it. A thread that is just about to wait may miss it.
    pub fn wake(self) {
        // SAFETY: no pointers.
        unsafe { libc::syscall(libc::SYS_tgkill, self.tgid, self.tid, libc::SIGUSR1) };
    }
}

/// An eventfd(2) that becomes readable when a signal comes.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

extern "C" fn heard(signal: libc::c_int) {
    if FIRST.compare_exchange(0, signal, SeqCst, SeqCst).is_err() {
        let is_first = FIRST.compare_exchange(NOBODY_LISTENS, signal, SeqCst, SeqCst);
        // SAFETY: async-signal-safe; the kernel undoes what we hold.
        unsafe {
            if is_first.is_err() {
                libc::_exit(128 + signal);
            }
            libc::alarm(LAST_WORDS_S);
        }
        return;
    }
    let one = 1_u64;
    // SAFETY: async-signal-safe, errno put back; eight bytes of ours. The descriptor is open as
    // long as there can be a first signal.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::write(
            BELL.load(Acquire),
            (&raw const one).cast(),
            size_of_val(&one),
        );
        *errno = before;
    }
}

extern "C" fn has_said_enough(_: libc::c_int) {
    // SAFETY: async-signal-safe.
    unsafe { libc::_exit(128 + FIRST.load(SeqCst)) };
}

impl Signals {
    /// Opens the descriptor and takes the signals. One such at a time.
    pub fn open() -> Result<Self, SysError> {
        // SAFETY: a descriptor of the kernel's.
        let fd = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(SysError::last("eventfd"));
            }
            OwnedFd::from_raw_fd(fd)
        };
        FIRST.store(0, SeqCst);
        BELL.store(fd.as_raw_fd(), SeqCst);
        let handler = heard as extern "C" fn(libc::c_int);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            if !is_ignored(signal) {
                // SAFETY: the handler is async-signal-safe. glibc's signal(3) restarts interrupted
                // calls.
                unsafe { libc::signal(signal, handler as libc::sighandler_t) };
            }
        }
        Ok(Self { fd })
    }

    /// The descriptor to poll.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The first signal that came, if one did. The next one ends finject at once.
    pub fn take(&self) -> Option<i32> {
        match FIRST.load(SeqCst) {
            0 => None,
            signal => Some(signal),
        }
    }
}

impl Drop for Signals {
    /// Nobody listens from here on: finject is about to end by itself, which a first signal lets it do, and ends where its
    /// last words take too long. The second one ends it at once as ever.
    fn drop(&mut self) {
        let enough = has_said_enough as extern "C" fn(libc::c_int);
        // SAFETY: the handler is async-signal-safe.
        unsafe { libc::signal(libc::SIGALRM, enough as libc::sighandler_t) };
        let _ = FIRST.compare_exchange(0, NOBODY_LISTENS, SeqCst, SeqCst);
        BELL.store(-1, SeqCst);
    }
}

/// Whether whoever started finject wants it to ignore a signal, as nohup(1) and shells do.
pub(super) fn is_ignored(signal: i32) -> bool {
    // SAFETY: zeros are a valid sigaction to be written over.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// A signal for the command that finject launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForCommand {
    /// Its number.
    pub signal: i32,
    /// The terminal has sent it, to the command too, which is of the same process group.
    pub from_terminal: bool,
}

/// The signals that are the command's.
pub(super) const FORWARDED: [i32; 5] = [
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGTSTP,
];

/// The descriptor that the handler of [`Forwarded`] writes to; -1 before there is one.
static FORWARD: AtomicI32 = AtomicI32::new(-1);

/// Signals of a finject that launched a command: they are the command's, and finject ends when the
/// command does.
#[derive(Debug)]
pub struct Forwarded {
    reader: File,
    _writer: OwnedFd,
}

extern "C" fn forward(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: async-signal-safe, errno put back; the kernel's structure, two bytes of ours.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        // SI_KERNEL of include/uapi/asm-generic/siginfo.h; what a process sent is below 1.
        let bytes = [signal as u8, u8::from((*info).si_code > 0)];
        libc::write(FORWARD.load(Acquire), bytes.as_ptr().cast(), bytes.len());
        *errno = before;
    }
}

impl Forwarded {
    /// Takes the signals. One such at a time.
    pub fn open() -> Result<Self, SysError> {
        let (reader, writer) = pipe_without_waits()?;
        FORWARD.store(writer.as_raw_fd(), SeqCst);
        for signal in FORWARDED {
            if is_ignored(signal) {
                continue;
            }
            // SAFETY: zeros are a valid sigaction, and the handler is async-signal-safe.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = forward as *const () as libc::sighandler_t;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
                if libc::sigaction(signal, &raw const action, std::ptr::null_mut()) < 0 {
                    return Err(SysError::last("sigaction"));
                }
            }
        }
        Ok(Self {
            reader: reader.into(),
            _writer: writer,
        })
    }

    /// The descriptor to poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// The next signal that came.
    pub fn take(&mut self) -> Option<ForCommand> {
        let mut bytes = [0; 2];
        self.reader.read_exact(&mut bytes).ok()?;
        Some(ForCommand {
            signal: bytes[0].into(),
            from_terminal: bytes[1] != 0,
        })
    }
}

/// Stops this process, as its terminal asked; returns once it is continued, and at once where nobody
/// could continue it: the kernel stops no process of an orphaned group for SIGTSTP (setpgid(2)).
pub fn stop_here() {
    // SAFETY: zeros are a valid sigaction, which is the default's; the handler is put back.
    unsafe {
        let (default, mut own): (libc::sigaction, libc::sigaction) = std::mem::zeroed();
        if libc::sigaction(libc::SIGTSTP, &raw const default, &raw mut own) == 0 {
            libc::raise(libc::SIGTSTP);
            libc::sigaction(libc::SIGTSTP, &raw const own, std::ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_is_kept_and_rings() {
        // Whoever runs the tests may have it ignored, as nohup(1) has.
        // SAFETY: nothing of this process's depends on it.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_DFL) };
        let signals = Signals::open().unwrap();
        assert_eq!(signals.take(), None);
        // SAFETY: a signal to this very thread, which has a handler.
        unsafe { libc::raise(libc::SIGHUP) };
        assert_eq!(signals.take(), Some(libc::SIGHUP));
        let mut count = 0_u64;
        // SAFETY: eight bytes of ours.
        let read = unsafe { libc::read(signals.fd.as_raw_fd(), (&raw mut count).cast(), 8) };
        assert_eq!((read, count), (8, 1));
    }
}
