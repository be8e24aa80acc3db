//! Test calls: proof that faults arrive on the very functions that were hooked, and later that they
//! no longer do.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use injector_common::shared::CANARY_ERRNO;

use crate::backend::memory::{CallSlot, Memory};
use crate::backend::{BackendError, Lost};
use crate::sys::canary::{Answer, Canary};
use crate::sys::time::monotonic_ns;
use crate::syscall::{self, CallId};

/// Calls that must not be tried: if the fault did not arrive, they would make a second process,
/// block, or touch what the whole machine shares.
const NEVER_TRIED: [&str; 13] = [
    "msgget",
    "fork",
    "vfork",
    "clone",
    "clone3",
    "pause",
    "rt_sigsuspend",
    "sigsuspend",
    "sigreturn",
    "vhangup",
    "sync",
    "reboot",
    "kexec_load",
];

/// Calls that end or break who makes them where they run, or take something that there is little of.
const NEVER_RUN: [&str; 8] = [
    "exit",
    "exit_group",
    "rt_sigreturn",
    "restart_syscall",
    "uretprobe",
    "uprobe",
    "inotify_init",
    "eventfd",
];

/// How a test call shows that programs hang on its function.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    /// It is failed.
    Fails,
    /// It runs, since this kernel lets no call be overridden, and the programs at the function's entry and at its exit say
    /// in this memory that they have met it.
    Met(Arc<Memory>),
}

/// A run is left out while another program of the same processor works on a map, so that one call
/// proves nothing either way; nor do many in a row, since that other program may have lost the
/// processor to the test calls in the middle of its work. They come at growing distances, over some
/// 0.2 s.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_micros(100);

/// Calls that one look tries again.
const WATCHED_AT_ONCE: usize = 32;

/// Makes test calls.
#[derive(Debug)]
pub(super) struct Tester {
    canary: Canary,
    proof: Proof,
    calls: Vec<CallId>,
    next: usize,
    /// When the round of looks began that is not yet over, and the one before it, which showed that
    /// every fault arrives: `CLOCK_MONOTONIC` nanoseconds.
    round_ns: u64,
    proven_ns: u64,
}

fn saw(answer: Answer) -> String {
    match answer {
        Answer::Faulted => format!("it failed with {CANARY_ERRNO}, as asked"),
        Answer::Ran(result) => format!("it ran, and returned {result}"),
        Answer::Blocked => "it did not return".into(),
    }
}

impl Tester {
    pub(super) fn new(canary: Canary) -> Self {
        Self {
            canary,
            proof: Proof::Fails,
            calls: Vec::new(),
            next: 0,
            round_ns: 0,
            proven_ns: 0,
        }
    }

    /// The calling process.
    pub(super) fn pid(&self) -> u32 {
        self.canary.pid()
    }

    /// What test calls show from now on. Before the first.
    pub(super) fn prove_by(&mut self, proof: Proof) {
        self.proof = proof;
    }

    fn is_tried(&self, call: CallId) -> bool {
        let runs = matches!(self.proof, Proof::Met(_));
        let is_good = |name| !(NEVER_TRIED.contains(&name) || runs && NEVER_RUN.contains(&name));
        syscall::by_id(call).is_some_and(|known| is_good(known.name()))
    }

    fn not_met(&self, call: CallId, answer: Answer) -> BackendError {
        let (call, saw) = (call.to_string(), saw(answer));
        match self.proof {
            Proof::Fails => BackendError::NoFault { call, saw },
            Proof::Met(_) => BackendError::NotSeen { call, saw },
        }
    }

    /// Makes a test call; whether programs hang on its function, and what it met.
    fn try_once(&mut self, slot: CallSlot) -> (bool, Answer) {
        if let Proof::Met(memory) = &self.proof {
            memory.forget_tester();
        }
        let answer = self.canary.call(slot.compat, slot.nr);
        let is_met = match &self.proof {
            Proof::Fails => answer == Answer::Faulted,
            Proof::Met(memory) => memory.tested_by().is_some() && memory.tester_has_left(),
        };
        (is_met, answer)
    }

    /// The same until it is so, or is not.
    fn try_call(&mut self, call: CallId, want: bool) -> (bool, Answer) {
        let mut seen = (false, Answer::Blocked);
        for tried in 0..TRIES {
            std::thread::sleep(PAUSE * tried);
            seen = self.try_once(CallSlot::from(call));
            if seen.0 == want || seen.1 == Answer::Blocked {
                break;
            }
        }
        seen
    }

    /// Tries every call once; how many were tried, and which could not be.
    pub(super) fn prove(
        &mut self,
        calls: impl Iterator<Item = CallId>,
    ) -> Result<(usize, Vec<CallId>), BackendError> {
        let (tried, untried): (Vec<_>, Vec<_>) = calls.partition(|call| self.is_tried(*call));
        for call in &tried {
            if let (false, answer) = self.try_call(*call, true) {
                return Err(self.not_met(*call, answer));
            }
        }
        let number = tried.len();
        let known: BTreeSet<CallId> = self.calls.iter().copied().collect();
        let fresh = tried.into_iter().filter(|call| !known.contains(call));
        self.calls.extend(fresh);
        // Those that were proven before are looked at anew.
        self.next = 0;
        if known.is_empty() {
            self.proven_ns = monotonic_ns();
        }
        Ok((number, untried))
    }

    /// Tries one of the proven calls: the fault must arrive.
    pub(super) fn try_again(&mut self) -> Result<(), BackendError> {
        let Some(call) = self.calls.first().copied() else {
            return Err(BackendError::NoOrder);
        };
        match self.try_call(call, true) {
            (true, _) => Ok(()),
            (false, answer) => Err(self.not_met(call, answer)),
        }
    }

    /// Calls that are not `named` any more are proven no longer; one of those that are not hooked either must run.
    pub(super) fn forget(
        &mut self,
        named: impl Fn(&CallId) -> bool,
        unhooked: &[CallId],
    ) -> Result<(), BackendError> {
        let (kept, gone): (Vec<_>, Vec<_>) = self.calls.iter().partition(|call| named(call));
        self.calls = kept;
        self.next = 0;
        match gone.into_iter().find(|call| unhooked.contains(call)) {
            Some(call) => self.prove_runs(call),
            None => Ok(()),
        }
    }

    /// Tries the next of the proven calls again; the first whose fault no longer arrives. What came
    /// between can only be another agent.
    pub(super) fn watch(&mut self) -> Option<Lost> {
        for _ in 0..self.calls.len().min(WATCHED_AT_ONCE) {
            if self.next == 0 {
                self.round_ns = monotonic_ns();
            }
            let call = self.calls[self.next];
            if let (false, answer) = self.try_call(call, true) {
                return Some(Lost {
                    why: format!(
                        "faults no longer arrive on {call}: {}; another agent has come onto its function",
                        self.not_met(call, answer)
                    ),
                    since_ns: self.proven_ns,
                });
            }
            self.next += 1;
            if self.next == self.calls.len() {
                self.next = 0;
                self.proven_ns = self.round_ns;
            }
        }
        None
    }

    /// Tries one of the proven calls: it must run.
    pub(super) fn prove_healed(&mut self) -> Result<(), BackendError> {
        match self.calls.first().copied() {
            Some(call) => self.prove_runs(call),
            None => Ok(()),
        }
    }

    fn prove_runs(&mut self, call: CallId) -> Result<(), BackendError> {
        match self.try_call(call, false) {
            (true, _) => Err(BackendError::NotHealed(call.to_string())),
            (false, _) => Ok(()),
        }
    }
}
