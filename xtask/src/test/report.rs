//! What a run found: a line for each step, a result for each test, and what did not run and why.
//! The run fails when something failed; it is incomplete, which is another exit status, when
//! something that belongs to it did not run.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    time::{Duration, Instant},
};

/// The exit status of a run of which a part did not run.
pub(crate) const INCOMPLETE: i32 = 3;

/// How one test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It held.
    Passed,
    /// It did not, or nobody knows; in words.
    Failed(String),
    /// It says that it does not apply where it ran; its own reason.
    Unsupported(String),
}

/// How one step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Passed,
    Failed(String),
    /// It needs what is not here; what that is.
    NotRun(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
            Self::NotRun(needs) => write!(f, "not run: needs {needs}"),
        }
    }
}

#[derive(Debug)]
struct Step {
    name: String,
    end: End,
    took: Duration,
    /// Whether the step consists of tests, which are counted in its place.
    counted: bool,
}

/// A run's results.
#[derive(Debug, Default)]
pub(crate) struct Report {
    steps: Vec<Step>,
    /// By name: `TARGET::NAME@KERNEL` for one in a virtual machine, `TARGET::NAME@host` for another.
    tests: BTreeMap<String, Verdict>,
    /// Tests of which only the number is known: those in documentation.
    passed: usize,
    failed: usize,
    /// What would have run with more at hand, and what that is; no failure, and not incomplete.
    not_at_hand: Vec<String>,
}

/// What a step did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) end: End,
    /// How many tests passed and failed, where the step knows only that.
    pub(crate) tests: Option<(usize, usize)>,
}

impl From<End> for Done {
    fn from(end: End) -> Self {
        Self { end, tests: None }
    }
}

impl Report {
    /// Carries a step out. An error is a failure of the step; the run goes on.
    pub(crate) fn step(
        &mut self,
        name: &str,
        act: impl FnOnce(&mut Self) -> anyhow::Result<Done>,
    ) -> End {
        println!("\n=== {name}");
        let start = Instant::now();
        self.note(name, act, || start.elapsed())
    }

    /// Takes down a step that was carried out elsewhere, beside others; `act` tells what came of it.
    pub(crate) fn carried_out(
        &mut self,
        name: &str,
        took: Duration,
        act: impl FnOnce(&mut Self) -> anyhow::Result<Done>,
    ) -> End {
        println!("\n=== {name} has ended");
        self.note(name, act, || took)
    }

    fn note(
        &mut self,
        name: &str,
        act: impl FnOnce(&mut Self) -> anyhow::Result<Done>,
        took: impl FnOnce() -> Duration,
    ) -> End {
        let known = self.tests.len();
        let done = act(self).unwrap_or_else(|error| End::Failed(format!("{error:#}")).into());
        if done.end != End::Passed {
            println!("=== {name}: {}", done.end);
        }
        if let Some((passed, failed)) = done.tests {
            self.passed += passed;
            self.failed += failed;
        }
        // A step whose tests say that they failed has failed in them, not once more by itself.
        let in_tests = done
            .tests
            .map_or(self.tests.len() > known, |(passed, failed)| {
                failed > 0 || passed > 0 && done.end == End::Passed
            });
        self.steps.push(Step {
            name: name.to_owned(),
            end: done.end.clone(),
            took: took(),
            counted: in_tests,
        });
        done.end
    }

    /// A step that does not run, and what it needs.
    pub(crate) fn not_run(&mut self, name: &str, needs: &str) {
        self.steps.push(Step {
            name: name.to_owned(),
            end: End::NotRun(needs.to_owned()),
            took: Duration::ZERO,
            counted: false,
        });
    }

    /// One test's result.
    pub(crate) fn test(&mut self, name: String, verdict: Verdict) {
        self.tests.insert(name, verdict);
    }

    /// A test's result, if it ran.
    pub(crate) fn of(&self, name: &str) -> Option<&Verdict> {
        self.tests.get(name)
    }

    /// Whether tests ran there; names of results end so, behind an `@`.
    pub(crate) fn has_any_at(&self, place: &str) -> bool {
        let there = |name: &String| name.rsplit('@').next() == Some(place);
        self.tests.keys().any(there)
    }

    /// Notes what is not at hand, and what it needs.
    pub(crate) fn not_at_hand(&mut self, what: String) {
        self.not_at_hand.push(what);
    }

    /// Tests and steps that passed and that failed. A step that consists of tests counts as they do.
    fn counts(&self) -> (usize, usize) {
        let (mut passed, mut failed) = (self.passed, self.failed);
        for verdict in self.tests.values() {
            match verdict {
                Verdict::Passed => passed += 1,
                Verdict::Failed(_) => failed += 1,
                Verdict::Unsupported(_) => {}
            }
        }
        for step in self.steps.iter().filter(|step| !step.counted) {
            match step.end {
                End::Passed => passed += 1,
                End::Failed(_) => failed += 1,
                End::NotRun(_) => {}
            }
        }
        (passed, failed)
    }

    /// The end of a run's output; its last line is `N passed, N failed`.
    fn text(&self) -> String {
        let mut text = String::new();
        let mut list = |title: &str, lines: Vec<String>| {
            if !lines.is_empty() {
                let _ = writeln!(text, "\n{title}:\n  {}", lines.join("\n  ")); // Into a string.
            }
        };
        let tests = |wanted: fn(&Verdict) -> Option<&str>| {
            let line = |(name, verdict)| Some(format!("{name}: {}", wanted(verdict)?));
            self.tests.iter().filter_map(line).collect::<Vec<_>>()
        };
        list(
            "Do not apply",
            tests(|verdict| match verdict {
                Verdict::Unsupported(why) => Some(why),
                _ => None,
            }),
        );
        list("Not at hand", self.not_at_hand.clone());
        list(
            "Failed",
            tests(|verdict| match verdict {
                Verdict::Failed(why) => Some(why),
                _ => None,
            }),
        );
        let needing = |step: &Step| match &step.end {
            End::NotRun(needs) => Some(format!("{}: needs {needs}", step.name)),
            _ => None,
        };
        list(
            "Did not run",
            self.steps.iter().filter_map(needing).collect(),
        );
        let width = |of: fn(&Step) -> usize| self.steps.iter().map(of).max().unwrap_or(0);
        let name = width(|step| step.name.chars().count());
        let end = width(|step| short(&step.end).chars().count());
        text.push('\n');
        for step in &self.steps {
            let _ = writeln!(
                text,
                "{:name$}  {:end$}  {:>6.1} s",
                step.name,
                short(&step.end),
                step.took.as_secs_f64()
            );
        }
        let (passed, failed) = self.counts();
        let _ = writeln!(text, "{passed} passed, {failed} failed");
        text
    }

    /// Prints the end of the run and returns its exit status.
    pub(crate) fn finish(&self) -> i32 {
        print!("{}", self.text());
        self.status()
    }

    fn status(&self) -> i32 {
        if self.counts().1 > 0 {
            1
        } else if self
            .steps
            .iter()
            .any(|step| matches!(step.end, End::NotRun(_)))
        {
            INCOMPLETE
        } else {
            0
        }
    }
}

/// A step's end in a table, where its reason stands above.
fn short(end: &End) -> String {
    match end {
        End::Passed => "passed".to_owned(),
        End::NotRun(_) => "not run".to_owned(),
        // The first line: compilers say much.
        End::Failed(why) => format!("FAILED: {}", why.lines().next().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_line(report: &Report) -> String {
        report.text().lines().last().unwrap().to_owned()
    }

    #[test]
    fn a_run_ends_with_a_table_and_the_counts() {
        let mut report = Report::default();
        report.step("format", |_| Ok(End::Passed.into()));
        report.step("virtual machine 6.12", |report| {
            report.test("vm_a::one@6.12".into(), Verdict::Passed);
            report.test(
                "vm_a::two@6.12".into(),
                Verdict::Unsupported("no such call".into()),
            );
            Ok(End::Passed.into())
        });
        for step in &mut report.steps {
            step.took = Duration::from_millis(1250);
        }
        let expected = "
Do not apply:
  vm_a::two@6.12: no such call

format                passed     1.2 s
virtual machine 6.12  passed     1.2 s
2 passed, 0 failed
";
        assert_eq!(report.text(), expected);
        assert_eq!(report.status(), 0);
    }

    #[test]
    fn a_step_that_was_carried_out_elsewhere_has_its_own_time() {
        let mut report = Report::default();
        let took = Duration::from_secs(75);
        report.carried_out("virtual machine 6.1", took, |_| anyhow::bail!("no memory"));
        let expected = "
virtual machine 6.1  FAILED: no memory    75.0 s
0 passed, 1 failed
";
        assert_eq!(report.text(), expected);
    }

    #[test]
    fn a_failed_test_is_counted_once() {
        let mut report = Report::default();
        report.step("boot", |report| {
            report.test("a@6.1".into(), Verdict::Failed("no result".into()));
            report.test("b@6.1".into(), Verdict::Passed);
            Ok(End::Failed("1 of 2".into()).into())
        });
        assert_eq!(last_line(&report), "1 passed, 1 failed");
        assert_eq!(report.status(), 1);
    }

    #[test]
    fn a_step_without_tests_counts_as_one() {
        let mut report = Report::default();
        report.step("tests", |_| {
            Ok(Done {
                end: End::Failed("does not build".into()),
                tests: Some((7, 0)),
            })
        });
        report.step("more tests", |_| {
            Ok(Done {
                end: End::Failed("tests failed".into()),
                tests: Some((5, 2)),
            })
        });
        report.step("doc", |_| anyhow::bail!("warnings"));
        assert_eq!(last_line(&report), "12 passed, 4 failed");
    }

    #[test]
    fn what_did_not_run_is_listed_and_makes_the_run_incomplete() {
        let mut report = Report::default();
        report.step("format", |_| Ok(End::Passed.into()));
        report.not_run("virtual machines", "root");
        assert!(
            report
                .text()
                .contains("Did not run:\n  virtual machines: needs root\n")
        );
        assert_eq!(last_line(&report), "1 passed, 0 failed");
        assert_eq!(report.status(), INCOMPLETE);
    }

    #[test]
    fn a_failure_weighs_more_than_what_did_not_run() {
        let mut report = Report::default();
        report.not_run("virtual machines", "root");
        report.step("format", |_| Ok(End::Failed("differs".into()).into()));
        assert_eq!(report.status(), 1);
    }

    #[test]
    fn what_is_not_at_hand_is_listed_and_is_no_failure() {
        let mut report = Report::default();
        report.not_at_hand("kernel 6.1: cargo xtask kernel 6.1".into());
        assert!(
            report
                .text()
                .contains("Not at hand:\n  kernel 6.1: cargo xtask kernel 6.1\n")
        );
        assert_eq!(report.status(), 0);
    }
}
