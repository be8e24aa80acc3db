//! A backend without a kernel: whoever holds its [`World`] makes the calls, and is told what becomes of
//! each. For tests of all that is above backends; it decides as every other one does, and is taken by
//! name only, in code.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use injector_common::Event;

use super::decider::{Caller, Decider, Fate, Spec};
use super::memory::{CallSlot, Memory};
use super::{Backend, BackendError, HookReport, Leased, Lost, Report, recorder};
use crate::plan::Plan;
use crate::sys::helper::pipe_without_waits;
use crate::syscall::CallId;

/// The backend's name.
pub const NAME: &str = "mock";

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Whether it ran, and what its caller gets otherwise.
    pub fate: Fate,
    /// The signals that the calling thread got.
    pub signals: Vec<u32>,
}

/// Where calls are made. Clones are the same world.
#[derive(Clone, Debug)]
pub struct World(Arc<State>);

#[derive(Debug)]
struct State {
    memory: Arc<Memory>,
    decider: OnceLock<Decider>,
    events: Mutex<VecDeque<Event>>,
    /// Written to when there is something to see.
    bell: File,
}

impl World {
    /// A target starts. The session ends when as many have ended as have started.
    pub fn start(&self) {
        self.0.memory.next_target();
    }

    /// A target ends.
    pub fn end(&self) {
        self.0.memory.add_exited();
        self.ring();
    }

    /// A thread makes a call.
    pub fn call(&self, caller: Caller, call: CallId, args: [u64; 6]) -> Made {
        let mut made = Made {
            fate: Fate::Runs,
            signals: Vec::new(),
        };
        let Some(decider) = self.0.decider.get() else {
            return made;
        };
        let slot = CallSlot::from(call);
        let decided = decider.decide(slot, &args, || Some(caller));
        made.fate = decided.fate;
        for firing in &decided.firings {
            made.signals.extend(firing.signal());
            let facts = Event {
                comm: *b"mock\0\0\0\0\0\0\0\0\0\0\0\0",
                ..recorder::Recorder::call(caller.tgid, caller.tid, slot, args)
            };
            if let Some(event) = decider.settle(firing, true, &facts) {
                self.events().push_back(event);
                self.ring();
            }
        }
        made
    }

    /// A bell that is full has been rung.
    fn ring(&self) {
        let _ = (&self.0.bell).write(&[0]);
    }

    fn events(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.0.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The backend.
#[derive(Debug)]
pub struct Mock {
    world: World,
    spec: Option<Spec>,
    bell: File,
}

impl Mock {
    /// One with a world in which nothing has happened.
    pub fn new() -> Result<Self, BackendError> {
        let (bell, end) = pipe_without_waits()?;
        Ok(Self {
            world: World(Arc::new(State {
                memory: Arc::new(Memory::anonymous()?),
                decider: OnceLock::new(),
                events: Mutex::default(),
                bell: end.into(),
            })),
            spec: None,
            bell: bell.into(),
        })
    }

    /// Its world.
    pub fn world(&self) -> World {
        self.world.clone()
    }

    fn memory(&self) -> &Arc<Memory> {
        &self.world.0.memory
    }
}

impl Backend for Mock {
    fn load(&mut self, plan: &Plan) -> Result<(), BackendError> {
        let spec = self.spec.insert(Spec::of(plan)?);
        let decider = Decider::new(Arc::clone(&self.world.0.memory), spec);
        let _ = self.world.0.decider.set(decider);
        Ok(())
    }

    fn attach(&mut self, _plan: &Plan) -> Result<HookReport, BackendError> {
        let spec = self.spec.as_ref().ok_or(BackendError::NotLoaded)?;
        Ok(HookReport {
            backend: NAME,
            functions: spec.rules.iter().map(|(_, calls)| calls.len()).sum(),
            mechanism: "mock".into(),
            targets: self.memory().report(0).targets_seen,
            ..HookReport::default()
        })
    }

    fn activate(&mut self) -> Result<u64, BackendError> {
        Ok(self.memory().arm_now())
    }

    fn leased(&self) -> Option<Arc<dyn Leased>> {
        Some(Arc::clone(self.memory()) as Arc<dyn Leased>)
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.as_fd())
    }

    fn watch(&mut self) -> Option<Lost> {
        None
    }

    fn poll(&mut self) -> Option<Event> {
        // Before the look, so that what comes after it is heard.
        let _ = (&self.bell).read(&mut [0; 64]);
        self.world.events().pop_front()
    }

    fn heal(&mut self) -> Result<(), BackendError> {
        self.memory().switch_off();
        Ok(())
    }

    fn report(&self) -> Report {
        recorder::report(self.memory(), self.spec.as_ref())
    }
}
