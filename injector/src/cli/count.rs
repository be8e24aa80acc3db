//! `finject count`: which calls a program makes, how often, of which threads, and a rule for each to
//! begin with. Nothing is made to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::attach::{explain_failure, mirrored};
use super::exit::Exit;
use super::target::Targeting;
use super::{print_err, print_out};
use crate::backend::ptrace::census::Counted;
use crate::backend::ptrace::count::Count;
use crate::plan::Targets;
use crate::rule::to_begin_with;
use crate::session::SessionError;
use crate::sys::process::{PollFd, poll_fds};
use crate::sys::signals::{Forwarded, Signals};
use crate::text::{counted, some_of};

/// How often the command's end is looked at, milliseconds.
const TURN_MS: i32 = 100;

/// Threads that are told by their numbers.
const NAMED: usize = 6;

/// Options.
#[derive(clap::Args, Debug)]
#[group(skip)]
pub struct Options {
    #[command(flatten)]
    targets: Targeting,

    /// Count for this time only, such as 30s
    #[arg(long, value_name = "TIME", value_parser = crate::rule::parse_duration)]
    duration: Option<Duration>,

    /// Answer as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// One kind of call, and who made it.
#[derive(Debug)]
struct Line {
    /// As rules name it.
    name: String,
    /// A rule to begin with.
    rule: Option<String>,
    number: u64,
    /// By thread.
    threads: BTreeMap<u32, u64>,
}

impl Line {
    /// Those of most calls first.
    fn of(counted: &[Counted]) -> Vec<Self> {
        let mut lines: BTreeMap<_, Self> = BTreeMap::new();
        for found in counted {
            let line = lines.entry(found.call).or_insert(Self {
                name: found.call.to_string(),
                rule: to_begin_with(found.call),
                number: 0,
                threads: BTreeMap::new(),
            });
            line.number += found.number;
            *line.threads.entry(found.tid).or_default() += found.number;
        }
        let mut lines: Vec<Self> = lines.into_values().collect();
        lines.sort_by_key(|line| std::cmp::Reverse(line.number));
        lines
    }

    /// Its threads, as many as one can read.
    fn who(&self) -> String {
        if self.threads.len() > NAMED {
            return counted(self.threads.len() as u64, "thread", "threads");
        }
        some_of(self.threads.keys().map(ToString::to_string))
    }

    fn to_json(&self) -> Value {
        let threads: Vec<Value> = self
            .threads
            .iter()
            .map(|(tid, number)| json!({ "tid": tid, "number": number }))
            .collect();
        json!({
            "call": self.name,
            "number": self.number,
            "threads": threads,
            "rule": self.rule,
        })
    }
}

/// Whose signals are heard.
enum Heard {
    /// finject's: the first ends the count.
    Own(Signals),
    /// The command's.
    Commands(Forwarded),
}

impl Heard {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(signals) => std::os::fd::AsFd::as_fd(signals.fd()),
            Self::Commands(forwarded) => forwarded.fd(),
        }
    }
}

/// Counts until the targets have ended, the time is up, or finject is asked to end.
fn watch(count: &mut Count, heard: &mut Heard, until: Option<Instant>) -> Result<(), SessionError> {
    loop {
        let mut fds = vec![
            PollFd::readable(heard.fd()),
            PollFd::readable(count.ended_fd()),
        ];
        poll_fds(&mut fds, TURN_MS)?;
        if fds[1].is_ready() || until.is_some_and(|until| Instant::now() >= until) {
            return Ok(());
        }
        match heard {
            Heard::Own(signals) if signals.take().is_some() => return Ok(()),
            Heard::Own(_) => {}
            Heard::Commands(forwarded) => {
                if let Some(command) = count.command()
                    && command.hear(forwarded, &mut |stop| stop()).is_some()
                {
                    return Ok(());
                }
            }
        }
        if let Some(command) = count.command() {
            command.wait(false)?;
        }
    }
}

fn print(lines: &[Line], targets: &Targets) {
    let total: u64 = lines.iter().map(|line| line.number).sum();
    let threads: BTreeSet<u32> = lines
        .iter()
        .flat_map(|line| line.threads.keys().copied())
        .collect();
    print_err(&format!(
        "finject: {} of {} by {}\n",
        counted(total, "call", "calls"),
        targets.names().join(", "),
        counted(threads.len() as u64, "thread", "threads"),
    ));
    let names = lines.iter().map(|line| line.name.len());
    let width = names.max().unwrap_or(0).max(4);
    let rules: Vec<String> = lines
        .iter()
        .map(|line| match &line.rule {
            Some(rule) => format!("--rule '{rule}'"),
            None => String::new(),
        })
        .collect();
    let rule_width = rules.iter().map(String::len).max().unwrap_or(0).max(12);
    let mut text = format!(
        "   calls  {:width$}  {:rule_width$}  threads\n",
        "call", "to begin with"
    );
    for (line, rule) in lines.iter().zip(rules) {
        let threads = line.who();
        let _ = writeln!(
            text,
            "{:8}  {:width$}  {rule:rule_width$}  {threads}",
            line.number, line.name
        );
    }
    print_out(&text);
}

/// Runs it.
pub fn run(options: &Options) -> anyhow::Result<Exit> {
    let targets = match options.targets.find() {
        Ok(targets) => targets,
        Err(none) => return Ok(none.into()),
    };
    match count(options, &targets) {
        Ok(exit) => Ok(exit),
        Err(error) => Ok(explain_failure(&error)),
    }
}

fn count(options: &Options, targets: &Targets) -> Result<Exit, SessionError> {
    let mut count = Count::start(
        targets,
        options.targets.follow(),
        options.targets.from_exec(),
    )?;
    let mut heard = match targets {
        Targets::Running(_) => Heard::Own(Signals::open()?),
        Targets::Launched(_) => Heard::Commands(Forwarded::open()?),
    };
    let until = options.duration.map(|duration| Instant::now() + duration);
    watch(&mut count, &mut heard, until)?;
    let (counted, command) = count.finish();
    let lines = Line::of(&counted);
    let ended = match command {
        None => None,
        Some(mut command) => loop {
            if let Some(ended) = command.wait(true)? {
                break Some(ended);
            }
        },
    };
    if options.json {
        let calls: Vec<Value> = lines.iter().map(Line::to_json).collect();
        print_out(&format!("{:#}\n", json!({ "calls": calls })));
    } else {
        print(&lines, targets);
    }
    Ok(ended.map_or(Exit::Done, |ended| mirrored(ended, targets)))
}
