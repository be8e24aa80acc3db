//! Python's own tests, from Debian's package of them, each with a result by name:
//! xtask/compat/unittests.py runs a module and writes them down.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

use super::compare::{Outcome, Outcomes};
use super::run::Job;
use crate::repo;

/// Debian's, whatever else `PATH` has: the tests are of its version.
const PYTHON: &str = "/usr/bin/python3";
/// The results, in the directory where a module runs.
const RESULTS: &str = "results.jsonl";

/// The command for a module of tests.
pub(super) fn job(module: &str, directory: &Path, log: &Path) -> Job {
    let driver = repo::root().join("xtask/compat/unittests.py");
    Job {
        words: vec![
            PYTHON.into(),
            driver.into(),
            directory.join(RESULTS).into(),
            module.into(),
        ],
        directory: directory.into(),
        log: log.into(),
    }
}

/// What the run has written down.
pub(super) fn outcomes(directory: &Path) -> anyhow::Result<Outcomes> {
    let path = directory.join(RESULTS);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text)
}

/// A line of the results.
#[derive(Debug, Deserialize)]
struct Line {
    test: String,
    outcome: Word,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Started,
    Skipped,
    Passed,
    Failed,
}

fn parse(text: &str) -> anyhow::Result<Outcomes> {
    let mut outcomes = BTreeMap::new();
    for line in text.lines() {
        let Line { test, outcome } =
            serde_json::from_str(line).with_context(|| format!("not a result: {line}"))?;
        let outcome = match outcome {
            Word::Started => Outcome::Unfinished,
            Word::Skipped => Outcome::Skipped,
            Word::Passed => Outcome::Passed,
            Word::Failed => Outcome::Failed,
        };
        outcomes.insert(test, outcome);
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::super::run::run;
    use super::*;

    /// A package of tests that stands in for Python's own.
    const TESTS: &str = r#"
import os, unittest

THE_TESTS = os.getpid()

class A(unittest.TestCase):
    def test_fails(self):
        self.fail()

    @unittest.expectedFailure
    def test_fails_as_expected(self):
        self.fail()

    def test_forks_a_child_that_goes_on_with_the_tests(self):
        if os.fork() == 0:
            raise SystemExit(0)
        os.wait()

    def test_passes(self):
        pass

    @unittest.skip("for a reason")
    def test_skipped(self):
        pass

    def test_subtests(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertNotEqual(number, 1)

class B(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise unittest.SkipTest("all of it")

    def test_never_started(self):
        pass

class C(unittest.TestCase):
    def test_ends_it_all(self):
        if os.getpid() == THE_TESTS:
            os._exit(3)

    def test_is_not_reached(self):
        pass
"#;

    #[test]
    fn what_becomes_of_each_test_is_written_down() {
        let directory = tempfile::tempdir().unwrap();
        let package = directory.path().join("test");
        fs::create_dir(&package).unwrap();
        fs::write(package.join("__init__.py"), "").unwrap();
        fs::write(package.join("support.py"), "").unwrap();
        fs::write(package.join("test_stand_in.py"), TESTS).unwrap();
        let mut job = job(
            "test_stand_in",
            directory.path(),
            &directory.path().join("log"),
        );
        let path = format!("PYTHONPATH={}", directory.path().display());
        job.words.splice(0..0, ["/usr/bin/env".into(), path.into()]);
        let ran = run(&job, None).unwrap();
        assert_eq!(ran.end, Outcome::Failed);
        let expected = [
            ("setUpClass (test.test_stand_in.B)", Outcome::Skipped),
            ("test.test_stand_in.A.test_fails", Outcome::Failed),
            (
                "test.test_stand_in.A.test_fails_as_expected",
                Outcome::Passed,
            ),
            (
                "test.test_stand_in.A.test_forks_a_child_that_goes_on_with_the_tests",
                Outcome::Passed,
            ),
            ("test.test_stand_in.A.test_passes", Outcome::Passed),
            ("test.test_stand_in.A.test_skipped", Outcome::Skipped),
            ("test.test_stand_in.A.test_subtests", Outcome::Failed),
            ("test.test_stand_in.C.test_ends_it_all", Outcome::Unfinished),
        ];
        assert_eq!(
            outcomes(directory.path()).unwrap(),
            expected.map(|(name, it)| (name.to_owned(), it)).into()
        );
    }

    #[test]
    fn a_test_that_started_and_did_not_end_is_known() {
        let text = r#"{"test": "setUpClass (m.C)", "outcome": "skipped"}
{"test": "m.D.a", "outcome": "started"}
{"test": "m.D.a", "outcome": "passed"}
{"test": "m.D.b", "outcome": "started"}
{"test": "m.D.b", "outcome": "failed"}
{"test": "m.D.c", "outcome": "started"}
"#;
        let outcomes = parse(text).unwrap();
        let expected = [
            ("m.D.a", Outcome::Passed),
            ("m.D.b", Outcome::Failed),
            ("m.D.c", Outcome::Unfinished),
            ("setUpClass (m.C)", Outcome::Skipped),
        ];
        assert_eq!(
            outcomes,
            expected.map(|(name, it)| (name.to_owned(), it)).into()
        );
        assert!(parse(r#"{"test": "a", "outcome": "fine"}"#).is_err());
    }
}
