//! The shared memory of `injector_common::shared` from finject's side: each field by its name, each
//! an atomic. The other side is the kernel program, or a process of finject's that decides.

mod marks;

use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use injector_common::limits::{ABIS, MAX_NR, MAX_PATH_TESTS, MAX_RULES, PID_LIMIT};
use injector_common::{
    ArgKinds, Control, Counter, Mark, Release as ReleaseCell, Released, RuleCell, RunState, Shared,
    Turn, WireGlob, WireRule,
};

use super::{Leased, Report, RuleReport};
use crate::plan::Arming;
use crate::rule::lower::kinds_of;
use crate::sys::SysError;
use crate::sys::mapping::Mapping;
use crate::sys::time::monotonic_ns;
use crate::syscall::{Abi, CallId, Sysno};

/// A call that a rule names: ABI and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallSlot {
    /// The 32-bit ABI.
    pub compat: bool,
    /// The number in that ABI, below [`MAX_NR`].
    pub nr: u16,
}

impl CallSlot {
    /// The call's place in `Shared::calls`.
    pub fn index(self) -> usize {
        usize::from(self.nr).min(MAX_NR as usize - 1)
            + if self.compat { MAX_NR as usize } else { 0 }
    }
}

impl From<CallId> for CallSlot {
    fn from(call: CallId) -> Self {
        Self {
            compat: call.abi == Abi::I386,
            nr: call.nr.0,
        }
    }
}

impl From<&Mark> for CallSlot {
    fn from(mark: &Mark) -> Self {
        Self {
            compat: mark.abi != 0,
            nr: mark.nr as u16,
        }
    }
}

impl From<CallSlot> for CallId {
    fn from(call: CallSlot) -> Self {
        Self {
            abi: if call.compat { Abi::I386 } else { Abi::X86_64 },
            nr: Sysno(call.nr),
        }
    }
}

/// A request that threads are let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseAsked {
    /// Its number.
    pub request: u64,
    /// The rules whose threads are meant, a bit each.
    pub rules: u64,
    /// At most so many.
    pub most: usize,
    /// What becomes of their calls.
    pub with: Released,
    /// What they give, with [`Released::Result`].
    pub value: i64,
}

/// Control and counters.
#[derive(Debug)]
pub struct Memory {
    mapping: Mapping,
}

/// One rule's counter and tallies.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'memory> {
    memory: &'memory Memory,
    base: usize,
}

impl Cell<'_> {
    fn word(&self, offset: usize) -> &AtomicU64 {
        self.memory.word(self.base + offset)
    }

    /// Counts a call of a rule whose counter lies elsewhere; see [`RuleCell::matched`].
    pub fn add_matched(&self) {
        self.word(offset_of!(RuleCell, matched))
            .fetch_add(1, Relaxed);
    }

    /// Counts a firing that was carried out.
    pub fn add_fired(&self, now_ns: u64) {
        self.word(offset_of!(RuleCell, fired)).fetch_add(1, Relaxed);
        let first = self.word(offset_of!(RuleCell, first_ns));
        let _ = first.compare_exchange(0, now_ns, Relaxed, Relaxed);
        self.word(offset_of!(RuleCell, last_ns))
            .store(now_ns, Relaxed);
    }

    /// Counts a call that the rule names, and whose arguments it is not about.
    pub fn add_excluded(&self) {
        self.word(offset_of!(RuleCell, excluded))
            .fetch_add(1, Relaxed);
    }

    /// Counts a firing whose record found no room.
    pub fn add_dropped(&self) {
        self.word(offset_of!(RuleCell, dropped))
            .fetch_add(1, Relaxed);
    }

    /// Counts a result that lost against an earlier rule's.
    pub fn add_shadowed(&self) {
        self.word(offset_of!(RuleCell, shadowed))
            .fetch_add(1, Relaxed);
    }

    /// Counts a firing whose result met a call that failed by itself.
    pub fn add_moot(&self) {
        self.word(offset_of!(RuleCell, moot)).fetch_add(1, Relaxed);
    }

    /// Counts a call of which nothing could be cut, or that moves no data.
    pub fn add_dataless(&self) {
        self.word(offset_of!(RuleCell, dataless))
            .fetch_add(1, Relaxed);
    }

    /// Counts a firing that could not be carried out.
    pub fn add_lost(&self) {
        self.word(offset_of!(RuleCell, lost)).fetch_add(1, Relaxed);
    }

    /// Counts a call that passed after losing every race for the chain's position.
    pub fn add_contended(&self) {
        self.word(offset_of!(RuleCell, contended))
            .fetch_add(1, Relaxed);
    }

    /// Counts a call that passed because there was no room for another counter.
    pub fn add_scopes_full(&self) {
        self.word(offset_of!(RuleCell, scopes_full))
            .fetch_add(1, Relaxed);
    }

    /// Counts a call that passed because its files or sockets could not be looked at.
    pub fn add_unseen(&self) {
        self.word(offset_of!(RuleCell, unseen))
            .fetch_add(1, Relaxed);
    }

    /// When the rule was armed, `CLOCK_MONOTONIC` nanoseconds.
    pub fn armed_ns(&self) -> u64 {
        self.word(offset_of!(RuleCell, armed_ns)).load(Relaxed)
    }

    /// Counts a firing, see [`RuleCell::hits`].
    pub fn add_hit(&self) {
        self.word(offset_of!(RuleCell, hits)).fetch_add(1, Release);
    }

    /// A thread begins to wait for the rule, or its wait is over.
    pub fn count_waits(&self, begins: bool) {
        let waiting = self.word(offset_of!(RuleCell, waiting));
        if begins {
            waiting.fetch_add(1, Relaxed);
        } else {
            waiting.fetch_sub(1, Release);
        }
    }

    /// The ordinal of the rule's next scope.
    pub fn next_scope(&self) -> u64 {
        self.word(offset_of!(RuleCell, scopes))
            .fetch_add(1, Relaxed)
    }
}

impl Counter for Cell<'_> {
    fn count_call(&self) -> u64 {
        self.word(offset_of!(RuleCell, count)).fetch_add(1, Relaxed) + 1
    }

    fn load(&self) -> u64 {
        self.word(offset_of!(RuleCell, chain)).load(Acquire)
    }

    fn compare_exchange(&self, old: u64, new: u64) -> u64 {
        let chain = self.word(offset_of!(RuleCell, chain));
        match chain.compare_exchange(old, new, AcqRel, Acquire) {
            Ok(found) | Err(found) => found,
        }
    }
}

/// Where the pattern of a rule's test lies.
const fn glob_of(rule: usize, test: usize) -> usize {
    offset_of!(Shared, globs) + (rule * MAX_PATH_TESTS + test) * size_of::<WireGlob>()
}

impl Memory {
    /// Maps the memory of the program's map.
    pub fn map(fd: BorrowedFd<'_>) -> Result<Self, SysError> {
        Ok(Self {
            mapping: Mapping::new(fd, size_of::<Shared>())?,
        })
    }

    /// Memory shared with the processes that finject forks.
    pub fn anonymous() -> Result<Self, SysError> {
        Ok(Self {
            mapping: Mapping::anonymous(size_of::<Shared>())?,
        })
    }

    /// A rule's words.
    pub fn cell(&self, rule: usize) -> Cell<'_> {
        Cell {
            memory: self,
            base: offset_of!(Shared, cells) + rule.min(MAX_RULES - 1) * size_of::<RuleCell>(),
        }
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        static NOWHERE: AtomicU64 = AtomicU64::new(0);
        debug_assert!(
            self.mapping.word(offset).is_some(),
            "field outside of the mapping"
        );
        self.mapping.word(offset).unwrap_or(&NOWHERE)
    }

    fn half(&self, offset: usize) -> &AtomicU32 {
        static NOWHERE: AtomicU32 = AtomicU32::new(0);
        debug_assert!(
            self.mapping.half(offset).is_some(),
            "field outside of the mapping"
        );
        self.mapping.half(offset).unwrap_or(&NOWHERE)
    }

    /// Puts rules in force, a bit each: counts start at 1 from here.
    pub fn arm(&self, rules: u64, now_ns: u64, lease_until_ns: u64) {
        self.word(offset_of!(Control, lease_ns))
            .store(lease_until_ns, Relaxed);
        self.arm_rules(rules, now_ns);
        self.half(offset_of!(Control, state))
            .store(RunState::Armed as u32, Release);
    }

    /// Puts rules in force now, for one lease of so many nanoseconds; when that is, `CLOCK_MONOTONIC` nanoseconds.
    pub fn arm_now(&self, rules: u64, lease_ns: u64) -> u64 {
        let now = monotonic_ns();
        self.arm(rules, now, now + lease_ns);
        now
    }

    /// How many rules there are, by index, those among them that were taken away.
    pub fn rules(&self) -> usize {
        let rules = self.word(offset_of!(Control, rules)).load(Acquire);
        usize::try_from(rules).unwrap_or(0).min(MAX_RULES)
    }

    /// Which program's turn it is to decide, see [`Turn`].
    pub fn set_turn(&self, turn: Turn) {
        self.word(offset_of!(Control, turn))
            .store(turn.word(), Release);
    }

    /// Forgets which program met test calls.
    pub fn forget_tester(&self) {
        self.word(offset_of!(Control, tested_by)).store(0, Release);
        self.word(offset_of!(Control, test_left)).store(0, Release);
    }

    /// The number of the first program that met one since then.
    pub fn tested_by(&self) -> Option<u32> {
        let number = self.word(offset_of!(Control, tested_by)).load(Acquire);
        u32::try_from(number).ok().filter(|number| *number != 0)
    }

    /// Whether the caller of test calls has left a hooked call since then, where programs hang on exits.
    pub fn tester_has_left(&self) -> bool {
        self.word(offset_of!(Control, test_left)).load(Acquire) != 0
    }

    /// The rules in force, a bit each.
    pub fn armed(&self) -> u64 {
        self.word(offset_of!(Control, armed)).load(Acquire)
    }

    /// Whether threads wait for a rule that is out of force.
    pub fn holds_for_disarmed(&self) -> bool {
        let armed = self.armed();
        (0..self.rules()).any(|rule| {
            let waiting = offset_of!(RuleCell, waiting);
            armed >> rule & 1 == 0 && self.cell(rule).word(waiting).load(Acquire) != 0
        })
    }

    /// Puts rules in force that are not, while the session goes on: of those, counts start at 1 from here.
    /// Which those are.
    pub fn arm_rules(&self, rules: u64, now_ns: u64) -> u64 {
        let arming = self.word(offset_of!(Control, arming));
        let claimed = rules & !arming.fetch_or(rules, AcqRel);
        let fresh = claimed & !self.armed();
        for rule in (0..MAX_RULES).filter(|rule| fresh >> rule & 1 != 0) {
            let cell = self.cell(rule);
            for counter in [
                offset_of!(RuleCell, chain),
                offset_of!(RuleCell, scopes),
                offset_of!(RuleCell, hits),
            ] {
                cell.word(counter).store(0, Relaxed);
            }
            // The calls of before are not forgotten.
            let count = cell.word(offset_of!(RuleCell, count)).swap(0, Relaxed);
            cell.word(offset_of!(RuleCell, matched))
                .fetch_add(count, Relaxed);
            cell.word(offset_of!(RuleCell, armed_ns))
                .store(now_ns, Relaxed);
        }
        self.word(offset_of!(Control, armed))
            .fetch_or(fresh, Release);
        arming.fetch_and(!claimed, Release);
        if self.state() == RunState::Off {
            // It was ended meanwhile, for good.
            self.disarm_rules(u64::MAX);
            return 0;
        }
        // Those that somebody else is putting in force are in force too when this returns.
        while arming.load(Acquire) & rules != 0 {
            std::hint::spin_loop();
        }
        fresh
    }

    /// Takes rules out of force. Which were in force.
    pub fn disarm_rules(&self, rules: u64) -> u64 {
        self.word(offset_of!(Control, armed))
            .fetch_and(!rules, AcqRel)
            & rules
    }

    /// Ends all faults, at once and for good.
    pub fn switch_off(&self) {
        self.half(offset_of!(Control, state))
            .store(RunState::Off as u32, Release);
        self.disarm_rules(u64::MAX);
    }

    /// Whether the rules are in force, or ended.
    pub fn state(&self) -> RunState {
        match self.half(offset_of!(Control, state)).load(Acquire) {
            0 => RunState::Idle,
            1 => RunState::Armed,
            _ => RunState::Off,
        }
    }

    /// The lease was found lapsed: ends all faults and says so.
    pub fn lapse(&self) {
        self.half(offset_of!(Control, lapsed)).store(1, Release);
        self.switch_off();
    }

    /// Until when the program may inject, `CLOCK_MONOTONIC` nanoseconds.
    pub fn lease(&self) -> u64 {
        self.word(offset_of!(Control, lease_ns)).load(Relaxed)
    }

    /// Extends the lease.
    pub fn renew(&self, until_ns: u64) {
        self.word(offset_of!(Control, lease_ns))
            .store(until_ns, Relaxed);
    }

    fn of_release(&self, offset: usize) -> &AtomicU64 {
        self.word(offset_of!(Shared, release) + offset)
    }

    /// Asks whoever holds threads to let some go that wait for these rules, a bit each: at most so many, those
    /// first that have waited longest. The number of the request; [`None`] while another one is not answered.
    pub fn ask_release(&self, rules: u64, most: u64, with: Released, value: i64) -> Option<u64> {
        if self.release_asked().is_some() {
            return None;
        }
        for (field, word) in [
            (offset_of!(ReleaseCell, rules), rules),
            (offset_of!(ReleaseCell, most), most),
            (offset_of!(ReleaseCell, with), with as u64),
            (offset_of!(ReleaseCell, value), value.cast_unsigned()),
        ] {
            self.of_release(field).store(word, Relaxed);
        }
        let asked = self.of_release(offset_of!(ReleaseCell, asked));
        Some(asked.fetch_add(1, Release) + 1)
    }

    /// How many threads a request let go; [`None`] until it is answered.
    pub fn released(&self, request: u64) -> Option<u64> {
        let done = self.of_release(offset_of!(ReleaseCell, done));
        let is_done = done.load(Acquire) >= request;
        is_done.then(|| {
            self.of_release(offset_of!(ReleaseCell, number))
                .load(Relaxed)
        })
    }

    /// The request that is not answered yet.
    pub fn release_asked(&self) -> Option<ReleaseAsked> {
        let read = |field| self.of_release(field).load(Relaxed);
        let asked = self
            .of_release(offset_of!(ReleaseCell, asked))
            .load(Acquire);
        if asked == read(offset_of!(ReleaseCell, done)) {
            return None;
        }
        Some(ReleaseAsked {
            request: asked,
            rules: read(offset_of!(ReleaseCell, rules)),
            most: usize::try_from(read(offset_of!(ReleaseCell, most))).unwrap_or(usize::MAX),
            with: Released::from_wire(read(offset_of!(ReleaseCell, with))),
            value: read(offset_of!(ReleaseCell, value)).cast_signed(),
        })
    }

    /// Answers it.
    pub fn answer_release(&self, request: u64, number: usize) {
        self.of_release(offset_of!(ReleaseCell, number))
            .store(number as u64, Relaxed);
        self.of_release(offset_of!(ReleaseCell, done))
            .store(request, Release);
    }

    /// Whether the program found the lease lapsed.
    pub fn has_lapsed(&self) -> bool {
        self.half(offset_of!(Control, lapsed)).load(Acquire) != 0
    }

    /// A new target's ordinal.
    pub fn next_target(&self) -> u64 {
        self.word(offset_of!(Control, targets_seen))
            .fetch_add(1, Relaxed)
    }

    /// Counts a target that ended.
    pub fn add_exited(&self) {
        self.word(offset_of!(Control, targets_exited))
            .fetch_add(1, Relaxed);
    }

    /// Counts a record of a target that found no room.
    pub fn add_note_dropped(&self) {
        self.word(offset_of!(Control, notes_dropped))
            .fetch_add(1, Relaxed);
    }

    /// The counters of so many rules. What the kernel left out is not known here.
    pub fn report(&self, rules: usize) -> Report {
        let read = |offset| self.word(offset).load(Relaxed);
        Report {
            rules: (0..rules).map(|rule| self.rule_report(rule)).collect(),
            targets_seen: read(offset_of!(Control, targets_seen)),
            targets_exited: read(offset_of!(Control, targets_exited)),
            targets_lost: read(offset_of!(Control, targets_lost)),
            notes_dropped: read(offset_of!(Control, notes_dropped)),
            misses: None,
            lapsed: self.has_lapsed(),
        }
    }

    fn rule_report(&self, rule: usize) -> RuleReport {
        let cell = self.cell(rule);
        let read = |offset| cell.word(offset).load(Relaxed);
        // A rule uses one of the two, by its scope.
        let matched = read(offset_of!(RuleCell, count)) + read(offset_of!(RuleCell, matched));
        let time = |offset| Some(read(offset)).filter(|at| *at != 0);
        RuleReport {
            matched,
            fired: read(offset_of!(RuleCell, fired)),
            dropped: read(offset_of!(RuleCell, dropped)),
            shadowed: read(offset_of!(RuleCell, shadowed)),
            lost: read(offset_of!(RuleCell, lost)),
            moot: read(offset_of!(RuleCell, moot)),
            dataless: read(offset_of!(RuleCell, dataless)),
            contended: read(offset_of!(RuleCell, contended)),
            scopes_full: read(offset_of!(RuleCell, scopes_full)),
            unseen: read(offset_of!(RuleCell, unseen)),
            excluded: read(offset_of!(RuleCell, excluded)),
            first_ns: time(offset_of!(RuleCell, first_ns)),
            last_ns: time(offset_of!(RuleCell, last_ns)),
            waiting: read(offset_of!(RuleCell, waiting)),
            hits: read(offset_of!(RuleCell, hits)),
            is_armed: self.armed() >> rule & 1 != 0,
            was_armed: cell.armed_ns() != 0,
        }
    }

    fn target(&self, pid: u32) -> &AtomicU64 {
        let index = (pid % PID_LIMIT) as usize / 64;
        self.word(offset_of!(Shared, targets) + 8 * index)
    }

    /// Makes a process a target.
    pub fn set_target(&self, pid: u32) {
        self.target(pid).fetch_or(1 << (pid % 64), Release);
    }

    /// Lets a process go.
    pub fn clear_target(&self, pid: u32) {
        self.target(pid).fetch_and(!(1 << (pid % 64)), Release);
    }

    /// A process becomes a target when it next executes a program.
    pub fn set_launched(&self, pid: u32) {
        self.word(offset_of!(Control, launched))
            .store(pid.into(), Release);
    }

    /// Whether such a process has not executed one yet.
    pub fn awaits_exec(&self) -> bool {
        self.word(offset_of!(Control, launched)).load(Acquire) != 0
    }

    /// Whether a process is a target.
    pub fn is_target(&self, pid: u32) -> bool {
        self.target(pid).load(Acquire) >> (pid % 64) & 1 != 0
    }

    /// Writes a rule: its wire form, which rules its firing puts in force and out of it, and the calls that it
    /// names. It is not in force, and there was none of this index before.
    pub fn write_rule(
        &self,
        index: usize,
        (wire, globs): (&WireRule, &[WireGlob]),
        arming: Arming,
        calls: &[CallSlot],
    ) {
        let index = index.min(MAX_RULES - 1);
        let offset = offset_of!(Shared, rules) + index * size_of::<WireRule>();
        self.mapping.write(offset, wire);
        for (test, glob) in globs.iter().enumerate().take(MAX_PATH_TESTS) {
            self.mapping.write(glob_of(index, test), glob);
        }
        let cell = self.cell(index);
        cell.word(offset_of!(RuleCell, arms))
            .store(arming.arms, Relaxed);
        cell.word(offset_of!(RuleCell, disarms))
            .store(arming.disarms, Relaxed);
        for call in calls {
            if wire.looks_at_args() {
                let offset = offset_of!(Shared, kinds) + call.index() * size_of::<ArgKinds>();
                self.mapping.write(offset, &kinds_of((*call).into()));
            }
        }
        self.name_calls(index, calls);
        self.word(offset_of!(Control, rules))
            .fetch_max(index as u64 + 1, Release);
    }

    /// A rule names calls.
    pub fn name_calls(&self, rule: usize, calls: &[CallSlot]) {
        for call in calls {
            self.naming(*call).fetch_or(1 << (rule % 64), Release);
        }
    }

    /// A rule that is out of force names no calls any more.
    pub fn forget_calls(&self, rule: usize) {
        for call in 0..(ABIS * MAX_NR) as usize {
            self.word(offset_of!(Shared, calls) + 8 * call)
                .fetch_and(!(1 << (rule % 64)), Release);
        }
    }

    fn naming(&self, call: CallSlot) -> &AtomicU64 {
        self.word(offset_of!(Shared, calls) + 8 * call.index())
    }

    /// The rules that name a call, a bit each.
    pub fn rules_of(&self, call: CallSlot) -> u64 {
        self.naming(call).load(Acquire)
    }

    /// How a call's arguments are read, where a rule looks at them.
    pub fn kinds(&self, call: CallSlot) -> ArgKinds {
        let offset = offset_of!(Shared, kinds) + call.index() * size_of::<ArgKinds>();
        self.mapping.read(offset)
    }

    /// A rule that was written.
    pub fn rule(&self, index: usize) -> WireRule {
        let index = index.min(MAX_RULES - 1);
        let offset = offset_of!(Shared, rules) + index * size_of::<WireRule>();
        self.mapping.read(offset)
    }

    /// The pattern of one of a rule's tests of files.
    pub fn glob(&self, rule: usize, test: usize) -> WireGlob {
        let (rule, test) = (rule.min(MAX_RULES - 1), test.min(MAX_PATH_TESTS - 1));
        self.mapping.read(glob_of(rule, test))
    }

    /// Which rules a rule's firing puts in force, and which out of it, a bit each.
    pub fn arming_by(&self, rule: usize) -> (u64, u64) {
        let cell = self.cell(rule);
        let read = |offset| cell.word(offset).load(Relaxed);
        (
            read(offset_of!(RuleCell, arms)),
            read(offset_of!(RuleCell, disarms)),
        )
    }
}

impl Leased for Memory {
    fn lease(&self) -> u64 {
        Self::lease(self)
    }

    fn renew(&self, until_ns: u64) {
        Self::renew(self, until_ns);
    }

    fn switch_off(&self) {
        Self::switch_off(self);
    }
}
