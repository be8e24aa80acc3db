//! The shared memory of `injector_common::shared` from finject's side: each field by its name, each
//! an atomic.

use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use injector_common::limits::{MAX_NR, MAX_RULES, PID_LIMIT};
use injector_common::{Control, RuleCell, RunState, Shared, WireRule};

use super::engine::CallSlot;
use crate::backend::{Report, RuleReport};
use crate::sys::SysError;
use crate::sys::mapping::Mapping;

/// Control and counters.
#[derive(Debug)]
pub struct Memory {
    mapping: Mapping,
}

impl Memory {
    /// Maps the memory of the program's map.
    pub fn map(fd: BorrowedFd<'_>) -> Result<Self, SysError> {
        Ok(Self {
            mapping: Mapping::new(fd, size_of::<Shared>())?,
        })
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

    /// Ends all faults, at once and for good.
    pub fn switch_off(&self) {
        self.half(offset_of!(Control, state))
            .store(RunState::Off as u32, Release);
    }

    /// Whether the rules are in force.
    pub fn is_armed(&self) -> bool {
        self.half(offset_of!(Control, state)).load(Acquire) == RunState::Armed as u32
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
        let base = offset_of!(Shared, cells) + rule.min(MAX_RULES - 1) * size_of::<RuleCell>();
        let read = |offset| self.word(base + offset).load(Relaxed);
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

    /// Adds a rule to those of a call. Before anything is attached.
    pub fn name_call(&mut self, call: CallSlot, rule: usize) {
        let index = usize::from(call.nr).min(MAX_NR as usize - 1)
            + if call.compat { MAX_NR as usize } else { 0 };
        self.word(offset_of!(Shared, calls) + 8 * index)
            .fetch_or(1 << (rule % 64), Release);
    }
}
