//! A session: `finject --pid N --rule R`, or `finject --rule R -- COMMAND`.

use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use super::exit::Exit;
use super::live::Live;
use super::rules::{self, Complained, Rules};
use super::{chain, complain, print_err, print_out};
use crate::backend::choose::{Choice, NotChosen};
use crate::history::Writer;
use crate::plan::{Plan, Targets};
use crate::session::{Session, SessionError};
use crate::sys::launch::Ended;
use crate::sys::process::inherited_fd;
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

/// A backend, as the user names it.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wanted {
    /// The cheapest that can do the whole plan.
    #[default]
    Auto,
    /// Faults decided and injected inside the kernel.
    Ebpf,
    /// seccomp's user notification, for commands that finject launches.
    Notify,
    /// Tracing.
    Ptrace,
}

/// What every use of a plan has in common.
#[expect(
    clippy::struct_excessive_bools,
    reason = "one for each switch of the command line"
)]
#[derive(clap::Args, Debug)]
#[group(skip)]
pub struct Common {
    /// A running process: all its threads, and its descendants; may be repeated
    #[arg(long = "pid", short = 'p', value_name = "PID")]
    pids: Vec<u32>,

    /// A command to launch under the rules, and its arguments
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "pids")]
    command: Vec<OsString>,

    /// From where on the calls of a launched or exec'd program count
    #[arg(long, value_name = "WHERE", value_enum, default_value_t)]
    arm_at: ArmAt,

    #[command(flatten)]
    rules: rules::Options,

    /// Heal after this time, such as 30s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,

    /// What carries the faults out; auto takes the cheapest that can do the whole plan
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    backend: Wanted,

    /// The seed of random choices; a run prints its own
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Leave the descendants of targets alone
    #[arg(long)]
    no_follow: bool,

    /// Count, but let nothing fire
    #[arg(long)]
    dry_run: bool,

    /// Take processes that others depend on for targets all the same (sshd, systemd ...)
    #[arg(long)]
    force: bool,

    /// Answer as JSON on standard output
    #[arg(long)]
    pub json: bool,
}

/// Options of attach mode.
#[derive(clap::Args, Debug)]
#[group(skip)]
pub struct Options {
    #[command(flatten)]
    common: Common,

    /// Write a record of each firing, as JSON lines, to FILE (- for standard output)
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,

    /// Exit with 124 if a rule never fired
    #[arg(long, conflicts_with = "dry_run")]
    must_fire: bool,

    /// Show no firings, only warnings and errors
    #[arg(long, short)]
    quiet: bool,

    /// Write a line to this descriptor once faults are in force
    #[arg(long, value_name = "N")]
    ready_fd: Option<i32>,
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::rule::parse_duration(text)
}

fn random_seed() -> u64 {
    // Keyed from the system's randomness. Kept within what every JSON reader holds exactly.
    RandomState::new().build_hasher().finish() >> 11
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

impl Common {
    /// The backend that the user names.
    pub fn backend(&self) -> Option<Choice> {
        match self.backend {
            Wanted::Auto => None,
            Wanted::Ebpf => Some(Choice::Ebpf),
            Wanted::Notify => Some(Choice::Notify),
            Wanted::Ptrace => Some(Choice::Ptrace),
        }
    }

    /// The plan. What is wrong is printed, all of it.
    pub fn plan(&self) -> Result<Plan, NoPlan> {
        let rules = self.rules.read();
        let targets = self.targets();
        let Rules { rules, arming } = rules?;
        Ok(Plan {
            rules,
            arming,
            targets: targets?,
            seed: self.seed.unwrap_or_else(random_seed),
            follow: !self.no_follow,
            dry_run: self.dry_run,
            duration: self.duration,
        })
    }

    fn targets(&self) -> Result<Targets, NoPlan> {
        if !self.command.is_empty() {
            let search = std::env::var_os("PATH");
            let from_exec = self.arm_at == ArmAt::Exec;
            return Launch::find(&self.command, search.as_deref(), from_exec)
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

/// Tells why a session did not run.
fn explain_failure(error: &SessionError) -> Exit {
    match error {
        SessionError::NotChosen(NotChosen::Refused(reasons)) => {
            for reason in reasons {
                complain(&reason.to_string(), &[reason.help()]);
            }
            Exit::Unavailable
        }
        SessionError::Backend(backend) | SessionError::NotChosen(NotChosen::Backend(backend)) => {
            complain(&chain(backend), &backend.help());
            if backend.is_machine() {
                Exit::Unavailable
            } else {
                Exit::Failed
            }
        }
        SessionError::Sys(_) => {
            complain(&chain(error), &[]);
            Exit::Failed
        }
    }
}

/// Runs it.
pub fn run(options: &Options) -> anyhow::Result<Exit> {
    let plan = match options.common.plan() {
        Ok(plan) => plan,
        Err(none) => return Ok(none.into()),
    };
    let ready: Option<OwnedFd> = match options.ready_fd.map(inherited_fd) {
        None => None,
        Some(Ok(fd)) => Some(fd),
        Some(Err(error)) => {
            complain(
                &format!(
                    "--ready-fd {}: {}",
                    options.ready_fd.unwrap_or(-1),
                    chain(&error)
                ),
                &[
                    "open the descriptor for finject, as in: finject --ready-fd 3 ... 3>ready"
                        .into(),
                ],
            );
            return Ok(Exit::Usage);
        }
    };
    let mut live = Live::new(options.quiet, ready, plan.targets.names().join(", "));
    let session = match Session::prepare(&plan, options.common.backend()) {
        Ok(session) => session,
        Err(error) => return Ok(explain_failure(&error)),
    };
    // Only now, so that a plan that is refused leaves an older file alone.
    let history = match &options.events {
        None => Writer::none(),
        Some(path) => match Writer::open(path) {
            Ok(writer) => writer,
            Err(error) => {
                complain(
                    &format!("--events {}: {error}", path.display()),
                    &["name a file that can be written, or - for standard output".into()],
                );
                return Ok(Exit::Usage);
            }
        },
    };
    let passed_over = session.passed_over().to_vec();
    let summary = match session.run(history, &mut live) {
        Ok(summary) => summary,
        Err(error) => {
            let exit = explain_failure(&error);
            for (choice, why) in passed_over {
                print_err(&format!("finject: not by {choice}: {why}\n"));
            }
            return Ok(exit);
        }
    };
    live.settle();
    if options.common.json {
        print_out(&format!("{:#}\n", summary.to_json(&plan)));
    }
    if !options.quiet {
        print_err(&format!("finject: {}", summary.to_text(&plan)));
    }
    if let (Some(Ended::NotStarted(errno)), Targets::Launched(launch)) =
        (summary.command, &plan.targets)
    {
        let why = std::io::Error::from_raw_os_error(errno);
        complain(
            &format!("{}: {why}", launch.path.display()),
            &["name a program that this machine can execute".into()],
        );
    }
    Ok(match (summary.ending, summary.command.map(status)) {
        (ending, _) if ending.is_failure() => Exit::Failed,
        (_, Some(status)) if status != 0 => Exit::Mirrored(status),
        _ if options.must_fire && !summary.every_rule_fired() => Exit::NeverFired,
        _ => Exit::Done,
    })
}

/// What a shell would say of a command's end.
fn status(ended: Ended) -> u8 {
    match ended {
        Ended::Exited(status) => status as u8,
        Ended::Killed(signal) => 128_u8.saturating_add(signal as u8),
        Ended::NotStarted(libc::ENOENT) => 127,
        Ended::NotStarted(_) => 126,
    }
}
