//! ptrace(2) from the tracer's side: attaching without stopping, waiting for stops, and what can be
//! asked and changed while a thread is stopped. Only the thread that attached may do any of it.

use std::mem::{MaybeUninit, offset_of};

use super::SysError;

/// `PTRACE_GET_SYSCALL_INFO` of include/uapi/linux/ptrace.h, Linux 5.3.
const GET_SYSCALL_INFO: libc::c_uint = 0x420e;
// What `ptrace_syscall_info.op` says (the same file).
const INFO_ENTRY: u8 = 1;
const INFO_EXIT: u8 = 2;
const INFO_SECCOMP: u8 = 3;
/// `PTRACE_GETSIGMASK` and `PTRACE_SETSIGMASK` of include/uapi/linux/ptrace.h, Linux 3.11.
const GET_SIGMASK: libc::c_uint = 0x420a;
const SET_SIGMASK: libc::c_uint = 0x420b;
/// `AUDIT_ARCH_I386` of include/uapi/linux/audit.h.
const ARCH_I386: u32 = 0x4000_0003;
/// The bytes of `syscall`, and of `int 0x80`: what a call that is made again is entered by.
const ENTRY_BYTES: u64 = 2;

/// `struct ptrace_syscall_info` at an entry; of the other kinds only the head is read.
#[repr(C)]
struct Info {
    op: u8,
    _pad: [u8; 3],
    arch: u32,
    instruction: u64,
    stack: u64,
    nr: u64,
    args: [u64; 6],
    _ret_data: u32,
}

/// A system call at its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The 32-bit ABI.
    pub compat: bool,
    /// The number, x32's bit included.
    pub nr: u64,
    /// Where the caller's instruction pointer is.
    pub instruction: u64,
    /// Its stack pointer.
    pub stack: u64,
    /// The arguments.
    pub args: [u64; 6],
}

/// Which side of a system call a thread is stopped at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Its entry.
    Entry(Entry),
    /// Its exit.
    Exit,
    /// It is at none.
    Neither,
}

/// Why a thread has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// At the entry or the exit of a system call.
    Syscall,
    /// At the entry of a call that a seccomp filter hands to the tracer.
    Seccomp,
    /// Before a signal is delivered.
    Signal(i32),
    /// With its process, by a signal that stops.
    Group,
    /// It was asked to, or is newly attached, or goes on after a group-stop.
    Trap,
    /// It has made another task, which is attached too and reports itself.
    Born,
    /// It has executed another program; its thread id was this one before.
    Exec(u32),
    /// For nothing that is looked at here.
    Other,
}

/// What waiting found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// A thread has stopped.
    Stopped(u32, Stop),
    /// A thread has ended, with this wait status (wait(2)).
    Ended(u32, i32),
    /// A signal came first.
    Interrupted,
    /// There is no tracee left.
    NoneLeft,
}

/// What is reported of tracees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Their children are attached too.
    pub follow: bool,
    /// A seccomp filter of theirs hands calls to the tracer, so that they must die with it: calls
    /// handed to nobody fail with ENOSYS.
    pub filtered: bool,
}

impl Options {
    fn bits(self) -> libc::c_long {
        let mut bits =
            libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_TRACECLONE;
        if self.follow {
            bits |= libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK;
        }
        if self.filtered {
            bits |= libc::PTRACE_O_TRACESECCOMP | libc::PTRACE_O_EXITKILL;
        }
        bits.into()
    }
}

/// How a stopped thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// To its next event.
    Go,
    /// To its next system call, or that one's exit.
    ToSyscall,
    /// Still stopped by the signal that stopped its process; only what ends that is reported.
    StayStopped,
}

fn call(
    request: libc::c_uint,
    tid: u32,
    address: libc::c_long,
    data: libc::c_long,
    name: &'static str,
) -> Result<libc::c_long, SysError> {
    // SAFETY: each caller's `data` is a number, or the address of memory of its own that is large
    // enough for the request.
    let result = unsafe { libc::ptrace(request, tid as libc::pid_t, address, data) };
    if result < 0 {
        Err(SysError::last(name))
    } else {
        Ok(result)
    }
}

/// Attaches to a thread, which goes on.
pub fn seize(tid: u32, options: Options) -> Result<(), SysError> {
    call(
        libc::PTRACE_SEIZE,
        tid,
        0,
        options.bits(),
        "ptrace(PTRACE_SEIZE)",
    )?;
    Ok(())
}

/// Sets what is reported of a stopped thread; `unfiltered` suspends its seccomp filters until it is set
/// again (`PTRACE_O_SUSPEND_SECCOMP`), for which the kernel wants CAP_SYS_ADMIN and a tracer that has
/// none itself.
pub fn set_options(tid: u32, options: Options, unfiltered: bool) -> Result<(), SysError> {
    const SUSPEND_SECCOMP: libc::c_long = 1 << 21;
    let bits = options.bits() | if unfiltered { SUSPEND_SECCOMP } else { 0 };
    call(
        libc::PTRACE_SETOPTIONS,
        tid,
        0,
        bits,
        "ptrace(PTRACE_SETOPTIONS)",
    )?;
    Ok(())
}

/// Asks a thread to stop. It does before it is in user mode again; a call in which it sleeps ends
/// for it.
pub fn interrupt(tid: u32) -> Result<(), SysError> {
    call(
        libc::PTRACE_INTERRUPT,
        tid,
        0,
        0,
        "ptrace(PTRACE_INTERRUPT)",
    )?;
    Ok(())
}

/// Where the signal comes from that a thread is stopped for: `si_code` of sigaction(2).
pub fn signal_code(tid: u32) -> Option<i32> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let to = info.as_mut_ptr() as libc::c_long;
    call(
        libc::PTRACE_GETSIGINFO,
        tid,
        0,
        to,
        "ptrace(PTRACE_GETSIGINFO)",
    )
    .ok()?;
    // SAFETY: the kernel has filled it in.
    Some(unsafe { info.assume_init() }.si_code)
}

/// The signals that a stopped thread has blocked, a bit each.
pub fn blocked_signals(tid: u32) -> Result<u64, SysError> {
    let mut mask = 0_u64;
    let to = &raw mut mask as libc::c_long;
    let size = size_of_val(&mask) as libc::c_long;
    call(GET_SIGMASK, tid, size, to, "ptrace(PTRACE_GETSIGMASK)")?;
    Ok(mask)
}

/// Has a stopped thread block those signals; never SIGKILL and SIGSTOP.
pub fn block_signals(tid: u32, mask: u64) -> Result<(), SysError> {
    let from = &raw const mask as libc::c_long;
    let size = size_of_val(&mask) as libc::c_long;
    call(SET_SIGMASK, tid, size, from, "ptrace(PTRACE_SETSIGMASK)")?;
    Ok(())
}

/// Lets a stopped thread go on, with a signal (0 for none).
pub fn resume(tid: u32, how: Resume, signal: i32) -> Result<(), SysError> {
    let request = match how {
        Resume::Go => libc::PTRACE_CONT,
        Resume::ToSyscall => libc::PTRACE_SYSCALL,
        Resume::StayStopped => libc::PTRACE_LISTEN,
    };
    call(request, tid, 0, signal.into(), "ptrace(resume)")?;
    Ok(())
}

/// Lets a stopped thread go for good.
pub fn detach(tid: u32) -> Result<(), SysError> {
    call(libc::PTRACE_DETACH, tid, 0, 0, "ptrace(PTRACE_DETACH)")?;
    Ok(())
}

/// Which side of a system call a stopped thread is at.
pub fn side(tid: u32) -> Result<Side, SysError> {
    let mut info = MaybeUninit::<Info>::zeroed();
    call(
        GET_SYSCALL_INFO,
        tid,
        size_of::<Info>() as libc::c_long,
        info.as_mut_ptr() as libc::c_long,
        "ptrace(PTRACE_GET_SYSCALL_INFO)",
    )?;
    // SAFETY: integers only, which were zero where the kernel wrote nothing.
    let info = unsafe { info.assume_init() };
    Ok(match info.op {
        INFO_ENTRY | INFO_SECCOMP => Side::Entry(Entry {
            compat: info.arch == ARCH_I386,
            nr: info.nr,
            instruction: info.instruction,
            stack: info.stack,
            args: info.args,
        }),
        INFO_EXIT => Side::Exit,
        _ => Side::Neither,
    })
}

/// At a call's entry: it does not run, and gives this. A number of -1 is no call, and leaves the result as it is
/// (arch/x86/entry/common.c, kernel/seccomp.c). Two words, which costs less than to read and write all registers.
pub fn skip(tid: u32, value: i64) -> Result<(), SysError> {
    let poke = |offset: usize, value: i64| {
        let what = "ptrace(PTRACE_POKEUSER)";
        call(
            libc::PTRACE_POKEUSER,
            tid,
            offset as libc::c_long,
            value,
            what,
        )
    };
    // The registers are what `struct user` begins with (arch/x86/include/asm/user_64.h).
    poke(offset_of!(libc::user_regs_struct, orig_rax), -1)?;
    poke(offset_of!(libc::user_regs_struct, rax), value)?;
    Ok(())
}

/// A call that is made again: where it is entered, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MadeAgain {
    instruction: u64,
    nr: u64,
}

impl MadeAgain {
    /// The call of this number by the instruction in front of that one.
    pub fn of(instruction: u64, nr: u64) -> Self {
        let instruction = instruction.wrapping_sub(ENTRY_BYTES);
        Self { instruction, nr }
    }
}

/// A stopped thread's registers.
#[derive(Clone, Copy, Debug)]
pub struct Registers(libc::user_regs_struct);

impl Registers {
    /// Reads them.
    pub fn of(tid: u32) -> Result<Self, SysError> {
        let mut registers = MaybeUninit::<libc::user_regs_struct>::zeroed();
        let to = registers.as_mut_ptr() as libc::c_long;
        call(libc::PTRACE_GETREGS, tid, 0, to, "ptrace(PTRACE_GETREGS)")?;
        // SAFETY: integers only.
        Ok(Self(unsafe { registers.assume_init() }))
    }

    /// Writes them.
    pub fn set(&self, tid: u32) -> Result<(), SysError> {
        let from = &raw const self.0 as libc::c_long;
        call(libc::PTRACE_SETREGS, tid, 0, from, "ptrace(PTRACE_SETREGS)")?;
        Ok(())
    }

    /// The call that the thread is in, or has just left; negative for none.
    pub fn nr(&self) -> i64 {
        self.0.orig_rax.cast_signed()
    }

    /// Behind the instruction by which the thread called.
    pub fn instruction(&self) -> u64 {
        self.0.rip
    }

    /// The stack pointer.
    pub fn stack(&self) -> u64 {
        self.0.rsp
    }

    /// What the call gave.
    pub fn result(&self) -> i64 {
        self.0.rax.cast_signed()
    }

    /// The call's arguments in the 64-bit ABI.
    pub fn args(&self) -> [u64; 6] {
        let Self(r) = self;
        if self.is_native() {
            [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9]
        } else {
            [r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp]
        }
    }

    /// At a call's entry: another call, by its number.
    pub fn set_nr(&mut self, nr: u16) {
        self.0.orig_rax = nr.into();
    }

    /// An argument of a call, by its index from 0, as that ABI passes it.
    pub fn set_arg(&mut self, compat: bool, index: usize, value: u64) {
        let Self(r) = self;
        let register = match (compat, index) {
            (false, 0) | (true, 4) => &mut r.rdi,
            (false, 1) | (true, 3) => &mut r.rsi,
            (_, 2) => &mut r.rdx,
            (false, 3) => &mut r.r10,
            (false, 4) => &mut r.r8,
            (false, _) => &mut r.r9,
            (true, 0) => &mut r.rbx,
            (true, 1) => &mut r.rcx,
            (true, _) => &mut r.rbp,
        };
        *register = value;
    }

    /// After a call whose number and arguments were others: as the thread had them, what it gave apart.
    pub fn put_back(&mut self, before: &Self) {
        let result = self.0.rax;
        self.0 = before.0;
        self.0.rax = result;
    }

    /// Whether the thread runs 64-bit code: its code segment is `__USER_CS` (arch/x86/include/asm/segment.h).
    pub fn is_native(&self) -> bool {
        self.0.cs == 0x33
    }

    /// After a call: it gave this, and is not made again.
    pub fn give(&mut self, value: i64) {
        self.0.orig_rax = u64::MAX;
        self.0.rax = value.cast_unsigned();
    }

    /// After a call: it is made again, as if it had not been.
    pub fn make_again(&mut self) -> MadeAgain {
        self.0.rax = self.0.orig_rax;
        self.0.rip = self.0.rip.wrapping_sub(ENTRY_BYTES);
        // No call, so that the kernel does not do it a second time.
        self.0.orig_rax = u64::MAX;
        MadeAgain {
            instruction: self.0.rip,
            nr: self.0.rax,
        }
    }

    /// Whether the thread is about to enter a call that is made again. One that only happens to be at the
    /// same instruction for the same call is about to enter that.
    pub fn is_before(&self, call: MadeAgain) -> bool {
        self.nr() < 0 && self.0.rip == call.instruction && self.0.rax == call.nr
    }

    /// Before a call: it is not made, and gave this.
    pub fn pass_over(&mut self, value: i64) {
        self.0.rip = self.0.rip.wrapping_add(ENTRY_BYTES);
        self.give(value);
    }
}

fn message(tid: u32) -> u32 {
    let mut message: libc::c_ulong = 0;
    let to = &raw mut message as libc::c_long;
    match call(
        libc::PTRACE_GETEVENTMSG,
        tid,
        0,
        to,
        "ptrace(PTRACE_GETEVENTMSG)",
    ) {
        Ok(_) => message as u32,
        Err(_) => 0,
    }
}

/// Waits for the next that happens to any tracee of this thread's; the kernel need not look through other threads'.
pub fn wait() -> Result<Waited, SysError> {
    let mut status = 0;
    // SAFETY: a status of ours.
    let found = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    let Ok(tid) = u32::try_from(found) else {
        let error = SysError::last("waitpid");
        return match error.errno() {
            libc::EINTR => Ok(Waited::Interrupted),
            libc::ECHILD => Ok(Waited::NoneLeft),
            _ => Err(error),
        };
    };
    if !libc::WIFSTOPPED(status) {
        return Ok(Waited::Ended(tid, status));
    }
    let signal = libc::WSTOPSIG(status);
    let stop = match status >> 16 {
        0 if signal == libc::SIGTRAP | 0x80 => Stop::Syscall,
        0 => Stop::Signal(signal),
        libc::PTRACE_EVENT_SECCOMP => Stop::Seccomp,
        libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => Stop::Born,
        libc::PTRACE_EVENT_EXEC => Stop::Exec(message(tid)),
        libc::PTRACE_EVENT_STOP if signal == libc::SIGTRAP => Stop::Trap,
        libc::PTRACE_EVENT_STOP => Stop::Group,
        _ => Stop::Other,
    };
    Ok(Waited::Stopped(tid, stop))
}
