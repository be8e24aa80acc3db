//! A plan: resolved rules, targets and a seed. Pure: making one touches nothing, and printing one
//! tells everything that a session would do.

use std::fmt::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use crate::rule::{ResolvedRule, RuleName};
use crate::syscall::CallId;
use crate::target::process::Process;

/// What a session carries out.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The rules, in order: of several results on one call the first wins.
    pub rules: Vec<ResolvedRule>,
    /// Rules that wait to be armed, or that arm or disarm others.
    pub arming: Vec<RuleName>,
    /// The processes to start from.
    pub targets: Vec<Process>,
    /// The seed of all random choices.
    pub seed: u64,
    /// Children of targets become targets.
    pub follow: bool,
    /// Count, fire nothing.
    pub dry_run: bool,
    /// How long faults are in force at most.
    pub duration: Option<Duration>,
}

impl Plan {
    /// Every call that some rule names, each once.
    pub fn calls(&self) -> std::collections::BTreeSet<CallId> {
        self.rules
            .iter()
            .flat_map(|rule| rule.calls.iter().copied())
            .collect()
    }

    /// The plan as JSON.
    pub fn to_json(&self) -> Value {
        let rules: Vec<Value> = self
            .rules
            .iter()
            .map(|rule| {
                json!({
                    "name": rule.name.to_string(),
                    "rule": rule.text,
                    "key": format!("{:#018x}", rule.key),
                    "calls": rule.calls.iter().map(ToString::to_string).collect::<Vec<_>>(),
                })
            })
            .collect();
        let targets: Vec<Value> = self
            .targets
            .iter()
            .map(|target| json!({ "pid": target.tgid.0, "comm": target.comm }))
            .collect();
        json!({
            "rules": rules,
            "targets": targets,
            "seed": self.seed,
            "follow": self.follow,
            "dry_run": self.dry_run,
            "duration_ns": self.duration.map(|duration| duration.as_nanos()),
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for target in &self.targets {
            let comm = crate::text::escaped(&target.comm);
            let follow = if self.follow {
                ", and its descendants"
            } else {
                ""
            };
            writeln!(
                text,
                "target   {} ({comm}), all threads{follow}",
                target.tgid
            )?;
        }
        let width = self
            .rules
            .iter()
            .map(|rule| rule.name.to_string().len())
            .max()
            .unwrap_or(0);
        for rule in &self.rules {
            writeln!(
                text,
                "rule     {:width$}  {}",
                rule.name.to_string(),
                rule.text
            )?;
            let calls = crate::text::some_of(rule.calls.iter().map(ToString::to_string));
            writeln!(text, "         {:width$}  on {calls}", "")?;
        }
        writeln!(text, "seed     {}", self.seed)?;
        if let Some(duration) = self.duration {
            writeln!(text, "for      {duration:?}, then healed")?;
        }
        if self.dry_run {
            writeln!(text, "dry run  calls are counted, nothing fires")?;
        }
        formatter.write_str(text.trim_end())
    }
}
