//! Counting the calls of targets, without any rule: what `finject count` shows.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::census::{self, Census, Counted};
use super::keeper::Kept;
use super::pulse::Pulse;
use super::tracer::{Mode, Work};
use super::{Started, Whose, await_tracer, start};
use crate::backend::BackendError;
use crate::backend::launching::image;
use crate::backend::memory::Memory;
use crate::plan::Targets;
use crate::sys::helper::pipe;
use crate::sys::launch::Command;
use crate::sys::process::is_privileged;

/// Targets whose calls are counted.
#[derive(Debug)]
pub struct Count {
    command: Option<Command>,
    kept: Kept,
    pulse: Arc<Pulse>,
    numbers: File,
    alive: Option<OwnedFd>,
}

impl Count {
    /// Attaches to the targets, or launches the command. Before any thread is started.
    pub fn start(targets: &Targets, follow: bool, from_exec: bool) -> Result<Self, BackendError> {
        let (command, mode) = match targets {
            Targets::Running(targets) => {
                let targets = targets.iter().map(|target| target.tgid).collect();
                (None, Mode::Attach(targets))
            }
            Targets::Launched(launch) => {
                let (command, latch) =
                    Command::start_traced(&image(launch), None, is_privileged())?;
                let mode = Mode::Launch {
                    pid: command.pid(),
                    latch,
                    is_filtered: false,
                };
                (Some(command), mode)
            }
        };
        let (numbers, numbers_end) = pipe()?;
        let work = Work::Count(Census::new(numbers_end.into()));
        let memory = Arc::new(Memory::anonymous()?);
        let whose = Whose { follow, from_exec };
        let Started { kept, pulse, alive } = start(work, &memory, mode, whose)?;
        await_tracer(&kept.tracer, &pulse)?;
        Ok(Self {
            command,
            kept,
            pulse,
            numbers: numbers.into(),
            alive: Some(alive),
        })
    }

    /// Becomes readable when there is no target left.
    pub fn ended_fd(&self) -> BorrowedFd<'_> {
        self.numbers.as_fd()
    }

    /// The command that was launched.
    pub fn command(&mut self) -> Option<&mut Command> {
        self.command.as_mut()
    }

    /// Lets all targets go on; what was counted.
    pub fn finish(mut self) -> (Vec<Counted>, Option<Command>) {
        self.alive = None;
        let counted = census::read(&self.numbers);
        self.kept.see_off(&self.pulse);
        (counted, self.command.take())
    }
}
