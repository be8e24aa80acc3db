//! `finject doctor`: what this machine has, what it lacks, and what would provide it. Each backend is
//! tried: a call has to fail by it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::json;

use super::exit::Exit;
use crate::backend::choose::{Choice, choose};
use crate::backend::ebpf::Ebpf;
use crate::backend::ebpf::probe::{Capabilities, Finding, State};
use crate::backend::matrix::{PARTS, TARGETS, answer, reaches, trial as plan_of};
use crate::backend::{Backend, BackendError, HookReport};
use crate::plan::Targets;
use crate::target::launch::Launch;

/// Options.
#[derive(clap::Args, Debug)]
#[group(skip)]
pub struct Options {
    /// Answer as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// A call that hardly any program makes, and whose failure hurts none.
const TRIAL: &str = "getpgid=EIO";

fn trial(backend: &mut Ebpf) -> Result<HookReport, BackendError> {
    let plan = plan_of(TRIAL, Choice::Ebpf);
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
    let told = |error: &dyn std::error::Error| super::chain(error);
    let mut backend = choose(&plan, Some(choice))
        .map_err(|error| told(&error))?
        .backend;
    let hooks = backend.attach(&plan).map_err(|error| told(&error))?;
    backend.activate().map_err(|error| told(&error))?;
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

/// The backends beside the one in the kernel, and what was seen of each.
fn others() -> Vec<(Choice, &'static str, Result<String, String>)> {
    vec![
        (
            Choice::Notify,
            "commands that finject launches, without privilege",
            launch(Choice::Notify),
        ),
        (
            Choice::Ptrace,
            "running processes and commands, by tracing",
            launch(Choice::Ptrace),
        ),
    ]
}

/// What each backend carries out here: `yes`, `no` with the reason, or that the machine lacks it.
fn matrix(works: &dyn Fn(Choice) -> bool) -> String {
    let columns = [Choice::Ebpf, Choice::Notify, Choice::Ptrace];
    let mut text = format!("  {:28}", "");
    for choice in columns {
        let _ = write!(text, "  {:38}", choice.to_string());
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    let mut row = |part: &str, cells: [&str; 3]| {
        let _ = write!(text, "  {:28}", part.replace('`', ""));
        for cell in cells {
            let _ = write!(text, "  {cell:38}");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    };
    let here = |answer: &'static str, choice: Choice| match answer {
        "yes" if !works(choice) => "no: not here",
        answer => answer,
    };
    for (kind, launched) in TARGETS {
        row(
            kind,
            columns.map(|choice| here(reaches(launched, choice), choice)),
        );
    }
    for (part, rule) in PARTS {
        row(
            part,
            columns.map(|choice| here(answer(rule, choice), choice)),
        );
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
            "  ok       {:17} {} hooked by {}; {} failed as asked, and ran again after healing",
            "trial",
            crate::text::counted(hooks.functions as u64, "function", "functions"),
            hooks.mechanism,
            crate::text::counted(hooks.tested as u64, "test call", "test calls"),
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
    let blocked = capabilities.missing().next().is_some();
    let trial = (!blocked).then(|| trial(&mut backend));
    let works = matches!(trial, Some(Ok(_)));
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
        let others: serde_json::Map<_, _> = others
            .iter()
            .map(|(choice, _, seen)| {
                let (works, seen) = match seen {
                    Ok(seen) => (true, seen),
                    Err(why) => (false, why),
                };
                (choice.to_string(), json!({ "works": works, "seen": seen }))
            })
            .collect();
        let answer = json!({
            "backend": "ebpf",
            "works": works,
            "findings": findings,
            "trial": trial,
            "others": others,
        });
        println!("{answer:#}");
    } else {
        print(&capabilities, trial.as_ref());
        for (choice, what, seen) in &others {
            println!("\nbackend {choice}: {what}\n");
            match seen {
                Ok(seen) => println!("  ok       {:17} {seen}", "trial"),
                Err(why) => println!("  missing  {:17} {why}", "trial"),
            }
        }
        let is_there = |choice: Choice| match choice {
            Choice::Ebpf => works,
            _ => others
                .iter()
                .any(|(other, _, seen)| *other == choice && seen.is_ok()),
        };
        println!(
            "\nwhat each carries out here:\n\n{}",
            matrix(&is_there).trim_end()
        );
        if works {
            println!("\nready: sudo finject --pid PID --rule 'fsync=EIO@3'");
        } else {
            println!(
                "\nthis machine cannot inject faults in the kernel: see `needs` above\n\
                 processes can be traced, and commands launched, all the same:\n\
                 finject --pid PID --rule 'fsync=EIO@3', finject --rule 'fsync=EIO@3' -- COMMAND"
            );
        }
    }
    Ok(if works { Exit::Done } else { Exit::Unavailable })
}
