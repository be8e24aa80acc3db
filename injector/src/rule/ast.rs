//! A rule as written: what the parser gives and the printer takes. Generic over the span, so that
//! tests compare rules without positions ([`Rule::without_spans`]). Names are text here; what they
//! mean is decided when the rule is resolved.

use std::{
    fmt,
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use super::{
    address::AddressPattern,
    glob::Glob,
    value::{Count, Percent},
};
use crate::syscall::{Abi, Class, Errno, Signal, Sysno};

/// A place in the user's text: byte offset and length.
pub type Span = miette::SourceSpan;

/// A part of a rule with its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node<T, S = Span> {
    /// The part.
    pub node: T,
    /// Where it stands.
    pub span: S,
}

impl<T, S> Node<T, S> {
    fn without_span(self) -> Node<T, ()> {
        Node {
            node: self.node,
            span: (),
        }
    }
}

/// A whole rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule<S = Span> {
    /// The calls it names; never empty.
    pub calls: Vec<Node<Item, S>>,
    /// What must hold; may be empty.
    pub preds: Vec<Node<Predicate, S>>,
    /// What happens, call by call; never empty.
    pub chain: Vec<ChainStep<S>>,
    /// Which calls are selected; empty for every one.
    pub when: Vec<Node<Condition, S>>,
}

impl<S> Rule<S> {
    /// The same rule without positions.
    pub fn without_spans(self) -> Rule<()> {
        let Self {
            calls,
            preds,
            chain,
            when,
        } = self;
        Rule {
            calls: calls.into_iter().map(Node::without_span).collect(),
            preds: preds.into_iter().map(Node::without_span).collect(),
            chain: chain.into_iter().map(ChainStep::without_spans).collect(),
            when: when.into_iter().map(Node::without_span).collect(),
        }
    }
}

/// One item of the set of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Whether its calls are taken away.
    pub negated: bool,
    /// What it names.
    pub select: Select,
    /// The one ABI it is meant for; `None` for all.
    pub abi: Option<Abi>,
}

/// How an item names calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Select {
    /// By the kernel's name.
    Name(String),
    /// By name, dropped where there is no such call.
    Optional(String),
    /// By class.
    Class(Class),
    /// By a regular expression that is found in the name.
    Regex(String),
    /// By number, of the native ABI unless one is given.
    Number(Sysno),
}

/// A condition on one call. `V` is how the value of `argN` is held: as written in a rule, as
/// [`Integer`] once resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predicate<V = ArgValue> {
    /// `path=`, `from=`, `to=`.
    Path {
        /// Which names of the call are meant.
        side: Side,
        /// `!=`.
        negated: bool,
        /// The pattern.
        glob: Glob,
    },
    /// `fd=`.
    Fd {
        /// `!=`.
        negated: bool,
        /// The descriptor.
        fd: u32,
    },
    /// `peer=`, `addr=`.
    Socket {
        /// Which end of the socket.
        end: SocketEnd,
        /// `!=`.
        negated: bool,
        /// The addresses.
        address: AddressPattern,
    },
    /// `argN`.
    Arg {
        /// Which argument.
        arg: ArgIndex,
        /// How it is compared.
        op: ArgOp,
        /// With what.
        value: V,
    },
    /// `comm=`, `thread=`.
    Comm {
        /// Whose name: the process's (its leader's) or the calling thread's.
        of: CommOf,
        /// `!=`.
        negated: bool,
        /// The whole name.
        comm: Comm,
    },
    /// `exe=`.
    Exe {
        /// `!=`.
        negated: bool,
        /// The pattern.
        glob: Glob,
    },
    /// `uid=`.
    Uid {
        /// `!=`.
        negated: bool,
        /// The effective uid as the initial user namespace numbers it.
        uid: u32,
    },
}

/// Which names of a call a path predicate means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Any file that the call refers to.
    Any,
    /// The first name.
    From,
    /// The second name.
    To,
}

/// Which end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketEnd {
    /// The other side's address.
    Peer,
    /// This side's address.
    Local,
}

/// Whose name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommOf {
    /// The thread group leader's.
    Process,
    /// The calling thread's.
    Thread,
}

/// The name of a process or thread as the kernel keeps it: 1 to 15 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comm(String);

impl Comm {
    /// The kernel's `TASK_COMM_LEN` without the final zero.
    pub const MAX: usize = 15;

    /// Takes a name; `None` where it is empty, longer than [`Comm::MAX`] bytes, or holds a zero.
    pub fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        ((1..=Self::MAX).contains(&name.len()) && !name.contains('\0')).then_some(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The number of an argument, 1 to 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgIndex(u8);

impl ArgIndex {
    /// Takes 1 to 6.
    pub fn new(index: u64) -> Option<Self> {
        u8::try_from(index)
            .ok()
            .filter(|index| (1..=6).contains(index))
            .map(Self)
    }

    /// 1 to 6.
    pub fn get(self) -> u8 {
        self.0
    }
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `&`: any of these bits is set.
    AnyBit,
}

impl fmt::Display for ArgOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Below => "<",
            Self::AtMost => "<=",
            Self::Above => ">",
            Self::AtLeast => ">=",
            Self::AnyBit => "&",
        })
    }
}

/// What an argument is compared with, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgValue {
    /// A number.
    Integer(Integer),
    /// A named flag.
    Flag(String),
}

/// A number that fits some 64-bit register, signed or not: -2^63 to 2^64 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Integer(i128);

impl Integer {
    /// Takes a number in range.
    pub fn new(value: i128) -> Option<Self> {
        let range = i128::from(i64::MIN)..=i128::from(u64::MAX);
        range.contains(&value).then_some(Self(value))
    }

    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// As a 64-bit register holds it; a negative one in two's complement.
    pub fn register(self) -> u64 {
        u64::try_from(self.0 & i128::from(u64::MAX)).unwrap_or(u64::MAX)
    }

    /// Whether an argument of that many bits can be it, with a sign or without.
    pub fn fits(self, bits: u8) -> bool {
        (-(1_i128 << (bits - 1))..1_i128 << bits).contains(&self.0)
    }
}

impl From<u64> for Integer {
    fn from(value: u64) -> Self {
        Self(value.into())
    }
}

impl fmt::Display for Integer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One step of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainStep<S = Span> {
    /// For how many calls it lasts (`N*`), where that is written.
    pub repeat: Option<Node<NonZeroU32, S>>,
    /// What happens together; never empty, [`Action::Off`] alone.
    pub actions: Vec<Node<Action, S>>,
}

impl<S> ChainStep<S> {
    fn without_spans(self) -> ChainStep<()> {
        ChainStep {
            repeat: self.repeat.map(Node::without_span),
            actions: self.actions.into_iter().map(Node::without_span).collect(),
        }
    }
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The call passes.
    Off,
    /// The call does not run; the caller gets the error.
    Error(Errno),
    /// The call does not run; the caller gets the number.
    Ret(RetValue),
    /// The calling thread waits, then the call runs.
    Delay(Delay),
    /// The calling thread waits until released, at most that long ([`HOLD_DEFAULT`] if `None`).
    Hold(Option<Duration>),
    /// A signal is sent to the calling thread, and the call runs.
    Signal(Signal),
    /// The process is killed, and the call does not run.
    Kill,
    /// All threads are stopped.
    Stop,
    /// The length of the call is cut.
    Short(Short),
    /// That many bits of the data are flipped.
    Corrupt(NonZeroU32),
    /// Something happens once the call has run.
    After(After),
}

/// How long a `hold` without a time of its own lasts at most.
pub const HOLD_DEFAULT: Duration = Duration::from_secs(30);

/// What happens once a call has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// A success is replaced by the error.
    Error(Errno),
    /// A success is replaced by the number.
    Ret(RetValue),
    /// The calling thread waits.
    Delay(Delay),
    /// The calling thread waits until released.
    Hold(Option<Duration>),
    /// The process is killed.
    Kill,
    /// A signal is sent to the calling thread.
    Signal(Signal),
}

/// A made-up result, 0 to 2^63 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetValue(u64);

impl RetValue {
    /// Takes a number that is no error to any caller.
    pub fn new(value: u64) -> Option<Self> {
        i64::try_from(value).is_ok().then_some(Self(value))
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// A wait of a length between two bounds, both above zero, in whole nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    min: Duration,
    max: Duration,
}

impl Delay {
    /// Takes both bounds; `None` where the first is zero or above the second.
    pub fn new(min: Duration, max: Duration) -> Option<Self> {
        (min > Duration::ZERO && min <= max).then_some(Self { min, max })
    }

    /// The shortest.
    pub fn min(self) -> Duration {
        self.min
    }

    /// The longest.
    pub fn max(self) -> Duration {
        self.max
    }
}

/// To what a call's length is cut; at least one byte is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// To that many bytes.
    Bytes(NonZeroU64),
    /// To that share of what was asked for.
    Percent(Percent),
}

/// When a step does not only follow from the chain: one condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// By number.
    Count(Count),
    /// By chance.
    Percent(Percent),
    /// At most that many firings.
    Max(NonZeroU32),
    /// Only that long after arming.
    Start(Duration),
    /// Only for that long from then.
    For(Duration),
    /// Whose calls are counted together.
    Per(Scope),
}

/// Whose calls are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub enum Scope {
    /// All that the rule matches.
    #[default]
    Rule,
    /// Each process's for itself.
    Process,
    /// Each thread's for itself.
    Thread,
}

/// When, in the order of a call, an action takes place. A step has at most one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// `delay`, `hold`, `stop`.
    Wait,
    /// `signal`.
    Signal,
    /// `short`, `corrupt`.
    Edit,
    /// ERRNO, `ret`, `kill`, `after:ERRNO`, `after:ret`, `after:kill`.
    Result,
    /// `after:delay`, `after:hold`.
    AfterWait,
    /// `after:signal`.
    AfterSignal,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wait => "wait",
            Self::Signal => "signal",
            Self::Edit => "edit of the data",
            Self::Result => "result",
            Self::AfterWait => "wait after the call",
            Self::AfterSignal => "signal after the call",
        })
    }
}

impl Action {
    /// Its phase; `None` for [`Action::Off`].
    pub fn phase(&self) -> Option<Phase> {
        Some(match self {
            Self::Off => return None,
            Self::Delay(_) | Self::Hold(_) | Self::Stop => Phase::Wait,
            Self::Signal(_) => Phase::Signal,
            Self::Short(_) | Self::Corrupt(_) => Phase::Edit,
            Self::Error(_)
            | Self::Ret(_)
            | Self::Kill
            | Self::After(After::Error(_) | After::Ret(_) | After::Kill) => Phase::Result,
            Self::After(After::Delay(_) | After::Hold(_)) => Phase::AfterWait,
            Self::After(After::Signal(_)) => Phase::AfterSignal,
        })
    }

    /// Whether the call does not run.
    pub fn skips_call(&self) -> bool {
        matches!(self, Self::Error(_) | Self::Ret(_) | Self::Kill)
    }

    /// Whether the process is killed.
    pub fn kills(&self) -> bool {
        matches!(self, Self::Kill | Self::After(After::Kill))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_fits_an_argument_with_a_sign_or_without() {
        for (value, bits, fits) in [
            (0, 8, true),
            (-1, 8, true),
            (-128, 8, true),
            (-129, 8, false),
            (255, 8, true),
            (256, 8, false),
            (-0x8000_0000, 32, true),
            (-0x8000_0001, 32, false),
            (0xffff_ffff, 32, true),
            (0x1_0000_0000, 32, false),
            (i128::from(i64::MIN), 64, true),
            (i128::from(u64::MAX), 64, true),
        ] {
            let number = Integer::new(value).unwrap();
            assert_eq!(number.fits(bits), fits, "{value} in {bits} bits");
        }
    }
}
