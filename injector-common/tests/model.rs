//! The decision function against a naive reference: the reference keeps plain lists and loops, knows
//! neither words nor atomics, and is read beside the description of `when`, chains and `max:`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::cell::Cell;

use injector_common::limits::MAX_STEPS;
use injector_common::random::{CERTAIN, Purpose, hash};
use injector_common::rule::{ACT_CORRUPT, ACT_KILL, ACT_RESULT, ACT_SHORT, ACT_SIGNAL};
use injector_common::{Call, Counter, Data, Decision, WireRule, WireStep, decide};
use proptest::prelude::*;

/// A counter of one thread.
#[derive(Default)]
struct Plain {
    count: Cell<u64>,
    chain: Cell<u64>,
}

impl Counter for Plain {
    fn count_call(&self) -> u64 {
        self.count.set(self.count.get() + 1);
        self.count.get()
    }
    fn load(&self) -> u64 {
        self.chain.get()
    }
    fn compare_exchange(&self, old: u64, new: u64) -> u64 {
        let found = self.chain.get();
        if found == old {
            self.chain.set(new);
        }
        found
    }
}

/// A rule as the language has it.
#[derive(Clone, Debug)]
struct Spec {
    key: u64,
    first: u64,
    last: Option<u64>,
    step: u64,
    window: (u64, Option<u64>),
    max: Option<u32>,
    probability: u32,
    /// Repetitions ([`None`] for a step without a number) and what happens.
    chain: Vec<(Option<u32>, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Met {
    since_armed_ns: u64,
    decided: bool,
    data: Data,
}

/// What `short:` leaves of a call, and how many bits `corrupt:` flips.
const EDIT: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Did {
    NotSelected,
    Off,
    Exhausted,
    Shadowed,
    Dataless,
    Fired(u32),
}

/// The reference.
fn reference(spec: &Spec, seed: u64, ordinal: u64, calls: &[Met]) -> Vec<Did> {
    // The chain written out: one entry for each selected call, and what holds after them.
    let mut script = Vec::new();
    let mut after = 0;
    for (index, (repeat, action)) in spec.chain.iter().enumerate() {
        let is_last = index + 1 == spec.chain.len();
        match repeat {
            None if is_last => after = *action,
            None => script.push(*action),
            Some(repeat) => script.extend(std::iter::repeat_n(*action, *repeat as usize)),
        }
    }
    let (mut position, mut fired) = (0, 0);
    calls
        .iter()
        .zip(1_u64..)
        .map(|(call, count)| {
            let in_sequence = (spec.first..=spec.last.unwrap_or(count).max(spec.first))
                .step_by(usize::try_from(spec.step).unwrap())
                .take_while(|number| *number <= count)
                .any(|number| number == count)
                && spec.last.is_none_or(|last| count <= last);
            let in_window = call.since_armed_ns >= spec.window.0
                && spec.window.1.is_none_or(|end| call.since_armed_ns < end);
            let draw = hash(seed, spec.key, ordinal, count, Purpose::Fire) >> 32;
            let drawn = spec.probability >= CERTAIN
                || draw * u64::from(CERTAIN) / (1 << 32) < u64::from(spec.probability);
            if !(in_sequence && in_window && drawn) {
                return Did::NotSelected;
            }
            if spec.max.is_some_and(|max| fired >= max) {
                return Did::Exhausted;
            }
            let action = script.get(position).copied().unwrap_or(after);
            if call.decided && action & (ACT_RESULT | ACT_KILL) != 0 {
                return Did::Shadowed;
            }
            let cuts = call.data.can_be_cut == 1 && call.data.bytes > EDIT;
            if action & ACT_SHORT != 0 && !cuts || action & ACT_CORRUPT != 0 && call.data.bytes == 0
            {
                return Did::Dataless;
            }
            position += 1;
            if action == 0 {
                return Did::Off;
            }
            fired += 1;
            Did::Fired(action)
        })
        .collect()
}

fn wire(spec: &Spec) -> WireRule {
    let mut rule = WireRule {
        key: spec.key,
        first: spec.first,
        last: spec.last.unwrap_or(u64::MAX),
        step: spec.step,
        start_ns: spec.window.0,
        end_ns: spec.window.1.unwrap_or(u64::MAX),
        max: spec.max.unwrap_or(0),
        probability: spec.probability,
        ..WireRule::PASS
    };
    let mut until = 0;
    let mut steps = Vec::new();
    for (index, (repeat, actions)) in spec.chain.iter().enumerate() {
        let forever = repeat.is_none() && index + 1 == spec.chain.len();
        until += u64::from(repeat.unwrap_or(1));
        let until = if forever { WireStep::FOREVER } else { until };
        steps.push(WireStep {
            until,
            actions: *actions,
            edit: u32::try_from(EDIT).unwrap(),
            ..WireStep::OFF
        });
    }
    if steps
        .last()
        .is_none_or(|last| last.until != WireStep::FOREVER)
    {
        steps.push(WireStep::OFF);
    }
    rule.steps_len = u16::try_from(steps.len()).unwrap();
    rule.steps[..steps.len()].copy_from_slice(&steps);
    let edits = |step: &WireStep| step.actions & (ACT_SHORT | ACT_CORRUPT) != 0;
    rule.edits = u16::from(steps.iter().any(edits));
    rule
}

fn outcome(decision: &Decision<'_>) -> (u64, Did) {
    match decision {
        Decision::NotSelected { count } => (*count, Did::NotSelected),
        Decision::Off { count } => (*count, Did::Off),
        Decision::Exhausted { count } => (*count, Did::Exhausted),
        Decision::Shadowed { count } => (*count, Did::Shadowed),
        Decision::Dataless { count } => (*count, Did::Dataless),
        Decision::Contended { .. } => panic!("one thread cannot be in its own way"),
        Decision::Fire { count, step, .. } => (*count, Did::Fired(step.actions)),
    }
}

fn actions() -> impl Strategy<Value = u32> {
    prop_oneof![
        2 => Just(0),
        3 => Just(ACT_RESULT),
        1 => Just(ACT_KILL),
        1 => Just(ACT_SIGNAL),
        1 => Just(ACT_SIGNAL | ACT_RESULT),
        1 => Just(ACT_SHORT),
        1 => Just(ACT_CORRUPT),
    ]
}

fn specs() -> impl Strategy<Value = Spec> {
    let span = (1_u64..12, prop::option::of(0_u64..30), 1_u64..6);
    let window = (0_u64..20, prop::option::of(0_u64..40));
    let step = (prop::option::of(1_u32..5), actions());
    (
        any::<u64>(),
        span,
        window,
        prop::option::of(1_u32..5),
        prop_oneof![Just(CERTAIN), 1..CERTAIN],
        prop::collection::vec(step, 1..MAX_STEPS),
    )
        .prop_map(
            |(key, (first, length, step), (start, length_ns), max, probability, chain)| Spec {
                key,
                first,
                last: length.map(|length| first + length),
                step,
                window: (start, length_ns.map(|length| start + length)),
                max,
                probability,
                chain,
            },
        )
}

fn calls() -> impl Strategy<Value = Vec<Met>> {
    let data = (0..2 * EDIT, 0_u64..2).prop_map(|(bytes, can_be_cut)| Data {
        bytes,
        can_be_cut,
        unit: 1,
    });
    let call = (0_u64..60, prop::bool::weighted(0.2), data);
    let call = call.prop_map(|(since_armed_ns, decided, data)| Met {
        since_armed_ns,
        decided,
        data,
    });
    prop::collection::vec(call, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn decisions_are_those_of_the_reference(
        spec in specs(), seed in any::<u64>(), ordinal in 0_u64..4, calls in calls(),
    ) {
        let (rule, counter) = (wire(&spec), Plain::default());
        let want = reference(&spec, seed, ordinal, &calls);
        for ((met, want), number) in calls.iter().zip(want).zip(1_u64..) {
            let call =
                Call { seed, ordinal, since_armed_ns: met.since_armed_ns, decided: met.decided };
            let decision = decide(&rule, &counter, &call, || met.data);
            prop_assert_eq!(outcome(&decision), (number, want));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_firings(
        spec in specs(), seed in any::<u64>(), calls in calls(),
    ) {
        let rule = wire(&spec);
        let run = || {
            let counter = Plain::default();
            calls.iter().map(|met| {
                let call =
                    Call { seed, ordinal: 0, since_armed_ns: met.since_armed_ns, decided: false };
                outcome(&decide(&rule, &counter, &call, || met.data))
            }).collect::<Vec<_>>()
        };
        prop_assert_eq!(run(), run());
    }
}
