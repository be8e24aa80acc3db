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

    /// Whether it holds, where some of its files matches, or none, or there are no files.
    #[inline(always)]
    pub fn holds(self, matches: Option<bool>) -> bool {
        matches == Some(self.op == PATH_IS)
    }
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
        if test.op != 0 && !test.holds(matches(index, test)) {
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
    #[inline(always)]
    pub const fn part(&self, alternative: WireAlternative, index: u32) -> WirePart {
        let at = alternative.first as usize + index as usize;
        self.parts[at & (MAX_GLOB_PARTS - 1)]
    }

    #[inline(always)]
    const fn token(&self, at: u32) -> u16 {
        self.tokens[at as usize & (MAX_GLOB_TOKENS - 1)]
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
        let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
        let mut step = Step::new(states);
        let byte = |at: u32| name.get(at as usize).copied().unwrap_or(0);
        while !step.turn(self, alternative, Some(length), byte) {}
        self.over_none(alternative, step.next)
    }

    /// With the parts left out that may be no name at all.
    fn over_none(&self, alternative: WireAlternative, states: u64) -> u64 {
        let mut step = Step::new(states);
        while !step.turn(self, alternative, None, |_| 0) {}
        step.states
    }

    #[inline(always)]
    const fn takes(&self, token: u16, byte: u8) -> bool {
        match token {
            TOKEN_ANY => true,
            0..=0xff => token == byte as u16,
            class => {
                let class = &self.classes[class as usize & (MAX_GLOB_CLASSES - 1)];
                class[(byte >> 6) as usize & 3] >> (byte & 63) & 1 != 0
            }
        }
    }
}

/// A match on its way over one name, in turns that take no more than a few instructions each: the verifier walks one of them,
/// and the kernel's loop makes as many as there are.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Step {
    /// Where it stands before the name. Once all turns are over, with the parts left out that may be no name at all.
    pub states: u64,
    /// Where it stands behind the name, before such parts are left out.
    pub next: u64,
    /// The part that is looked at.
    part: u32,
    /// 1 in the middle of the part.
    is_within: u32,
    /// The next token, and the first one behind the part's.
    token: u32,
    end: u32,
    /// The next byte of the name.
    byte: u32,
    /// What is behind the last star, 0 for none, and the next byte that it may take.
    star: u32,
    star_byte: u32,
}

impl Step {
    /// Before a name.
    #[inline(always)]
    pub const fn new(states: u64) -> Self {
        Self {
            states,
            next: 0,
            part: 0,
            is_within: 0,
            token: 0,
            end: 0,
            byte: 0,
            star: 0,
            star_byte: 0,
        }
    }

    /// One turn; whether it was the last. The name has that many bytes; with [`None`] there is none, and only what may be
    /// no name is gone over.
    #[inline(always)]
    pub fn turn(
        &mut self,
        glob: &WireGlob,
        alternative: WireAlternative,
        length: Option<u32>,
        byte: impl FnOnce(u32) -> u8,
    ) -> bool {
        if self.is_within != 0 {
            self.go_on(glob, length.unwrap_or(0), byte);
            return false;
        }
        if self.part >= u32::from(alternative.parts) {
            return true;
        }
        let at = self.part & 63;
        if self.states >> at & 1 != 0 {
            let part = glob.part(alternative, at);
            if part.len != WirePart::ACROSS {
                if length.is_some() {
                    self.token = u32::from(part.at);
                    self.end = u32::from(part.at) + u32::from(part.len);
                    (self.byte, self.star) = (0, 0);
                    self.is_within = 1;
                    return false;
                }
            } else if at == 0 {
                // This is the name that there has to be.
                self.next |= 3;
            } else {
                self.next |= 1 << at;
                self.states |= 2 << at;
            }
        }
        self.part += 1;
        false
    }

    /// In the middle of a part: a star takes as little as it can, and more where the rest does not fit.
    #[inline(always)]
    fn go_on(&mut self, glob: &WireGlob, length: u32, byte: impl FnOnce(u32) -> u8) {
        if self.token != self.end {
            let token = glob.token(self.token);
            if token == TOKEN_STAR {
                self.token += 1;
                if self.token == self.end {
                    self.ends(true);
                }
                (self.star, self.star_byte) = (self.token, self.byte);
                return;
            }
            if self.byte < length && glob.takes(token, byte(self.byte)) {
                self.token += 1;
                self.byte += 1;
                return;
            }
        } else if self.byte == length {
            self.ends(true);
            return;
        }
        if self.star == 0 || self.star_byte >= length {
            self.ends(false);
            return;
        }
        self.star_byte += 1;
        (self.token, self.byte) = (self.star, self.star_byte);
    }

    #[inline(always)]
    fn ends(&mut self, is_name: bool) {
        self.next |= u64::from(is_name) << 1 << (self.part & 63);
        self.part += 1;
        self.is_within = 0;
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
const _: () = assert!(MAX_GLOB_PARTS.is_power_of_two() && MAX_GLOB_TOKENS.is_power_of_two());
const _: () = assert!(MAX_GLOB_CLASSES.is_power_of_two());
const _: () = assert!(MAX_GLOB_ALTERNATIVES.is_power_of_two());
