//! `cargo xtask bench`: what a call costs beside other tools. Writes doc/benchmarks.md, a part for each command.
//!
//! `override` is about hooks in the kernel: a hooked call is counted in a guest's instructions and timed, and what it takes
//! to be armed. It fails when a condition on the speed does not hold. The task boots the same machine twice and runs itself
//! in it ([`guest`]): once with a clock that counts instructions, whose figures repeat and decide, and once as an ordinary
//! machine, whose timings are shown.
//!
//! `delay` is about how exact delays are, and what they cost: see [`delay`].
//!
//! `backends` is about those that decide in user space, timed on this machine: see [`backends`].

mod backends;
mod condition;
mod delay;
mod document;
mod figures;
mod guest;
mod page;
mod row;
mod tool;
mod victim;

use crate::repo;
use crate::setup::{self, Need};
use crate::vm::{self, Boot, BootError};
use anyhow::Context as _;
use document::Part;
use figures::Reading;
use row::Unit;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Measures finject against other tools.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Options {
    /// The override mechanism: cost of a call, time to armed and memory; writes doc/benchmarks.md
    Override(Override),
    /// Notification and ptrace: cost of a call and of real programs, on this machine; writes doc/benchmarks.md
    Backends(backends::Options),
    /// Delays: how far they are from what was asked, on this machine and in a virtual one; writes doc/benchmarks.md
    Delay(delay::Options),
    /// Those in the guest
    #[command(hide = true)]
    GuestDelay(delay::GuestOptions),
    /// The measurements themselves, in the guest
    #[command(hide = true)]
    Guest(guest::Options),
}

/// Options of `cargo xtask bench override`.
#[derive(Debug, clap::Args)]
pub(crate) struct Override {
    /// The kernel to measure on
    #[arg(long, value_name = "NAME|PATH", default_value = KERNEL)]
    kernel: String,
    /// Rounds of the timings
    #[arg(long, value_name = "N", default_value_t = ROUNDS)]
    rounds: u32,
}

/// The programs that are measured and that measure, compiled from tests/programs.
const PROGRAMS: &[&str] = &["bench_call", "bench_delay", "bench_floor", "bench_raw"];

/// Runs the subcommand; the status is 1 where a condition does not hold.
pub(crate) fn run(options: Options) -> anyhow::Result<i32> {
    match options {
        Options::Override(options) => measure(&options),
        Options::Backends(options) => backends::run(&options),
        Options::Delay(options) => delay::run(&options),
        Options::GuestDelay(options) => delay::run_guest(&options).map(|()| 0),
        Options::Guest(options) => guest::run(&options).map(|()| 0),
    }
}

fn measure(options: &Override) -> anyhow::Result<i32> {
    setup::ensure(&[Need::Compiler, Need::Vm, Need::Apps])?;
    let kernel = vm::obtain(&options.kernel)?;
    vm::build()?;
    compile()?;
    eprintln!("bench: counting instructions");
    let counted = boot(&kernel.path, Unit::Instructions, 1)?;
    eprintln!(
        "bench: timing, {} rounds of all rows",
        options.rounds.max(1)
    );
    let timed = boot(&kernel.path, Unit::Nanoseconds, options.rounds.max(1))?;
    let conditions = condition::all(&counted, &timed)?;
    let page = page::render(&page::Facts {
        command: command("override", &options.kernel, options.rounds, ROUNDS),
        tools: tools(&["bpftrace", "strace", "qemu-system-x86_64"])?,
        counted: &counted,
        timed: &timed,
        conditions: &conditions,
    })?;
    document::write(Part::Override, &page)?;
    print!("{page}");
    let failed = conditions
        .iter()
        .filter(|condition| condition.verdict == condition::Verdict::Fails)
        .count();
    if failed > 0 {
        eprintln!(
            "bench: {failed} of {} conditions do not hold",
            conditions.len()
        );
    }
    Ok(i32::from(failed > 0))
}

/// Rounds of the timings where nothing is said.
const ROUNDS: u32 = 5;
/// The kernel that is measured on where nothing is said.
const KERNEL: &str = "6.12";

/// The command that makes the same page again; `usual` rounds need not be named.
fn command(what: &str, kernel: &str, rounds: u32, usual: u32) -> String {
    let mut words = vec![format!("cargo xtask bench {what}")];
    if kernel != KERNEL {
        let name = Path::new(kernel).file_name().unwrap_or_default();
        words.push(format!("--kernel {}", name.to_string_lossy()));
    }
    if rounds != usual {
        words.push(format!("--rounds {rounds}"));
    }
    words.join(" ")
}

/// Where the compiled programs are.
fn programs() -> PathBuf {
    repo::root().join("target/bench")
}

fn compile() -> anyhow::Result<()> {
    let directory = programs();
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    for program in PROGRAMS {
        let status = Command::new("cc")
            .args(["-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(directory.join(program))
            .arg(repo::root().join(format!("tests/programs/{program}.c")))
            .status()
            .context("cannot run cc")?;
        anyhow::ensure!(
            status.success(),
            "tests/programs/{program}.c does not compile"
        );
    }
    Ok(())
}

/// One boot, in which this program measures all rows.
fn boot(kernel: &Path, unit: Unit, rounds: u32) -> anyhow::Result<Reading> {
    let words = [
        "guest".into(),
        unit.word().into(),
        rounds.to_string().into(),
    ];
    ordinary(kernel, unit, words)
}

/// One boot, in which this program measures with these words, and what it answers.
fn ordinary<T: serde::de::DeserializeOwned>(
    kernel: &Path,
    unit: Unit,
    measures: [OsString; 3],
) -> anyhow::Result<T> {
    let this: OsString = std::env::current_exe()
        .context("cannot find this program")?
        .into();
    let words = [this, "bench".into()].into_iter().chain(measures);
    let mut boot = Boot::new(kernel, words);
    boot.icount = unit == Unit::Instructions;
    // The other boot has one processor too. With several, emulated by a thread each, one may run a breakpoint of the
    // kernel's own code patching after it is gone, and the guest dies of `Oops: int3` (qemu before 8.1; seen with 7.2 in
    // one of some hundred attachments to a function that was being called).
    boot.smp = 1;
    boot.timeout = Duration::from_mins(7);
    boot.capture = true;
    let outcome = vm::boot(&boot).inspect_err(|error| {
        if let Some(failure) = error.downcast_ref::<BootError>() {
            eprintln!("{}", failure.report());
        }
    })?;
    anyhow::ensure!(
        outcome.status == 0,
        "the measurements ended with {}:\n{}",
        outcome.status,
        String::from_utf8_lossy(&outcome.output)
    );
    serde_json::from_slice(&outcome.stdout).context("cannot read the measurements' answer")
}

/// finject's version and those of other tools: the first lines of what they say of it.
fn tools(others: &[&str]) -> anyhow::Result<Vec<String>> {
    let finject = repo::root().join("target/release/finject");
    [finject.as_os_str()]
        .into_iter()
        .chain(others.iter().map(OsStr::new))
        .map(|program| {
            let output = Command::new(program)
                .arg("--version")
                .output()
                .with_context(|| format!("cannot run {}", program.display()))?;
            let text = String::from_utf8_lossy(&output.stdout);
            let line = text.lines().next().unwrap_or_default();
            Ok(line.replace(" -- version", "").replace(" version", ""))
        })
        .collect()
}
