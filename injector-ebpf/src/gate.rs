//! Which calls come before a program's own entry point: those that the dynamic loader makes after an
//! exec. They neither count nor fail. From the exec on a process is marked; at each of its matched
//! calls the file that the caller's instruction is mapped from is compared with the loader's, until
//! the first call from elsewhere takes the mark away. Where the loader is the C library too (musl), the
//! program's stack tells. In steady state this is one bit to look at.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_find_vma, bpf_probe_read_user};

use crate::atomic;
use crate::facts::{self, Task};
use crate::maps;

/// `AT_BASE` of include/uapi/linux/auxvec.h: where the loader is mapped; 0 for a static program.
const AT_BASE: u64 = 7;
/// `AT_ENTRY` of the same: the program's entry point.
const AT_ENTRY: u64 = 9;
/// Entries of the auxiliary vector that are looked at: both are among the first twelve of
/// fs/binfmt_elf.c (`create_elf_tables`).
const ENTRIES: u32 = 16;
/// execve and execveat, of the native ABI and of the 32-bit one.
const EXEC: [[u32; 2]; 2] = [[59, 322], [11, 358]];

/// A process has replaced its program.
#[inline(always)]
pub fn begins(tgid: u32) {
    if maps::gated() != 0 {
        // SAFETY: the mapped memory.
        unsafe { atomic::fetch_or(maps::beginning_word(tgid), 1 << (tgid & 63)) };
    }
}

/// A process has begun, or is gone.
#[inline(always)]
pub fn has_begun(tgid: u32) {
    if maps::gated() != 0 {
        // SAFETY: the mapped memory.
        unsafe { atomic::fetch_and(maps::beginning_word(tgid), !(1 << (tgid & 63))) };
    }
}

/// What the auxiliary vector tells of a program.
struct Program {
    /// The address of the loader; 0 where there is none.
    loader: u64,
    /// The address of the entry point.
    entry: u64,
    /// Its words are of 32 bits.
    is_narrow: bool,
}

#[inline(always)]
fn program_of(mm: *const u8) -> Program {
    // A 32-bit program's entries are half as long: where the upper half of the first key is in use, it
    // is the first value.
    let first: u64 = facts::read(mm, maps::off_auxv());
    let is_narrow = first >> 32 != 0;
    let mut program = Program {
        loader: 0,
        entry: 0,
        is_narrow,
    };
    let mut index = 0;
    while index < ENTRIES {
        let (key, value): (u64, u64) = if is_narrow {
            let entry: u64 = facts::read(mm, maps::off_auxv() + 8 * index);
            (entry & 0xffff_ffff, entry >> 32)
        } else {
            (
                facts::read(mm, maps::off_auxv() + 16 * index),
                facts::read(mm, maps::off_auxv() + 16 * index + 8),
            )
        };
        if key == AT_BASE {
            program.loader = value;
        } else if key == AT_ENTRY {
            program.entry = value;
        }
        index += 1;
    }
    program
}

/// Whether a program has begun all of whose calls come from its loader's file. The first instructions of
/// the program, and of the loader before it, call a function, on the stack as the kernel has made it but
/// for its alignment (musl's crt_arch.h of each architecture): where that returns to.
#[inline(always)]
fn has_entered(task: Task, mm: *const u8, program: &Program, loader: u64) -> bool {
    let stack: u64 = facts::read(mm, maps::off_start_stack());
    let mut word = 0_u64;
    let (size, below) = if program.is_narrow { (4, 12) } else { (8, 8) };
    let from = (stack & !15).wrapping_sub(below);
    // SAFETY: the helper checks the source, and fills at most the word.
    let read = unsafe { bpf_probe_read_user((&raw mut word).cast(), size, from as *const c_void) };
    if read != 0 {
        return false;
    }
    match (file_at(task, program.entry), file_at(task, word)) {
        (Some(own), Some(caller)) => own == caller && own != 0 && own != loader,
        _ => false,
    }
}

extern "C" fn file_of(_task: *const u8, area: *const u8, file: *mut u64) -> i64 {
    // SAFETY: the helper passes what `file_at` gave it.
    unsafe { *file = facts::read(area, maps::off_vm_file()) };
    0
}

/// The file that is mapped at an address, as the kernel's pointer to it, 0 for memory without one;
/// [`None`] where the mappings are being changed.
#[inline(always)]
fn file_at(task: Task, address: u64) -> Option<u64> {
    const ENOENT: i64 = -2;
    let mut file = 0_u64;
    // SAFETY: a typed task, a callback of the helper's form, and memory that outlives the call.
    let found = unsafe {
        bpf_find_vma(
            task.address().cast_mut().cast(),
            address,
            file_of as *mut c_void,
            (&raw mut file).cast(),
            0,
        )
    };
    (found == 0 || found == ENOENT).then_some(file)
}

/// Whether the call of a marked process comes before its program's entry point. What the program has
/// begun with takes the mark away.
#[inline(never)]
pub fn holds(tgid: u32, nr: u32, compat: bool) -> bool {
    let task = Task::current();
    let exec = if compat { EXEC[1] } else { EXEC[0] };
    if nr == exec[0] || nr == exec[1] {
        has_begun(tgid); // No loader calls it.
        return false;
    }
    let signal: usize = facts::read(task.address(), maps::off_signal());
    let live: i32 = facts::read(signal as *const u8, maps::off_live());
    // The loader starts no thread.
    if live <= 1 {
        let mm: usize = facts::read(task.address(), maps::off_mm());
        let mm = mm as *const u8;
        let program = program_of(mm);
        if program.loader != 0 {
            let instruction = task.regs().instruction();
            match (file_at(task, program.loader), file_at(task, instruction)) {
                (Some(loader), Some(caller)) if loader != caller || loader == 0 => {}
                (Some(loader), Some(_)) if has_entered(task, mm, &program, loader) => {}
                // Mappings of one thread change while it is in no call of its own only by another
                // process's hand, and not for long.
                _ => return true,
            }
        }
    }
    has_begun(tgid);
    false
}
