//! `cargo xtask bench backends`: what a call costs under finject's backends that decide in user space, beside strace and
//! beside loops that do the least that the same mechanism asks for; and what two real programs take. On this machine as it
//! is. Every round starts every tool anew, so that all meet the same disturbances, and what is compared are ratios.

mod asked;
mod measure;
mod page;
mod place;
mod timings;
mod workload;

use super::document::{self, Part};
use super::figures::median;
use super::{compile, tools};
use crate::setup::{self, Need};
use crate::vm;
use anyhow::Context as _;
use measure::Effort;
use page::Tally;
use place::Place;
use std::time::Instant;
use timings::Timings;
use workload::{Ground, Job};

/// Options of `cargo xtask bench backends`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Rounds, in each of which every tool is started anew
    #[arg(long, value_name = "N", default_value_t = ROUNDS)]
    rounds: u32,
    /// Few calls and short programs, to try it: prints the tables and writes no page
    #[arg(long)]
    quick: bool,
    /// Only the calls
    #[arg(long, conflicts_with = "programs")]
    calls: bool,
    /// Only the real programs
    #[arg(long)]
    programs: bool,
}

const ROUNDS: u32 = 5;

/// All that was measured.
#[derive(Debug, Default)]
struct Measured {
    calls: Timings<Place>,
    jobs: Timings<Job>,
}

/// Runs it; the status is 0 whatever the times are, which decide nothing.
pub(super) fn run(options: &Options) -> anyhow::Result<i32> {
    setup::ensure(&[Need::Compiler, Need::Bench])?;
    vm::build()?;
    compile()?;
    let effort = if options.quick {
        Effort::Quick
    } else {
        Effort::Full
    };
    let processor = last_allowed()?;
    let ground = Ground::prepare(effort)?;
    let mut measured = Measured::default();
    let rounds = options.rounds.max(1);
    for round in 0..rounds {
        let since = Instant::now();
        if !options.programs {
            calls(&mut measured.calls, round, effort, processor)?;
        }
        if !options.calls {
            jobs(&mut measured.jobs, round, &ground, processor)?;
        }
        eprintln!(
            "bench: round {} of {rounds}, {:.0} s",
            round + 1,
            since.elapsed().as_secs_f64()
        );
    }
    let facts = page::Facts {
        command: command(options),
        machine: machine()?,
        tools: tools(&["strace"])?,
        rounds,
        calls: asked::of_calls(&measured.calls)?,
        jobs: asked::of_jobs(&measured.jobs)?,
        ground: ground.describe(),
    };
    let text = page::render(&facts)?;
    print!("{text}");
    if !options.quick && !options.calls && !options.programs {
        document::write(Part::Backends, &text)?;
    }
    let Tally {
        holds,
        asked,
        impossible,
    } = facts.tally();
    eprintln!("bench: {holds} of {asked} that are asked hold; {impossible} cannot");
    Ok(0)
}

/// One round of the loops. Every other round goes the other way, so that a drift does not favour one tool.
fn calls(
    timings: &mut Timings<Place>,
    round: u32,
    effort: Effort,
    processor: usize,
) -> anyhow::Result<()> {
    let mut all: Vec<_> = Place::all()
        .into_iter()
        .flat_map(|place| place.tools().into_iter().map(move |tool| (place, tool)))
        .collect();
    if round % 2 == 1 {
        all.reverse();
    }
    for (place, tool) in all {
        let time = measure::call(place, tool, effort, processor)
            .with_context(|| format!("{tool:?}, {place:?}"))?;
        timings.add(place, tool, time);
    }
    Ok(())
}

/// One round of the real programs.
fn jobs(
    timings: &mut Timings<Job>,
    round: u32,
    ground: &Ground,
    processor: usize,
) -> anyhow::Result<()> {
    let mut all: Vec<_> = Job::all()
        .into_iter()
        .flat_map(|job| place::TOOLS.map(|tool| (job, tool)))
        .collect();
    if round % 2 == 1 {
        all.reverse();
    }
    for (job, tool) in all {
        let time = ground
            .run(job, tool, processor)
            .with_context(|| format!("{tool:?}, {job:?}"))?;
        timings.add(job, tool, time);
    }
    Ok(())
}

/// The command that makes the same part again.
fn command(options: &Options) -> String {
    let mut words = vec!["cargo xtask bench backends".to_owned()];
    if options.rounds != ROUNDS {
        words.push(format!("--rounds {}", options.rounds));
    }
    for (given, word) in [
        (options.quick, "--quick"),
        (options.calls, "--calls"),
        (options.programs, "--programs"),
    ] {
        if given {
            words.push(word.to_owned());
        }
    }
    words.join(" ")
}

/// The processor, how many there are, and the kernel.
pub(super) fn machine() -> anyhow::Result<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
    let name = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .and_then(|rest| rest.split_once(':'))
        .map_or("an unnamed processor", |(_, name)| name.trim());
    let virtual_machine = if cpus.contains(" hypervisor") {
        ", in a virtual machine"
    } else {
        ""
    };
    Ok(format!(
        "{name}, {} processors{virtual_machine}, Linux {}",
        std::thread::available_parallelism()?,
        kernel.trim()
    ))
}

/// The last processor that this process may run on: the first takes most interrupts.
fn last_allowed() -> anyhow::Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.and_then(last_of)
        .context("no processors in /proc/self/status")
}

/// The last of a list like `0-3,6`.
fn last_of(list: &str) -> Option<usize> {
    list.trim().rsplit([',', '-']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Options, ROUNDS, command, last_of};

    #[test]
    fn the_last_processor_of_a_list() {
        assert_eq!(last_of("\t0-3,6\n"), Some(6));
        assert_eq!(last_of("0-11"), Some(11));
        assert_eq!(last_of("2"), Some(2));
        assert_eq!(last_of(""), None);
    }

    #[test]
    fn the_command_is_said_as_it_was_typed() {
        let mut options = Options {
            rounds: ROUNDS,
            quick: false,
            calls: false,
            programs: false,
        };
        assert_eq!(command(&options), "cargo xtask bench backends");
        options.rounds = 7;
        options.quick = true;
        assert_eq!(
            command(&options),
            "cargo xtask bench backends --rounds 7 --quick"
        );
    }
}
