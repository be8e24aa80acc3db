//! Which processes are targets. The set is a bit a process id, so that a process that is none costs
//! one load; what is known of each lies in a table. A child becomes a target at fork, before it can
//! run (`sched_process_fork` comes before `wake_up_new_task` in kernel/fork.c), and a process stops
//! being one when its last thread ends, before its id can be given out again.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_loop};
use injector_common::limits::MAX_RULES;
use injector_common::{EventKind, Scope, ScopeKey, Target};

use crate::atomic;
use crate::emit::emit;
use crate::facts;
use crate::gate;
use crate::maps::{self, SCOPES, TARGETS};

/// `USER_HZ` ticks of /proc/PID/stat, in nanoseconds.
const NS_PER_TICK: u64 = 10_000_000;
/// `BPF_NOEXIST` of include/uapi/linux/bpf.h.
const NO_EXIST: u64 = 1;

#[inline(always)]
fn note(kind: EventKind, count: u64, value: i64) {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if !emit(kind, now, count, value, None) {
        // SAFETY: the mapped memory.
        unsafe { atomic::add(&raw mut (*maps::shared()).control.notes_dropped, 1) };
    }
}

/// `sched_process_fork(parent, child)`: in the parent, before the child runs.
#[inline(always)]
pub fn forked(parent: *const u8, child: *const u8) {
    if maps::follow() == 0 {
        return;
    }
    let parent_tgid: u32 = facts::read(parent, maps::off_tgid());
    if !maps::is_target(parent_tgid) {
        return;
    }
    let tgid: u32 = facts::read(child, maps::off_tgid());
    if tgid == parent_tgid {
        return; // A thread: its process is a target already.
    }
    let shared = maps::shared();
    let start: u64 = facts::read(child, maps::off_start());
    // SAFETY: the mapped memory.
    let ordinal = unsafe { atomic::fetch_add(&raw mut (*shared).control.targets_seen, 1) };
    let target = Target {
        start_ticks: start / NS_PER_TICK,
        ordinal,
    };
    if TARGETS.insert(tgid, target, NO_EXIST).is_err() {
        // SAFETY: the mapped memory.
        unsafe { atomic::add(&raw mut (*shared).control.targets_lost, 1) };
        return;
    }
    // SAFETY: the mapped memory.
    unsafe { atomic::fetch_or(maps::target_word(tgid), 1 << (tgid & 63)) };
    note(EventKind::Started, u64::from(tgid), 0);
}

/// Whose counters are let go.
#[repr(C)]
struct Leaving {
    scope: u32,
    id: u32,
    start_ns: u64,
}

extern "C" fn drop_counter(index: u32, leaving: *mut Leaving) -> i64 {
    // SAFETY: the helper passes what `drop_counters` gave it; the mapped memory.
    unsafe {
        let index = index as usize & (MAX_RULES - 1);
        let shared = maps::shared();
        let scope = core::ptr::read_volatile(&raw const (*shared).rules[index].scope);
        if scope == (*leaving).scope {
            let key = ScopeKey {
                rule: index as u32,
                id: (*leaving).id,
                start_ns: (*leaving).start_ns,
                armed_ns: core::ptr::read_volatile(&raw const (*shared).cells[index].armed_ns),
            };
            let _ = SCOPES.remove(key);
        }
    }
    0
}

/// Lets the counters of an ended process or thread go, so that the table holds those that live.
#[inline(always)]
fn drop_counters(scope: Scope, id: u32, start_ns: u64) {
    let mut leaving = Leaving {
        scope: scope as u32,
        id,
        start_ns,
    };
    // SAFETY: a callback of the helper's form and memory that outlives the loop.
    unsafe {
        bpf_loop(
            MAX_RULES as u32,
            drop_counter as *mut c_void,
            (&raw mut leaving).cast(),
            0,
        );
    }
}

/// `sched_process_exit(task)`: in the ending thread.
#[inline(always)]
pub fn exited(task: *const u8) {
    let tgid: u32 = facts::read(task, maps::off_tgid());
    if !maps::is_target(tgid) || tgid == maps::canary_tgid() {
        return;
    }
    if maps::has_scopes() != 0 {
        let tid = bpf_get_current_pid_tgid() as u32;
        drop_counters(Scope::Thread, tid, facts::read(task, maps::off_start()));
    }
    let signal: *const u8 = facts::read::<usize>(task, maps::off_signal()) as *const u8;
    let live: i32 = facts::read(signal, maps::off_live());
    if live != 0 {
        return; // Other threads go on.
    }
    // SAFETY: the mapped memory.
    unsafe {
        atomic::fetch_and(maps::target_word(tgid), !(1 << (tgid & 63)));
        atomic::add(&raw mut (*maps::shared()).control.targets_exited, 1);
    }
    let _ = TARGETS.remove(tgid);
    gate::has_begun(tgid);
    if maps::has_scopes() != 0 {
        let leader = facts::read::<usize>(task, maps::off_leader()) as *const u8;
        drop_counters(Scope::Process, tgid, facts::read(leader, maps::off_start()));
    }
    let group: i32 = facts::read(signal, maps::off_group_exit());
    let own: i32 = facts::read(task, maps::off_exit_code());
    note(
        EventKind::Exited,
        u64::from(tgid),
        i64::from(if group != 0 { group } else { own }),
    );
}

/// `sched_process_exec(task, old_pid, bprm)`: in the task, after the new program is in place. A command
/// that finject launches is a target from here on.
#[inline(always)]
pub fn execed(task: *const u8) {
    let tgid: u32 = facts::read(task, maps::off_tgid());
    if maps::is_target(tgid) {
        gate::begins(tgid);
        note(EventKind::Execed, u64::from(tgid), 0);
    } else if maps::is_launched(tgid) {
        gate::begins(tgid);
        // SAFETY: the mapped memory.
        unsafe { atomic::fetch_or(maps::target_word(tgid), 1 << (tgid & 63)) };
    }
}
