//! The decision: given a rule, the counter of the call's scope and the facts of the call, does the
//! rule fire, and with which step? Used by the kernel program and by every other backend, so that
//! the same seed gives the same firings everywhere.
//!
//! A counter is two 64-bit words. The first is the number of matching calls: one atomic addition
//! gives each call its own count, whatever the threads and CPUs do. The second is needed only for
//! chains that move and for `max:`: the chain's position in its high half and the number of firings
//! in its low half, changed together by compare-and-exchange, so that no position is taken twice
//! and none is lost.

use crate::limits::{MAX_POSITION, MAX_RETRIES};
use crate::rule::{ACT_DECIDES, Data, WireRule, WireStep};
use crate::trigger::{drawn, in_sequence, in_window};

/// The two words of one scope's counter. Implementations are atomic where calls race.
pub trait Counter {
    /// Adds one to the number of calls and returns the new number.
    fn count_call(&self) -> u64;
    /// Reads the chain's word.
    fn load(&self) -> u64;
    /// Replaces the chain's word if it is still `old`; returns what it was.
    fn compare_exchange(&self, old: u64, new: u64) -> u64;

    /// Moves the chain by one selected call: [`advance`] until nobody else was faster. Returns what
    /// came of it and the word before it, [`None`] after [`MAX_RETRIES`] lost races.
    #[inline(always)]
    fn move_chain(&self, rule: &WireRule, decided: bool, data: &Data) -> Option<(Outcome, u64)> {
        let mut word = self.load();
        for _ in 0..MAX_RETRIES {
            let (outcome, next) = advance(rule, decided, data, word);
            let found = if next == word {
                word
            } else {
                self.compare_exchange(word, next)
            };
            if found == word {
                return Some((outcome, word));
            }
            word = found;
        }
        None
    }
}

/// What comes of a selected call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// The step says `off`.
    Off = 0,
    /// The step happens.
    Fire = 1,
    /// `max:` is used up.
    Exhausted = 2,
    /// An earlier rule has decided the result.
    Shadowed = 3,
    /// The step changes data, and there is none that it could change.
    Dataless = 4,
}

/// What comes of a selected call of a rule with state, given the chain's word, and the word after
/// it.
#[inline(always)]
pub fn advance(rule: &WireRule, decided: bool, data: &Data, word: u64) -> (Outcome, u64) {
    let (position, fired) = (word >> 32, word & LOW);
    if rule.max != 0 && fired >= u64::from(rule.max) {
        return (Outcome::Exhausted, word);
    }
    let step = &rule.steps[rule.step_at(position)];
    if decided && step.actions & ACT_DECIDES != 0 {
        return (Outcome::Shadowed, word);
    }
    if rule.has_edits() && !step.has_data(data) {
        return (Outcome::Dataless, word);
    }
    let outcome = if step.actions == 0 {
        Outcome::Off
    } else {
        Outcome::Fire
    };
    // Both halves stop short of their end: past it the last step holds for ever.
    let position = if position < END { position + 1 } else { END };
    let fired = if outcome == Outcome::Fire && fired < END {
        fired + 1
    } else {
        fired
    };
    (outcome, position << 32 | fired)
}

/// What a decision needs to know of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The run's seed.
    pub seed: u64,
    /// The ordinal of the counter's scope: 0 for `per:rule`, else the order in which the rule met
    /// its processes or threads.
    pub ordinal: u64,
    /// Nanoseconds since the rule was armed. Looked at only where [`WireRule::has_window`].
    pub since_armed_ns: u64,
    /// An earlier rule has decided what the caller gets.
    pub decided: bool,
}

/// The outcome for one rule and one call. `count` is the call's number within its scope, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'rule> {
    /// `when` did not select the call.
    NotSelected {
        /// The call's number.
        count: u64,
    },
    /// Selected, and the chain says `off`.
    Off {
        /// The call's number.
        count: u64,
    },
    /// Selected, but `max:` is used up.
    Exhausted {
        /// The call's number.
        count: u64,
    },
    /// Selected with a step that decides the result, after an earlier rule had decided it. Neither
    /// the chain nor `max:` moved.
    Shadowed {
        /// The call's number.
        count: u64,
    },
    /// Selected with a step that changes data, of a call that moves none that it could change. Neither the
    /// chain nor `max:` moved.
    Dataless {
        /// The call's number.
        count: u64,
    },
    /// Other CPUs won every race for the chain's position. The call passes; this is reported.
    Contended {
        /// The call's number.
        count: u64,
    },
    /// The rule hit.
    Fire {
        /// The call's number.
        count: u64,
        /// What happens.
        step: &'rule WireStep,
        /// The step's index in the chain.
        index: usize,
    },
}

const LOW: u64 = 0xffff_ffff;
const END: u64 = MAX_POSITION as u64;

/// Decides one call that matches the rule's calls and predicates, and counts it. `data` is asked only of a
/// selected call, by a rule that changes data.
#[inline(always)]
pub fn decide<'rule, C: Counter>(
    rule: &'rule WireRule,
    counter: &C,
    call: &Call,
    data: impl FnOnce() -> Data,
) -> Decision<'rule> {
    let count = counter.count_call();
    if !in_sequence(rule, count)
        || (rule.has_window() && !in_window(rule, call.since_armed_ns))
        || !drawn(rule, call.seed, call.ordinal, count)
    {
        return Decision::NotSelected { count };
    }
    let data = if rule.has_edits() { data() } else { Data::NONE };
    if !rule.has_state() {
        let step = &rule.steps[0];
        return if step.actions == 0 {
            Decision::Off { count }
        } else if call.decided && step.actions & ACT_DECIDES != 0 {
            Decision::Shadowed { count }
        } else if rule.has_edits() && !step.has_data(&data) {
            Decision::Dataless { count }
        } else {
            Decision::Fire {
                count,
                step,
                index: 0,
            }
        };
    }
    match counter.move_chain(rule, call.decided, &data) {
        None => Decision::Contended { count },
        Some((Outcome::Off, _)) => Decision::Off { count },
        Some((Outcome::Exhausted, _)) => Decision::Exhausted { count },
        Some((Outcome::Shadowed, _)) => Decision::Shadowed { count },
        Some((Outcome::Dataless, _)) => Decision::Dataless { count },
        Some((Outcome::Fire, word)) => {
            let index = rule.step_at(word >> 32);
            Decision::Fire {
                count,
                step: &rule.steps[index],
                index,
            }
        }
    }
}
