//! A caller of test calls: a child process that makes, on request, one call with arguments that no
//! kernel accepts (all ones) and a mark in the fifth, where libc leaves it over in the register, so
//! that the program looks at the first argument too. While hooks are in place the kernel program
//! answers a marked call of this process with [`CANARY_ERRNO`], which is no errno of Linux; any
//! other answer means that faults do not arrive. A process of its own, so that a call that runs
//! after all (`umask(-1)`, `alarm(-1)`) changes nothing that lasts.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use injector_common::shared::{CANARY_ERRNO, CANARY_MARK};

use super::SysError;
use super::process::{PollFd, poll_fds};

/// How long a test call may take before it counts as blocked: it answers in microseconds when a
/// fault arrives, and the machine may be busy.
const PATIENCE_MS: i32 = 5_000;

/// What a test call met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The fault arrived.
    Faulted,
    /// The call ran: the result, negative errno on failure.
    Ran(i64),
    /// The call did not return.
    Blocked,
}

/// The calling child. Ends with finject, or when dropped.
#[derive(Debug)]
pub struct Canary {
    pid: i32,
    requests: File,
    answers: File,
}

fn pipe() -> Result<(OwnedFd, OwnedFd), SysError> {
    let mut ends = [-1; 2];
    // SAFETY: room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
        return Err(SysError::last("pipe2"));
    }
    // SAFETY: the kernel has just given them to us.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

impl Canary {
    /// Starts the child. Before any other thread is started: the child is a fork.
    pub fn start() -> Result<Self, SysError> {
        let (request_end, requests) = pipe()?;
        let (answers, answer_end) = pipe()?;
        // SAFETY: finject has one thread yet; the child only makes system calls.
        match unsafe { libc::fork() } {
            -1 => Err(SysError::last("fork")),
            0 => {
                drop((requests, answers));
                serve(File::from(request_end), File::from(answer_end))
            }
            pid => Ok(Self {
                pid,
                requests: requests.into(),
                answers: answers.into(),
            }),
        }
    }

    /// The child's process id, in finject's own pid namespace.
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Makes one test call; `compat` for the 32-bit ABI.
    pub fn call(&mut self, compat: bool, nr: u16) -> Answer {
        let request = [
            u8::from(compat),
            nr.to_le_bytes()[0],
            nr.to_le_bytes()[1],
            0,
        ];
        if self.requests.write_all(&request).is_err() {
            return Answer::Blocked;
        }
        let mut poll = [PollFd::readable(self.answers.as_fd())];
        match poll_fds(&mut poll, PATIENCE_MS) {
            Ok(1..) => {}
            _ => return Answer::Blocked,
        }
        let mut answer = [0; 8];
        if self.answers.read_exact(&mut answer).is_err() {
            return Answer::Blocked;
        }
        match i64::from_le_bytes(answer) {
            result if result == -CANARY_ERRNO => Answer::Faulted,
            result => Answer::Ran(result),
        }
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        // SAFETY: a child of ours that nobody else waits for.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

fn serve(mut requests: File, mut answers: File) -> ! {
    let mut keep = [requests.as_raw_fd(), answers.as_raw_fd()].map(i32::unsigned_abs);
    keep.sort_unstable();
    // SAFETY: plain system calls on a process that is ours alone. All other descriptors are closed,
    // so that no reader of finject's output or of its ready line waits for this process.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, c"finject-canary".as_ptr());
        libc::setsid();
        for (first, last) in [
            (0, keep[0] - 1),
            (keep[0] + 1, keep[1].saturating_sub(1)),
            (keep[1] + 1, u32::MAX),
        ] {
            if first <= last {
                libc::syscall(libc::SYS_close_range, first, last, 0);
            }
        }
    }
    let mut request = [0; 4];
    while requests.read_exact(&mut request).is_ok() {
        let nr = u16::from_le_bytes([request[1], request[2]]);
        let result = if request[0] == 0 {
            call_native(nr)
        } else {
            call_compat(nr)
        };
        if answers.write_all(&result.to_le_bytes()).is_err() {
            break;
        }
    }
    // SAFETY: no destructors of the parent's are to run here.
    unsafe { libc::_exit(0) }
}

fn call_native(nr: u16) -> i64 {
    let ones = -1_i64;
    // SAFETY: arguments that no call takes for valid memory or a valid descriptor.
    let result = unsafe {
        libc::syscall(
            libc::c_long::from(nr),
            ones,
            ones,
            ones,
            ones,
            i64::from(CANARY_MARK),
            ones,
        )
    };
    if result == -1 {
        -i64::from(SysError::last("canary").errno())
    } else {
        result
    }
}

/// The same through `int $0x80`, which a 64-bit process may use too.
#[cfg(target_arch = "x86_64")]
fn call_compat(nr: u16) -> i64 {
    let ones = 0xffff_ffff_u64;
    let result: u64;
    // SAFETY: as above. rbx is LLVM's own, so that it is swapped in and out; the entry code of the
    // 32-bit ABI may clobber r8 to r11.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) ones => _,
            inlateout("rax") u64::from(nr) => result,
            in("rcx") ones,
            in("rdx") ones,
            in("rsi") ones,
            in("rdi") u64::from(CANARY_MARK),
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    i64::from(result as u32 as i32)
}
