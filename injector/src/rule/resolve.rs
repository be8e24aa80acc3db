//! A rule as written becomes a rule as carried out: names become calls, defaults are filled in,
//! flags become numbers, positions are forgotten. What may not be replaced is refused or dropped
//! here, and what can never act is warned of.

mod check;
mod names;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use super::{
    ast::{
        Action, After, ArgValue, Condition, HOLD_DEFAULT, Integer, Node, Predicate, Rule, Scope,
    },
    error::{CallError, RuleError, RuleErrors, Source},
    key,
    parse::{Partial, Whole, parse_partial},
    value::{Count, Percent},
    vars::Vars,
    warning::{RuleWarning, Warning},
};
use crate::syscall::CallId;

/// The name of a rule: 1 to 64 letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleName(String);

impl RuleName {
    /// The longest name, in bytes.
    pub const MAX: usize = 64;

    /// Takes a name; `None` where it is none.
    pub fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        let fits = (1..=Self::MAX).contains(&name.len());
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        (fits && name.chars().all(plain)).then_some(Self(name))
    }

    /// The name of a rule that has none, by its place from 1.
    fn numbered(place: usize) -> Self {
        Self(format!("r{place}"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text of one rule, and where it comes from.
#[derive(Clone, Debug)]
pub struct RuleText {
    name: Option<RuleName>,
    text: String,
    /// The source that messages show, and where in it the text stands.
    source: Source,
    offset: usize,
    vars: Option<Arc<BTreeMap<String, String>>>,
}

impl RuleText {
    /// A rule from the command line or the environment.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let source = Source {
            name: None,
            text: text.clone(),
        };
        Self {
            name: None,
            text,
            source,
            offset: 0,
            vars: None,
        }
    }

    /// Its name, where it has one of its own.
    pub fn name(&self) -> Option<&RuleName> {
        self.name.as_ref()
    }

    /// The same rule under a name.
    #[must_use]
    pub fn named(self, name: RuleName) -> Self {
        Self {
            name: Some(name),
            ..self
        }
    }

    /// A rule of a file, standing `offset` bytes into `source`.
    pub(crate) fn in_file(
        name: RuleName,
        text: String,
        source: Source,
        offset: usize,
        vars: Arc<BTreeMap<String, String>>,
    ) -> Self {
        Self {
            name: Some(name),
            text,
            source,
            offset,
            vars: Some(vars),
        }
    }
}

/// A rule with everything decided that can be without asking the machine.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedRule {
    /// Its name, unique in a run.
    pub name: RuleName,
    /// Its canonical text, variables replaced.
    pub text: String,
    /// What its random choices hang on; stable between runs and releases.
    pub key: u64,
    /// The calls it is about; never empty.
    pub calls: BTreeSet<CallId>,
    /// What must hold, all of it.
    pub preds: Vec<Predicate<Integer>>,
    /// What happens, call by call; never empty.
    pub chain: Vec<Step>,
    /// Which calls are selected.
    pub when: When,
}

/// One step of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// For how many selected calls it lasts; `None` for ever, on the last step only.
    pub repeat: Option<NonZeroU32>,
    /// What happens together, in the order of phases; empty where the call passes.
    pub actions: Vec<Action>,
}

/// Which calls are selected; all of it must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// By number.
    pub count: Count,
    /// By chance; `None` for always.
    pub probability: Option<Percent>,
    /// At most that many firings.
    pub max: Option<NonZeroU32>,
    /// Only that long after arming.
    pub start: Option<Duration>,
    /// Only for that long from then.
    pub for_: Option<Duration>,
    /// Whose calls are counted together.
    pub per: Scope,
}

impl When {
    fn of<S>(conditions: &[Node<Condition, S>]) -> Self {
        let mut when = Self {
            count: Count::ALL,
            probability: None,
            max: None,
            start: None,
            for_: None,
            per: Scope::Rule,
        };
        for condition in conditions {
            match condition.node {
                Condition::Count(count) => when.count = count,
                Condition::Percent(percent) => when.probability = Some(percent),
                Condition::Max(max) => when.max = Some(max),
                Condition::Start(start) => when.start = Some(start),
                Condition::For(span) => when.for_ = Some(span),
                Condition::Per(scope) => when.per = scope,
            }
        }
        when
    }

    /// Whether every call is selected, for ever.
    pub fn is_always(&self) -> bool {
        let Self {
            count,
            probability,
            max,
            start,
            for_,
            per: _,
        } = self;
        let whole = probability.is_none_or(|p| p.parts() == Percent::PARTS);
        count.is_all() && whole && max.is_none() && start.is_none() && for_.is_none()
    }
}

/// Rules that can be carried out, with what there is to say about them.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// In the order given, which is the order in which they decide.
    pub rules: Vec<ResolvedRule>,
    /// In the order of rules.
    pub warnings: Vec<RuleWarning>,
}

/// Reads and resolves all rules of a run. Rules without a name are named `r1`, `r2`, … by their
/// place.
///
/// # Errors
/// All mistakes of all rules.
pub fn compile(texts: &[RuleText]) -> Result<Compiled, Vec<RuleErrors>> {
    compile_after(&[], texts)
}

/// The same of rules that join those of a run, which come before them: the numbers of names go on.
///
/// # Errors
/// All mistakes of all rules that join.
pub fn compile_after(
    run: &[ResolvedRule],
    texts: &[RuleText],
) -> Result<Compiled, Vec<RuleErrors>> {
    let mut compiled = Compiled {
        rules: Vec::new(),
        warnings: Vec::new(),
    };
    let mut failed = Vec::new();
    let mut names: BTreeSet<RuleName> = run.iter().map(|rule| rule.name.clone()).collect();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for rule in run {
        *seen.entry(rule.text.clone()).or_insert(0) += 1;
    }
    for (text, place) in texts.iter().zip(run.len() + 1..) {
        let name = text.name.clone().unwrap_or_else(|| {
            let mut numbered = (place..).map(RuleName::numbered);
            // Only a rule that joins gives way to a name that somebody chose.
            let is_free = |name: &RuleName| run.is_empty() || !names.contains(name);
            numbered
                .find(is_free)
                .unwrap_or_else(|| RuleName::numbered(place))
        });
        let vars = text.vars.as_deref().map_or_else(Vars::none, Vars::of);
        let partial = parse_partial(&text.text, text.offset, vars);
        let mut resolved = Resolved::of(partial);
        if !names.insert(name.clone()) {
            let span = (text.offset, text.text.len()).into();
            resolved
                .errors
                .push(CallError::DuplicateName(span, name.to_string()).into());
        }
        if !resolved.errors.is_empty() {
            failed.push(RuleErrors::new(text.source.clone(), resolved.errors));
            continue;
        }
        let canonical = resolved.rule.to_string();
        let key = if text.name.is_some() {
            key::of_name(name.as_str())
        } else {
            let occurrence = seen.entry(canonical.clone()).or_insert(0);
            *occurrence += 1;
            key::of_text(&canonical, *occurrence - 1)
        };
        let rule = ResolvedRule {
            name: name.clone(),
            text: canonical,
            key,
            calls: resolved.calls,
            preds: resolved.preds,
            chain: steps(&resolved.rule),
            when: When::of(&resolved.rule.when),
        };
        if let Some(earlier) = run
            .iter()
            .chain(&compiled.rules)
            .find(|earlier| check::shadows(earlier, &rule))
        {
            let span = (text.offset, text.text.len()).into();
            resolved
                .warnings
                .push(Warning::Shadowed(span, earlier.name.to_string()));
        }
        compiled
            .warnings
            .extend(resolved.warnings.into_iter().map(|kind| RuleWarning {
                rule: name.clone(),
                kind,
                source: text.source.clone(),
            }));
        compiled.rules.push(rule);
    }
    if failed.is_empty() {
        Ok(compiled)
    } else {
        Err(failed)
    }
}

/// The chain without positions; what it leaves open is filled in.
fn steps(rule: &Rule) -> Vec<Step> {
    let last = rule.chain.len().saturating_sub(1);
    let mut steps: Vec<Step> = Vec::new();
    for (i, step) in rule.chain.iter().enumerate() {
        let repeat = match &step.repeat {
            Some(repeat) => Some(repeat.node),
            None if i < last => Some(NonZeroU32::MIN),
            None => None,
        };
        let written = step.actions.iter().map(|action| action.node);
        let mut actions: Vec<Action> = written
            .filter(|action| *action != Action::Off)
            .map(with_defaults)
            .collect();
        actions.sort_by_key(Action::phase);
        steps.push(Step { repeat, actions });
    }
    if steps.last().is_some_and(|step| step.repeat.is_some()) {
        steps.push(Step {
            repeat: None,
            actions: Vec::new(),
        });
    }
    steps
}

/// A hold without a time of its own gets the usual one.
fn with_defaults(action: Action) -> Action {
    match action {
        Action::Hold(max) => Action::Hold(max.or(Some(HOLD_DEFAULT))),
        Action::After(After::Hold(max)) => Action::After(After::Hold(max.or(Some(HOLD_DEFAULT)))),
        other => other,
    }
}

/// What is known of a rule once its names have been looked up.
struct Resolved {
    rule: Rule,
    calls: BTreeSet<CallId>,
    preds: Vec<Predicate<Integer>>,
    errors: Vec<RuleError>,
    warnings: Vec<Warning>,
}

impl Resolved {
    fn of(partial: Partial) -> Self {
        let Partial {
            rule,
            whole,
            errors,
        } = partial;
        let mut this = Self {
            rule,
            calls: BTreeSet::new(),
            preds: Vec::new(),
            errors,
            warnings: Vec::new(),
        };
        let Whole {
            calls,
            preds,
            chain,
            when,
        } = whole;
        let named = this.look_up(calls, chain);
        if calls && when {
            this.check_complement();
        }
        if preds && named {
            this.resolve_predicates();
        }
        if chain && when {
            check::chain(&this.rule, &mut this.errors, &mut this.warnings);
        }
        if chain && named {
            check::actions_and_calls(
                &this.rule,
                &this.calls,
                &mut this.errors,
                &mut this.warnings,
            );
        }
        this
    }

    /// Finds the calls; false where some could not be.
    fn look_up(&mut self, calls_whole: bool, chain_whole: bool) -> bool {
        let results = if chain_whole {
            names::Results::of(&self.rule)
        } else {
            names::Results::NONE
        };
        let before = self.errors.len();
        let set = names::resolve(
            &self.rule.calls,
            results,
            &mut self.errors,
            &mut self.warnings,
        );
        let clean = self.errors.len() == before;
        self.calls = set;
        if calls_whole && clean && self.calls.is_empty() {
            let span = self
                .rule
                .calls
                .first()
                .map_or((0, 0).into(), |item| item.span);
            let why = self.warnings.iter().find_map(|warning| match warning {
                Warning::Dropped(_, names, reason) => Some(format!("{names}: {reason}")),
                _ => None,
            });
            self.errors.push(CallError::NothingLeft(span, why).into());
            return false;
        }
        calls_whole && clean
    }

    fn check_complement(&mut self) {
        if let Some(first) = self.rule.calls.first()
            && first.node.negated
            && self.rule.when.is_empty()
        {
            self.errors
                .push(CallError::ComplementNeedsWhen(first.span).into());
        }
    }

    fn resolve_predicates(&mut self) {
        for pred in &self.rule.preds {
            match check::predicate(pred, &self.calls, &mut self.warnings) {
                Ok(resolved) => self.preds.push(resolved),
                Err(error) => self.errors.push(error),
            }
        }
    }
}

impl Predicate<ArgValue> {
    /// The same predicate with the value of an argument replaced.
    fn with_value(&self, value: impl FnOnce(&ArgValue) -> Integer) -> Predicate<Integer> {
        match self.clone() {
            Self::Path {
                side,
                negated,
                glob,
            } => Predicate::Path {
                side,
                negated,
                glob,
            },
            Self::Fd { negated, fd } => Predicate::Fd { negated, fd },
            Self::Socket {
                end,
                negated,
                address,
            } => Predicate::Socket {
                end,
                negated,
                address,
            },
            Self::Arg {
                arg,
                op,
                value: written,
            } => Predicate::Arg {
                arg,
                op,
                value: value(&written),
            },
            Self::Comm { of, negated, comm } => Predicate::Comm { of, negated, comm },
            Self::Exe { negated, glob } => Predicate::Exe { negated, glob },
            Self::Uid { negated, uid } => Predicate::Uid { negated, uid },
        }
    }
}
