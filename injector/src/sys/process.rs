//! Processes: pidfds, capabilities, ids.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

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

/// pidfd_send_signal(2): a signal to the process behind a pidfd; none reaches a later one that has its
/// number.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) {
    // SAFETY: a handle of ours, and no information to go with the signal.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        );
    }
}

/// memfd_create(2): a file in memory alone, closed on exec.
pub fn memory_file(name: &CStr) -> Result<File, SysError> {
    // SAFETY: a string of ours.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(SysError::last("memfd_create"));
    }
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}

/// Whether the process behind a pidfd has ended.
pub fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut poll = [PollFd::readable(pidfd)];
    matches!(poll_fds(&mut poll, 0), Ok(count) if count > 0)
}

/// Whether nobody is at a descriptor's other side any more.
pub fn has_hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut poll = [PollFd::hung_up(fd)];
    matches!(poll_fds(&mut poll, 0), Ok(count) if count > 0)
}

/// Reads another process's memory; all of `to`.
pub fn read_memory(pid: u32, address: u64, to: &mut [u8]) -> Result<(), SysError> {
    let local = libc::iovec {
        iov_base: to.as_mut_ptr().cast(),
        iov_len: to.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: to.len(),
    };
    // SAFETY: `to` is ours; the kernel checks the other's address.
    let read =
        unsafe { libc::process_vm_readv(pid as i32, &raw const local, 1, &raw const remote, 1, 0) };
    if usize::try_from(read) == Ok(to.len()) {
        Ok(())
    } else {
        Err(SysError::last("process_vm_readv"))
    }
}

/// Writes into another process's memory; all of `from`.
pub fn write_memory(pid: u32, address: u64, from: &[u8]) -> Result<(), SysError> {
    let local = libc::iovec {
        iov_base: from.as_ptr().cast_mut().cast(),
        iov_len: from.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: from.len(),
    };
    // SAFETY: `from` is only read; the kernel checks the other's address.
    let written = unsafe {
        libc::process_vm_writev(pid as i32, &raw const local, 1, &raw const remote, 1, 0)
    };
    if usize::try_from(written) == Ok(from.len()) {
        Ok(())
    } else {
        Err(SysError::last("process_vm_writev"))
    }
}

/// Processors on which a thread may run (cpuset(3)).
#[derive(Clone)]
pub struct Processors(libc::cpu_set_t);

impl PartialEq for Processors {
    fn eq(&self, other: &Self) -> bool {
        // SAFETY: sets of ours.
        unsafe { libc::CPU_EQUAL(&self.0, &other.0) }
    }
}

impl Eq for Processors {}

impl std::fmt::Debug for Processors {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = (0..Self::MOST).filter(|processor| self.contains(*processor));
        formatter.debug_set().entries(all).finish()
    }
}

impl Processors {
    const MOST: usize = 8 * size_of::<libc::cpu_set_t>();

    fn none() -> libc::cpu_set_t {
        // SAFETY: words of bits.
        unsafe { std::mem::zeroed() }
    }

    /// The calling thread's.
    pub fn allowed() -> Option<Self> {
        let mut set = Self::none();
        // SAFETY: a set of ours, and its size.
        let got = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
        (got == 0).then_some(Self(set))
    }

    /// That one; none where the number is beyond all sets.
    pub fn only(processor: usize) -> Self {
        let mut set = Self::none();
        if processor < Self::MOST {
            // SAFETY: a set of ours, and a number within it.
            unsafe { libc::CPU_SET(processor, &mut set) };
        }
        Self(set)
    }

    /// Whether that one is among them.
    pub fn contains(&self, processor: usize) -> bool {
        // SAFETY: a set of ours, and a number within it.
        processor < Self::MOST && unsafe { libc::CPU_ISSET(processor, &self.0) }
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        // SAFETY: a set of ours.
        usize::try_from(unsafe { libc::CPU_COUNT(&self.0) }).unwrap_or(0)
    }

    /// Has the calling thread run on these from now on; whether the kernel lets it.
    pub fn take(&self) -> bool {
        // SAFETY: a set of ours, and its size.
        unsafe { libc::sched_setaffinity(0, size_of_val(&self.0), &raw const self.0) == 0 }
    }
}

/// Runs on one processor, and then again on those that were allowed before; [`None`] where that one is
/// not.
pub fn on_processor<T>(processor: usize, run: impl FnOnce() -> T) -> Option<T> {
    let before = Processors::allowed()?;
    if !Processors::only(processor).take() {
        return None;
    }
    let result = run();
    before.take();
    Some(result)
}

/// Which of a socket's timeouts (socket(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutOf {
    /// `SO_RCVTIMEO`.
    Receiving,
    /// `SO_SNDTIMEO`.
    Sending,
}

/// A descriptor of another process's, for this one.
fn duplicate(pid: u32, fd: i32) -> Result<OwnedFd, SysError> {
    let process = pidfd_open(pid)?;
    // SAFETY: no pointers.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) };
    let number = i32::try_from(number).unwrap_or(-1);
    if number < 0 {
        return Err(SysError::last("pidfd_getfd"));
    }
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Asks a socket for an option of its own level (socket(7)).
///
/// # Safety
///
/// Any bytes are a `T`, and the option's value is no longer than it.
unsafe fn socket_option<T>(
    socket: BorrowedFd<'_>,
    option: libc::c_int,
    value: &mut T,
) -> Result<(), SysError> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: a value and a length of ours; the caller's promise.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_mut(value).cast(),
            &raw mut length,
        )
    };
    if got == 0 {
        Ok(())
    } else {
        Err(SysError::last("getsockopt"))
    }
}

/// Whether another process's descriptor is a socket that carries a stream (`SOCK_STREAM`).
pub fn is_stream_socket(pid: u32, fd: i32) -> Result<bool, SysError> {
    let socket = duplicate(pid, fd)?;
    let mut kind: libc::c_int = 0;
    // SAFETY: the option's value is a number.
    unsafe { socket_option(socket.as_fd(), libc::SO_TYPE, &mut kind) }?;
    Ok(kind == libc::SOCK_STREAM)
}

/// A timeout of another process's socket; [`None`] where it waits for ever, or is no socket.
pub fn socket_timeout(pid: u32, fd: i32, timeout: TimeoutOf) -> Result<Option<Duration>, SysError> {
    let socket = duplicate(pid, fd)?;
    let option = match timeout {
        TimeoutOf::Receiving => libc::SO_RCVTIMEO,
        TimeoutOf::Sending => libc::SO_SNDTIMEO,
    };
    let mut span = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    // SAFETY: the option's value is a `struct timeval`.
    if unsafe { socket_option(socket.as_fd(), option, &mut span) }.is_err() {
        return Ok(None);
    }
    let seconds = u64::try_from(span.tv_sec).unwrap_or(0);
    let micros = u64::try_from(span.tv_usec).unwrap_or(0);
    let span = Duration::from_secs(seconds) + Duration::from_micros(micros);
    Ok((!span.is_zero()).then_some(span))
}

/// What kind of file this is (`S_IFMT` of inode(7)), links followed. Whoever serves its file system is not asked, who may
/// be a process that is held.
pub fn kind_of_file(path: &Path) -> Option<u32> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut status = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: a path and a structure of ours.
    let got = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_STATX_DONT_SYNC,
            libc::STATX_TYPE,
            status.as_mut_ptr(),
        )
    };
    // SAFETY: integers only, which were zero before.
    let status = unsafe { status.assume_init() };
    (got == 0).then_some(u32::from(status.stx_mode) & libc::S_IFMT)
}

/// Sends a signal to a process; whether it was sent.
pub fn send_signal(tgid: u32, signal: u32) -> bool {
    // SAFETY: no pointers.
    unsafe { libc::kill(tgid as i32, signal as i32) == 0 }
}

/// Sends a signal to a thread; whether it was sent.
pub fn send_thread_signal(tgid: u32, tid: u32, signal: u32) -> bool {
    // SAFETY: no pointers.
    unsafe { libc::syscall(libc::SYS_tgkill, tgid, tid, signal) == 0 }
}

/// Ends this process with all of its threads, wherever they wait.
pub fn leave(status: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}

/// Puts this process into a session of its own, without a terminal (setsid(2)), which ends by SIGTERM with
/// whoever has started it, until [`outlive`] is called.
pub fn new_session() {
    // SAFETY: no pointers.
    unsafe {
        libc::setsid();
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
    }
}

/// From now on this process goes on when whoever has started it ends.
pub fn outlive() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
}

/// This process's effective capabilities, a bit each (`CapEff` of /proc/self/status).
pub fn effective_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    set.unwrap_or(0)
}

/// Whether this process may look into others' memory, and trace them, whoever they are.
pub fn may_trace() -> bool {
    /// `CAP_SYS_PTRACE` of include/uapi/linux/capability.h.
    const SYS_PTRACE: u32 = 19;
    effective_capabilities() >> SYS_PTRACE & 1 == 1
}

/// `CAP_SYS_ADMIN` of include/uapi/linux/capability.h.
pub const SYS_ADMIN: u32 = 21;

/// Whether this process may give programs more than it has itself.
pub fn is_privileged() -> bool {
    effective_capabilities() >> SYS_ADMIN & 1 == 1
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

/// Whose process is at the other end of a unix socket: its effective user id when it connected or listened
/// (unix(7), `SO_PEERCRED`).
pub fn peer_uid(socket: BorrowedFd<'_>) -> Result<u32, SysError> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    // SAFETY: the option's value is a `struct ucred`.
    unsafe { socket_option(socket, libc::SO_PEERCRED, &mut peer) }?;
    Ok(peer.uid)
}

/// Has this thread run before all others that are no real-time threads, as far as the user may (sched(7)); whether
/// that was so. For one that seldom runs, and whose delay would cost much.
pub fn run_first() -> bool {
    let lowest = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: a parameter of ours; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, policy, &raw const lowest) == 0 }
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

    /// Waits for its other side to be gone, and for nothing else.
    pub fn hung_up(fd: BorrowedFd<'_>) -> Self {
        Self::of(fd, 0)
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

/// A terminal or a pipe once more, for writing that never waits: not even for a part of what is written,
/// which poll(2) does not tell. The flag is this description's own, so that others who write there do as
/// before. [`None`] for anything else, and where it cannot be opened again.
pub fn without_waits(stream: BorrowedFd<'_>) -> Option<File> {
    use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
    let path = format!("/proc/self/fd/{}", stream.as_raw_fd());
    let kind = std::fs::metadata(&path).ok()?.file_type();
    if !kind.is_fifo() && !kind.is_char_device() {
        return None;
    }
    let mut options = File::options();
    options.write(true);
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(path).ok()
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
        // SAFETY: no pointers. No command that finject launches gets it.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
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
