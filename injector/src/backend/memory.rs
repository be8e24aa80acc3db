//! The shared memory of `injector_common::shared` from finject's side: each field by its name, each
//! an atomic. The other side is the kernel program, or a process of finject's that decides.

use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use injector_common::limits::{LEASE_NS, MAX_NR, MAX_RULES, PID_LIMIT};
use injector_common::{ArgKinds, Control, Counter, RuleCell, RunState, Shared, WireRule};

use super::{Leased, Report, RuleReport};
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

impl From<CallSlot> for CallId {
    fn from(call: CallSlot) -> Self {
        Self {
            abi: if call.compat { Abi::I386 } else { Abi::X86_64 },
            nr: Sysno(call.nr),
        }
    }
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

    /// Puts the rules in force: counts start at 1 from here.
    pub fn arm(&self, now_ns: u64, lease_until_ns: u64) {
        self.word(offset_of!(Control, armed_ns))
            .store(now_ns, Relaxed);
        self.word(offset_of!(Control, lease_ns))
            .store(lease_until_ns, Relaxed);
        self.half(offset_of!(Control, state))
            .store(RunState::Armed as u32, Release);
    }

    /// Puts the rules in force now, for one lease; when that is, `CLOCK_MONOTONIC` nanoseconds.
    pub fn arm_now(&self) -> u64 {
        let now = monotonic_ns();
        self.arm(now, now + LEASE_NS);
        now
    }

    /// Ends all faults, at once and for good.
    pub fn switch_off(&self) {
        self.half(offset_of!(Control, state))
            .store(RunState::Off as u32, Release);
    }

    /// Whether the rules are in force, or ended.
    pub fn state(&self) -> RunState {
        match self.half(offset_of!(Control, state)).load(Acquire) {
            0 => RunState::Idle,
            1 => RunState::Armed,
            _ => RunState::Off,
        }
    }

    /// When the rules were armed, `CLOCK_MONOTONIC` nanoseconds.
    pub fn armed_ns(&self) -> u64 {
        self.word(offset_of!(Control, armed_ns)).load(Relaxed)
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
            contended: read(offset_of!(RuleCell, contended)),
            scopes_full: read(offset_of!(RuleCell, scopes_full)),
            excluded: read(offset_of!(RuleCell, excluded)),
            first_ns: time(offset_of!(RuleCell, first_ns)),
            last_ns: time(offset_of!(RuleCell, last_ns)),
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

    /// Writes a rule. Before anything is attached.
    pub fn write_rule(&mut self, index: usize, rule: &WireRule) {
        let index = index.min(MAX_RULES - 1);
        let offset = offset_of!(Shared, rules) + index * size_of::<WireRule>();
        self.mapping.write(offset, rule);
    }

    /// Says how a call's arguments are read. Before anything is attached.
    pub fn write_kinds(&mut self, call: CallSlot, kinds: ArgKinds) {
        let offset = offset_of!(Shared, kinds) + call.index() * size_of::<ArgKinds>();
        self.mapping.write(offset, &kinds);
    }

    /// Adds a rule to those of a call. Before anything is attached.
    pub fn name_call(&mut self, call: CallSlot, rule: usize) {
        self.word(offset_of!(Shared, calls) + 8 * call.index())
            .fetch_or(1 << (rule % 64), Release);
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
