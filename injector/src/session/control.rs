//! What is asked of a session while it runs. Each request is answered once it is in force, so that some wait
//! here: for threads that are let go, for a rule to hit.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::Arc;

use injector_common::Released;
use serde_json::{Value, json};

use crate::backend::choose::Choice;
use crate::backend::memory::Memory;
use crate::backend::{Backend, BackendError, RuleReport, Unsupported};
use crate::control::message::{Which, With};
use crate::control::server::Asker;
use crate::control::{Reply, Request, Server};
use crate::plan::{Arming, Plan};
use crate::rule::{ResolvedRule, RuleErrors, RuleName, RuleText, RuleWarning, compile_after};
use crate::sys::time::monotonic_ns;
use crate::text::chain;

/// How long whoever holds threads may take to let some go, nanoseconds.
const PATIENCE_NS: u64 = 5_000_000_000;

/// A request that waits for its answer.
#[derive(Debug)]
struct Pending {
    asker: Asker,
    until_ns: u64,
    what: Awaited,
}

/// What it waits for.
#[derive(Debug)]
enum Awaited {
    /// These rules, a bit each, hold no thread any more; how many were in force, and how many threads waited. Then
    /// they may be taken away.
    NobodyWaits {
        rules: u64,
        disarmed: u32,
        waiting: u64,
        removes: bool,
    },
    /// A request for threads to be let go is answered.
    Released { request: u64 },
    /// A rule has hit so often.
    Hits { rule: usize, count: u64 },
}

/// The session's part of control.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) server: Server,
    pending: Vec<Pending>,
    /// Requests that came behind one that may take a while.
    asked: VecDeque<(Asker, Request)>,
    /// Requests to let threads go that come after the one that is being answered.
    releases: Vec<(Asker, Request)>,
    /// Whoever asked to end the session.
    stops: Vec<Asker>,
    choice: Choice,
    backend: &'static str,
    armed_ns: u64,
    /// Rules that were taken away, a bit each.
    removed: u64,
    /// What the system's log is to be told.
    changes: Vec<String>,
}

impl Control {
    /// Nothing was asked yet.
    pub(super) fn of(server: Server, choice: Choice, backend: &'static str) -> Self {
        Self {
            server,
            pending: Vec::new(),
            asked: VecDeque::new(),
            releases: Vec::new(),
            stops: Vec::new(),
            choice,
            backend,
            armed_ns: 0,
            removed: 0,
            changes: Vec::new(),
        }
    }

    /// Rules are in force from then on.
    pub(super) fn armed(&mut self, armed_ns: u64) {
        self.armed_ns = armed_ns;
    }

    /// How soon it is to be looked whether somebody's answer has come, milliseconds.
    pub(super) fn turn_ms(&self) -> Option<u64> {
        let turns = self.pending.iter().map(|pending| match pending.what {
            Awaited::NobodyWaits { .. } | Awaited::Released { .. } => 1,
            Awaited::Hits { .. } => 5,
        });
        let next = (!self.asked.is_empty() || !self.releases.is_empty()).then_some(1);
        turns.chain(next).min()
    }

    /// Whether the session was asked to end.
    pub(super) fn is_to_stop(&self) -> bool {
        !self.stops.is_empty()
    }

    /// Which rules have joined the session and left it since this was asked, a line each.
    pub(super) fn take_changes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.changes)
    }

    /// The session has ended, and is healed or why it is not; whoever waits is told.
    pub(super) fn ended(&mut self, healed: Result<(), String>) {
        let stopped = match healed {
            Ok(()) => Reply::Done(json!({ "stopped": true })),
            Err(error) => Reply::Refused {
                error: format!("the session has ended, and is not healed: {error}"),
                help: "finject doctor tells what is left".into(),
            },
        };
        for asker in std::mem::take(&mut self.stops) {
            self.server.reply(asker, &stopped);
        }
        let pending = std::mem::take(&mut self.pending).into_iter();
        let releases = std::mem::take(&mut self.releases).into_iter();
        let asked = std::mem::take(&mut self.asked).into_iter();
        let waiting = pending.map(|pending| pending.asker);
        for asker in waiting.chain(releases.chain(asked).map(|(asker, _)| asker)) {
            self.server.reply(asker, &Reply::Over);
        }
    }

    /// Hears what is asked, and answers what can be; `takes_long` is told before what may take long.
    pub(super) fn turn(
        &mut self,
        plan: &mut Plan,
        backend: &mut dyn Backend,
        takes_long: &dyn Fn(),
    ) {
        self.asked.extend(self.server.take());
        while let Some((asker, request)) = self.asked.pop_front() {
            // One that brings another program takes long; the session has to turn round after it.
            let is_long = matches!(request, Request::Add { .. } | Request::Remove { .. });
            if is_long {
                takes_long();
            }
            self.ask(asker, request, plan, backend);
            if is_long {
                break;
            }
        }
        if self.pending.is_empty() && self.releases.is_empty() {
            return;
        }
        let is_for_holder = |pending: &Pending| !matches!(pending.what, Awaited::Hits { .. });
        if self.pending.iter().any(is_for_holder) {
            // It may not have heard before.
            backend.wake();
        }
        let report = backend.report();
        let now_ns = monotonic_ns();
        let pending = std::mem::take(&mut self.pending);
        for pending in pending {
            match self.answer(&pending, &report.rules, now_ns, plan, backend) {
                Some(reply) => self.server.reply(pending.asker, &reply),
                None if self.server.waits(pending.asker) => self.pending.push(pending),
                None => {}
            }
        }
        if !self.releases.is_empty() && !self.is_releasing(backend) {
            let (asker, request) = self.releases.remove(0);
            self.ask(asker, request, plan, backend);
        }
    }

    /// Whether threads are being let go for somebody: one such request is answered at a time.
    fn is_releasing(&self, backend: &dyn Backend) -> bool {
        let is_it = |pending: &Pending| matches!(pending.what, Awaited::Released { .. });
        let asked = backend.memory().and_then(|memory| memory.release_asked());
        asked.is_some() || self.pending.iter().any(is_it)
    }

    fn ask(&mut self, asker: Asker, request: Request, plan: &mut Plan, backend: &mut dyn Backend) {
        match self.begin(asker, request, plan, backend) {
            Ok(Some(value)) => self.server.reply(asker, &Reply::Done(value)),
            Ok(None) => {}
            Err(reply) => self.server.reply(asker, &reply),
        }
    }

    /// Does what is asked; [`None`] where the answer has to wait.
    fn begin(
        &mut self,
        asker: Asker,
        request: Request,
        plan: &mut Plan,
        backend: &mut dyn Backend,
    ) -> Result<Option<Value>, Reply> {
        let Some(memory) = backend.memory().map(Arc::clone) else {
            return Ok(Some(Value::Null));
        };
        let now_ns = monotonic_ns();
        match request {
            Request::Status => Ok(Some(self.status(plan, backend))),
            Request::Arm { rules } => {
                let rules = self.indices(&rules, plan)?;
                let fresh = memory.arm_rules(bits(&rules), now_ns);
                Ok(Some(json!({ "armed": fresh.count_ones() })))
            }
            Request::Disarm { rules } => {
                let rules = bits(&self.indices(&rules, plan)?);
                let what = self.disarm(rules, backend, &memory, false);
                Ok(self.wait(asker, what, now_ns + PATIENCE_NS))
            }
            Request::Add {
                rule,
                name,
                disarmed,
            } => {
                let text = rule_text(&rule, name)?;
                let (index, is_fresh, warnings) = self.add(text, plan, backend)?;
                if is_fresh && !disarmed {
                    memory.arm_rules(1 << index, monotonic_ns());
                }
                let rule = &plan.rules[index];
                if is_fresh {
                    let change = format!("rule {} joins, {}", rule.name, rule.text);
                    self.changes.push(change);
                }
                Ok(Some(json!({
                    "added": u32::from(is_fresh),
                    "rule": rule.name.to_string(),
                    "armed": memory.armed() >> index & 1 != 0,
                    "warnings": warnings,
                })))
            }
            Request::Remove { rules } => {
                let named = rules.iter().map(|name| index(name, plan));
                let named: Vec<usize> = named.collect::<Result<_, _>>()?;
                let rules = bits(&named) & !self.removed;
                // First, so that no other's firing has it hold somebody meanwhile.
                for rule in named {
                    memory.forget_calls(rule);
                }
                let what = self.disarm(rules, backend, &memory, true);
                Ok(self.wait(asker, what, now_ns + PATIENCE_NS))
            }
            Request::Release { .. } if self.is_releasing(backend) => {
                self.releases.push((asker, request));
                Ok(None)
            }
            Request::Release { rule, which, with } => {
                let rule = self.index(&rule, plan)?;
                let most = match which {
                    Which::One => 1,
                    Which::All => u64::MAX,
                };
                let (with, value) = match with {
                    With::Rest => (Released::Rest, 0),
                    With::Run => (Released::Run, 0),
                    With::Result(value) => (Released::Result, value),
                };
                if waiting(&backend.report().rules, 1 << rule) == 0 {
                    return Ok(Some(json!({ "released": 0 })));
                }
                let Some(request) = memory.ask_release(1 << rule, most, with, value) else {
                    return Err(silent());
                };
                backend.wake();
                let what = Awaited::Released { request };
                Ok(self.wait(asker, what, now_ns + PATIENCE_NS))
            }
            Request::WaitHit {
                rule,
                count,
                timeout_ns,
            } => {
                let rule = self.index(&rule, plan)?;
                let until_ns = now_ns.saturating_add(timeout_ns);
                Ok(self.wait(asker, Awaited::Hits { rule, count }, until_ns))
            }
            Request::Stop => {
                self.stops.push(asker);
                Ok(None)
            }
        }
    }

    /// Takes rules, a bit each, out of force, and lets go whom they hold; what is waited for then.
    fn disarm(&self, rules: u64, backend: &dyn Backend, memory: &Memory, removes: bool) -> Awaited {
        let waiting = waiting(&backend.report().rules, rules);
        let disarmed = memory.disarm_rules(rules).count_ones();
        // Whom a rule holds whose own firing has disarmed it does not go for that.
        if waiting > 0 && !self.is_releasing(backend) {
            memory.ask_release(rules, u64::MAX, Released::Run, 0);
        }
        backend.wake();
        Awaited::NobodyWaits {
            rules,
            disarmed,
            waiting,
            removes,
        }
    }

    fn wait(&mut self, asker: Asker, what: Awaited, until_ns: u64) -> Option<Value> {
        self.pending.push(Pending {
            asker,
            until_ns,
            what,
        });
        None
    }

    /// Has a rule join the plan, unless it is there; its index, whether it was not, and what there is to warn of.
    fn add(
        &mut self,
        text: RuleText,
        plan: &mut Plan,
        backend: &mut dyn Backend,
    ) -> Result<(usize, bool, Vec<String>), Reply> {
        let name = text.name().cloned();
        let read = |run: &[ResolvedRule], text| {
            let compiled = compile_after(run, &[text]);
            compiled.map_err(|errors| Reply::Refused {
                error: joined(errors.iter().flat_map(RuleErrors::errors)),
                help: "finject help rules tells how rules are written".into(),
            })
        };
        let has_name = |rule: &&ResolvedRule| name.as_ref() == Some(&rule.name);
        let canonical = read(&[], text.clone())?.rules.remove(0).text;
        let is_it = |rule: &ResolvedRule| {
            rule.text == canonical && name.as_ref().is_none_or(|name| rule.name == *name)
        };
        let is_there = |index: usize| self.removed >> index & 1 == 0;
        let mut known = plan
            .rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| is_it(rule));
        let known = match known.clone().find(|(index, _)| is_there(*index)) {
            Some((index, _)) => return Ok((index, false, Vec::new())),
            None => known.next().map(|(index, _)| index),
        };
        if known.is_none()
            && let Some(other) = plan.rules.iter().find(has_name)
        {
            return Err(Reply::Refused {
                error: format!("{} is the name of another rule, {}", other.name, other.text),
                help:
                    "choose another: records and counts go by it, also of rules that were removed"
                        .into(),
            });
        }
        let mut next = plan.clone();
        let mut warnings = Vec::new();
        let index = known.unwrap_or(plan.rules.len());
        if known.is_none() {
            let compiled = read(&plan.rules, text)?;
            let is_said = |warning: &&RuleWarning| {
                let by = warning.shadowed_by().and_then(|name| position(name, plan));
                by.is_none_or(is_there)
            };
            let said = compiled.warnings.iter().filter(is_said);
            warnings.extend(said.map(ToString::to_string));
            next.rules.extend(compiled.rules);
            next.arming.resize(next.rules.len(), Arming::default());
        }
        self.choice.admit(&next).map_err(|reasons| Reply::Refused {
            error: joined(reasons.iter()),
            help: reasons.first().map(Unsupported::help).unwrap_or_default(),
        })?;
        let joined = backend.join(&next, index);
        warnings.extend(joined.map_err(|error| refused(&error))?);
        *plan = next;
        self.removed &= !(1 << index);
        Ok((index, true, warnings))
    }

    /// Takes rules away, a bit each, that hold nobody any more; how many.
    fn remove(&mut self, rules: u64, plan: &Plan, backend: &mut dyn Backend) -> Result<u32, Reply> {
        let fresh = rules & !self.removed;
        for (index, rule) in plan.rules.iter().enumerate() {
            if fresh >> (index % 64) & 1 == 0 {
                continue;
            }
            backend.part(index).map_err(|error| refused(&error))?;
            self.removed |= 1 << (index % 64);
            self.changes
                .push(format!("rule {} leaves, {}", rule.name, rule.text));
        }
        Ok(fresh.count_ones())
    }

    /// The rules of these names; all where none is named.
    fn indices(&self, names: &[String], plan: &Plan) -> Result<Vec<usize>, Reply> {
        if names.is_empty() {
            let all = 0..plan.rules.len();
            return Ok(all.filter(|rule| self.removed >> rule & 1 == 0).collect());
        }
        names.iter().map(|name| self.index(name, plan)).collect()
    }

    fn index(&self, name: &str, plan: &Plan) -> Result<usize, Reply> {
        match index(name, plan)? {
            removed if self.removed >> removed & 1 != 0 => Err(Reply::Refused {
                error: format!("the rule {name} was removed"),
                help: format!(
                    "finject ctl add '{}' has it again",
                    plan.rules[removed].text
                ),
            }),
            index => Ok(index),
        }
    }

    /// The answer to a request that waits, where there is one by now.
    fn answer(
        &mut self,
        pending: &Pending,
        rules: &[RuleReport],
        now_ns: u64,
        plan: &Plan,
        backend: &mut dyn Backend,
    ) -> Option<Reply> {
        let done = match &pending.what {
            Awaited::NobodyWaits {
                rules: meant,
                disarmed,
                waiting: before,
                removes,
            } => match waiting(rules, *meant) {
                0 if *removes => match self.remove(*meant, plan, backend) {
                    Ok(removed) => Some(json!({ "removed": removed, "released": before })),
                    Err(refused) => return Some(refused),
                },
                left => (left == 0).then(|| json!({ "disarmed": disarmed, "released": before })),
            },
            Awaited::Released { request } => {
                let released = backend
                    .memory()
                    .and_then(|memory| memory.released(*request));
                released.map(|number| json!({ "released": number }))
            }
            Awaited::Hits { rule, .. } if self.removed >> rule & 1 != 0 => {
                let name = plan.rules.get(*rule).map_or("?", |rule| rule.name.as_str());
                return self.index(name, plan).err();
            }
            Awaited::Hits { rule, count } => {
                let report = rules.get(*rule)?;
                let hit = report.hits;
                (hit >= *count).then(|| json!({ "hit": hit, "held": report.waiting }))
            }
        };
        match (done, &pending.what) {
            (Some(done), _) => Some(Reply::Done(done)),
            (None, _) if now_ns < pending.until_ns => None,
            (None, Awaited::Hits { .. }) => Some(Reply::TimeUp),
            (None, _) => Some(silent()),
        }
    }

    fn status(&self, plan: &Plan, backend: &dyn Backend) -> Value {
        let report = backend.report();
        let memory = backend.memory();
        let now_ns = monotonic_ns();
        let rules: Vec<Value> = plan
            .rules
            .iter()
            .zip(&report.rules)
            .enumerate()
            .filter(|(index, _)| self.removed >> index & 1 == 0)
            .map(|(index, (rule, report))| {
                let armed_ns = memory.map_or(0, |memory| memory.cell(index).armed_ns());
                json!({
                    "name": rule.name.to_string(),
                    "rule": rule.text,
                    "armed": report.is_armed,
                    "armed_for_ns": report.is_armed.then(|| now_ns.saturating_sub(armed_ns)),
                    "matched": report.matched,
                    "fired": report.fired,
                    "hits": report.hits,
                    "held": report.waiting,
                })
            })
            .collect();
        json!({
            "session": self.server.name(),
            "pid": std::process::id(),
            "targets": plan.targets.names().join(", "),
            "backend": self.backend,
            "armed_for_ns": now_ns.saturating_sub(self.armed_ns),
            "rules": rules,
        })
    }
}

/// Whoever holds threads has not let them go in time.
fn silent() -> Reply {
    Reply::Refused {
        error: "finject's own process that holds the threads does not answer".into(),
        help: "finject ctl stop lets all of them go".into(),
    }
}

/// Threads that wait for rules, a bit each.
fn waiting(reports: &[RuleReport], rules: u64) -> u64 {
    let meant = reports.iter().enumerate();
    let meant = meant.filter(|(index, _)| rules >> (index % 64) & 1 != 0);
    meant.map(|(_, report)| report.waiting).sum()
}

fn bits(rules: &[usize]) -> u64 {
    rules.iter().fold(0, |bits, rule| bits | 1 << (rule % 64))
}

/// Several mistakes in one line.
fn joined(mistakes: impl Iterator<Item = impl Display>) -> String {
    let texts = mistakes.map(|mistake| mistake.to_string());
    texts.collect::<Vec<_>>().join("; ")
}

/// What a backend did not do.
fn refused(error: &BackendError) -> Reply {
    Reply::Refused {
        error: chain(error),
        help: error.help().join("; "),
    }
}

/// A rule's text, with the name that it is to have.
fn rule_text(rule: &str, name: Option<String>) -> Result<RuleText, Reply> {
    let text = RuleText::new(rule);
    let Some(name) = name else {
        return Ok(text);
    };
    match RuleName::new(name.as_str()) {
        Some(name) => Ok(text.named(name)),
        None => Err(Reply::Refused {
            error: format!("`{name}` cannot be a rule's name"),
            help: "1 to 64 letters, digits, `-`, `_` and `.`".into(),
        }),
    }
}

fn position(name: &str, plan: &Plan) -> Option<usize> {
    plan.rules
        .iter()
        .position(|rule| rule.name.as_str() == name)
}

fn index(name: &str, plan: &Plan) -> Result<usize, Reply> {
    position(name, plan).ok_or_else(|| {
        let names = plan.rules.iter().map(|rule| rule.name.as_str());
        Reply::Refused {
            error: format!("there is no rule {name}"),
            help: format!(
                "the session's rules: {}",
                names.collect::<Vec<_>>().join(", ")
            ),
        }
    })
}
