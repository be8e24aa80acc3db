//! Starts a command under a seccomp filter that hands calls to finject: to a listener that finject
//! holds, or to a tracer. Until somebody answers it the child makes no call that it needs and that the
//! filter could hand over, so that a rule on any call whatever cannot stop it on its way: a listener
//! reaches finject through the descriptor table, which both share until the exec, and its number
//! through shared memory. Until then, too, it dies with finject, since nobody else would ever let it
//! go.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use super::SysError;
use super::before_main;
use super::mapping::Mapping;
use super::process::pidfd_open;
use super::seccomp::{Filter, Listener, WAIT_KILLABLE_RECV};
use super::signals::{FORWARDED, Forwarded, is_ignored, stop_here};

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The file, as a path.
    pub path: CString,
    /// The arguments, the name first.
    pub args: Vec<CString>,
    /// The environment, `NAME=VALUE`.
    pub env: Vec<CString>,
}

/// This process's environment as it is, entries without a name or a value too.
pub fn environment() -> Vec<CString> {
    let mut entries = Vec::new();
    // SAFETY: finject changes its environment nowhere; the list ends with a null pointer.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            entries.push(CStr::from_ptr(*entry).to_owned());
            entry = entry.add(1);
        }
    }
    entries
}

unsafe extern "C" {
    /// environ(7).
    static environ: *const *const libc::c_char;
}

/// A command that was not started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The kernel refused the filter.
    #[error("the kernel does not take the seccomp filter")]
    Filter(#[source] std::io::Error),
    /// A call.
    #[error(transparent)]
    Sys(#[from] SysError),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With a status.
    Exited(i32),
    /// By a signal.
    Killed(i32),
    /// Its file could not be executed: the errno.
    NotStarted(i32),
}

/// A command that runs, or waits at its first execve(2) for its call to be answered.
#[derive(Debug)]
pub struct Command {
    pid: i32,
    handle: OwnedFd,
    words: Arc<Mapping>,
    ended: Option<Ended>,
}

/// Who is handed the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handover {
    /// A listener, which the child makes.
    Listener,
    /// A tracer, which the child waits for.
    Tracer,
    /// Nobody: the child waits until it may go on.
    Nobody,
}

/// Lets a child go on that waits, for who answers its calls where somebody does.
#[derive(Clone, Debug)]
pub struct Latch(Arc<Mapping>);

impl Latch {
    /// There is somebody, and outlives finject; or the rules are in force.
    pub fn open(&self) {
        if let Some(word) = self.0.half(OPEN) {
            word.store(1, Release);
        }
    }

    /// Whether the child's first execve(2) has found a script without an interpreter, so that it makes
    /// another.
    pub fn executes_again(&self) -> bool {
        self.0
            .half(SCRIPT)
            .is_some_and(|word| word.load(Acquire) == 1)
    }
}

// The shared words, by offset.
/// Once the filter is there one more than the listener's number (1 without a listener), or an errno
/// with [`REFUSED`]; 0 before.
const FILTER: usize = 0;
/// The errno of the exec that failed; 0 before.
const EXEC: usize = 4;
/// 1 once the tracer has attached, the listener has a keeper, or the rules are in force.
const OPEN: usize = 8;
/// 1 once the child may be traced by processes that are no ancestors of its, or asks nobody.
const READY: usize = 12;
/// 1 once the file has turned out to be a script without an interpreter, which /bin/sh is to read.
const SCRIPT: usize = 16;
const WORDS: usize = 20;
const REFUSED: u32 = 1 << 31;

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

impl Command {
    /// Starts it: it waits until the latch is opened, and then at its execve(2), which the filter has to
    /// name. `may_gain` leaves setuid programs their meaning, for which the kernel wants
    /// CAP_SYS_ADMIN. Before any thread is started.
    pub fn start(
        image: &Image,
        filter: &Filter,
        may_gain: bool,
    ) -> Result<(Self, Listener, Latch), LaunchError> {
        let mut command = Self::spawn(image, Some(filter), may_gain, Handover::Listener)?;
        let number = command.filter()? - 1;
        // SAFETY: the child has just made it in the table that both share; it is nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(number as i32) };
        let latch = command.latch();
        Ok((command, Listener::new(fd), latch))
    }

    /// Starts it for a tracer: it waits until that opens the latch. Under a filter that hands calls to
    /// the tracer it waits once more, at its execve(2), which the filter has to name. Before any
    /// thread is started.
    pub fn start_traced(
        image: &Image,
        filter: Option<&Filter>,
        may_gain: bool,
    ) -> Result<(Self, Latch), LaunchError> {
        let mut command = Self::spawn(image, filter, may_gain, Handover::Tracer)?;
        command.await_ready()?;
        let latch = command.latch();
        Ok((command, latch))
    }

    /// Starts it without a filter: it waits until the latch is opened. Before any thread is started.
    pub fn start_held(image: &Image) -> Result<(Self, Latch), LaunchError> {
        let command = Self::spawn(image, None, true, Handover::Nobody)?;
        let latch = command.latch();
        Ok((command, latch))
    }

    /// Hands it the signals that finject got. What the terminal sends it has got already, but for a
    /// hangup, which goes to the session's first process alone; being stopped is for both, and
    /// `suspended` does it to finject. A command that has ended, with descendants that have not, leaves
    /// them to finject: the one that asks it to end is returned.
    pub fn hear(
        &mut self,
        forwarded: &mut Forwarded,
        suspended: &mut dyn FnMut(fn()),
    ) -> Option<i32> {
        while let Some(heard) = forwarded.take() {
            let stops = heard.signal == libc::SIGTSTP;
            if self.handle().is_none() && !stops {
                return Some(heard.signal);
            }
            if !heard.from_terminal || heard.signal == libc::SIGHUP {
                self.signal(heard.signal);
            }
            if stops {
                suspended(stop_here);
                if !heard.from_terminal {
                    // Whoever has let finject go on may know of no other process.
                    self.signal(libc::SIGCONT);
                }
            }
        }
        None
    }

    fn latch(&self) -> Latch {
        Latch(Arc::clone(&self.words))
    }

    fn spawn(
        image: &Image,
        filter: Option<&Filter>,
        may_gain: bool,
        handover: Handover,
    ) -> Result<Self, LaunchError> {
        let words = Arc::new(Mapping::anonymous(WORDS)?);
        let ignores_children = hear_of_children();
        // Those that finject was started without are open here, since Rust's runtime opens them.
        for fd in before_main::closed_streams() {
            // SAFETY: no pointers.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        let (argv, envp) = (pointers(&image.args), pointers(&image.env));
        // What execvp(3) makes of a script that names no interpreter.
        let script: Vec<CString> = [c"/bin/sh".to_owned(), image.path.clone()]
            .into_iter()
            .chain(image.args.iter().skip(1).cloned())
            .collect();
        let script = pointers(&script);
        let program = filter.map(|filter| libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_ptr().cast_mut(),
        });
        let start = Start {
            words: &words,
            path: &image.path,
            argv: &argv,
            envp: &envp,
            script: &script,
            program: program.as_ref(),
            may_gain,
            handover,
            ignores_children,
            finject: std::process::id(),
        };
        let flags = libc::CLONE_FILES | libc::SIGCHLD;
        // SAFETY: as fork(2), with the descriptor table shared; finject has one thread yet, and the
        // child only makes system calls on memory that was made ready before.
        match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
            -1 => Err(SysError::last("clone").into()),
            // SAFETY: the child.
            0 => unsafe { start.child() },
            pid => {
                let pid = pid as i32;
                Ok(Self {
                    pid,
                    handle: pidfd_open(pid.unsigned_abs())?,
                    words,
                    ended: None,
                })
            }
        }
    }

    /// Waits until the child may be traced; one that ends before is told of later.
    fn await_ready(&mut self) -> Result<(), SysError> {
        while self.word(READY).load(Acquire) == 0 && self.wait(false)?.is_none() {
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(())
    }

    /// Waits until the child has its filter; the shared word.
    pub fn filter(&mut self) -> Result<u32, LaunchError> {
        loop {
            let word = self.word(FILTER).load(Acquire);
            if word & REFUSED != 0 {
                self.wait(true)?;
                let errno = (word & !REFUSED) as i32;
                return Err(LaunchError::Filter(std::io::Error::from_raw_os_error(
                    errno,
                )));
            }
            if word != 0 {
                return Ok(word);
            }
            if self.wait(false)?.is_some() {
                let error = std::io::Error::from_raw_os_error(libc::ECHILD);
                return Err(LaunchError::Filter(error));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        static NOWHERE: AtomicU32 = AtomicU32::new(0);
        self.words.half(offset).unwrap_or(&NOWHERE)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Becomes readable when it ends; [`None`] once that was seen.
    pub fn handle(&self) -> Option<BorrowedFd<'_>> {
        self.ended.is_none().then(|| self.handle.as_fd())
    }

    /// How it ended, as far as that was [waited for](Self::wait).
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// How it ended; [`None`] while it runs. With `block` waits for that.
    pub fn wait(&mut self, block: bool) -> Result<Option<Ended>, SysError> {
        if self.ended.is_some() {
            return Ok(self.ended);
        }
        let options = if block { 0 } else { libc::WNOHANG };
        let mut status = 0;
        // SAFETY: a child of ours, and a status of ours.
        let found = unsafe { libc::waitpid(self.pid, &raw mut status, options) };
        if found < 0 {
            let error = SysError::last("waitpid");
            return if error.errno() == libc::EINTR {
                Ok(None)
            } else {
                Err(error)
            };
        }
        if found == self.pid {
            let errno = self.word(EXEC).load(Acquire);
            self.ended = Some(if errno != 0 {
                Ended::NotStarted(errno as i32)
            } else if libc::WIFSIGNALED(status) {
                Ended::Killed(libc::WTERMSIG(status))
            } else {
                Ended::Exited(libc::WEXITSTATUS(status))
            });
        }
        Ok(self.ended)
    }

    /// Sends it a signal, as whoever sent it to finject meant.
    pub fn signal(&self, signal: i32) {
        if self.ended.is_none() {
            // SAFETY: a child of ours that has not been waited for.
            unsafe { libc::kill(self.pid, signal) };
        }
    }
}

/// Has the ends of children told, which the kernel does not do for whoever ignores SIGCHLD (wait(2));
/// whether finject was started so.
fn hear_of_children() -> bool {
    static IGNORED: AtomicBool = AtomicBool::new(false);
    if is_ignored(libc::SIGCHLD) {
        IGNORED.store(true, Release);
        // SAFETY: no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    }
    IGNORED.load(Acquire)
}

impl Drop for Command {
    /// A command that was never let go must not wait for ever.
    fn drop(&mut self) {
        if self.ended.is_none() && matches!(self.wait(false), Ok(None)) {
            // SAFETY: a child of ours that has not been waited for.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            let _ = self.wait(true);
        }
    }
}

/// What the child needs, made ready by its parent.
struct Start<'a> {
    words: &'a Mapping,
    path: &'a CStr,
    argv: &'a [*const libc::c_char],
    envp: &'a [*const libc::c_char],
    script: &'a [*const libc::c_char],
    program: Option<&'a libc::sock_fprog>,
    may_gain: bool,
    handover: Handover,
    /// It is to ignore SIGCHLD, as whoever started finject wants.
    ignores_children: bool,
    /// Its parent's process id.
    finject: u32,
}

impl Start<'_> {
    fn tell(&self, offset: usize, value: u32) {
        if let Some(word) = self.words.half(offset) {
            word.store(value, Release);
        }
    }

    /// From here on finject's death is the child's.
    ///
    /// # Safety
    ///
    /// In the child.
    unsafe fn depend(&self) {
        // SAFETY: plain system calls.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // It may have died before.
            if libc::getppid().unsigned_abs() != self.finject {
                libc::_exit(127);
            }
        }
    }

    /// Waits for the latch; from then on finject's death is no longer the child's.
    ///
    /// # Safety
    ///
    /// In the child.
    unsafe fn await_latch(&self) {
        // SAFETY: plain system calls. Where the filter names them they are handed over, and run.
        unsafe {
            while self
                .words
                .half(OPEN)
                .is_some_and(|word| word.load(Acquire) == 0)
            {
                libc::sched_yield();
            }
            libc::prctl(libc::PR_SET_PDEATHSIG, 0);
        }
    }

    /// The same, for the tracer.
    ///
    /// # Safety
    ///
    /// In the child.
    unsafe fn await_tracer(&self) {
        // SAFETY: plain system calls.
        unsafe {
            // Where Yama lets only ancestors trace.
            libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY);
            self.tell(READY, 1);
            self.await_latch();
            libc::prctl(libc::PR_SET_PTRACER, 0);
        }
    }

    /// Installs the filter, and tells.
    ///
    /// # Safety
    ///
    /// In the child.
    unsafe fn install(&self, program: &libc::sock_fprog) {
        // SAFETY: plain system calls; the filter was made by the parent.
        unsafe {
            let errno = || (*libc::__errno_location()).unsigned_abs();
            if !self.may_gain && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
                self.tell(FILTER, REFUSED | errno());
                libc::_exit(127);
            }
            let flags = match self.handover {
                Handover::Listener => libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE_RECV,
                Handover::Tracer | Handover::Nobody => 0,
            };
            let given = libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                std::ptr::from_ref(program),
            );
            if given < 0 {
                self.tell(FILTER, REFUSED | errno());
                libc::_exit(127);
            }
            self.tell(FILTER, given as u32 + 1);
        }
    }

    /// The child, up to its exec.
    ///
    /// # Safety
    ///
    /// In a child that shares its descriptors with finject: nothing is opened or closed here, no
    /// memory allocated.
    unsafe fn child(&self) -> ! {
        // SAFETY: plain system calls; the strings and the filter were made by the parent.
        unsafe {
            let errno = || (*libc::__errno_location()).unsigned_abs();
            // Rust's runtime ignores SIGPIPE. What finject handles would do nothing here until the
            // exec; what it was started to ignore the command ignores too.
            if !before_main::ignored_sigpipe() {
                libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            }
            for signal in FORWARDED {
                if !is_ignored(signal) {
                    libc::signal(signal, libc::SIG_DFL);
                }
            }
            if self.ignores_children {
                libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            }
            self.depend();
            if self.handover == Handover::Tracer {
                self.await_tracer();
            }
            if let Some(program) = self.program {
                self.install(program);
            }
            if self.handover != Handover::Tracer {
                self.await_latch();
            }
            libc::execve(self.path.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr());
            let mut failure = errno();
            if failure == libc::ENOEXEC.unsigned_abs() {
                self.tell(SCRIPT, 1);
                libc::execve(
                    c"/bin/sh".as_ptr(),
                    self.script.as_ptr(),
                    self.envp.as_ptr(),
                );
                failure = errno();
            }
            self.tell(EXEC, failure);
            libc::_exit(127)
        }
    }
}
