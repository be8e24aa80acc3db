//! `finject doctor` where it works: what it says is so, and the verifier has room.

#![expect(clippy::unwrap_used, reason = "tests")]

use finject_tests::{
    child::{Child, PATIENCE},
    finject::{Finject, finject},
    guest, kernel, needs_override,
    victim::Victim,
};
use serde_json::Value;

/// Instructions that the verifier may walk at most here: half of the kernel's own limit of a million
/// (`BPF_COMPLEXITY_LIMIT_INSNS` of include/linux/bpf.h), since its walk differs between kernels.
const ROOM: u64 = 500_000;

fn json() -> Value {
    let ended = Child::run(&mut finject(["doctor", "--json"]));
    assert_eq!(ended.code(), Some(0), "{ended}");
    serde_json::from_str(&ended.out()).unwrap()
}

#[test]
fn says_ready_and_is() {
    needs_override!();
    let ended = Child::run(&mut finject(["doctor"]));
    assert_eq!(ended.code(), Some(0), "{ended}");
    for words in [
        "ready: sudo finject --pid",
        "error injection",
        "ran again after healing",
    ] {
        assert!(ended.out().contains(words), "{ended}");
    }
    assert!(!ended.out().contains("missing"), "{ended}");
    kernel::is_clean_within(PATIENCE);
}

#[test]
fn answers_programs_the_same() {
    needs_override!();
    let answer = json();
    assert_eq!(
        (&answer["backend"], &answer["works"]),
        (&"ebpf".into(), &true.into()),
        "{answer}"
    );
    for finding in answer["findings"].as_array().unwrap() {
        let is_known_lack = guest::kernel() == "6.1" && finding["need"] == "miss counts";
        let expected = if is_known_lack { "lacking" } else { "ok" };
        assert_eq!(finding["state"], expected, "{finding}");
    }
    // Native and 32-bit.
    assert_eq!(answer["trial"]["tested_calls"], 2, "{answer}");
}

#[test]
fn the_verifier_has_room() {
    needs_override!();
    let answer = json();
    let verified = answer["trial"]["verified_instructions"].as_u64().unwrap();
    println!("{verified} instructions verified on {}", guest::kernel());
    assert!((1..=ROOM).contains(&verified), "{verified}");
}

/// With all that a rule can ask for and do, in one program.
#[test]
fn the_verifier_has_room_for_everything() {
    needs_override!();
    let victim = Victim::threads(1, 1, "write");
    let rules = [
        "%write(path={wal,log}/**,path!=*.tmp,arg3>=1,comm=victim)=delay:50us+short:1+after:EIO@3,per:thread",
        "%read(path=**/[a-z]*)=hold->corrupt:3->stop->kill@50%,per:process",
        "getppid=signal:SIGUSR1+EPERM@7",
    ];
    let attached = Finject::new().pid(victim.pid()).args(["--duration", "1ms"]);
    let session = rules
        .iter()
        .fold(attached, |finject, rule| finject.rule(rule))
        .start();
    let outcome = session.wait(PATIENCE);
    let verified = outcome.summary["verified_instructions"].as_u64().unwrap();
    println!("{verified} instructions verified on {}", guest::kernel());
    assert!((1..=ROOM).contains(&verified), "{verified}");
}
