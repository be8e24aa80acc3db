//! Reads what the standard test harness prints, when other output may have come between a test's
//! name and its result, or onto the result's own line; its lists at the end then tell.

use std::collections::BTreeMap;

use super::report::Verdict;

/// The word that a test prints, with its name and a reason, before it returns without a check.
const UNSUPPORTED: &str = "UNSUPPORTED ";

/// The results in a harness's output (`--test-threads=1 --show-output`), by the tests' names.
pub(super) fn results(output: &str) -> BTreeMap<String, Verdict> {
    let mut results = BTreeMap::new();
    let mut unsupported = Vec::new();
    let mut unclear = Vec::new();
    let mut running = None;
    let mut list = None;
    for line in output.lines() {
        if let Some((name, rest)) = started(line) {
            unclear.extend(running.take());
            match verdict(rest) {
                Some(verdict) => drop(results.insert(name, verdict)),
                None => running = Some(name),
            }
        } else if line == "successes:" || line == "failures:" {
            unclear.extend(running.take());
            list = Some(line);
        } else if let Some(list) = list
            && let Some(name) = line.strip_prefix("    ")
            && let Some(at) = unclear.iter().position(|unclear| unclear == name)
        {
            let verdict = match list {
                "successes:" => Verdict::Passed,
                _ => Verdict::Failed("failed".to_owned()),
            };
            results.insert(unclear.swap_remove(at), verdict);
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
    for name in unclear.into_iter().chain(running) {
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
    fn a_result_whose_line_another_spoilt_is_in_the_lists() {
        let output = "\
running 4 tests
test spoilt ... [   12.3] a line of the kernel's ok
test worse ... FAI[   12.4] anotherLED
test clear ... ok
test last ... half a lineok

successes:
    clear
    spoilt
    last

failures:

---- worse stdout ----
    clear

failures:
    worse

test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.03s
";
        let found = results(output);
        assert_eq!(found["spoilt"], Verdict::Passed);
        assert_eq!(found["last"], Verdict::Passed);
        assert_eq!(found["clear"], Verdict::Passed);
        assert_eq!(found["worse"], Verdict::Failed("failed".to_owned()));
        let cut = &output[..output.find("successes").unwrap()];
        let unseen = Verdict::Failed("it had not ended when the output did".to_owned());
        assert_eq!(results(cut)["spoilt"], unseen);
        assert_eq!(results(cut)["last"], unseen);
    }

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
