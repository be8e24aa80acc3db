//! Threads held for another backend, which decides: its targets are attached to without being stopped, and stop only
//! where that backend stops them.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::keeper::{Care, Kept};
use super::pulse::Pulse;
use super::tracer::{Mode, Work};
use super::{SETTLING, Started, Whose, await_tracer, settled, start};
use crate::backend::decider::Decider;
use crate::backend::memory::Memory;
use crate::backend::recorder::Recorder;
use crate::backend::ring::{Receiver, ring};
use crate::backend::spec::Spec;
use crate::backend::{BackendError, Lost};
use crate::plan::Plan;
use crate::sys::time::monotonic_ns;
use crate::target::process::Tgid;

/// The tracer that acts.
#[derive(Debug)]
pub(in crate::backend) struct Actor {
    kept: Kept,
    /// In the keeper's place.
    care: Care,
    pulse: Arc<Pulse>,
    events: Receiver,
    /// Its other end tells the tracer when finject is gone, or wants all threads let go.
    alive: Option<OwnedFd>,
}

impl Actor {
    /// Attaches to all threads of processes, and of their descendants where the plan has those as targets.
    pub(in crate::backend) fn start(
        memory: &Arc<Memory>,
        spec: &Spec,
        plan: &Plan,
        targets: Vec<Tgid>,
    ) -> Result<Self, BackendError> {
        let (sender, events) = ring()?;
        let decider = Decider::new(Arc::clone(memory), spec);
        let work = Work::Act(Box::new(Recorder::new(decider, sender)));
        let whose = Whose {
            follow: plan.follow,
            from_exec: plan.from_exec,
        };
        let Started { kept, pulse, alive } = start(work, memory, Mode::Attach(targets), whose)?;
        await_tracer(&kept.tracer, &pulse)?;
        Ok(Self {
            care: Care::of(&pulse),
            kept,
            pulse,
            events,
            alive: Some(alive),
        })
    }

    /// The records of what was carried out.
    pub(in crate::backend) fn events(&self) -> &Receiver {
        &self.events
    }

    /// Has it look who is to go on.
    pub(in crate::backend) fn wake(&self) {
        self.kept.wake();
    }

    /// Becomes readable when it ends.
    pub(in crate::backend) fn handle(&self) -> BorrowedFd<'_> {
        self.kept.tracer.handle()
    }

    /// Whether it still acts. Without it threads go on, and nobody is held any more.
    pub(in crate::backend) fn watch(&mut self) -> Option<Lost> {
        self.kept.look(&mut self.care, &self.pulse);
        // It ends by itself with the last thread that it has.
        let has_died = self.kept.tracer.has_ended() && !self.pulse.has_finished();
        has_died.then(|| Lost {
            why: "finject's own process that holds threads has died or hung; the targets run on without faults".into(),
            since_ns: monotonic_ns(),
        })
    }

    /// Lets all threads go, once the faults are over.
    pub(in crate::backend) fn finish(&mut self) {
        settled(&self.kept, &self.pulse, SETTLING);
        self.alive = None;
        self.kept.see_off(&self.pulse);
    }
}
