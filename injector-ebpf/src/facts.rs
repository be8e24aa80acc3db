//! Facts of the call and of the calling task. Fields of the current task and its registers are read
//! directly through typed pointers (`bpf_get_current_task_btf`, `bpf_task_pt_regs`), which costs
//! one load each; the offsets come from the running kernel's BTF as constants.

use aya_ebpf::helpers::generated::{
    bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_task_pt_regs,
};

use injector_common::shared::CANARY_MARK;
use injector_common::{CallerFact, CallerFacts};

use crate::maps;

/// The current task, as a pointer that the verifier has typed.
#[derive(Clone, Copy)]
pub struct Task(*const u8);

/// The caller's registers at entry, as a pointer that the verifier has typed.
#[derive(Clone, Copy)]
pub struct Regs(*const u64);

/// `TS_COMPAT` of arch/x86/include/asm/thread_info.h: the call in progress is a 32-bit one, by
/// whatever instruction it came.
const TS_COMPAT: u32 = 2;

impl Task {
    /// The calling task.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: no arguments.
        Self(unsafe { bpf_get_current_task_btf() } as *const u8)
    }

    /// The task as a plain address, for helpers.
    #[inline(always)]
    pub fn address(self) -> *const u8 {
        self.0
    }

    /// Whether the call in progress is of the 32-bit ABI.
    #[inline(always)]
    pub fn is_compat(self) -> bool {
        // SAFETY: a typed pointer plus a field's offset: the verifier checks the access.
        let status = unsafe {
            core::ptr::read_volatile(self.0.add(maps::off_status() as usize).cast::<u32>())
        };
        status & TS_COMPAT != 0
    }

    /// The thread's start, nanoseconds since boot.
    #[inline(always)]
    pub fn thread_start(self) -> u64 {
        // SAFETY: as above.
        unsafe { core::ptr::read_volatile(self.0.add(maps::off_start() as usize).cast::<u64>()) }
    }

    /// The process's start, nanoseconds since boot: its first thread's.
    #[inline(always)]
    pub fn process_start(self) -> u64 {
        // SAFETY: as above; the leader is a typed pointer too.
        unsafe {
            let leader = core::ptr::read_volatile(
                self.0.add(maps::off_leader() as usize).cast::<*const u8>(),
            );
            core::ptr::read_volatile(leader.add(maps::off_start() as usize).cast::<u64>())
        }
    }

    /// What is compared of who calls, by its [`CallerFact`] as its number.
    #[inline(always)]
    pub fn caller(self, fact: u32) -> [u64; 2] {
        if fact == CallerFact::Uid as u32 {
            // Its own, which nobody else changes.
            let cred: usize = read(self.0, maps::off_cred());
            return CallerFacts::uid(read(cred as *const u8, maps::off_euid()));
        }
        let task = if fact == CallerFact::Comm as u32 {
            let leader: usize = read(self.0, maps::off_leader());
            leader as *const u8
        } else {
            self.0
        };
        CallerFacts::name(read(task, maps::off_comm()))
    }

    /// Whether somebody traces the thread.
    #[inline(always)]
    pub fn is_traced(self) -> bool {
        // SAFETY: as above.
        unsafe {
            core::ptr::read_volatile(self.0.add(maps::off_ptrace() as usize).cast::<u32>()) != 0
        }
    }

    /// The bit of a signal, from 1, in a set at an offset.
    #[inline(always)]
    fn has_signal(self, offset: u32, signal: u32) -> bool {
        // SAFETY: as above; a set of signals is one word.
        let set = unsafe { core::ptr::read_volatile(self.0.add(offset as usize).cast::<u64>()) };
        set >> (signal - 1) & 1 != 0
    }

    /// Whether the thread has a signal blocked. Only it changes that.
    #[inline(always)]
    pub fn blocks(self, signal: u32) -> bool {
        self.has_signal(maps::off_blocked(), signal)
    }

    /// Whether a signal is pending for the thread alone.
    #[inline(always)]
    pub fn has_pending(self, signal: u32) -> bool {
        self.has_signal(maps::off_pending(), signal)
    }

    /// The registers with which the task entered the kernel.
    #[inline(always)]
    pub fn regs(self) -> Regs {
        // SAFETY: the helper takes the current task.
        Regs(unsafe { bpf_task_pt_regs(self.0 as *mut _) } as *const u64)
    }
}

// Indices of `struct pt_regs` of arch/x86/include/asm/ptrace.h, in words.
const BP: usize = 4;
const BX: usize = 5;
const R10: usize = 7;
const R9: usize = 8;
const R8: usize = 9;
const CX: usize = 11;
const DX: usize = 12;
const SI: usize = 13;
const DI: usize = 14;
const ORIG_AX: usize = 15;
const IP: usize = 16;
const SP: usize = 19;

impl Regs {
    #[inline(always)]
    fn word(self, index: usize) -> u64 {
        // SAFETY: a typed pointer plus a constant within `struct pt_regs`.
        unsafe { core::ptr::read_volatile(self.0.add(index)) }
    }

    /// The number of the call.
    #[inline(always)]
    pub fn nr(self) -> u32 {
        self.word(ORIG_AX) as u32
    }

    /// The instruction behind the one that called.
    #[inline(always)]
    pub fn instruction(self) -> u64 {
        self.word(IP)
    }

    /// The stack pointer.
    #[inline(always)]
    pub fn stack(self) -> u64 {
        self.word(SP)
    }

    /// Whether this is one of finject's own test calls: all ones in the first argument, the mark in
    /// the fifth. The first tells it from the caller's other calls, in which the mark may be left
    /// over in the register.
    #[inline(always)]
    pub fn is_test_call(self, compat: bool) -> bool {
        let first = if compat {
            self.word(BX) as u32 == u32::MAX
        } else {
            self.word(DI) == u64::MAX
        };
        first && self.fifth(compat) == CANARY_MARK as u64
    }

    #[inline(always)]
    fn fifth(self, compat: bool) -> u64 {
        if compat {
            self.word(DI) as u32 as u64
        } else {
            self.word(R8)
        }
    }

    /// The six arguments, as the ABI passes them
    /// (arch/x86/include/asm/syscall_wrapper.h).
    #[inline(always)]
    pub fn args(self, compat: bool) -> [u64; 6] {
        if compat {
            [
                self.word(BX) as u32 as u64,
                self.word(CX) as u32 as u64,
                self.word(DX) as u32 as u64,
                self.word(SI) as u32 as u64,
                self.word(DI) as u32 as u64,
                self.word(BP) as u32 as u64,
            ]
        } else {
            [
                self.word(DI),
                self.word(SI),
                self.word(DX),
                self.word(R10),
                self.word(R8),
                self.word(R9),
            ]
        }
    }
}

/// Reads a value of the kernel's memory; zero where it cannot be read.
#[inline(always)]
pub fn read<T: Copy + Default>(base: *const u8, offset: u32) -> T {
    let mut value = T::default();
    // SAFETY: the helper checks the source and fills the value, which is as long as it says.
    unsafe {
        bpf_probe_read_kernel(
            (&raw mut value).cast(),
            size_of::<T>() as u32,
            base.wrapping_add(offset as usize).cast(),
        );
    }
    value
}
