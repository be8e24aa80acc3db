//! Rules that a firing puts in force and out of it, for calls entered after it: as finject does it itself, by the same
//! words (`injector/src/backend/memory.rs`, `arm_rules`).

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use injector_common::limits::MAX_RULES;
use injector_common::{RuleCell, RunState};

use crate::{atomic, maps};

#[repr(C)]
struct Arming {
    rules: u64,
    now_ns: u64,
}

extern "C" fn arm_one(index: u32, arming: *mut Arming) -> i64 {
    let index = index as usize & (MAX_RULES - 1);
    let shared = maps::shared();
    // SAFETY: the helper passes what `fired` gave it; the mapped memory.
    unsafe {
        let bit = 1 << index;
        if (*arming).rules & bit == 0 {
            return 0;
        }
        let control = &raw mut (*shared).control;
        // Whoever else is putting it in force does it.
        if atomic::fetch_or(&raw mut (*control).arming, bit) & bit != 0 {
            return 0;
        }
        if maps::armed() & bit == 0 {
            let cell = &raw mut (*shared).cells[index];
            core::ptr::write_volatile(&raw mut (*cell).chain, 0);
            core::ptr::write_volatile(&raw mut (*cell).scopes, 0);
            core::ptr::write_volatile(&raw mut (*cell).hits, 0);
            // The calls of before are not forgotten.
            let count = atomic::fetch_and(&raw mut (*cell).count, 0);
            atomic::add(&raw mut (*cell).matched, count);
            core::ptr::write_volatile(&raw mut (*cell).armed_ns, (*arming).now_ns);
            atomic::fetch_or(&raw mut (*control).armed, bit);
        }
        atomic::fetch_and(&raw mut (*control).arming, !bit);
    }
    0
}

/// A rule has fired, then. The [`RunState`] after it, as its number.
#[inline(never)]
pub fn fired(cell: *const RuleCell, now_ns: u64) -> u32 {
    let shared = maps::shared();
    // SAFETY: the mapped memory; the masks do not change once the rule was in force.
    unsafe {
        let control = &raw mut (*shared).control;
        let mut arming = Arming {
            rules: (*cell).arms,
            now_ns,
        };
        if arming.rules != 0 {
            bpf_loop(
                MAX_RULES as u32,
                arm_one as *mut c_void,
                (&raw mut arming).cast(),
                0,
            );
        }
        let disarms = (*cell).disarms;
        if disarms != 0 {
            atomic::fetch_and(&raw mut (*control).armed, !disarms);
        }
        // It may have been ended meanwhile, for good.
        let state = core::ptr::read_volatile(&raw const (*control).state);
        if state != RunState::Armed as u32 {
            core::ptr::write_volatile(&raw mut (*control).armed, 0);
        }
        state
    }
}
