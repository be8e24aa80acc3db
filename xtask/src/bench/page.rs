//! The part of doc/benchmarks.md on hooks in the kernel: the conditions, the tables behind them, and how to read them.

use super::condition::{Condition, Verdict};
use super::figures::{Armed, Arming, Reading};
use super::row::{Aim, Fires, NAMED, Row, Script};
use super::tool;
use std::fmt::Write as _;

/// What the page is made from.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// The command that makes it.
    pub(super) command: String,
    /// The tools' versions.
    pub(super) tools: Vec<String>,
    /// Calls in instructions.
    pub(super) counted: &'a Reading,
    /// Calls in nanoseconds.
    pub(super) timed: &'a Reading,
    /// The conditions.
    pub(super) conditions: &'a [Condition],
}

/// Writes the part.
///
/// # Errors
/// When a row was not measured.
pub(super) fn render(facts: &Facts<'_>) -> anyhow::Result<String> {
    let mut page = String::new();
    head(&mut page, facts)?;
    conditions(&mut page, facts)?;
    calls(&mut page, facts)?;
    arming(&mut page, facts)?;
    rows(&mut page)?;
    Ok(page)
}

fn head(page: &mut String, facts: &Facts<'_>) -> anyhow::Result<()> {
    let Facts { counted, timed, .. } = facts;
    write!(
        page,
        "## Calls hooked in the kernel: `ebpf`\n\n\
         Written by `{}`; do not edit.\n\n\
         Linux {} in qemu, emulated (TCG, no hardware virtualisation). Tools: {}.\n\n\
         Two boots of the same machine:\n\n\
         - *counted*: `-accel tcg,thread=single -icount shift=0,sleep=off`, {} processor. The clock is the count of \
         the guest's instructions, so that rdtsc counts them and figures repeat. They decide.\n\
         - *timed*: without `-icount`, {} processor, {} interleaved rounds; every round starts every tool anew, and a row \
         is the median of its rounds. Times under emulation are no times of a real machine, and depend on what else the \
         host does: they decide nothing. One processor, since the emulator's threads for several do not always agree on \
         code that the kernel patches while it runs.\n\n",
        facts.command,
        counted.kernel,
        facts.tools.join(", "),
        counted.processors,
        timed.processors,
        timed.rows.first().map_or(0, |(_, runs)| runs.len()),
    )?;
    Ok(())
}

fn conditions(page: &mut String, facts: &Facts<'_>) -> anyhow::Result<()> {
    page.push_str(
        "### What is asked\n\n\
         Costs are instructions a call more than without a tool. The command fails when a line says **no**; \
         times, which depend on the host, do not make it fail.\n\n\
         | asked | measured | holds |\n| --- | --- | --- |\n",
    );
    for condition in facts.conditions {
        let word = match condition.verdict {
            Verdict::Holds => "yes",
            Verdict::Fails => "**no**",
            Verdict::FailsByTime => "no, by a timing",
            Verdict::BelowTheFloor => "no: below the kernel's floor",
        };
        writeln!(
            page,
            "| {} | {} | {word} |",
            condition.asked, condition.measured
        )?;
    }
    let floor = facts.counted.over_bare(Row::EmptyMulti)?;
    let kprobe = facts.counted.over_bare(Row::EmptyKprobe)?;
    let own = facts.counted.over_bare(Row::FinjectOther)?;
    let pid = facts.counted.over_bare(Row::PidOther)?;
    let tree = facts.counted.over_bare(Row::TreeOther)?;
    write!(
        page,
        "\nOn a process that is no target, (a) compares with what bpftrace's rule costs on its own target, and (b) with \
         what bpftrace itself costs a process that is no target. {} A probe with an empty program costs {floor:.1} \
         instructions by kprobe.multi, and {kprobe:.1} by kprobe, which bpftrace uses, and finject for up to 32 functions; half of \
         bpftrace's own cost there is {:.1} (one pid) and {:.1} (process tree). Of finject's {own:.1}, what is not the \
         kernel's is {:.1}; of bpftrace's, {:.1} and {:.1}.\n\n",
        if facts
            .conditions
            .iter()
            .any(|condition| condition.verdict == Verdict::BelowTheFloor)
        {
            "No kprobe of any tool can hold (b) where the table says so: the kernel alone costs more."
        } else {
            "The kernel's own cost of a probe is the floor of all of them."
        },
        pid / 2.0,
        tree / 2.0,
        own - kprobe,
        pid - kprobe,
        tree - kprobe,
    )?;
    Ok(())
}

fn calls(page: &mut String, facts: &Facts<'_>) -> anyhow::Result<()> {
    page.push_str(
        "### A call\n\n\
         `fsync(-1)` in a tight loop, unless the row names another call. *mean* is over all rounds of the loop, with \
         the tool's own work on the one processor where it wakes up (reading events, for instance); the other figures \
         are medians, which leave that out. *times* is the timed call over the timed bare call.\n\n\
         | | instructions | over bare | mean | ns | times |\n| --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    let Facts { counted, timed, .. } = facts;
    for row in Row::ALL {
        writeln!(
            page,
            "| {} | {:.1} | {:+.1} | {:.1} | {:.0} | {:.2} |",
            row.label(),
            counted.call(row)?,
            counted.over_bare(row)?,
            counted.mean(row)?,
            timed.call(row)?,
            timed.call(row)? / timed.call(row.bare())?,
        )?;
    }
    page.push('\n');
    Ok(())
}

fn arming(page: &mut String, facts: &Facts<'_>) -> anyhow::Result<()> {
    let Facts { counted, timed, .. } = facts;
    write!(
        page,
        "### Armed, and memory\n\n\
         From before the tool's exec to the first failed call of a target that calls once a millisecond; the rule fires \
         on every call. *counted* is one start by the counted clock, an instruction a nanosecond and what was slept or waited for, the \
         kernel's grace periods among it; *instructions* is the tool's own share of it, to the nearest ten million; \
         *timed* and the memory are medians of {} starts. Peak is the process's VmHWM; maps and programs are what the \
         kernel holds for it (`memlock` in /proc/PID/fdinfo; the buffers of perf events, which bpftrace uses, are not in \
         it). finject first tries its hooks by calls of its own, and says that it is ready (`--ready-fd`) after {:.0} ms \
         in the timed boot.\n\n\
         | | instructions, millions | counted, ms | timed, ms | peak, MiB | maps, KiB | programs, KiB |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        timed.arming.first().map_or(0, |(_, starts)| starts.len()),
        timed.armed(Armed::Finject, |start| start.ready_ns)? / 1e6,
    )?;
    for tool in Armed::ALL {
        let figure = |figure: fn(&Arming) -> u64| timed.armed(tool, |start| Some(figure(start)));
        writeln!(
            page,
            "| {} | {:.0} | {:.0} | {:.0} | {:.1} | {:.0} | {:.0} |",
            tool.label(),
            counted.armed(tool, |start| Some(start.cpu_ms))?,
            counted.armed(tool, |start| Some(start.fault_ns))? / 1e6,
            figure(|start| start.fault_ns)? / 1e6,
            figure(|start| start.peak_kib)? / 1024.0,
            figure(|start| start.maps_bytes)? / 1024.0,
            figure(|start| start.programs_bytes)? / 1024.0,
        )?;
    }
    page.push('\n');
    Ok(())
}

fn rows(page: &mut String) -> anyhow::Result<()> {
    let script = |kind| tool::script(kind, 7, Fires::Never);
    let aim = |fires| Aim { call: NAMED, fires };
    write!(
        page,
        "### The rows\n\n\
         Every loop is tests/programs/bench_call.c, which waits until the tool is armed; every run checks how each call \
         ended, and that finject and bpftrace counted each call of their target. The target here is process 7.\n\n\
         - finject: `finject --pid 7 --rule '{}'`, or `'{}'` where it fires.\n\
         - bpftrace one pid, the shortest script: `{}`. It knows no children. Where it fires, `@c >= 1`.\n\
         - bpftrace process tree, what finject does: `{}`\n\
         - strace: `strace {} --seccomp-bpf bench_call ...`, and with `-p 7` in place of the last. Its counts end at 65535.\n\
         - the kernel's floor: `r0 = 0; exit` on the same function (tests/programs/bench_floor.c).\n\
         - unnamed calls: the calling process is a target, the rule names fsync alone.\n",
        tool::rule(aim(Fires::Never)),
        tool::rule(aim(Fires::Always)),
        script(Script::OnePid),
        script(Script::Tree),
        tool::strace_words(aim(Fires::Never)).join(" "),
    )?;
    Ok(())
}
