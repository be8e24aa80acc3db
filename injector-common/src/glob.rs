//! Patterns of file names (`path=`, `from=`, `to=`, `exe=`) as whoever decides matches them: a name at a time, from the
//! file's own up to the root's, which is how the kernel knows a file. Each alternative of a pattern is a list of parts,
//! and where a match stands is a set of bits: bit N says that the N lowest parts are behind it.

use crate::limits::{
    MAX_GLOB_ALTERNATIVES, MAX_GLOB_CLASSES, MAX_GLOB_PARTS, MAX_GLOB_TOKENS, MAX_PATH_TESTS,
};
use crate::rule::WireRule;

/// The files of a call that a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FileSide {
    /// Any that the call refers to, by descriptor or by name.
    Any = 0,
    /// The first name.
    From = 1,
    /// The second name.
    To = 2,
    /// The program that the caller executes.
    Executable = 3,
}

/// One predicate on files; its pattern stands apart, under the rule's number and the test's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct WirePathTest {
    /// A [`FileSide`] as its number.
    pub side: u32,
    /// One of `PATH_*`; 0 for no test.
    pub op: u32,
}

/// One of the files matches.
pub const PATH_IS: u32 = 1;
/// There are files, and none of them matches.
pub const PATH_IS_NOT: u32 = 2;

impl WirePathTest {
    /// No test: what stands behind the last one.
    pub const NONE: Self = Self { side: 0, op: 0 };
}

/// Whether all tests of a rule's files hold; `matches` says of one test whether some of its files matches, and [`None`]
/// where there are no files.
#[inline(always)]
pub fn is_about_files(
    rule: &WireRule,
    mut matches: impl FnMut(usize, &WirePathTest) -> Option<bool>,
) -> bool {
    let mut index = 0;
    while index < MAX_PATH_TESTS {
        let test = &rule.paths[index];
        if test.op != 0 && matches(index, test) != Some(test.op == PATH_IS) {
            return false;
        }
        index += 1;
    }
    true
}

/// A byte of a name, below 256; or any number of bytes.
pub const TOKEN_STAR: u16 = 0x100;
/// One byte.
pub const TOKEN_ANY: u16 = 0x101;
/// One byte of a class, whose number is added.
pub const TOKEN_CLASS: u16 = 0x200;

/// One part of an alternative: what one name has to be, as tokens; or any number of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct WirePart {
    /// Its first token.
    pub at: u16,
    /// How many tokens; [`WirePart::ACROSS`] for any number of names.
    pub len: u16,
}

impl WirePart {
    /// The length of a part that is any number of names: as the lowest one at least one, elsewhere perhaps none.
    pub const ACROSS: u16 = u16::MAX;
    /// What stands behind the last one.
    pub const NONE: Self = Self { at: 0, len: 0 };
}

/// One alternative of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct WireAlternative {
    /// Its first part, which is the lowest: the file's own name.
    pub first: u16,
    /// How many parts.
    pub parts: u16,
    /// How many of the upmost parts are plain names.
    pub literal: u16,
    /// One of `BEGINS_*`; 0 for no alternative.
    pub begins: u16,
}

/// It begins at the root.
pub const BEGINS_AT_ROOT: u16 = 1;
/// It begins anywhere: it matches the end of a path.
pub const BEGINS_ANYWHERE: u16 = 2;

impl WireAlternative {
    /// What stands behind the last one.
    pub const NONE: Self = Self {
        first: 0,
        parts: 0,
        literal: 0,
        begins: 0,
    };

    /// Whether all parts are behind a match that stands there.
    #[inline(always)]
    pub const fn is_through(&self, states: u64) -> bool {
        states >> (self.parts & 63) & 1 != 0
    }

    /// How many plain names lie above the names that are matched where its directory is known by itself: all of the
    /// literal ones, but not the file's own.
    #[inline(always)]
    pub const fn directory(&self) -> u16 {
        if self.is_plain() {
            self.parts.saturating_sub(1)
        } else {
            self.literal
        }
    }

    /// Whether it is one name of one file.
    #[inline(always)]
    pub const fn is_plain(&self) -> bool {
        self.begins == BEGINS_AT_ROOT && self.literal == self.parts
    }

    /// Whether all parts but its directory's are behind a match that stands there.
    #[inline(always)]
    pub const fn is_at_directory(&self, states: u64) -> bool {
        states >> ((self.parts - self.directory()) & 63) & 1 != 0
    }
}

/// A pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct WireGlob {
    /// The tokens of all parts.
    pub tokens: [u16; MAX_GLOB_TOKENS],
    /// The parts of all alternatives.
    pub parts: [WirePart; MAX_GLOB_PARTS],
    /// Classes of bytes, a bit for each of 256.
    pub classes: [[u64; 4]; MAX_GLOB_CLASSES],
    /// The alternatives.
    pub alternatives: [WireAlternative; MAX_GLOB_ALTERNATIVES],
}

impl WireGlob {
    /// One that matches nothing.
    pub const NONE: Self = Self {
        tokens: [0; MAX_GLOB_TOKENS],
        parts: [WirePart::NONE; MAX_GLOB_PARTS],
        classes: [[0; 4]; MAX_GLOB_CLASSES],
        alternatives: [WireAlternative::NONE; MAX_GLOB_ALTERNATIVES],
    };

    /// A part of an alternative, from the lowest up.
    pub fn part(&self, alternative: WireAlternative, index: u16) -> WirePart {
        let at = usize::from(alternative.first) + usize::from(index);
        self.parts.get(at).copied().unwrap_or(WirePart::NONE)
    }

    /// The tokens of a part; none where it is any number of names.
    pub fn tokens_of(&self, part: WirePart) -> &[u16] {
        let at = usize::from(part.at);
        let end = at.saturating_add(usize::from(part.len));
        self.tokens.get(at..end).unwrap_or(&[])
    }

    /// Where a match stands before any name.
    pub fn begin(&self, alternative: WireAlternative) -> u64 {
        self.over_none(alternative, 1)
    }

    /// Where it stands behind one more name.
    pub fn step(&self, alternative: WireAlternative, states: u64, name: &[u8]) -> u64 {
        let mut next = 0;
        let mut index = 0;
        while index < alternative.parts {
            if states >> index & 1 != 0 {
                let part = self.part(alternative, index);
                next |= match part.len {
                    // This was the name that there has to be.
                    WirePart::ACROSS if index == 0 => 3,
                    WirePart::ACROSS => 1 << index,
                    _ if self.is_name(self.tokens_of(part), name) => 2 << index,
                    _ => 0,
                };
            }
            index += 1;
        }
        self.over_none(alternative, next)
    }

    /// With the parts left out that may be no name at all.
    fn over_none(&self, alternative: WireAlternative, mut states: u64) -> u64 {
        let mut index = 1;
        while index < alternative.parts {
            let is_across = self.part(alternative, index).len == WirePart::ACROSS;
            states |= (states >> index & u64::from(is_across)) << (index + 1);
            index += 1;
        }
        states
    }

    /// Whether tokens are a whole name: a star takes as little as it can, and more where the rest does not fit.
    fn is_name(&self, tokens: &[u16], name: &[u8]) -> bool {
        let (mut token, mut byte) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        loop {
            match tokens.get(token) {
                Some(&TOKEN_STAR) => {
                    token += 1;
                    star = Some((token, byte));
                    continue;
                }
                Some(&wanted) if name.get(byte).is_some_and(|byte| self.takes(wanted, *byte)) => {
                    (token, byte) = (token + 1, byte + 1);
                    continue;
                }
                None if byte == name.len() => return true,
                _ => {}
            }
            let Some((behind, taken)) = star else {
                return false;
            };
            if taken == name.len() {
                return false;
            }
            (token, byte) = (behind, taken + 1);
            star = Some((behind, taken + 1));
        }
    }

    fn takes(&self, token: u16, byte: u8) -> bool {
        match token {
            TOKEN_ANY => true,
            0..=0xff => token == u16::from(byte),
            class => {
                let number = usize::from(class.wrapping_sub(TOKEN_CLASS));
                let class = self.classes.get(number);
                class.is_some_and(|class| class[usize::from(byte >> 6)] >> (byte & 63) & 1 != 0)
            }
        }
    }
}

const _: () = assert!(size_of::<WirePathTest>() == 8);
const _: () = assert!(
    size_of::<WireGlob>()
        == 2 * MAX_GLOB_TOKENS
            + 4 * MAX_GLOB_PARTS
            + 32 * MAX_GLOB_CLASSES
            + 8 * MAX_GLOB_ALTERNATIVES
);
const _: () = assert!(size_of::<WireGlob>().is_multiple_of(8));
// A match stands at one of the parts, or behind the last.
const _: () = assert!(MAX_GLOB_PARTS < 64);
