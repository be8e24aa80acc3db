//! Mistakes after `@`.

use miette::Diagnostic;

use crate::rule::ast::Span;

/// What is wrong with a condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Diagnostic)]
pub enum WhenError {
    /// Nothing after `@` or between commas.
    #[error("a condition is missing")]
    #[diagnostic(help(
        "after `@` come a count (`3`, `3+`, `3..7`), a probability (`10%`), or a word with a value (`max:5`, `for:30s`)"
    ))]
    Empty(#[label("nothing here")] Span),
    /// Not a condition.
    #[error("unknown condition `{1}`")]
    Unknown(
        #[label("not a condition")] Span,
        String,
        #[help] Option<String>,
    ),
    /// `@0`.
    #[error("calls are counted from 1")]
    #[diagnostic(help("the first call is `@1`"))]
    ZeroCount(#[label("there is no call 0")] Span),
    /// `@-1`.
    #[error("a count has no sign")]
    NegativeCount(#[label("below 1")] Span, #[help] Option<String>),
    /// `3..`
    #[error("a range needs its end")]
    #[diagnostic(help("for every call from there on, write `{1}+`"))]
    OpenRange(#[label("up to where?")] Span, String),
    /// `..3`
    #[error("a range needs its start")]
    #[diagnostic(help("write `1..{1}`"))]
    NoStart(#[label("from where?")] Span, String),
    /// `7..3`
    #[error("the range runs backwards")]
    #[diagnostic(help("write `{1}`"))]
    Reversed(#[label("ends before it starts")] Span, String),
    /// `3..7+`
    #[error("after a range, `+` needs a step")]
    #[diagnostic(help("write `{1}`, or with a step `{1}+2`"))]
    OpenStep(#[label("every how many?")] Span, String),
    /// `+0`
    #[error("a step is at least 1")]
    ZeroStep(#[label("no step")] Span),
    /// `3-7`
    #[error("a range is written with two dots")]
    #[diagnostic(help("write `{1}`"))]
    WrongRange(#[label("not a range")] Span, String),
    /// Several counts.
    #[error("a rule has one count")]
    TwoCounts(
        #[label("a second count")] Span,
        #[label("the first")] Span,
        #[help] String,
    ),
    /// The same condition twice.
    #[error("`{2}` stands twice")]
    Duplicate(
        #[label("again")] Span,
        #[label("first here")] Span,
        &'static str,
    ),
    /// `3rd`, `#3`
    #[error("a count is a plain number")]
    #[diagnostic(help("write `{1}`"))]
    Ordinal(#[label("the number alone")] Span, String),
    /// `0.1`, `1/10`
    #[error("a probability is written in percent")]
    #[diagnostic(help("{1}"))]
    Fraction(#[label("a fraction")] Span, String),
    /// `max=3`
    #[error("a condition takes its value after `:`")]
    #[diagnostic(help("write `{1}`"))]
    Equals(#[label("not `=`")] Span, String),
    /// A word of another tool.
    #[error("unknown condition `{1}`")]
    #[diagnostic(help("write `{2}`"))]
    OtherWord(#[label("the word of another tool")] Span, String, String),
    /// A word without a value.
    #[error("`{1}` needs a value")]
    #[diagnostic(help("write it as `{2}`"))]
    MissingValue(#[label("no value")] Span, String, &'static str),
    /// Not a scope.
    #[error("unknown scope `{1}`")]
    UnknownScope(
        #[label("not one of rule, process, thread")] Span,
        String,
        #[help] Option<String>,
    ),
    /// White space inside.
    #[error("a condition is written without spaces")]
    #[diagnostic(help("write `{1}`; conditions are joined by `,`"))]
    Space(#[label("a space")] Span, String),
    /// A second `@`.
    #[error("one `@` only")]
    #[diagnostic(help("join conditions with `,`: `@3+,max:5`"))]
    SecondAt(#[label("a second `@`")] Span),
    /// A chain that goes on after `@`.
    #[error("the chain comes before `@`")]
    #[diagnostic(help("write `{1}`"))]
    ChainInWhen(#[label("belongs before `@`")] Span, String),
    /// A condition where an action belongs.
    #[error("`{1}` is an action, not a condition")]
    #[diagnostic(help("actions stand before `@`"))]
    ActionInWhen(#[label("belongs before `@`")] Span, String),
    /// Too large a number.
    #[error("the number is too large")]
    TooLarge(#[label("does not fit")] Span, #[help] Option<String>),
}
