//! The wire form of a rule: fixed size, no pointers, no padding, the same bytes on both sides. It
//! is made from a resolved rule by lowering and never changes while it is in force.

use crate::args::WireTest;
use crate::caller::WireCallerTest;
use crate::glob::WirePathTest;
use crate::limits::{MAX_CALLER_TESTS, MAX_PATH_TESTS, MAX_SOCKET_TESTS, MAX_STEPS, MAX_TESTS};
use crate::random::CERTAIN;
use crate::socket::WireSocketTest;

/// Whose calls are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Scope {
    /// All targets together.
    Rule = 0,
    /// Each process by itself.
    Process = 1,
    /// Each thread by itself.
    Thread = 2,
}

/// The call does not run; the caller gets [`WireStep::value`].
pub const ACT_RESULT: u32 = 1;
/// The process gets SIGKILL, and the call does not run.
pub const ACT_KILL: u32 = 1 << 1;
/// The calling thread gets [`WireStep::signal`].
pub const ACT_SIGNAL: u32 = 1 << 2;
/// The calling thread waits, as [`WireStep::wait`] says.
pub const ACT_DELAY: u32 = 1 << 3;
/// The calling thread waits until it is released, at most as long as [`WireStep::wait`] says.
pub const ACT_HOLD: u32 = 1 << 4;
/// The call runs with a length that [`WireStep::kept`] tells.
pub const ACT_SHORT: u32 = 1 << 5;
/// So many bits as [`WireStep::edit`] says of the data are others.
pub const ACT_CORRUPT: u32 = 1 << 6;
/// All threads of the process are held until they are released; the calling one waits as by [`ACT_HOLD`].
pub const ACT_STOP: u32 = 1 << 7;
/// A success is replaced by [`WireStep::value`].
pub const ACT_AFTER_RESULT: u32 = 1 << 8;
/// The process gets SIGKILL once the call has run.
pub const ACT_AFTER_KILL: u32 = 1 << 9;
/// The calling thread gets [`WireStep::after_signal`] once the call has run.
pub const ACT_AFTER_SIGNAL: u32 = 1 << 10;
/// As [`ACT_DELAY`], once the call has run; see [`WireStep::after_wait`].
pub const ACT_AFTER_DELAY: u32 = 1 << 11;
/// As [`ACT_HOLD`], once the call has run; see [`WireStep::after_wait`].
pub const ACT_AFTER_HOLD: u32 = 1 << 12;

/// The actions that decide what the caller gets. Of the rules that fire on one call, the first with
/// one of these wins.
pub const ACT_DECIDES: u32 = ACT_RESULT | ACT_KILL | ACT_AFTER_RESULT | ACT_AFTER_KILL;
/// The actions for which the call does not run.
pub const ACT_REPLACES: u32 = ACT_RESULT | ACT_KILL;
/// The actions for which a thread waits before its call.
pub const ACT_WAITS: u32 = ACT_DELAY | ACT_HOLD | ACT_STOP;
/// The actions for which a thread waits after its call.
pub const ACT_AFTER_WAITS: u32 = ACT_AFTER_DELAY | ACT_AFTER_HOLD;
/// The actions that change what a call moves.
pub const ACT_EDITS: u32 = ACT_SHORT | ACT_CORRUPT;
/// The actions for which a thread has to be held, that no program in the kernel can carry out.
pub const ACT_HELD: u32 = ACT_WAITS | ACT_EDITS | ACT_AFTER;
/// The actions that come once the call has run.
pub const ACT_AFTER: u32 = ACT_AFTER_RESULT | ACT_AFTER_KILL | ACT_AFTER_SIGNAL | ACT_AFTER_WAITS;

/// How long a thread waits, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct WireWait {
    /// At least.
    pub min_ns: u64,
    /// At most. Between the two, the seed says.
    pub max_ns: u64,
}

impl WireWait {
    /// No wait.
    pub const NONE: Self = Self {
        min_ns: 0,
        max_ns: 0,
    };
}

/// One step of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct WireStep {
    /// The chain position before which the step ends, at most [`WireStep::FOREVER`], which is never.
    pub until: u64,
    /// What the caller gets, with [`ACT_RESULT`] or [`ACT_AFTER_RESULT`]: `-errno`, or a value from 0
    /// up.
    pub value: i64,
    /// The wait before the call, with one of [`ACT_WAITS`].
    pub wait: WireWait,
    /// The wait after the call, with [`ACT_AFTER_DELAY`] or [`ACT_AFTER_HOLD`].
    pub after_wait: WireWait,
    /// The `ACT_*` bits; 0 is `off`.
    pub actions: u32,
    /// The signal's number, with [`ACT_SIGNAL`].
    pub signal: u32,
    /// The signal's number, with [`ACT_AFTER_SIGNAL`].
    pub after_signal: u32,
    /// With [`ACT_CORRUPT`] the number of bits; with [`ACT_SHORT`] to how many bytes the call is cut, or, with
    /// [`WireStep::SHARE`], to how much of [`crate::random::CERTAIN`].
    pub edit: u32,
}

impl WireStep {
    /// The bit of [`WireStep::edit`] by which it is a share. No call moves as many bytes (`MAX_RW_COUNT` of
    /// include/linux/fs.h), and no share is as large.
    pub const SHARE: u32 = 1 << 31;
    /// The end of a step that lasts for ever. Below 2^63, so that differences keep their sign.
    pub const FOREVER: u64 = i64::MAX as u64;
    /// A step that passes, for ever.
    pub const OFF: Self = Self {
        until: Self::FOREVER,
        value: 0,
        wait: WireWait::NONE,
        after_wait: WireWait::NONE,
        actions: 0,
        signal: 0,
        after_signal: 0,
        edit: 0,
    };

    /// To how many bytes [`ACT_SHORT`] cuts a call: at least one unit of its file.
    #[inline(always)]
    pub const fn kept(&self, data: &Data) -> u64 {
        // Without branches, each of which would double the paths that the verifier walks.
        let amount = (self.edit & !Self::SHARE) as u64;
        let is_share = (self.edit >> 31) as u64;
        let share = data.bytes * amount / CERTAIN as u64;
        let kept = amount * (1 - is_share) + share * is_share;
        let units = kept & !data.unit.wrapping_sub(1);
        units + data.unit * (units.wrapping_sub(1) >> 63)
    }

    /// Whether there is something to change for a step that changes data; so it is for one that does not.
    #[inline(always)]
    pub const fn has_data(&self, data: &Data) -> bool {
        let is_short = ((self.actions / ACT_SHORT) & 1) as u64;
        let is_corrupt = ((self.actions / ACT_CORRUPT) & 1) as u64;
        let is_cut = self.kept(data).wrapping_sub(data.bytes) >> 63 & data.can_be_cut;
        let is_empty = data.bytes.wrapping_sub(1) >> 63;
        (is_short & (1 - is_cut)) | (is_corrupt & is_empty) == 0
    }
}

/// The data that a call is about to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    /// How much of it is asked for, at most [`Data::MOST`].
    pub bytes: u64,
    /// 1 where it is a regular file's, a pipe's or a stream socket's, and fewer may be moved; else 0.
    pub can_be_cut: u64,
    /// Lengths are multiples of it, a power of two: 1, or [`Data::BLOCK`] of a file that is open with `O_DIRECT`.
    pub unit: u64,
}

impl Data {
    /// None.
    pub const NONE: Self = Self {
        bytes: 0,
        can_be_cut: 0,
        unit: 1,
    };
    /// What one call moves at most, on pages of 4096 bytes: `MAX_RW_COUNT` of include/linux/fs.h.
    pub const MOST: u64 = 0x7fff_f000;
    /// How much is moved at most where a caller asks for so much: of a negative length, nothing.
    #[inline(always)]
    pub const fn asked(bytes: u64) -> u64 {
        let (length, is_negative) = (bytes & (u64::MAX >> 1), bytes >> 63);
        let is_more = Self::MOST.wrapping_sub(length) >> 63;
        (length * (1 - is_more) + Self::MOST * is_more) * (1 - is_negative)
    }

    /// The block of direct input and output (`O_DIRECT` of open(2)): no device in use has a larger one.
    pub const BLOCK: u64 = 4096;
}

/// A rule as the deciding side reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct WireRule {
    /// The rule's key: what its random choices hang on.
    pub key: u64,
    /// The first count that is selected, from 1.
    pub first: u64,
    /// The last count that may be selected; `u64::MAX` where there is no end.
    pub last: u64,
    /// The distance between selected counts, from 1.
    pub step: u64,
    /// Nanoseconds after arming before which nothing is selected.
    pub start_ns: u64,
    /// Nanoseconds after arming from which on nothing is selected; `u64::MAX` for no end.
    pub end_ns: u64,
    /// At most this many firings; 0 for no bound.
    pub max: u32,
    /// The chance of being selected, of [`crate::random::CERTAIN`].
    pub probability: u32,
    /// A [`Scope`] as its number.
    pub scope: u32,
    /// How many of `steps` are in use, from 1.
    pub steps_len: u16,
    /// 1 where some step changes data, else 0.
    pub edits: u16,
    /// What must hold of the call's arguments, all of it; [`WireTest::NONE`] behind the last one.
    pub tests: [WireTest; MAX_TESTS],
    /// What must hold of who calls, all of it; [`WireCallerTest::NONE`] behind the last one.
    pub callers: [WireCallerTest; MAX_CALLER_TESTS],
    /// What must hold of the files that the call is about, all of it; [`WirePathTest::NONE`] behind the last one.
    pub paths: [WirePathTest; MAX_PATH_TESTS],
    /// What must hold of the socket that the call is about, all of it; [`WireSocketTest::NONE`] behind the last one.
    pub sockets: [WireSocketTest; MAX_SOCKET_TESTS],
    /// The chain. The last step in use never ends; those behind it are [`WireStep::OFF`].
    pub steps: [WireStep; MAX_STEPS],
}

impl WireRule {
    /// A rule that selects every call and passes: what lowering starts from.
    pub const PASS: Self = Self {
        key: 0,
        first: 1,
        last: u64::MAX,
        step: 1,
        start_ns: 0,
        end_ns: u64::MAX,
        max: 0,
        probability: CERTAIN,
        scope: Scope::Rule as u32,
        steps_len: 1,
        edits: 0,
        tests: [WireTest::NONE; MAX_TESTS],
        callers: [WireCallerTest::NONE; MAX_CALLER_TESTS],
        paths: [WirePathTest::NONE; MAX_PATH_TESTS],
        sockets: [WireSocketTest::NONE; MAX_SOCKET_TESTS],
        steps: [WireStep::OFF; MAX_STEPS],
    };

    /// Whether firings depend on earlier firings: a chain that moves, or a bound. Without it the
    /// count alone decides, and the kernel program needs one atomic operation a call.
    #[inline(always)]
    pub const fn has_state(&self) -> bool {
        self.max != 0 || self.steps_len > 1 || self.steps[0].until != WireStep::FOREVER
    }

    /// Whether the data that a call moves is looked at.
    #[inline(always)]
    pub const fn has_edits(&self) -> bool {
        self.edits != 0
    }

    /// Whether some step has a thread held, where delays up to so many nanoseconds need none.
    pub fn has_holds(&self, spin_ns: u64) -> bool {
        let holds = |step: &WireStep| {
            let spins = if step.wait.max_ns <= spin_ns {
                ACT_DELAY
            } else {
                0
            };
            step.actions & ACT_HELD & !spins != 0
        };
        self.steps.iter().any(holds)
    }

    /// Whether some step has a delay that may be as short as that.
    pub fn has_spins(&self, spin_ns: u64) -> bool {
        let spins = |step: &WireStep| step.actions & ACT_DELAY != 0 && step.wait.min_ns <= spin_ns;
        spin_ns != 0 && self.steps.iter().any(spins)
    }

    /// Whether it has to be known how the call's arguments are read.
    pub const fn looks_at_args(&self) -> bool {
        self.has_tests() || self.has_edits() || self.has_paths() || self.has_sockets()
    }

    /// Whether the call's arguments are looked at before it counts.
    #[inline(always)]
    pub const fn has_tests(&self) -> bool {
        self.tests[0].op != 0
    }

    /// Whether it is looked at who calls, before a call counts.
    #[inline(always)]
    pub const fn has_callers(&self) -> bool {
        self.callers[0].op != 0
    }

    /// Whether it is looked at what files the call is about, before it counts.
    #[inline(always)]
    pub const fn has_paths(&self) -> bool {
        self.paths[0].op != 0
    }

    /// Whether it is looked at what socket the call is about, before it counts.
    #[inline(always)]
    pub const fn has_sockets(&self) -> bool {
        self.sockets[0].op != 0
    }

    /// How many tests of files it has, whose patterns come first.
    pub fn path_tests(&self) -> usize {
        self.paths.iter().take_while(|test| test.op != 0).count()
    }

    /// How many patterns it has.
    pub fn globs(&self) -> usize {
        let unix = self.sockets.iter().filter(|test| test.is_unix());
        self.path_tests() + unix.count()
    }

    /// Whether a decision needs the time.
    #[inline(always)]
    pub const fn has_window(&self) -> bool {
        self.start_ns != 0 || self.end_ns != u64::MAX
    }

    /// The index of the step in force at a chain position (below 2^32): the first that has not ended. Counted
    /// without a branch, since each branch would double the paths that the verifier walks.
    #[inline(always)]
    pub fn step_at(&self, position: u64) -> usize {
        let mut going_on = 0;
        for step in &self.steps {
            going_on += (position.wrapping_sub(step.until) >> 63) as usize;
        }
        // The last step in use never ends, nor do those behind it: at least one is going on.
        MAX_STEPS.wrapping_sub(going_on) & (MAX_STEPS - 1)
    }
}

const _: () = assert!(MAX_STEPS.is_power_of_two());
const _: () = assert!(size_of::<WireStep>() == 64);
const _: () = assert!(
    size_of::<WireRule>()
        == 64
            + 16 * MAX_TESTS
            + 24 * MAX_CALLER_TESTS
            + 8 * MAX_PATH_TESTS
            + 48 * MAX_SOCKET_TESTS
            + 64 * MAX_STEPS
);
