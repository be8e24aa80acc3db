//! The part of doc/benchmarks.md on the backends that decide in user space.

use super::super::row::{Aim, Fires, NAMED};
use super::super::tool;
use super::asked::{Line, Ratio};
use std::fmt::Write as _;

/// What the part is made from.
#[derive(Debug)]
pub(super) struct Facts {
    /// The command that makes it.
    pub(super) command: String,
    /// The machine.
    pub(super) machine: String,
    /// The tools' versions.
    pub(super) tools: Vec<String>,
    /// Rounds.
    pub(super) rounds: u32,
    /// The loops.
    pub(super) calls: Vec<Line>,
    /// The programs.
    pub(super) jobs: Vec<Line>,
    /// What the programs do.
    pub(super) ground: String,
}

/// How many of what is asked hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    /// Those that do.
    pub(super) holds: usize,
    /// All that are asked.
    pub(super) asked: usize,
    /// Those that do not, and cannot: the bare mechanism alone costs more.
    pub(super) impossible: usize,
}

impl Facts {
    /// How many of what is asked hold.
    pub(super) fn tally(&self) -> Tally {
        let lines = self.calls.iter().chain(&self.jobs);
        let asked: Vec<(bool, bool)> = lines
            .flat_map(|line| [line.over_raw, line.over_strace])
            .filter_map(|ratio| Some((ratio.holds()?, ratio.is_possible())))
            .collect();
        let count = |wanted: (bool, bool)| asked.iter().filter(|found| **found == wanted).count();
        Tally {
            holds: count((true, true)) + count((true, false)),
            asked: asked.len(),
            impossible: count((false, false)),
        }
    }
}

/// Writes the part.
///
/// # Errors
/// When it cannot be formatted.
pub(super) fn render(facts: &Facts) -> anyhow::Result<String> {
    let mut page = String::new();
    let Tally {
        holds,
        asked,
        impossible,
    } = facts.tally();
    write!(
        page,
        "## Calls decided in user space: `notify` and `ptrace`\n\n\
         Written by `{}`; do not edit.\n\n\
         {}. Tools: {}.\n\n\
         Rounds: {}; every round starts every tool anew, every other one in the opposite order. Times are medians of the \
         rounds, and ratios medians of the rounds' ratios: times depend on the machine and on what else it does, and \
         decide nothing. What is compared is in one run.\n\n\
         Asked is, of a matched call: at most 1.3 times the bare mechanism (*of raw*); of strace at most a third by \
         notify, and at most 60 % by ptrace (*of strace*); of another call: no more than under strace, give or take 5 % \
         of what the timing can tell. **{holds} of {asked} hold.** What does not is **bold**; of {impossible} of them the bare \
         mechanism alone costs more than is asked (*floor*: what it comes to).\n\n",
        facts.command,
        facts.machine,
        facts.tools.join(", "),
        facts.rounds,
    )?;
    calls(&mut page, facts)?;
    jobs(&mut page, facts)?;
    rows(&mut page)?;
    Ok(page)
}

/// A ratio, bold where it is not what is asked.
fn ratio(ratio: Ratio) -> String {
    let text = format!("{:.2}", ratio.value);
    match ratio.holds() {
        Some(false) => format!("**{text}**"),
        Some(true) => text,
        None => format!("({text})"),
    }
}

/// What of it does not hold, in words.
fn verdict(line: &Line) -> String {
    let strace = match line.over_strace.floor {
        Some(floor) if !line.over_strace.is_possible() => format!("strace (floor {floor:.2})"),
        _ => "strace".to_owned(),
    };
    match (line.over_raw.holds(), line.over_strace.holds()) {
        (Some(false), Some(false)) => format!("**no**: raw, {strace}"),
        (Some(false), _) => "**no**: raw".to_owned(),
        (_, Some(false)) => format!("**no**: {strace}"),
        (None, None) => String::new(),
        _ => "yes".to_owned(),
    }
}

fn table(page: &mut String, columns: &[&str], lines: &[Line], digits: usize) -> anyhow::Result<()> {
    let head = columns.join(" | ");
    let rule: String = columns.iter().map(|_| "--- | ").collect();
    write!(
        page,
        "| {head} | finject | no tool | raw | finject | strace | of raw | of strace | holds |\n\
         | {rule}--- | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n"
    )?;
    for line in lines {
        let times = line.times.map(|time| format!("{time:.digits$}"));
        writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} |",
            line.of.join(" | "),
            line.way,
            times.join(" | "),
            ratio(line.over_raw),
            ratio(line.over_strace),
            verdict(line),
        )?;
    }
    page.push('\n');
    Ok(())
}

fn calls(page: &mut String, facts: &Facts) -> anyhow::Result<()> {
    if facts.calls.is_empty() {
        return Ok(());
    }
    page.push_str(
        "### One call\n\n\
         Nanoseconds: the time of a loop over its calls, of all threads together. *pinned*: program and tool are on one \
         processor (`taskset`); *free*: on any. In parentheses stands of what nothing is asked.\n\n",
    );
    table(page, &["call", "threads", "where"], &facts.calls, 0)
}

fn jobs(page: &mut String, facts: &Facts) -> anyhow::Result<()> {
    if facts.jobs.is_empty() {
        return Ok(());
    }
    write!(
        page,
        "### Real programs\n\n\
         Seconds. {} The rule does not fire. *of strace* compares what each adds to the time without a tool; nothing is \
         asked where strace adds less than 5 % of it.\n\n",
        facts.ground
    )?;
    table(page, &["program", "where"], &facts.jobs, 2)
}

fn rows(page: &mut String) -> anyhow::Result<()> {
    let aim = |fires| Aim { call: NAMED, fires };
    let words = |fires| tool::finject_words(Some("notify"), aim(fires)).join(" ");
    write!(
        page,
        "### What is run\n\n\
         Loops are tests/programs/bench_call.c: `fsync(-1)`, which the rules name, or `getppid()`, which they do not. \
         Every run checks how each call ended, and that finject counted each one. Programs are started by a shell that \
         waits for a line, so that a tool is in place before they do anything.\n\n\
         - finject, launched: `finject {} -- bench_call ...`, with `{}` where the rule fires, and `--backend ptrace`; \
         attached: with `--pid` in place of the command.\n\
         - strace, launched: `strace {} --seccomp-bpf bench_call ...`, without `:when=65535` where it fires; attached: \
         with `-p` in place of that.\n\
         - raw: tests/programs/bench_raw.c, which decides nothing and records nothing. `notify`: a call is received and \
         answered, the receiver woken on the caller's processor as finject's is (SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP). \
         `launch`: a seccomp filter stops a thread once at the call, which is waited for and let go. `attach`: nothing in \
         a process that runs makes chosen calls stop, and a stop at entries alone (PTRACE_SYSEMU) has every call skipped; \
         so each call stops twice, at the entry its number is read (PTRACE_PEEKUSER, the shortest request), and each stop \
         is let go with PTRACE_SYSCALL.\n\
         - where a rule fires, finject leaves a record of each firing in memory, which goes no further without \
         `--events`, and strace writes a line for it, to /dev/null; raw loops leave nothing.\n",
        words(Fires::Never),
        tool::rule(aim(Fires::Always)),
        tool::strace_words(aim(Fires::Never)).join(" "),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(over_raw: (f64, Option<f64>), over_strace: (f64, Option<f64>)) -> Line {
        let ratio = |(value, most)| Ratio {
            value,
            most,
            floor: None,
        };
        Line {
            of: vec!["other".to_owned(), "8".to_owned(), "free".to_owned()],
            way: "notify, launched",
            times: [100.0, 1000.4, 1300.0, 5000.0],
            over_raw: ratio(over_raw),
            over_strace: ratio(over_strace),
        }
    }

    fn page(calls: Vec<Line>) -> String {
        render(&Facts {
            command: "cargo xtask bench backends".to_owned(),
            machine: "A processor, 2 processors, Linux 6.12".to_owned(),
            tools: vec!["strace 6.1".to_owned()],
            rounds: 5,
            calls,
            jobs: Vec::new(),
            ground: String::new(),
        })
        .unwrap()
    }

    #[test]
    fn what_does_not_hold_is_said() {
        let mut impossible = line((1.2, Some(1.3)), (0.5, Some(0.3)));
        impossible.over_strace.floor = Some(0.45);
        let page = page(vec![
            impossible,
            line((1.2, Some(1.3)), (0.2, Some(0.3))),
            line((1.4, Some(1.3)), (0.2, Some(0.3))),
            line((1.2, Some(1.3)), (0.4, Some(0.3))),
            line((1.4, Some(1.3)), (0.4, Some(0.3))),
            line((1.4, None), (0.4, Some(0.3))),
            line((1.4, None), (0.2, None)),
        ]);
        let begin = "| other | 8 | free | notify, launched | 100 | 1000 | 1300 | 5000 | ";
        for end in [
            "1.20 | 0.20 | yes |",
            "**1.40** | 0.20 | **no**: raw |",
            "1.20 | **0.40** | **no**: strace |",
            "1.20 | **0.50** | **no**: strace (floor 0.45) |",
            "**1.40** | **0.40** | **no**: raw, strace |",
            "(1.40) | **0.40** | **no**: strace |",
            "(1.40) | (0.20) |  |",
        ] {
            assert!(page.contains(&format!("{begin}{end}\n")), "{end}\n{page}");
        }
        assert!(
            page.contains("**5 of 11 hold.** What does not is **bold**; of 1 of them"),
            "{page}"
        );
        assert!(!page.contains("### Real programs"));
    }

    #[test]
    fn a_tables_rows_have_as_many_cells_as_its_head() {
        let page = page(vec![line((1.2, Some(1.3)), (0.2, Some(0.3)))]);
        let cells: Vec<usize> = page
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.matches('|').count())
            .collect();
        assert_eq!(cells.len(), 3);
        assert!(cells.iter().all(|count| *count == cells[0]), "{cells:?}");
    }
}
