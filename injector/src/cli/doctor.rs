//! `finject doctor`: what this machine has, what it lacks, and what would provide it. Ends with a
//! trial: the program is loaded and hung on one call, and a test call has to fail.

use serde_json::json;

use super::exit::Exit;
use crate::backend::ebpf::Ebpf;
use crate::backend::ebpf::probe::{Capabilities, Finding, State};
use crate::backend::{Backend, BackendError, HookReport};
use crate::plan::{Plan, Targets};
use crate::rule;

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
    let rules = rule::compile(&[rule::RuleText::new(TRIAL)])
        .map_or_else(|_| Vec::new(), |compiled| compiled.rules);
    let plan = Plan {
        rules,
        arming: Vec::new(),
        targets: Targets::Running(Vec::new()),
        seed: 0,
        follow: false,
        dry_run: false,
        duration: None,
    };
    backend.load(&plan)?;
    let report = backend.attach(&plan)?;
    backend.heal()?;
    Ok(report)
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
        let answer =
            json!({ "backend": "ebpf", "works": works, "findings": findings, "trial": trial });
        println!("{answer:#}");
    } else {
        print(&capabilities, trial.as_ref());
        if works {
            println!("\nready: sudo finject --pid PID --rule 'fsync=EIO@3'");
        } else {
            println!(
                "\nthis machine cannot inject faults in the kernel: see `needs` above\n\
                 a command can be launched under rules all the same: finject --rule \
                 'fsync=EIO@3' -- COMMAND"
            );
        }
    }
    Ok(if works { Exit::Done } else { Exit::Unavailable })
}
