//! The tests on this machine: every target of the workspace but those of virtual machines, by
//! `cargo test`, with a result for each test, so that one that does not apply is seen, and one that
//! tests/must-hold.toml demands.

use std::{
    io::{BufRead as _, BufReader},
    mem,
};

use anyhow::{Context as _, ensure};

use super::{
    cargo_with, ended, libtest,
    report::{Done, End, Report, Verdict},
    suite::place,
};

/// What stands after the `@` in names of results, and in tests/must-hold.toml.
pub(crate) const HOST: &str = "host";

/// Runs all of them with this part of the large counts.
pub(crate) fn run(report: &mut Report, scale: f64) -> anyhow::Result<Done> {
    // What cargo says, which names the targets, stands between what they print.
    let (reader, writer) = std::io::pipe().context("making a pipe")?;
    let mut cargo = cargo_with(&["test", "--no-fail-fast", "--color=never"]);
    cargo
        .args(["--", "--show-output"])
        .env("FINJECT_SCALE", scale.to_string())
        .stdout(writer.try_clone().context("making a pipe")?)
        .stderr(writer);
    let mut child = cargo.spawn().context("running cargo")?;
    // It holds the pipe's other ends, too.
    drop(cargo);
    let mut output = Output::default();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("reading cargo's output")?;
        let line = String::from_utf8_lossy(&line);
        if output.take(&line) {
            println!("{line}");
        }
    }
    let status = child.wait().context("waiting for cargo")?;
    output.tell(report, ended(status))
}

/// What one test target printed.
#[derive(Debug, Default)]
struct Section {
    target: String,
    output: String,
    /// How many passed and failed, as it says itself.
    summary: Option<(usize, usize)>,
}

impl Section {
    /// Tests in documentation have no names that are any.
    fn is_documentation(&self) -> bool {
        self.target.contains(' ')
    }
}

/// The output of all targets.
#[derive(Debug, Default)]
struct Output {
    sections: Vec<Section>,
    /// What tests that passed have printed is not shown.
    is_hidden: bool,
}

impl Output {
    /// Takes a line; whether it is for people.
    fn take(&mut self, line: &str) -> bool {
        if let Some(target) = target(line) {
            self.is_hidden = false;
            let section = Section {
                target,
                ..Section::default()
            };
            self.sections.push(section);
            return true;
        }
        let Some(section) = self.sections.last_mut() else {
            return true;
        };
        section.output.push_str(line);
        section.output.push('\n');
        match line {
            "successes:" => self.is_hidden = true,
            "failures:" => self.is_hidden = false,
            _ => {
                if let Some(summary) = libtest::summary(line) {
                    self.is_hidden = false;
                    section.summary = Some(summary);
                }
            }
        }
        !self.is_hidden
    }

    /// Every result, and how all of it ended.
    fn tell(mut self, report: &mut Report, end: End) -> anyhow::Result<Done> {
        let (mut documentation, mut is_told) = ((0, 0), false);
        for section in mem::take(&mut self.sections) {
            if section.is_documentation() {
                let (passed, failed) = section.summary.unwrap_or_default();
                documentation = (documentation.0 + passed, documentation.1 + failed);
                continue;
            }
            let name = |test: &str| place(&format!("{}::{test}", section.target), HOST);
            let results = libtest::results(&section.output);
            let found = results.len();
            for (test, verdict) in results {
                let name = name(&test);
                ensure!(report.of(&name).is_none(), "there are two tests {name}");
                is_told |= matches!(verdict, Verdict::Failed(_));
                report.test(name, verdict);
            }
            let (passed, failed) = section.summary.unwrap_or_default();
            if section.summary.is_none() || passed + failed != found {
                is_told = true;
                let why = match section.summary {
                    None => "it did not come to its end".to_owned(),
                    Some(_) => format!("{found} results of {} were found", passed + failed),
                };
                report.test(place(&section.target, HOST), Verdict::Failed(why));
            }
        }
        // A failure that no test has told of has to be seen, too.
        if let End::Failed(why) = &end
            && !is_told
            && documentation.1 == 0
        {
            report.test(place("tests", HOST), Verdict::Failed(why.clone()));
        }
        let tests = (documentation != (0, 0)).then_some(documentation);
        Ok(Done { end, tests })
    }
}

/// The target that cargo is about to run.
fn target(line: &str) -> Option<String> {
    let line = line.strip_prefix("   ")?.trim_start();
    if let Some(package) = line.strip_prefix("Doc-tests ") {
        return Some(format!("documentation of {package}"));
    }
    let (_, file) = line.strip_prefix("Running ")?.rsplit_once("/deps/")?;
    let (name, _) = file.strip_suffix(')')?.rsplit_once('-')?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
    Finished `test` profile [unoptimized + debuginfo] target(s) in 0.1s
     Running unittests src/lib.rs (target/debug/deps/injector-0123456789abcdef)

running 2 tests
test rule::one ... ok
test rule::two ... FAILED

failures:

---- rule::two stdout ----
broken

failures:
    rule::two

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s

error: test failed, to rerun pass `-p injector --lib`
     Running tests/workers.rs (target/debug/deps/workers-fedcba9876543210)

running 1 test
test go ... ok

successes:

---- go stdout ----
UNSUPPORTED go: there is no Go

successes:
    go

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s

   Doc-tests injector

running 1 test
test injector/src/lib.rs - (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

    fn read(text: &str) -> (Output, Vec<&str>) {
        let mut output = Output::default();
        let shown = text.lines().filter(|line| output.take(line)).collect();
        (output, shown)
    }

    fn of<'r>(report: &'r Report, name: &str) -> Option<&'r Verdict> {
        report.of(&place(name, HOST))
    }

    #[test]
    fn each_test_has_a_result_by_its_target() {
        let (output, shown) = read(OUTPUT);
        let mut report = Report::default();
        let end = End::Failed("status 101".into());
        let done = output.tell(&mut report, end.clone()).unwrap();
        assert_eq!((done.end, done.tests), (end, Some((1, 0))));
        assert_eq!(of(&report, "injector::rule::one"), Some(&Verdict::Passed));
        let two = of(&report, "injector::rule::two");
        assert!(matches!(two, Some(Verdict::Failed(_))), "{two:?}");
        let go = Verdict::Unsupported("there is no Go".into());
        assert_eq!(of(&report, "workers::go"), Some(&go));
        assert_eq!(of(&report, "tests"), None);
        assert!(shown.contains(&"broken"), "what failed is shown");
        assert!(!shown.iter().any(|line| line.contains("UNSUPPORTED")));
        assert!(shown.contains(&"   Doc-tests injector"));
    }

    #[test]
    fn what_does_not_come_to_its_end_has_failed() {
        let mut cut = OUTPUT[..OUTPUT.find("successes:").unwrap()].to_owned();
        let (output, _) = read(&cut);
        let mut report = Report::default();
        output.tell(&mut report, End::Passed).unwrap();
        let why = Verdict::Failed("it did not come to its end".into());
        assert_eq!(of(&report, "workers"), Some(&why));

        cut = OUTPUT.replace("test rule::one ... ok\n", "");
        let (output, _) = read(&cut);
        let mut report = Report::default();
        output.tell(&mut report, End::Passed).unwrap();
        let why = Verdict::Failed("1 results of 2 were found".into());
        assert_eq!(of(&report, "injector"), Some(&why));
    }

    #[test]
    fn a_failure_without_a_test_is_one() {
        let text = &OUTPUT[OUTPUT.find("     Running tests/workers.rs").unwrap()..];
        let (output, _) = read(text);
        let mut report = Report::default();
        let end = End::Failed("killed".into());
        output.tell(&mut report, end).unwrap();
        let why = Verdict::Failed("killed".into());
        assert_eq!(of(&report, "tests"), Some(&why));
    }
}
