//! Whose calls are meant: `--pid` and `-- COMMAND`.

use std::ffi::OsString;

use super::complain;
use super::exit::Exit;
use super::rules::Complained;
use crate::plan::Targets;
use crate::target::launch::Launch;
use crate::target::process::{Proc, Process, Tgid};
use crate::target::select;

/// Where a program begins.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ArmAt {
    /// At its own entry point: the calls of the dynamic loader neither count nor fail.
    #[default]
    Entry,
    /// With its exec.
    Exec,
}

/// The options that name targets.
#[derive(clap::Args, Debug)]
#[group(skip)]
pub struct Targeting {
    /// A running process: all its threads, and its descendants; may be repeated
    #[arg(long = "pid", short = 'p', value_name = "PID")]
    pids: Vec<u32>,

    /// A command to launch, and its arguments
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "pids")]
    command: Vec<OsString>,

    /// From where on the calls of a launched or exec'd program count
    #[arg(long, value_name = "WHERE", value_enum, default_value_t)]
    arm_at: ArmAt,

    /// Leave the descendants of targets alone
    #[arg(long)]
    no_follow: bool,

    /// Take processes that others depend on for targets all the same (sshd, systemd ...)
    #[arg(long)]
    force: bool,
}

/// A command line without a plan; everything has been said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlan {
    /// What was written cannot be meant.
    Usage,
    /// The command cannot be launched: the status that shells end with.
    Command(u8),
}

impl From<Complained> for NoPlan {
    fn from(_: Complained) -> Self {
        Self::Usage
    }
}

impl From<NoPlan> for Exit {
    fn from(none: NoPlan) -> Self {
        match none {
            NoPlan::Usage => Self::Usage,
            NoPlan::Command(status) => Self::Mirrored(status),
        }
    }
}

impl Targeting {
    /// Whether descendants are targets.
    pub fn follow(&self) -> bool {
        !self.no_follow
    }

    /// Whether the dynamic loader's calls count.
    pub fn from_exec(&self) -> bool {
        self.arm_at == ArmAt::Exec
    }

    /// The targets. What is wrong is printed, all of it.
    pub fn find(&self) -> Result<Targets, NoPlan> {
        if !self.command.is_empty() {
            let search = std::env::var_os("PATH");
            return Launch::find(&self.command, search.as_deref())
                .map(Targets::Launched)
                .map_err(|error| {
                    complain(&error.to_string(), &[error.help()]);
                    NoPlan::Command(error.status())
                });
        }
        if self.pids.is_empty() {
            complain(
                "no target",
                &["--pid PID names a running process, and -- COMMAND launches one".to_owned()],
            );
            return Err(NoPlan::Usage);
        }
        let own = Tgid(std::process::id());
        let mut targets: Vec<Process> = Vec::new();
        let mut wrong = false;
        for pid in &self.pids {
            match select::check(&Proc::default(), Tgid(*pid), own, self.force) {
                Ok(process) if targets.iter().any(|known| known.tgid == process.tgid) => {}
                Ok(process) => targets.push(process),
                Err(error) => {
                    complain(&error.to_string(), &[error.help()]);
                    wrong = true;
                }
            }
        }
        if wrong {
            Err(NoPlan::Usage)
        } else {
            Ok(Targets::Running(targets))
        }
    }
}
