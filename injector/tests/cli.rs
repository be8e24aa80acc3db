//! The command line as somebody without privilege meets it: statuses, messages, and what is printed.
//! Messages that come from a plan are in golden files; `INSTA_UPDATE=always cargo test` renews them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

const DONE: Option<i32> = Some(0);
const USAGE: Option<i32> = Some(64);
const UNAVAILABLE: Option<i32> = Some(69);

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finject"));
    command
        .args(arguments)
        .env_remove("FINJECT_RULES")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command
}

fn finject(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A process that could be a target, with a name that stays the same.
struct Target(Child);

impl Target {
    fn start() -> Self {
        let child = Command::new("sleep")
            .arg("600")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let comm = format!("/proc/{}/comm", child.id());
        let target = Self(child);
        for _ in 0..500 {
            if std::fs::read_to_string(&comm).unwrap().trim() == "sleep" {
                return target;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it has not become what it is");
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn without_arguments_it_tells_how_it_is_used() {
    let output = finject(&[]);
    assert_eq!((output.status.code(), err(&output)), (USAGE, String::new()));
    for words in [
        "Usage: finject",
        "--pid",
        "--rule",
        "fsync=EIO@3",
        "Exit status",
    ] {
        assert!(
            out(&output).contains(words),
            "no {words:?}:\n{}",
            out(&output)
        );
    }
}

#[test]
fn answers_that_were_asked_for_go_to_standard_output() {
    for (arguments, words) in [
        (["--version"].as_slice(), "finject 0."),
        (&["--help"], "Usage: finject"),
        (&["help"], "Usage: finject"),
        (&["doctor", "--help"], "Usage: finject doctor"),
        (&["explain", "--help"], "Usage: finject explain"),
        (&["help", "rules"], "fsync=EIO@3"),
        (&["help", "rule"], "per:process"),
    ] {
        let output = finject(arguments);
        assert_eq!(
            (output.status.code(), err(&output)),
            (DONE, String::new()),
            "{arguments:?}"
        );
        assert!(out(&output).contains(words), "{arguments:?}");
    }
}

#[test]
fn mistakes_are_usage_and_name_the_remedy() {
    let target = Target::start();
    let pid = target.pid();
    let on = |rule: &'static str| vec!["--pid", pid.as_str(), "--rule", rule];
    let cases: Vec<(Vec<&str>, Vec<&str>)> = vec![
        (
            vec!["frob"],
            vec!["a command to launch stands behind --", "--help"],
        ),
        (
            vec!["--frob"],
            vec!["unexpected argument '--frob'", "--help"],
        ),
        (
            vec!["help", "frob"],
            vec!["no help on `frob`", "help: finject help rules"],
        ),
        (
            vec!["--pid", "x", "--rule", "fsync=EIO"],
            vec!["invalid value 'x' for '--pid"],
        ),
        (
            vec!["--lease", "1s", "--pid", &pid, "--rule", "fsync=EIO"],
            vec!["'--lease <TIME>'", "between 1.5s", "60s"],
        ),
        (
            vec!["--lease", "61s", "--pid", &pid, "--rule", "fsync=EIO"],
            vec!["'--lease <TIME>'", "between 1.5s", "60s"],
        ),
        (
            vec!["--spin-max", "2ms", "--pid", &pid, "--rule", "fsync=EIO"],
            vec!["'--spin-max <TIME>'", "at most 1ms"],
        ),
        (
            vec!["--rule", "fsync=EIO"],
            vec!["no target", "help: --pid PID"],
        ),
        (
            vec!["--pid", &pid],
            vec!["no rule: nothing would fail", "FINJECT_RULES"],
        ),
        (
            vec!["--pid", "1", "--rule", "fsync=EIO"],
            vec!["process 1 is never a target", "help: "],
        ),
        (
            on("fsnc=EIO"),
            vec!["unknown call `fsnc`", "did you mean `fsync`?"],
        ),
        (
            on("fsync=EOI"),
            vec!["unknown errno `EOI`", "did you mean `EIO`?"],
        ),
        (on("fsync=EIO@3,5"), vec!["help: "]),
        (
            on("exit_group=EIO"),
            vec!["`exit_group` may not be given a result"],
        ),
        (
            on("close=EIO"),
            vec!["may not be given a result", "`after:EIO`"],
        ),
        (
            [on("fsync=EIO"), vec!["--duration", "5"]].concat(),
            vec!["--duration", "unit"],
        ),
        (
            [on("fsync=EIO"), vec!["--ready-fd", "77"]].concat(),
            vec!["--ready-fd 77", "Bad file"],
        ),
        (
            [on("fsync=EIO"), vec!["--must-fire", "--dry-run"]].concat(),
            vec!["cannot be used with"],
        ),
        (
            vec!["--pid", &pid, "--rules", "/nonexistent"],
            vec!["/nonexistent", "help: name a file"],
        ),
    ];
    for (arguments, words) in cases {
        let output = finject(&arguments);
        assert_eq!(
            output.status.code(),
            USAGE,
            "{arguments:?}: {}",
            err(&output)
        );
        for word in words {
            assert!(
                err(&output).contains(word),
                "{arguments:?}: no {word:?} in {}",
                err(&output)
            );
        }
        assert_eq!(out(&output), "", "{arguments:?}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let output = finject(&[
        "--pid",
        "1",
        "--rule",
        "fsnc=EIO",
        "--rule",
        "fsync=EOI@3,5",
    ]);
    assert_eq!(output.status.code(), USAGE);
    for words in ["fsnc", "EOI", "process 1 is never"] {
        assert!(
            err(&output).contains(words),
            "no {words:?} in {}",
            err(&output)
        );
    }
}

#[test]
fn rules_of_the_environment_are_read_like_others() {
    let target = Target::start();
    let mut command = command(&["explain", "--pid", &target.pid(), "--seed", "1"]);
    let output = command
        .env("FINJECT_RULES", "fsync=EIO@3; unlink=EOI")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), USAGE);
    assert!(
        err(&output).contains("unknown errno `EOI`"),
        "{}",
        err(&output)
    );
    let output = command
        .env("FINJECT_RULES", "fsync=EIO@3; unlink=EACCES")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), DONE, "{}", err(&output));
    assert!(out(&output).contains("unlink=EACCES"), "{}", out(&output));
}

/// What `explain` says, with the target's number left out.
fn explained(arguments: &[&str], status: Option<i32>) -> String {
    let target = Target::start();
    let pid = target.pid();
    let output = finject(&[&["explain", "--pid", &pid, "--seed", "7"], arguments].concat());
    assert_eq!(output.status.code(), status, "{}", err(&output));
    assert_eq!(err(&output), "");
    // With what stands before it, since a number may stand elsewhere too.
    out(&output)
        .replace(&format!("target   {pid} "), "target   PID ")
        .replace(&format!("\"pid\": {pid}\n"), "\"pid\": PID\n")
}

#[test]
fn explain_tells_what_would_be_done() {
    let arguments = [
        "--rule",
        "%sync=EIO@3",
        "--rule",
        "write=signal:SIGUSR1+ENOSPC@10+,max:5",
    ];
    insta::assert_snapshot!(explained(&arguments, DONE));
}

#[test]
fn explain_tells_of_its_options() {
    let arguments = [
        "--rule",
        "fsync=EIO",
        "--no-follow",
        "--dry-run",
        "--duration",
        "90s",
    ];
    insta::assert_snapshot!(explained(&arguments, DONE));
}

#[test]
fn explain_tells_what_would_be_refused() {
    let arguments = [
        "--rule",
        "fsync=delay:20ms+EIO@3",
        "--rule",
        "write=corrupt:65",
    ];
    insta::assert_snapshot!(explained(&arguments, UNAVAILABLE));
}

#[test]
fn explain_answers_programs_the_same() {
    let arguments = [
        "--json",
        "--rule",
        "fsync=EIO@3",
        "--rule",
        "write=corrupt:65",
    ];
    insta::assert_snapshot!(explained(&arguments, UNAVAILABLE));
}

#[test]
fn somebody_who_is_not_root_is_told_to_be() {
    for (backend, words) in [
        (
            "auto",
            [
                "may not trace thread",
                "not by ebpf: this machine cannot do it: privilege",
            ],
        ),
        (
            "ebpf",
            ["privilege: uid", "help: run it as root: sudo finject"],
        ),
    ] {
        let output = as_somebody_else(backend);
        assert_eq!(output.status.code(), UNAVAILABLE, "{}", err(&output));
        for words in words
            .iter()
            .chain(&["help: run it as root", "sudo finject"])
        {
            assert!(err(&output).contains(words), "{words}: {}", err(&output));
        }
        assert_eq!(out(&output), "");
    }
}

/// What finject answers to a user who is not root, and asks for a process of root's.
fn as_somebody_else(backend: &str) -> Output {
    let target = Target::start();
    let pid = target.pid();
    let attach = ["--backend", backend, "--pid", &pid, "--rule", "fsync=EIO@3"];
    // Root can become somebody else, where the program can still be reached.
    let is_root = std::fs::read_to_string("/proc/self/status")
        .unwrap()
        .contains("\nUid:\t0\t");
    if !is_root {
        return finject(&attach);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(env!("CARGO_BIN_EXE_finject"))
        .args(attach)
        .env("NO_COLOR", "1");
    command.output().unwrap()
}

#[test]
fn a_warning_is_an_error_where_that_is_asked_for() {
    // The second can never decide a call.
    let rules = ["--rule", "fsync=EIO", "--rule", "fsync=EPERM", "--", "true"];
    let output = finject(&[&["explain"], &rules[..]].concat());
    assert_eq!(output.status.code(), DONE, "{}", err(&output));
    assert!(err(&output).contains("warning"), "{}", err(&output));
    let output = finject(&[&["explain", "--strict"], &rules[..]].concat());
    assert_eq!(output.status.code(), USAGE, "{}", err(&output));
    let said = "help: mend the rule, or leave --strict out";
    assert!(err(&output).contains(said), "{}", err(&output));
    assert_eq!(out(&output), "");
}

#[test]
fn variables_are_put_into_rule_files() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.toml");
    let text = "[vars]\nmost = \"3\"\n[[rule]]\nname = \"a\"\nrule = \"fsync=EIO@max:${most}\"\n";
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let explained = |more: &[&str]| {
        let command = ["--rules", &file, "--", "true"];
        let output = finject(&[&["explain"], more, &command].concat());
        (output.status.code(), out(&output) + &err(&output))
    };
    let (code, text) = explained(&[]);
    assert!(code == DONE && text.contains("fsync=EIO@max:3"), "{text}");
    let (code, text) = explained(&["--var", "most=5"]);
    assert!(code == DONE && text.contains("fsync=EIO@max:5"), "{text}");
    let (code, text) = explained(&["--var", "mst=5"]);
    assert!(code == USAGE && text.contains("mst"), "{text}");
}

#[test]
fn doctor_shows_what_each_backend_carries_out_for_whom_and_why_not() {
    let output = finject(&["doctor", "--json"]);
    assert!(matches!(output.status.code(), DONE | UNAVAILABLE));
    let answer: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    let matrix = answer["matrix"].as_object().unwrap();
    for (part, cells) in matrix {
        let cells = cells.as_object().unwrap();
        assert_eq!(cells.len(), 3, "{part}");
        for (backend, cell) in cells {
            let cell = cell.as_str().unwrap();
            let has_reason = cell.strip_prefix("no: ").is_some_and(|why| !why.is_empty());
            assert!(cell == "yes" || has_reason, "{part}, {backend}: {cell}");
        }
    }
    let cell = |part: &str, backend: &str| matrix[part][backend].as_str().unwrap().to_owned();
    assert_eq!(
        cell("running processes, --pid N", "notify"),
        "no: it only launches"
    );
    assert_eq!(cell("exe=", "ebpf"), "no: not built yet");
    for (part, trial) in [
        ("running processes, --pid N", "attached"),
        ("commands, -- COMMAND", "launched"),
    ] {
        let trial = &answer["others"]["ptrace"][trial];
        let expected = if trial["works"] == true {
            "yes".to_owned()
        } else {
            format!("no: {}", trial["seen"].as_str().unwrap())
        };
        assert_eq!(cell(part, "ptrace"), expected, "{answer:#}");
    }
    // The same as a table.
    let table = out(&finject(&["doctor"]));
    for (part, cells) in matrix {
        let row = table
            .lines()
            .find(|line| line.trim_start().starts_with(part));
        let row = row.unwrap_or_else(|| panic!("no {part}: {table}"));
        for cell in cells.as_object().unwrap().values() {
            let cell: String = cell.as_str().unwrap().chars().take(37).collect();
            assert!(row.contains(&cell), "{part}: {row}");
        }
    }
}
