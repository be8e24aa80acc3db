//! Mistakes in numbers, durations, sizes, shares and variables, wherever they stand.

use miette::Diagnostic;

use crate::rule::ast::Span;

/// A value that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Diagnostic)]
pub enum ValueError {
    /// A duration without a unit.
    #[error("a duration needs a unit")]
    MissingUnit(#[label("of what?")] Span, #[help] String),
    /// A unit that is none.
    #[error("unknown unit of time `{1}`")]
    UnknownUnit(
        #[label("not one of ns, us, ms, s, m, h")] Span,
        String,
        #[help] Option<String>,
    ),
    /// No number where a duration starts.
    #[error("not a duration")]
    #[diagnostic(help("a duration is a number with a unit: `20ms`, `1.5s`, `2m`"))]
    BadDuration(#[label("expected a number and a unit")] Span),
    /// Zero.
    #[error("a duration of zero does nothing")]
    ZeroDuration(#[label("no time at all")] Span),
    /// Finer than the clock.
    #[error("a duration is a whole number of nanoseconds")]
    TooPrecise(#[label("finer than 1ns")] Span),
    /// Beyond 64 bits of nanoseconds.
    #[error("the duration is too long")]
    #[diagnostic(help("the longest is 292 years"))]
    DurationTooLong(#[label("over 2^63 nanoseconds")] Span),
    /// Not a share.
    #[error("not a percentage")]
    #[diagnostic(help(
        "a percentage is a number above 0 and at most 100 with a `%`: `10%`, `0.5%`"
    ))]
    BadPercent(#[label("expected a number before `%`")] Span),
    /// 0 %, or above 100 %.
    #[error("a percentage is above 0 and at most 100")]
    PercentRange(#[label("out of range")] Span, #[help] Option<String>),
    /// More than four decimals.
    #[error("a percentage has at most four decimals")]
    #[diagnostic(help("the finest step is 0.0001%, one call in a million"))]
    PercentTooPrecise(#[label("too fine")] Span),
    /// A size that is none.
    #[error("not a size")]
    BadSize(#[label("expected bytes")] Span, #[help] String),
    /// A number that is none.
    #[error("not a number")]
    BadNumber(
        #[label("expected a decimal or hexadecimal number")] Span,
        #[help] Option<String>,
    ),
    /// A leading zero.
    #[error("a number with a leading zero could be read in two ways")]
    Octal(#[label("octal or decimal?")] Span, #[help] String),
    /// A number that does not fit.
    #[error("the number is too large")]
    TooLarge(#[label("does not fit")] Span, #[help] Option<String>),
    /// A number that must be at least 1.
    #[error("the number must be at least 1")]
    Zero(#[label("zero")] Span, #[help] Option<String>),
    /// A variable that is not defined.
    #[error("unknown variable `{1}`")]
    UnknownVariable(
        #[label("not in [vars], nor given by --var")] Span,
        String,
        #[help] Option<String>,
    ),
    /// `${` without its end, or without a name.
    #[error("a variable is written `${{name}}`")]
    BadVariable(#[label("no variable")] Span),
    /// A variable where no value stands.
    #[error("a variable stands for a value only")]
    #[diagnostic(help(
        "variables may stand in `path=${{dir}}/*`, `delay:${{time}}`, `max:${{n}}` and the like"
    ))]
    MisplacedVariable(#[label("not a value")] Span),
    /// A character that looks like another.
    #[error("`{1}` is not `{2}`")]
    LooksLike(
        #[label("a character that only looks like `{2}`")] Span,
        char,
        &'static str,
        #[help] Option<String>,
    ),
}
