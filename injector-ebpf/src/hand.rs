//! Handing a call to the tracer. A program cannot sleep; a thread that is traced can, wherever a signal stops
//! it. So its call is marked, made to begin anew (`-ERESTARTNOINTR`), and its thread sent a signal that does
//! nothing by itself. The thread stops before it delivers the signal, and stays there as long as the tracer likes;
//! when it goes on, the kernel makes the call again (arch/x86/kernel/signal.c, `arch_do_signal_or_restart`), and the
//! program lets that one through. Without a pending signal the caller would be told errno 513, so that the signal is
//! seen before the call is made to begin anew: a successful send may only mean that it is under way
//! (kernel/trace/bpf_trace.c, `bpf_send_signal_common`).
//!
//! Where the kernel lets no call be overridden, it is marked too, and runs; a program at its exit sends the signal then, so
//! that what comes after the call can be done there all the same.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_get_current_comm;
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_loop, bpf_send_signal_thread};
use injector_common::limits::{MAX_MARKED, MAX_RULES};
use injector_common::mark::{MARK_SIGNAL, Mark, MarkState, MarkedFiring, mark_of};

use crate::facts::{Regs, Task};
use crate::{atomic, maps};

/// How long the signal is waited for, nanoseconds. It comes by an interrupt on this processor.
const WAIT_NS: u64 = 20_000;
/// Looks for it in that time, at most.
const LOOKS: u32 = 1 << 14;

/// A thread's mark.
#[inline(always)]
fn mark(tid: u32) -> *mut Mark {
    // SAFETY: within the array.
    unsafe { &raw mut (*maps::shared()).marks[mark_of(tid)] }
}

#[inline(always)]
fn word(mark: *mut Mark) -> u64 {
    // SAFETY: map memory; volatile, since the tracer changes it.
    unsafe { core::ptr::read_volatile(&raw const (*mark).word) }
}

#[inline(always)]
fn set(mark: *mut Mark, tid: u32, state: MarkState) {
    let word = if matches!(state, MarkState::Free) {
        0
    } else {
        state.word(tid)
    };
    // SAFETY: map memory; volatile, since the tracer reads it. What was written before comes before: the
    // processor keeps the order of stores, and the helper that is called next is opaque to the compiler.
    unsafe { core::ptr::write_volatile(&raw mut (*mark).word, word) };
}

/// Whether the call that a thread enters is one that it had entered already: it is let through.
#[inline(always)]
pub fn is_let_through(tid: u32, abi: u32, regs: Regs) -> bool {
    let mark = mark(tid);
    let found = word(mark);
    if found as u32 != tid {
        return false;
    }
    let state = (found >> 32) as u32;
    if maps::overrides() == 0 && state == MarkState::Runs as u32 {
        // That its thread left a call before was missed, or the faults were over by then.
        if maps::is_armed() {
            lose(mark);
        }
        moves(mark, tid, MarkState::Runs, MarkState::Free);
        return false;
    }
    // Where the tracer died before it had acted, the kernel makes the call again all the same.
    if state != MarkState::Asked as u32 && state != MarkState::Passes as u32 {
        return false;
    }
    // SAFETY: map memory, which is this thread's for now.
    unsafe {
        let is_same = (*mark).nr == regs.nr()
            && (*mark).abi == abi
            && (*mark).instruction == regs.instruction()
            && (*mark).stack == regs.stack();
        // A frame below was left for good, by longjmp(3): the call never comes again.
        let is_stale = regs.stack() > (*mark).stack;
        if is_same || is_stale {
            set(mark, tid, MarkState::Free);
        }
        is_same
    }
}

/// Takes a thread's mark; whether it was free.
#[inline(always)]
pub fn claim(tid: u32) -> bool {
    let mark = mark(tid);
    // SAFETY: map memory.
    unsafe { atomic::compare_exchange(&raw mut (*mark).word, 0, MarkState::Filling.word(tid)) == 0 }
}

/// Gives it back, where it was not handed over.
#[inline(always)]
pub fn give_back(tid: u32) {
    let mark = mark(tid);
    if word(mark) == MarkState::Filling.word(tid) {
        set(mark, tid, MarkState::Free);
    }
}

/// Writes a firing into a claimed mark.
#[inline(always)]
pub fn list(tid: u32, at: u32, firing: MarkedFiring) {
    let mark = mark(tid);
    // SAFETY: map memory, which is this thread's; the index is below its length.
    unsafe { (*mark).firings[at as usize & (MAX_MARKED - 1)] = firing };
}

/// Reads one.
#[inline(always)]
pub fn listed(tid: u32, at: u32) -> MarkedFiring {
    let mark = mark(tid);
    // SAFETY: as for `list`.
    unsafe { (*mark).firings[at as usize & (MAX_MARKED - 1)] }
}

/// Waiting for the signal.
#[repr(C)]
struct Wait {
    until_ns: u64,
    seen: u64,
}

extern "C" fn look(_index: u32, wait: *mut Wait) -> i64 {
    // SAFETY: the helper passes what `hand_over` gave it.
    unsafe {
        if Task::current().has_pending(MARK_SIGNAL) {
            (*wait).seen = 1;
            return 1;
        }
        i64::from(bpf_ktime_get_ns() > (*wait).until_ns)
    }
}

/// Hands a call with so many firings in its claimed mark to the tracer; whether it is to begin anew.
#[inline(never)]
pub fn hand_over(tid: u32, tgid: u32, abi: u32, firings: u32) -> bool {
    let task = Task::current();
    if !task.is_traced() || task.blocks(MARK_SIGNAL) {
        return false;
    }
    if maps::overrides() != 0 && task.has_pending(MARK_SIGNAL) {
        return false;
    }
    let regs = task.regs();
    let mark = mark(tid);
    // SAFETY: map memory, which is this thread's.
    unsafe {
        (*mark).instruction = regs.instruction();
        (*mark).stack = regs.stack();
        (*mark).args = regs.args(abi != 0);
        (*mark).comm = bpf_get_current_comm().unwrap_or_default();
        (*mark).tgid = tgid;
        (*mark).nr = regs.nr();
        (*mark).abi = abi;
        (*mark).firings_len = firings;
    }
    if maps::overrides() == 0 {
        set(mark, tid, MarkState::Runs);
        return true;
    }
    set(mark, tid, MarkState::Asked);
    // SAFETY: no pointers.
    if unsafe { bpf_send_signal_thread(MARK_SIGNAL) } != 0 {
        set(mark, tid, MarkState::Filling);
        return false;
    }
    let mut wait = Wait {
        // SAFETY: no arguments.
        until_ns: unsafe { bpf_ktime_get_ns() } + WAIT_NS,
        seen: 0,
    };
    // SAFETY: a callback of the helper's form and memory that outlives the loop.
    unsafe { bpf_loop(LOOKS, look as *mut c_void, (&raw mut wait).cast(), 0) };
    if wait.seen == 0 {
        set(mark, tid, MarkState::Late);
    }
    wait.seen != 0
}

/// What was to happen after a call does not.
#[inline(always)]
fn lose(mark: *mut Mark) {
    let mut at = 0;
    while at < MAX_MARKED {
        // SAFETY: map memory, indices below their lengths.
        unsafe {
            if at as u32 >= (*mark).firings_len {
                break;
            }
            let rule = (*mark).firings[at].rule as usize & (MAX_RULES - 1);
            atomic::add(&raw mut (*maps::shared()).cells[rule].lost, 1);
        }
        at += 1;
    }
}

/// Moves a thread's mark on; whether it was so until then. The tracer frees marks, too.
#[inline(always)]
fn moves(mark: *mut Mark, tid: u32, from: MarkState, to: MarkState) -> bool {
    let to = if matches!(to, MarkState::Free) {
        0
    } else {
        to.word(tid)
    };
    // SAFETY: map memory.
    unsafe { atomic::compare_exchange(&raw mut (*mark).word, from.word(tid), to) == from.word(tid) }
}

/// A thread leaves a hooked call: it is stopped on its way to its program where something was decided for then. A signal
/// that is pending already stops it, too; the tracer knows by the mark that it is for this. Unlike at a kprobe interrupts
/// are on, so that a signal that is only queued comes before the thread is back in user mode.
#[inline(never)]
pub fn left(tid: u32) -> u32 {
    let mark = mark(tid);
    if word(mark) != MarkState::Runs.word(tid) {
        return 0;
    }
    let task = Task::current();
    // SAFETY: map memory.
    let is_its =
        unsafe { (*mark).nr == task.regs().nr() && (*mark).abi == u32::from(task.is_compat()) };
    if !is_its {
        return 0;
    }
    if !maps::is_armed() {
        moves(mark, tid, MarkState::Runs, MarkState::Free);
        return 0;
    }
    if !moves(mark, tid, MarkState::Runs, MarkState::Ran) {
        return 0;
    }
    // SAFETY: no pointers.
    let is_stopped = task.is_traced()
        && !task.blocks(MARK_SIGNAL)
        && (task.has_pending(MARK_SIGNAL) || unsafe { bpf_send_signal_thread(MARK_SIGNAL) } == 0);
    if !is_stopped {
        lose(mark);
        set(mark, tid, MarkState::Free);
    }
    1
}
