//! A kernel that is locked down to confidentiality allows no probes: finject says so.

use std::fs;

use finject_tests::{
    child::Child,
    finject::{attach, finject},
    refused::{UNAVAILABLE, says},
    test_name, unsupported,
    victim::Victim,
};

#[test]
fn refused() {
    let mode = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if !mode.contains("[confidentiality]") {
        unsupported!(test_name!(), "not booted with lockdown=confidentiality");
    }
    let mut victim = Victim::threads(1, 10, "fsync");
    let ended = attach(&victim, "fsync=EIO").run();
    let remedy = "boot without lockdown=confidentiality";
    says(
        &ended,
        UNAVAILABLE,
        &["lockdown: confidentiality", "help: ", remedy],
    );
    assert_eq!(victim.work().errors, 0);
    let doctor = Child::run(&mut finject(["doctor"]));
    assert_eq!(doctor.code(), Some(UNAVAILABLE), "{doctor}");
    for words in [
        "missing  lockdown",
        "needs: boot without lockdown",
        "cannot inject faults",
    ] {
        assert!(doctor.out().contains(words), "{doctor}");
    }
}
