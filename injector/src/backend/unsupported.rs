//! Plans that a backend does not carry out: which part of which rule, and why, as types.

use injector_common::limits::MAX_FLIPS;

use crate::rule::glob::TooLarge;

/// Why a part is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The mechanism could, and the backend does not do it yet; one that traces does.
    NotBuilt,
    /// No program in the kernel can; a thread has to be held by a tracer.
    NeedsTracer,
}

/// One part of a plan that is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// An action.
    #[error("rule {rule}: the {backend} backend does not carry out `{action}`")]
    Action {
        /// The rule's name.
        rule: String,
        /// The action as the rule spells it.
        action: String,
        /// The backend.
        backend: &'static str,
        /// Why not.
        why: Why,
    },
    /// A predicate.
    #[error("rule {rule}: the {backend} backend does not look at `{predicate}`")]
    Predicate {
        /// The rule's name.
        rule: String,
        /// The predicate as the rule spells it.
        predicate: String,
        /// The backend.
        backend: &'static str,
        /// Why not.
        why: Why,
    },
    /// Targets that run already.
    #[error("the {backend} backend launches commands, and cannot attach to a process that runs")]
    Attaching {
        /// The backend.
        backend: &'static str,
    },
    /// Too many rules.
    #[error("{number} rules are more than the {backend} backend takes at once")]
    TooManyRules {
        /// How many there are.
        number: usize,
        /// The backend.
        backend: &'static str,
        /// How many it takes.
        limit: usize,
    },
    /// Too many predicates on arguments.
    #[error("rule {rule}: {number} predicates on arguments are more than a rule can have")]
    TooManyTests {
        /// The rule's name.
        rule: String,
        /// How many there are.
        number: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Too many predicates on who calls.
    #[error("rule {rule}: {number} predicates on who calls are more than a rule can have")]
    TooManyCallerTests {
        /// The rule's name.
        rule: String,
        /// How many there are.
        number: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Too many predicates on sockets.
    #[error("rule {rule}: {number} predicates on sockets are more than a rule can have")]
    TooManySocketTests {
        /// The rule's name.
        rule: String,
        /// How many there are.
        number: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Too many predicates on files.
    #[error("rule {rule}: {number} predicates on files are more than a rule can have")]
    TooManyPathTests {
        /// The rule's name.
        rule: String,
        /// How many there are.
        number: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A pattern of which there is too much.
    #[error("rule {rule}: `{glob}` is too large a pattern: {too_large}")]
    Glob {
        /// The rule's name.
        rule: String,
        /// The pattern as written.
        glob: String,
        /// What there is too much of.
        too_large: TooLarge,
    },
    /// Too many bits to flip.
    #[error("rule {rule}: {number} bits are more than one firing flips")]
    TooManyBits {
        /// The rule's name.
        rule: String,
        /// How many there are.
        number: u32,
    },
    /// A chain with too many steps.
    #[error("rule {rule}: a chain of {steps} steps is longer than the {backend} backend takes")]
    ChainTooLong {
        /// The rule's name.
        rule: String,
        /// How many there are, the closing `off` included.
        steps: usize,
        /// The backend.
        backend: &'static str,
        /// How many it takes.
        limit: usize,
    },
    /// A chain whose steps span too many calls.
    #[error("rule {rule}: its chain spans {calls} calls, more than can be counted")]
    ChainTooWide {
        /// The rule's name.
        rule: String,
        /// How many calls its steps span.
        calls: u64,
    },
    /// A call whose number is beyond what the kernel side looks up.
    #[error("rule {rule}: no call has the number {nr}")]
    Number {
        /// The rule's name.
        rule: String,
        /// The number.
        nr: u32,
    },
}

impl Unsupported {
    /// What to do instead.
    pub fn help(&self) -> String {
        match self {
            Self::Action { why, .. } | Self::Predicate { why, .. } => match why {
                Why::NotBuilt => "use --backend ptrace, which does".into(),
                Why::NeedsTracer => {
                    "a thread has to be held for it: use --backend ptrace, which does".into()
                }
            },
            Self::Attaching { .. } => {
                "use --backend ebpf or --backend ptrace, or launch the program: \
                                        finject --rule RULE -- COMMAND"
                    .into()
            }
            Self::TooManyRules { limit, .. } => {
                format!("at most {limit}: join calls with commas, or split the run")
            }
            Self::TooManyTests { limit, .. } => {
                format!("at most {limit}, `fd=` included: leave out those that the others imply")
            }
            Self::Glob { .. } => "make it several rules".into(),
            Self::TooManyCallerTests { limit, .. }
            | Self::TooManyPathTests { limit, .. }
            | Self::TooManySocketTests { limit, .. } => {
                format!("at most {limit}: leave out those that the others imply")
            }
            Self::TooManyBits { .. } => format!("at most {MAX_FLIPS}"),
            Self::ChainTooLong { limit, .. } => {
                format!("at most {limit}, the closing `off` included: split the rule with @N..M")
            }
            Self::ChainTooWide { .. } => "keep the sum of its repetitions below 2^32".into(),
            Self::Number { .. } => "name the call, or leave the number out".into(),
        }
    }
}
