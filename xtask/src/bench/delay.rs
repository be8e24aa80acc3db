//! `cargo xtask bench delay`: how far delayed calls are from what was asked of them. A call is delayed by each tool, and
//! beside it as many threads sleep as long by clock_nanosleep(2) in the same run: what a delay takes beyond that is its
//! error. On this machine by the backends that decide in user space, and in a virtual machine by the kernel program, each
//! beside strace. Then how soon `finject ctl arm` is in force, and, in counted instructions, what a delay that does not come
//! costs the calls of a process that is held ready for it.

use super::document::{self, Part};
use super::row::{Aim, Call, Fires, NAMED, Placement, Tool, Unit};
use super::tool;
use super::victim::{self, Repeats, Victim};
use super::{KERNEL, command, compile, ordinary, programs, tools};
use crate::setup::{self, Need};
use crate::vm;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Options of `cargo xtask bench delay`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The kernel of the virtual machine
    #[arg(long, value_name = "NAME|PATH", default_value = KERNEL)]
    kernel: String,
    /// Rounds, in each of which every tool is started anew
    #[arg(long, value_name = "N", default_value_t = ROUNDS)]
    rounds: u32,
    /// Only on this machine: prints the tables and writes no page
    #[arg(long)]
    host: bool,
}

/// Options of the hidden `cargo xtask bench guest-delay`.
#[derive(Debug, clap::Args)]
pub(crate) struct GuestOptions {
    unit: Unit,
    rounds: u32,
}

const ROUNDS: u32 = 3;

/// Calls of one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Case {
    /// The delay in microseconds.
    us: u32,
    threads: u32,
    /// Of each thread.
    calls: u32,
}

const CASES: [Case; 8] = {
    const fn case(us: u32, threads: u32, calls: u32) -> Case {
        Case { us, threads, calls }
    }
    [
        case(1_000, 1, 200),
        case(10_000, 1, 50),
        case(100_000, 1, 10),
        case(1_000_000, 1, 3),
        case(1_000, 100, 10),
        case(10_000, 100, 5),
        case(100_000, 100, 3),
        case(1_000_000, 100, 2),
    ]
};

/// What delays on this machine.
const HOST: [Tool; 4] = [
    Tool::Notify,
    Tool::TraceLaunched,
    Tool::TraceAttached,
    Tool::StraceSeccomp,
];
/// What delays in the virtual machine.
const GUEST: [Tool; 2] = [Tool::Finject, Tool::StraceAttach];

fn label(tool: Tool) -> &'static str {
    match tool {
        Tool::Finject => "ebpf",
        Tool::Notify => "notify",
        Tool::TraceLaunched => "ptrace, launched",
        Tool::TraceAttached => "ptrace, attached",
        Tool::StraceAttach => "strace -p",
        Tool::StraceSeccomp => "strace --seccomp-bpf",
        _ => "?",
    }
}

fn is_strace(tool: Tool) -> bool {
    matches!(tool, Tool::StraceAttach | Tool::StraceSeccomp)
}

/// What the calls of one case took under one tool, beyond as many sleeps, in nanoseconds: sorted.
type Errors = Vec<i64>;

/// The errors by case and tool, in the order of both.
#[derive(Debug, Serialize, Deserialize)]
struct Timed {
    errors: Vec<Vec<Errors>>,
    /// From the request to the answer of `finject ctl arm`, nanoseconds.
    arming_ns: Vec<u64>,
}

/// Instructions of a call, by what it is: see [`COUNTED`].
#[derive(Debug, Serialize, Deserialize)]
struct Counted(Vec<f64>);

/// What is counted: the call, and whether its rule delays, fails, or is not there.
const COUNTED: [(Call, Option<Fires>); 6] = [
    (Call::Fsync, None),
    (Call::Fsync, Some(Fires::Never)),
    (Call::Fsync, Some(Fires::DelaysNever)),
    (Call::Getppid, None),
    (Call::Getppid, Some(Fires::Never)),
    (Call::Getppid, Some(Fires::DelaysNever)),
];

/// Measures all, and writes the page.
pub(super) fn run(options: &Options) -> anyhow::Result<i32> {
    setup::ensure(&[Need::Compiler, Need::Bench, Need::Vm])?;
    vm::build()?;
    compile()?;
    let rounds = options.rounds.max(1);
    let host = time(&HOST, rounds)?;
    let mut page = String::new();
    let mut verdicts = Verdicts::default();
    write!(
        page,
        "## Delays\n\nWritten by `{}`; do not edit.\n\n{}. Tools: {}.\n\nA call is delayed, and in the same run as many threads \
         sleep as long by clock_nanosleep(2): what a delayed call takes beyond their median is its error. Rounds: {rounds}. \
         Milliseconds, median and 99th percentile; times decide nothing, what is compared is in one run.\n\n\
         Asked is: a better median and 99th percentile than strace's `delay_enter`; on this machine a median below 1 ms and a 99th \
         percentile below 5 ms, in the virtual machine one below 15 ms; `finject ctl arm` in force within 2 ms, by the median; \
         and in counted instructions no more, of calls that are not delayed, than a rule costs that has no delay. What does not \
         hold is **bold**.\n\n",
        command("delay", &options.kernel, rounds, ROUNDS),
        super::backends::machine()?,
        tools(&["strace"])?.join(", "),
    )?;
    let own = Limits {
        median_ms: 1.0,
        p99_ms: 5.0,
    };
    table(
        &mut page,
        "On this machine",
        &HOST,
        &host,
        own,
        &mut verdicts,
    )?;
    if !options.host {
        let kernel = vm::obtain(&options.kernel)?.path;
        let guest: Timed = guest(&kernel, Unit::Nanoseconds, rounds)?;
        let limits = Limits {
            median_ms: f64::INFINITY,
            p99_ms: 15.0,
        };
        table(
            &mut page,
            "In the virtual machine",
            &GUEST,
            &guest,
            limits,
            &mut verdicts,
        )?;
        let counted: Counted = self::guest(&kernel, Unit::Instructions, 1)?;
        instructions(&mut page, &counted, &mut verdicts)?;
    }
    print!("{page}");
    if !options.host {
        document::write(Part::Delay, &page)?;
    }
    eprintln!(
        "bench: {} of {} that are asked hold",
        verdicts.hold, verdicts.asked
    );
    Ok(0)
}

/// One boot, in which this program measures.
fn guest<T: serde::de::DeserializeOwned>(
    kernel: &Path,
    unit: Unit,
    rounds: u32,
) -> anyhow::Result<T> {
    ordinary(
        kernel,
        unit,
        [
            "guest-delay".into(),
            unit.word().into(),
            rounds.to_string().into(),
        ],
    )
}

/// The measurements, in the guest.
pub(super) fn run_guest(options: &GuestOptions) -> anyhow::Result<()> {
    let answer = match options.unit {
        Unit::Nanoseconds => serde_json::to_string(&time(&GUEST, options.rounds)?)?,
        Unit::Instructions => serde_json::to_string(&count()?)?,
    };
    println!("{answer}");
    Ok(())
}

/// Every case under every tool; every other round goes the other way.
fn time(tools: &[Tool], rounds: u32) -> anyhow::Result<Timed> {
    let mut errors = vec![vec![Errors::new(); tools.len()]; CASES.len()];
    for round in 0..rounds {
        let since = Instant::now();
        let mut all: Vec<_> = (0..CASES.len())
            .flat_map(|case| (0..tools.len()).map(move |tool| (case, tool)))
            .collect();
        if round % 2 == 1 {
            all.reverse();
        }
        for (case, tool) in all {
            let (one, which) = (CASES[case], tools[tool]);
            let found = errors_of(one, which).with_context(|| format!("{which:?}, {one:?}"))?;
            errors[case][tool].extend(found);
        }
        eprintln!(
            "bench: round {} of {rounds}, {:.0} s",
            round + 1,
            since.elapsed().as_secs_f64()
        );
    }
    for error in errors.iter_mut().flatten() {
        error.sort_unstable();
    }
    let holder = if tools.contains(&Tool::Finject) {
        Tool::Finject
    } else {
        Tool::TraceAttached
    };
    Ok(Timed {
        errors,
        arming_ns: arming(holder)?,
    })
}

/// How long the calls of a case took, in nanoseconds.
fn took(text: &str, case: Case) -> anyhow::Result<Vec<i64>> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("took "));
    let took: Vec<i64> = lines.map(str::parse).collect::<Result<_, _>>()?;
    let all = (case.threads * case.calls) as usize;
    anyhow::ensure!(
        took.len() == all,
        "{} calls of {all} were timed",
        took.len()
    );
    Ok(took)
}

fn bench_delay(case: Case, sleeps: bool) -> Vec<OsString> {
    let mut words = vec![
        programs().join("bench_delay").into(),
        case.threads.to_string().into(),
        case.calls.to_string().into(),
    ];
    if sleeps {
        words.push((u64::from(case.us) * 1000).to_string().into());
    }
    words
}

/// What a case's calls take under a tool beyond the median of as many sleeps.
fn errors_of(case: Case, tool: Tool) -> anyhow::Result<Errors> {
    let mut sleeper = Victim::start(tool::command_of(bench_delay(case, true))?)?;
    sleeper.release()?;
    let mut slept = took(&sleeper.finish()?, case)?;
    slept.sort_unstable();
    let usual = slept[slept.len() / 2];

    let aim = Aim {
        call: NAMED,
        fires: Fires::Delays { us: case.us },
    };
    let mut words = tool::launcher(tool, aim);
    words.extend(bench_delay(case, false));
    let mut victim = Victim::start(tool::command_of(words)?)?;
    let mut attached = tool::spawn(tool, aim, &[victim.id()], Placement::Free)?;
    if let Some(attached) = &mut attached {
        attached.wait_until_armed()?;
    }
    victim.release()?;
    let text = victim.finish()?;
    let counted = match attached {
        Some(attached) => attached.finish()?,
        None => tool::launched_count(tool, &text)?,
    };
    let took = took(&text, case)?;
    anyhow::ensure!(
        counted.is_none_or(|counted| counted == took.len() as u64),
        "finject counted {counted:?} calls, not {}",
        took.len()
    );
    let asked = i64::from(case.us) * 1000;
    let short = took.iter().filter(|took| **took < asked).count();
    anyhow::ensure!(
        short == 0,
        "{short} calls were not delayed as long as was asked"
    );
    Ok(took.into_iter().map(|took| took - usual).collect())
}

/// From a request to put a rule in force to the answer that it is, nanoseconds, a hundred times.
fn arming(tool: Tool) -> anyhow::Result<Vec<u64>> {
    let case = Case {
        us: 1000,
        threads: 1,
        calls: 1,
    };
    let mut victim = Victim::start(tool::command_of(bench_delay(case, false))?)?;
    let aim = Aim {
        call: NAMED,
        fires: Fires::Delays { us: 1000 },
    };
    let mut running = tool::spawn(tool, aim, &[victim.id()], Placement::Free)?
        .context("the tool attaches to nothing")?;
    running.wait_until_armed()?;
    let socket = format!("/run/finject/{}.sock", running.id());
    let stream = UnixStream::connect(&socket).with_context(|| socket.clone())?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut ask = |what: &str| -> anyhow::Result<u64> {
        let since = Instant::now();
        writeln!(&stream, r#"{{"do":"{what}"}}"#)?;
        let mut answer = String::new();
        answers.read_line(&mut answer)?;
        let took = since.elapsed();
        anyhow::ensure!(answer.contains("done"), "{what}: {answer}");
        Ok(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))
    };
    let mut arming = Vec::new();
    for _ in 0..100 {
        ask("disarm")?;
        std::thread::sleep(Duration::from_millis(2));
        arming.push(ask("arm")?);
    }
    victim.release()?;
    victim.finish()?;
    running.finish()?;
    arming.sort_unstable();
    Ok(arming)
}

/// Instructions of calls that are not delayed.
fn count() -> anyhow::Result<Counted> {
    let repeats = Repeats {
        rounds: 41,
        calls: 200,
        threads: 1,
    };
    let mut counted = Vec::new();
    for (call, fires) in COUNTED {
        let words = victim::bench_call(call, Unit::Instructions, repeats);
        let mut victim = Victim::start(tool::command_of(words)?)?;
        let running = match fires {
            None => None,
            Some(fires) => {
                let aim = Aim { call: NAMED, fires };
                tool::spawn(Tool::Finject, aim, &[victim.id()], Placement::Free)?
            }
        };
        let mut running = running;
        if let Some(running) = &mut running {
            running.wait_until_armed()?;
        }
        victim.release()?;
        let text = victim.finish()?;
        let figure = victim::read(&text, repeats, call.own_errno())?;
        if let Some(running) = running {
            running.finish()?;
        }
        counted.push(figure.median);
    }
    Ok(Counted(counted))
}

/// How many of what is asked hold.
#[derive(Debug, Default)]
struct Verdicts {
    hold: usize,
    asked: usize,
}

impl Verdicts {
    fn add(&mut self, holds: bool) -> bool {
        self.asked += 1;
        self.hold += usize::from(holds);
        holds
    }
}

/// What is asked beside being better than strace.
#[derive(Debug, Clone, Copy)]
struct Limits {
    median_ms: f64,
    p99_ms: f64,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds of seconds are below 2^53"
)]
fn ms(ns: i64) -> f64 {
    ns as f64 / 1e6
}

/// A value below which that many of a hundred are, of sorted ones; the last where there are fewer.
fn percentile(sorted: &[i64], percent: usize) -> f64 {
    let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    ms(sorted.get(at).copied().unwrap_or(0))
}

fn length(us: u32) -> String {
    if us >= 1_000_000 {
        format!("{} s", us / 1_000_000)
    } else {
        format!("{} ms", us / 1000)
    }
}

fn bold(text: String, holds: bool) -> String {
    if holds { text } else { format!("**{text}**") }
}

fn table(
    page: &mut String,
    title: &str,
    tools: &[Tool],
    timed: &Timed,
    limits: Limits,
    verdicts: &mut Verdicts,
) -> anyhow::Result<()> {
    let head: Vec<_> = tools.iter().map(|tool| label(*tool)).collect();
    let rule = " ---: |".repeat(tools.len());
    write!(
        page,
        "### {title}\n\n| delay | threads | {} |\n| ---: | ---: |{rule}\n",
        head.join(" | ")
    )?;
    for (case, errors) in CASES.iter().zip(&timed.errors) {
        write!(page, "| {} | {} |", length(case.us), case.threads)?;
        let strace = tools.iter().position(|tool| is_strace(*tool)).unwrap_or(0);
        let theirs = [50, 99].map(|percent| percentile(&errors[strace], percent));
        for (tool, errors) in tools.iter().zip(errors) {
            let own = [50, 99].map(|percent| percentile(errors, percent));
            let [median, p99] = own.map(|error| format!("{error:.2}"));
            if is_strace(*tool) {
                write!(page, " {median}, {p99} |")?;
                continue;
            }
            let median_holds = verdicts.add(own[0] < theirs[0] && own[0] < limits.median_ms);
            let p99_holds = verdicts.add(own[1] < theirs[1] && own[1] < limits.p99_ms);
            write!(
                page,
                " {}, {} |",
                bold(median, median_holds),
                bold(p99, p99_holds)
            )?;
        }
        page.push('\n');
    }
    let arming: Vec<i64> = timed
        .arming_ns
        .iter()
        .map(|ns| i64::try_from(*ns).unwrap_or(i64::MAX))
        .collect();
    let median = percentile(&arming, 50);
    let holds = verdicts.add(median < 2.0);
    let median = bold(format!("{median:.2} ms"), holds);
    writeln!(
        page,
        "\n`finject ctl arm` to in force: {median} by the median, {:.2} ms by the 99th percentile.\n",
        percentile(&arming, 99)
    )?;
    Ok(())
}

fn instructions(
    page: &mut String,
    counted: &Counted,
    verdicts: &mut Verdicts,
) -> anyhow::Result<()> {
    page.push_str("### What a delay costs that does not come\n\nInstructions of the guest.\n\n");
    page.push_str("| call | no finject | `fsync=EIO@1000000000` | `fsync=delay:1s@1000000000` |\n");
    page.push_str("| --- | ---: | ---: | ---: |\n");
    for (name, figures) in ["fsync(-1)", "getppid()"].iter().zip(counted.0.chunks(3)) {
        let [none, fails, delays] = figures else {
            anyhow::bail!("figures are missing");
        };
        let most = if *name == "getppid()" { *none } else { *fails };
        let holds = verdicts.add(*delays <= most);
        let delays = bold(format!("{delays:.1}"), holds);
        writeln!(page, "| {name} | {none:.1} | {fails:.1} | {delays} |")?;
    }
    page.push('\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_those_that_were_measured() {
        let errors: Vec<i64> = (1..=200).map(|ms| ms * 1_000_000).collect();
        assert!((percentile(&errors, 50) - 100.0).abs() < 1e-9);
        assert!((percentile(&errors, 99) - 198.0).abs() < 1e-9);
        assert!((percentile(&errors[..3], 99) - 3.0).abs() < 1e-9);
        assert!(percentile(&[], 50).abs() < 1e-9);
    }

    #[test]
    fn a_run_counts_only_where_every_call_was_timed() {
        let case = Case {
            us: 1,
            threads: 2,
            calls: 1,
        };
        assert_eq!(took("took 5\nother\ntook 7\n", case).unwrap(), [5, 7]);
        assert!(took("took 5\n", case).is_err());
        assert!(took("took x\ntook 1\n", case).is_err());
    }
}
