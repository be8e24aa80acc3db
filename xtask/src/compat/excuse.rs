//! xtask/compat.toml: the tests that a backend may change, each with the reason. An excuse that
//! nothing needs is an error, too.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::compare::{Bare, Difference};

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    excuse: Vec<Excuse>,
}

/// A test that may end otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Excuse {
    pub(super) suite: String,
    pub(super) backend: String,
    pub(super) test: String,
    /// What of the backend makes it so, and why that has to be.
    reason: String,
}

/// Reads the file. `suites` and `backends` are the names that exist.
pub(super) fn read(path: &Path, suites: &[&str], backends: &[&str]) -> anyhow::Result<Vec<Excuse>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text, suites, backends).with_context(|| format!("in {}", path.display()))
}

fn parse(text: &str, suites: &[&str], backends: &[&str]) -> anyhow::Result<Vec<Excuse>> {
    let file: File = toml::from_str(text)?;
    for excuse in &file.excuse {
        let test = &excuse.test;
        ensure!(!excuse.reason.trim().is_empty(), "no reason for {test}");
        let suite = excuse.suite.as_str();
        ensure!(
            suites.contains(&suite),
            "{test}: no suite is called {suite}"
        );
        let backend = excuse.backend.as_str();
        ensure!(
            backends.contains(&backend),
            "{test}: {backend} is no backend that is tried"
        );
    }
    Ok(file.excuse)
}

/// The differences that no excuse covers, and the tests that are excused in vain. `excuses` are those
/// of the suite and the backend. A test that is flaky this time needs its excuse some other time.
pub(super) fn judge<'d>(
    bare: &Bare,
    differences: &'d [Difference],
    excuses: &[&Excuse],
) -> (Vec<&'d Difference>, Vec<String>) {
    let unexcused = differences
        .iter()
        .filter(|difference| !excuses.iter().any(|excuse| excuse.test == difference.test))
        .collect();
    let in_vain = excuses
        .iter()
        .map(|excuse| &excuse.test)
        .filter(|test| !bare.flaky.contains(*test))
        .filter(|test| {
            !differences
                .iter()
                .any(|difference| difference.test == **test)
        })
        .cloned()
        .collect();
    (unexcused, in_vain)
}

#[cfg(test)]
mod tests {
    use super::super::compare::{Outcome, Outcomes};
    use super::*;

    const SUITES: &[&str] = &["one", "two"];
    const BACKENDS: &[&str] = &["notify"];

    fn excuse(suite: &str, backend: &str, reason: &str) -> String {
        format!(
            "[[excuse]]\nsuite = '{suite}'\nbackend = '{backend}'\ntest = 't'\nreason = '{reason}'"
        )
    }

    #[test]
    fn an_excuse_has_a_reason_and_names_what_exists() {
        let refused = |suite, backend, reason| {
            let text = excuse(suite, backend, reason);
            parse(&text, SUITES, BACKENDS).unwrap_err().to_string()
        };
        assert_eq!(parse("", SUITES, BACKENDS).unwrap(), []);
        let text = excuse("two", "notify", "so it is");
        assert_eq!(parse(&text, SUITES, BACKENDS).unwrap().len(), 1);
        assert_eq!(refused("two", "notify", " "), "no reason for t");
        assert_eq!(
            refused("three", "notify", "r"),
            "t: no suite is called three"
        );
        assert_eq!(
            refused("two", "ebpf", "r"),
            "t: ebpf is no backend that is tried"
        );
    }

    #[test]
    fn a_difference_needs_an_excuse_and_an_excuse_a_difference() {
        let outcomes = |results: &[(&str, Outcome)]| -> Outcomes {
            let owned = |(name, outcome): &(&str, Outcome)| ((*name).to_owned(), *outcome);
            results.iter().map(owned).collect()
        };
        let (pass, fail) = (Outcome::Passed, Outcome::Failed);
        let first = [("a", pass), ("b", pass), ("c", pass), ("f", pass)];
        let second = [("a", pass), ("b", pass), ("c", pass), ("f", fail)];
        let bare = Bare::of(&[outcomes(&first), outcomes(&second)]);
        let under = outcomes(&[("a", fail), ("b", fail), ("c", pass), ("f", fail)]);
        let differences = bare.differences(&under);
        let excuses: Vec<Excuse> = ["b", "c", "f"]
            .map(|test| Excuse {
                suite: "one".into(),
                backend: "notify".into(),
                test: test.into(),
                reason: "r".into(),
            })
            .into();
        let excuses: Vec<&Excuse> = excuses.iter().collect();
        let (unexcused, in_vain) = judge(&bare, &differences, &excuses);
        assert_eq!(unexcused, [&differences[0]]);
        assert_eq!(unexcused[0].test, "a");
        assert_eq!(in_vain, ["c"]);
    }
}
