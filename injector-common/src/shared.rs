//! The memory that both sides see: finject maps it, the kernel program reads and counts in it. In
//! steady state no system call is needed on either side.

use crate::args::ArgKinds;
use crate::limits::{ABIS, MAX_NR, MAX_RULES, PID_LIMIT};
use crate::rule::WireRule;

/// Whether the program acts. Stored in [`Control::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RunState {
    /// Attached, not yet in force: nothing is counted.
    Idle = 0,
    /// In force.
    Armed = 1,
    /// Ended, by finject or by a lapsed lease; never armed again.
    Off = 2,
}

/// What finject tells the program, and what the program tells of all rules together.
#[derive(Debug)]
#[repr(C)]
pub struct Control {
    /// A [`RunState`] as its number. Written by finject; by the program only to `Off`.
    pub state: u32,
    /// 1 once the program found the lease lapsed.
    pub lapsed: u32,
    /// `CLOCK_MONOTONIC` until which the program may inject, nanoseconds.
    pub lease_ns: u64,
    /// `CLOCK_MONOTONIC` of arming, nanoseconds.
    pub armed_ns: u64,
    /// Children that could not become targets because the table was full.
    pub targets_lost: u64,
    /// Records other than firings that found no room in the ring buffer.
    pub notes_dropped: u64,
    /// Target processes that were met: the ordinal of the next one.
    pub targets_seen: u64,
    /// Target processes that ended.
    pub targets_exited: u64,
    /// The command that finject launches, which is a target from its exec on; 0 for none.
    pub launched: u64,
}

/// One rule's counter and tallies. Its own two cache lines, so that rules do not slow each other.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct RuleCell {
    /// Matching calls of `per:rule`: the counter's first word.
    pub count: u64,
    /// The counter's second word, see [`mod@crate::decide`].
    pub chain: u64,
    /// Matching calls, whatever the scope; for `per:rule` it is `count` that tells.
    pub matched: u64,
    /// Firings that were carried out (in a dry run: that would have been).
    pub fired: u64,
    /// Firings whose record found no room in the ring buffer.
    pub dropped: u64,
    /// Results that lost against an earlier rule's.
    pub shadowed: u64,
    /// Firings that could not be carried out: the signal could not be sent.
    pub lost: u64,
    /// Calls that lost every race for the chain's position, and passed.
    pub contended: u64,
    /// Calls that passed because the table of scopes was full.
    pub scopes_full: u64,
    /// Scopes met: the ordinal of the next one.
    pub scopes: u64,
    /// Calls that the rule names, and whose arguments it is not about.
    pub excluded: u64,
    /// `CLOCK_MONOTONIC` of the first firing, nanoseconds; 0 before it.
    pub first_ns: u64,
    /// `CLOCK_MONOTONIC` of the last firing, nanoseconds.
    pub last_ns: u64,
}

/// The whole of the mapped memory. One map, so that the program reaches all of it by constant
/// addresses.
#[derive(Debug)]
#[repr(C)]
pub struct Shared {
    /// Both sides' switches.
    pub control: Control,
    /// Room that puts the first cell on a 128-byte boundary.
    pub reserved: [u64; 8],
    /// One cell a rule, by the rule's index in the plan.
    pub cells: [RuleCell; MAX_RULES],
    /// The rules, by index. Written before anything is attached.
    pub rules: [WireRule; MAX_RULES],
    /// For each ABI and number (index `abi * MAX_NR + nr`) a bit for each rule that names the call.
    /// Written before anything is attached.
    pub calls: [u64; (ABIS * MAX_NR) as usize],
    /// For each ABI and number, as in `calls`, how its arguments are read; set where a rule that
    /// looks at them names the call. Written before anything is attached.
    pub kinds: [ArgKinds; (ABIS * MAX_NR) as usize],
    /// One bit a process id: is it a target?
    pub targets: [u64; PID_LIMIT as usize / 64],
    /// One bit a process id: is it between an exec and its program's first call? Set and cleared by
    /// the program alone.
    pub beginning: [u64; PID_LIMIT as usize / 64],
}

/// A target process, by its process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Target {
    /// When it started, in the unit of field 22 of /proc/PID/stat (hundredths of a second since
    /// boot): with the process id it tells a process from a later one of the same id.
    pub start_ticks: u64,
    /// In which order it became a target, from 0.
    pub ordinal: u64,
}

/// Whose counter: the key of the table of `per:process` and `per:thread` counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ScopeKey {
    /// The rule's index in the plan.
    pub rule: u32,
    /// Process id or thread id.
    pub id: u32,
    /// The process's or thread's start, nanoseconds since boot.
    pub start_ns: u64,
}

/// The counter of one process or thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ScopeCell {
    /// The counter's first word.
    pub count: u64,
    /// The counter's second word.
    pub chain: u64,
    /// In which order the rule met its scopes, from 0.
    pub ordinal: u64,
}

const _: () = assert!(size_of::<Control>() == 64);
const _: () = assert!(size_of::<RuleCell>() == 128);
const _: () = assert!(core::mem::offset_of!(Shared, cells) == 128);

/// The error that finject's own test calls get while hooks are in place: within the range of
/// errors (include/linux/err.h ends at 4095), and no errno of Linux.
pub const CANARY_ERRNO: i64 = 4093;

/// The fifth argument of finject's own test calls, whose first argument is all ones.
pub const CANARY_MARK: u32 = 0x666a_6361;
