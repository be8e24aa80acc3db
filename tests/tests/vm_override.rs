//! What a fault does to the call that it hits, and to nobody else: the body does not run, processes
//! that are no targets see nothing, and both ABIs are hit.

use std::{fs::File, io::Write as _};

use finject_tests::{
    errno::EIO,
    finject::{Finject, attach, calls_under, work_under},
    needs_override, programs, test_name, unsupported,
    victim::Victim,
};

/// Ends a test when there is no 32-bit program to try.
macro_rules! needs_32_bit_programs {
    () => {
        if programs::VICTIM32.is_empty() {
            unsupported!(test_name!(), "no compiler for 32 bits: gcc-multilib");
        }
    };
}

#[test]
fn unlink_leaves_the_file() {
    needs_override!();
    let (seen, outcome) = calls_under(1, "unlink", "unlink=EIO@1");
    assert_eq!((seen.errors, seen.errno), (1, EIO), "{seen:?}");
    assert!(seen.exists, "{seen:?}");
    assert_eq!(outcome.fired(), 1, "{}", outcome.ended);
}

#[test]
fn unlink_that_no_fault_hits_removes_the_file() {
    needs_override!();
    let (seen, outcome) = calls_under(1, "unlink", "unlink=EIO@2");
    assert_eq!((seen.errors, seen.exists), (0, false), "{seen:?}");
    assert_eq!(
        (outcome.matched(), outcome.fired()),
        (1, 0),
        "{}",
        outcome.ended
    );
}

#[test]
fn write_leaves_the_size() {
    needs_override!();
    let (seen, outcome) = calls_under(10, "write", "write=EIO@4..6");
    assert_eq!(
        (seen.calls, seen.errors, seen.errno),
        (10, 3, EIO),
        "{seen:?}"
    );
    assert_eq!(seen.size, 7, "{seen:?}");
    assert_eq!(outcome.counts(), [4, 5, 6], "{}", outcome.ended);
}

#[test]
fn another_process_sees_no_fault() {
    needs_override!();
    let target = Victim::looping("fsync");
    let mut other = Victim::threads(2, 2000, "fsync");
    let session = attach(&target, "fsync=EIO").start();
    target.until(finject_tests::child::PATIENCE, true);
    let seen = other.work();
    assert_eq!(target.fails(), Some(true), "the storm goes on");
    let outcome = session.stop();
    assert_eq!((seen.calls, seen.errors), (4000, 0), "{seen:?}");
    let fired = outcome.kind("fired");
    assert!(!fired.is_empty());
    assert!(
        fired.iter().all(|event| event["pid"] == target.pid()),
        "{fired:?}"
    );
}

#[test]
fn the_same_file_in_another_process_sees_no_fault() {
    needs_override!();
    let target = Victim::looping("fsync");
    let mut file = File::options().append(true).open(target.file()).unwrap();
    let session = attach(&target, "fsync=EIO").start();
    target.until(finject_tests::child::PATIENCE, true);
    let before = file.metadata().unwrap().len();
    for _ in 0..1000 {
        file.write_all(b"y").unwrap();
        file.sync_all().unwrap();
    }
    let grown = file.metadata().unwrap().len() - before;
    assert_eq!(target.fails(), Some(true), "the storm goes on");
    session.stop();
    assert_eq!(grown, 1000);
}

#[test]
fn a_32_bit_caller_is_hit() {
    needs_override!();
    needs_32_bit_programs!();
    let mut victim = Victim::threads32(1, 5, "write");
    let (seen, outcome) = work_under(&mut victim, &["write=EIO@3"], &[]);
    assert_eq!(
        (seen.errors, seen.errno, seen.size),
        (1, EIO, 4),
        "{seen:?}"
    );
    assert_eq!(outcome.counts(), [3], "{}", outcome.ended);
    let event = outcome.kind("fired")[0];
    // The number of write in arch/x86/entry/syscalls/syscall_32.tbl.
    assert_eq!(
        (&event["abi"], &event["nr"]),
        (&"32".into(), &4.into()),
        "{event}"
    );
    assert_eq!(event["args"][2], "0x1", "{event}");
}

#[test]
fn callers_of_both_abis_are_counted_together() {
    needs_override!();
    needs_32_bit_programs!();
    let mut native = Victim::threads(1, 10, "fsync");
    let mut compat = Victim::threads32(1, 10, "fsync");
    let session = Finject::new()
        .pid(native.pid())
        .pid(compat.pid())
        .rule("fsync=EIO@5+10")
        .start();
    let (first, second) = (native.work(), compat.work());
    let outcome = session.stop();
    assert_eq!(
        (first.errors, second.errors),
        (1, 1),
        "{first:?} {second:?}"
    );
    assert_eq!(outcome.counts(), [5, 15], "{}", outcome.ended);
    let abis: Vec<_> = outcome
        .kind("fired")
        .iter()
        .map(|event| event["abi"].clone())
        .collect();
    assert_eq!(abis, ["64", "32"]);
}

#[test]
fn a_rule_for_one_abi_leaves_callers_of_the_other_alone() {
    needs_override!();
    needs_32_bit_programs!();
    // For getppid both ABIs enter the same function of the kernel's, for fsync each its own.
    for (call, native_rule, compat_rule) in [
        ("fsync", "fsync@64=EIO", "fsync@32=EIO"),
        ("getppid", "getppid@64=EIO", "getppid@32=EIO"),
    ] {
        for (rule, hits_native) in [(native_rule, true), (compat_rule, false)] {
            let mut native = Victim::threads(1, 10, call);
            let mut compat = Victim::threads32(1, 10, call);
            let session = Finject::new()
                .pid(native.pid())
                .pid(compat.pid())
                .rule(rule)
                .start();
            let seen = (native.work().errors, compat.work().errors);
            let outcome = session.stop();
            let expected = if hits_native { (10, 0) } else { (0, 10) };
            assert_eq!(seen, expected, "{rule}: {}", outcome.ended);
            assert_eq!(outcome.matched(), 10, "{rule}: {}", outcome.ended);
        }
    }
}

#[test]
fn a_function_that_both_abis_enter_by_is_hooked_once() {
    needs_override!();
    for (call, functions) in [("getppid", 1), ("fsync", 2)] {
        let (seen, outcome) = calls_under(4, call, &format!("{call}=EIO@2"));
        assert_eq!((seen.calls, seen.errors), (4, 1), "{seen:?}");
        assert_eq!(outcome.matched(), 4, "{}", outcome.ended);
        assert_eq!(outcome.summary["functions"], functions, "{}", outcome.ended);
    }
}
