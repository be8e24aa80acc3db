//! What a rule asks of who calls (`comm=`, `thread=`, `uid=`): a test for each predicate, all of them comparisons of
//! two words.

use crate::limits::MAX_CALLER_TESTS;
use crate::rule::WireRule;

/// What of the caller is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CallerFact {
    /// The process's name, which is its first thread's.
    Comm = 0,
    /// The thread's name.
    Thread = 1,
    /// The effective user id, as the initial user namespace numbers it.
    Uid = 2,
}

/// How many facts there are.
pub const CALLER_FACTS: usize = 3;

/// Who calls: what is compared, by [`CallerFact`]. A name is its bytes, NUL-padded; a user id is the first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CallerFacts(pub [[u64; 2]; CALLER_FACTS]);

impl CallerFacts {
    /// Of these names and this user.
    #[inline(always)]
    pub const fn of(comm: [u64; 2], thread: [u64; 2], uid: [u64; 2]) -> Self {
        Self([comm, thread, uid])
    }

    /// A fact by its [`CallerFact`] as its number.
    pub fn fact(&self, fact: u32) -> [u64; 2] {
        let found = self.0.get(fact as usize);
        found.copied().unwrap_or(Self::NO_UID)
    }

    /// A user that is not known: no rule names it.
    pub const NO_UID: [u64; 2] = [u64::MAX, u64::MAX];

    /// A name as it is compared: what stands behind its end is left out.
    #[inline(always)]
    pub const fn name(bytes: [u64; 2]) -> [u64; 2] {
        let first = until_end(bytes[0]);
        if first == bytes[0] && has_no_end(bytes[0]) {
            [first, until_end(bytes[1])]
        } else {
            [first, 0]
        }
    }

    /// The same of the bytes themselves.
    pub const fn name_of(bytes: &[u8; 16]) -> [u64; 2] {
        let both = u128::from_le_bytes(*bytes);
        Self::name([both as u64, (both >> 64) as u64])
    }

    /// A user id as it is compared.
    pub const fn uid(uid: u32) -> [u64; 2] {
        [uid as u64, 0]
    }
}

/// The high bit of each byte that is 0, up to the first such byte; of those behind it, perhaps.
#[inline(always)]
const fn ends(word: u64) -> u64 {
    word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080
}

#[inline(always)]
const fn has_no_end(word: u64) -> bool {
    ends(word) == 0
}

/// The bytes before the first that is 0.
#[inline(always)]
const fn until_end(word: u64) -> u64 {
    let ends = ends(word);
    let first = ends & ends.wrapping_neg();
    // All ones where there is no end.
    word & (first >> 7).wrapping_sub(1)
}

/// One predicate on the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct WireCallerTest {
    /// With what it is compared.
    pub value: [u64; 2],
    /// A [`CallerFact`] as its number.
    pub fact: u32,
    /// One of `CALLER_*`; 0 for no test.
    pub op: u32,
}

/// It is this.
pub const CALLER_IS: u32 = 1;
/// It is not this.
pub const CALLER_IS_NOT: u32 = 2;

impl WireCallerTest {
    /// No test: what stands behind the last one.
    pub const NONE: Self = Self {
        value: [0; 2],
        fact: 0,
        op: 0,
    };

    /// Whether it holds of that fact.
    #[inline(always)]
    pub const fn holds(&self, found: [u64; 2]) -> bool {
        let is_this = found[0] == self.value[0] && found[1] == self.value[1];
        is_this == (self.op == CALLER_IS)
    }
}

/// Whether all tests of the caller of a rule hold, where `holds` says so of one.
#[inline(always)]
pub fn is_called_by(rule: &WireRule, holds: impl Fn(&WireCallerTest) -> bool) -> bool {
    let mut index = 0;
    while index < MAX_CALLER_TESTS {
        let test = &rule.callers[index];
        if test.op != 0 && !holds(test) {
            return false;
        }
        index += 1;
    }
    true
}

const _: () = assert!(size_of::<WireCallerTest>() == 24);
