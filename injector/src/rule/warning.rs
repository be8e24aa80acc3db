//! What is no mistake and yet probably not meant: `--strict` makes errors of these. And notes, of
//! what a rule does that its text does not show.

use std::fmt;

use miette::{Diagnostic, LabeledSpan, Severity, SourceCode};

use super::{ast::Span, error::Source, resolve::RuleName};

/// A warning about one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleWarning {
    /// The rule.
    pub rule: RuleName,
    /// What there is to say.
    pub kind: Warning,
    pub(crate) source: Source,
}

/// What there is to say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Diagnostic)]
pub enum Warning {
    /// A call that programs of today make under another name.
    #[error("programs that use glibc do not make the call `{1}`")]
    #[diagnostic(help("write `{3}` to mean every kind of it"))]
    LibraryName(
        #[label("glibc makes it as {2}")] Span,
        String,
        &'static str,
        &'static str,
    ),
    /// A call that only 32-bit programs have.
    #[error("only 32-bit programs can make the call `{1}`")]
    OtherAbiOnly(
        #[label("not a call of 64-bit programs")] Span,
        String,
        #[help] Option<String>,
    ),
    /// `?name` that is not there.
    #[error("there is no call `{1}` here, and it is left out")]
    Missing(#[label("left out")] Span, String),
    /// Calls that a class or regex brought and that may not be replaced.
    #[error("left out of the set: {1}")]
    Dropped(#[label("{2}")] Span, String, &'static str),
    /// A result put in the place of a success that created something.
    #[error("what {1} created stays, and the program does not know of it")]
    #[diagnostic(help(
        "that is what this action is for; to have nothing created, leave out `after:`"
    ))]
    Leaks(#[label("after the call has run")] Span, String),
    /// A step that no call reaches.
    #[error("this step is never reached")]
    Unreachable(#[label("{1}")] Span, String),
    /// A rule that cannot act.
    #[error("this rule can never act")]
    NeverActs(#[label("{1}")] Span, String),
    /// A rule whose result an earlier one always takes.
    #[error("this rule can never act: `{1}` always decides first")]
    #[diagnostic(help(
        "the first rule with a result decides; put this one before it, or bound the other"
    ))]
    Shadowed(
        #[label("every call it selects already has a result")] Span,
        String,
    ),
    /// Calls without data among those whose data is edited.
    #[error("nothing is changed in {1}")]
    PartlyEdited(#[label("for calls that move data")] Span, String),
    /// Calls that programs usually make without entering the kernel.
    #[error("{1} rarely enters the kernel, and what does not is never seen")]
    #[diagnostic(help(
        "programs read clocks through the vDSO; only a call that really enters is counted"
    ))]
    Vdso(#[label("mostly answered in user space")] Span, String),
    /// A rule past its day.
    #[error("this rule expired on {1}")]
    #[diagnostic(help("look at it again: remove it, or set a later day"))]
    Expired(#[label("past")] Span, String),
}

impl RuleWarning {
    /// Whether it only tells what the rule does (what was left out of a set, what is not edited),
    /// and `--strict` lets it pass.
    pub fn is_note(&self) -> bool {
        match self.kind {
            Warning::Missing(..) | Warning::Dropped(..) | Warning::PartlyEdited(..) => true,
            Warning::LibraryName(..)
            | Warning::OtherAbiOnly(..)
            | Warning::Leaks(..)
            | Warning::Unreachable(..)
            | Warning::NeverActs(..)
            | Warning::Shadowed(..)
            | Warning::Vdso(..)
            | Warning::Expired(..) => false,
        }
    }

    /// The rule that always decides first, where that is what it tells.
    pub fn shadowed_by(&self) -> Option<&str> {
        match &self.kind {
            Warning::Shadowed(_, earlier) => Some(earlier),
            _ => None,
        }
    }

    /// The text it is about.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// As a person reads it, in colour or without.
    pub fn render(&self, colour: bool) -> String {
        super::error::render(self, colour)
    }
}

impl fmt::Display for RuleWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}: {}", self.rule, self.kind)
    }
}

impl std::error::Error for RuleWarning {}

impl Diagnostic for RuleWarning {
    fn severity(&self) -> Option<Severity> {
        Some(if self.is_note() {
            Severity::Advice
        } else {
            Severity::Warning
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.kind.help()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.kind.labels()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }
}
