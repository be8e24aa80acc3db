//! Decides calls in user space, for backends whose calls come to a process of finject's: by the same
//! function, the same wire rules and the same counters as the kernel program, so that the same seed
//! gives the same firings everywhere. Knows nothing of how a call came or is answered.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use injector_common::limits::{MAX_RULES, MAX_SCOPES};
use injector_common::random::{Purpose, hash, within};
use injector_common::rule::{
    ACT_AFTER_RESULT, ACT_AFTER_SIGNAL, ACT_CORRUPT, ACT_EDITS, ACT_RESULT, ACT_SIGNAL,
};
use injector_common::{
    Call, CallerFacts, Counter, Data, Decision, Event, EventKind, Mark, MarkedFiring, Scope,
    WireGlob, WireRule, WireStep, WireWait, all_hold, decide, is_called_by,
};

use super::files::{self, Files};
use super::firing::{Decided, Done, Fate, Firing};
use super::memory::{CallSlot, Cell, Memory};
use super::sockets::{self, Sockets};
use super::spec::Spec;
use crate::sys::time::monotonic_ns;

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The process.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// When the process and the thread started, in the unit of /proc/PID/stat: with the id they tell
    /// it from a later one with the same id.
    pub process_start: u64,
    /// See `process_start`.
    pub thread_start: u64,
}

/// What rules may ask of a call, beside its number and arguments. Each is asked at most once, and only where a rule
/// does.
pub trait Asked {
    /// Who calls, where processes or threads are counted apart; [`None`] where it is gone: then its call passes.
    fn caller(&self) -> Option<Caller>;

    /// What rules say of who calls; [`None`] where it is gone: then none of them is about it.
    fn caller_facts(&self) -> Option<CallerFacts>;

    /// The data that the call is about to move, where a rule that selects it changes data.
    fn data(&self) -> Data;

    /// The files that it is about.
    fn files(&self) -> impl Files;

    /// The socket that it is about.
    fn sockets(&self) -> impl Sockets;
}

/// The counter of one process or thread.
#[derive(Debug, Default)]
struct Scoped {
    count: AtomicU64,
    chain: AtomicU64,
    ordinal: u64,
}

impl Counter for Scoped {
    fn count_call(&self) -> u64 {
        self.count.fetch_add(1, Relaxed) + 1
    }

    fn load(&self) -> u64 {
        self.chain.load(Acquire)
    }

    fn compare_exchange(&self, old: u64, new: u64) -> u64 {
        match self.chain.compare_exchange(old, new, AcqRel, Acquire) {
            Ok(found) | Err(found) => found,
        }
    }
}

/// The decider. Calls of several threads may be decided at once.
#[derive(Debug)]
pub struct Decider {
    memory: Arc<Memory>,
    /// Those of the memory's rules that were met so far: a rule does not change.
    rules: [OnceLock<Box<Known>>; MAX_RULES],
    seed: u64,
    dry_run: bool,
    scopes: Mutex<Scopes>,
}

/// A rule that was met.
#[derive(Debug)]
struct Known {
    wire: WireRule,
    globs: Vec<WireGlob>,
}

/// The counters of processes and threads.
#[derive(Debug)]
struct Scopes {
    /// By rule, process or thread id, start, and when the rule was armed.
    all: BTreeMap<ScopeKey, Arc<Scoped>>,
    /// How many there may be.
    room: usize,
    /// Up to where it was last looked whose process or thread is gone.
    looked: ScopeKey,
}

type ScopeKey = (usize, u32, u64, u64);

/// Counters looked at in one go, at some ten microseconds each.
const LOOKED_AT: usize = 2048;

impl Decider {
    /// A decider by the rules that lie in `memory`, also by those that join them later. Of `spec` it takes what is
    /// not about single rules.
    pub fn new(memory: Arc<Memory>, spec: &Spec) -> Self {
        Self {
            memory,
            rules: [const { OnceLock::new() }; MAX_RULES],
            seed: spec.seed,
            dry_run: spec.dry_run,
            scopes: Mutex::new(Scopes {
                all: BTreeMap::new(),
                room: MAX_SCOPES as usize,
                looked: (0, 0, 0, 0),
            }),
        }
    }

    /// A rule; [`None`] where there is none.
    fn known(&self, index: usize) -> Option<&Known> {
        let known = self.rules.get(index)?;
        let is_written = known.get().is_some() || index < self.memory.rules();
        let read = || {
            let wire = self.memory.rule(index);
            let globs = (0..wire.globs()).map(|test| self.memory.glob(index, test));
            Box::new(Known {
                globs: globs.collect(),
                wire,
            })
        };
        is_written.then(|| &**known.get_or_init(read))
    }

    fn rule(&self, index: usize) -> Option<&WireRule> {
        self.known(index).map(|known| &known.wire)
    }

    fn scopes(&self) -> MutexGuard<'_, Scopes> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets counters go whose process or thread, by its id and start, is gone, where half of the room for
    /// counters is taken: of some of them, and of others the next time.
    pub fn prune(&self, lives: impl Fn(u32, u64) -> bool) {
        let some: Vec<ScopeKey> = {
            let mut scopes = self.scopes();
            if scopes.all.len() <= scopes.room / 2 {
                return;
            }
            let behind = (Bound::Excluded(scopes.looked), Bound::Unbounded);
            let keys = scopes.all.range(behind).map(|(key, _)| *key);
            let some: Vec<_> = keys.take(LOOKED_AT).collect();
            scopes.looked = some.last().copied().unwrap_or((0, 0, 0, 0));
            some
        };
        let gone: Vec<_> = some
            .into_iter()
            .filter(|(rule, id, start, armed_ns)| {
                *armed_ns != self.memory.cell(*rule).armed_ns() || !lives(*id, *start)
            })
            .collect();
        let mut scopes = self.scopes();
        for key in gone {
            scopes.all.remove(&key);
        }
    }

    /// Whether a rule names the call.
    pub fn names(&self, call: CallSlot) -> bool {
        self.memory.rules_of(call) != 0
    }

    /// What the kernel program has decided for a call that it hands over.
    pub fn marked(&self, mark: &Mark) -> Decided {
        let mut decided = Decided::PASSES;
        for marked in mark.firings.iter().take(mark.firings_len as usize) {
            let index = marked.rule as usize;
            let step = self
                .rule(index)
                .and_then(|rule| Some((rule, rule.steps.get(marked.step as usize)?)));
            let Some((rule, step)) = step else {
                continue;
            };
            if decided.fate == Fate::Runs
                && let Some(fate) = Fate::of(step)
            {
                decided.fate = fate;
            }
            decided.firings.push(self.firing(index, rule, step, marked));
        }
        decided
    }

    /// A firing, with the lengths of its waits.
    fn firing(
        &self,
        index: usize,
        rule: &WireRule,
        step: &WireStep,
        marked: &MarkedFiring,
    ) -> Firing {
        let (ordinal, count) = (marked.ordinal, marked.count);
        let lasts = |wait: WireWait, purpose| {
            let hash = hash(self.seed, rule.key, ordinal, count, purpose);
            within(hash, wait.min_ns, wait.max_ns)
        };
        Firing {
            rule: index,
            count,
            ordinal,
            step: *step,
            wait_ns: lasts(step.wait, Purpose::Delay),
            after_wait_ns: lasts(step.after_wait, Purpose::AfterDelay),
            choice: hash(self.seed, rule.key, ordinal, count, Purpose::Corrupt),
            at_ns: marked.at_ns,
            is_last: self.memory.arming_by(index).1 >> index & 1 != 0,
        }
    }

    /// The rules in force that are about a call, a bit each. What it takes to look may wait, and nobody waits for it.
    pub fn about(&self, call: CallSlot, args: &[u64; 6], asked: &impl Asked) -> u64 {
        let mut pending = self.memory.armed() & self.memory.rules_of(call);
        let mut about = 0;
        let facts = OnceCell::new();
        let (files, sockets) = (OnceCell::new(), OnceCell::new());
        while pending != 0 {
            let index = pending.trailing_zeros() as usize;
            pending &= pending - 1;
            let Some(Known { wire: rule, globs }) = self.known(index) else {
                continue;
            };
            let is_by =
                |facts: &CallerFacts| is_called_by(rule, |test| test.holds(facts.fact(test.fact)));
            let mut holds = Ok(!rule.has_tests() || self.has_args(rule, call, args));
            if rule.has_callers() && holds == Ok(true) {
                let facts = facts.get_or_init(|| asked.caller_facts());
                holds = Ok(facts.as_ref().is_some_and(is_by));
            }
            if rule.has_paths() && holds == Ok(true) {
                let files = files.get_or_init(|| files::Looked::new(asked.files()));
                holds = files::hold(rule, globs, files);
            }
            if rule.has_sockets() && holds == Ok(true) {
                let sockets = sockets.get_or_init(|| sockets::Looked::new(asked.sockets()));
                let names = globs.get(rule.path_tests()..).unwrap_or(&[]);
                holds = sockets::hold(rule, names, sockets);
            }
            match holds {
                Ok(true) => about |= 1 << index,
                Ok(false) => self.memory.cell(index).add_excluded(),
                Err(_) => self.memory.cell(index).add_unseen(),
            }
        }
        about
    }

    /// Decides a call, and counts it.
    pub fn decide(&self, call: CallSlot, args: &[u64; 6], asked: &impl Asked) -> Decided {
        self.decide_by(self.about(call, args, asked), asked)
    }

    /// Decides a call that those rules are about, and counts it.
    pub fn decide_by(&self, about: u64, asked: &impl Asked) -> Decided {
        let mut decided = Decided::PASSES;
        let mut pending = about & self.memory.armed();
        let caller = OnceCell::new();
        while pending != 0 {
            let index = pending.trailing_zeros() as usize;
            pending &= pending - 1;
            let Some(rule) = self.rule(index) else {
                continue;
            };
            let data = || asked.data();
            let cell = self.memory.cell(index);
            let firing = if rule.scope == Scope::Rule as u32 {
                self.apply(index, rule, cell, (&cell, 0), decided.fate, data)
            } else {
                let Some(caller) = *caller.get_or_init(|| asked.caller()) else {
                    continue;
                };
                let Some(scoped) = self.scoped(index, rule, cell, caller) else {
                    continue;
                };
                let counter = (&*scoped, scoped.ordinal);
                self.apply(index, rule, cell, counter, decided.fate, data)
            };
            let Some(firing) = firing else {
                continue;
            };
            if let Some(fate) = Fate::of(&firing.step) {
                decided.fate = fate;
            }
            decided.disarms |= self.memory.arming_by(index).1 != 0;
            decided.firings.push(firing);
        }
        decided
    }

    /// Whether the call's arguments are those that the rule asks for.
    fn has_args(&self, rule: &WireRule, call: CallSlot, args: &[u64; 6]) -> bool {
        all_hold(rule, self.memory.kinds(call), args)
    }

    /// The counter of the caller's process or thread; made when it is not there yet.
    fn scoped(
        &self,
        index: usize,
        rule: &WireRule,
        cell: Cell<'_>,
        caller: Caller,
    ) -> Option<Arc<Scoped>> {
        let (id, start) = if rule.scope == Scope::Thread as u32 {
            (caller.tid, caller.thread_start)
        } else {
            (caller.tgid, caller.process_start)
        };
        let key = (index, id, start, cell.armed_ns());
        let mut scopes = self.scopes();
        let room = scopes.all.len() < scopes.room;
        let found = match scopes.all.get(&key) {
            Some(found) => Arc::clone(found),
            None if room => {
                let fresh = Arc::new(Scoped {
                    ordinal: cell.next_scope(),
                    ..Scoped::default()
                });
                scopes.all.insert(key, Arc::clone(&fresh));
                fresh
            }
            None => {
                cell.add_scopes_full();
                return None;
            }
        };
        drop(scopes);
        cell.add_matched();
        Some(found)
    }

    fn apply(
        &self,
        index: usize,
        rule: &WireRule,
        cell: Cell<'_>,
        (counter, ordinal): (&impl Counter, u64),
        fate: Fate,
        data: impl FnOnce() -> Data,
    ) -> Option<Firing> {
        let since_armed_ns = if rule.has_window() {
            monotonic_ns().saturating_sub(cell.armed_ns())
        } else {
            0
        };
        let facts = Call {
            seed: self.seed,
            ordinal,
            since_armed_ns,
            decided: fate != Fate::Runs,
        };
        match decide(rule, counter, &facts, data) {
            Decision::NotSelected { .. } | Decision::Off { .. } | Decision::Exhausted { .. } => {
                None
            }
            Decision::Shadowed { .. } => {
                cell.add_shadowed();
                None
            }
            Decision::Dataless { .. } => {
                cell.add_dataless();
                None
            }
            Decision::Contended { .. } => {
                cell.add_contended();
                None
            }
            Decision::Fire { count, step, .. } => {
                let now = monotonic_ns();
                if now > self.memory.lease() {
                    self.memory.lapse();
                    return None;
                }
                if self.dry_run {
                    cell.add_fired(now);
                    return None;
                }
                let (arms, disarms) = self.memory.arming_by(index);
                if arms | disarms != 0 {
                    self.memory.arm_rules(arms, now);
                    self.memory.disarm_rules(disarms);
                }
                let marked = MarkedFiring {
                    rule: index as u32,
                    step: 0,
                    count,
                    ordinal,
                    at_ns: now,
                };
                Some(self.firing(index, rule, step, &marked))
            }
        }
    }

    /// Takes note of what became of a firing; the record of what happened, made from the call's part of it.
    /// [`None`] where nothing did.
    pub fn settle(&self, firing: &Firing, done: &Done, call: &Event) -> Option<Event> {
        let cell = self.memory.cell(firing.rule);
        let step = &firing.step;
        if done.is_moot {
            cell.add_moot();
        } else if step.actions & !done.actions != 0 && !done.is_let_go {
            cell.add_lost();
        }
        if done.actions == 0 {
            return None;
        }
        cell.add_fired(firing.at_ns);
        if !done.is_hit {
            cell.add_hit();
        }
        let has = |actions| done.actions & actions != 0;
        Some(Event {
            kind: EventKind::Fired as u32,
            rule: firing.rule as u32,
            count: firing.count,
            ordinal: firing.ordinal,
            mono_ns: firing.at_ns,
            actions: done.actions,
            signal: if has(ACT_SIGNAL) { step.signal } else { 0 },
            after_signal: if has(ACT_AFTER_SIGNAL) {
                step.after_signal
            } else {
                0
            },
            value: match done.given {
                _ if !has(ACT_RESULT | ACT_AFTER_RESULT) => 0,
                Some(value) => value,
                None => step.value,
            },
            delay_ns: done.delay_ns,
            after_delay_ns: done.after_delay_ns,
            bytes: if has(ACT_EDITS) { done.bytes } else { 0 },
            bits: if has(ACT_CORRUPT) { done.bits } else { 0 },
            flipped: if has(ACT_CORRUPT) { done.flipped } else { 0 },
            ..*call
        })
    }

    /// Counts a record that found no room.
    pub fn dropped(&self, event: &Event) {
        self.memory.cell(event.rule as usize).add_dropped();
    }
}

#[cfg(test)]
mod tests;
