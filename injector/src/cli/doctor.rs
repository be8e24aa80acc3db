//! `finject doctor`: what this machine has, what it lacks, and what would provide it. Each backend is
//! tried: a call has to fail by it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::json;

use super::exit::Exit;
use crate::backend::choose::{Choice, choose};
use crate::backend::ebpf::probe::{Capabilities, Finding, Need, State};
use crate::backend::ebpf::{Ebpf, support};
use crate::backend::matrix::{ACTIONS, PARTS, TARGETS, answer, reaches, trial as plan_of};
use crate::backend::report::Shown;
use crate::backend::{Backend, BackendError, HookReport};
use crate::plan::Targets;
use crate::target::launch::Launch;
use crate::target::process::{Proc, Tgid};

/// Options.
#[derive(clap::Args, Debug)]
#[group(skip)]
pub struct Options {
    /// Answer as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// A call that hardly any program makes, and whose failure hurts none; for kernels that let calls be overridden, and for
/// others.
const TRIALS: [&str; 2] = ["getpgid=EIO", "getpgid=after:EIO"];

fn trial(backend: &mut Ebpf, rule: &str) -> Result<HookReport, BackendError> {
    let plan = plan_of(rule, Choice::Ebpf);
    backend.load(&plan)?;
    let report = backend.attach(&plan)?;
    backend.heal()?;
    Ok(report)
}

/// How long a command may take that says its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// Launches finject itself, which would print its version, and fails its write; what was seen, or why
/// that cannot be.
fn launch(choice: Choice) -> Result<String, String> {
    let mut plan = plan_of("write=EIO@1", choice);
    plan.targets = Targets::Launched(Launch {
        path: "/proc/self/exe".into(),
        args: vec!["finject".into(), "--version".into()],
    });
    let told = |error: &dyn std::error::Error| crate::text::chain(error);
    let mut backend = choose(&plan, Some(choice))
        .map_err(|error| told(&error))?
        .backend;
    let hooks = backend.attach(&plan).map_err(|error| told(&error))?;
    backend.activate(&plan).map_err(|error| told(&error))?;
    let until = Instant::now() + PATIENCE;
    while let Some(command) = backend.command()
        && !matches!(command.wait(false), Ok(Some(_)))
        && Instant::now() < until
    {
        std::thread::sleep(Duration::from_millis(1));
    }
    backend.heal().map_err(|error| told(&error))?;
    match backend.report().rules.first() {
        Some(rule) if rule.fired == 1 => Ok(format!(
            "a call of a launched command failed as asked, by {}",
            hooks.mechanism
        )),
        _ => Err("the call of a launched command was not failed".into()),
    }
}

/// Attaches to a process of its own, and lets it go; what was seen, or why that cannot be.
fn attach(choice: Choice) -> Result<String, String> {
    let told = |error: &dyn std::error::Error| crate::text::chain(error);
    // It waits for the end of its input, which comes when this is over.
    let mut child = std::process::Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .map_err(|error| format!("cat: {error}"))?;
    let mut plan = plan_of("fsync=EIO", choice);
    let target = Proc::default().process(Tgid(child.id()));
    plan.targets = Targets::Running(target.into_iter().collect());
    let tried = || -> Result<String, String> {
        let mut backend = choose(&plan, Some(choice))
            .map_err(|error| told(&error))?
            .backend;
        let hooks = backend.attach(&plan).map_err(|error| told(&error))?;
        backend.activate(&plan).map_err(|error| told(&error))?;
        backend.heal().map_err(|error| told(&error))?;
        Ok(format!(
            "a running process was attached to and let go, by {}",
            hooks.mechanism
        ))
    };
    let seen = tried();
    drop(child.stdin.take());
    let _ = child.wait();
    seen
}

/// A backend beside the one in the kernel, and what was seen of it.
struct Other {
    choice: Choice,
    what: &'static str,
    /// Of a command that was launched.
    launched: Result<String, String>,
    /// Of a process that ran, where it attaches to such.
    attached: Option<Result<String, String>>,
}

impl Other {
    fn trials(&self) -> impl Iterator<Item = &Result<String, String>> {
        self.attached.iter().chain([&self.launched])
    }
}

fn others() -> Vec<Other> {
    vec![
        Other {
            choice: Choice::Notify,
            what: "commands that finject launches, without privilege",
            launched: launch(Choice::Notify),
            attached: None,
        },
        Other {
            choice: Choice::Ptrace,
            what: "running processes and commands, by tracing",
            launched: launch(Choice::Ptrace),
            attached: Some(attach(Choice::Ptrace)),
        },
    ]
}

/// Whom a part of the matrix is about.
#[derive(Clone, Copy)]
enum Row {
    /// Targets: whether finject launches them.
    Targets(bool),
    /// A part of a rule, by a rule that has it.
    Part(&'static str),
}

impl Row {
    /// Whether this needs calls that are overridden. What is no action does as its action does.
    fn overrides(self) -> bool {
        let Self::Part(rule) = self else {
            return false;
        };
        let is_action = PARTS[..ACTIONS].iter().any(|(_, known)| *known == rule);
        is_action && support::overrides(&plan_of(rule, Choice::Ebpf))
    }
}

const COLUMNS: [Choice; 3] = [Choice::Ebpf, Choice::Notify, Choice::Ptrace];

/// What each backend carries out here: `yes`, or `no` with the reason. `lacks` tells what the machine
/// lacks for that.
fn matrix(lacks: &dyn Fn(Choice, Row) -> Option<String>) -> Vec<(String, [String; COLUMNS.len()])> {
    let targets = TARGETS
        .iter()
        .map(|(name, launched)| (*name, Row::Targets(*launched)));
    let parts = PARTS.iter().map(|(name, rule)| (*name, Row::Part(rule)));
    let cell = |row: Row, choice: Choice| {
        let answer = match row {
            Row::Targets(launched) => reaches(launched, choice),
            Row::Part(rule) => answer(rule, choice),
        };
        let lacking = (answer == "yes").then(|| lacks(choice, row)).flatten();
        lacking.map_or_else(|| answer.to_owned(), |what| format!("no: {what}"))
    };
    targets
        .chain(parts)
        .map(|(name, row)| {
            let name = name.replace('`', "");
            (name, COLUMNS.map(|choice| cell(row, choice)))
        })
        .collect()
}

/// Characters of a column.
const CELL: usize = 38;

fn table(matrix: &[(String, [String; COLUMNS.len()])]) -> String {
    let head = COLUMNS.map(|choice| choice.to_string());
    let mut text = String::new();
    for (name, cells) in [(String::new(), head)].iter().chain(matrix) {
        let _ = write!(text, "  {name:28}");
        for cell in cells {
            // The whole reason of a no stands with the trial that failed.
            let cell = crate::text::clipped(cell, CELL);
            let _ = write!(text, "  {cell:CELL$}");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn state(finding: &Finding) -> (&'static str, Option<&str>) {
    match &finding.state {
        State::Found => ("ok", None),
        State::Missing { remedy } => ("missing", Some(remedy)),
        State::Lacking { consequence } => ("lacking", Some(consequence)),
        State::Unknown => ("unknown", None),
    }
}

fn print(capabilities: &Capabilities, trial: Option<&Result<HookReport, BackendError>>) {
    println!("backend ebpf: faults decided and injected inside the kernel\n");
    for finding in &capabilities.findings {
        let (word, text) = state(finding);
        println!("  {word:8} {:17} {}", finding.need, finding.seen);
        if let Some(text) = text {
            let arrow = if word == "missing" { "needs" } else { "note" };
            println!("           {:17} {arrow}: {text}", "");
        }
    }
    match trial {
        None => {}
        Some(Ok(hooks)) => println!(
            "  ok       {:17} {} hooked by {}; {} {}, and {} after healing",
            "trial",
            crate::text::counted(hooks.functions as u64, "function", "functions"),
            hooks.mechanism,
            crate::text::counted(hooks.tested as u64, "test call", "test calls"),
            hooks.shown,
            match hooks.shown {
                Shown::Failed => "ran again",
                Shown::Seen => "not seen",
            },
        ),
        Some(Err(error)) => {
            println!("  missing  {:17} {error}", "trial");
            for help in error.help() {
                println!("           {:17} needs: {help}", "");
            }
        }
    }
}

/// Runs it.
pub fn run(options: &Options) -> anyhow::Result<Exit> {
    let others = others();
    let mut backend = Ebpf::new()?;
    let capabilities = backend.capabilities().clone();
    let overrides = capabilities.has(Need::Override);
    let is_blocked = capabilities.missing_for(overrides).next().is_some();
    let rule = TRIALS[usize::from(!overrides)];
    let trial = (!is_blocked).then(|| trial(&mut backend, rule));
    let is_seen = matches!(trial, Some(Ok(_)));
    let works = is_seen && overrides;
    let missing = capabilities
        .missing()
        .next()
        .map(|need| need.need.to_string());
    let lacks = |choice: Choice, row: Row| -> Option<String> {
        let Some(other) = others.iter().find(|other| other.choice == choice) else {
            if is_seen && (overrides || !row.overrides()) {
                return None;
            }
            return Some(match (&trial, &missing) {
                (Some(Err(error)), _) if overrides || !row.overrides() => error.to_string(),
                (_, Some(need)) => format!("lacks {need}"),
                (_, None) => "lacks faults that arrive".into(),
            });
        };
        let tried: Vec<_> = match row {
            Row::Targets(true) => vec![&other.launched],
            Row::Targets(false) => other.attached.iter().collect(),
            Row::Part(_) => other.trials().collect(),
        };
        let is_there = tried.iter().any(|trial| trial.is_ok());
        let why = tried.iter().find_map(|trial| trial.as_ref().err());
        (!is_there).then(|| why.cloned().unwrap_or_default())
    };
    let matrix = matrix(&lacks);
    if options.json {
        let findings: Vec<_> = capabilities
            .findings
            .iter()
            .map(|finding| {
                let (word, text) = state(finding);
                json!({
                    "need": finding.need.to_string(),
                    "state": word,
                    "seen": finding.seen,
                    "note": text,
                })
            })
            .collect();
        let trial = match &trial {
            None => json!(null),
            Some(Ok(hooks)) => json!({
                "mechanism": hooks.mechanism,
                "tested_calls": hooks.tested,
                "verified_instructions": hooks.verified_instructions,
            }),
            Some(Err(error)) => json!({ "error": error.to_string(), "help": error.help() }),
        };
        let told = |trial: &Result<String, String>| {
            let (Ok(seen) | Err(seen)) = trial;
            json!({ "works": trial.is_ok(), "seen": seen })
        };
        let others: serde_json::Map<_, _> = others
            .iter()
            .map(|other| {
                let attached = other.attached.as_ref().map(told);
                let trials = json!({ "launched": told(&other.launched), "attached": attached });
                (other.choice.to_string(), trials)
            })
            .collect();
        let matrix: serde_json::Map<_, _> = matrix
            .into_iter()
            .map(|(name, cells)| {
                let cells = COLUMNS.iter().map(ToString::to_string).zip(cells);
                let cells = cells.map(|(choice, cell)| (choice, json!(cell)));
                (name, json!(cells.collect::<serde_json::Map<_, _>>()))
            })
            .collect();
        let answer = json!({
            "backend": "ebpf",
            "works": works,
            "findings": findings,
            "trial": trial,
            "others": others,
            "matrix": matrix,
        });
        println!("{answer:#}");
    } else {
        print(&capabilities, trial.as_ref());
        for other in &others {
            println!("\nbackend {}: {}\n", other.choice, other.what);
            for trial in other.trials() {
                match trial {
                    Ok(seen) => println!("  ok       {:17} {seen}", "trial"),
                    Err(why) => println!("  missing  {:17} {why}", "trial"),
                }
            }
        }
        println!(
            "\nwhat each carries out here:\n\n{}",
            table(&matrix).trim_end()
        );
        if works {
            println!("\nready: sudo finject --pid PID --rule 'fsync=EIO@3'");
        } else {
            println!("\nthis machine cannot inject faults in the kernel: see `needs` above");
            if is_seen {
                println!(
                    "what comes after a call can: sudo finject --pid PID --rule 'fsync=after:EIO@3'"
                );
            }
            let is_ok = |trial: &&Result<String, String>| trial.is_ok();
            if others.iter().any(|other| is_ok(&&other.launched)) {
                println!("commands can be launched: finject --rule 'fsync=EIO@3' -- COMMAND");
            }
            if others
                .iter()
                .filter_map(|other| other.attached.as_ref())
                .any(|trial| is_ok(&trial))
            {
                println!("processes can be traced: finject --pid PID --rule 'fsync=EIO@3'");
            }
        }
    }
    Ok(if works { Exit::Done } else { Exit::Unavailable })
}
