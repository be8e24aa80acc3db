//! One body of cases for every backend: what a rule means does not depend on what carries it out. A
//! [`Rig`] is one way to bring rules to a victim; each case says what the victim and finject then
//! have to report. A case is left out only where finject itself refuses its plan, and what is left
//! out where is part of the tests.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a helper of tests: to panic is how it fails"
)]

mod cases;
mod data;
mod files;
mod sockets;
mod waits;

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use serde_json::Value;

use crate::{
    child::{Child, Ended, PATIENCE},
    finject::{Finject, LONG_LEASE},
    programs,
    victim::{Seen, Victim},
};

pub use self::cases::CASES;

/// A way to bring rules to a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Launched, by seccomp's user notification.
    NotifyLaunch,
    /// Launched, traced.
    PtraceLaunch,
    /// Attached to, traced.
    PtraceAttach,
    /// Attached to, in the kernel.
    EbpfAttach,
    /// Launched, in the kernel.
    EbpfLaunch,
    /// Attached to, in a kernel that lets no call be overridden.
    EbpfExits,
    /// Without a kernel and without a process: what is common to all.
    Mock,
}

impl Way {
    /// The name of the backend.
    pub fn backend(self) -> &'static str {
        match self {
            Self::NotifyLaunch => "notify",
            Self::PtraceLaunch | Self::PtraceAttach => "ptrace",
            Self::EbpfAttach | Self::EbpfLaunch | Self::EbpfExits => "ebpf",
            Self::Mock => "mock",
        }
    }

    /// Whether finject starts the program.
    pub fn launches(self) -> bool {
        matches!(
            self,
            Self::NotifyLaunch | Self::PtraceLaunch | Self::EbpfLaunch
        )
    }
}

/// A way, with the finject under test.
#[derive(Clone, Debug)]
pub struct Rig {
    /// The way.
    pub way: Way,
    /// The program; for [`Way::Mock`] nothing.
    finject: PathBuf,
    /// What plays the victim for [`Way::Mock`], and what its backend has not.
    mock: Option<(Play, Lacks)>,
    /// What it is told of its lease.
    lease: &'static [&'static str],
}

/// A victim that is played: options of finject, the program, its arguments; what there was to see, and
/// whether it was killed.
pub type Play = fn(&[&str], &str, &[&str]) -> (Observed, bool);

/// What a case is about, where it cannot be had without a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Calls that take time.
    Sleep,
    /// A program's dynamic loader.
    Loader,
    /// Processes beside the targets.
    Others,
    /// Callers with names and users of their own.
    Callers,
    /// Calls that run, and have results of their own.
    Results,
    /// Calls that move data.
    Data,
    /// Calls that are about files.
    Files,
    /// Calls that are about sockets.
    Sockets,
}

/// What a backend says that it has not of what a case needs, in its own words.
pub type Lacks = fn(Need) -> Option<String>;

/// Cases that a way leaves out, since its backend says that it has not what they need.
pub const LEFT_OUT: &[(Way, &str)] = &[
    (Way::Mock, "a_sleeping_call_outlives_the_session"),
    (Way::Mock, "it_is_asked_who_calls"),
    (Way::Mock, "the_loaders_calls_do_not_count"),
    (Way::Mock, "others_with_the_same_file_are_not_hit"),
    (Way::Mock, "an_error_leaks_no_descriptor"),
    (
        Way::Mock,
        "a_loader_that_is_the_library_too_is_told_from_the_program",
    ),
    (Way::Mock, "threads_wait_beside_one_another"),
    (Way::Mock, "the_session_ends_waits"),
    (Way::Mock, "all_threads_are_held"),
    (Way::Mock, "a_held_process_can_be_killed"),
    (Way::Mock, "a_handler_may_jump_out_of_a_held_call"),
    (Way::Mock, "a_handler_may_run_before_a_held_call"),
    (Way::Mock, "another_thread_may_exec_while_one_is_held"),
    (Way::Mock, "an_error_comes_after_a_success_only"),
    (Way::Mock, "a_kill_comes_after_its_call"),
    (Way::Mock, "data_is_cut_and_corrupted"),
    (Way::Mock, "a_share_is_left"),
    (Way::Mock, "nothing_is_cut_where_nothing_can_be"),
    (Way::Mock, "data_is_cut_before_it_is_corrupted"),
    (Way::Mock, "a_call_that_is_cut_waits_and_lies"),
    (Way::Mock, "a_call_that_fails_has_no_data_that_is_changed"),
    (Way::Mock, "data_of_a_32_bit_caller_is_cut_and_corrupted"),
    (Way::Mock, "a_file_is_hit_by_whatever_name"),
    (Way::Mock, "other_files_are_hit_where_a_rule_says_not"),
    (Way::Mock, "a_pattern_may_begin_anywhere"),
    (Way::Mock, "names_are_matched_where_they_end"),
    (Way::Mock, "roots_end_what_is_seen_of_a_path"),
    (Way::Mock, "a_32_bit_callers_descriptors_are_told_apart"),
    (Way::Mock, "a_plain_name_is_a_file_by_all_its_names"),
    (Way::Mock, "a_directory_may_come_and_go"),
    (Way::Mock, "names_have_sides"),
    (Way::Mock, "paths_are_those_that_the_program_sees"),
    (Way::Mock, "the_program_is_asked_for"),
    (Way::Mock, "a_32_bit_callers_files_are_told_apart"),
    (Way::Mock, "a_peer_is_known_by_the_address_that_is_given"),
    (Way::Mock, "a_peer_is_known_by_the_socket"),
    (Way::Mock, "an_own_address_is_known_where_it_is_given"),
    (Way::Mock, "a_peer_may_have_a_name"),
    (Way::EbpfAttach, "a_file_is_hit_by_whatever_name"),
    (Way::EbpfAttach, "other_files_are_hit_where_a_rule_says_not"),
    (Way::EbpfAttach, "names_are_matched_where_they_end"),
    (Way::EbpfAttach, "a_plain_name_is_a_file_by_all_its_names"),
    (Way::EbpfAttach, "a_directory_may_come_and_go"),
    (Way::EbpfAttach, "names_have_sides"),
    (Way::EbpfAttach, "paths_are_those_that_the_program_sees"),
    (Way::EbpfAttach, "the_program_is_asked_for"),
    (Way::EbpfAttach, "a_32_bit_callers_files_are_told_apart"),
    (Way::EbpfAttach, "a_peer_may_have_a_name"),
    (Way::EbpfLaunch, "a_file_is_hit_by_whatever_name"),
    (Way::EbpfLaunch, "other_files_are_hit_where_a_rule_says_not"),
    (Way::EbpfLaunch, "names_are_matched_where_they_end"),
    (Way::EbpfLaunch, "a_plain_name_is_a_file_by_all_its_names"),
    (Way::EbpfLaunch, "a_directory_may_come_and_go"),
    (Way::EbpfLaunch, "names_have_sides"),
    (Way::EbpfLaunch, "paths_are_those_that_the_program_sees"),
    (Way::EbpfLaunch, "the_program_is_asked_for"),
    (Way::EbpfLaunch, "a_32_bit_callers_files_are_told_apart"),
    (Way::EbpfLaunch, "a_peer_may_have_a_name"),
    (Way::NotifyLaunch, "all_threads_are_held"),
    (Way::NotifyLaunch, "a_handler_may_run_before_a_held_call"),
    (Way::NotifyLaunch, "an_error_comes_after_the_write"),
    (Way::NotifyLaunch, "an_error_comes_after_a_success_only"),
    (Way::NotifyLaunch, "a_made_up_result_comes_after_the_call"),
    (Way::NotifyLaunch, "a_kill_comes_after_its_call"),
    (Way::NotifyLaunch, "a_signal_comes_after_the_call"),
    (Way::NotifyLaunch, "a_call_waits_after_it_has_run"),
    (Way::NotifyLaunch, "data_is_cut_and_corrupted"),
    (Way::NotifyLaunch, "a_share_is_left"),
    (Way::NotifyLaunch, "nothing_is_cut_where_nothing_can_be"),
    (Way::NotifyLaunch, "data_is_cut_before_it_is_corrupted"),
    (Way::NotifyLaunch, "a_call_that_is_cut_waits_and_lies"),
    (
        Way::NotifyLaunch,
        "a_call_that_fails_has_no_data_that_is_changed",
    ),
    (
        Way::NotifyLaunch,
        "data_of_a_32_bit_caller_is_cut_and_corrupted",
    ),
];

/// The cases that [`Way::EbpfExits`] does not leave out.
pub const AT_EXITS: &[&str] = &[
    "a_signal_comes_and_the_call_runs",
    "an_error_comes_after_the_write",
    "an_error_comes_after_a_success_only",
    "a_made_up_result_comes_after_the_call",
    "a_kill_comes_after_its_call",
    "a_signal_comes_after_the_call",
    "a_call_waits_after_it_has_run",
];

/// The records of firings.
pub(crate) fn fired(events: &[Value]) -> Vec<&Value> {
    let fired = events.iter().filter(|event| event["kind"] == "fired");
    fired.collect()
}

/// What there was to see of a victim under rules.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What each process saw, by its name.
    pub seen: BTreeMap<String, Seen>,
    /// The errors that each thread saw.
    pub threads: Vec<u64>,
    /// finject's summary.
    pub summary: Value,
    /// finject's records.
    pub events: Vec<Value>,
}

impl Observed {
    /// What the one process saw.
    pub fn own(&self) -> &Seen {
        self.seen.get("self").unwrap()
    }

    /// A counter of a rule, by the rule's position.
    pub fn tally(&self, rule: usize, counter: &str) -> u64 {
        let value = &self.summary["rules"][rule][counter];
        value.as_u64().unwrap_or_else(|| panic!("{}", self.summary))
    }

    /// The numbers of the calls that were hit, in their own order.
    pub fn counts(&self) -> Vec<u64> {
        let mut counts: Vec<u64> = fired(&self.events)
            .into_iter()
            .map(|event| event["count"].as_u64().unwrap())
            .collect();
        counts.sort_unstable();
        counts
    }
}

/// A victim under rules that are in force; it has not called yet.
pub(crate) struct Running {
    pub(crate) victim: Victim,
    session: Option<crate::finject::Session>,
    events: PathBuf,
}

impl Rig {
    /// One with a finject.
    pub fn of(way: Way, finject: impl Into<PathBuf>) -> Self {
        Self {
            way,
            finject: finject.into(),
            mock: None,
            lease: &LONG_LEASE,
        }
    }

    /// With the lease that finject has by itself.
    pub(crate) fn with_its_own_lease(mut self) -> Self {
        self.lease = &[];
        self
    }

    /// What `finject ctl` answers about a session.
    pub(crate) fn ctl(&self, running: &mut Running, arguments: &[&str]) -> Value {
        let ended = self.try_ctl(running, arguments);
        assert_eq!(ended.code(), Some(0), "{arguments:?}: {ended}");
        serde_json::from_str(&ended.out()).unwrap()
    }

    /// How it ends where it may be refused.
    pub(crate) fn try_ctl(&self, running: &mut Running, arguments: &[&str]) -> Ended {
        let session = running.finject().pid().to_string();
        let mut command = Command::new(&self.finject);
        command
            .args(["ctl", "--json", "--session", &session])
            .args(arguments);
        Child::run(&mut command)
    }

    /// Brings rules to a program that prints `ready PID FILE` when it is.
    pub(crate) fn start(&self, options: &[&str], program: &str, arguments: &[&str]) -> Running {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!(
            "conformance-{}-{}.jsonl",
            std::process::id(),
            NEXT.fetch_add(1, Relaxed)
        );
        let events = std::env::temp_dir().join(name);
        if !self.way.launches() {
            let victim = Victim::of(program, arguments);
            let session = Finject::of(&self.finject)
                .args(["--backend", self.way.backend()])
                .args(self.lease)
                .args(options)
                .pid(victim.pid())
                .start();
            return Running {
                victim,
                session: Some(session),
                events,
            };
        }
        let mut launcher = Command::new("env");
        launcher
            .args(["--default-signal".as_ref(), self.finject.as_os_str()])
            .env_remove("FINJECT_RULES")
            .env("NO_COLOR", "1")
            .args(["--json", "--quiet", "--backend", self.way.backend()])
            .args(self.lease)
            .arg("--events")
            .arg(&events)
            .args(options)
            .args(["--", program]);
        Running {
            victim: Victim::launched_by(&mut launcher, arguments),
            session: None,
            events,
        }
    }

    /// Lets a victim work under rules, and waits for what these processes saw.
    fn observe(
        &self,
        options: &[&str],
        program: &str,
        arguments: &[&str],
        who: &[&str],
    ) -> Observed {
        if let Some((play, _)) = self.mock {
            return play(options, program, arguments).0;
        }
        let mut running = self.start(options, program, arguments);
        running.victim.go();
        let seen = who
            .iter()
            .map(|who| ((*who).to_owned(), running.victim.seen(who)))
            .collect();
        let threads = running.victim.errors_of_threads();
        let (ended, summary, events) = running.finish();
        assert_eq!(ended.code(), Some(0), "{self:?} {options:?}: {ended}");
        Observed {
            seen,
            threads,
            summary,
            events,
        }
    }

    /// Lets a victim work under rules, and waits for what it saw.
    pub fn work(&self, options: &[&str], arguments: &[&str]) -> Observed {
        self.observe(options, programs::VICTIM, arguments, &["self"])
    }

    /// Whether finject takes the plan; it says so itself. Where that depends on the machine, it is tried.
    pub fn admits(&self, options: &[&str]) -> bool {
        let mut command = Command::new(&self.finject);
        if self.way == Way::EbpfExits {
            command.args(["--duration", "1ms"]);
        } else {
            command.arg("explain");
        }
        command
            .args(["--backend", self.way.backend()])
            .args(options)
            .env_remove("FINJECT_RULES");
        let sleeper = (!self.way.launches()).then(|| Child::start(Command::new("sleep").arg("60")));
        match &sleeper {
            Some(sleeper) => command.args(["--pid", &sleeper.pid().to_string()]),
            None => command.args(["--", "true"]),
        };
        let ended = Child::run(&mut command);
        match ended.code() {
            Some(0) => true,
            Some(69) => false,
            _ => panic!("{ended}"),
        }
    }
}

impl Running {
    /// finject's own process.
    pub(crate) fn finject(&mut self) -> &mut Child {
        match &mut self.session {
            Some(session) => session.child(),
            None => self.victim.child(),
        }
    }

    /// Ends the victim, whatever has become of finject.
    pub(crate) fn end(self) -> Ended {
        let ended = self.victim.end();
        let _ = fs::remove_file(&self.events);
        ended
    }

    /// Ends the victim, and finject with it; how the victim's or the launcher's process ended, the
    /// summary, the records.
    pub(crate) fn finish(self) -> (Ended, Value, Vec<Value>) {
        let ended = self.victim.end();
        let (summary, events) = if let Some(session) = self.session {
            let outcome = session.wait(PATIENCE);
            (outcome.summary, outcome.events)
        } else {
            let text = fs::read_to_string(&self.events).unwrap_or_default();
            let events = text.lines().map(|line| serde_json::from_str(line).unwrap());
            (summary_of(&ended), events.collect())
        };
        let _ = fs::remove_file(&self.events);
        (ended, summary, events)
    }
}

/// The summary that `--json` has printed behind what the command did.
pub fn summary_of(ended: &Ended) -> Value {
    let start = ended.stdout.iter().position(|line| line == "{");
    let start = start.unwrap_or_else(|| panic!("no summary: {ended}"));
    serde_json::from_str(&ended.stdout[start..].join("\n")).unwrap()
}

/// A case: its name, a rule by which finject is asked whether it does such things here, and what has
/// to be seen.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// A rule like its own.
    pub rule: &'static str,
    /// What it needs that not every backend has.
    pub needs: Option<Need>,
    /// The case.
    pub run: fn(&Rig),
}

/// Every case by one way, each of which finject has to admit.
pub fn all(way: Way, finject: impl Into<PathBuf>) {
    every_case(&Rig::of(way, finject));
}

/// Every case with a victim that is played, but for those that need what the backend has not.
pub fn all_played(play: Play, lacks: Lacks) {
    every_case(&Rig {
        way: Way::Mock,
        finject: PathBuf::new(),
        mock: Some((play, lacks)),
        lease: &[],
    });
}

fn every_case(rig: &Rig) {
    let way = rig.way;
    let lacks = |case: &Case| {
        let (need, (_, lacks)) = (case.needs?, rig.mock?);
        lacks(need)
    };
    let mut left_out = Vec::new();
    let mut failed = Vec::new();
    for case in CASES {
        if let Some(why) = lacks(case) {
            println!("{} is left out: {why}", case.name);
            left_out.push((way, case.name));
            continue;
        }
        if rig.mock.is_none() && !rig.admits(&["--rule", case.rule]) {
            println!("{} is left out: finject refuses its plan", case.name);
            left_out.push((way, case.name));
            continue;
        }
        if catch_unwind(AssertUnwindSafe(|| (case.run)(rig))).is_err() {
            failed.push(case.name);
        }
    }
    assert!(failed.is_empty(), "{way:?}: {failed:?}");
    let expected = if way == Way::EbpfExits {
        let all = CASES.iter().map(|case| (way, case.name));
        all.filter(|(_, name)| !AT_EXITS.contains(name)).collect()
    } else {
        let expected = LEFT_OUT.iter().filter(|(of, _)| *of == way);
        expected.copied().collect::<Vec<_>>()
    };
    assert_eq!(left_out, expected);
}
