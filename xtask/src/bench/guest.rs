//! The measurements, in the guest: every round starts every tool anew and checks that it saw every call and that the
//! calls ended as they should, so that no figure is that of a tool which was not there.

use super::figures::{Armed, Arming, PerCall, Reading, median};
use super::row::{CASES, Call, Case, Fires, Row, Script, Tool, Unit};
use super::{programs, tool};
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Options of the hidden `cargo xtask bench guest`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    unit: Unit,
    rounds: u32,
}

/// How often a loop makes its call: `rounds` times `calls`.
#[derive(Debug, Clone, Copy)]
struct Repeats {
    rounds: u32,
    calls: u32,
}

/// Short rounds count instructions (most have no clock tick in them); long ones take a time that the clock can tell.
/// strace's calls are a thousand times as long, and its rule ends at 65535 of them.
fn repeats(tool: Tool, unit: Unit) -> Repeats {
    let (rounds, calls) = match (tool, unit) {
        (Tool::StraceSeccomp | Tool::StraceAttach, _) => (7, 20),
        (_, Unit::Instructions) => (41, 200),
        (_, Unit::Nanoseconds) => (11, 2000),
    };
    Repeats { rounds, calls }
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

/// A process that waits for a line and then makes its calls.
#[derive(Debug)]
struct Victim {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Victim {
    fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut victim = Self {
            child,
            stdout: BufReader::new(stdout),
        };
        let ready = victim.line()?;
        anyhow::ensure!(ready == "ready", "bench_call says {ready:?}");
        Ok(victim)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    fn release(&mut self) -> anyhow::Result<()> {
        let stdin = self.child.stdin.as_mut().context("no standard input")?;
        stdin.write_all(b"\n")?;
        Ok(())
    }

    /// Ends it and returns the rest of what it said.
    fn finish(mut self) -> anyhow::Result<String> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.stdout.read_to_string(&mut text)?;
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "bench_call ended with {status}");
        Ok(text)
    }
}

/// One loop's command line; strace launches it.
fn bench_call(case: &Case, call: Call, unit: Unit, repeats: Repeats) -> Command {
    let program = programs().join("bench_call");
    let mut command = if case.tool == Tool::StraceSeccomp {
        let mut command = Command::new("strace");
        command
            .args(tool::strace_words())
            .arg("--seccomp-bpf")
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    command.args([call.word(), unit.word()]);
    command.args([repeats.rounds.to_string(), repeats.calls.to_string()]);
    command
}

/// One case: its loops wait, its tool is armed, the loops run one after the other.
fn measure(case: &Case, unit: Unit) -> anyhow::Result<Vec<(Row, PerCall)>> {
    let repeats = repeats(case.tool, unit);
    let mut victims = Vec::new();
    for one in case.loops {
        victims.push((
            one,
            Victim::start(bench_call(case, one.call, unit, repeats))?,
        ));
    }
    let targets: Vec<u32> = victims
        .iter()
        .filter(|(one, _)| one.target)
        .map(|(_, victim)| victim.child.id())
        .collect();
    let mut running = tool::spawn(case.tool, case.fires, &targets)?;
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
        let figure = read(&text, repeats, errno).with_context(|| format!("{:?}", one.row))?;
        figures.push((one.row, figure));
        if one.target && one.call == Call::Fsync {
            named += u64::from(repeats.rounds * repeats.calls);
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

/// Reads what `bench_call` printed. Every call must have failed with `errno`, or none where that is 0.
fn read(text: &str, repeats: Repeats, errno: i32) -> anyhow::Result<PerCall> {
    let field = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .with_context(|| format!("no {key:?} in {text:?}"))
    };
    let expected = if errno == 0 {
        String::new()
    } else {
        format!("{errno}={}", repeats.rounds * repeats.calls)
    };
    let errors = field("errors")?.trim();
    anyhow::ensure!(
        errors == expected,
        "the calls failed as {errors:?}, not as {expected:?}"
    );
    let rounds: Vec<f64> = field("rounds")?
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    anyhow::ensure!(
        rounds.len() == repeats.rounds as usize,
        "rounds are missing"
    );
    let calls = f64::from(repeats.calls);
    Ok(PerCall {
        median: median(rounds.iter().copied()).context("no rounds")? / calls,
        mean: rounds.iter().sum::<f64>() / calls / f64::from(repeats.rounds),
    })
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
    let mut running = tool::spawn(kind, Fires::Always, &[victim.child.id()])?
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

#[cfg(test)]
mod tests {
    use super::{Repeats, read};

    #[test]
    fn a_figure_is_taken_only_where_every_call_ended_as_it_should() {
        let repeats = Repeats {
            rounds: 3,
            calls: 10,
        };
        let figure = read("rounds 100 4000 200\nerrors 9=30\n", repeats, libc::EBADF).unwrap();
        assert!((figure.median - 20.0).abs() < 1e-9);
        assert!((figure.mean - 4300.0 / 30.0).abs() < 1e-9);
        assert!(read("rounds 1 2 3\nerrors\n", repeats, 0).is_ok());
        for (text, errno) in [
            ("rounds 1 2 3\nerrors 5=1 9=29\n", libc::EIO),
            ("rounds 1 2 3\nerrors 9=30\n", libc::EIO),
            ("rounds 1 2 3\nerrors 9=30\n", 0),
            ("rounds 1 2\nerrors 9=30\n", libc::EBADF),
            ("errors 9=30\n", libc::EBADF),
            ("", 0),
        ] {
            assert!(read(text, repeats, errno).is_err(), "{text}");
        }
    }
}
