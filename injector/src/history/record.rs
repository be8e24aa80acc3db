//! One record of a session's history. Fields that do not apply are left out.

use serde::Serialize;

/// What a record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Rules are in force; counts start at 1.
    Armed,
    /// A rule fired on a call.
    Fired,
    /// A process became a target because its parent is one.
    TargetStarted,
    /// A target replaced its program.
    TargetExeced,
    /// A target ended by itself.
    TargetExited,
    /// A target was killed by a signal.
    TargetKilled,
    /// Something that the user should know.
    Warning,
    /// Records that found no room, or firings that could not be carried out.
    Lost,
    /// No rule is in force any more.
    Disarmed,
    /// Nothing of finject is left in the kernel, as a test call has shown.
    Healed,
}

/// The call on which a rule fired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CallRecord {
    /// The kernel's name of it.
    pub call: String,
    /// `64` or `32`.
    pub abi: &'static str,
    /// The number in that ABI.
    pub nr: u32,
    /// The arguments as the registers held them, hexadecimal, as many as the call has.
    pub args: Vec<String>,
    /// What was done, in the words of the rule language.
    pub action: String,
    /// What the caller saw: a negative errno or a made-up result; absent where the call ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<i64>,
    /// How long the thread waited before the call, nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ns: Option<u64>,
    /// How long it waited after the call, nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_delay_ns: Option<u64>,
    /// The bits that were flipped in what the call moved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flips: Vec<Flip>,
}

/// A bit that was flipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Flip {
    /// The byte in what the call moved, from 0.
    pub offset: u64,
    /// The bit in it, from the lowest, 0 to 7.
    pub bit: u8,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Position in the stream, from 1, without gaps.
    pub seq: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// Nanoseconds since 1970.
    pub wall_ns: u64,
    /// What it tells.
    pub kind: Kind,
    /// The rule's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The call's number within its scope, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Process id, as the initial pid namespace numbers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Thread id, as the initial pid namespace numbers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tid: Option<u32>,
    /// The thread's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// The call.
    #[serde(flatten)]
    pub call: Option<CallRecord>,
    /// How many, where the record stands for several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// The exit status of a target that ended by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    /// The signal that killed a target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Record {
    /// A record of a kind at a time, with nothing else yet. The writer numbers it.
    pub fn new(kind: Kind, mono_ns: u64, wall_ns: u64) -> Self {
        Self {
            seq: 0,
            mono_ns,
            wall_ns,
            kind,
            rule: None,
            count: None,
            pid: None,
            tid: None,
            comm: None,
            call: None,
            number: None,
            status: None,
            signal: None,
            message: None,
        }
    }
}
