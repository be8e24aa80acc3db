//! Kernels that let nothing be overridden: finject says so, and what would provide it.

use finject_tests::{
    child::Child,
    finject::{attach, finject},
    guest,
    refused::{UNAVAILABLE, refuses},
    test_name, unsupported,
    victim::Victim,
};
use serde_json::Value;

/// Ends a test on a kernel that has what finject needs.
macro_rules! needs_no_override {
    () => {
        if guest::overrides() {
            unsupported!(test_name!(), "a kernel with override");
        }
    };
}

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
        (&answer["works"], &answer["trial"]),
        (&false.into(), &Value::Null),
        "{answer}"
    );
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
