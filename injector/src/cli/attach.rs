//! A session: `finject --pid N --rule R`, or `finject --rule R -- COMMAND`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use injector_common::limits::MOST_SPIN_NS;

use super::exit::Exit;
use super::live::Live;
use super::rules::{self, Rules};
use super::target::{NoPlan, Targeting};
use super::{background, complain, print_err, print_out};
use crate::backend::choose::{Choice, NotChosen};
use crate::history::Writer;
use crate::plan::{LEASES, Plan, Targets};
use crate::session::{Session, SessionError};
use crate::sys::launch::Ended;
use crate::sys::process::{inherited_fd, new_session, without_waits};
use crate::text::chain;

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
#[derive(clap::Args, Debug)]
#[group(skip)]
pub struct Common {
    #[command(flatten)]
    targets: Targeting,

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

    /// In the kernel, spin for delays up to this time, at most 1ms, rather than stop the thread; 0s for none
    #[arg(long, value_name = "TIME", value_parser = spin, default_value = "100us")]
    spin_max: Duration,

    /// Where finject gets no time for so long (it is stopped, its machine stands still), faults end; at most 1m
    #[arg(long, value_name = "TIME", value_parser = lease, default_value = "1500ms")]
    lease: Duration,

    /// Count, but let nothing fire
    #[arg(long)]
    dry_run: bool,

    /// Answer as JSON on standard output
    #[arg(long)]
    pub json: bool,
}

/// Options of attach mode.
#[derive(clap::Args, Debug)]
#[group(skip)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "options that do not depend on each other, as the user gives them"
)]
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

    /// Return once faults are in force, and print the session; after 10 minutes they end where no --duration is given
    #[arg(long, conflicts_with_all = ["ready_fd", "must_fire", "command"])]
    background: bool,

    /// One that was started so
    #[arg(long = background::DETACHED, hide = true)]
    detached: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::rule::parse_duration(text)
}

fn spin(text: &str) -> Result<Duration, String> {
    let most = Duration::from_nanos(MOST_SPIN_NS);
    if matches!(text.trim_start_matches('0'), "ns" | "us" | "ms" | "s") && text.starts_with('0') {
        return Ok(Duration::ZERO);
    }
    match duration(text)? {
        time if time > most => Err(format!(
            "a processor that spins does nothing else: at most {most:?}"
        )),
        time => Ok(time),
    }
}

fn lease(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if LEASES.contains(&time) => Ok(time),
        _ => Err(format!(
            "between {:?}, since finject shows that it lives every 500ms, and {:?}, since faults stay so long after it",
            LEASES.start(),
            LEASES.end()
        )),
    }
}

fn random_seed() -> u64 {
    // Keyed from the system's randomness. Kept within what every JSON reader holds exactly.
    RandomState::new().build_hasher().finish() >> 11
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
        let targets = self.targets.find();
        let Rules { rules, arming } = rules?;
        Ok(Plan {
            rules,
            arming,
            targets: targets?,
            seed: self.seed.unwrap_or_else(random_seed),
            follow: self.targets.follow(),
            from_exec: self.targets.from_exec(),
            dry_run: self.dry_run,
            spin_max: self.spin_max,
            lease: self.lease,
            duration: self.duration,
        })
    }
}

/// Tells why a session did not run.
pub(super) fn explain_failure(error: &SessionError) -> Exit {
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
    if options.background {
        if options
            .events
            .as_ref()
            .is_some_and(|path| path.as_os_str() == "-")
        {
            complain(
                "--events - has no standard output where --background is given",
                &["name a file: --events FILE".into()],
            );
            return Ok(Exit::Usage);
        }
        return background::run(options.common.duration.is_some(), options.common.json);
    }
    if options.detached {
        new_session();
    }
    let plan = match options.common.plan() {
        Ok(plan) => plan,
        Err(none) => return Ok(none.into()),
    };
    let ready: Option<OwnedFd> = match options.ready_fd.map(inherited_fd) {
        None if options.detached => std::io::stdout().as_fd().try_clone_to_owned().ok(),
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
    if options.detached {
        live = live.detached();
    }
    let session = match Session::prepare(&plan, options.common.backend()) {
        Ok(session) => session,
        Err(error) => return Ok(explain_failure(&error)),
    };
    // Only now, so that a plan that is refused leaves an older file alone.
    let history = match &options.events {
        None => Writer::none(),
        Some(path) => match Writer::open(path, without_waits) {
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
        print_out(&format!("{:#}\n", summary.to_json()));
    }
    if !options.quiet {
        print_err(&format!("finject: {}", summary.to_text()));
    }
    let mirrored = summary.command.map(|ended| mirrored(ended, &plan.targets));
    Ok(match (summary.ending, mirrored) {
        (ending, _) if ending.is_failure() => Exit::Failed,
        (_, Some(exit @ Exit::Mirrored(_))) => exit,
        _ if options.must_fire && !summary.every_rule_fired() => Exit::NeverFired,
        _ => Exit::Done,
    })
}

/// The exit status for a command's end, which is its own. Tells why one was not started.
pub(super) fn mirrored(ended: Ended, targets: &Targets) -> Exit {
    if let (Ended::NotStarted(errno), Targets::Launched(launch)) = (ended, targets) {
        let why = std::io::Error::from_raw_os_error(errno);
        complain(
            &format!("{}: {why}", launch.path.display()),
            &["name a program that this machine can execute".into()],
        );
    }
    match status(ended) {
        0 => Exit::Done,
        status => Exit::Mirrored(status),
    }
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
