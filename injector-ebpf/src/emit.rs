//! Leaving a record. A record that finds no room is counted by whoever wanted to leave it.

use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid};
use injector_common::{Event, EventKind};

use crate::maps::EVENTS;

/// What a firing adds to a record.
pub struct Firing {
    /// 1 for the 32-bit ABI, else 0.
    pub abi: u32,
    /// The call's number.
    pub nr: u32,
    /// The call's arguments.
    pub args: [u64; 6],
    /// The rule's index.
    pub rule: u32,
    /// The scope's ordinal.
    pub ordinal: u64,
    /// The `ACT_*` bits carried out.
    pub actions: u32,
    /// The signal sent.
    pub signal: u32,
    /// How long the thread waited, nanoseconds.
    pub delay_ns: u64,
}

/// Leaves a record of the current task; false where there was no room.
#[inline(always)]
pub fn emit(
    kind: EventKind,
    mono_ns: u64,
    count: u64,
    value: i64,
    firing: Option<&Firing>,
) -> bool {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        return false;
    };
    let pid_tgid = bpf_get_current_pid_tgid();
    let comm = bpf_get_current_comm().unwrap_or_default();
    let event = entry.as_mut_ptr();
    // SAFETY: the reserved record, written field by field: a literal would be built on the stack.
    unsafe {
        (*event).kind = kind as u32;
        (*event).count = count;
        (*event).mono_ns = mono_ns;
        (*event).tgid = (pid_tgid >> 32) as u32;
        (*event).tid = pid_tgid as u32;
        (*event).comm = comm;
        (*event).value = value;
        (*event).after_delay_ns = 0;
        (*event).after_signal = 0;
        (*event).bits = 0;
        (*event).flipped = 0;
        (*event).bytes = 0;
        match firing {
            Some(firing) => {
                (*event).rule = firing.rule;
                (*event).ordinal = firing.ordinal;
                (*event).abi = firing.abi;
                (*event).nr = firing.nr;
                (*event).args = firing.args;
                (*event).actions = firing.actions;
                (*event).signal = firing.signal;
                (*event).delay_ns = firing.delay_ns;
            }
            None => {
                (*event).rule = 0;
                (*event).ordinal = 0;
                (*event).abi = 0;
                (*event).nr = 0;
                (*event).args = [0; 6];
                (*event).actions = 0;
                (*event).signal = 0;
                (*event).delay_ns = 0;
            }
        }
    }
    entry.submit(0);
    true
}
