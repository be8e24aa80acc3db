//! What a session comes to: the counters of each rule, losses, and for a rule that never fired the
//! reason as far as it is known. As text for people and as JSON for programs.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Value, json};

use super::matched_and_fired;
use crate::backend::{HookReport, Report, RuleReport};
use crate::plan::{Plan, Targets};
use crate::rule::{ResolvedRule, family_of};
use crate::sys::launch::Ended;
use crate::syscall::{Abi, CallId, by_id};
use crate::text::{counted, escaped, seconds};

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The last target ended.
    TargetsEnded,
    /// The time of `--duration` was up.
    TimeUp,
    /// A signal asked for it.
    Signal(i32),
    /// `finject ctl stop` asked for it.
    Asked,
    /// The lease lapsed: finject was stopped or hung, and faults ended by themselves.
    Lapsed,
    /// Faults no longer arrived: another agent came after finject.
    Lost {
        /// When they were last known to arrive, `CLOCK_MONOTONIC` nanoseconds.
        since_ns: u64,
    },
}

impl Ending {
    /// Whether finject could not do what it was asked to the end.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Lapsed | Self::Lost { .. })
    }

    fn word(self) -> &'static str {
        match self {
            Self::TargetsEnded => "targets-ended",
            Self::TimeUp => "time-up",
            Self::Signal(_) => "signal",
            Self::Asked => "asked",
            Self::Lapsed => "lapsed",
            Self::Lost { .. } => "lost",
        }
    }

    fn sentence(self) -> String {
        match self {
            Self::TargetsEnded => "the last target ended".into(),
            Self::TimeUp => "the time was up".into(),
            Self::Asked => "finject ctl stop".into(),
            Self::Signal(libc::SIGINT) => "interrupted".into(),
            Self::Signal(libc::SIGTERM) => "asked to end (SIGTERM)".into(),
            Self::Signal(signal) => format!("asked to end (signal {signal})"),
            Self::Lapsed => {
                "finject was stopped, or got no time, for longer than its --lease; the faults had ended by themselves".into()
            }
            Self::Lost { .. } => "faults no longer arrived, and were ended".into(),
        }
    }
}

/// All that is known at the end.
#[derive(Clone, Debug)]
pub struct Summary {
    /// How it ended.
    pub ending: Ending,
    /// How the command ended that finject launched.
    pub command: Option<Ended>,
    /// The counters.
    pub report: Report,
    /// Every call that targets made, where all are seen.
    pub seen: Option<Vec<(CallId, u64)>>,
    /// What was hooked.
    pub hooks: HookReport,
    /// `CLOCK_MONOTONIC` of arming, nanoseconds.
    pub armed_ns: u64,
    /// `CLOCK_MONOTONIC` of the end, nanoseconds.
    pub ended_ns: u64,
    /// A test call has shown that no fault arrives any more.
    pub healed: bool,
    /// What was carried out, with the rules that joined while it ran.
    pub plan: Plan,
    /// Records that could not be written, and why.
    pub unwritten: Option<(u64, String)>,
}

impl Summary {
    /// Whether every rule fired at least once.
    pub fn every_rule_fired(&self) -> bool {
        self.report.rules.iter().all(|rule| rule.fired > 0)
    }

    /// For the system's log.
    pub fn one_line(&self) -> String {
        let rules: Vec<String> = self
            .plan
            .rules
            .iter()
            .zip(&self.report.rules)
            .map(|(rule, r)| format!("{}: {}", rule.text, matched_and_fired(r.matched, r.fired)))
            .collect();
        format!("{}; {}", self.ending.sentence(), rules.join("; "))
    }

    fn since_armed(&self, at_ns: Option<u64>) -> String {
        at_ns.map_or_else(
            || "-".into(),
            |at| format!("+{} s", seconds(at.saturating_sub(self.armed_ns))),
        )
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let plan = &self.plan;
        let mut text = String::new();
        let elapsed = seconds(self.ended_ns.saturating_sub(self.armed_ns));
        let fired = if plan.dry_run { "would fire" } else { "fired" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{} after {elapsed} s; {}; seed {}",
            self.ending.sentence(),
            counted(
                self.report.targets_seen,
                "target process",
                "target processes"
            ),
            plan.seed
        );
        let mut table = vec![["rule", "calls", fired, "first", "last", "text"].map(String::from)];
        for (rule, report) in plan.rules.iter().zip(&self.report.rules) {
            table.push([
                rule.name.to_string(),
                report.matched.to_string(),
                report.fired.to_string(),
                self.since_armed(report.first_ns),
                self.since_armed(report.last_ns),
                rule.text.clone(),
            ]);
        }
        let mut widths = [0; 6];
        for row in &table {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for [name, calls, fired, first, last, rule] in &table {
            let [name_w, calls_w, fired_w, first_w, last_w, _] = widths;
            let _ = writeln!(
                text,
                "  {name:name_w$}  {calls:>calls_w$}  {fired:>fired_w$}  {first:>first_w$}  \
                 {last:>last_w$}  {rule}"
            );
        }
        for line in self.losses() {
            let _ = writeln!(text, "  {line}");
        }
        for (rule, report) in plan.rules.iter().zip(&self.report.rules) {
            if report.fired == 0 {
                let why = why_not(rule, report, self.seen.as_deref(), plan);
                let _ = writeln!(text, "  {} never fired: {why}", rule.name);
            }
        }
        text
    }

    /// Everything that was lost, a line each; `misses` always says something.
    fn losses(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (rule, report) in self.plan.rules.iter().zip(&self.report.rules) {
            for (number, what) in [
                (
                    report.dropped,
                    "firings left no record: events came faster than they were read",
                ),
                (
                    report.lost,
                    "firings were not carried out, or not in whole: a signal could not be sent, or there \
                     was no room",
                ),
                (
                    report.moot,
                    "results were moot: the call had failed by itself, or did not come to its end",
                ),
                (
                    report.dataless,
                    "selected calls passed: there was nothing to cut, or no data",
                ),
                (report.shadowed, "results lost against an earlier rule's"),
                (
                    report.contended,
                    "calls passed: too many threads raced for the chain",
                ),
                (
                    report.unseen,
                    "calls passed: their files or sockets could not be looked at",
                ),
                (
                    report.scopes_full,
                    "calls passed: no room for another counter",
                ),
            ] {
                if number > 0 {
                    lines.push(format!("{}: {number} {what}", rule.name));
                }
            }
        }
        let report = &self.report;
        if report.targets_lost > 0 {
            let number = report.targets_lost;
            lines.push(format!(
                "{number} children did not become targets: the table was full"
            ));
        }
        if report.notes_dropped > 0 {
            let number = report.notes_dropped;
            lines.push(format!(
                "{number} starts and ends of targets left no record"
            ));
        }
        if let Some((number, error)) = &self.unwritten {
            lines.push(format!("{number} records could not be written: {error}"));
        }
        if let Ending::Lost { since_ns } = self.ending {
            lines.push(format!(
                "what fired from {} on is not proven: it may not have reached its caller",
                self.since_armed(Some(since_ns))
            ));
        }
        lines.push(match report.misses {
            Some(0) => "misses: 0".into(),
            Some(number) => format!(
                "misses: {number} runs were left out by the kernel; counts may be short by as many"
            ),
            None => "misses: unknown (this kernel does not count them)".into(),
        });
        lines
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let plan = &self.plan;
        let since = |at: Option<u64>| at.map(|at| at.saturating_sub(self.armed_ns));
        let rules: Vec<Value> = plan
            .rules
            .iter()
            .zip(&self.report.rules)
            .map(|(rule, report)| {
                json!({
                    "name": rule.name.to_string(),
                    "rule": rule.text,
                    "matched": report.matched,
                    "excluded": report.excluded,
                    "fired": report.fired,
                    "first_ns": since(report.first_ns),
                    "last_ns": since(report.last_ns),
                    "dropped": report.dropped,
                    "lost": report.lost,
                    "moot": report.moot,
                    "dataless": report.dataless,
                    "shadowed": report.shadowed,
                    "contended": report.contended,
                    "scopes_full": report.scopes_full,
                    "unseen": report.unseen,
                    "why_not": (report.fired == 0).then(|| why_not(rule, report, self.seen.as_deref(), plan)),
                })
            })
            .collect();
        json!({
            "ending": self.ending.word(),
            "elapsed_ns": self.ended_ns.saturating_sub(self.armed_ns),
            "seed": plan.seed,
            "dry_run": plan.dry_run,
            "backend": self.hooks.backend,
            "mechanism": self.hooks.mechanism,
            "functions": self.hooks.functions,
            "tested_calls": self.hooks.tested,
            "verified_instructions": self.hooks.verified_instructions,
            "command": self.command.map(|ended| match ended {
                Ended::Exited(status) => json!({ "status": status }),
                Ended::Killed(signal) => json!({ "signal": signal }),
                Ended::NotStarted(errno) => json!({ "not_started": errno }),
            }),
            "targets": self.report.targets_seen,
            "targets_lost": self.report.targets_lost,
            "notes_dropped": self.report.notes_dropped,
            "misses": self.report.misses.map_or(json!("unknown"), |misses| json!(misses)),
            "unwritten": self.unwritten.as_ref().map_or(0, |(number, _)| *number),
            "unproven_ns": match self.ending {
                Ending::Lost { since_ns } => since(Some(since_ns)),
                _ => None,
            },
            "healed": self.healed,
            "rules": rules,
        })
    }
}

/// Why a rule never fired, as far as its counters tell.
fn why_not(
    rule: &ResolvedRule,
    report: &RuleReport,
    seen: Option<&[(CallId, u64)]>,
    plan: &Plan,
) -> String {
    let first = rule.when.count.first().get();
    if !report.was_armed {
        return "it was never armed".into();
    }
    if report.matched == 0 {
        return never_came(rule, report, seen, plan);
    }
    let matched = counted(report.matched, "call", "calls");
    if report.shadowed > 0 {
        return format!("of {matched} an earlier rule decided the result");
    }
    if report.lost > 0 {
        return "its signal could not be sent".into();
    }
    if report.dataless > 0 {
        return format!("of {matched} those that it selects had nothing to cut, or moved no data");
    }
    if report.moot > 0 {
        return format!("of {matched} every one that it selects had failed by itself");
    }
    if report.matched < first {
        return format!("{matched} came, and the rule begins with number {first}");
    }
    if rule.when.probability.is_some() {
        return format!(
            "the draw came out for none of {matched} (seed {})",
            plan.seed
        );
    }
    if rule.when.start.is_some() || rule.when.for_.is_some() {
        return format!("{matched} came, none of them within its time");
    }
    format!("{matched} came, and none was selected or the chain said off")
}

/// The names of those calls that are of an ABI.
fn names_of(calls: &BTreeSet<CallId>, abi: Abi) -> impl Iterator<Item = &'static str> {
    let of_abi = calls.iter().filter(move |call| call.abi == abi);
    of_abi
        .filter_map(|call| by_id(*call))
        .map(|call| call.name())
}

/// What is known where no call matched a rule: what came instead, or how to find out.
fn never_came(
    rule: &ResolvedRule,
    report: &RuleReport,
    seen: Option<&[(CallId, u64)]>,
    plan: &Plan,
) -> String {
    let asked: Vec<String> = rule.preds.iter().map(ToString::to_string).collect();
    let asked = asked.join(", ");
    if report.unseen > 0 {
        return format!(
            "{} of its calls came whose files or sockets could not be looked at",
            report.unseen
        );
    }
    if report.excluded > 0 {
        return format!("{} of its calls came, none with {asked}", report.excluded);
    }
    // Both ABIs of a call by one name.
    let natives: Vec<&str> = names_of(&rule.calls, Abi::NATIVE).collect();
    let others = rule.calls.iter().filter(|call| {
        call.abi == Abi::NATIVE
            || by_id(**call).is_none_or(|known| !natives.contains(&known.name()))
    });
    let all: Vec<String> = others.map(ToString::to_string).collect();
    let calls: Vec<String> = all.iter().take(4).cloned().collect();
    let more = if all.len() > 4 {
        " or another of its calls"
    } else {
        ""
    };
    let calls = format!("{}{more}", calls.join(", "));
    let family = family_of(&rule.calls);
    let times =
        |(call, number): &(CallId, u64)| format!("{call} {}", counted(*number, "time", "times"));
    if let Some(seen) = seen {
        let relatives = seen.iter().filter(|(call, _)| {
            family.is_some_and(|family| family.calls().contains(call)) && !rule.calls.contains(call)
        });
        let relatives: Vec<String> = relatives.take(3).map(times).collect();
        return match (family, seen) {
            (_, []) => format!("no target made any call while it was armed, {calls} included"),
            (Some(family), _) if !relatives.is_empty() => {
                format!("{}, {calls} never: try {family}", relatives.join(", "))
            }
            _ => {
                let most: Vec<String> = seen.iter().take(3).map(times).collect();
                format!("{calls} never came; what came most: {}", most.join(", "))
            }
        };
    }
    let with = if asked.is_empty() {
        String::new()
    } else {
        format!(" with {asked}")
    };
    let relatives = family.map_or_else(String::new, |family| {
        format!("; {family} names its relatives too")
    });
    let look = match &plan.targets {
        Targets::Running(processes) => {
            let first = processes.first().map_or(0, |process| process.tgid.0);
            format!("finject count --pid {first}")
        }
        Targets::Launched(launch) => format!("finject count -- {}", escaped(&launch.title())),
    };
    format!(
        "no target called {calls}{with} while it was armed{relatives}; {look} shows what is called"
    )
}
