//! What was decided for a call: the rules that fire on it, what each does to it, and what came of that.

use injector_common::limits::MAX_RULES;
use injector_common::random::flipped;
use injector_common::rule::{
    ACT_AFTER_HOLD, ACT_AFTER_KILL, ACT_AFTER_RESULT, ACT_AFTER_SIGNAL, ACT_AFTER_WAITS, ACT_HOLD,
    ACT_KILL, ACT_RESULT, ACT_SIGNAL, ACT_STOP, ACT_WAITS,
};
use injector_common::{Data, WireStep};

/// What is to become of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It runs.
    Runs,
    /// It does not run, and the caller gets this: `-errno`, or a value from 0 up.
    Gets(i64),
    /// It does not run, and its process is killed.
    Dies,
    /// It runs, and if it succeeds the caller gets this.
    RunsThenGets(i64),
    /// It runs, and then its process is killed.
    RunsThenDies,
}

impl Fate {
    /// What a step's result makes of a call; [`None`] where the step has none.
    pub(super) fn of(step: &WireStep) -> Option<Self> {
        let has = |action| step.actions & action != 0;
        if has(ACT_KILL) {
            Some(Self::Dies)
        } else if has(ACT_RESULT) {
            Some(Self::Gets(step.value))
        } else if has(ACT_AFTER_KILL) {
            Some(Self::RunsThenDies)
        } else if has(ACT_AFTER_RESULT) {
            Some(Self::RunsThenGets(step.value))
        } else {
            None
        }
    }
}

/// For how long a thread is to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Nanoseconds, at most.
    pub ns: u64,
    /// It may be released before.
    pub is_hold: bool,
    /// All other threads of the process are held meanwhile.
    pub stops: bool,
}

/// A rule that fires on the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Firing {
    /// The rule's index in the plan.
    pub(super) rule: usize,
    pub(super) count: u64,
    pub(super) ordinal: u64,
    pub(super) step: WireStep,
    pub(super) wait_ns: u64,
    pub(super) after_wait_ns: u64,
    /// The hash by which bits are chosen that are flipped.
    pub(super) choice: u64,
    /// When it was decided.
    pub(super) at_ns: u64,
    /// It has put its own rule out of force.
    pub(super) is_last: bool,
}

impl Firing {
    /// The rule's index in the plan.
    pub fn rule(&self) -> usize {
        self.rule
    }

    /// Whether its rule is out of force, and not by its own doing.
    pub fn is_disarmed(&self, armed: u64) -> bool {
        armed >> (self.rule % MAX_RULES) & 1 == 0 && !self.is_last
    }

    /// The `ACT_*` bits of all that is to happen.
    pub fn actions(&self) -> u32 {
        self.step.actions
    }

    /// To how many bytes a call is cut.
    pub(super) fn kept(&self, data: &Data) -> u64 {
        self.step.kept(data)
    }

    /// How many bits are flipped in so many bytes.
    pub(super) fn bits(&self, bytes: u64) -> u16 {
        let bits = bytes.saturating_mul(8).min(self.step.edit.into());
        u16::try_from(bits).unwrap_or(u16::MAX)
    }

    /// Which bits are flipped in so many bytes, by their numbers from the first byte's lowest on.
    pub(super) fn flips(&self, bytes: u64) -> impl Iterator<Item = u64> {
        let (choice, bits) = (self.choice, self.bits(bytes));
        (0..bits).map(move |index| flipped(choice, index.into(), bits.into(), bytes))
    }

    /// The signal that the calling thread gets before its call.
    pub fn signal(&self) -> Option<u32> {
        (self.actions() & ACT_SIGNAL != 0).then_some(self.step.signal)
    }

    /// The signal that the calling thread gets after its call.
    pub fn after_signal(&self) -> Option<u32> {
        (self.actions() & ACT_AFTER_SIGNAL != 0).then_some(self.step.after_signal)
    }

    /// How long the calling thread waits before its call.
    pub fn wait(&self) -> Option<Wait> {
        let wait = Wait {
            ns: self.wait_ns,
            is_hold: self.actions() & (ACT_HOLD | ACT_STOP) != 0,
            stops: self.actions() & ACT_STOP != 0,
        };
        (self.actions() & ACT_WAITS != 0).then_some(wait)
    }

    /// How long the calling thread waits after its call.
    pub fn after_wait(&self) -> Option<Wait> {
        let wait = Wait {
            ns: self.after_wait_ns,
            is_hold: self.actions() & ACT_AFTER_HOLD != 0,
            stops: false,
        };
        (self.actions() & ACT_AFTER_WAITS != 0).then_some(wait)
    }
}

/// What came of a firing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// The `ACT_*` bits of what happened.
    pub actions: u32,
    /// The rest did not happen since the faults were over, or the thread was.
    pub is_let_go: bool,
    /// The call had failed by itself, so that its result stands.
    pub is_moot: bool,
    /// What whoever released the thread has its call give, in place of what the step says.
    pub given: Option<i64>,
    /// It was counted as a hit.
    pub is_hit: bool,
    /// How long the thread waited before its call, nanoseconds.
    pub delay_ns: u64,
    /// How long it waited after its call, nanoseconds.
    pub after_delay_ns: u64,
    /// To how many bytes it cut its call, or in how many of them it flipped bits.
    pub bytes: u64,
    /// How many bits those are.
    pub bits: u16,
    /// How many of them, in their order, were in what was moved.
    pub flipped: u16,
}

impl Done {
    /// Everything that was to happen, each wait having lasted as long as it says.
    pub fn all_of(firing: &Firing) -> Self {
        let ns = |wait: Option<Wait>| wait.map_or(0, |wait| wait.ns);
        Self {
            actions: firing.actions(),
            delay_ns: ns(firing.wait()),
            after_delay_ns: ns(firing.after_wait()),
            ..Self::default()
        }
    }
}

/// What was decided for a call, to be carried out and then to be settled by [`super::decider::Decider::settle`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// What is to become of the call.
    pub fate: Fate,
    /// The rules that fire, in their order.
    pub firings: Vec<Firing>,
    /// One of them has put rules out of force.
    pub disarms: bool,
}

impl Decided {
    /// The call passes, whatever was counted.
    pub const PASSES: Self = Self {
        fate: Fate::Runs,
        firings: Vec::new(),
        disarms: false,
    };
}
