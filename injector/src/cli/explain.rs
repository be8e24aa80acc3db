//! `finject explain`: the plan, and whether it could be carried out. Touches nothing.

use super::attach::Common;
use super::exit::Exit;
use super::print_out;
use crate::backend::choose::Choice;

/// Options.
#[derive(clap::Args, Debug)]
#[group(skip)]
pub struct Options {
    #[command(flatten)]
    common: Common,
}

/// Runs it.
pub fn run(options: &Options) -> anyhow::Result<Exit> {
    let plan = match options.common.plan() {
        Ok(plan) => plan,
        Err(none) => return Ok(none.into()),
    };
    let refused = Choice::of(&plan).admit(&plan).err().unwrap_or_default();
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
