//! What is asked of finject's speed, and whether it holds. Counted instructions decide, since they repeat. The time to
//! armed is one of an ordinary boot: it is judged too, but decides nothing.

use super::figures::{Armed, Reading};
use super::row::Row;

/// finject's cost on a target is to be this many times below strace's.
const BELOW_STRACE: f64 = 50.0;

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It does.
    Holds,
    /// It does not, and could.
    Fails,
    /// It does not, by a timing, which decides nothing.
    FailsByTime,
    /// It asks for less than an empty program costs, so that no probe can hold it.
    BelowTheFloor,
}

/// One condition, in words.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    /// What is asked.
    pub(super) asked: String,
    /// What was measured, with both sides of the comparison.
    pub(super) measured: String,
    /// Whether it holds.
    pub(super) verdict: Verdict,
}

fn verdict(holds: bool) -> Verdict {
    if holds {
        Verdict::Holds
    } else {
        Verdict::Fails
    }
}

/// All conditions: on calls by a reading of instructions, on the time to armed by one of an ordinary boot.
///
/// # Errors
/// When a row was not measured.
pub(super) fn all(reading: &Reading, timed: &Reading) -> anyhow::Result<Vec<Condition>> {
    let mut conditions = Vec::new();
    targets(reading, &mut conditions)?;
    others(reading, &mut conditions)?;
    strace(reading, &mut conditions)?;
    unnamed(reading, &mut conditions)?;
    armed(timed, &mut conditions)?;
    Ok(conditions)
}

fn targets(reading: &Reading, conditions: &mut Vec<Condition>) -> anyhow::Result<()> {
    let own = reading.over_bare(Row::FinjectTarget)?;
    for (row, name) in [
        (Row::PidTarget, "one pid"),
        (Row::TreeTarget, "process tree"),
    ] {
        let theirs = reading.over_bare(row)?;
        conditions.push(Condition {
            asked: format!("target, does not fire: below bpftrace's ({name})"),
            measured: format!("{own:.1} < {theirs:.1}"),
            verdict: verdict(own < theirs),
        });
    }
    Ok(())
}

fn others(reading: &Reading, conditions: &mut Vec<Condition>) -> anyhow::Result<()> {
    let own = reading.over_bare(Row::FinjectOther)?;
    let floor = reading
        .over_bare(Row::EmptyMulti)?
        .min(reading.over_bare(Row::EmptyKprobe)?);
    for (row, name) in [
        (
            Row::PidTarget,
            "(a) of bpftrace's for the rule, on its target (one pid)",
        ),
        (
            Row::TreeTarget,
            "(a) of bpftrace's for the rule, on its target (process tree)",
        ),
        (
            Row::PidOther,
            "(b) of bpftrace's on a process that is no target (one pid)",
        ),
        (
            Row::TreeOther,
            "(b) of bpftrace's on a process that is no target (process tree)",
        ),
    ] {
        let half = reading.over_bare(row)? / 2.0;
        let holds = own < half;
        let possible = floor < half;
        let mut measured = format!("{own:.1} against {half:.1}");
        if !possible {
            measured = format!("{measured}; an empty program alone costs {floor:.1}");
        }
        conditions.push(Condition {
            asked: format!("no target: below half {name}"),
            measured,
            verdict: if holds || possible {
                verdict(holds)
            } else {
                Verdict::BelowTheFloor
            },
        });
    }
    // The script that means the same; the one for a single pid knows no children.
    let theirs = reading.over_bare(Row::TreeOther)?;
    conditions.push(Condition {
        asked: "no target: below the whole of bpftrace's on no target (process tree)".to_owned(),
        measured: format!("{own:.1} < {theirs:.1}"),
        verdict: verdict(own < theirs),
    });
    Ok(())
}

fn strace(reading: &Reading, conditions: &mut Vec<Condition>) -> anyhow::Result<()> {
    let own = reading.over_bare(Row::FinjectTarget)?;
    let theirs = reading.over_bare(Row::StraceSeccomp)?;
    conditions.push(Condition {
        asked: format!(
            "target, does not fire: at least {BELOW_STRACE:.0} times below strace --seccomp-bpf's"
        ),
        measured: format!("{theirs:.0} / {own:.1} = {:.0}", theirs / own),
        verdict: verdict(own * BELOW_STRACE <= theirs),
    });
    Ok(())
}

fn unnamed(reading: &Reading, conditions: &mut Vec<Condition>) -> anyhow::Result<()> {
    for (row, call) in [
        (Row::ArmedFdatasync, "fdatasync"),
        (Row::ArmedGetppid, "getppid"),
    ] {
        let more = reading.over_bare(row)?;
        conditions.push(Condition {
            asked: format!("a call that no rule names ({call}): 0 instructions more"),
            measured: format!("{more:.1}"),
            // A loop's own entry and exit are in the mean over its calls; an instruction a call would be a whole one.
            verdict: verdict(more.abs() < 0.5),
        });
    }
    Ok(())
}

fn armed(reading: &Reading, conditions: &mut Vec<Condition>) -> anyhow::Result<()> {
    let time = |tool| reading.armed(tool, |start| Some(start.fault_ns));
    let own = time(Armed::Finject)? / 1e6;
    for tool in [Armed::BpftraceOnePid, Armed::BpftraceTree] {
        let theirs = time(tool)? / 1e6;
        conditions.push(Condition {
            asked: format!("armed in less than half of the time of {}", tool.label()),
            measured: format!("{own:.0} / {theirs:.0} ms = {:.2}, timed", own / theirs),
            verdict: if own < theirs / 2.0 {
                Verdict::Holds
            } else {
                Verdict::FailsByTime
            },
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::figures::{Armed, Arming, PerCall, Reading};
    use super::super::row::{Row, Unit};
    use super::{Verdict, all};

    fn typical(row: Row) -> f64 {
        match row {
            Row::Bare | Row::BareFdatasync | Row::ArmedFdatasync => 244.5,
            Row::BareGetppid | Row::ArmedGetppid => 200.0,
            Row::EmptyMulti => 500.0,
            Row::EmptyKprobe => 598.0,
            Row::FinjectOther => 529.0,
            Row::FinjectTarget => 805.0,
            Row::FinjectFires | Row::PidFires | Row::TreeFires => 2000.0,
            Row::PidOther => 621.0,
            Row::PidTarget => 1400.0,
            Row::TreeOther => 733.0,
            Row::TreeTarget => 1500.0,
            Row::StraceSeccomp => 80_000.0,
            Row::StraceAttach => 160_000.0,
        }
    }

    /// A reading as it was once measured, but for what the test changes.
    fn reading(changed: &[(Row, f64)], finject_ms: u64) -> Reading {
        let call = |row| {
            let changed = changed.iter().find(|(key, _)| *key == row);
            changed.map_or(typical(row), |(_, value)| *value)
        };
        let start = |ms: u64| Arming {
            fault_ns: ms * 1_000_000,
            cpu_ms: ms,
            ready_ns: None,
            peak_kib: 1,
            maps_bytes: 1,
            programs_bytes: 1,
        };
        let run = |row| PerCall {
            median: call(row),
            mean: call(row),
        };
        Reading {
            kernel: "6.12".to_owned(),
            processors: 1,
            unit: Unit::Instructions,
            rows: Row::ALL.map(|row| (row, vec![run(row)])).into(),
            arming: vec![
                (Armed::Finject, vec![start(finject_ms)]),
                (Armed::BpftraceOnePid, vec![start(4000)]),
                (Armed::BpftraceTree, vec![start(5000)]),
            ],
        }
    }

    fn verdicts(reading: &Reading, verdict: Verdict) -> Vec<String> {
        let conditions = all(reading, reading).unwrap();
        let found = conditions.into_iter().filter(|one| one.verdict == verdict);
        found.map(|one| one.asked).collect()
    }

    #[test]
    fn typical_figures_hold_but_for_what_the_kernel_cannot() {
        let reading = reading(&[], 1000);
        assert!(verdicts(&reading, Verdict::Fails).is_empty());
        let below = verdicts(&reading, Verdict::BelowTheFloor);
        assert_eq!(below.len(), 2);
        assert!(below.iter().all(|asked| asked.contains("(b)")));
    }

    #[test]
    fn each_condition_can_fail() {
        for (row, value, words) in [
            (Row::FinjectTarget, 1450.0, "below bpftrace's (one pid)"),
            (
                Row::FinjectTarget,
                1500.0,
                "below bpftrace's (process tree)",
            ),
            (Row::FinjectOther, 823.0, "below half (a)"),
            (Row::FinjectOther, 735.0, "below the whole"),
            // The floor is no excuse where it leaves room.
            (Row::TreeOther, 760.0, "below half (b)"),
            (Row::StraceSeccomp, 28_000.0, "50 times"),
            (Row::ArmedFdatasync, 245.5, "(fdatasync)"),
            (Row::ArmedGetppid, 201.0, "(getppid)"),
        ] {
            let reading = reading(&[(row, value)], 1000);
            let failed = verdicts(&reading, Verdict::Fails);
            assert!(
                failed.iter().any(|asked| asked.contains(words)),
                "{words}: {failed:?}"
            );
        }
    }

    #[test]
    fn a_time_to_armed_is_judged_but_fails_nothing() {
        for (finject_ms, late) in [(1999, 0), (2000, 1), (2500, 2)] {
            let reading = reading(&[], finject_ms);
            assert_eq!(verdicts(&reading, Verdict::FailsByTime).len(), late);
            assert!(verdicts(&reading, Verdict::Fails).is_empty());
        }
    }

    #[test]
    fn a_row_that_was_not_measured_is_an_error() {
        let mut reading = reading(&[], 1000);
        reading.rows.retain(|(row, _)| *row != Row::EmptyMulti);
        assert!(all(&reading, &reading).is_err());
    }
}
