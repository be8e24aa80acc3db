//! Calls whose threads wait, before they run or after they have run: what was decided is carried out part
//! by part, and here is kept where each stands. Knows neither how a thread is held nor how it goes on.

use std::collections::BTreeMap;

use injector_common::Released;
use injector_common::rule::{
    ACT_AFTER, ACT_AFTER_KILL, ACT_AFTER_RESULT, ACT_AFTER_WAITS, ACT_DECIDES, ACT_EDITS,
    ACT_REPLACES, ACT_RESULT, ACT_WAITS,
};

use super::firing::{Decided, Done, Fate, Firing, Wait};
use super::memory::{Memory, ReleaseAsked};

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// It has not run.
    Before,
    /// It has run.
    After,
}

/// A wait that is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Running {
    /// Of which firing.
    firing: usize,
    since_ns: u64,
}

/// What a thread's call comes to that is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// What the rest of the step says.
    Rest,
    /// It runs, as if the rule had not fired.
    Run,
    /// It gives this.
    Gives(i64),
}

impl Then {
    /// What a request says.
    pub(super) fn of(asked: &ReleaseAsked) -> Self {
        match asked.with {
            Released::Rest => Self::Rest,
            Released::Run => Self::Run,
            Released::Result => Self::Gives(asked.value),
        }
    }
}

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaitsFor {
    /// The rule's index in the plan.
    pub(super) rule: usize,
    /// It can be released.
    pub(super) is_hold: bool,
    /// Since when.
    pub(super) since_ns: u64,
    /// Its rule is out of force.
    pub(super) is_disarmed: bool,
}

impl WaitsFor {
    /// Since when, where a request means it.
    pub(super) fn is_meant(&self, asked: &ReleaseAsked) -> Option<u64> {
        let is_named = asked.rules >> (self.rule % 64) & 1 != 0;
        (is_named && self.is_hold).then_some(self.since_ns)
    }
}

/// A decided call on its way: whoever has it asks for the [next wait](Self::next), and once there is none
/// does what else was decided, and takes down what it did.
#[derive(Clone, Debug)]
pub(super) struct Stay {
    decided: Decided,
    /// By firing.
    done: Vec<Done>,
    side: Side,
    /// The firing whose wait comes next.
    at: usize,
    running: Option<Running>,
    /// The firing whose thread was released last with a result of its own, and on which side.
    given: Option<(usize, Side)>,
}

impl Stay {
    /// Before the call, of which nothing was done yet.
    pub(super) fn of(decided: Decided) -> Self {
        Self {
            done: vec![Done::default(); decided.firings.len()],
            decided,
            side: Side::Before,
            at: 0,
            running: None,
            given: None,
        }
    }

    /// What its thread waits for, while it does; by the rules in force.
    pub(super) fn waits_for(&self, armed: u64) -> Option<WaitsFor> {
        let running = self.running?;
        let firing = self.decided.firings.get(running.firing)?;
        Some(WaitsFor {
            rule: firing.rule(),
            is_hold: self.wait_of(firing)?.is_hold,
            since_ns: running.since_ns,
            is_disarmed: firing.is_disarmed(armed),
        })
    }

    /// Whether all threads of its process are held while its thread waits.
    pub(super) fn stops(&self) -> bool {
        let running = self.running.as_ref();
        let firing = running.and_then(|running| self.decided.firings.get(running.firing));
        let wait = firing.and_then(|firing| self.wait_of(firing));
        wait.is_some_and(|wait| wait.stops)
    }

    fn running_rule(&self) -> Option<usize> {
        let firing = self.decided.firings.get(self.running?.firing)?;
        Some(firing.rule())
    }

    /// Counts that a thread waits for a rule, which is a hit of it once.
    pub(super) fn count_begin(&mut self, memory: &Memory) {
        let (Some(running), Some(rule)) = (self.running, self.running_rule()) else {
            return;
        };
        let cell = memory.cell(rule);
        cell.count_waits(true);
        if let Some(done) = self.done.get_mut(running.firing)
            && !std::mem::replace(&mut done.is_hit, true)
        {
            cell.add_hit();
        }
    }

    /// Counts that it no longer does. Before the next wait is looked for.
    pub(super) fn count_end(&self, memory: &Memory) {
        if let Some(rule) = self.running_rule() {
            memory.cell(rule).count_waits(false);
        }
    }

    /// Rules that are out of force by now take no further part: neither with a wait that is on nor with what
    /// of their steps is left. Where one of them decided what becomes of a call that has not run, it runs.
    pub(super) fn disarm(&mut self, armed: u64) {
        for (firing, done) in self.decided.firings.iter().zip(&mut self.done) {
            if !firing.is_disarmed(armed) || done.is_let_go {
                continue;
            }
            done.is_let_go = true;
            let decides = firing.actions() & ACT_DECIDES != 0;
            if decides && self.given.is_none() && self.side == Side::Before {
                self.decided.fate = Fate::Runs;
            }
        }
    }

    /// Ends the wait that is on before its time: [`next`](Self::next) tells what comes then.
    pub(super) fn release(&mut self, then: Then) {
        let Some(Running { firing: index, .. }) = self.running.filter(|_| then != Then::Rest)
        else {
            return;
        };
        if let Some(done) = self.done.get_mut(index) {
            done.is_let_go = true;
        }
        let decides = |firing: &Firing| firing.actions() & ACT_DECIDES != 0;
        if let Then::Gives(value) = then {
            // What was decided or given before is overruled.
            for (firing, done) in self.decided.firings.iter().zip(&mut self.done) {
                done.given = None;
                done.is_let_go |= decides(firing);
            }
            if let Some(done) = self.done.get_mut(index) {
                done.given = Some(value);
            }
            self.given = Some((index, self.side));
            self.decided.fate = match self.side {
                Side::Before => Fate::Gets(value),
                Side::After => Fate::RunsThenGets(value),
            };
        } else if self.side == Side::Before && self.decided.firings.get(index).is_some_and(decides)
        {
            self.decided.fate = Fate::Runs;
        }
    }

    /// The wait that is on is over; until when the next one of this side lasts, [`None`] where no other
    /// comes. In the rules' order, one after another.
    pub(super) fn next(&mut self, now_ns: u64) -> Option<u64> {
        self.stop(now_ns);
        while let Some(firing) = self.decided.firings.get(self.at) {
            let index = self.at;
            self.at += 1;
            let is_over = self.done.get(index).is_some_and(|done| done.is_let_go);
            if let Some(Wait { ns, .. }) = self.wait_of(firing).filter(|_| !is_over) {
                self.running = Some(Running {
                    firing: index,
                    since_ns: now_ns,
                });
                return Some(now_ns.saturating_add(ns));
            }
        }
        None
    }

    fn wait_of(&self, firing: &Firing) -> Option<Wait> {
        match self.side {
            Side::Before => firing.wait(),
            Side::After => firing.after_wait(),
        }
    }

    /// Takes down how long the wait that is on has lasted.
    fn stop(&mut self, now_ns: u64) {
        let Some(running) = self.running.take() else {
            return;
        };
        let took = now_ns.saturating_sub(running.since_ns);
        let firing = self.decided.firings.get(running.firing);
        let (Some(firing), Some(done)) = (firing, self.done.get_mut(running.firing)) else {
            return;
        };
        match self.side {
            Side::Before => {
                done.delay_ns = took;
                done.actions |= firing.actions() & ACT_WAITS;
            }
            Side::After => {
                done.after_delay_ns = took;
                done.actions |= firing.actions() & ACT_AFTER_WAITS;
            }
        }
    }

    /// The faults are over, or the thread is: nothing more happens, and a call that has not run does.
    pub(super) fn let_go(&mut self, now_ns: u64) {
        self.stop(now_ns);
        for done in &mut self.done {
            done.is_let_go = true;
        }
        self.decided.fate = Fate::Runs;
    }

    /// What is to become of the call.
    pub(super) fn fate(&self) -> Fate {
        self.decided.fate
    }

    /// The firings of which something may be left to do, and what was done of each so far.
    pub(super) fn firings(&mut self) -> impl Iterator<Item = (&Firing, &mut Done)> {
        let all = self.decided.firings.iter().zip(&mut self.done);
        all.filter(|(_, done)| !done.is_let_go)
    }

    /// The call has got what it was to get in its place.
    pub(super) fn replaced(&mut self) {
        self.got(ACT_REPLACES, ACT_RESULT);
    }

    /// The call has run, and has got what it was to get then.
    pub(super) fn changed(&mut self) {
        self.got(ACT_AFTER_RESULT | ACT_AFTER_KILL, ACT_AFTER_RESULT);
    }

    fn got(&mut self, by_rule: u32, by_release: u32) {
        if let Some((index, _)) = self.given {
            if let Some(done) = self.done.get_mut(index) {
                done.actions |= by_release;
            }
            return;
        }
        for (firing, done) in self.firings() {
            done.actions |= firing.actions() & by_rule;
        }
    }

    /// What whoever released the thread after its call has it give.
    pub(super) fn given_late(&self) -> Option<i64> {
        let (index, side) = self.given?;
        let done = self.done.get(index).filter(|_| side == Side::After)?;
        done.given
    }

    /// The call has run, or has its result.
    pub(super) fn turn(&mut self) {
        (self.side, self.at) = (Side::After, 0);
    }

    /// Whether it has.
    pub(super) fn has_run(&self) -> bool {
        self.side == Side::After
    }

    /// Whether its thread has waited.
    pub(super) fn has_waited(&self) -> bool {
        self.done.iter().any(|done| done.delay_ns != 0)
    }

    /// The call had failed by itself: the result that was meant for a success is not given.
    pub(super) fn miss_result(&mut self) {
        for (firing, done) in self.decided.firings.iter().zip(&mut self.done) {
            done.is_moot |= firing.actions() & ACT_AFTER_RESULT != 0;
        }
    }

    /// The call did not come to its end: nothing that was to happen after it does, nor was its data changed.
    pub(super) fn be_moot(&mut self) {
        for (firing, done) in self.decided.firings.iter().zip(&mut self.done) {
            done.is_moot |= firing.actions() & (ACT_AFTER | ACT_EDITS) != 0;
        }
    }

    /// The call does not run: there is no data of its to change.
    pub(super) fn miss_edits(&mut self) {
        for (firing, done) in self.decided.firings.iter().zip(&mut self.done) {
            done.is_moot |= firing.actions() & ACT_EDITS != 0;
        }
    }

    /// Whether data of the call is to be changed.
    pub(super) fn has_edits(&self) -> bool {
        let mut all = self.decided.firings.iter().zip(&self.done);
        let is_left = |done: &Done| !done.is_let_go && !done.is_moot;
        all.any(|(firing, done)| is_left(done) && firing.actions() & ACT_EDITS != 0)
    }

    /// Whether something is to happen once the call has run.
    pub(super) fn has_after(&self) -> bool {
        let mut all = self.decided.firings.iter().zip(&self.done);
        self.has_edits()
            || all.any(|(firing, done)| !done.is_let_go && firing.actions() & ACT_AFTER != 0)
    }

    /// The firings and what was done of each.
    pub(super) fn ended(&self) -> impl Iterator<Item = (&Firing, &Done)> {
        self.decided.firings.iter().zip(&self.done)
    }
}

/// Whether a decided call waits before it runs.
pub(super) fn has_wait(decided: &Decided) -> bool {
    decided.firings.iter().any(|firing| firing.wait().is_some())
}

/// Things by the time at which each is due, `CLOCK_MONOTONIC` nanoseconds; those of one time in the order
/// in which they came.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    by_time: BTreeMap<(u64, u64), T>,
    came: u64,
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self {
            by_time: BTreeMap::new(),
            came: 0,
        }
    }
}

impl<T> Schedule<T> {
    /// Something is due then.
    pub(super) fn add(&mut self, at_ns: u64, thing: T) {
        self.came += 1;
        self.by_time.insert((at_ns, self.came), thing);
    }

    /// When the next is due.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.by_time.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes one that is due.
    pub(super) fn take_due(&mut self, now_ns: u64) -> Option<T> {
        self.next_ns().filter(|at| *at <= now_ns)?;
        self.take()
    }

    /// Takes the next, due or not.
    pub(super) fn take(&mut self) -> Option<T> {
        self.by_time.pop_first().map(|(_, thing)| thing)
    }

    /// Takes those for which there is a number, those of the lowest first and at most so many.
    pub(super) fn take_some(&mut self, most: usize, number: impl Fn(&T) -> Option<u64>) -> Vec<T> {
        let found = self.by_time.iter();
        let found = found.filter_map(|(key, thing)| Some((number(thing)?, *key)));
        let mut found: Vec<_> = found.collect();
        found.sort_unstable();
        found.truncate(most);
        let keys = found.iter().map(|(_, key)| key);
        keys.filter_map(|key| self.by_time.remove(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use injector_common::rule::{ACT_AFTER_DELAY, ACT_DELAY, ACT_HOLD, ACT_RESULT};
    use injector_common::{CallerFacts, Data};

    use super::*;
    use crate::backend::decider::{Asked, Caller, Decider};
    use crate::backend::files::{Files, NoFiles};
    use crate::backend::memory::CallSlot;
    use crate::backend::sockets::{NoSockets, Sockets};
    use crate::backend::spec::{Spec, SpecRule};
    use crate::plan::Arming;
    use crate::rule::{RuleText, compile};
    use crate::sys::time::monotonic_ns;

    const CALL: CallSlot = CallSlot {
        compat: false,
        nr: 74,
    };

    /// Nothing is asked of the call.
    struct Nobody;

    impl Asked for Nobody {
        fn caller(&self) -> Option<Caller> {
            None
        }

        fn caller_facts(&self) -> Option<CallerFacts> {
            None
        }

        fn data(&self) -> Data {
            Data::NONE
        }

        fn files(&self) -> impl Files {
            NoFiles
        }

        fn sockets(&self) -> impl Sockets {
            NoSockets
        }
    }

    fn stay_of(rules: &[&str]) -> Stay {
        let texts: Vec<_> = rules.iter().map(|rule| RuleText::new(*rule)).collect();
        let rules = compile(&texts).unwrap().rules;
        let spec = Spec {
            rules: rules
                .iter()
                .map(|rule| SpecRule {
                    calls: vec![CALL],
                    ..SpecRule::lowered(rule, Arming::default()).unwrap()
                })
                .collect(),
            seed: 7,
            dry_run: false,
        };
        let memory = Arc::new(Memory::anonymous().unwrap());
        spec.write(&memory);
        memory.arm(u64::MAX, monotonic_ns(), u64::MAX);
        Stay::of(Decider::new(memory, &spec).decide(CALL, &[0; 6], &Nobody))
    }

    fn done(stay: &Stay) -> Vec<(u32, u64, u64)> {
        let done = stay.ended();
        done.map(|(_, done)| (done.actions, done.delay_ns, done.after_delay_ns))
            .collect()
    }

    #[test]
    fn waits_of_several_rules_come_one_after_another() {
        let mut stay = stay_of(&[
            "fsync=delay:10ns",
            "fsync=EIO",
            "fsync=hold:20ns+after:delay:5ns",
        ]);
        assert_eq!(stay.next(100), Some(110));
        assert_eq!(stay.next(111), Some(131), "as long as it says from then on");
        assert_eq!(stay.next(131), None);
        assert_eq!(
            done(&stay),
            [(ACT_DELAY, 11, 0), (0, 0, 0), (ACT_HOLD, 20, 0)]
        );
        assert_eq!(stay.fate(), Fate::Gets(-5));
        assert!(stay.has_after() && !stay.has_run());
        stay.turn();
        assert_eq!(stay.next(200), Some(205));
        assert_eq!(stay.next(206), None);
        assert_eq!(done(&stay)[2], (ACT_HOLD | ACT_AFTER_DELAY, 20, 6));
    }

    #[test]
    fn who_is_let_go_runs_the_call_as_if_nothing_had_been_decided() {
        let mut stay = stay_of(&[
            "fsync=hold:20ns+after:EIO+after:delay:5ns",
            "fsync=signal:SIGUSR1@1",
        ]);
        assert_eq!(stay.next(100), Some(120));
        stay.let_go(104);
        assert_eq!(stay.next(104), None);
        assert_eq!(stay.fate(), Fate::Runs);
        assert!(!stay.has_after());
        assert_eq!(stay.firings().count(), 0, "nothing is left to do");
        assert_eq!(done(&stay), [(ACT_HOLD, 4, 0), (0, 0, 0)]);
        assert!(stay.ended().all(|(_, done)| done.is_let_go));
    }

    #[test]
    fn whoever_releases_a_thread_says_what_becomes_of_its_call() {
        for (then, fate, told) in [
            (Then::Rest, Fate::Gets(-5), ACT_HOLD | ACT_RESULT),
            (Then::Run, Fate::Runs, ACT_HOLD),
            (Then::Gives(-1), Fate::Gets(-1), ACT_HOLD | ACT_RESULT),
            (Then::Gives(7), Fate::Gets(7), ACT_HOLD | ACT_RESULT),
        ] {
            let mut stay = stay_of(&["fsync=hold:20ns+EIO"]);
            stay.next(100);
            let waits_for = WaitsFor {
                rule: 0,
                is_hold: true,
                since_ns: 100,
                is_disarmed: false,
            };
            assert_eq!(stay.waits_for(1), Some(waits_for));
            let memory = Memory::anonymous().unwrap();
            for _ in 0..2 {
                let waiting = |is_on| {
                    let report = memory.report(1).rules[0];
                    assert_eq!((report.waiting, report.hits), (is_on, 1));
                };
                stay.count_begin(&memory);
                waiting(1);
                stay.count_end(&memory);
                waiting(0);
            }
            stay.release(then);
            assert_eq!(stay.next(105), None);
            assert_eq!((stay.fate(), stay.waits_for(1)), (fate, None), "{then:?}");
            if fate != Fate::Runs {
                stay.replaced();
            }
            assert_eq!(done(&stay), [(told, 5, 0)], "{then:?}");
        }
        // The last one counts.
        let mut stay = stay_of(&["fsync=hold:20ns", "fsync=hold:20ns", "fsync=EIO"]);
        stay.next(100);
        stay.release(Then::Gives(-1));
        assert_eq!(stay.next(101), Some(121));
        stay.release(Then::Gives(-2));
        assert_eq!((stay.next(102), stay.fate()), (None, Fate::Gets(-2)));
        stay.replaced();
        assert_eq!(
            done(&stay),
            [(ACT_HOLD, 1, 0), (ACT_HOLD | ACT_RESULT, 1, 0), (0, 0, 0)]
        );
        // Of another rule's result nothing is taken.
        let mut stay = stay_of(&["fsync=hold:20ns", "fsync=EIO"]);
        stay.next(100);
        stay.release(Then::Run);
        assert_eq!((stay.next(101), stay.fate()), (None, Fate::Gets(-5)));
    }

    #[test]
    fn rules_that_are_out_of_force_take_no_further_part() {
        let rules = [
            "fsync=hold:20ns+EIO",
            "fsync=delay:20ns",
            "fsync=after:hold:9ns",
        ];
        let mut stay = stay_of(&rules);
        stay.next(100);
        stay.disarm(0b110);
        assert!(stay.waits_for(0b110).unwrap().is_disarmed);
        assert_eq!(stay.next(103), Some(123), "the next rule's");
        assert_eq!(stay.fate(), Fate::Runs);
        stay.disarm(0b010);
        assert_eq!(stay.next(123), None);
        assert!(!stay.has_after());
        assert_eq!(
            done(&stay),
            [(ACT_HOLD, 3, 0), (ACT_DELAY, 20, 0), (0, 0, 0)]
        );
    }

    #[test]
    fn what_is_meant_for_a_success_is_moot_otherwise() {
        let mut failed = stay_of(&["fsync=after:EIO+after:delay:5ns", "fsync=delay:1ns"]);
        failed.miss_result();
        let moot =
            |stay: &Stay| -> Vec<bool> { stay.ended().map(|(_, done)| done.is_moot).collect() };
        assert_eq!(moot(&failed), [true, false]);
        failed.turn();
        assert_eq!(failed.next(10), Some(15), "it waits all the same");
        let mut cut = stay_of(&["fsync=after:delay:5ns", "fsync=EIO"]);
        cut.be_moot();
        assert_eq!(moot(&cut), [true, false]);
    }

    #[test]
    fn what_is_due_first_comes_first() {
        let mut schedule = Schedule::default();
        for (at, thing) in [(30, 'c'), (10, 'a'), (10, 'b'), (40, 'd')] {
            schedule.add(at, thing);
        }
        assert_eq!(schedule.next_ns(), Some(10));
        assert_eq!(schedule.take_due(9), None);
        let due: Vec<_> = std::iter::from_fn(|| schedule.take_due(30)).collect();
        assert_eq!(due, ['a', 'b', 'c']);
        schedule.add(20, 'e');
        schedule.add(50, 'f');
        let number = |thing: &char| (*thing != 'e').then(|| 200 - u64::from(*thing as u32));
        assert_eq!(schedule.take_some(1, number), ['f']);
        assert_eq!(schedule.take_some(9, number), ['d']);
        assert_eq!(schedule.take(), Some('e'));
        assert_eq!(schedule.take(), None);
    }
}
