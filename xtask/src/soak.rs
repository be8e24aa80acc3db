//! `cargo xtask soak`: what takes too long for `cargo xtask test`. The tests on this machine, and those in
//! virtual machines that have large counts, with all of their counts, and mutants: single changes to the pure parts of finject, of which the
//! tests must notice each. A mutant that survives is a gap in the tests, unless
//! xtask/mutants.toml says why it is none.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use crate::{
    repo,
    setup::{self, Need},
    test::{
        self,
        report::{Done, End, Report},
        suite::Settings,
    },
};

/// Options of `cargo xtask soak`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only the tests on this machine, and what else is named
    #[arg(long)]
    host: bool,
    /// Only the tests in virtual machines, and what else is named
    #[arg(long)]
    machines: bool,
    /// Only the mutants, and what else is named
    #[arg(long)]
    mutants: bool,
}

impl Options {
    /// Whether a part is run: where none is named, all are.
    fn wants(&self, part: bool) -> bool {
        part || !(self.host || self.machines || self.mutants)
    }
}

/// The part of the large counts that is run.
const ALL: f64 = 1.0;

/// What is mutated.
struct Subject {
    package: &'static str,
    /// Files, as globs; all of the package where there is none.
    files: &'static [&'static str],
    /// What is built of the package; all of it where this is empty.
    targets: &'static [&'static str],
    /// Which of the tests are run.
    tests: &'static [&'static str],
}

const SUBJECTS: &[Subject] = &[
    Subject {
        package: "injector-common",
        files: &[],
        targets: &[],
        tests: &[],
    },
    Subject {
        package: "injector",
        files: &["injector/src/rule/**/*.rs"],
        // Its tests are beside it. To build and link the program and its other tests too takes three
        // times as long.
        targets: &["--lib"],
        tests: &["--filterset=test(/^rule::/)"],
    },
];

/// Seconds that the tests of one mutant may take, which take 2: those that make a loop endless hang.
const TIMEOUT: &str = "20";
/// Mutants that are built and tested at a time.
const JOBS: &str = "2";

/// xtask/mutants.toml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowed {
    #[serde(default)]
    mutant: Vec<Mutant>,
}

/// A mutant that may survive.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    /// As cargo-mutants names it, without line and column.
    name: String,
    /// Why no test can notice it, or none should.
    reason: String,
}

/// Runs all of it, or the parts that are named.
pub(crate) fn run(options: &Options) -> i32 {
    let mut report = Report::default();
    if setup::is_root() {
        report.step("setup", |_| {
            setup::ensure(setup::FOR_TESTS)?;
            setup::ensure(&[Need::Soak])?;
            Ok(End::Passed.into())
        });
    }
    if options.wants(options.host) {
        report.step("tests", |report| test::host::run(report, ALL));
    } else {
        report.not_run("tests", "a run with --host");
    }
    if options.wants(options.machines) {
        let settings = Settings {
            scale: ALL,
            only: Vec::new(),
            kernels: Vec::new(),
            fresh_object: None,
        };
        // What must hold is looked at by `cargo xtask test`, which runs all of them.
        test::machines(&mut report, &settings, false);
    } else {
        report.not_run("virtual machines", "a run with --machines");
    }
    for subject in SUBJECTS {
        let name = format!("mutants of {}", subject.package);
        if options.wants(options.mutants) {
            report.step(&name, |_| mutants(subject));
        } else {
            report.not_run(&name, "a run with --mutants");
        }
    }
    report.finish()
}

fn mutants(subject: &Subject) -> anyhow::Result<Done> {
    let allowed = read_allowed(&repo::root().join("xtask/mutants.toml"))?;
    let out = repo::root().join("target/mutants").join(subject.package);
    fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let mut command = Command::new(test::cargo());
    command
        .current_dir(repo::root())
        // What property tests draw is the same each time, so that a run can be repeated.
        .env("PROPTEST_RNG_SEED", "1")
        .args(["mutants", "--package", subject.package, "--no-shuffle"])
        .args(["--timeout", TIMEOUT, "--jobs", JOBS, "--annotations=none"])
        .args(["--profile", "mutants", "--test-tool", "nextest"])
        .arg("--output")
        .arg(&out);
    for file in subject.files {
        command.args(["--file", file]);
    }
    for target in subject.targets {
        command.arg(format!("--cargo-arg={target}"));
    }
    command.arg("--").args(subject.tests);
    // 2: mutants survived; 3: the tests of some took too long, which is a way to notice them.
    let status = command.status().context("running cargo mutants")?;
    ensure!(
        matches!(status.code(), Some(0 | 2 | 3)),
        "cargo mutants: {status}"
    );
    let survivors = read_survivors(&out.join("mutants.out/missed.txt"))?;
    let (gaps, stale) = compare(&survivors, &allowed, subject);
    for name in &gaps {
        println!("survived: {name}");
    }
    for name in &stale {
        println!("in xtask/mutants.toml, and did not survive: {name}");
    }
    Ok(if gaps.is_empty() && stale.is_empty() {
        End::Passed
    } else {
        End::Failed(format!(
            "{} survived, {} excused in vain",
            gaps.len(),
            stale.len()
        ))
    }
    .into())
}

fn read_allowed(path: &Path) -> anyhow::Result<Vec<Mutant>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let allowed: Allowed =
        toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
    for mutant in &allowed.mutant {
        if mutant.reason.trim().is_empty() {
            bail!("{}: no reason for {}", path.display(), mutant.name);
        }
    }
    Ok(allowed.mutant)
}

fn read_survivors(path: &PathBuf) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The name without line and column, which every change above moves.
fn lasting(name: &str) -> String {
    let mut parts = name.splitn(4, ':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(file), Some(line), Some(column), Some(rest))
            if [line, column]
                .iter()
                .all(|number| number.chars().all(|c| c.is_ascii_digit())) =>
        {
            format!("{file}:{rest}")
        }
        _ => name.to_owned(),
    }
}

/// Those that survived without an excuse, and the excuses of the subject that nothing needs.
fn compare(
    survivors: &[String],
    allowed: &[Mutant],
    subject: &Subject,
) -> (Vec<String>, Vec<String>) {
    let excused: BTreeSet<_> = allowed.iter().map(|mutant| mutant.name.as_str()).collect();
    let alive: BTreeSet<_> = survivors.iter().map(|name| lasting(name)).collect();
    let gaps = survivors
        .iter()
        .filter(|name| !excused.contains(lasting(name).as_str()))
        .cloned()
        .collect();
    let stale = excused
        .into_iter()
        .filter(|name| name.starts_with(&format!("{}/", subject.package)) && !alive.contains(*name))
        .map(str::to_owned)
        .collect();
    (gaps, stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_left_out_of_names() {
        assert_eq!(
            lasting("injector-common/src/decide.rs:7:12: replace a::b -> bool with true"),
            "injector-common/src/decide.rs: replace a::b -> bool with true"
        );
        assert_eq!(lasting("no place: here"), "no place: here");
    }

    #[test]
    fn a_survivor_needs_an_excuse_and_an_excuse_a_survivor() {
        let survivors = [
            "injector-common/src/a.rs:1:2: replace x with y".to_owned(),
            "injector-common/src/a.rs:3:4: replace + with -".to_owned(),
        ];
        let excuse = |name: &str| Mutant {
            name: name.into(),
            reason: "equal".into(),
        };
        let allowed = [
            excuse("injector-common/src/a.rs: replace + with -"),
            excuse("injector-common/src/a.rs: replace * with /"),
            excuse("injector/src/rule/b.rs: replace * with /"),
        ];
        let (gaps, stale) = compare(&survivors, &allowed, &SUBJECTS[0]);
        assert_eq!(gaps, ["injector-common/src/a.rs:1:2: replace x with y"]);
        assert_eq!(stale, ["injector-common/src/a.rs: replace * with /"]);
    }

    #[test]
    fn the_committed_excuses_can_be_read() {
        read_allowed(&repo::root().join("xtask/mutants.toml")).unwrap();
    }
}
