//! The command line: options and subcommands, one file each. clap lives only here.

pub mod attach;
mod background;
pub mod count;
pub mod ctl;
pub mod doctor;
pub mod exit;
pub mod explain;
pub mod live;
pub mod rules;
pub mod target;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  sudo finject --pid 123 --rule fsync=EIO@3
        the third fsync of process 123, its threads and its children, fails
  sudo finject --pid 123 --rule 'fsync,fdatasync=ENOSPC@10+,max:5' --duration 30s
        from the tenth on, five syncs fail; after 30 s everything is healed
  sudo finject --pid 123 --rule '%write=EIO@1%' --seed 7 --events faults.jsonl
        one write in a hundred fails, the same ones for the same seed; each leaves a record
  sudo finject --pid 123 --rule 'rename=kill@1' --must-fire
        die just before the first rename; exit status 124 if there was none
  sudo finject --background --pid 123 --rule 'fdatasync=delay:50ms' && sudo finject ctl stop
        returns once faults are in force; they end with finject ctl stop, or after 10 minutes
  finject --rule 'fsync=EIO@3' -- ./test --all
        launches a command under the rule; needs no privilege; its status is finject's
  finject count -- ./test --all
        which calls it makes, how often, and a rule for each to begin with
  finject explain --pid 123 --rule '%sync=EIO'
        what would be done; touches nothing
  finject doctor
        what this machine can do, what it lacks, and what would provide it
  finject help rules
        the rule language

Exit status: 0 the target ended, the time was up, or finject was asked to end; 64 usage;
69 this machine cannot do it; 124 --must-fire and a rule never fired; 125 finject failed.
Of a launched command its own: 128+N where signal N killed it, 126 where its file cannot be
executed, 127 where there is none.";

/// Make chosen system calls of unmodified programs fail, at exactly the call you name.
#[derive(Debug, Parser)]
#[command(
    name = "finject",
    version,
    disable_help_subcommand = true,
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true,
    after_help = EXAMPLES
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    attach: attach::Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell what this machine can do, what it lacks, and what would provide it
    Doctor(doctor::Options),
    /// Count the calls that a program makes, and name a rule for each to begin with
    Count(count::Options),
    /// See and change a session that runs: arm, disarm, release, wait-hit, stop
    Ctl(ctl::Options),
    /// Print what would be done; touches nothing
    Explain(explain::Options),
    /// Explain finject, or one topic: rules
    Help {
        /// The topic
        topic: Option<String>,
    },
}

/// Whether stderr is a terminal that wants colours.
pub(crate) fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Prints an error with what to do about it, in the form of rule errors.
pub(crate) fn complain(error: &str, help: &[String]) {
    let mut text = if colour() {
        format!("\x1b[31merror:\x1b[0m {error}\n")
    } else {
        format!("error: {error}\n")
    };
    for line in help {
        text.push_str("  help: ");
        text.push_str(line);
        text.push('\n');
    }
    print_err(&text);
}

fn help(topic: Option<&str>) -> Exit {
    match topic {
        None => {
            print_out(&Cli::command().render_long_help().to_string());
            Exit::Done
        }
        Some("rules" | "rule") => {
            print_out(crate::rule::REFERENCE);
            Exit::Done
        }
        Some(other) => {
            complain(
                &format!("no help on `{other}`"),
                &["finject help rules, or finject help".to_owned()],
            );
            Exit::Usage
        }
    }
}

/// Prints to stderr; a reader that has gone is no failure.
pub(crate) fn print_err(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Prints to stdout; a reader that has gone is no failure.
pub(crate) fn print_out(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// A word that is no option and stands where none is expected.
fn stray_word(error: &clap::Error) -> Option<&str> {
    let found = error.get(clap::error::ContextKind::InvalidArg)?;
    match (error.kind(), found) {
        (clap::error::ErrorKind::UnknownArgument, clap::error::ContextValue::String(word))
            if !word.starts_with('-') =>
        {
            Some(word)
        }
        _ => None,
    }
}

/// Runs the command line.
pub fn main() -> ExitCode {
    if std::env::args_os().len() <= 1 {
        print_out(&Cli::command().render_help().to_string());
        return Exit::Usage.into();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let is_answer = !error.use_stderr();
            let _ = error.print();
            if let Some(word) = stray_word(&error) {
                print_err(&format!(
                    "\n  help: a command to launch stands behind --, as in: finject --rule \
                     fsync=EIO@3 -- {word}\n"
                ));
            }
            return if is_answer { Exit::Done } else { Exit::Usage }.into();
        }
    };
    let result = match cli.command {
        Some(Command::Doctor(options)) => doctor::run(&options),
        Some(Command::Count(options)) => count::run(&options),
        Some(Command::Ctl(options)) => Ok(ctl::run(&options)),
        Some(Command::Explain(options)) => explain::run(&options),
        Some(Command::Help { topic }) => Ok(help(topic.as_deref())),
        None => attach::run(&cli.attach),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            complain(&format!("{error:#}"), &[]);
            Exit::Failed.into()
        }
    }
}
