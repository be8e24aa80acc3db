//! The record that the kernel program leaves of what it did, as it lies in the ring buffer.

/// What a record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// A rule fired on a call.
    Fired = 1,
    /// A target had a child, which is a target from its first instruction on.
    Started = 2,
    /// The last thread of a target ended. [`Event::value`] is its wait status.
    Exited = 3,
    /// A target replaced its program; [`Event::comm`] is the new name.
    Execed = 4,
}

impl EventKind {
    /// The kind of a record, [`None`] for one that this version does not know.
    pub const fn from_wire(kind: u32) -> Option<Self> {
        Some(match kind {
            1 => Self::Fired,
            2 => Self::Started,
            3 => Self::Exited,
            4 => Self::Execed,
            _ => return None,
        })
    }
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// An [`EventKind`] as its number.
    pub kind: u32,
    /// The rule's index in the plan, for a firing.
    pub rule: u32,
    /// The call's number within its scope, from 1; for `Started` the child's process id.
    pub count: u64,
    /// The ordinal of the scope in which it was counted; 0 for `per:rule`.
    pub ordinal: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// The process, as the initial pid namespace numbers it.
    pub tgid: u32,
    /// The thread, as the initial pid namespace numbers it.
    pub tid: u32,
    /// The thread's name, NUL-padded.
    pub comm: [u8; 16],
    /// 1 for the 32-bit ABI, else 0.
    pub abi: u32,
    /// The call's number in that ABI.
    pub nr: u32,
    /// The call's arguments as the registers held them.
    pub args: [u64; 6],
    /// The `ACT_*` bits that were carried out.
    pub actions: u32,
    /// The signal that was sent, with `ACT_SIGNAL`.
    pub signal: u32,
    /// What the caller saw, with `ACT_RESULT` or `ACT_AFTER_RESULT`.
    pub value: i64,
    /// How long the thread waited before its call, nanoseconds.
    pub delay_ns: u64,
    /// How long it waited after its call, nanoseconds.
    pub after_delay_ns: u64,
    /// The signal that was sent after the call, with `ACT_AFTER_SIGNAL`.
    pub after_signal: u32,
    /// How many bits were chosen, with `ACT_CORRUPT` (see [`crate::random::flipped`]).
    pub bits: u16,
    /// How many of those, in their order, were in what the call moved.
    pub flipped: u16,
    /// To how many bytes the call was cut, with `ACT_SHORT`; among how many bytes' bits was chosen, with
    /// `ACT_CORRUPT`.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Event>() == 160);
