//! From a resolved rule to its wire form: what every backend's decision goes by. What the wire form
//! cannot say yet is told as such, part by part.

use injector_common::limits::{MAX_POSITION, MAX_STEPS};
use injector_common::rule::{ACT_KILL, ACT_RESULT, ACT_SIGNAL};
use injector_common::{Scope as WireScope, WireRule, WireStep};

use super::ast::{Action, Scope};
use super::{ResolvedRule, Step};

/// A part of a rule that has no wire form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotLowered {
    /// An action.
    Action(Action),
    /// More steps than a chain can have; how many there are, the closing `off` included.
    ChainTooLong(usize),
    /// The calls that the chain's steps span, more than can be counted.
    ChainTooWide(u64),
}

fn nanoseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Lowers a rule.
pub fn lower(rule: &ResolvedRule) -> Result<WireRule, Vec<NotLowered>> {
    let mut problems = Vec::new();
    let mut wire = WireRule {
        key: rule.key,
        ..WireRule::PASS
    };
    let when = &rule.when;
    wire.first = when.count.first().get();
    wire.last = when
        .count
        .last()
        .map_or(u64::MAX, std::num::NonZeroU64::get);
    wire.step = when.count.step().get();
    wire.start_ns = when.start.map_or(0, nanoseconds);
    wire.end_ns = when.for_.map_or(u64::MAX, |length| {
        wire.start_ns.saturating_add(nanoseconds(length))
    });
    wire.max = when.max.map_or(0, std::num::NonZeroU32::get);
    wire.probability = when
        .probability
        .map_or(injector_common::random::CERTAIN, super::Percent::parts);
    wire.scope = match when.per {
        Scope::Rule => WireScope::Rule,
        Scope::Process => WireScope::Process,
        Scope::Thread => WireScope::Thread,
    } as u32;

    let mut steps = Vec::new();
    let mut until = 0_u64;
    for (index, step) in rule.chain.iter().enumerate() {
        let is_last = index + 1 == rule.chain.len();
        let mut wire_step = lower_step(step, &mut problems);
        // A step without a number lasts for one call, the last one for ever.
        wire_step.until = match step.repeat {
            None if is_last => WireStep::FOREVER,
            repeat => {
                until = until.saturating_add(repeat.map_or(1, |n| u64::from(n.get())));
                until
            }
        };
        steps.push(wire_step);
    }
    if steps
        .last()
        .is_none_or(|last| last.until != WireStep::FOREVER)
    {
        steps.push(WireStep::OFF);
    }
    if until > u64::from(MAX_POSITION) {
        problems.push(NotLowered::ChainTooWide(until));
    }
    if steps.len() > MAX_STEPS {
        problems.push(NotLowered::ChainTooLong(steps.len()));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    wire.steps_len = u32::try_from(steps.len()).unwrap_or(0);
    wire.steps[..steps.len()].copy_from_slice(&steps);
    Ok(wire)
}

fn lower_step(step: &Step, problems: &mut Vec<NotLowered>) -> WireStep {
    let mut wire = WireStep::OFF;
    for action in &step.actions {
        match action {
            Action::Off => {}
            Action::Error(errno) => {
                wire.actions |= ACT_RESULT;
                wire.value = -i64::from(errno.number());
            }
            Action::Ret(value) => {
                wire.actions |= ACT_RESULT;
                wire.value = i64::try_from(value.get()).unwrap_or(i64::MAX);
            }
            Action::Kill => wire.actions |= ACT_KILL,
            Action::Signal(signal) => {
                wire.actions |= ACT_SIGNAL;
                wire.signal = u32::from(signal.number());
            }
            other => problems.push(NotLowered::Action(*other)),
        }
    }
    wire
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{RuleText, compile};

    fn lowered(rule: &str) -> WireRule {
        lower(&compile(&[RuleText::new(rule)]).unwrap().rules[0]).unwrap()
    }

    fn refused(rule: &str) -> Vec<NotLowered> {
        lower(&compile(&[RuleText::new(rule)]).unwrap().rules[0]).unwrap_err()
    }

    /// A step: its end, actions, value and signal.
    fn steps(rule: &str) -> Vec<(u64, u32, i64, u32)> {
        let wire = lowered(rule);
        let used = &wire.steps[..wire.steps_len as usize];
        let unused = &wire.steps[wire.steps_len as usize..];
        assert!(unused.iter().all(|step| *step == WireStep::OFF), "{rule}");
        used.iter()
            .map(|step| (step.until, step.actions, step.value, step.signal))
            .collect()
    }

    #[test]
    fn actions_become_bits_and_what_they_carry() {
        const EVER: u64 = WireStep::FOREVER;
        for (rule, expected) in [
            ("fsync=EIO", vec![(EVER, ACT_RESULT, -5, 0)]),
            ("fsync=ret:7", vec![(EVER, ACT_RESULT, 7, 0)]),
            ("fsync=kill", vec![(EVER, ACT_KILL, 0, 0)]),
            ("fsync=signal:SIGUSR1@1", vec![(EVER, ACT_SIGNAL, 0, 10)]),
            (
                "fsync=signal:SIGUSR1+EIO@1",
                vec![(EVER, ACT_SIGNAL | ACT_RESULT, -5, 10)],
            ),
            (
                "fsync=signal:SIGUSR1+kill@1",
                vec![(EVER, ACT_SIGNAL | ACT_KILL, 0, 10)],
            ),
            (
                "fsync=EIO->EPERM",
                vec![(1, ACT_RESULT, -5, 0), (EVER, ACT_RESULT, -1, 0)],
            ),
            (
                "fsync=2*off->3*EIO",
                vec![(2, 0, 0, 0), (5, ACT_RESULT, -5, 0), (EVER, 0, 0, 0)],
            ),
        ] {
            assert_eq!(steps(rule), expected, "{rule}");
        }
    }

    #[test]
    fn a_rule_keeps_its_key_its_sequence_and_its_scope() {
        let rule = compile(&[RuleText::new("fsync=EIO@3..9+2,50%,max:4,per:thread")]).unwrap();
        let wire = lower(&rule.rules[0]).unwrap();
        assert_eq!(wire.key, rule.rules[0].key);
        assert_ne!(wire.key, 0);
        assert_eq!((wire.first, wire.last, wire.step, wire.max), (3, 9, 2, 4));
        assert_eq!(wire.probability, injector_common::random::CERTAIN / 2);
        assert_eq!(wire.scope, WireScope::Thread as u32);
        let wire = lowered("fsync=EIO@per:process");
        assert_eq!(
            (wire.first, wire.last, wire.step, wire.max),
            (1, u64::MAX, 1, 0)
        );
        assert_eq!(wire.scope, WireScope::Process as u32);
    }

    #[test]
    fn chains_have_their_limits_to_the_step() {
        let chain = |steps: usize| format!("fsync={}", vec!["EIO"; steps].join("->"));
        assert_eq!(steps(&chain(MAX_STEPS)).len(), MAX_STEPS);
        assert_eq!(
            refused(&chain(MAX_STEPS + 1)),
            [NotLowered::ChainTooLong(MAX_STEPS + 1)]
        );
        // An end of its own costs the closing `off` a step.
        assert_eq!(
            refused(&format!("{}->2*EIO", chain(MAX_STEPS - 1))),
            [NotLowered::ChainTooLong(MAX_STEPS + 1)]
        );
        let wide = |calls: u64| format!("fsync={calls}*EIO->off");
        let most = u64::from(MAX_POSITION);
        assert_eq!(steps(&wide(most))[0].0, most);
        assert_eq!(
            refused(&format!("fsync={most}*EIO->1*EPERM->off")),
            [NotLowered::ChainTooWide(most + 1)]
        );
        assert!(matches!(
            refused("fsync=delay:1s->hold")[..],
            [
                NotLowered::Action(Action::Delay(_)),
                NotLowered::Action(Action::Hold(_))
            ]
        ));
    }

    #[test]
    fn times_are_nanoseconds_after_arming() {
        let rule = lowered("fsync=EIO@start:2s,for:500ms");
        assert_eq!((rule.start_ns, rule.end_ns), (2_000_000_000, 2_500_000_000));
        let rule = lowered("fsync=EIO");
        assert_eq!((rule.start_ns, rule.end_ns), (0, u64::MAX));
    }
}
