//! Which rules are about a call: by its arguments, by who calls, by its files and its socket.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use injector_common::limits::{MAX_PATH_TESTS, MAX_RULES};
use injector_common::{WireCallerTest, WireRule, all_hold, is_called_by};

use crate::facts::Task;
use crate::{atomic, files, maps, sockets};

/// The position of the lowest set bit, as an index that the verifier accepts. The target counts
/// zeros by a table that it does not know; and since LLVM knows the result to be below 64 and drops
/// the mask, the position takes a way through memory before it is masked.
#[inline(always)]
pub fn lowest_bit(word: u64) -> usize {
    let position = word.trailing_zeros();
    // SAFETY: a local.
    let position = unsafe { core::ptr::read_volatile(&raw const position) };
    position as usize & (MAX_RULES - 1)
}

/// Whether the call's arguments are those that the rule asks for.
#[inline(never)]
pub fn is_about(rule: &WireRule, compat: bool, nr: u32) -> bool {
    let args = Task::current().regs().args(compat);
    all_hold(rule, maps::kinds_of(compat, nr), &args)
}

/// Whether a test of who calls holds. Apart, one by one, for the sake of the stack.
pub fn holds(test: &WireCallerTest) -> bool {
    is_by(test) != 0
}

#[inline(never)]
fn is_by(test: &WireCallerTest) -> u32 {
    u32::from(test.holds(Task::current().caller(test.fact)))
}

/// The rules of a call that are left when its files and its socket have been looked at.
#[repr(C)]
struct Sift {
    /// Those still to be looked at, a bit each.
    unsifted: u64,
    left: u64,
    abi: u32,
    nr: u32,
    /// The descriptor that the call is given.
    fd: u32,
    /// The test of the first of them that is next.
    test: u32,
}

/// Leaves those rules that are about the call's files and socket, or about no such thing at all. By itself, and with no trace
/// on its caller's stack: the verifier goes once through what comes behind it.
#[inline(never)]
pub fn sift(rules: u64, abi: u32, nr: u32, tgid: u32) -> u64 {
    let mut sift = Sift {
        unsifted: rules,
        left: rules,
        abi,
        nr,
        fd: files::descriptor(abi, nr),
        // See `InCall::decided`.
        test: tgid >> 31,
    };
    // SAFETY: a callback of the helper's form and memory that outlives the loop.
    unsafe {
        bpf_loop(
            (MAX_RULES * (MAX_PATH_TESTS + 1)) as u32,
            sift_callback as *mut c_void,
            (&raw mut sift).cast(),
            0,
        );
    }
    sift.left
}

/// One test of a rule. All in one loop, since the verifier goes several times through a loop within a loop.
extern "C" fn sift_callback(_index: u32, sift: *mut Sift) -> i64 {
    // SAFETY: the helper passes what `sift` gave it.
    let sift = unsafe { &mut *sift };
    if sift.unsifted == 0 {
        return 1;
    }
    let index = lowest_bit(sift.unsifted);
    let shared = maps::shared();
    // SAFETY: the mapped memory, the index below MAX_RULES; a rule does not change once it was in force.
    let (rule, cell) = unsafe { (&(*shared).rules[index], &raw mut (*shared).cells[index]) };
    let at = sift.test as usize;
    let mut found = files::PASSES;
    let mut is_last = true;
    // What costs less is asked first; of what does not hold `next_rule` takes note.
    if at != 0 || is_of_call(rule, sift.abi, sift.nr) {
        let test = rule.paths[at & (MAX_PATH_TESTS - 1)];
        if maps::has_paths() != 0 && at < MAX_PATH_TESTS && test.op != 0 {
            let place = (index * MAX_PATH_TESTS + at) as u32;
            found = files::look(test, place, sift.fd);
            sift.test += 1;
            is_last = false;
        } else if maps::has_sockets() != 0 && rule.has_sockets() {
            found = sockets::hold(index as u32, sift.abi, sift.nr);
        }
    }
    if found != files::PASSES {
        sift.left &= !(1 << index);
        is_last = true;
        // SAFETY: the mapped memory.
        unsafe {
            if found == files::UNSEEN {
                atomic::add(&raw mut (*cell).unseen, 1);
            } else {
                atomic::add(&raw mut (*cell).excluded, 1);
            }
        }
    }
    if is_last {
        sift.unsifted &= sift.unsifted.wrapping_sub(1);
        sift.test = 0;
    }
    0
}

/// Whether the call's arguments and its caller are those that a rule asks for.
#[inline(always)]
fn is_of_call(rule: &WireRule, abi: u32, nr: u32) -> bool {
    (maps::has_tests() == 0 || !rule.has_tests() || is_about(rule, abi != 0, nr))
        && (maps::has_callers() == 0 || !rule.has_callers() || is_called_by(rule, holds))
}
