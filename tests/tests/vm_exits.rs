//! Kernels that let nothing be overridden: what comes after calls is decided in the kernel all the same, and done when a
//! thread leaves its call.

use std::{path::Path, process::Command, thread, time::Duration};

use finject_tests::{
    child::{Child, Ended, PATIENCE, eventually},
    conformance::Way,
    errno::EIO,
    finject::{Finject, Session, attach, finject, work_under},
    guest,
    held::{Caller, Who, calls_give_what_they_give, go_on, signals_are_the_programs_own},
    kernel, needs_no_override, programs,
    refused::UNAVAILABLE,
    victim::{Victim, stay_on_first_processor},
};
use rustix::process::Signal;
use serde_json::Value;

/// What `finject ctl` answers about a session.
fn ctl(session: &Session, arguments: &[&str]) -> Ended {
    let own = session.pid().to_string();
    let words = ["ctl", "--json", "--session", &own];
    Child::run(&mut finject(words.iter().chain(arguments)))
}

#[test]
fn counts_are_exact_over_threads() {
    needs_no_override!();
    let mut victim = Victim::threads(8, 2000, "write");
    let (seen, outcome) = work_under(&mut victim, &["write(fd!=1)=after:EIO@100+100"], &[]);
    assert_eq!((seen.errors, seen.errno), (160, EIO), "{}", outcome.ended);
    assert_eq!(seen.size, 16_000, "all of them ran: {}", outcome.ended);
    let hundredth: Vec<u64> = (1..=160).map(|number| 100 * number).collect();
    assert_eq!(outcome.counts(), hundredth);
    assert_eq!(outcome.summary["backend"], "ebpf");
    assert_eq!(outcome.summary["mechanism"], "kprobe and fexit");
    kernel::is_clean_within(PATIENCE);
}

#[test]
fn a_32_bit_caller_hears_it() {
    needs_no_override!();
    let mut victim = Victim::threads32(1, 10, "write");
    let (seen, outcome) = work_under(&mut victim, &["write(fd!=1)=after:EIO@3..5"], &[]);
    assert_eq!((seen.errors, seen.size), (3, 10), "{}", outcome.ended);
}

#[test]
fn what_the_program_can_do_before_a_call_it_does() {
    needs_no_override!();
    let mut victim = Victim::threads(1, 5, "getppid");
    let rules = ["getppid=signal:SIGUSR1@2", "getppid=delay:50us@4"];
    let (seen, outcome) = work_under(&mut victim, &rules, &[]);
    assert_eq!((seen.errors, seen.signals), (0, 1), "{}", outcome.ended);
    assert_eq!(
        (outcome.tally(0, "fired"), outcome.tally(1, "fired")),
        (1, 1)
    );
    assert_eq!(outcome.summary["backend"], "ebpf");
}

#[test]
fn signals_of_its_own_are_neither_lost_nor_invented() {
    needs_no_override!();
    for caller in Caller::ALL {
        signals_are_the_programs_own(Way::EbpfExits, guest::finject(), caller, 1000);
    }
}

#[test]
fn nothing_is_left_when_finject_is_killed() {
    needs_no_override!();
    // They call while hooks come and go.
    stay_on_first_processor();
    for caller in Caller::ALL {
        calls_give_what_they_give(Way::EbpfExits, guest::finject(), caller, 200_000);
        kernel::is_clean_within(PATIENCE);
    }
}

/// Each of them sleeps when the session ends.
#[test]
fn a_call_that_outlasts_the_session_is_left_alone() {
    needs_no_override!();
    let mut shell = Command::new("sh");
    shell.args(["-c", "for i in 1 2 3; do sleep 3; echo slept $?; done"]);
    let mut shell = Child::start(&mut shell);
    let mut session = Finject::new()
        .pid(shell.pid())
        .rule("clock_nanosleep=after:EIO")
        .start();
    // Begun before, and one that begins under the rule.
    let told = |line: &str| line == "slept 1";
    assert!(shell.find_line(PATIENCE, told).is_some(), "none failed");
    thread::sleep(Duration::from_millis(1500));
    session.child().signal(Signal::INT);
    let outcome = session.wait(PATIENCE);
    assert_eq!(outcome.tally(0, "lost"), 0, "{}", outcome.ended);
    let ended = shell.wait(PATIENCE);
    assert_eq!(ended.stdout.last().unwrap(), "slept 0", "{ended}");
    kernel::is_clean_within(PATIENCE);
}

/// Of calls that come back when the faults are over nothing is told, and nothing was lost.
#[test]
fn nothing_is_lost_when_the_session_ends() {
    needs_no_override!();
    // They call while hooks come and go.
    stay_on_first_processor();
    for _ in 0..5 {
        let victim = Victim::of(programs::VICTIM, &["loop", "fdatasync", "500"]);
        let more = Victim::of(programs::VICTIM, &["loop", "getppid", "500"]);
        let session = Finject::new()
            .pid(victim.pid())
            .pid(more.pid())
            .rule("fdatasync,write,clock_nanosleep,getppid=after:delay:1ms")
            .start();
        thread::sleep(Duration::from_millis(300));
        let outcome = session.stop();
        assert!(outcome.fired() > 10, "{}", outcome.ended);
        assert_eq!(outcome.tally(0, "lost"), 0, "{}", outcome.ended);
    }
    kernel::is_clean_within(PATIENCE);
}

#[test]
fn go_on_when_finject_or_the_tracer_is_killed_or_stopped() {
    needs_no_override!();
    // They call while hooks go.
    stay_on_first_processor();
    for who in [Who::Finject, Who::Holder] {
        for wound in [Signal::KILL, Signal::STOP] {
            go_on(Way::EbpfExits, guest::finject(), who, wound);
            kernel::is_clean_within(PATIENCE);
        }
    }
}

/// A thread is in a call when its rule is removed, and when it is added again.
#[test]
fn a_call_is_left_alone_whose_rule_is_removed_while_it_runs() {
    needs_no_override!();
    let mut shell = Command::new("sh");
    shell.args(["-c", "for i in 1 2 3 4; do sleep 3; echo slept $?; done"]);
    let mut shell = Child::start(&mut shell);
    let session = Finject::new()
        .pid(shell.pid())
        .rule("clock_nanosleep=after:EIO")
        .start();
    let slept = |shell: &Child, number: usize| {
        let told = || shell.stdout_now().len() >= number;
        eventually(PATIENCE, "it has slept", told);
        shell.stdout_now()[number - 1].clone()
    };
    assert_eq!(slept(&shell, 1), "slept 0", "it began before");
    assert_eq!(slept(&shell, 2), "slept 1");
    thread::sleep(Duration::from_secs(1));
    for arguments in [["remove", "r1"], ["add", "clock_nanosleep=after:EIO"]] {
        let ended = ctl(&session, &arguments);
        assert_eq!(ended.code(), Some(0), "{ended}");
    }
    assert_eq!(slept(&shell, 3), "slept 0");
    assert_eq!(slept(&shell, 4), "slept 1");
    shell.wait(PATIENCE);
    let outcome = session.wait(PATIENCE);
    assert_eq!(outcome.fired(), 2, "{}", outcome.ended);
    assert_eq!(outcome.tally(0, "lost"), 0, "{}", outcome.ended);
}

/// The thread has another id when it comes back.
#[test]
fn an_exec_by_another_thread_than_the_first_is_heard_of() {
    needs_no_override!();
    let mut victim = Victim::of(programs::VICTIM, &["threadexec", "5", "getppid"]);
    // One that does nothing to the program that has come.
    let session = attach(&victim, "execve=after:signal:SIGCHLD").start();
    victim.go();
    let (seen, outcome) = (victim.seen("after-exec"), session.stop());
    assert_eq!((seen.calls, seen.errors), (5, 0), "{}", outcome.ended);
    assert_eq!(
        (outcome.fired(), outcome.tally(0, "lost")),
        (1, 0),
        "{}",
        outcome.ended
    );
}

/// SIGWINCH is what stops a thread, and does nothing by itself.
#[test]
fn a_thread_that_blocks_the_signal_goes_without() {
    needs_no_override!();
    let mut env = Command::new("env");
    env.arg("--block-signal=WINCH");
    let mut victim =
        Victim::launched_by(env.arg(programs::VICTIM), &["threads", "1", "5", "write"]);
    let (seen, outcome) = work_under(&mut victim, &["write(fd!=1)=after:EIO@2..3"], &[]);
    assert_eq!(seen.errors, 0, "{}", outcome.ended);
    assert_eq!(
        (outcome.fired(), outcome.tally(0, "lost")),
        (0, 2),
        "{}",
        outcome.ended
    );
}

/// A signal that does nothing wakes a traced thread: a call that is over for it is made again with the time that is left, and is not over for
/// the rule.
#[test]
fn calls_are_not_cut_short_by_signals_that_do_nothing() {
    needs_no_override!();
    let mut waiter = Child::start(Command::new(programs::WAITER).arg("400"));
    waiter.expect_line(PATIENCE, |line| line.starts_with("ready "));
    let session = Finject::new()
        .pid(waiter.pid())
        .rule("epoll_wait,semtimedop,poll=after:delay:1ms")
        .start();
    for _ in 0..12 {
        thread::sleep(Duration::from_millis(170));
        waiter.say("w");
    }
    thread::sleep(Duration::from_secs(1));
    let outcome = session.stop();
    assert!(outcome.fired() > 6, "{}", outcome.ended);
    assert_eq!(outcome.tally(0, "lost"), 0, "{}", outcome.ended);
    waiter.close();
    let ended = waiter.wait(PATIENCE);
    let ways = ended.stdout.iter().filter(|line| line.contains("waits="));
    let is_cut =
        |line: &&String| !line.contains(" interrupted=0 early=0 ") || !line.contains(" other=0");
    assert!(ways.clone().count() > 5, "{ended}");
    assert_eq!(ways.filter(is_cut).count(), 0, "{ended}");
}

#[test]
fn what_needs_calls_to_be_overridden_is_traced_or_refused() {
    needs_no_override!();
    let mut victim = Victim::threads(1, 3, "write");
    for rule in [
        "write=EIO",
        "write=delay:1s",
        "write=kill",
        "write=hold",
        "write=short:1",
        "write=signal:SIGUSR1+after:EIO@1",
    ] {
        let ended = attach(&victim, rule).run();
        assert_eq!(ended.code(), Some(UNAVAILABLE), "{rule}: {ended}");
        assert!(ended.err().contains("error injection"), "{rule}: {ended}");
    }
    let session = Finject::of(Path::new(&guest::finject()))
        .pid(victim.pid())
        .rule("write(fd!=1)=after:EIO@2")
        .rule("write(fd!=1)=EIO@3")
        .start();
    let (seen, outcome) = (victim.work(), session.stop());
    assert_eq!((seen.errors, seen.size), (2, 2), "{}", outcome.ended);
    assert_eq!(outcome.summary["backend"], "ptrace", "one of them needs it");
}

/// Each of them takes a program of its own.
#[test]
fn many_functions_are_traced() {
    needs_no_override!();
    let victim = Victim::threads(1, 3, "write");
    let ended = attach(&victim, "%file=after:EIO").run();
    assert_eq!(ended.code(), Some(UNAVAILABLE), "{ended}");
    for words in ["too many to follow to their exits", "--backend ptrace"] {
        assert!(ended.err().contains(words), "no {words:?}: {ended}");
    }
    kernel::is_clean_within(PATIENCE);
}

#[test]
fn rules_join_where_they_need_no_more() {
    needs_no_override!();
    // It calls while hooks come and go.
    stay_on_first_processor();
    let victim = Victim::looping("getppid");
    let session = attach(&victim, "fsync=after:EIO").start();
    let ended = ctl(&session, &["add", "getppid=after:EPERM"]);
    assert_eq!(ended.code(), Some(0), "{ended}");
    victim.until(PATIENCE, true);
    let ended = ctl(&session, &["add", "getppid=EPERM"]);
    assert_ne!(ended.code(), Some(0), "{ended}");
    assert!(ended.err().contains("error injection"), "{ended}");
    assert_eq!(ctl(&session, &["remove", "r2"]).code(), Some(0));
    victim.until(PATIENCE, false);
    let status: Value = serde_json::from_str(&ctl(&session, &["status"]).out()).unwrap();
    assert_eq!(status["rules"].as_array().unwrap().len(), 1, "{status}");
    session.stop();
    kernel::is_clean_within(PATIENCE);
}
