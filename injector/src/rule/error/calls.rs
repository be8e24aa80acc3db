//! Mistakes in the set of calls, and in a rule as a whole.

use miette::Diagnostic;

use crate::rule::ast::Span;

/// What is wrong with the set of calls.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Diagnostic)]
pub enum CallError {
    /// Nothing at all.
    #[error("the rule is empty")]
    #[diagnostic(help("a rule names calls and what happens to them: `fsync=EIO@3`"))]
    EmptyRule(#[label("no rule")] Span),
    /// Calls, and no action.
    #[error("the rule does not say what happens")]
    MissingAction(#[label("no `=ACTION`")] Span, #[help] Option<String>),
    /// An action, and no calls.
    #[error("the rule names no call")]
    #[diagnostic(help("name a call before `=`: `fsync=EIO@3`"))]
    MissingCalls(#[label("no call before this")] Span),
    /// Nothing between two commas.
    #[error("a call is missing")]
    EmptyItem(#[label("nothing here")] Span),
    /// Not a call of the kernel.
    #[error("unknown call `{1}`")]
    UnknownCall(
        #[label("no call of this name")] Span,
        String,
        #[help] Option<String>,
    ),
    /// A function of the C library that is no call.
    #[error("`{1}` is a function of the C library")]
    #[diagnostic(help("write `{3}`"))]
    LibraryFunction(
        #[label("makes the call {2}")] Span,
        String,
        &'static str,
        &'static str,
    ),
    /// The kernel's own symbol, or a header's constant.
    #[error("`{1}` is a symbol, not the name of a call")]
    #[diagnostic(help("the call is named `{2}`"))]
    Symbol(#[label("not a name that rules use")] Span, String, String),
    /// A name in the wrong case.
    #[error("names of calls are in lower case")]
    #[diagnostic(help("write `{1}`"))]
    WrongCase(#[label("upper case")] Span, String),
    /// A pattern as a shell has it.
    #[error("names of calls take no wildcards")]
    #[diagnostic(help("{1}"))]
    Wildcard(#[label("a wildcard")] Span, String),
    /// `all`, `*`: every call.
    #[error("there is no word for every call")]
    #[diagnostic(help(
        "name a class (`%file`, `%network`), or take some away from all: `!futex=delay:1ms@1%`"
    ))]
    EveryCall(#[label("too much for any rule")] Span),
    /// An unknown class.
    #[error("unknown class `%{1}`")]
    UnknownClass(
        #[label("no class of this name")] Span,
        String,
        #[help] Option<String>,
    ),
    /// A regex that is none.
    #[error("not a regular expression")]
    BadRegex(#[label("{1}")] Span, String),
    /// A regex without its end.
    #[error("the regular expression has no end")]
    #[diagnostic(help("put it between slashes: `/^sync/`; a slash in it is written `\\/`"))]
    UnterminatedRegex(#[label("no second `/`")] Span),
    /// A regex that no name matches.
    #[error("the regular expression matches no call")]
    RegexMatchesNothing(#[label("found in no name")] Span),
    /// A number that no call has.
    #[error("no call has the number {1}")]
    UnknownNumber(
        #[label("not a number of the {2}-bit ABI")] Span,
        String,
        &'static str,
    ),
    /// Something after `@` in an item that is no ABI.
    #[error("`@{1}` is no ABI")]
    #[diagnostic(help("a name is restricted with `@64` or `@32`"))]
    BadAbi(#[label("not 64 or 32")] Span, String),
    /// The x32 ABI.
    #[error("the x32 ABI is not supported")]
    #[diagnostic(help(
        "x32 programs share their kernel entry with 64-bit ones; there is no way to tell them apart there"
    ))]
    X32(#[label("x32")] Span),
    /// The condition before the `=`.
    #[error("the count comes last")]
    #[diagnostic(help("write `{1}`"))]
    CountInCalls(#[label("belongs after the action")] Span, String),
    /// A name that the ABI lacks.
    #[error("the {2}-bit ABI has no call `{1}`")]
    NotInAbi(
        #[label("not there")] Span,
        String,
        String,
        #[help] Option<String>,
    ),
    /// `!!x`, `?!x` and the like.
    #[error("one mark before a name is enough")]
    #[diagnostic(help("`!` takes away, `?` drops where missing, `%` names a class"))]
    TwoMarks(#[label("which is meant?")] Span),
    /// A complement without a condition.
    #[error("a set that starts with `!` is nearly every call, and needs a condition")]
    #[diagnostic(help("add one after the action, as `@1%` or `@max:10`"))]
    ComplementNeedsWhen(#[label("all calls but these")] Span),
    /// A call that may not be replaced.
    #[error("`{1}` may not be given a result")]
    NeverReplaced(
        #[label("{2}")] Span,
        String,
        &'static str,
        #[help] Option<&'static str>,
    ),
    /// Nothing left.
    #[error("no call is left")]
    NothingLeft(
        #[label("names nothing that this rule may act on")] Span,
        #[help] Option<String>,
    ),
    /// Something between calls and `=`.
    #[error("expected `=` and an action")]
    ExpectedEquals(#[label("not expected here")] Span, #[help] Option<String>),
    /// strace's way of writing the whole rule.
    #[error("this is how strace writes it")]
    StraceRule(#[label("strace's spelling")] Span, #[help] Option<String>),
    /// systemd's way.
    #[error("this is how systemd writes it")]
    SystemdRule(
        #[label("the spelling of SystemCallFilter=")] Span,
        #[help] Option<String>,
    ),
    /// The option's own name inside its value.
    #[error("the option is part of the rule")]
    #[diagnostic(help("write `--rule '{1}'`"))]
    OptionInRule(#[label("leave this out")] Span, String),
    /// Quotes that the shell should have taken.
    #[error("the rule is in quotes")]
    #[diagnostic(help("quotes are for the shell only; the rule itself is {1}"))]
    QuotedRule(
        #[label("quotes that the shell did not take away")] Span,
        String,
    ),
    /// A name that another rule has.
    #[error("another rule is named `{1}`")]
    #[diagnostic(help(
        "names are unique; rules without one are named r1, r2 and so on by their place"
    ))]
    DuplicateName(#[label("of this rule")] Span, String),
    /// Two rules in one.
    #[error("one rule only is read here")]
    #[diagnostic(help(
        "give each rule a `--rule` of its own; `;` separates rules in FINJECT_RULES only"
    ))]
    TwoRules(#[label("a second rule")] Span),
}
