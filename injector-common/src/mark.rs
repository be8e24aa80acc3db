//! A call that the kernel program hands to the tracer, since what is to happen needs a thread that is held:
//! the program marks it, has it begin anew, and stops its thread; the tracer does what was decided, and lets
//! the call through. Where no call can be made to begin anew, it runs, and its thread is stopped when it leaves it. One mark a thread, in the mapped memory, by the thread's id.

use crate::limits::{MARKS, MAX_MARKED};

/// The signal by which the program stops a thread, SIGWINCH: it does nothing where no handler was asked for, and
/// hardly anybody sends it to a single thread, so that it is not merged with one of the program's own (signals
/// below 32 do not queue).
pub const MARK_SIGNAL: u32 = 28;

/// What makes the kernel make a call again, whatever handler runs before: `-ERESTARTNOINTR` (include/linux/errno.h).
pub const RESTART: i64 = -513;

/// What a mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MarkState {
    /// Nothing.
    Free = 0,
    /// The program fills it in.
    Filling = 1,
    /// The thread is on its way to its stop, or there, and the tracer is to act.
    Asked = 2,
    /// The call is let through when it comes again, and not counted.
    Passes = 3,
    /// The thread was not stopped in time, and its call runs: the signal that comes late is nobody's.
    Late = 4,
    /// The call runs, and the thread is stopped when it leaves it: where calls cannot be made to begin anew.
    Runs = 5,
    /// The call has run, the thread is on its way to its stop, or there, and the tracer is to act.
    Ran = 6,
}

impl MarkState {
    /// The state that a number means; [`MarkState::Free`] for one that means none.
    pub const fn from_wire(number: u32) -> Self {
        match number {
            1 => Self::Filling,
            2 => Self::Asked,
            3 => Self::Passes,
            4 => Self::Late,
            5 => Self::Runs,
            6 => Self::Ran,
            _ => Self::Free,
        }
    }

    /// A mark's first word, for a thread.
    #[inline(always)]
    pub const fn word(self, tid: u32) -> u64 {
        (self as u64) << 32 | tid as u64
    }
}

/// A rule that has fired on the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MarkedFiring {
    /// The rule's index in the plan.
    pub rule: u32,
    /// The step's index in the rule's chain.
    pub step: u32,
    /// The call's number within its scope.
    pub count: u64,
    /// The scope's ordinal.
    pub ordinal: u64,
    /// When it was decided, `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
}

/// The mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Mark {
    /// The thread in the low half, a [`MarkState`] in the high one.
    pub word: u64,
    /// Behind the instruction by which it called.
    pub instruction: u64,
    /// Its stack pointer. A handler's calls have another one.
    pub stack: u64,
    /// The arguments as the registers held them.
    pub args: [u64; 6],
    /// The thread's name, NUL-padded.
    pub comm: [u8; 16],
    /// The process.
    pub tgid: u32,
    /// The call's number.
    pub nr: u32,
    /// 1 for the 32-bit ABI, else 0.
    pub abi: u32,
    /// How many of `firings` are in use.
    pub firings_len: u32,
    /// What has fired, in the rules' order.
    pub firings: [MarkedFiring; MAX_MARKED],
}

/// A thread's mark, by its index.
#[inline(always)]
pub const fn mark_of(tid: u32) -> usize {
    tid as usize & (MARKS - 1)
}

const _: () = assert!(MARKS.is_power_of_two() && MAX_MARKED.is_power_of_two());
const _: () = assert!(size_of::<Mark>() == 104 + 32 * MAX_MARKED);
