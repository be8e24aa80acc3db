//! A backend without a kernel: whoever holds its [`World`] makes the calls, and is told what becomes of
//! each. For tests of all that is above backends; it decides as every other one does, and is taken by
//! name only, in code.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};

use injector_common::{CallerFacts, Data, Event};

use super::decider::{Asked, Caller, Decider};
use super::files::{Files, NoFiles};
use super::firing::{Done, Fate};
use super::memory::{CallSlot, Memory};
use super::ring::{Receiver, Sender, ring};
use super::sockets::{NoSockets, Sockets};
use super::spec::Spec;
use super::{Backend, BackendError, HookReport, Lost, Report, recorder};
use crate::plan::Plan;
use crate::syscall::CallId;

/// The backend's name.
pub const NAME: &str = "mock";

/// What a mock has not: a test that is about it needs another backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// Whoever makes a call is told at once what becomes of it.
    #[error("no call of the mock backend's takes time")]
    Sleep,
    /// Programs are not executed, so that none has a dynamic loader.
    #[error("no target of the mock backend's has a dynamic loader")]
    Loader,
    /// All calls come from targets.
    #[error("nobody but targets calls the mock backend")]
    Others,
    /// All are called the same.
    #[error("all callers of the mock backend have one name, and one user")]
    Callers,
    /// Calls have no sockets.
    #[error("no call of the mock backend's is about sockets")]
    Sockets,
    /// Calls have no files.
    #[error("no call of the mock backend's is about files")]
    Files,
    /// Calls have no data.
    #[error("no call of the mock backend's moves data")]
    Data,
    /// Calls have no results of their own.
    #[error("no call of the mock backend's runs, and so none fails by itself")]
    Results,
}

/// All that there is to a caller of the mock's.
impl Asked for Caller {
    fn caller(&self) -> Option<Caller> {
        Some(*self)
    }

    fn caller_facts(&self) -> Option<CallerFacts> {
        let name = CallerFacts::name_of(&COMM);
        Some(CallerFacts::of(name, name, CallerFacts::uid(0)))
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
    events: Sender,
}

impl World {
    /// A target starts. The session ends when as many have ended as have started.
    pub fn start(&self) {
        self.0.memory.next_target();
    }

    /// A target ends.
    pub fn end(&self) {
        self.0.memory.add_exited();
        self.0.events.wake();
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
        let decided = decider.decide(slot, &args, &caller);
        made.fate = decided.fate;
        for firing in &decided.firings {
            made.signals.extend(firing.signal());
            made.signals.extend(firing.after_signal());
            let facts = Event {
                comm: COMM,
                ..recorder::Recorder::call(caller.tgid, caller.tid, slot, args)
            };
            if let Some(event) = decider.settle(firing, &Done::all_of(firing), &facts)
                && !self.0.events.send(&event)
            {
                decider.dropped(&event);
            }
        }
        made
    }
}

/// The name of every process and thread, whose user is root.
const COMM: [u8; 16] = *b"mock\0\0\0\0\0\0\0\0\0\0\0\0";

/// The backend.
#[derive(Debug)]
pub struct Mock {
    world: World,
    spec: Option<Spec>,
    events: Receiver,
}

impl Mock {
    /// One with a world in which nothing has happened.
    pub fn new() -> Result<Self, BackendError> {
        let (sender, events) = ring()?;
        Ok(Self {
            world: World(Arc::new(State {
                memory: Arc::new(Memory::anonymous()?),
                decider: OnceLock::new(),
                events: sender,
            })),
            spec: None,
            events,
        })
    }

    /// Its world.
    pub fn world(&self) -> World {
        self.world.clone()
    }

    fn own_memory(&self) -> &Arc<Memory> {
        &self.world.0.memory
    }
}

impl Backend for Mock {
    fn load(&mut self, plan: &Plan) -> Result<(), BackendError> {
        let spec = self.spec.insert(Spec::of(plan)?);
        spec.write(&self.world.0.memory);
        let decider = Decider::new(Arc::clone(&self.world.0.memory), spec);
        let _ = self.world.0.decider.set(decider);
        Ok(())
    }

    fn attach(&mut self, _plan: &Plan) -> Result<HookReport, BackendError> {
        let spec = self.spec.as_ref().ok_or(BackendError::NotLoaded)?;
        Ok(HookReport {
            backend: NAME,
            functions: spec.named(),
            mechanism: "mock".into(),
            targets: self.own_memory().report(0).targets_seen,
            ..HookReport::default()
        })
    }

    fn join(&mut self, plan: &Plan, rule: usize) -> Result<Vec<String>, BackendError> {
        let spec = self.spec.as_mut().ok_or(BackendError::NotLoaded)?;
        spec.join(plan, rule, &self.world.0.memory)?;
        Ok(Vec::new())
    }

    fn memory(&self) -> Option<&Arc<Memory>> {
        Some(&self.world.0.memory)
    }

    fn event_fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.events.fd()]
    }

    fn watch(&mut self) -> Option<Lost> {
        None
    }

    fn poll(&mut self) -> Option<Event> {
        self.events.next()
    }

    fn heal(&mut self) -> Result<(), BackendError> {
        self.own_memory().switch_off();
        Ok(())
    }

    fn report(&self) -> Report {
        recorder::report(self.own_memory(), self.spec.as_ref())
    }
}
