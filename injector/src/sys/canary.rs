//! A caller of test calls: a child process that makes, on request, one call with arguments that no
//! kernel accepts (all ones) and a mark in the fifth, where libc leaves it over in the register, so
//! that the program looks at the first argument too. While hooks are in place the kernel program
//! answers a marked call of this process with [`CANARY_ERRNO`], which is no errno of Linux; any
//! other answer means that faults do not arrive. A process of its own, so that a call that runs
//! after all (`umask(-1)`, `alarm(-1)`) changes nothing that lasts.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use injector_common::shared::{CANARY_ERRNO, CANARY_MARK};

use super::SysError;
use super::helper::{Helper, Orphaned, pipe};
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
    child: Helper,
    requests: File,
    answers: File,
}

impl Canary {
    /// Starts the child. Before any other thread is started: the child is a fork.
    pub fn start() -> Result<Self, SysError> {
        let (request_end, requests) = pipe()?;
        let (answers, answer_end) = pipe()?;
        let (requests_in, answers_out) = (File::from(request_end), File::from(answer_end));
        let child = Helper::start(
            c"finject-canary",
            &[requests_in.as_fd(), answers_out.as_fd()],
            Orphaned::Dies,
            || serve(&requests_in, &answers_out),
        )?;
        Ok(Self {
            child,
            requests: requests.into(),
            answers: answers.into(),
        })
    }

    /// The child's process id, in finject's own pid namespace.
    pub fn pid(&self) -> u32 {
        self.child.pid()
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

fn serve(mut requests: &File, mut answers: &File) {
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
