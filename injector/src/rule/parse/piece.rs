//! A part of the text that knows where it stands.

use crate::rule::ast::Span;

/// A slice of the user's text and its byte offset in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub(crate) text: &'a str,
    pub(crate) at: usize,
}

impl<'a> Piece<'a> {
    pub(crate) fn new(text: &'a str, at: usize) -> Self {
        Self { text, at }
    }

    pub(crate) fn span(self) -> Span {
        (self.at, self.text.len()).into()
    }

    pub(crate) fn is_empty(self) -> bool {
        self.text.is_empty()
    }

    /// Without white space at its ends.
    pub(crate) fn trim(self) -> Self {
        let start = self.text.trim_start();
        Self {
            text: start.trim_end(),
            at: self.at + self.text.len() - start.len(),
        }
    }

    /// The parts before and from a byte; a byte inside a character means the next one.
    pub(crate) fn split_at(self, middle: usize) -> (Self, Self) {
        let middle = self.text.ceil_char_boundary(middle);
        let (head, tail) = self.text.split_at(middle);
        (Self::new(head, self.at), Self::new(tail, self.at + middle))
    }

    pub(crate) fn from(self, start: usize) -> Self {
        self.split_at(start).1
    }

    /// The parts around the first `separator`.
    pub(crate) fn split_once(self, separator: &str) -> Option<(Self, Self)> {
        let middle = self.text.find(separator)?;
        let (head, tail) = self.split_at(middle);
        Some((head, tail.from(separator.len())))
    }

    pub(crate) fn strip_prefix(self, prefix: &str) -> Option<Self> {
        self.text
            .starts_with(prefix)
            .then(|| self.from(prefix.len()))
    }

    /// The longest start whose characters all satisfy the test, and the rest.
    pub(crate) fn take_while(self, test: impl Fn(char) -> bool) -> (Self, Self) {
        self.split_at(self.text.find(|c| !test(c)).unwrap_or(self.text.len()))
    }

    /// The first character that satisfies the test.
    pub(crate) fn find_char(self, test: impl Fn(char) -> bool) -> Option<(char, Self)> {
        let (at, c) = self.text.char_indices().find(|(_, c)| test(*c))?;
        Some((c, self.from(at).split_at(c.len_utf8()).0))
    }
}

/// Whether a character may stand in a name.
pub(crate) fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}
