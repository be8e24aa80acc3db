//! Mistakes in the chain of actions.

use miette::Diagnostic;

use crate::rule::ast::{Phase, Span};

/// What is wrong with an action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Diagnostic)]
pub enum ActionError {
    /// Nothing where an action must be.
    #[error("an action is missing")]
    EmptyAction(#[label("nothing here")] Span, #[help] Option<String>),
    /// `N*` and nothing else.
    #[error("an action is missing after `{1}*`")]
    EmptyStep(#[label("repeats nothing")] Span, String),
    /// Not an action.
    #[error("unknown action `{1}`")]
    UnknownAction(
        #[label("not an action")] Span,
        String,
        #[help] Option<String>,
    ),
    /// A name like an errno.
    #[error("unknown errno `{1}`")]
    UnknownErrno(
        #[label("not an errno of Linux")] Span,
        String,
        #[help] Option<String>,
    ),
    /// An errno or action in another spelling: case, order.
    #[error("`{1}` is written `{2}`")]
    Spelling(#[label("write `{2}`")] Span, String, String),
    /// A bare number.
    #[error("a number alone does not say what it is")]
    BareNumber(#[label("an error, or a result?")] Span, #[help] String),
    /// A minus before an errno.
    #[error("an errno is written without a sign")]
    #[diagnostic(help("write `{1}`"))]
    SignedErrno(#[label("no `-`")] Span, String),
    /// An errno of the kernel alone.
    #[error("no program is ever shown the errors 512 to 531")]
    #[diagnostic(help(
        "the kernel uses them inside itself, and restarts the call; for an interrupted call write `EINTR`"
    ))]
    InternalErrno(#[label("the kernel's own")] Span),
    /// Out of 1..4095.
    #[error("an errno is a number from 1 to 4095")]
    ErrnoRange(#[label("out of range")] Span, #[help] Option<String>),
    /// `ret:-5`.
    #[error("a negative result is an error")]
    NegativeRet(#[label("below 0")] Span, #[help] String),
    /// `ret:` beyond 2^63-1.
    #[error("a result is at most 2^63-1")]
    RetRange(#[label("too large")] Span, #[help] Option<String>),
    /// An action that needs a value.
    #[error("`{1}` needs a value")]
    #[diagnostic(help("write it as `{2}`"))]
    MissingValue(#[label("no value")] Span, String, &'static str),
    /// An action that takes none.
    #[error("`{1}` takes no value")]
    UnexpectedValue(
        #[label("leave this out")] Span,
        String,
        #[help] Option<String>,
    ),
    /// `delay:200ms..20ms`.
    #[error("the range runs backwards")]
    #[diagnostic(help("write `{1}`"))]
    ReversedRange(#[label("the longer one first")] Span, String),
    /// Not a signal.
    #[error("unknown signal `{1}`")]
    UnknownSignal(
        #[label("no signal of this name")] Span,
        String,
        #[help] Option<String>,
    ),
    /// A signal counted from the C library's first.
    #[error("real-time signals are counted from the kernel's first")]
    #[diagnostic(help("write `signal:{1}`"))]
    RealTimeSignal(#[label("the C library's count")] Span, String),
    /// `0*`, `x*`.
    #[error("a step lasts for 1 call or more")]
    #[diagnostic(help("`2*EIO` fails two calls"))]
    BadRepeat(#[label("not a number of calls")] Span),
    /// `off` with something else.
    #[error("`off` stands alone")]
    #[diagnostic(help("join steps with `->`: `2*off->EIO` lets two calls pass, then fails"))]
    OffCombined(
        #[label("passes")] Span,
        #[label("and yet does something")] Span,
    ),
    /// Two actions of one phase.
    #[error("a step has one {2} only")]
    #[diagnostic(help("for one after the other, join steps with `->`"))]
    TwoOfPhase(
        #[label("a second {2}")] Span,
        #[label("the first")] Span,
        Phase,
    ),
    /// An edit of a call that does not run.
    #[error("a call that does not run has no data to change")]
    #[diagnostic(help("use one or the other, or join steps with `->`"))]
    EditWithResult(
        #[label("changes the data")] Span,
        #[label("the call does not run")] Span,
    ),
    /// Something after the call that does not run.
    #[error("a call that does not run has no end")]
    #[diagnostic(help("`{2}` before the call does the same: leave out `after:`"))]
    AfterSkipped(
        #[label("after a call that never ran")] Span,
        #[label("the call does not run")] Span,
        String,
    ),
    /// Something after a kill.
    #[error("nothing happens after a kill")]
    AfterKill(
        #[label("never reached")] Span,
        #[label("the process is dead")] Span,
    ),
    /// `short:0`.
    #[error("at least one byte must be left")]
    #[diagnostic(help("for a result of 0 without the call, write `ret:0`"))]
    ShortZero(#[label("nothing left")] Span),
    /// An action on calls without data.
    #[error("`{1}` is for calls that move data, and this rule names none")]
    #[diagnostic(help("use it with `%read`, `%write`, `%send` or `%recv`"))]
    NoData(#[label("no data to change")] Span, &'static str),
    /// A signal without an end.
    #[error("a signal with a handler makes the call start again, and count again")]
    #[diagnostic(help("bound it (`@3`, `@1..10`, `@max:10`), or write `after:signal:{1}`"))]
    UnboundedSignal(#[label("may go round for ever")] Span, String),
    /// `after:` of something that has no after.
    #[error("`after:{1}` does not exist")]
    #[diagnostic(help("after the call there are ERRNO, ret, delay, hold, kill and signal"))]
    NoAfter(#[label("only before the call")] Span, String),
    /// A comma in the chain.
    #[error("actions are joined by `+`, steps by `->`")]
    #[diagnostic(help("write `{1}` for both in one call, or `{2}` for one call after the other"))]
    Comma(#[label("not here")] Span, String, String),
    /// `=` inside an action.
    #[error("an action takes its value after `:`")]
    #[diagnostic(help("write `{1}`"))]
    EqualsInAction(#[label("not `=`")] Span, String),
    /// strace's spelling.
    #[error("`{1}` is strace's")]
    StraceAction(
        #[label("strace's spelling")] Span,
        String,
        #[help] Option<String>,
    ),
    /// The spelling of a fail point library.
    #[error("`{1}` is a fail point's")]
    FailPointAction(
        #[label("the spelling of fail-rs, gofail and pingcap/failpoint")] Span,
        String,
        #[help] Option<String>,
    ),
    /// bpftrace's spelling.
    #[error("`override` is bpftrace's")]
    BpftraceAction(#[label("bpftrace's spelling")] Span, #[help] Option<String>),
    /// A share before the action.
    #[error("the probability comes last")]
    #[diagnostic(help("write it after the chain: `@{1}`; it selects calls for the whole chain"))]
    LeadingPercent(#[label("belongs after `@`")] Span, String),
    /// An end that a shell cut off.
    #[error("the rule ends in `-`")]
    #[diagnostic(help(
        "was there a `->`? A shell takes the `>` as a redirection (a file of that name may now exist): put the rule in single quotes"
    ))]
    CutArrow(#[label("cut off here")] Span),
    /// An arrow that is none.
    #[error("steps are joined by `->`")]
    #[diagnostic(help("write `->` in place of `{1}`"))]
    WrongArrow(#[label("not an arrow")] Span, String),
    /// A count in the place of an action's value.
    #[error("the count comes after `@`")]
    #[diagnostic(help("write `{1}`"))]
    CountAfterColon(#[label("not a part of the action")] Span, String),
    /// Something left over behind an action.
    #[error("not expected after an action")]
    #[diagnostic(help(
        "a count comes after `@`, another action of the same call after `+`, one of a later call after `->`"
    ))]
    Trailing(#[label("left over")] Span),
}
