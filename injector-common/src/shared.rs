//! The memory that both sides see: finject maps it, the kernel program reads and counts in it. In
//! steady state no system call is needed on either side.

use crate::args::ArgKinds;
use crate::glob::WireGlob;
use crate::limits::{ABIS, MARKS, MAX_NR, MAX_PATH_TESTS, MAX_RULES, PID_LIMIT};
use crate::mark::Mark;
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
    /// A bit for each rule in force; 0 unless `state` is `Armed`.
    pub armed: u64,
    /// A [`Turn`] as its word. Written by finject.
    pub turn: u64,
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
    /// Rules that are being put in force, a bit each: whoever sets a bit does it.
    pub arming: u64,
    /// How many rules were written, by index.
    pub rules: u64,
    /// The number of the first program that met a test call since this was 0.
    pub tested_by: u64,
    /// 1 once its caller has left one since this was 0, where programs hang on exits.
    pub test_left: u64,
}

/// Which entry program decides. There are two only while one takes another's place: both hang on each function then, a
/// call runs them one behind the other, and exactly one of them has to decide it.
///
/// From `Of(a)` it comes to `Of(b)` by the steps of [`Turn::way`]; between them, and before the first program goes, whatever
/// ran before has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The program of this number, which counts from 1.
    Of(u32),
    /// The same, while it is about to change or has just changed.
    Changing {
        /// The program whose turn it is.
        to: u32,
        /// The one of the two that runs first for each call.
        first: u32,
        /// The one that takes the other's place: what was left by programs before those two is told by it.
        successor: u32,
    },
}

impl Turn {
    /// As [`Control::turn`] holds it.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        match self {
            Self::Of(program) => (program as u64) << 2,
            Self::Changing {
                to,
                first,
                successor,
            } => {
                (successor as u64) << SUCCESSOR | (to as u64) << 2 | ((first == to) as u64) << 1 | 1
            }
        }
    }

    /// The steps by which a program takes another's place.
    pub const fn way(old: u32, new: u32, first: u32) -> [Self; 3] {
        let successor = new;
        [
            Self::Changing {
                to: old,
                first,
                successor,
            },
            Self::Changing {
                to: new,
                first,
                successor,
            },
            Self::Of(new),
        ]
    }
}

/// Where the number of the program that takes another's place stands in the word of a turn.
const SUCCESSOR: u32 = 34;

/// What the first of two programs that run for the same call leaves for the second one, which runs right after it, on the
/// same processor: one for each processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Shift {
    /// The caller, as the kernel's helper gives it: process and thread. 0 where nothing is left.
    pub caller: u64,
    /// The call's number, 1 shifted by 32 for the 32-bit ABI, and the number of the program that takes the other's place
    /// shifted by 33.
    pub call: u64,
    /// 1 where the first one decides the call.
    pub decides: u64,
}

impl Shift {
    /// Nothing is left.
    pub const NONE: Self = Self {
        caller: 0,
        call: 0,
        decides: 0,
    };

    /// Whether a program decides a call, where `word` is that of [`Turn::Changing`].
    #[inline(always)]
    pub fn decides(&mut self, word: u64, program: u32, caller: u64, call: u64) -> bool {
        let is_its_turn = (word >> 2) as u32 == program;
        let first_has_turn = word >> 1 & 1 != 0;
        let call = call | (word >> SUCCESSOR) << 33;
        if is_its_turn == first_has_turn {
            *self = Self {
                caller,
                call,
                decides: u64::from(is_its_turn),
            };
            return is_its_turn;
        }
        if self.caller != caller || self.call != call {
            // The first one had not begun to tell.
            return is_its_turn;
        }
        self.caller = 0;
        self.decides == 0
    }
}

/// What finject asks of whoever holds threads: that some are let go. One request at a time.
#[derive(Debug)]
#[repr(C)]
pub struct Release {
    /// How many requests there were; written by finject, behind the rest of this one.
    pub asked: u64,
    /// How many of them are done; written by whoever holds threads, behind what came of it.
    pub done: u64,
    /// The rules whose threads are meant, a bit each.
    pub rules: u64,
    /// At most so many threads, those first that have waited longest.
    pub most: u64,
    /// A [`Released`] as its number.
    pub with: u64,
    /// What the calls give, with [`Released::Result`].
    pub value: i64,
    /// How many threads were let go.
    pub number: u64,
}

/// What the call of a thread that is let go comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Released {
    /// What the rest of the rule's step says.
    Rest = 0,
    /// It runs, as if the rule had not fired.
    Run = 1,
    /// It does not run, and gives [`Release::value`].
    Result = 2,
}

impl Released {
    /// The meaning of a number; that of the first for one that has none.
    pub const fn from_wire(number: u64) -> Self {
        match number {
            1 => Self::Run,
            2 => Self::Result,
            _ => Self::Rest,
        }
    }
}

/// One rule's counter and tallies. Cache lines of its own, so that rules do not slow each other.
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
    /// Firings of which a part could not be carried out: a signal could not be sent, say.
    pub lost: u64,
    /// Calls that lost every race for the chain's position, and passed.
    pub contended: u64,
    /// Calls that passed because the table of scopes was full.
    pub scopes_full: u64,
    /// Scopes met: the ordinal of the next one.
    pub scopes: u64,
    /// Calls that the rule names, and whose arguments it is not about.
    pub excluded: u64,
    /// Firings whose result, meant for a success, met a call that failed by itself.
    pub moot: u64,
    /// Selected calls of which nothing could be cut, or that move no data.
    pub dataless: u64,
    /// Calls that passed because their files or sockets could not be looked at.
    pub unseen: u64,
    /// `CLOCK_MONOTONIC` of the first firing, nanoseconds; 0 before it.
    pub first_ns: u64,
    /// `CLOCK_MONOTONIC` of the last firing, nanoseconds.
    pub last_ns: u64,
    /// The rules that a firing puts in force, a bit each. Written before the rule is in force for the first time.
    pub arms: u64,
    /// Those that it takes out of force.
    pub disarms: u64,
    /// `CLOCK_MONOTONIC` of arming, nanoseconds: counts begin at 1 from there, and the counters of
    /// processes and threads are others.
    pub armed_ns: u64,
    /// Threads that wait now, since the rule says so.
    pub waiting: u64,
    /// Firings since the rule was armed: of one that waits from the beginning of its wait on, of another one
    /// once it was carried out.
    pub hits: u64,
}

/// The whole of the mapped memory. One map, so that the program reaches all of it by constant
/// addresses.
#[derive(Debug)]
#[repr(C)]
pub struct Shared {
    /// Both sides' switches.
    pub control: Control,
    /// Of threads that wait.
    pub release: Release,
    /// One cell a rule, by the rule's index in the plan.
    pub cells: [RuleCell; MAX_RULES],
    /// The rules, by index. Each is written once, before it is in force for the first time.
    pub rules: [WireRule; MAX_RULES],
    /// For each ABI and number (index `abi * MAX_NR + nr`) a bit for each rule that names the call.
    /// Changed for rules that are out of force.
    pub calls: [u64; (ABIS * MAX_NR) as usize],
    /// For each ABI and number, as in `calls`, how its arguments are read; set where a rule that
    /// looks at them names the call. Written before such a rule is in force for the first time.
    pub kinds: [ArgKinds; (ABIS * MAX_NR) as usize],
    /// One bit a process id: is it a target?
    pub targets: [u64; PID_LIMIT as usize / 64],
    /// Calls that are handed to the tracer, by [`crate::mark::mark_of`] their threads.
    pub marks: [Mark; MARKS],
    /// One bit a process id: is it between an exec and its program's first call? Set and cleared by
    /// the program alone.
    pub beginning: [u64; PID_LIMIT as usize / 64],
    /// The patterns of rules' tests of files, by rule and test. Written as the rules are.
    pub globs: [[WireGlob; MAX_PATH_TESTS]; MAX_RULES],
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
    /// When the rule was armed, [`RuleCell::armed_ns`].
    pub armed_ns: u64,
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

const _: () = assert!(size_of::<Control>() == 104);
const _: () = assert!(size_of::<RuleCell>() == 256);
const _: () = assert!(core::mem::offset_of!(Shared, cells) == 256);

/// The error that finject's own test calls get while hooks are in place: within the range of
/// errors (include/linux/err.h ends at 4095), and no errno of Linux.
pub const CANARY_ERRNO: i64 = 4093;

/// The fifth argument of finject's own test calls, whose first argument is all ones.
pub const CANARY_MARK: u32 = 0x666a_6361;
