//! Delays that are so short that the thread need not be stopped for them: the program spins, and its processor does
//! nothing else meanwhile.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_loop};
use injector_common::random::{Purpose, hash, within};
use injector_common::rule::ACT_DELAY;
use injector_common::{MarkedFiring, WireRule, WireStep};

use crate::maps;

/// Looks at the clock, at most: each takes longer than a nanosecond of the longest delay.
const LOOKS: u32 = 1 << 20;

/// How long a firing's thread is to wait, where that is spun away; 0 where it is not.
#[inline(always)]
pub fn length(rule: &WireRule, step: &WireStep, firing: &MarkedFiring) -> u64 {
    if maps::has_spins() == 0 || step.actions & ACT_DELAY == 0 {
        return 0;
    }
    let (ordinal, count) = (firing.ordinal, firing.count);
    let drawn = drawn(rule, step, ordinal, count);
    if drawn <= maps::spin_ns() { drawn } else { 0 }
}

/// How long it is to wait.
#[inline(never)]
fn drawn(rule: &WireRule, step: &WireStep, ordinal: u64, count: u64) -> u64 {
    let choice = hash(maps::seed(), rule.key, ordinal, count, Purpose::Delay);
    within(choice, step.wait.min_ns, step.wait.max_ns)
}

#[repr(C)]
struct Spin {
    until_ns: u64,
    now_ns: u64,
}

extern "C" fn look(_index: u32, spin: *mut Spin) -> i64 {
    // SAFETY: the helper passes what `spin` gave it.
    unsafe {
        (*spin).now_ns = bpf_ktime_get_ns();
        i64::from((*spin).now_ns >= (*spin).until_ns)
    }
}

/// Spins for so long; how long it was.
#[inline(never)]
pub fn spin(length_ns: u64) -> u64 {
    // SAFETY: no arguments.
    let since_ns = unsafe { bpf_ktime_get_ns() };
    let mut spin = Spin {
        until_ns: since_ns + length_ns,
        now_ns: since_ns,
    };
    // SAFETY: a callback of the helper's form and memory that outlives the loop.
    unsafe { bpf_loop(LOOKS, look as *mut c_void, (&raw mut spin).cast(), 0) };
    spin.now_ns - since_ns
}
