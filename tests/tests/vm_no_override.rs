//! Kernels that let nothing be overridden: finject says so, and what would provide it.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::Path, process::Command};

use finject_tests::{
    child::{Child, Ended, PATIENCE, eventually},
    finject::{Finject, attach, finject},
    guest, needs_no_override,
    refused::{UNAVAILABLE, refuses},
    test_name, unsupported,
    victim::Victim,
};
use serde_json::Value;

const REMEDY: &str = "a kernel with CONFIG_BPF_KPROBE_OVERRIDE=y";

#[test]
fn doctor_says_so() {
    needs_no_override!();
    let ended = Child::run(&mut finject(["doctor"]));
    assert_eq!(ended.code(), Some(UNAVAILABLE), "{ended}");
    for words in [
        "missing  error injection",
        REMEDY,
        "Debian",
        "cannot inject faults",
        "hooked by kprobe and fexit; 2 test calls seen to enter and leave, and not seen after healing",
        "what comes after a call can",
    ] {
        assert!(ended.out().contains(words), "no {words:?}: {ended}");
    }
    // A stock kernel shows its configuration, and is believed.
    if guest::kernel() == "debian" {
        for words in ["CONFIG_BPF_KPROBE_OVERRIDE is not", "/boot/config-"] {
            assert!(ended.out().contains(words), "no {words:?}: {ended}");
        }
    }
    let ended = Child::run(&mut finject(["doctor", "--json"]));
    let answer: Value = serde_json::from_str(&ended.out()).unwrap();
    let missing = answer["findings"].as_array().unwrap().iter();
    let missing: Vec<_> = missing
        .filter(|finding| finding["state"] == "missing")
        .map(|finding| finding["need"].as_str().unwrap())
        .collect();
    assert_eq!(missing, ["error injection"], "{answer}");
    assert_eq!(
        (&answer["works"], &answer["trial"]["mechanism"]),
        (&false.into(), &"kprobe and fexit".into()),
        "{answer}"
    );
    for (part, cell) in [
        ("ERRNO, error:N", "no: lacks error injection"),
        ("delay:D", "no: lacks error injection"),
        ("signal:SIG", "yes"),
        ("after:ERRNO", "yes"),
        ("after:hold", "yes"),
        ("@N, N+, N..M, N+S", "yes"),
        ("per:thread", "yes"),
        ("running processes, --pid N", "yes"),
    ] {
        assert_eq!(answer["matrix"][part]["ebpf"], cell, "{part}: {answer:#}");
    }
}

#[test]
fn refused() {
    needs_no_override!();
    let mut victim = Victim::threads(1, 10, "fsync");
    refuses(
        attach(&victim, "fsync=EIO"),
        UNAVAILABLE,
        &["error injection", "help: ", REMEDY],
    );
    assert_eq!(victim.work().errors, 0);
}

#[test]
fn a_process_is_traced_in_place_of_it() {
    needs_no_override!();
    let mut victim = Victim::threads(2, 10, "fsync");
    let session = Finject::of(&guest::finject())
        .pid(victim.pid())
        .rule("fsync=EIO@3")
        .start();
    let seen = victim.work();
    let outcome = session.stop();
    assert_eq!(
        (seen.errors, outcome.counts()),
        (1, vec![3]),
        "{}",
        outcome.ended
    );
    for words in [
        "by ptrace of",
        "not by ebpf: this machine cannot do it: error injection",
    ] {
        assert!(outcome.ended.err().contains(words), "{}", outcome.ended);
    }
}

/// What Yama lets a user trace (Documentation/admin-guide/LSM/Yama.rst).
const SCOPE: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// As it was, put back at the end.
struct Scope(String);

impl Scope {
    fn set(value: &str) {
        fs::write(SCOPE, value).unwrap();
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let _ = fs::write(SCOPE, &self.0);
    }
}

#[test]
fn what_yama_forbids_is_refused() {
    const FINJECT: &str = "/tmp/finject-yama";
    if !Path::new(SCOPE).exists() {
        unsupported!(test_name!(), "a kernel without Yama");
    }
    // Where the user nobody can reach it.
    fs::copy(guest::finject(), FINJECT).unwrap();
    let nobody = |program: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        command
            .arg(program)
            .env_remove("FINJECT_RULES")
            .env("NO_COLOR", "1");
        command
    };
    let sleeper = Child::start(nobody("sleep").arg("60"));
    let pid = sleeper.pid().to_string();
    // Till then it is root's, and nobody may not attach to it.
    eventually(PATIENCE, "it sleeps as nobody", || {
        fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() == "sleep\n"
    });
    let attach = || {
        let rule = ["--rule", "fsync=EIO", "--duration", "10ms"];
        Child::run(
            nobody(FINJECT)
                .args(["--backend", "ptrace", "--pid", &pid])
                .args(rule),
        )
    };
    let _before = Scope(fs::read_to_string(SCOPE).unwrap());
    Scope::set("0");
    let ended = attach();
    assert_eq!(ended.code(), Some(0), "{ended}");
    let launch = |backend: &str| {
        let rule = ["--rule", "openat(path=/etc/host*)=EACCES@1"];
        let mut command = nobody(FINJECT);
        command.args(["--quiet", "--backend", backend]).args(rule);
        Child::run(command.args(["--", "cat", "/etc/hostname"]))
    };
    let is_denied =
        |ended: &Ended| ended.code() == Some(1) && ended.err().contains("Permission denied");
    for backend in ["notify", "ptrace"] {
        let ended = launch(backend);
        assert!(is_denied(&ended), "{backend}: {ended}");
    }
    for value in ["1", "2"] {
        Scope::set(value);
        // Its keeper cannot read names.
        let ended = launch("notify");
        assert_eq!(ended.code(), Some(UNAVAILABLE), "{ended}");
        let told = format!("kernel.yama.ptrace_scope is {value}");
        assert!(ended.err().contains(&told), "{ended}");
        assert!(ended.err().contains("run finject as root"), "{ended}");
        if value == "1" {
            assert!(ended.err().contains("use --backend ptrace"), "{ended}");
            for backend in ["ptrace", "auto"] {
                let ended = launch(backend);
                assert!(is_denied(&ended), "{backend}: {ended}");
            }
        }
        let ended = attach();
        assert_eq!(ended.code(), Some(UNAVAILABLE), "{ended}");
        for words in [told.as_str(), "help: run it as root", "-- COMMAND"] {
            assert!(ended.err().contains(words), "no {words:?}: {ended}");
        }
    }
}
