//! A plan: resolved rules, targets and a seed. Pure: making one touches nothing, and printing one
//! tells everything that a session would do.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::ops::RangeInclusive;
use std::time::Duration;

use injector_common::limits::LEASE_NS;
use serde_json::{Value, json};

use crate::rule::ResolvedRule;
use crate::syscall::CallId;
use crate::target::launch::Launch;
use crate::target::process::Process;

/// The processes to start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Processes that run already.
    Running(Vec<Process>),
    /// A command that finject launches.
    Launched(Launch),
}

impl Targets {
    /// Each as a person calls it; untrusted characters escaped.
    pub fn names(&self) -> Vec<String> {
        let escaped = crate::text::escaped;
        match self {
            Self::Running(processes) => processes
                .iter()
                .map(|target| format!("{} ({})", target.tgid, escaped(&target.comm)))
                .collect(),
            Self::Launched(launch) => vec![escaped(&launch.title())],
        }
    }
}

/// When a rule is in force, and which rules its firing puts in force and out of it: a bit each, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arming {
    /// From the start.
    pub armed: bool,
    /// Those that its firing arms, for calls entered after it.
    pub arms: u64,
    /// Those that its firing disarms.
    pub disarms: u64,
}

impl Default for Arming {
    fn default() -> Self {
        Self {
            armed: true,
            arms: 0,
            disarms: 0,
        }
    }
}

/// What a session carries out.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The rules, in order: of several results on one call the first wins.
    pub rules: Vec<ResolvedRule>,
    /// Of each rule, when it is in force; as [`Arming::default`] for those behind the last.
    pub arming: Vec<Arming>,
    /// Whose calls they are on.
    pub targets: Targets,
    /// The seed of all random choices.
    pub seed: u64,
    /// Children of targets become targets.
    pub follow: bool,
    /// Calls of the dynamic loader, before a program's own entry point, count too.
    pub from_exec: bool,
    /// Count, fire nothing.
    pub dry_run: bool,
    /// Delays up to so long are spun away in the kernel, where that decides.
    pub spin_max: Duration,
    /// How long faults stay in force after finject's last sign of life, see [`LEASE`].
    pub lease: Duration,
    /// How long faults are in force at most.
    pub duration: Option<Duration>,
}

/// Every call that some rule names, each once.
pub fn calls_of(rules: &[ResolvedRule]) -> BTreeSet<CallId> {
    rules
        .iter()
        .flat_map(|rule| rule.calls.iter().copied())
        .collect()
}

/// How long delays that are spun away may be, where nothing is said.
pub const SPIN_MAX: Duration = Duration::from_micros(100);

/// How long faults stay in force after finject's last sign of life, where nothing is said.
pub const LEASE: Duration = Duration::from_nanos(LEASE_NS);

/// The leases that can be asked for. Signs of life come every [`RENEW_NS`](injector_common::limits::RENEW_NS): two of them may be late in the least one.
pub const LEASES: RangeInclusive<Duration> = LEASE..=Duration::from_mins(1);

impl Plan {
    /// When a rule is in force.
    pub fn arming_of(&self, rule: usize) -> Arming {
        self.arming.get(rule).copied().unwrap_or_default()
    }

    /// The rules that are in force from the start, a bit each.
    pub fn armed(&self) -> u64 {
        let armed = (0..self.rules.len().min(64)).filter(|rule| self.arming_of(*rule).armed);
        armed.fold(0, |rules, rule| rules | 1 << rule)
    }

    /// The names of rules, a bit each.
    fn names_of(&self, rules: u64) -> Vec<String> {
        let named = self.rules.iter().take(64).enumerate();
        let named = named.filter(|(rule, _)| rules >> rule & 1 != 0);
        named.map(|(_, rule)| rule.name.to_string()).collect()
    }

    /// The plan as JSON.
    pub fn to_json(&self) -> Value {
        let rules: Vec<Value> = self
            .rules
            .iter()
            .enumerate()
            .map(|(index, rule)| {
                json!({
                    "name": rule.name.to_string(),
                    "rule": rule.text,
                    "armed": self.arming_of(index).armed,
                    "arms": self.names_of(self.arming_of(index).arms),
                    "disarms": self.names_of(self.arming_of(index).disarms),
                    "key": format!("{:#018x}", rule.key),
                    "calls": rule.calls.iter().map(ToString::to_string).collect::<Vec<_>>(),
                })
            })
            .collect();
        let (targets, command) = match &self.targets {
            Targets::Running(processes) => (
                processes
                    .iter()
                    .map(|target| json!({ "pid": target.tgid.0, "comm": target.comm }))
                    .collect(),
                Value::Null,
            ),
            Targets::Launched(launch) => {
                let args = launch.args.iter().map(|arg| arg.to_string_lossy());
                (Vec::new(), json!(args.collect::<Vec<_>>()))
            }
        };
        json!({
            "rules": rules,
            "targets": targets,
            "command": command,
            "seed": self.seed,
            "follow": self.follow,
            "arm_at": if self.from_exec { "exec" } else { "entry" },
            "dry_run": self.dry_run,
            "spin_max_ns": self.spin_max.as_nanos(),
            "lease_ns": self.lease.as_nanos(),
            "duration_ns": self.duration.map(|duration| duration.as_nanos()),
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        let kind = match self.targets {
            Targets::Running(_) => "target   ",
            Targets::Launched(_) => "command  ",
        };
        let follow = if self.follow {
            ", and its descendants"
        } else {
            ""
        };
        for name in self.targets.names() {
            writeln!(text, "{kind}{name}, all threads{follow}")?;
        }
        let width = self
            .rules
            .iter()
            .map(|rule| rule.name.to_string().len())
            .max()
            .unwrap_or(0);
        for (index, rule) in self.rules.iter().enumerate() {
            writeln!(
                text,
                "rule     {:width$}  {}",
                rule.name.to_string(),
                rule.text
            )?;
            let calls = crate::text::some_of(rule.calls.iter().map(ToString::to_string));
            writeln!(text, "         {:width$}  on {calls}", "")?;
            let arming = self.arming_of(index);
            if !arming.armed {
                writeln!(
                    text,
                    "         {:width$}  out of force until it is armed",
                    ""
                )?;
            }
            for (rules, verb) in [(arming.arms, "arms"), (arming.disarms, "disarms")] {
                let named = self.names_of(rules);
                if !named.is_empty() {
                    writeln!(
                        text,
                        "         {:width$}  its firing {verb} {}",
                        "",
                        named.join(", ")
                    )?;
                }
            }
        }
        writeln!(text, "seed     {}", self.seed)?;
        if let Some(duration) = self.duration {
            writeln!(text, "for      {duration:?}, then healed")?;
        }
        if self.from_exec {
            writeln!(
                text,
                "from     exec on, the dynamic loader's calls among them"
            )?;
        }
        if self.dry_run {
            writeln!(text, "dry run  calls are counted, nothing fires")?;
        }
        formatter.write_str(text.trim_end())
    }
}
