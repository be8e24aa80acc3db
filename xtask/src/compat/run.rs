//! One run of a suite: bare, or launched by finject under a rule that never fires.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use super::compare::Outcome;
use crate::repo;

/// It names every call that a rule can name, and begins with one that nobody makes.
pub(super) const RULE: &str = "/./=signal:SIGTERM@1000000000";
/// How long a suite may take; the longest takes a tenth of it.
const PATIENCE: Duration = Duration::from_mins(10);
/// How often it is looked whether one has ended.
const LOOK: Duration = Duration::from_millis(50);
/// Ends it when this task is interrupted, which the terminal does not, as it is in another group.
const WITH_US: [&str; 3] = ["setpriv", "--pdeathsig", "TERM"];
/// Keeps the words of the command apart from finject's.
const INTO_LOG: &str = r#"exec "$@" >"$0" 2>&1"#;

/// What carries the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Backend {
    Notify,
    Ptrace,
}

impl Backend {
    pub(super) const ALL: [Self; 2] = [Self::Notify, Self::Ptrace];

    /// As `finject --backend` has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Notify => "notify",
            Self::Ptrace => "ptrace",
        }
    }
}

/// A command that runs a suite.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) words: Vec<OsString>,
    /// Where it runs, and where it may leave what it likes.
    pub(super) directory: PathBuf,
    /// What it writes.
    pub(super) log: PathBuf,
}

/// How a run ended.
#[derive(Debug)]
pub(super) struct Ran {
    /// Of the command as a whole.
    pub(super) end: Outcome,
    /// The calls that the rule matched, or what is wrong with finject's summary; none where there was
    /// no rule.
    pub(super) matched: Option<Result<u64, String>>,
    pub(super) took: Duration,
}

/// Runs it. What finject says goes beside the log.
pub(super) fn run(job: &Job, backend: Option<Backend>) -> anyhow::Result<Ran> {
    let said = job.log.with_extension("summary.json");
    let errors = job.log.with_extension("finject.txt");
    let mut words: Vec<OsString> = WITH_US.map(Into::into).into();
    if let Some(backend) = backend {
        words.push(repo::root().join("target/release/finject").into());
        words.extend(["--backend", backend.name(), "--rule", RULE, "--json", "--"].map(Into::into));
    }
    words.extend(["/bin/sh", "-c", INTO_LOG].map(Into::into));
    words.push(job.log.clone().into());
    words.extend(job.words.iter().cloned());
    let since = Instant::now();
    let mut child = command(&words, &job.directory)?
        .stdout(File::create(&said).with_context(|| format!("making {}", said.display()))?)
        .stderr(File::create(&errors).with_context(|| format!("making {}", errors.display()))?)
        .spawn()
        .with_context(|| format!("running {}", words[0].display()))?;
    let end = wait(&mut child, since)?;
    let took = since.elapsed();
    let matched = backend.map(|backend| {
        let text = fs::read_to_string(&said).unwrap_or_default();
        matched(&text, backend).map_err(|error| format!("{error:#}"))
    });
    Ok(Ran {
        end: end.map_or(Outcome::Unfinished, outcome),
        matched,
        took,
    })
}

/// A command in a process group of its own and an environment that is the same for everyone.
fn command(words: &[OsString], directory: &Path) -> anyhow::Result<Command> {
    let (program, arguments) = words.split_first().context("no command")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env(
            "HOME",
            std::env::var_os("HOME").unwrap_or_else(|| "/".into()),
        )
        .env("LANG", "C.UTF-8")
        .env("TMPDIR", directory)
        .stdin(Stdio::null())
        .process_group(0);
    Ok(command)
}

/// Waits for its end; none where it took too long, and was killed with all of its group.
fn wait(child: &mut Child, since: Instant) -> anyhow::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait().context("waiting for the suite")? {
            return Ok(Some(status));
        }
        if since.elapsed() > PATIENCE {
            let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            if let Some(group) = group {
                // Not waited for yet, so that the number is its own.
                let _ = kill_process_group(group, Signal::KILL);
            }
            child.wait().context("waiting for the suite")?;
            return Ok(None);
        }
        thread::sleep(LOOK);
    }
}

fn outcome(status: ExitStatus) -> Outcome {
    // finject mirrors a signal as shells do.
    let is_killed = status.signal().is_some() || status.code().is_some_and(|code| code > 128);
    if status.success() {
        Outcome::Passed
    } else if is_killed {
        Outcome::Unfinished
    } else {
        Outcome::Failed
    }
}

/// The calls that matched the one rule, of a summary that says that all went as it was meant.
fn matched(json: &str, backend: Backend) -> anyhow::Result<u64> {
    let summary: Value = serde_json::from_str(json).context("finject gave no summary")?;
    let [rule] = summary["rules"].as_array().map_or(&[][..], Vec::as_slice) else {
        anyhow::bail!("not one rule: {}", summary["rules"]);
    };
    let named = &summary["backend"];
    ensure!(named == backend.name(), "the backend was {named}");
    let ending = &summary["ending"];
    ensure!(ending == "targets-ended", "the session ended by {ending}");
    ensure!(summary["misses"] == 0, "misses: {}", summary["misses"]);
    ensure!(rule["fired"] == 0, "it fired: {}", rule["fired"]);
    rule["matched"].as_u64().context("no count of calls")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_to_say_that_nothing_fired_and_all_ended() {
        let summary = |backend: &str, ending: &str, misses: &str, fired: &str| {
            let json = format!(
                r#"{{"backend":"{backend}","ending":"{ending}","misses":{misses},"rules":[{{"matched":7,"fired":{fired}}}]}}"#
            );
            matched(&json, Backend::Ptrace).map_err(|error| error.to_string())
        };
        let wrong = |text: &str| Err(text.to_owned());
        assert_eq!(summary("ptrace", "targets-ended", "0", "0"), Ok(7));
        assert_eq!(
            summary("notify", "targets-ended", "0", "0"),
            wrong(r#"the backend was "notify""#)
        );
        assert_eq!(
            summary("ptrace", "lapsed", "0", "0"),
            wrong(r#"the session ended by "lapsed""#)
        );
        assert_eq!(
            summary("ptrace", "targets-ended", r#""unknown""#, "0"),
            wrong(r#"misses: "unknown""#)
        );
        assert_eq!(
            summary("ptrace", "targets-ended", "0", "1"),
            wrong("it fired: 1")
        );
        assert!(matched("", Backend::Notify).is_err());
        assert!(matched(r#"{"rules":[]}"#, Backend::Notify).is_err());
    }

    #[test]
    fn the_end_of_a_command_is_its_own_under_finject_too() {
        assert_eq!(outcome(ExitStatus::from_raw(0)), Outcome::Passed);
        assert_eq!(outcome(ExitStatus::from_raw(1 << 8)), Outcome::Failed);
        assert_eq!(outcome(ExitStatus::from_raw(9)), Outcome::Unfinished);
        assert_eq!(outcome(ExitStatus::from_raw(137 << 8)), Outcome::Unfinished);
    }

    #[test]
    fn words_of_a_command_go_to_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let job = Job {
            words: ["sh", "-c", "echo to one; echo to the other >&2; exit 3"]
                .map(Into::into)
                .into(),
            directory: directory.path().into(),
            log: directory.path().join("a.log"),
        };
        let ran = run(&job, None).unwrap();
        assert_eq!((ran.end, ran.matched), (Outcome::Failed, None));
        assert_eq!(
            fs::read_to_string(&job.log).unwrap(),
            "to one\nto the other\n"
        );
        assert_eq!(
            fs::read_to_string(job.log.with_extension("summary.json")).unwrap(),
            ""
        );
    }
}
