//! What decides calls, as numbers: lowered rules with the calls that each names. Once written to the shared memory it
//! is there for all that decide, in the kernel or in a process of finject's; rules may join while they do.

use std::time::Duration;

use injector_common::{WireGlob, WireRule};

use super::BackendError;
use super::memory::{CallSlot, Memory};
use crate::plan::{Arming, Plan};
use crate::rule::ResolvedRule;
use crate::rule::lower::{Lowered, NotLowered, lower, nanoseconds};

/// A rule as whoever decides takes it.
#[derive(Clone, Debug)]
pub struct SpecRule {
    /// The wire form.
    pub wire: WireRule,
    /// The patterns of its tests of files.
    pub globs: Vec<WireGlob>,
    /// The calls.
    pub calls: Vec<CallSlot>,
    /// Which rules its firing puts in force and out of it.
    pub arming: Arming,
}

impl SpecRule {
    /// A rule of a plan. Whoever admitted it has lowered it before.
    pub(super) fn of(plan: &Plan, index: usize) -> Result<Self, BackendError> {
        let rule = plan.rules.get(index).ok_or(BackendError::NotLoaded)?;
        Self::lowered(rule, plan.arming_of(index)).map_err(|_| BackendError::NotLoaded)
    }

    /// A rule, lowered.
    pub(super) fn lowered(rule: &ResolvedRule, arming: Arming) -> Result<Self, Vec<NotLowered>> {
        let Lowered { wire, globs } = lower(rule)?;
        Ok(Self {
            wire,
            globs,
            calls: rule.calls.iter().copied().map(CallSlot::from).collect(),
            arming,
        })
    }

    fn write(&self, index: usize, memory: &Memory) {
        let rule = (&self.wire, self.globs.as_slice());
        memory.write_rule(index, rule, self.arming, &self.calls);
    }
}

/// What decides calls.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The rules, at most `MAX_RULES`, by index.
    pub rules: Vec<SpecRule>,
    /// The seed of random choices.
    pub seed: u64,
    /// Count, fire nothing.
    pub dry_run: bool,
}

impl Spec {
    /// What a plan asks for.
    pub(super) fn of(plan: &Plan) -> Result<Self, BackendError> {
        let rules = (0..plan.rules.len()).map(|index| SpecRule::of(plan, index));
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
            seed: plan.seed,
            dry_run: plan.dry_run,
        })
    }

    /// Writes the rules to the memory. Before any of them is in force.
    pub(super) fn write(&self, memory: &Memory) {
        for (index, rule) in self.rules.iter().enumerate() {
            rule.write(index, memory);
        }
    }

    /// A rule of the plan, its last or one that was taken away, joins the others. Not in force yet.
    pub(super) fn join(
        &mut self,
        plan: &Plan,
        index: usize,
        memory: &Memory,
    ) -> Result<(), BackendError> {
        // Another's firing may have armed one that was taken away.
        memory.disarm_rules(1 << (index % 64));
        if let Some(known) = self.rules.get(index) {
            memory.name_calls(index, &known.calls);
            return Ok(());
        }
        let rule = SpecRule::of(plan, index)?;
        rule.write(index, memory);
        self.rules.push(rule);
        Ok(())
    }

    /// How many calls rules name, each of each.
    pub(super) fn named(&self) -> usize {
        self.rules.iter().map(|rule| rule.calls.len()).sum()
    }

    /// Whether some rule has a thread held, where delays up to so long need none.
    pub(super) fn has_holds(&self, spin: Duration) -> bool {
        let spin_ns = nanoseconds(spin);
        self.rules.iter().any(|rule| rule.wire.has_holds(spin_ns))
    }
}
