//! What became of a suite's tests, run by run, and what differs between runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Skipped,
    Passed,
    Failed,
    /// It was started, and nobody knows.
    Unfinished,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Skipped => "skipped",
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Unfinished => "unfinished",
        })
    }
}

/// The tests that a run came to, by name.
pub(super) type Outcomes = BTreeMap<String, Outcome>;

/// How many tests of a run ended so.
pub(super) fn number_of(outcomes: &Outcomes, outcome: Outcome) -> usize {
    outcomes.values().filter(|&&it| it == outcome).count()
}

/// How many tests of a run failed, those that did not come to an end included.
pub(super) fn failures(outcomes: &Outcomes) -> usize {
    number_of(outcomes, Outcome::Failed) + number_of(outcomes, Outcome::Unfinished)
}

/// What a suite does without finject.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bare {
    /// Tests that ended alike in all runs.
    pub(super) outcomes: Outcomes,
    /// Tests that did not, or of which a run knows nothing: they decide nothing.
    pub(super) flaky: BTreeSet<String>,
}

impl Bare {
    pub(super) fn of(runs: &[Outcomes]) -> Self {
        let names: BTreeSet<&String> = runs.iter().flat_map(BTreeMap::keys).collect();
        let mut bare = Self {
            outcomes: Outcomes::new(),
            flaky: BTreeSet::new(),
        };
        for name in names {
            let mut seen = runs.iter().map(|run| run.get(name));
            let first = seen.next().flatten();
            match first {
                Some(outcome) if seen.all(|other| other == first) => {
                    bare.outcomes.insert(name.clone(), *outcome);
                }
                _ => {
                    bare.flaky.insert(name.clone());
                }
            }
        }
        bare
    }

    /// The tests that ended otherwise under a rule, that ran only under it, or not under it.
    pub(super) fn differences(&self, under: &Outcomes) -> Vec<Difference> {
        let names: BTreeSet<&String> = self.outcomes.keys().chain(under.keys()).collect();
        names
            .into_iter()
            .filter(|name| !self.flaky.contains(*name))
            .map(|name| Difference {
                test: name.clone(),
                bare: self.outcomes.get(name).copied(),
                under: under.get(name).copied(),
            })
            .filter(|difference| difference.bare != difference.under)
            .collect()
    }
}

/// A test that a rule which never fires makes end otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) test: String,
    /// None where it did not run.
    pub(super) bare: Option<Outcome>,
    pub(super) under: Option<Outcome>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |outcome: Option<Outcome>| {
            outcome.map_or_else(|| "not run".to_owned(), |outcome| outcome.to_string())
        };
        let (bare, under) = (word(self.bare), word(self.under));
        write!(f, "{}: bare {bare}, under the rule {under}", self.test)
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome::{Failed, Passed, Skipped, Unfinished};
    use super::{Bare, Outcome, Outcomes, failures};

    fn run(results: &[(&str, Outcome)]) -> Outcomes {
        let owned = |(name, outcome): &(&str, Outcome)| ((*name).to_owned(), *outcome);
        results.iter().map(owned).collect()
    }

    fn told(bare: &Bare, under: &[(&str, Outcome)]) -> Vec<String> {
        let differences = bare.differences(&run(under));
        differences.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_two_bare_runs_do_not_agree_on_is_flaky() {
        let bare = Bare::of(&[
            run(&[("a", Passed), ("b", Failed), ("c", Passed), ("d", Skipped)]),
            run(&[("a", Passed), ("b", Passed), ("d", Skipped), ("e", Failed)]),
        ]);
        assert_eq!(bare.outcomes, run(&[("a", Passed), ("d", Skipped)]));
        assert_eq!(bare.flaky.into_iter().collect::<Vec<_>>(), ["b", "c", "e"]);
    }

    #[test]
    fn every_change_is_a_difference_but_that_of_a_flaky_test() {
        let steady = [("a", Passed), ("b", Passed), ("c", Failed), ("d", Skipped)];
        let flaky = |outcome| [&steady[..], &[("f", outcome)]].concat();
        let bare = Bare::of(&[run(&flaky(Passed)), run(&flaky(Failed))]);
        assert!(told(&bare, &flaky(Unfinished)).is_empty());
        assert_eq!(
            told(
                &bare,
                &[("a", Failed), ("c", Passed), ("d", Passed), ("e", Passed)]
            ),
            [
                "a: bare passed, under the rule failed",
                "b: bare passed, under the rule not run",
                "c: bare failed, under the rule passed",
                "d: bare skipped, under the rule passed",
                "e: bare not run, under the rule passed",
            ]
        );
    }

    #[test]
    fn a_test_without_an_end_has_failed() {
        assert_eq!(
            failures(&run(&[
                ("a", Failed),
                ("b", Unfinished),
                ("c", Passed),
                ("d", Skipped)
            ])),
            2
        );
    }
}
