//! Which tests run where, and what their output says.

use super::*;

fn target(name: &str, tests: &[&str]) -> Target {
    Target {
        name: name.into(),
        executable: format!("/a b/{name}").into(),
        tests: tests.iter().map(|test| (*test).to_owned()).collect(),
    }
}

const DEMANDS: &str = r#"
    [[line]]
    text = "words"
    tests = ["vm_a::two", "vm_a::gone"]
    kernels = ["6.12+preempt=full", "debian+preempt=full"]
    [[line]]
    text = "one on both"
    tests = ["vm_c::five"]
    kernels = ["6.1", "6.12"]
"#;

/// Two targets on two kernels, with one more boot.
fn suite(only: &[&str]) -> Suite {
    let targets = vec![target("vm_a", &["one", "two"]), target("vm_b", &["three"])];
    planned(targets, 0.1, only)
}

fn planned(targets: Vec<Target>, scale: f64, only: &[&str]) -> Suite {
    let kernel = |name: &str| TestKernel {
        name: name.into(),
        path: name.into(),
    };
    let mut suite = Suite {
        targets,
        kernels: vec![kernel("6.1"), kernel("6.12")],
        machines: Vec::new(),
        once: vec![
            Once {
                on: "6.12".into(),
                not_on: vec!["6.1".into()],
                tests: vec!["vm_c::".into()],
                always: false,
            },
            Once {
                on: "6.12".into(),
                not_on: vec!["6.1".into()],
                tests: vec!["vm_d::six".into()],
                always: true,
            },
            // Not at hand.
            Once {
                on: "debian".into(),
                not_on: vec!["6.12".into()],
                tests: vec!["vm_d::".into()],
                always: true,
            },
        ],
        soak: vec!["vm_c::".into(), "vm_d::six".into()],
        time: Time {
            target: 60,
            soak_target: 600,
        },
        scale,
    };
    let settings = Settings {
        scale,
        only: only.iter().map(|part| (*part).to_owned()).collect(),
        kernels: Vec::new(),
        fresh_object: None,
    };
    suite
        .plan(&settings, &Demands::parse(DEMANDS).unwrap())
        .unwrap();
    suite
}

fn labels(suite: &Suite) -> Vec<&str> {
    suite
        .machines
        .iter()
        .map(|machine| machine.label.as_str())
        .collect()
}

#[test]
fn each_kernel_is_booted_once_and_again_with_words() {
    assert_eq!(labels(&suite(&[])), ["6.1", "6.12", "6.12+preempt=full"]);
    assert_eq!(labels(&suite(&["three"])), ["6.1", "6.12"]);
}

#[test]
fn what_is_alike_on_two_kernels_is_run_on_one_but_where_it_is_demanded() {
    let run = |scale, only: &[&str]| {
        let targets = vec![
            target("vm_c", &["four", "five"]),
            target("vm_d", &["six", "seven"]),
        ];
        let suite = planned(targets, scale, only);
        let tests = suite.machines.iter().map(|machine| {
            let tests = machine.tests.values().flatten();
            tests.cloned().collect::<Vec<_>>().join(" ")
        });
        tests.collect::<Vec<_>>()
    };
    let whole = "four five six seven";
    assert_eq!(run(0.1, &[]), ["five seven", whole]);
    // In full only what has large counts.
    assert_eq!(run(1.0, &[]), ["four five", "four five six"]);
    assert_eq!(run(1.0, &["seven"]), ["seven", "seven"]);
    assert_eq!(run(0.1, &["six"]), ["six", "six"]);
}

#[test]
fn the_script_runs_each_target_under_its_time() {
    let suite = suite(&[]);
    let expected = "#!/bin/sh
printf '\\n%s\\n' '@@finject-tests@@ target vm_a'
timeout -k 5 60 '/a b/vm_a' --test-threads=1 --show-output --exact \\
  'one' \\
  'two' 2>&1
printf '\\n%s\\n' \"@@finject-tests@@ status $?\"
printf '\\n%s\\n' '@@finject-tests@@ target vm_b'
timeout -k 5 60 '/a b/vm_b' --test-threads=1 --show-output --exact \\
  'three' 2>&1
printf '\\n%s\\n' \"@@finject-tests@@ status $?\"
";
    assert_eq!(suite.script(&suite.machines[0], 60), expected);
}

fn verdicts(output: &str, trouble: Option<&str>) -> Vec<String> {
    let suite = suite(&[]);
    let results = suite.results(&suite.machines[0], output, trouble);
    let line = |(name, verdict)| match verdict {
        Verdict::Passed => format!("{name} passed"),
        Verdict::Failed(why) => format!("{name} failed: {why}"),
        Verdict::Unsupported(why) => format!("{name} unsupported: {why}"),
    };
    results.into_iter().map(line).collect()
}

#[test]
fn every_test_that_was_to_run_has_a_result() {
    let output = "
@@finject-tests@@ target vm_a
test one ... ok
test two ... ok
---- two stdout ----
UNSUPPORTED two: no such call
@@finject-tests@@ status 0
@@finject-tests@@ target vm_b
";
    assert_eq!(
        verdicts(output, Some("the kernel failed")),
        [
            "vm_a::one passed",
            "vm_a::two unsupported: no such call",
            "vm_b::three failed: no result: the kernel failed",
        ]
    );
    assert_eq!(verdicts("", None).len(), 3);
    assert!(
        verdicts("", None)
            .iter()
            .all(|line| line.ends_with("did not run"))
    );
}

#[test]
fn a_target_that_crashed_or_hung_says_so() {
    let output = "
@@finject-tests@@ target vm_a
test one ... ok
@@finject-tests@@ status 139
@@finject-tests@@ target vm_b
@@finject-tests@@ status 124
";
    assert_eq!(
        verdicts(output, None),
        [
            "vm_a::one passed",
            "vm_a::two failed: no result: the target ended with status 139",
            "vm_b::three failed: no result: the target ran out of time",
        ]
    );
}

#[test]
fn a_target_that_fails_after_its_tests_has_failed() {
    let output = "
@@finject-tests@@ target vm_a
test one ... ok
test two ... ok
@@finject-tests@@ status 1
@@finject-tests@@ target vm_b
test three ... ok
@@finject-tests@@ status 0
";
    assert_eq!(
        verdicts(output, None),
        [
            "vm_a::one passed",
            "vm_a::two passed",
            "vm_a failed: no result: the target ended with status 1",
            "vm_b::three passed",
        ]
    );
}

#[test]
fn words_are_quoted_for_the_shell() {
    assert_eq!(quoted("it's"), r"'it'\''s'");
}
