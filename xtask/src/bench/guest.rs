//! The measurements, in the guest: every round starts every tool anew and checks that it saw every call and that the
//! calls ended as they should, so that no figure is that of a tool which was not there.

use super::figures::{Armed, Arming, PerCall, Reading};
use super::programs;
use super::row::{Aim, CASES, Case, Fires, NAMED, Placement, Row, Script, Tool, Unit};
use super::tool;
use super::victim::{self, Repeats, Victim};
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::process::Command;
use std::time::{Duration, Instant};

/// Options of the hidden `cargo xtask bench guest`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    unit: Unit,
    rounds: u32,
}

/// Short rounds count instructions (most have no clock tick in them); long ones take a time that the clock can tell.
/// strace's calls are a thousand times as long, and its rule ends at 65535 of them.
fn repeats(tool: Tool, unit: Unit) -> Repeats {
    let (rounds, calls) = match (tool, unit) {
        (Tool::StraceSeccomp | Tool::StraceAttach, _) => (7, 20),
        (_, Unit::Instructions) => (41, 200),
        (_, Unit::Nanoseconds) => (11, 2000),
    };
    Repeats {
        rounds,
        calls,
        threads: 1,
    }
}

/// Measures everything and prints the answer as JSON.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut reading = Reading {
        kernel: kernel.trim().to_owned(),
        processors: std::thread::available_parallelism()?.get(),
        unit: options.unit,
        rows: Row::ALL.map(|row| (row, Vec::new())).into(),
        arming: Armed::ALL.map(|tool| (tool, Vec::new())).into(),
    };
    for _ in 0..options.rounds {
        for case in CASES {
            let since = Instant::now();
            for (row, run) in measure(case, options.unit).with_context(|| format!("{case:?}"))? {
                for (_, runs) in reading.rows.iter_mut().filter(|(key, _)| *key == row) {
                    runs.push(run);
                }
            }
            progress(since, case);
        }
    }
    // After the rows, which have brought every tool's files into memory.
    for _ in 0..options.rounds {
        for (tool, starts) in &mut reading.arming {
            let since = Instant::now();
            starts.push(arm(*tool).with_context(|| format!("{tool:?}"))?);
            progress(since, tool);
        }
    }
    println!("{}", serde_json::to_string(&reading)?);
    Ok(())
}

/// Says on standard error how long a step took, for a measurement that failed or lasts.
fn progress(since: Instant, step: &dyn std::fmt::Debug) {
    eprintln!("{:6.2} s  {step:?}", since.elapsed().as_secs_f64());
}

/// One case: its loops wait, its tool is armed, the loops run one after the other.
fn measure(case: &Case, unit: Unit) -> anyhow::Result<Vec<(Row, PerCall)>> {
    let repeats = repeats(case.tool, unit);
    let mut victims = Vec::new();
    let aim = Aim {
        call: NAMED,
        fires: case.fires,
    };
    for one in case.loops {
        let mut words = tool::launcher(case.tool, aim);
        words.extend(victim::bench_call(one.call, unit, repeats));
        victims.push((one, Victim::start(tool::command_of(words)?)?));
    }
    let targets: Vec<u32> = victims
        .iter()
        .filter(|(one, _)| one.target)
        .map(|(_, victim)| victim.id())
        .collect();
    let mut running = tool::spawn(case.tool, aim, &targets, Placement::Free)?;
    if let Some(running) = &mut running {
        running.wait_until_armed()?;
    }
    let mut figures = Vec::new();
    let mut named = 0;
    for (one, mut victim) in victims {
        victim.release()?;
        let text = victim.finish()?;
        let fires = one.target && case.fires == Fires::Always;
        let errno = if fires {
            libc::EIO
        } else {
            one.call.own_errno()
        };
        let figure =
            victim::read(&text, repeats, errno).with_context(|| format!("{:?}", one.row))?;
        figures.push((one.row, figure));
        if one.target && one.call.word() == NAMED {
            named += u64::from(repeats.total());
        }
    }
    if let Some(running) = running
        && let Some(counted) = running.finish()?
    {
        anyhow::ensure!(
            counted == named,
            "the tool counted {counted} calls of its target, which made {named}"
        );
    }
    Ok(figures)
}

/// Starts a tool on a process that calls once a millisecond, and measures until the first call fails.
fn arm(armed: Armed) -> anyhow::Result<Arming> {
    let mut command = Command::new(programs().join("bench_call"));
    command.args(["fsync", "watch"]);
    let mut victim = Victim::start(command)?;
    victim.release()?;
    std::thread::sleep(Duration::from_millis(50));
    let kind = match armed {
        Armed::Finject => Tool::Finject,
        Armed::BpftraceOnePid => Tool::Bpftrace(Script::OnePid),
        Armed::BpftraceTree => Tool::Bpftrace(Script::Tree),
    };
    let since = Instant::now();
    let aim = Aim {
        call: NAMED,
        fires: Fires::Always,
    };
    let mut running = tool::spawn(kind, aim, &[victim.id()], Placement::Free)?
        .context("the tool attaches to nothing")?;
    let reader = running.take_stdout().context("no standard output")?;
    let ready = std::thread::spawn(move || {
        let mut reader = reader;
        let mut line = String::new();
        // Read to the end, so that the tool never writes into a closed pipe.
        let _ = reader.read_line(&mut line);
        let after = since.elapsed();
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
        after
    });
    let fault = victim.line()?;
    let fault_ns = nanoseconds(since.elapsed());
    let cpu_ms = cpu_time(running.id())?;
    anyhow::ensure!(fault == "fault", "bench_call says {fault:?}");
    // The peak is the tool's once it has settled.
    std::thread::sleep(Duration::from_millis(300));
    let peak_kib = peak(running.id())?;
    let (maps_bytes, programs_bytes) = kernel_memory(running.id())?;
    running.end()?;
    victim.finish()?;
    let ready = ready
        .join()
        .map_err(|_| anyhow::anyhow!("the reader failed"))?;
    Ok(Arming {
        fault_ns,
        cpu_ms,
        ready_ns: (armed == Armed::Finject).then(|| nanoseconds(ready)),
        peak_kib,
        maps_bytes,
        programs_bytes,
    })
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The processor time of a process so far, from fields 14 and 15 of /proc/PID/stat, in hundredths of a second there.
fn cpu_time(pid: u32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, field 2, is in parentheses and may hold anything.
    let (_, after) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks: Vec<u64> = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    anyhow::ensure!(ticks.len() == 2, "no times in stat");
    Ok(ticks.iter().sum::<u64>() * 10)
}

/// VmHWM of /proc/PID/status, in KiB.
fn peak(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.split_whitespace().next())
        .and_then(|value| value.parse().ok())
        .context("no VmHWM")
}

/// The bytes of a process's maps and of its programs; each counts once, however many descriptors it has.
fn kernel_memory(pid: u32) -> anyhow::Result<(u64, u64)> {
    let (mut maps, mut programs) = (BTreeMap::new(), BTreeMap::new());
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed meanwhile.
        let Ok(text) = std::fs::read_to_string(entry?.path()) else {
            continue;
        };
        let field = |key: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().parse().ok()
        };
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, bytes);
        } else if let (Some(id), Some(bytes)) = (field("prog_id:"), field("memlock:")) {
            programs.insert(id, bytes);
        }
    }
    anyhow::ensure!(!maps.is_empty(), "the tool holds no map");
    Ok((maps.values().sum(), programs.values().sum()))
}
