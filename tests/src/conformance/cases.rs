//! The cases: what a rule has to come to, whatever carries it out.

use std::{fs, process::Command, thread, time::Duration};

use rustix::process::Signal;

use super::{
    Case, Need, Observed, Rig,
    data::{
        a_call_that_fails_has_no_data_that_is_changed, a_call_that_is_cut_waits_and_lies,
        a_share_is_left, data_is_cut_and_corrupted, data_is_cut_before_it_is_corrupted,
        data_of_a_32_bit_caller_is_cut_and_corrupted, nothing_is_cut_where_nothing_can_be,
    },
    files::{
        a_32_bit_callers_descriptors_are_told_apart, a_32_bit_callers_files_are_told_apart,
        a_directory_may_come_and_go, a_file_is_hit_by_whatever_name, a_pattern_may_begin_anywhere,
        a_plain_name_is_a_file_by_all_its_names, names_are_matched_where_they_end,
        names_have_sides, other_files_are_hit_where_a_rule_says_not,
        paths_are_those_that_the_program_sees, roots_end_what_is_seen_of_a_path,
        the_program_is_asked_for,
    },
    sockets::{
        a_peer_is_known_by_the_address_that_is_given, a_peer_is_known_by_the_socket,
        a_peer_may_have_a_name, an_own_address_is_known_where_it_is_given,
    },
    waits::{
        a_call_waits_after_it_has_run, a_call_waits_and_then_fails, a_call_waits_and_then_runs,
        a_handler_may_jump_out_of_a_held_call, a_handler_may_run_before_a_held_call,
        a_held_process_can_be_killed, a_hold_that_nobody_ends_ends_by_itself,
        a_kill_comes_after_its_call, a_made_up_result_comes_after_the_call,
        a_signal_comes_after_the_call, all_threads_are_held, an_error_comes_after_a_success_only,
        an_error_comes_after_the_write, another_thread_may_exec_while_one_is_held,
        the_seed_draws_the_lengths, the_session_ends_waits, threads_wait_beside_one_another,
        waits_of_several_rules_come_one_after_another,
    },
};
use crate::{
    child::{Child, PATIENCE, eventually},
    programs,
};

macro_rules! cases {
    ($($name:ident: $rule:literal $(needs $need:ident)?,)*) => {
        /// All cases.
        pub const CASES: &[Case] = &[$(Case {
            name: stringify!($name),
            rule: $rule,
            needs: need!($($need)?),
            run: $name,
        },)*];
    };
}

macro_rules! need {
    () => {
        None
    };
    ($need:ident) => {
        Some(Need::$need)
    };
}

cases! {
    third_call_of_eight_threads: "getppid=EPERM@3",
    every_hundredth_call_of_eight_threads: "getppid=EPERM@100+100",
    every_thread_is_hit: "getppid=EPERM",
    a_result_is_made_up: "getppid=ret:0",
    a_kill_comes_at_its_call: "getppid=kill@3",
    a_signal_comes_and_the_call_runs: "getppid=signal:SIGUSR1@2",
    the_body_is_skipped: "unlink=EIO",
    a_chain_is_taken_step_by_step: "getppid=5*EPERM->3*off->2*ret:0->off",
    threads_are_counted_apart: "getppid=EPERM@3,per:thread",
    processes_are_counted_apart: "getppid=EPERM@3,per:process",
    a_family_is_counted_together: "getppid=EPERM@1..12",
    kin_of_every_sort_are_targets: "getppid=EPERM@3,per:process",
    descendants_are_left_alone_when_asked: "getppid=EPERM",
    a_thread_other_than_the_first_may_exec: "getppid=EPERM@1..5",
    the_first_rule_with_a_result_decides: "getppid=EPERM@2",
    a_32_bit_caller_is_hit: "fsync=EIO@2",
    an_abi_can_be_named: "fsync@64=EIO",
    firings_are_at_most_max: "getppid=EPERM@max:5",
    the_seed_draws_the_calls: "getppid=EPERM@10%",
    records_are_as_many_as_errors: "getppid=EPERM@5+5",
    every_condition_on_counts: "getppid=EPERM@7..20+2,per:thread",
    every_condition_on_counts_of_several_processes: "getppid=EPERM@7..20+2,per:process",
    a_condition_on_counts_fires_at_them: "getppid=EPERM@2+3,per:process",
    a_window_that_is_not_open_selects_nothing: "getppid=EPERM@start:1h",
    a_signal_and_an_error_come_together: "getppid=signal:SIGUSR1+EPERM@2",
    a_write_that_fails_writes_nothing: "write(fd!=1)=EIO@4..6",
    a_sleeping_call_outlives_the_session: "pause=EPERM@9" needs Sleep,
    it_is_asked_who_calls: "getppid(comm=victim)=EPERM" needs Callers,
    arguments_are_looked_at: "lseek(fd=77,arg2<0)=EPERM",
    arguments_are_part_of_what_is_counted: "lseek(arg2=4)=EPERM@3",
    the_loaders_calls_do_not_count: "openat=EPERM@9" needs Loader,
    others_with_the_same_file_are_not_hit: "fsync=EIO" needs Others,
    an_error_leaks_no_descriptor: "accept=ECONNABORTED@2" needs Results,
    a_loader_that_is_the_library_too_is_told_from_the_program: "openat=EPERM@9" needs Loader,
    a_call_waits_and_then_runs: "write=delay:20ms@2",
    a_call_waits_and_then_fails: "getppid=delay:20ms+EPERM@2",
    a_hold_that_nobody_ends_ends_by_itself: "getppid=hold:50ms@2",
    waits_of_several_rules_come_one_after_another: "getppid=delay:20ms",
    the_seed_draws_the_lengths: "getppid=delay:1ms..20ms",
    threads_wait_beside_one_another: "getppid=delay:1s@1,per:thread" needs Sleep,
    the_session_ends_waits: "getppid=hold" needs Sleep,
    all_threads_are_held: "getppid=stop@100" needs Sleep,
    a_held_process_can_be_killed: "getppid=hold:60s@1" needs Sleep,
    a_handler_may_jump_out_of_a_held_call: "getppid=hold:60s@2" needs Sleep,
    a_handler_may_run_before_a_held_call: "getppid=hold:60s+after:EPERM@2" needs Sleep,
    another_thread_may_exec_while_one_is_held: "getppid=hold:60s@1" needs Sleep,
    an_error_comes_after_the_write: "write=after:EIO@2",
    an_error_comes_after_a_success_only: "unlink=after:EIO" needs Results,
    a_made_up_result_comes_after_the_call: "write=after:ret:0@3",
    a_kill_comes_after_its_call: "unlink=after:kill" needs Results,
    a_signal_comes_after_the_call: "getppid=after:signal:SIGUSR1@2",
    a_call_waits_after_it_has_run: "write=after:delay:20ms@2",
    data_is_cut_and_corrupted: "write=short:3@2" needs Data,
    a_share_is_left: "write=short:50%" needs Data,
    nothing_is_cut_where_nothing_can_be: "write=short:4@max:1" needs Data,
    data_is_cut_before_it_is_corrupted: "write=corrupt:9@2" needs Data,
    a_call_that_is_cut_waits_and_lies: "write=delay:20ms+short:3+after:EIO@2" needs Data,
    a_call_that_fails_has_no_data_that_is_changed: "pwrite64=short:3@2" needs Data,
    data_of_a_32_bit_caller_is_cut_and_corrupted: "write=short:3@2" needs Data,
    a_file_is_hit_by_whatever_name: "fsync(path=/a/**)=EIO" needs Files,
    other_files_are_hit_where_a_rule_says_not: "fsync(path!=/a/**)=EIO" needs Files,
    a_pattern_may_begin_anywhere: "fsync(path=*.db)=EIO" needs Files,
    names_are_matched_where_they_end: "openat(path=*.db)=EIO" needs Files,
    roots_end_what_is_seen_of_a_path: "fsync(path=*.db)=EIO" needs Files,
    a_32_bit_callers_descriptors_are_told_apart: "fsync(path=*.db)=EIO" needs Files,
    a_plain_name_is_a_file_by_all_its_names: "fsync(path=/a)=EIO" needs Files,
    a_directory_may_come_and_go: "fsync(path=/a/**)=EIO" needs Files,
    names_have_sides: "rename(from=/a/**)=EIO" needs Files,
    paths_are_those_that_the_program_sees: "fsync(path=/a/**)=EIO" needs Files,
    the_program_is_asked_for: "fsync(exe=/a)=EIO" needs Files,
    a_32_bit_callers_files_are_told_apart: "fsync(path=/a/**)=EIO" needs Files,
    a_peer_is_known_by_the_address_that_is_given: "connect(peer=10.0.0.7)=EIO" needs Sockets,
    a_peer_is_known_by_the_socket: "sendto(peer=10.0.0.7)=EIO" needs Sockets,
    an_own_address_is_known_where_it_is_given: "bind(addr=10.0.0.7)=EIO" needs Sockets,
    a_peer_may_have_a_name: "connect(peer=unix:name)=EIO" needs Sockets,
}

/// musl: all calls come from the loader's mapping. The program opens one file, by open(2), and the
/// loader none, which finds its library in itself.
fn a_loader_that_is_the_library_too_is_told_from_the_program(rig: &Rig) {
    assert!(!programs::VICTIM_MUSL.is_empty(), "there is no musl-gcc");
    let victim = ["threads", "1", "10", "getppid"];
    if rig.way.launches() {
        let seen = rig.observe(
            &["--rule", "getppid=EPERM@3"],
            programs::VICTIM_MUSL,
            &victim,
            &["self"],
        );
        assert_eq!((seen.own().errors, seen.tally(0, "matched")), (1, 10));
        // Its loader maps memory, and sets up its thread.
        let loaders = ["--dry-run", "--rule", "set_tid_address=EPERM"];
        let seen = rig.observe(&loaders, programs::VICTIM_MUSL, &victim, &["self"]);
        assert_eq!(seen.tally(0, "matched"), 0);
    }
    let again = ["threadexec", "10", "getppid"];
    let seen = rig.observe(
        &["--rule", "getppid=EPERM@3"],
        programs::VICTIM_MUSL,
        &again,
        &["after-exec"],
    );
    assert_eq!(seen.tally(0, "matched"), 10);
    assert_eq!(seen.seen["after-exec"].errors, 1);
}

/// What fails has not opened anything, and takes no connection away.
fn an_error_leaks_no_descriptor(rig: &Rig) {
    let rules = [
        "--rule",
        "openat=EMFILE@2..4",
        "--rule",
        "accept,accept4=ECONNABORTED@3..4",
    ];
    let mut running = rig.start(&rules, programs::BEFALLEN, &["leak", "10"]);
    running.victim.go();
    running.victim.done();
    let said = running.victim.lines();
    let saw = said.iter().find(|line| line.starts_with("who=self"));
    // Both errors of accept come in one turn, whose connection is accepted in the next.
    assert_eq!(saw.unwrap(), "who=self calls=21 errors=4 jumps=0");
    let (_, summary, _) = running.finish();
    let fired = |rule: usize| &summary["rules"][rule]["fired"];
    assert_eq!((fired(0), fired(1)), (&3.into(), &2.into()), "{summary}");
}

/// This process opens the victim's file, and has its calls carried out.
fn others_with_the_same_file_are_not_hit(rig: &Rig) {
    let victim = ["threads", "2", "50", "fsync"];
    let mut running = rig.start(&["--rule", "fsync=EIO"], programs::VICTIM, &victim);
    let file = fs::File::open(running.victim.file()).unwrap();
    file.sync_all().unwrap();
    running.victim.go();
    for _ in 0..50 {
        file.sync_all().unwrap();
    }
    assert_eq!(running.victim.seen("self").errors, 100);
    file.sync_all().unwrap();
    let (ended, summary, _) = running.finish();
    assert_eq!(ended.code(), Some(0), "{ended}");
    assert_eq!(summary["rules"][0]["matched"], 100, "{summary}");
}

fn third_call_of_eight_threads(rig: &Rig) {
    let seen = rig.work(
        &["--rule", "getppid=EPERM@3"],
        &["threads", "8", "500", "getppid"],
    );
    assert_eq!((seen.own().calls, seen.own().errors), (4000, 1));
    assert_eq!(
        (seen.tally(0, "matched"), seen.tally(0, "fired")),
        (4000, 1)
    );
    assert_eq!(seen.counts(), [3]);
}

fn every_hundredth_call_of_eight_threads(rig: &Rig) {
    let rule = ["--rule", "getppid=EPERM@100+100"];
    let seen = rig.work(&rule, &["threads", "8", "1000", "getppid"]);
    assert_eq!(seen.own().errors, 80);
    let hundreds: Vec<u64> = (1..=80).map(|n| n * 100).collect();
    assert_eq!(seen.counts(), hundreds);
}

fn every_thread_is_hit(rig: &Rig) {
    let seen = rig.work(
        &["--rule", "getppid=EPERM"],
        &["threads", "4", "25", "getppid"],
    );
    assert_eq!(seen.threads, [25; 4]);
}

fn a_result_is_made_up(rig: &Rig) {
    let seen = rig.work(
        &["--rule", "getppid=ret:0"],
        &["threads", "1", "5", "getppid"],
    );
    assert_eq!((seen.own().zeros, seen.own().errors), (5, 0));
}

fn a_kill_comes_at_its_call(rig: &Rig) {
    let rule = ["--rule", "getppid=kill@3"];
    let victim = ["threads", "1", "5", "getppid"];
    let summary = if let Some((play, _)) = rig.mock {
        let (seen, was_killed) = play(&rule, programs::VICTIM, &victim);
        assert!(was_killed);
        seen.summary
    } else {
        let mut running = rig.start(&rule, programs::VICTIM, &victim);
        running.victim.go();
        let (ended, summary, _) = running.finish();
        let status = if rig.way.launches() { Some(137) } else { None };
        assert_eq!(ended.code(), status, "{ended}");
        summary
    };
    assert_eq!(summary["rules"][0]["matched"], 3, "{summary}");
    assert_eq!(summary["rules"][0]["fired"], 1, "{summary}");
}

/// Names are whole, and a thread's is not its process's.
fn it_is_asked_who_calls(rig: &Rig) {
    let own = rustix::process::geteuid().as_raw();
    let asked = [
        ("comm=victim", true),
        ("comm=victi", false),
        ("comm=worker", false),
        ("comm!=victim", false),
        ("comm!=worker", true),
        ("thread=worker", true),
        ("thread=victim", false),
        ("thread!=victim", true),
        (&format!("uid={own}"), true),
        (&format!("uid!={own}"), false),
        ("uid=4321", false),
        (
            &format!("comm=victim,thread=worker,uid!=4321,uid={own}"),
            true,
        ),
        (
            &format!("comm=victim,thread=worker,uid={own},uid=4321"),
            false,
        ),
    ];
    let rules = asked.map(|(who, _)| format!("getppid({who})=EPERM@2"));
    let rules: Vec<&str> = rules.iter().flat_map(|rule| ["--rule", rule]).collect();
    let seen = rig.work(&rules, &["named", "2", "5", "getppid"]);
    for (index, (who, is_it)) in asked.into_iter().enumerate() {
        let (matched, excluded) = if is_it { (10, 0) } else { (0, 10) };
        assert_eq!(
            (seen.tally(index, "matched"), seen.tally(index, "excluded")),
            (matched, excluded),
            "{who}"
        );
    }
    // Which of the calls is a rule's second one depends on the threads.
    assert!(seen.own().errors > 0);
}

fn a_signal_comes_and_the_call_runs(rig: &Rig) {
    let rule = ["--rule", "getppid=signal:SIGUSR1@2"];
    let seen = rig.work(&rule, &["threads", "1", "5", "getppid"]);
    assert_eq!((seen.own().errors, seen.own().signals), (0, 1));
}

fn the_body_is_skipped(rig: &Rig) {
    let seen = rig.work(
        &["--rule", "unlink=EIO@1"],
        &["threads", "1", "1", "unlink"],
    );
    let own = seen.own();
    assert_eq!((own.errors, own.errno, own.exists), (1, 5, true));
}

fn a_chain_is_taken_step_by_step(rig: &Rig) {
    let rule = ["--rule", "getppid=5*EPERM->3*off->2*ret:0->off"];
    let seen = rig.work(&rule, &["threads", "1", "20", "getppid"]);
    assert_eq!(seen.counts(), [1, 2, 3, 4, 5, 9, 10]);
    // Threads on several processors may take their steps in another order than their numbers; each
    // step is taken as often as it says.
    let seen = rig.work(&rule, &["threads", "8", "200", "getppid"]);
    assert_eq!((seen.own().errors, seen.own().zeros), (5, 2));
}

fn threads_are_counted_apart(rig: &Rig) {
    let rule = ["--rule", "getppid=EPERM@3,per:thread"];
    let seen = rig.work(&rule, &["threads", "8", "50", "getppid"]);
    assert_eq!(seen.threads, [1; 8]);
}

const FAMILY: [&str; 4] = ["child-before", "child-after", "grandchild", "after-exec"];

fn family(rig: &Rig, options: &[&str]) -> Observed {
    rig.observe(
        options,
        programs::VICTIM,
        &["family", "10", "getppid"],
        &FAMILY,
    )
}

fn processes_are_counted_apart(rig: &Rig) {
    let seen = family(rig, &["--rule", "getppid=EPERM@3,per:process"]);
    for who in FAMILY {
        assert_eq!(seen.seen[who].errors, 1, "{who}");
    }
    assert_eq!(seen.tally(0, "matched"), 40);
}

fn a_family_is_counted_together(rig: &Rig) {
    let seen = family(rig, &["--rule", "getppid=EPERM@1..12"]);
    assert_eq!(seen.tally(0, "matched"), 40);
    let errors: u64 = seen.seen.values().map(|seen| seen.errors).sum();
    assert_eq!(errors, 12);
}

/// However they were made, and whoever is still their parent.
fn kin_of_every_sort_are_targets(rig: &Rig) {
    const KIN: [&str; 4] = ["grandchild-before", "vforked", "spawned", "daemon"];
    let rule = ["--rule", "getppid=EPERM@3,per:process"];
    let seen = rig.observe(&rule, programs::VICTIM, &["kin", "10", "getppid"], &KIN);
    for who in KIN {
        assert_eq!(seen.seen[who].errors, 1, "{who}");
    }
    assert_eq!(seen.tally(0, "matched"), 40);
}

fn descendants_are_left_alone_when_asked(rig: &Rig) {
    let seen = family(rig, &["--no-follow", "--rule", "getppid=EPERM"]);
    for who in FAMILY {
        let wanted = if who == "after-exec" { 10 } else { 0 };
        assert_eq!(seen.seen[who].errors, wanted, "{who}");
    }
}

fn a_thread_other_than_the_first_may_exec(rig: &Rig) {
    let seen = rig.observe(
        &["--rule", "getppid=EPERM@1..5"],
        programs::VICTIM,
        &["threadexec", "10", "getppid"],
        &["after-exec"],
    );
    assert_eq!(seen.seen["after-exec"].errors, 5);
    assert_eq!(seen.tally(0, "matched"), 10);
}

fn the_first_rule_with_a_result_decides(rig: &Rig) {
    let rules = ["--rule", "getppid=EPERM@2", "--rule", "getppid=EIO@2+"];
    let seen = rig.work(&rules, &["threads", "1", "4", "getppid"]);
    assert_eq!((seen.own().errors, seen.own().errno), (3, 1));
    assert_eq!((seen.tally(1, "shadowed"), seen.tally(1, "fired")), (1, 2));
}

fn a_32_bit_caller_is_hit(rig: &Rig) {
    let rule = ["--rule", "fsync=EIO@2"];
    let victim = ["threads", "1", "3", "fsync"];
    let seen = rig.observe(&rule, programs::VICTIM32, &victim, &["self"]);
    assert_eq!((seen.own().errors, seen.own().errno), (1, 5));
}

fn an_abi_can_be_named(rig: &Rig) {
    let victim = ["threads", "1", "3", "fsync"];
    for (rule, program, errors) in [
        ("fsync@64=EIO", programs::VICTIM32, 0),
        ("fsync@32=EIO", programs::VICTIM32, 3),
        ("fsync@64=EIO", programs::VICTIM, 3),
        ("fsync@32=EIO", programs::VICTIM, 0),
    ] {
        let seen = rig.observe(&["--rule", rule], program, &victim, &["self"]);
        assert_eq!(seen.own().errors, errors, "{rule} {program}");
    }
}

fn firings_are_at_most_max(rig: &Rig) {
    let rule = ["--rule", "getppid=EPERM@max:5"];
    let seen = rig.work(&rule, &["threads", "8", "50", "getppid"]);
    assert_eq!((seen.own().errors, seen.tally(0, "fired")), (5, 5));
}

/// Which of 200 calls `10%` takes by the seed 7, wherever they are decided.
const DRAWN: &[u64] = &[
    2, 8, 27, 62, 74, 96, 120, 127, 133, 135, 152, 166, 186, 191, 200,
];

fn the_seed_draws_the_calls(rig: &Rig) {
    let rule = ["--seed", "7", "--rule", "getppid=EPERM@10%"];
    let seen = rig.work(&rule, &["threads", "1", "200", "getppid"]);
    assert_eq!(seen.counts(), DRAWN);
}

fn records_are_as_many_as_errors(rig: &Rig) {
    let rule = ["--rule", "getppid=EPERM@5+5"];
    let seen = rig.work(&rule, &["threads", "8", "1000", "getppid"]);
    let lost = seen.tally(0, "dropped");
    assert_eq!(seen.own().errors, 1600);
    assert_eq!(seen.counts().len() as u64 + lost, 1600);
}

/// A range of counts: first, last, step.
type Range = (u64, Option<u64>, u64);

/// Every kind of range with every step and every scope, each with its rule.
fn every_range() -> Vec<(&'static str, Range, String)> {
    let mut rules = Vec::new();
    for scope in ["rule", "process", "thread"] {
        for first in [1, 2, 7, 10] {
            for last in [None, Some(first), Some(first + 3), Some(40)] {
                for step in [1, 2, 5] {
                    let to = last.map_or_else(String::new, |last| format!("..{last}"));
                    let by = match (last, step) {
                        (None, 1) => "+".to_owned(),
                        (Some(_), 1) => String::new(),
                        _ => format!("+{step}"),
                    };
                    let text = format!("getppid=EPERM@{first}{to}{by},per:{scope}");
                    rules.push((scope, (first, last, step), text));
                }
            }
        }
    }
    rules
}

/// How many of so many calls a range selects.
fn selected((first, last, step): Range, calls: u64) -> u64 {
    (1..=calls)
        .filter(|n| *n >= first && last.is_none_or(|last| *n <= last))
        .filter(|n| (n - first) % step == 0)
        .count() as u64
}

/// All of them, many rules to a session. None fires, so that each is counted for itself; how often it
/// would have is told all the same. `counters` says how many there are in a scope.
fn every_range_of(work: impl Fn(&[&str]) -> Observed, total: u64, counters: impl Fn(&str) -> u64) {
    for rules in every_range().chunks(48) {
        let mut options = vec!["--dry-run"];
        options.extend(rules.iter().flat_map(|(_, _, text)| ["--rule", text]));
        let seen = work(&options);
        assert!(seen.seen.values().all(|seen| seen.errors == 0));
        for (index, (scope, range, text)) in rules.iter().enumerate() {
            let counters = counters(scope);
            let expected = counters * selected(*range, total / counters);
            assert_eq!(seen.tally(index, "matched"), total, "{text}");
            assert_eq!(seen.tally(index, "fired"), expected, "{text}");
        }
    }
}

fn every_condition_on_counts(rig: &Rig) {
    let work = |options: &[&str]| rig.work(options, &["threads", "3", "11", "getppid"]);
    every_range_of(work, 33, |scope| if scope == "thread" { 3 } else { 1 });
}

fn every_condition_on_counts_of_several_processes(rig: &Rig) {
    let work = |options: &[&str]| family(rig, options);
    every_range_of(work, 40, |scope| if scope == "rule" { 1 } else { 4 });
}

fn a_condition_on_counts_fires_at_them(rig: &Rig) {
    let threads = |rule| rig.work(&["--rule", rule], &["threads", "3", "11", "getppid"]);
    let seen = threads("getppid=EPERM@2..20+6");
    assert_eq!((seen.own().errors, seen.counts()), (4, vec![2, 8, 14, 20]));
    let seen = threads("getppid=EPERM@1+5,per:thread");
    assert_eq!(seen.threads, [3; 3]);
    assert_eq!(seen.counts(), [1, 1, 1, 6, 6, 6, 11, 11, 11]);
    let seen = family(rig, &["--rule", "getppid=EPERM@3+4,per:process"]);
    assert!(seen.seen.values().all(|seen| seen.errors == 2));
    assert_eq!(seen.counts(), [3, 3, 3, 3, 7, 7, 7, 7]);
}

fn a_window_that_is_not_open_selects_nothing(rig: &Rig) {
    for (window, errors) in [("start:1h", 0), ("for:1h", 5)] {
        let rule = format!("getppid=EPERM@{window}");
        let seen = rig.work(&["--rule", &rule], &["threads", "1", "5", "getppid"]);
        assert_eq!(seen.own().errors, errors, "{rule}");
        assert_eq!(seen.tally(0, "matched"), 5, "{rule}");
    }
}

fn a_signal_and_an_error_come_together(rig: &Rig) {
    let rule = ["--rule", "getppid=signal:SIGUSR1+EPERM@2"];
    let seen = rig.work(&rule, &["threads", "1", "4", "getppid"]);
    assert_eq!((seen.own().signals, seen.own().errors), (1, 1));
}

fn a_write_that_fails_writes_nothing(rig: &Rig) {
    // What it says of itself, it writes too.
    let rule = ["--rule", "write(fd!=1)=EIO@4..6"];
    let seen = rig.work(&rule, &["threads", "1", "10", "write"]);
    assert_eq!((seen.own().errors, seen.own().errno), (3, 5));
    assert_eq!(seen.own().size, 7);
}

/// finject ends while a thread sleeps in a call that a rule names: it sleeps on, and wakes by what it
/// waits for.
fn a_sleeping_call_outlives_the_session(rig: &Rig) {
    let rule = ["--rule", "pause=EPERM@9", "--duration", "300ms"];
    let mut running = rig.start(&rule, programs::VICTIM, &["threads", "1", "2", "pause"]);
    running.victim.go();
    thread::sleep(Duration::from_millis(600));
    for signals in 1..=2 {
        let pid = running.victim.worker();
        eventually(PATIENCE, "it sleeps", || state(pid) == Some('S'));
        running.victim.signal_worker(Signal::USR1);
        thread::sleep(Duration::from_millis(50 * signals));
    }
    let seen = running.victim.seen("self");
    assert_eq!(
        (seen.calls, seen.errors, seen.errno, seen.signals),
        (2, 2, 4, 2)
    );
    let (ended, _, _) = running.finish();
    assert_eq!(ended.code(), Some(0), "{ended}");
}

/// The letter of /proc/PID/stat.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Twenty calls with the offsets from -5 to 4, each twice; all rules in one session, so that none fires.
fn arguments_are_looked_at(rig: &Rig) {
    let rules = [
        ("fd=77", 20),
        ("fd=76", 0),
        ("fd!=76", 20),
        ("fd!=77", 0),
        ("arg1=77,arg3=SEEK_END", 20),
        ("arg3=SEEK_SET", 0),
        ("arg2=-5", 2),
        ("arg2=0xfffffffffffffffb", 2),
        ("arg2!=-5", 18),
        ("arg2<0", 10),
        ("arg2>=0,arg2!=3", 8),
        ("arg2>-2,arg2<=1", 6),
        ("arg2&4", 10),
        ("fd=77,arg2>2", 4),
        // Beyond what the argument can be, in one ABI or in both.
        ("arg2<4G", 20),
        ("arg2>4G", 0),
        ("arg1=0x10000004d", 0),
    ];
    let texts = rules.map(|(predicates, _)| format!("lseek({predicates})=EPERM"));
    let mut options = vec!["--dry-run"];
    options.extend(texts.iter().flat_map(|text| ["--rule", text]));
    let victim = ["threads", "1", "20", "lseek"];
    for program in [programs::VICTIM, programs::VICTIM32] {
        let seen = rig.observe(&options, program, &victim, &["self"]);
        for (index, (predicates, matched)) in rules.into_iter().enumerate() {
            // No 32-bit offset is that number.
            let is_wide = predicates.contains("0xfffffffffffffffb");
            let matched = if is_wide && program == programs::VICTIM32 {
                0
            } else {
                matched
            };
            assert_eq!(
                (seen.tally(index, "matched"), seen.tally(index, "excluded")),
                (matched, 20 - matched),
                "{program} {predicates}"
            );
        }
    }
    // Alone, so that a filter may keep calls from finject.
    for (rule, hit) in [
        ("lseek(fd=77,arg2<0)=EPERM", 10),
        ("lseek(fd=76)=EPERM", 0),
        ("lseek(arg2=-5)=EPERM", 2),
        ("lseek(arg3&SEEK_END)=EPERM", 20),
    ] {
        let seen = rig.work(&["--rule", rule], &victim);
        let told = (seen.own().errors, seen.tally(0, "matched"));
        assert_eq!(told, (hit, hit), "{rule}");
    }
}

fn arguments_are_part_of_what_is_counted(rig: &Rig) {
    let seen = rig.work(
        &["--rule", "lseek(arg2=4)=EPERM@3..20+2"],
        &["threads", "8", "100", "lseek"],
    );
    assert_eq!((seen.own().errors, seen.tally(0, "matched")), (9, 80));
    let counts: Vec<u64> = (3..20).step_by(2).collect();
    assert_eq!(seen.counts(), counts);
}

/// The program opens one file of its own; its loader opens more before.
fn the_loaders_calls_do_not_count(rig: &Rig) {
    let rule = ["--dry-run", "--rule", "openat=EIO"];
    let again = ["threadexec", "1", "getppid"];
    let seen = rig.observe(&rule, programs::VICTIM, &again, &["after-exec"]);
    assert_eq!(seen.tally(0, "matched"), 1);
    let from_exec = [&rule[..], &["--arm-at", "exec"]].concat();
    let seen = rig.observe(&from_exec, programs::VICTIM, &again, &["after-exec"]);
    assert!(seen.tally(0, "matched") > 1, "the loader's are counted too");
    if !rig.way.launches() {
        return;
    }
    for program in [programs::VICTIM, programs::VICTIM32] {
        let seen = rig.observe(&rule, program, &["threads", "1", "1", "getppid"], &["self"]);
        assert_eq!(seen.tally(0, "matched"), 1, "{program}");
    }
    // The shell's descendant: cat's own call fails, not its loader's.
    let mut launcher = Command::new(&rig.finject);
    launcher
        .env_remove("FINJECT_RULES")
        .env("LC_ALL", "C")
        .args(["--quiet", "--backend", rig.way.backend()])
        .args(["--rule", "openat=ENOENT@1"])
        .args(["--", "sh", "-c", "cat /etc/hostname; exit $?"]);
    let ended = Child::run(&mut launcher);
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert!(
        ended
            .err()
            .contains("cat: /etc/hostname: No such file or directory"),
        "{ended}"
    );
    // make's descendants.
    let name = format!("finject-make-{}-{}", std::process::id(), rig.way.backend());
    let directory = std::env::temp_dir().join(name);
    fs::create_dir_all(&directory).unwrap();
    let makefile = directory.join("Makefile");
    fs::write(&makefile, "all:\n\t@sync Makefile\n").unwrap();
    let mut launcher = Command::new(&rig.finject);
    launcher
        .env_remove("FINJECT_RULES")
        .env("LC_ALL", "C")
        .args(["--quiet", "--backend", rig.way.backend()])
        .args(["--rule", "fsync=EIO", "--", "make", "-C"])
        .arg(&directory);
    let ended = Child::run(&mut launcher);
    fs::remove_dir_all(&directory).unwrap();
    assert_eq!(ended.code(), Some(2), "{ended}");
    let said = "sync: error syncing 'Makefile': Input/output error";
    assert!(ended.err().contains(said), "{ended}");
}
