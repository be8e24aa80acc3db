//! `cargo xtask compat`: whether programs notice finject by anything but its faults. Test suites that
//! others wrote run bare, and then under a rule that matches all of their calls and never fires, on
//! each backend that needs nothing special of the kernel; the results of their tests have to be the
//! same, by name. xtask/compat.toml lists the tests of which that cannot be had.

mod compare;
mod excuse;
mod python;
mod redis;
mod run;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use self::compare::{Bare, Difference, Outcome, Outcomes};
use self::excuse::Excuse;
use self::run::{Backend, Ran};
use crate::setup::{self, Need};
use crate::{repo, vm};

/// Options of `cargo xtask compat`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only this suite (repeatable)
    #[arg(long, value_name = "NAME", value_parser = names())]
    only: Vec<String>,
    /// Only this backend (repeatable)
    #[arg(long, value_name = "NAME", value_enum)]
    backend: Vec<Backend>,
    /// How often a suite runs bare; a test that does not end alike each time decides nothing
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..))]
    bare: u32,
}

/// A test suite.
#[derive(Debug)]
struct Suite {
    name: &'static str,
    kind: Kind,
    /// Tests that pass bare, at the least; with fewer it is not the suite that was meant.
    at_least: usize,
}

#[derive(Debug)]
enum Kind {
    /// A module of Python's.
    Python(&'static str),
    Redis,
}

const SUITES: &[Suite] = &[
    Suite {
        name: "python-os",
        kind: Kind::Python("test_os"),
        at_least: 200,
    },
    Suite {
        name: "python-signal",
        kind: Kind::Python("test_signal"),
        at_least: 40,
    },
    Suite {
        name: "python-subprocess",
        kind: Kind::Python("test_subprocess"),
        at_least: 200,
    },
    Suite {
        name: "python-threading",
        kind: Kind::Python("test_threading"),
        at_least: 150,
    },
    Suite {
        name: "redis",
        kind: Kind::Redis,
        at_least: 200,
    },
];

fn names() -> Vec<&'static str> {
    SUITES.iter().map(|suite| suite.name).collect()
}

/// The run itself as a test: whether its command came to a good end.
const THE_RUN: &str = "(the run's own exit status)";

/// Runs the suites; the status is 1 where something differs.
pub(crate) fn run(options: &Options) -> anyhow::Result<i32> {
    let chosen = |suite: &&Suite| {
        options.only.is_empty() || options.only.iter().any(|name| name == suite.name)
    };
    let suites: Vec<&Suite> = SUITES.iter().filter(chosen).collect();
    let backends: Vec<Backend> = Backend::ALL
        .into_iter()
        .filter(|backend| options.backend.is_empty() || options.backend.contains(backend))
        .collect();
    let excuses = excuse::read(
        &repo::root().join("xtask/compat.toml"),
        &names(),
        &Backend::ALL.map(Backend::name),
    )?;
    setup::ensure(&[Need::Compat])?;
    vm::build()?;
    let mut rows = Vec::new();
    for suite in suites {
        rows.extend(suite.compare(options.bare, &backends, &excuses)?);
    }
    print!("{}", table(&rows));
    for row in &rows {
        print!("{}", row.details());
    }
    let changed = rows.iter().filter(|row| !row.is_same()).count();
    println!("{} the same, {changed} changed", rows.len() - changed);
    Ok(i32::from(changed > 0))
}

impl Suite {
    /// All runs of the suite, a row for each backend.
    fn compare(
        &self,
        times: u32,
        backends: &[Backend],
        excuses: &[Excuse],
    ) -> anyhow::Result<Vec<Row>> {
        let logs = repo::root().join("target/compat").join(self.name);
        if logs.exists() {
            fs::remove_dir_all(&logs).with_context(|| format!("emptying {}", logs.display()))?;
        }
        fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
        let mut bare = Vec::new();
        let mut took = Duration::ZERO;
        for number in 1..=times {
            let log = logs.join(format!("bare-{number}.log"));
            let (ran, outcomes) = self.run(None, &log)?;
            ensure!(
                ran.end != Outcome::Unfinished,
                "{} does not come to its end without finject; see {}",
                self.name,
                log.display()
            );
            let passed = compare::number_of(&outcomes, Outcome::Passed);
            ensure!(
                passed > self.at_least,
                "of {} only {passed} tests pass without finject; see {}",
                self.name,
                log.display()
            );
            took = ran.took;
            bare.push(outcomes);
        }
        let bare = Bare::of(&bare);
        let mut rows = Vec::new();
        for &backend in backends {
            let log = logs.join(format!("{}.log", backend.name()));
            let (ran, outcomes) = self.run(Some(backend), &log)?;
            let excuses: Vec<&Excuse> = excuses
                .iter()
                .filter(|it| it.suite == self.name && it.backend == backend.name())
                .collect();
            rows.push(Row::of(
                self.name, backend, &bare, took, &ran, &outcomes, &excuses, log,
            ));
        }
        Ok(rows)
    }

    /// One run.
    fn run(&self, backend: Option<Backend>, log: &Path) -> anyhow::Result<(Ran, Outcomes)> {
        let how = backend.map_or("bare", Backend::name);
        eprintln!("compat: {} {how}", self.name);
        let directory = tempfile::tempdir()?;
        let job = match self.kind {
            Kind::Python(module) => python::job(module, directory.path(), log),
            Kind::Redis => redis::job(&redis::source()?, directory.path(), log)?,
        };
        let ran = run::run(&job, backend)
            .with_context(|| format!("{} {how}; see {}", self.name, log.display()))?;
        let mut outcomes = match self.kind {
            Kind::Python(_) => python::outcomes(directory.path()),
            Kind::Redis => redis::outcomes(log),
        }
        .with_context(|| format!("{} {how}; see {}", self.name, log.display()))?;
        outcomes.insert(THE_RUN.to_owned(), ran.end);
        Ok((ran, outcomes))
    }
}

/// A suite on a backend.
#[derive(Debug)]
struct Row {
    suite: &'static str,
    backend: Backend,
    /// Tests that were run, under the rule.
    tests: usize,
    failed_bare: usize,
    failed_under: usize,
    flaky: Vec<String>,
    matched: Result<u64, String>,
    /// Bare, and under the rule.
    took: [Duration; 2],
    excused: Vec<Difference>,
    unexcused: Vec<Difference>,
    in_vain: Vec<String>,
    log: PathBuf,
}

impl Row {
    #[expect(clippy::too_many_arguments, reason = "one thing, of all that is known")]
    fn of(
        suite: &'static str,
        backend: Backend,
        bare: &Bare,
        bare_took: Duration,
        ran: &Ran,
        under: &Outcomes,
        excuses: &[&Excuse],
        log: PathBuf,
    ) -> Self {
        let differences = bare.differences(under);
        let (unexcused, in_vain) = excuse::judge(bare, &differences, excuses);
        let unexcused: Vec<Difference> = unexcused.into_iter().cloned().collect();
        let excused = differences
            .into_iter()
            .filter(|difference| !unexcused.contains(difference))
            .collect();
        let mut counted = under.clone();
        counted.remove(THE_RUN);
        Self {
            suite,
            backend,
            tests: counted.len() - compare::number_of(&counted, Outcome::Skipped),
            failed_bare: compare::failures(&bare.outcomes),
            failed_under: compare::failures(under),
            flaky: bare.flaky.iter().cloned().collect(),
            matched: ran.matched.clone().unwrap_or(Ok(0)),
            took: [bare_took, ran.took],
            excused,
            unexcused,
            in_vain,
            log,
        }
    }

    /// Nothing differs that may not, and the rule was in the way of calls.
    fn is_same(&self) -> bool {
        self.unexcused.is_empty()
            && self.in_vain.is_empty()
            && self.matched.as_ref().is_ok_and(|&matched| matched > 0)
    }

    fn verdict(&self) -> String {
        if self.is_same() {
            return match self.excused.len() {
                0 => "same".into(),
                excused => format!("same but for {excused} excused"),
            };
        }
        let mut verdict = Vec::new();
        for (number, what) in [
            (self.unexcused.len(), "differ"),
            (self.in_vain.len(), "excused in vain"),
        ] {
            if number > 0 {
                verdict.push(format!("{number} {what}"));
            }
        }
        match &self.matched {
            Ok(0) => verdict.push("no call matched".into()),
            Ok(_) => {}
            Err(wrong) => verdict.push(wrong.clone()),
        }
        format!("CHANGED: {}", verdict.join(", "))
    }

    /// A line for each test that there is something to say of.
    fn details(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        let head = format!("{} {}", self.suite, self.backend.name());
        // Writing to a string cannot fail.
        for test in &self.flaky {
            let _ = writeln!(text, "{head}: flaky bare, decides nothing: {test}");
        }
        for difference in &self.excused {
            let _ = writeln!(text, "{head}: excused: {difference}");
        }
        for difference in &self.unexcused {
            let _ = writeln!(text, "{head}: DIFFERS: {difference}");
        }
        for test in &self.in_vain {
            let _ = writeln!(
                text,
                "{head}: in xtask/compat.toml, and does not differ: {test}"
            );
        }
        if !self.is_same() {
            let _ = writeln!(text, "{head}: see {}", self.log.display());
        }
        text
    }
}

/// The rows under their heads, in columns.
fn table(rows: &[Row]) -> String {
    const HEAD: [&str; 9] = [
        "suite",
        "backend",
        "tests run",
        "failed bare",
        "under the rule",
        "calls matched",
        "bare s",
        "under s",
        "verdict",
    ];
    let mut lines = vec![HEAD.map(String::from)];
    for row in rows {
        lines.push([
            row.suite.into(),
            row.backend.name().into(),
            row.tests.to_string(),
            row.failed_bare.to_string(),
            row.failed_under.to_string(),
            row.matched
                .as_ref()
                .map_or_else(|_| "?".into(), u64::to_string),
            format!("{:.1}", row.took[0].as_secs_f64()),
            format!("{:.1}", row.took[1].as_secs_f64()),
            row.verdict(),
        ]);
    }
    let mut widths = [0; HEAD.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.len());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> = line
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(column, (cell, width))| match column {
                2..=7 => format!("{cell:>width$}"),
                _ => format!("{cell:width$}"),
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(results: &[(&str, Outcome)]) -> Outcomes {
        let owned = |(name, outcome): &(&str, Outcome)| ((*name).to_owned(), *outcome);
        results.iter().map(owned).collect()
    }

    fn row(under: &[(&str, Outcome)], matched: Result<u64, &str>) -> Row {
        let bare = [
            ("a", Outcome::Passed),
            ("b", Outcome::Failed),
            ("c", Outcome::Skipped),
            (THE_RUN, Outcome::Failed),
        ];
        let ran = Ran {
            end: Outcome::Passed,
            matched: Some(matched.map_err(str::to_owned)),
            took: Duration::from_millis(2500),
        };
        Row::of(
            "one",
            Backend::Notify,
            &Bare::of(&[outcomes(&bare), outcomes(&bare)]),
            Duration::from_secs(1),
            &ran,
            &outcomes(under),
            &[],
            PathBuf::from("one.log"),
        )
    }

    const SAME: [(&str, Outcome); 4] = [
        ("a", Outcome::Passed),
        ("b", Outcome::Failed),
        ("c", Outcome::Skipped),
        (THE_RUN, Outcome::Failed),
    ];

    #[test]
    fn a_row_is_the_same_only_where_calls_matched_and_nothing_differs() {
        assert_eq!(row(&SAME, Ok(9)).verdict(), "same");
        assert_eq!(row(&SAME, Ok(0)).verdict(), "CHANGED: no call matched");
        assert_eq!(
            row(&SAME, Err("it fired: 1")).verdict(),
            "CHANGED: it fired: 1"
        );
        let changed = row(&SAME[1..], Ok(9));
        assert_eq!(changed.verdict(), "CHANGED: 1 differ");
        assert_eq!(
            changed.details(),
            "one notify: DIFFERS: a: bare passed, under the rule not run\none notify: see one.log\n"
        );
        let mut crashed = SAME;
        crashed[3].1 = Outcome::Unfinished;
        assert_eq!(row(&crashed, Ok(9)).verdict(), "CHANGED: 1 differ");
    }

    #[test]
    fn rows_are_shown_in_columns() {
        assert_eq!(
            table(&[row(&SAME, Ok(1234))]),
            "suite  backend  tests run  failed bare  under the rule  calls matched  bare s  under s  verdict\n\
             one    notify           2            2               2           1234     1.0      2.5  same\n"
        );
    }

    #[test]
    fn the_committed_excuses_can_be_read() {
        let path = repo::root().join("xtask/compat.toml");
        excuse::read(&path, &names(), &Backend::ALL.map(Backend::name)).unwrap();
    }
}
