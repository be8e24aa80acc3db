//! What must have run: tests/must-hold.toml says for each promise of the project which tests keep
//! it, and on which kernels. A run in which one of those did not run, did not pass, or said that it
//! does not apply has failed, whatever else it found.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use super::{
    host::HOST,
    report::{Report, Verdict},
    suite::{KERNELS, PREFIX, place},
};

/// tests/must-hold.toml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Demands {
    line: Vec<Line>,
}

/// One promise.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// In words.
    text: String,
    /// `TARGET::NAME`.
    tests: Vec<String>,
    /// `KERNEL`, or `KERNEL+WORDS` for a boot of it with these words on its command line; or `host` for
    /// tests on the machine that runs the others.
    kernels: Vec<String>,
}

/// A boot of a kernel with words on its command line, for some tests only.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ExtraBoot {
    pub(crate) kernel: String,
    pub(crate) append: String,
    /// `TARGET::NAME`.
    pub(crate) tests: Vec<String>,
}

impl Demands {
    /// Reads the file and checks what can be checked without running anything.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let demands: Self = toml::from_str(text)?;
        ensure!(!demands.line.is_empty(), "no [[line]]");
        for line in &demands.line {
            let text = &line.text;
            ensure!(!line.tests.is_empty(), "no tests for \"{text}\"");
            ensure!(!line.kernels.is_empty(), "no kernels for \"{text}\"");
            for kernel in &line.kernels {
                let name = kernel.split('+').next().unwrap_or_default();
                ensure!(
                    kernel == HOST || KERNELS.contains(&name),
                    "no kernel {name}; there are {}, and {HOST}",
                    KERNELS.join(", ")
                );
                let stranger = line
                    .tests
                    .iter()
                    .find(|test| test.starts_with(PREFIX) == (kernel == HOST));
                if let Some(stranger) = stranger {
                    bail!("{stranger} is no test on {kernel}, in \"{text}\"");
                }
            }
        }
        Ok(demands)
    }

    /// Whether a test is asked for on a kernel as it is.
    pub(super) fn has(&self, test: &str, kernel: &str) -> bool {
        self.line.iter().any(|line| {
            line.tests.iter().any(|asked| asked == test)
                && line.kernels.iter().any(|asked| asked == kernel)
        })
    }

    /// The boots that kernels with words ask for.
    pub(super) fn boots(&self) -> Vec<ExtraBoot> {
        let mut boots: BTreeMap<(&str, &str), BTreeSet<&String>> = BTreeMap::new();
        for line in &self.line {
            for boot in line.kernels.iter().filter_map(|name| name.split_once('+')) {
                boots.entry(boot).or_default().extend(&line.tests);
            }
        }
        let boot = |((kernel, append), tests): ((&str, &str), BTreeSet<&String>)| ExtraBoot {
            kernel: kernel.to_owned(),
            append: append.to_owned(),
            tests: tests.into_iter().cloned().collect(),
        };
        boots.into_iter().map(boot).collect()
    }

    /// What was demanded and not kept, a line each. A kernel that is not `at_hand` demands nothing
    /// but that the test exists.
    pub(super) fn unkept(
        &self,
        report: &Report,
        existing: &BTreeSet<String>,
        at_hand: &dyn Fn(&str) -> bool,
    ) -> Vec<String> {
        let mut unkept = Vec::new();
        for line in &self.line {
            let mut fail = |why| unkept.push(format!("\"{}\": {why}", line.text));
            for test in &line.tests {
                // Of the others, what ran is all that is known.
                if test.starts_with(PREFIX) && !existing.contains(test) {
                    fail(format!("there is no test {test}"));
                    continue;
                }
                for kernel in &line.kernels {
                    let name = place(test, kernel);
                    let base = kernel.split('+').next().unwrap_or_default();
                    match report.of(&name) {
                        Some(Verdict::Failed(_)) => fail(format!("{name} failed")),
                        Some(Verdict::Unsupported(why)) => {
                            fail(format!("{name} says that it does not apply: {why}"));
                        }
                        None if at_hand(base) => fail(format!("{name} did not run")),
                        Some(Verdict::Passed) | None => {}
                    }
                }
            }
        }
        unkept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        [[line]]
        text = "counts are exact"
        tests = ["vm_a::one", "vm_a::two"]
        kernels = ["6.1", "6.12+preempt=full"]
    "#;

    fn unkept(results: &[(&str, Verdict)], existing: &[&str], at_hand: &[&str]) -> Vec<String> {
        let mut report = Report::default();
        for (name, verdict) in results {
            report.test((*name).to_owned(), verdict.clone());
        }
        let existing = existing.iter().map(|name| (*name).to_owned()).collect();
        let demands = Demands::parse(FILE).unwrap();
        demands.unkept(&report, &existing, &|kernel| at_hand.contains(&kernel))
    }

    const BOTH: &[&str] = &["vm_a::one", "vm_a::two"];

    #[test]
    fn kept_when_all_passed_everywhere() {
        let results = [
            ("vm_a::one@6.1", Verdict::Passed),
            ("vm_a::two@6.1", Verdict::Passed),
            ("vm_a::one@6.12+preempt=full", Verdict::Passed),
            ("vm_a::two@6.12+preempt=full", Verdict::Passed),
        ];
        assert!(unkept(&results, BOTH, &["6.1", "6.12"]).is_empty());
    }

    #[test]
    fn each_way_not_to_keep_it_is_named() {
        let results = [
            ("vm_a::one@6.1", Verdict::Failed("failed".into())),
            ("vm_a::two@6.1", Verdict::Unsupported("too old".into())),
            ("vm_a::one@6.12+preempt=full", Verdict::Passed),
        ];
        assert_eq!(
            unkept(&results, BOTH, &["6.1", "6.12"]),
            [
                "\"counts are exact\": vm_a::one@6.1 failed",
                "\"counts are exact\": vm_a::two@6.1 says that it does not apply: too old",
                "\"counts are exact\": vm_a::two@6.12+preempt=full did not run",
            ]
        );
    }

    #[test]
    fn words_ask_for_a_boot_of_their_own() {
        let more = r#"
            [[line]]
            text = "more"
            tests = ["vm_a::two", "vm_b::three"]
            kernels = ["6.12+preempt=full"]
        "#;
        let demands = Demands::parse(&format!("{FILE}{more}")).unwrap();
        let boot = ExtraBoot {
            kernel: "6.12".into(),
            append: "preempt=full".into(),
            tests: ["vm_a::one", "vm_a::two", "vm_b::three"]
                .map(String::from)
                .to_vec(),
        };
        assert_eq!(demands.boots(), [boot]);
    }

    #[test]
    fn a_kernel_that_is_not_at_hand_demands_that_the_test_exists() {
        assert!(unkept(&[], BOTH, &[]).is_empty());
        assert_eq!(
            unkept(&[], &["vm_a::one"], &[]),
            ["\"counts are exact\": there is no test vm_a::two"]
        );
    }

    #[test]
    fn tests_without_a_machine_are_demanded_where_they_ran() {
        let demands = Demands::parse(
            &FILE
                .replace("vm_a", "a")
                .replace(r#"["6.1", "6.12+preempt=full"]"#, r#"["host"]"#),
        );
        let demands = demands.unwrap();
        let mut report = Report::default();
        report.test("a::one@host".into(), Verdict::Unsupported("no Go".into()));
        let unkept = |with_host| demands.unkept(&report, &BTreeSet::new(), &|_| with_host);
        assert_eq!(
            unkept(true),
            [
                "\"counts are exact\": a::one@host says that it does not apply: no Go",
                "\"counts are exact\": a::two@host did not run",
            ]
        );
        assert!(demands.boots().is_empty());
        assert_eq!(unkept(false).len(), 1, "one that ran is looked at");
    }

    #[test]
    fn a_file_that_demands_nothing_is_refused() {
        for (from, to) in [
            (r#"["vm_a::one", "vm_a::two"]"#, "[]"),
            (r#"["6.1", "6.12+preempt=full"]"#, "[]"),
            (r#""6.1""#, r#""6.2""#),
            (r#""6.1""#, r#""host""#),
            (r#""vm_a::one""#, r#""a::one""#),
            ("text", "txet"),
        ] {
            assert!(
                Demands::parse(&FILE.replace(from, to)).is_err(),
                "{from} -> {to}"
            );
        }
        assert!(Demands::parse("line = []").is_err());
    }
}
