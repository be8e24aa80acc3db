//! Reads what the standard test harness prints, when other output may have come between a test's
//! name and its result.

use std::collections::BTreeMap;

use super::report::Verdict;

/// The word that a test prints, with its name and a reason, before it returns without a check.
const UNSUPPORTED: &str = "UNSUPPORTED ";

/// The results in a harness's output (`--test-threads=1 --show-output`), by the tests' names.
pub(super) fn results(output: &str) -> BTreeMap<String, Verdict> {
    let mut results = BTreeMap::new();
    let mut unsupported = Vec::new();
    let mut running = None;
    for line in output.lines() {
        if let Some((name, rest)) = started(line) {
            match verdict(rest) {
                Some(verdict) => drop(results.insert(name, verdict)),
                None => running = Some(name),
            }
        } else if let Some(text) = line.strip_prefix(UNSUPPORTED) {
            if let Some((name, reason)) = text.split_once(": ") {
                unsupported.push((name.to_owned(), reason.to_owned()));
            }
        } else if let Some(verdict) = running.is_some().then(|| verdict(line)).flatten()
            && let Some(name) = running.take()
        {
            results.insert(name, verdict);
        }
    }
    if let Some(name) = running {
        let why = "it had not ended when the output did";
        results.insert(name, Verdict::Failed(why.to_owned()));
    }
    // Only a test that passed can say that it did not apply: another has failed while saying so.
    for (name, reason) in unsupported {
        if let Some(found) = results.get_mut(&name)
            && *found == Verdict::Passed
        {
            *found = Verdict::Unsupported(reason);
        }
    }
    results
}

/// The name in a line `test NAME ... `, and what follows.
fn started(line: &str) -> Option<(String, &str)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let name = name.strip_suffix(" - should panic").unwrap_or(name);
    (!name.contains(' ')).then(|| (name.to_owned(), rest))
}

fn verdict(text: &str) -> Option<Verdict> {
    match text {
        "ok" => Some(Verdict::Passed),
        "FAILED" => Some(Verdict::Failed("failed".to_owned())),
        _ if text.starts_with("ignored") => Some(Verdict::Failed(
            "ignored, so that it did not run".to_owned(),
        )),
        _ => None,
    }
}

/// The tests of an executable, of what it prints for `--list --format terse`.
pub(super) fn listed(output: &str) -> Vec<String> {
    let name = |line: &str| line.strip_suffix(": test").map(str::to_owned);
    output.lines().filter_map(name).collect()
}

/// How many passed and failed, of a line `test result: ...`.
pub(super) fn summary(line: &str) -> Option<(usize, usize)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word| {
        let part = counts
            .split("; ")
            .find_map(|part| part.strip_suffix(word))?;
        part.trim().parse().ok()
    };
    Some((count("passed")?, count("failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_whatever_comes_between() {
        let output = "\
running 6 tests
test plain ... ok
test with::path ... FAILED
test noisy ... a child's line
and another
ok
test panics - should panic ... ok
test lazy ... ignored, too slow
test absent ... ok

successes:

---- absent stdout ----
UNSUPPORTED absent: kernels before 6.7 do not count misses
UNSUPPORTED with::path: says a test that failed

test result: FAILED. 4 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.03s
";
        let failed = |why: &str| Verdict::Failed(why.to_owned());
        let expected = [
            (
                "absent",
                Verdict::Unsupported("kernels before 6.7 do not count misses".into()),
            ),
            ("lazy", failed("ignored, so that it did not run")),
            ("noisy", Verdict::Passed),
            ("panics", Verdict::Passed),
            ("plain", Verdict::Passed),
            ("with::path", failed("failed")),
        ];
        let expected: BTreeMap<_, _> = expected
            .map(|(name, verdict)| (name.to_owned(), verdict))
            .into();
        assert_eq!(results(output), expected);
    }

    #[test]
    fn a_test_that_never_ended_has_failed() {
        let results = results("test one ... ok\ntest two ... ");
        assert_eq!(results["one"], Verdict::Passed);
        assert!(matches!(&results["two"], Verdict::Failed(why) if why.contains("had not ended")));
    }

    #[test]
    fn names_are_listed() {
        assert_eq!(
            listed("one: test\na::two: test\nbench: benchmark\n"),
            ["one", "a::two"]
        );
    }

    #[test]
    fn counts_are_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.03s";
        assert_eq!(summary(line), Some((12, 3)));
        assert_eq!(summary("running 3 tests"), None);
    }
}
