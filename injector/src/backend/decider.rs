//! Decides calls in user space, for backends whose calls come to a process of finject's: by the same
//! function, the same wire rules and the same counters as the kernel program, so that the same seed
//! gives the same firings everywhere. Knows nothing of how a call came or is answered.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use injector_common::limits::{ABIS, MAX_NR, MAX_RULES, MAX_SCOPES};
use injector_common::rule::{ACT_DECIDES, ACT_KILL, ACT_RESULT, ACT_SIGNAL};
use injector_common::{
    ArgKinds, Call, Counter, Decision, Event, EventKind, RunState, Scope, WireRule, WireStep,
    all_hold, decide,
};

use super::BackendError;
use super::memory::{CallSlot, Cell, Memory};
use crate::plan::Plan;
use crate::rule::lower::{kinds_of, lower};
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

/// What is to become of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It runs.
    Runs,
    /// It does not run, and the caller gets this: `-errno`, or a value from 0 up.
    Gets(i64),
    /// It does not run, and its process is killed.
    Dies,
}

/// A rule that fires on the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Firing {
    /// The rule's index in the plan.
    rule: usize,
    count: u64,
    ordinal: u64,
    step: WireStep,
}

impl Firing {
    /// The signal that the calling thread gets.
    pub fn signal(&self) -> Option<u32> {
        (self.step.actions & ACT_SIGNAL != 0).then_some(self.step.signal)
    }
}

/// What was decided for a call, to be carried out and then to be [settled](Decider::settle).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// What is to become of the call.
    pub fate: Fate,
    /// The rules that fire, in their order.
    pub firings: Vec<Firing>,
}

impl Decided {
    /// The call passes, whatever was counted.
    pub const PASSES: Self = Self {
        fate: Fate::Runs,
        firings: Vec::new(),
    };
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

/// What stays the same while calls are decided.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The rules, with the calls that each names.
    pub rules: Vec<(WireRule, Vec<CallSlot>)>,
    /// The seed of random choices.
    pub seed: u64,
    /// Count, fire nothing.
    pub dry_run: bool,
}

impl Spec {
    /// What a plan asks for. Whoever admitted it has lowered its rules before.
    pub(super) fn of(plan: &Plan) -> Result<Self, BackendError> {
        let mut rules = Vec::new();
        for rule in &plan.rules {
            let wire = lower(rule).map_err(|_| BackendError::NotLoaded)?;
            let calls = rule.calls.iter().copied().map(CallSlot::from).collect();
            rules.push((wire, calls));
        }
        Ok(Self {
            rules,
            seed: plan.seed,
            dry_run: plan.dry_run,
        })
    }
}

/// The decider. Calls of several threads may be decided at once.
#[derive(Debug)]
pub struct Decider {
    memory: Arc<Memory>,
    rules: Vec<WireRule>,
    /// For each ABI and number (index as in `Shared::calls`) a bit for each rule that names the call.
    calls: Vec<u64>,
    /// By the same index, how a call's arguments are read, where a rule looks at them.
    kinds: Vec<ArgKinds>,
    seed: u64,
    dry_run: bool,
    scopes: Mutex<Scopes>,
}

/// The counters of processes and threads.
#[derive(Debug)]
struct Scopes {
    /// By rule, process or thread id, and start.
    all: BTreeMap<ScopeKey, Arc<Scoped>>,
    /// How many there may be.
    room: usize,
    /// Up to where it was last looked whose process or thread is gone.
    looked: ScopeKey,
}

type ScopeKey = (usize, u32, u64);

/// Counters looked at in one go, at some ten microseconds each.
const LOOKED_AT: usize = 2048;

impl Decider {
    /// A decider whose counters lie in `memory`.
    pub fn new(memory: Arc<Memory>, spec: &Spec) -> Self {
        let mut calls = vec![0; (ABIS * MAX_NR) as usize];
        let mut kinds = vec![ArgKinds::NONE; calls.len()];
        for (index, (rule, named)) in spec.rules.iter().enumerate() {
            for call in named {
                if let Some(bits) = calls.get_mut(call.index()) {
                    *bits |= 1_u64 << (index % MAX_RULES);
                }
                if let Some(kinds) = kinds.get_mut(call.index())
                    && rule.has_tests()
                {
                    *kinds = kinds_of((*call).into());
                }
            }
        }
        Self {
            memory,
            rules: spec.rules.iter().map(|(rule, _)| *rule).collect(),
            calls,
            kinds,
            seed: spec.seed,
            dry_run: spec.dry_run,
            scopes: Mutex::new(Scopes {
                all: BTreeMap::new(),
                room: MAX_SCOPES as usize,
                looked: (0, 0, 0),
            }),
        }
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
            scopes.looked = some.last().copied().unwrap_or((0, 0, 0));
            some
        };
        let gone: Vec<_> = some
            .into_iter()
            .filter(|(_, id, start)| !lives(*id, *start))
            .collect();
        let mut scopes = self.scopes();
        for key in gone {
            scopes.all.remove(&key);
        }
    }

    /// Whether a rule names the call.
    pub fn names(&self, call: CallSlot) -> bool {
        self.calls
            .get(call.index())
            .is_some_and(|rules| *rules != 0)
    }

    /// Decides a call, and counts it. `caller` is asked at most once, and only where a rule counts
    /// processes or threads apart; a caller that cannot be told is gone, and its call passes.
    pub fn decide(
        &self,
        call: CallSlot,
        args: &[u64; 6],
        caller: impl FnOnce() -> Option<Caller>,
    ) -> Decided {
        let mut decided = Decided::PASSES;
        let mut pending = self.calls.get(call.index()).copied().unwrap_or(0);
        if pending == 0 || self.memory.state() != RunState::Armed {
            return decided;
        }
        let mut caller = Some(caller);
        let mut known = None;
        while pending != 0 {
            let index = pending.trailing_zeros() as usize;
            pending &= pending - 1;
            let Some(rule) = self.rules.get(index) else {
                continue;
            };
            let cell = self.memory.cell(index);
            if rule.has_tests() && !self.is_about(rule, call, args) {
                cell.add_excluded();
                continue;
            }
            let firing = if rule.scope == Scope::Rule as u32 {
                self.apply(index, rule, cell, &cell, 0, decided.fate)
            } else {
                if let Some(ask) = caller.take() {
                    known = ask();
                }
                let Some(caller) = known else {
                    continue;
                };
                let Some(scoped) = self.scoped(index, rule, cell, caller) else {
                    continue;
                };
                self.apply(index, rule, cell, &*scoped, scoped.ordinal, decided.fate)
            };
            let Some(firing) = firing else {
                continue;
            };
            if firing.step.actions & ACT_DECIDES != 0 {
                decided.fate = if firing.step.actions & ACT_KILL != 0 {
                    Fate::Dies
                } else {
                    Fate::Gets(firing.step.value)
                };
            }
            decided.firings.push(firing);
        }
        decided
    }

    /// Whether the call's arguments are those that the rule asks for.
    fn is_about(&self, rule: &WireRule, call: CallSlot, args: &[u64; 6]) -> bool {
        let kinds = self.kinds.get(call.index()).copied().unwrap_or_default();
        all_hold(rule, kinds, args)
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
        let key = (index, id, start);
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
        counter: &impl Counter,
        ordinal: u64,
        fate: Fate,
    ) -> Option<Firing> {
        let since_armed_ns = if rule.has_window() {
            monotonic_ns().saturating_sub(self.memory.armed_ns())
        } else {
            0
        };
        let facts = Call {
            seed: self.seed,
            ordinal,
            since_armed_ns,
            decided: fate != Fate::Runs,
        };
        match decide(rule, counter, &facts) {
            Decision::NotSelected { .. } | Decision::Off { .. } | Decision::Exhausted { .. } => {
                None
            }
            Decision::Shadowed { .. } => {
                cell.add_shadowed();
                None
            }
            Decision::Contended { .. } => {
                cell.add_contended();
                None
            }
            Decision::Fire { count, step } => {
                let now = monotonic_ns();
                if now > self.memory.lease() {
                    self.memory.lapse();
                    return None;
                }
                if self.dry_run {
                    cell.add_fired(now);
                    return None;
                }
                Some(Firing {
                    rule: index,
                    count,
                    ordinal,
                    step: *step,
                })
            }
        }
    }

    /// Takes note of what became of a firing; the record of one that was carried out, made from the
    /// call's part of it.
    pub fn settle(&self, firing: &Firing, was_carried_out: bool, call: &Event) -> Option<Event> {
        let cell = self.memory.cell(firing.rule);
        if !was_carried_out {
            cell.add_lost();
            return None;
        }
        let now = monotonic_ns();
        cell.add_fired(now);
        Some(Event {
            kind: EventKind::Fired as u32,
            rule: firing.rule as u32,
            count: firing.count,
            ordinal: firing.ordinal,
            mono_ns: now,
            actions: firing.step.actions,
            signal: firing.step.signal,
            value: if firing.step.actions & ACT_RESULT != 0 {
                firing.step.value
            } else {
                0
            },
            ..*call
        })
    }

    /// Counts a record that found no room.
    pub fn dropped(&self, event: &Event) {
        self.memory.cell(event.rule as usize).add_dropped();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{RuleText, compile};

    const CALL: CallSlot = CallSlot {
        compat: false,
        nr: 74,
    };

    const WRITE: CallSlot = CallSlot {
        compat: false,
        nr: 1,
    };

    const NO_ARGS: [u64; 6] = [0; 6];

    fn decider(rules: &[&str], dry_run: bool) -> Decider {
        let texts: Vec<_> = rules.iter().map(|rule| RuleText::new(*rule)).collect();
        let rules = compile(&texts).unwrap().rules;
        let spec = Spec {
            rules: rules
                .iter()
                .map(|rule| {
                    let calls = rule.calls.iter().copied().map(CallSlot::from);
                    (
                        lower(rule).unwrap(),
                        calls.filter(|call| !call.compat).collect(),
                    )
                })
                .collect(),
            seed: 7,
            dry_run,
        };
        let decider = Decider::new(Arc::new(Memory::anonymous().unwrap()), &spec);
        decider.memory.arm(monotonic_ns(), u64::MAX);
        decider
    }

    fn thread(tgid: u32, tid: u32) -> impl FnOnce() -> Option<Caller> {
        move || {
            Some(Caller {
                tgid,
                tid,
                process_start: 1,
                thread_start: 1,
            })
        }
    }

    fn fates(decider: &Decider, calls: usize) -> Vec<Fate> {
        (0..calls)
            .map(|_| {
                decider
                    .decide(CALL, &NO_ARGS, || panic!("no rule asks who calls"))
                    .fate
            })
            .collect()
    }

    #[test]
    fn calls_are_decided_by_their_number() {
        let (runs, fails) = (Fate::Runs, Fate::Gets(-5));
        let decider = decider(&["fsync=EIO@2+2,max:2"], false);
        assert_eq!(
            fates(&decider, 7),
            [runs, fails, runs, fails, runs, runs, runs]
        );
        let other = CallSlot {
            compat: true,
            ..CALL
        };
        assert_eq!(decider.decide(other, &NO_ARGS, || None), Decided::PASSES);
        assert_eq!(decider.memory.report(1).rules[0].matched, 7);
    }

    #[test]
    fn of_several_results_the_first_decides_and_the_other_is_shadowed() {
        let decider = decider(&["fsync=EIO@2", "fsync=2*EPERM->off"], false);
        let seen = [Fate::Gets(-1), Fate::Gets(-5), Fate::Gets(-1), Fate::Runs];
        assert_eq!(
            fates(&decider, 4),
            seen,
            "a result that lost uses up nothing"
        );
        assert_eq!(decider.memory.report(2).rules[1].shadowed, 1);
    }

    #[test]
    fn calls_with_other_arguments_are_neither_counted_nor_failed() {
        let decider = decider(&["write(fd=3,arg3>10)=EIO@2", "write=EPERM@1"], false);
        let call = |fd: u64, length: u64| {
            let args = [fd, 0, length, 0, 0, 0];
            decider.decide(WRITE, &args, || None).fate
        };
        assert_eq!(call(4, 11), Fate::Gets(-1), "the other rule's");
        assert_eq!(call(3, 11), Fate::Runs, "the first of its own");
        assert_eq!(call(3, 10), Fate::Runs);
        assert_eq!(call(0xffff_ffff_0000_0003, 11), Fate::Gets(-5), "an int");
        let report = decider.memory.report(2);
        let told = report
            .rules
            .iter()
            .map(|r| (r.matched, r.excluded, r.fired));
        assert_eq!(told.collect::<Vec<_>>(), [(2, 2, 0), (4, 0, 0)]);
    }

    #[test]
    fn scopes_count_for_themselves() {
        for (rule, fired) in [
            ("fsync=EIO@2,per:thread", [false, false, false, true]),
            ("fsync=EIO@2,per:process", [false, true, false, false]),
        ] {
            let decider = decider(&[rule], false);
            let callers = [(1, 1), (1, 2), (3, 3), (1, 1)];
            let seen = callers.map(|(tgid, tid)| {
                decider.decide(CALL, &NO_ARGS, thread(tgid, tid)).fate == Fate::Gets(-5)
            });
            assert_eq!(seen, fired, "{rule}");
            assert_eq!(
                decider.decide(CALL, &NO_ARGS, || None),
                Decided::PASSES,
                "it is gone"
            );
            assert_eq!(decider.memory.report(1).rules[0].matched, 4);
        }
    }

    #[test]
    fn counters_of_those_that_are_gone_make_room() {
        let decider = decider(&["fsync=EIO@2,per:process"], false);
        decider.scopes().room = 4;
        let calls = |tgid: u32| {
            let decided = decider.decide(CALL, &NO_ARGS, thread(tgid, tgid));
            decided.fate == Fate::Gets(-5)
        };
        for tgid in 1..=4 {
            assert!(!calls(tgid));
        }
        assert!(!calls(5) && !calls(5), "without a counter calls pass");
        assert_eq!(decider.memory.report(1).rules[0].scopes_full, 2);
        decider.prune(|tgid, start| tgid == 3 && start == 1);
        assert!(calls(3), "it has kept its count");
        assert!(!calls(5) && calls(5));
        decider.prune(|_, _| panic!("half of the room is free"));
    }

    #[test]
    fn a_lease_that_lapsed_ends_all_for_good() {
        let decider = decider(&["fsync=EIO"], false);
        decider.memory.renew(1);
        assert_eq!(fates(&decider, 1), [Fate::Runs]);
        decider.memory.renew(u64::MAX);
        assert_eq!(fates(&decider, 1), [Fate::Runs]);
        assert!(decider.memory.report(1).lapsed);
    }

    #[test]
    fn a_dry_run_counts_and_fires_nothing() {
        let decider = decider(&["fsync=kill@2"], true);
        assert_eq!(fates(&decider, 3), [Fate::Runs; 3]);
        let report = decider.memory.report(1).rules[0];
        assert_eq!((report.matched, report.fired), (3, 1));
    }

    #[test]
    fn only_what_was_carried_out_has_fired() {
        let decider = decider(&["fsync=signal:SIGUSR1+EIO@1..2"], false);
        let call = Event {
            kind: 0,
            rule: 0,
            count: 0,
            ordinal: 0,
            mono_ns: 0,
            tgid: 5,
            tid: 6,
            comm: [0; 16],
            abi: 0,
            nr: 74,
            args: [0; 6],
            actions: 0,
            signal: 0,
            value: 0,
        };
        for carried_out in [false, true] {
            let decided = decider.decide(CALL, &NO_ARGS, || None);
            assert_eq!(decided.firings[0].signal(), Some(10));
            let record = decider.settle(&decided.firings[0], carried_out, &call);
            let told = record.map(|event| (event.count, event.value, event.signal, event.tid));
            assert_eq!(told, carried_out.then_some((2, -5, 10, 6)));
        }
        let report = decider.memory.report(1).rules[0];
        assert_eq!((report.fired, report.lost), (1, 1));
    }
}
