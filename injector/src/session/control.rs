//! What is asked of a session while it runs. Each request is answered once it is in force, so that some wait
//! here: for threads that are let go, for a rule to hit.

use injector_common::Released;
use serde_json::{Value, json};

use crate::backend::{Backend, RuleReport};
use crate::control::message::{Which, With};
use crate::control::server::Asker;
use crate::control::{Reply, Request, Server};
use crate::plan::Plan;
use crate::sys::time::monotonic_ns;

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
    /// These rules, a bit each, hold no thread any more; how many were in force, and how many threads waited.
    NobodyWaits {
        rules: u64,
        disarmed: u32,
        waiting: u64,
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
    /// Requests to let threads go that come after the one that is being answered.
    releases: Vec<(Asker, Request)>,
    /// Whoever asked to end the session.
    stops: Vec<Asker>,
    backend: &'static str,
    armed_ns: u64,
}

impl Control {
    /// Nothing was asked yet.
    pub(super) fn of(server: Server, backend: &'static str) -> Self {
        Self {
            server,
            pending: Vec::new(),
            releases: Vec::new(),
            stops: Vec::new(),
            backend,
            armed_ns: 0,
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
        turns.min()
    }

    /// Whether the session was asked to end.
    pub(super) fn is_to_stop(&self) -> bool {
        !self.stops.is_empty()
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
        let waiting = pending.map(|pending| pending.asker);
        for asker in waiting.chain(releases.map(|(asker, _)| asker)) {
            self.server.reply(asker, &Reply::Over);
        }
    }

    /// Hears what is asked, and answers what can be.
    pub(super) fn turn(&mut self, plan: &Plan, backend: &dyn Backend) {
        for (asker, request) in self.server.take() {
            self.ask(asker, request, plan, backend);
        }
        if self.pending.is_empty() {
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
            match Self::answer(&pending, &report.rules, now_ns, backend) {
                Some(reply) => self.server.reply(pending.asker, &reply),
                None if self.server.waits(pending.asker) => self.pending.push(pending),
                None => {}
            }
        }
        if !self.releases.is_empty() && !self.is_releasing() {
            let (asker, request) = self.releases.remove(0);
            self.ask(asker, request, plan, backend);
        }
    }

    fn is_releasing(&self) -> bool {
        let is_it = |pending: &Pending| matches!(pending.what, Awaited::Released { .. });
        self.pending.iter().any(is_it)
    }

    fn ask(&mut self, asker: Asker, request: Request, plan: &Plan, backend: &dyn Backend) {
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
        plan: &Plan,
        backend: &dyn Backend,
    ) -> Result<Option<Value>, Reply> {
        let Some(memory) = backend.memory() else {
            return Ok(Some(Value::Null));
        };
        let now_ns = monotonic_ns();
        let is_releasing = self.is_releasing();
        let mut wait = |what, until_ns| {
            self.pending.push(Pending {
                asker,
                until_ns,
                what,
            });
            Ok(None)
        };
        match request {
            Request::Status => Ok(Some(self.status(plan, backend))),
            Request::Arm { rules } => {
                let rules = indices(&rules, plan)?;
                let fresh = memory.arm_rules(bits(&rules), now_ns);
                Ok(Some(json!({ "armed": fresh.count_ones() })))
            }
            Request::Disarm { rules } => {
                let rules = bits(&indices(&rules, plan)?);
                let waiting = waiting(&backend.report().rules, rules);
                let disarmed = memory.disarm_rules(rules).count_ones();
                backend.wake();
                let what = Awaited::NobodyWaits {
                    rules,
                    disarmed,
                    waiting,
                };
                wait(what, now_ns + PATIENCE_NS)
            }
            Request::Release { .. } if is_releasing => {
                self.releases.push((asker, request));
                Ok(None)
            }
            Request::Release { rule, which, with } => {
                let rule = index(&rule, plan)?;
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
                wait(Awaited::Released { request }, now_ns + PATIENCE_NS)
            }
            Request::WaitHit {
                rule,
                count,
                timeout_ns,
            } => {
                let rule = index(&rule, plan)?;
                wait(
                    Awaited::Hits { rule, count },
                    now_ns.saturating_add(timeout_ns),
                )
            }
            Request::Stop => {
                self.stops.push(asker);
                Ok(None)
            }
        }
    }

    /// The answer to a request that waits, where there is one by now.
    fn answer(
        pending: &Pending,
        rules: &[RuleReport],
        now_ns: u64,
        backend: &dyn Backend,
    ) -> Option<Reply> {
        let done = match &pending.what {
            Awaited::NobodyWaits {
                rules: meant,
                disarmed,
                waiting: before,
            } => {
                let left = waiting(rules, *meant);
                (left == 0).then(|| json!({ "disarmed": disarmed, "released": before }))
            }
            Awaited::Released { request } => {
                let released = backend
                    .memory()
                    .and_then(|memory| memory.released(*request));
                released.map(|number| json!({ "released": number }))
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

/// The rules of these names; all where none is named.
fn indices(names: &[String], plan: &Plan) -> Result<Vec<usize>, Reply> {
    if names.is_empty() {
        return Ok((0..plan.rules.len()).collect());
    }
    names.iter().map(|name| index(name, plan)).collect()
}

fn index(name: &str, plan: &Plan) -> Result<usize, Reply> {
    let mut rules = plan.rules.iter();
    let found = rules.position(|rule| rule.name.to_string() == name);
    found.ok_or_else(|| {
        let names: Vec<String> = plan
            .rules
            .iter()
            .map(|rule| rule.name.to_string())
            .collect();
        Reply::Refused {
            error: format!("there is no rule {name}"),
            help: format!("the session's rules: {}", names.join(", ")),
        }
    })
}
