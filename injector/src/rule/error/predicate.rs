//! Mistakes between `(` and `)`.

use miette::Diagnostic;

use crate::rule::ast::Span;

/// What is wrong with a predicate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Diagnostic)]
pub enum PredicateError {
    /// No `)`.
    #[error("`(` is not closed")]
    #[diagnostic(help("a value with `,` or `)` in it is put in quotes: `path=\"/a, b/*\"`"))]
    Unclosed(#[label("no `)` for this")] Span),
    /// `()`.
    #[error("nothing stands between `(` and `)`")]
    #[diagnostic(help("leave the parentheses out, or write a condition: `(path=*.db)`"))]
    Empty(#[label("empty")] Span),
    /// Nothing between two commas.
    #[error("a condition is missing")]
    EmptyPredicate(#[label("nothing here")] Span),
    /// An unknown key.
    #[error("unknown condition `{1}`")]
    UnknownKey(
        #[label("not one of path, from, to, fd, peer, addr, argN, comm, thread, exe, uid")] Span,
        String,
        #[help] Option<String>,
    ),
    /// A key alone.
    #[error("`{1}` is not compared with anything")]
    MissingOperator(#[label("no operator")] Span, String, #[help] Option<String>),
    /// An operator the key does not take.
    #[error("`{1}` takes `=` and `!=` only")]
    WrongOperator(#[label("not for `{1}`")] Span, String),
    /// An operator that is none.
    #[error("unknown operator `{1}`")]
    UnknownOperator(#[label("not an operator")] Span, String, #[help] String),
    /// Nothing after the operator.
    #[error("the value is missing")]
    EmptyValue(#[label("nothing after this")] Span),
    /// `&&`, `and`.
    #[error("conditions are joined by commas")]
    #[diagnostic(help("a comma means that both must hold; for either of them, write two rules"))]
    Joined(#[label("not a comma")] Span),
    /// The same condition twice.
    #[error("the same condition twice")]
    Duplicate(#[label("again")] Span, #[label("first here")] Span),
    /// Not a pattern.
    #[error("not a file name pattern: {1}")]
    #[diagnostic(help("put `\\` before a character that is meant as itself"))]
    BadGlob(#[label("cannot be matched")] Span, String),
    /// A home directory.
    #[error("`~` is no directory to the kernel")]
    #[diagnostic(help("write the whole path"))]
    Tilde(#[label("only a shell knows this")] Span),
    /// `./x`, `../x`.
    #[error("a pattern is matched against whole paths, never relative ones")]
    #[diagnostic(help("write the whole path, or leave out `{1}` to match the end of any path"))]
    RelativeGlob(#[label("relative to what?")] Span, String),
    /// A quote without its end.
    #[error("the quotes are not closed")]
    UnclosedQuote(#[label("no closing `\"`")] Span),
    /// Something after the closing quote.
    #[error("quotes go around the whole value")]
    QuoteInside(#[label("outside of the quotes")] Span),
    /// A backslash before something else.
    #[error("`\\{1}` means nothing in quotes")]
    #[diagnostic(help("in quotes, write `\\\"` for a quote and `\\\\` for a backslash"))]
    BadEscape(#[label("unknown escape")] Span, char),
    /// Not a descriptor.
    #[error("a file descriptor is a number from 0 on")]
    BadFd(#[label("not a descriptor")] Span, #[help] Option<String>),
    /// Not a uid.
    #[error("a user is given by number")]
    BadUid(#[label("not a number")] Span, #[help] Option<String>),
    /// A name longer than the kernel keeps.
    #[error("the kernel keeps 15 bytes of a name")]
    #[diagnostic(help("it would be `{1}`; to match the program file, use `exe=`"))]
    CommTooLong(#[label("{2} bytes")] Span, String, usize),
    /// A pattern for a name.
    #[error("`{1}` takes a whole name, no pattern")]
    #[diagnostic(help("to match by pattern, use `exe=`: `exe=*/redis*`"))]
    CommPattern(#[label("a wildcard")] Span, String),
    /// `arg0`, `arg7`.
    #[error("a call has arguments 1 to 6")]
    BadArgIndex(
        #[label("no argument of that number")] Span,
        #[help] Option<String>,
    ),
    /// An argument that no call of the set has.
    #[error("no call of this rule has an argument {1}")]
    ArgBeyondArity(#[label("{2}")] Span, u8, String),
    /// Not a flag known anywhere.
    #[error("unknown flag `{1}`")]
    UnknownFlag(
        #[label("no flag of this name")] Span,
        String,
        #[help] Option<String>,
    ),
    /// A flag that this argument does not take.
    #[error("`{1}` is no flag of argument {2} in every call of this rule")]
    FlagNotThere(
        #[label("`{3}` does not take it there")] Span,
        String,
        u8,
        String,
        #[help] Option<String>,
    ),
    /// A flag with several meanings.
    #[error("`{1}` has different values in the calls of this rule")]
    #[diagnostic(help("write one rule for each, or its number"))]
    FlagDiffers(#[label("which value?")] Span, String),
    /// Flags joined by `|`.
    #[error("one flag or number only")]
    FlagsJoined(#[label("several flags")] Span, #[help] Option<String>),
    /// Not an address.
    #[error("not an address")]
    BadAddress(#[label("cannot be read")] Span, #[help] String),
    /// A name of a host.
    #[error("an address is given by number")]
    #[diagnostic(help(
        "names are not looked up; write the address, as `10.0.0.7:5432`, or the port alone, as `:5432`"
    ))]
    HostName(#[label("a name")] Span),
    /// Not a port.
    #[error("a port is a number from 1 to 65535")]
    BadPort(#[label("not a port")] Span, #[help] Option<String>),
    /// A prefix that is too long.
    #[error("the prefix of this address has at most {1} bits")]
    BadPrefix(#[label("not a length")] Span, u8),
    /// Bits beyond the prefix.
    #[error("the address has bits beyond its prefix")]
    #[diagnostic(help("the network is `{1}`"))]
    HostBits(#[label("more than the network")] Span, String),
    /// IPv6 with a port, without brackets.
    #[error("an IPv6 address with a port needs brackets")]
    #[diagnostic(help("write `[2001:db8::1]:443`"))]
    Brackets(#[label("where does the address end?")] Span),
}
