//! `finject explain`: the plan, and whether it could be carried out. Touches nothing.

use super::attach::Common;
use super::exit::Exit;
use super::print_out;
use crate::backend::Unsupported;
use crate::backend::choose::Choice;
use crate::plan::Plan;

/// Options.
#[derive(clap::Args, Debug)]
#[group(skip)]
pub struct Options {
    #[command(flatten)]
    common: Common,
}

/// What no backend in question carries out, as the best of them says it.
fn refused(plan: &Plan, wanted: Option<Choice>) -> Vec<Unsupported> {
    let candidates = wanted.map_or_else(|| Choice::candidates(plan).to_vec(), |one| vec![one]);
    let mut answers = candidates
        .into_iter()
        .map(|choice| choice.admit(plan).err());
    let first = answers.next().flatten().unwrap_or_default();
    if answers.any(|answer| answer.is_none()) {
        Vec::new()
    } else {
        first
    }
}

/// Runs it.
pub fn run(options: &Options) -> anyhow::Result<Exit> {
    let plan = match options.common.plan() {
        Ok(plan) => plan,
        Err(none) => return Ok(none.into()),
    };
    let refused = refused(&plan, options.common.backend());
    if options.common.json {
        let mut json = plan.to_json();
        json["refused"] = refused
            .iter()
            .map(|reason| serde_json::json!({ "what": reason.to_string(), "help": reason.help() }))
            .collect();
        print_out(&format!("{json:#}\n"));
    } else {
        print_out(&format!("{plan}\n"));
        for reason in &refused {
            print_out(&format!(
                "refused  {reason}\n         help: {}\n",
                reason.help()
            ));
        }
    }
    Ok(if refused.is_empty() {
        Exit::Done
    } else {
        Exit::Unavailable
    })
}
