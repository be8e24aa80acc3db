//! What calls come to, by examples.

use injector_common::rule::{ACT_DELAY, ACT_RESULT};

use super::*;
use crate::backend::files::{NoFiles, Sided};
use crate::backend::recorder::Recorder;
use crate::backend::sockets::{End, NoSockets};
use crate::backend::spec::SpecRule;
use crate::plan::Arming;
use crate::rule::{RuleText, compile};
use crate::target::view::{File, Identity, Seen, Unseen};
use injector_common::SocketSide;

const CALL: CallSlot = CallSlot {
    compat: false,
    nr: 74,
};

const WRITE: CallSlot = CallSlot {
    compat: false,
    nr: 1,
};

const NO_ARGS: [u64; 6] = [0; 6];

fn decider(rules: &[&str], dry_run: bool) -> Decider {
    let texts: Vec<_> = rules.iter().map(|rule| RuleText::new(*rule)).collect();
    let rules = compile(&texts).unwrap().rules;
    let spec = Spec {
        rules: rules
            .iter()
            .map(|rule| {
                let mut rule = SpecRule::lowered(rule, Arming::default()).unwrap();
                rule.calls.retain(|call| !call.compat);
                rule
            })
            .collect(),
        seed: 7,
        dry_run,
    };
    let memory = Arc::new(Memory::anonymous().unwrap());
    spec.write(&memory);
    let decider = Decider::new(memory, &spec);
    decider.memory.arm(u64::MAX, monotonic_ns(), u64::MAX);
    decider
}

/// Whoever calls; [`None`] where it is gone.
#[derive(Debug, Default)]
struct By {
    caller: Option<Caller>,
    facts: Option<CallerFacts>,
}

impl Asked for By {
    fn caller(&self) -> Option<Caller> {
        self.caller
    }

    fn caller_facts(&self) -> Option<CallerFacts> {
        self.facts
    }

    fn data(&self) -> Data {
        Data::NONE
    }

    fn files(&self) -> impl Files {
        NoFiles
    }

    fn sockets(&self) -> impl Sockets {
        NoSockets
    }
}

/// Nothing is to be asked.
struct Unasked;

impl Asked for Unasked {
    fn caller(&self) -> Option<Caller> {
        panic!("no rule counts callers apart")
    }

    fn caller_facts(&self) -> Option<CallerFacts> {
        panic!("no rule asks who calls")
    }

    fn data(&self) -> Data {
        panic!("no rule changes data")
    }

    fn files(&self) -> impl Files {
        NoFiles
    }

    fn sockets(&self) -> impl Sockets {
        NoSockets
    }
}

fn thread(tgid: u32, tid: u32) -> By {
    let caller = Caller {
        tgid,
        tid,
        process_start: 1,
        thread_start: 1,
    };
    By {
        caller: Some(caller),
        facts: None,
    }
}

fn fates(decider: &Decider, calls: usize) -> Vec<Fate> {
    (0..calls)
        .map(|_| decider.decide(CALL, &NO_ARGS, &Unasked).fate)
        .collect()
}

#[test]
fn calls_are_decided_by_their_number() {
    let (runs, fails) = (Fate::Runs, Fate::Gets(-5));
    let decider = decider(&["fsync=EIO@2+2,max:2"], false);
    assert_eq!(
        fates(&decider, 7),
        [runs, fails, runs, fails, runs, runs, runs]
    );
    let other = CallSlot {
        compat: true,
        ..CALL
    };
    assert_eq!(
        decider.decide(other, &NO_ARGS, &By::default()),
        Decided::PASSES
    );
    assert_eq!(decider.memory.report(1).rules[0].matched, 7);
}

#[test]
fn of_several_results_the_first_decides_and_the_other_is_shadowed() {
    let decider = decider(&["fsync=EIO@2", "fsync=2*EPERM->off"], false);
    let seen = [Fate::Gets(-1), Fate::Gets(-5), Fate::Gets(-1), Fate::Runs];
    assert_eq!(
        fates(&decider, 4),
        seen,
        "a result that lost uses up nothing"
    );
    assert_eq!(decider.memory.report(2).rules[1].shadowed, 1);
}

#[test]
fn calls_with_other_arguments_are_neither_counted_nor_failed() {
    let decider = decider(&["write(fd=3,arg3>10)=EIO@2", "write=EPERM@1"], false);
    let call = |fd: u64, length: u64| {
        let args = [fd, 0, length, 0, 0, 0];
        decider.decide(WRITE, &args, &By::default()).fate
    };
    assert_eq!(call(4, 11), Fate::Gets(-1), "the other rule's");
    assert_eq!(call(3, 11), Fate::Runs, "the first of its own");
    assert_eq!(call(3, 10), Fate::Runs);
    assert_eq!(call(0xffff_ffff_0000_0003, 11), Fate::Gets(-5), "an int");
    let report = decider.memory.report(2);
    let told = report
        .rules
        .iter()
        .map(|r| (r.matched, r.excluded, r.fired));
    assert_eq!(told.collect::<Vec<_>>(), [(2, 2, 0), (4, 0, 0)]);
}

#[test]
fn calls_of_others_are_neither_counted_nor_failed() {
    let decider = decider(&["fsync(comm=a,thread!=b,uid=7)=EIO"], false);
    let name = |name: &[u8; 2]| {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(name);
        CallerFacts::name_of(&bytes)
    };
    let call = |comm, thread, uid| {
        let facts = CallerFacts::of(name(comm), name(thread), uid);
        let by = By {
            caller: None,
            facts: Some(facts),
        };
        decider.decide(CALL, &NO_ARGS, &by).fate == Fate::Gets(-5)
    };
    let seven = CallerFacts::uid(7);
    for (comm, thread, uid, is_it) in [
        (b"a\0", b"a\0", seven, true),
        (b"aa", b"a\0", seven, false),
        (b"a\0", b"b\0", seven, false),
        (b"a\0", b"a\0", CallerFacts::uid(8), false),
        (b"a\0", b"a\0", CallerFacts::NO_UID, false),
    ] {
        assert_eq!(
            call(comm, thread, uid),
            is_it,
            "{comm:?} {thread:?} {uid:?}"
        );
    }
    let gone = decider.decide(CALL, &NO_ARGS, &By::default());
    assert_eq!(gone, Decided::PASSES);
    let report = decider.memory.report(1).rules[0];
    assert_eq!((report.matched, report.excluded), (1, 5));
}

#[test]
fn scopes_count_for_themselves() {
    for (rule, fired) in [
        ("fsync=EIO@2,per:thread", [false, false, false, true]),
        ("fsync=EIO@2,per:process", [false, true, false, false]),
    ] {
        let decider = decider(&[rule], false);
        let callers = [(1, 1), (1, 2), (3, 3), (1, 1)];
        let seen = callers.map(|(tgid, tid)| {
            decider.decide(CALL, &NO_ARGS, &thread(tgid, tid)).fate == Fate::Gets(-5)
        });
        assert_eq!(seen, fired, "{rule}");
        assert_eq!(
            decider.decide(CALL, &NO_ARGS, &By::default()),
            Decided::PASSES,
            "it is gone"
        );
        assert_eq!(decider.memory.report(1).rules[0].matched, 4);
    }
}

#[test]
fn counters_of_those_that_are_gone_make_room() {
    let decider = decider(&["fsync=EIO@2,per:process"], false);
    decider.scopes().room = 4;
    let calls = |tgid: u32| {
        let decided = decider.decide(CALL, &NO_ARGS, &thread(tgid, tgid));
        decided.fate == Fate::Gets(-5)
    };
    for tgid in 1..=4 {
        assert!(!calls(tgid));
    }
    assert!(!calls(5) && !calls(5), "without a counter calls pass");
    assert_eq!(decider.memory.report(1).rules[0].scopes_full, 2);
    decider.prune(|tgid, start| tgid == 3 && start == 1);
    assert!(calls(3), "it has kept its count");
    assert!(!calls(5) && calls(5));
    decider.prune(|_, _| panic!("half of the room is free"));
}

#[test]
fn a_lease_that_lapsed_ends_all_for_good() {
    let decider = decider(&["fsync=EIO"], false);
    decider.memory.renew(1);
    assert_eq!(fates(&decider, 1), [Fate::Runs]);
    decider.memory.renew(u64::MAX);
    assert_eq!(fates(&decider, 1), [Fate::Runs]);
    assert!(decider.memory.report(1).lapsed);
}

#[test]
fn a_dry_run_counts_and_fires_nothing() {
    let decider = decider(&["fsync=kill@2"], true);
    assert_eq!(fates(&decider, 3), [Fate::Runs; 3]);
    let report = decider.memory.report(1).rules[0];
    assert_eq!((report.matched, report.fired), (3, 1));
}

fn facts() -> Event {
    Recorder::call(5, 6, CALL, NO_ARGS)
}

#[test]
fn only_what_was_carried_out_has_fired() {
    let decider = decider(&["fsync=signal:SIGUSR1+EIO@1..4"], false);
    for (actions, told) in [
        (0, None),
        (ACT_RESULT, Some((2, -5, 0, 6))),
        (ACT_SIGNAL, Some((3, 0, 10, 6))),
        (ACT_SIGNAL | ACT_RESULT, Some((4, -5, 10, 6))),
    ] {
        let decided = decider.decide(CALL, &NO_ARGS, &By::default());
        assert_eq!(decided.firings[0].signal(), Some(10));
        let done = Done {
            actions,
            ..Done::default()
        };
        let record = decider.settle(&decided.firings[0], &done, &facts());
        let record = record.map(|event| (event.count, event.value, event.signal, event.tid));
        assert_eq!(record, told);
    }
    let report = decider.memory.report(1).rules[0];
    assert_eq!((report.fired, report.lost), (3, 3));
}

#[test]
fn what_was_let_go_is_not_lost_and_what_was_moot_is_told() {
    let decider = decider(&["fsync=delay:1s+after:EIO"], false);
    let settle = |done: Done| {
        let decided = decider.decide(CALL, &NO_ARGS, &By::default());
        assert_eq!(decided.fate, Fate::RunsThenGets(-5));
        let record = decider.settle(&decided.firings[0], &done, &facts());
        record.map(|event| (event.actions, event.value, event.delay_ns))
    };
    let waited = Done {
        actions: ACT_DELAY,
        delay_ns: 7,
        ..Done::default()
    };
    let let_go = settle(Done {
        is_let_go: true,
        ..waited
    });
    assert_eq!(let_go, Some((ACT_DELAY, 0, 7)));
    let moot = settle(Done {
        is_moot: true,
        ..waited
    });
    assert_eq!(moot, Some((ACT_DELAY, 0, 7)));
    let whole = settle(Done {
        actions: ACT_DELAY | ACT_AFTER_RESULT,
        ..waited
    });
    assert_eq!(whole, Some((ACT_DELAY | ACT_AFTER_RESULT, -5, 7)));
    let report = decider.memory.report(1).rules[0];
    assert_eq!((report.fired, report.lost, report.moot), (3, 0, 1));
}

#[test]
fn lengths_of_waits_are_the_seeds() {
    let rules = ["fsync=delay:1ms..9ms+after:delay:1ms..9ms"];
    let lengths = |decider: &Decider| -> Vec<(u64, u64)> {
        let lengths = (0..50).map(|_| {
            let decided = decider.decide(CALL, &NO_ARGS, &By::default());
            let firing = decided.firings[0];
            (firing.wait().unwrap().ns, firing.after_wait().unwrap().ns)
        });
        lengths.collect()
    };
    let found = lengths(&decider(&rules, false));
    assert_eq!(found, lengths(&decider(&rules, false)));
    let bounds = 1_000_000..=9_000_000;
    for (before, after) in &found {
        assert!(bounds.contains(before) && bounds.contains(after));
        assert_ne!(before, after);
    }
    let all: std::collections::BTreeSet<_> = found.iter().map(|(before, _)| before).collect();
    assert!(all.len() > 45, "{all:?}");
    let held = decider(&["fsync=hold:2s"], false);
    let decided = held.decide(CALL, &NO_ARGS, &By::default());
    let wait = decided.firings[0].wait().unwrap();
    assert_eq!((wait.ns, wait.is_hold), (2_000_000_000, true));
}

/// A call whose files and sockets cannot be looked at.
struct Hidden;

impl Asked for Hidden {
    fn caller(&self) -> Option<Caller> {
        None
    }

    fn caller_facts(&self) -> Option<CallerFacts> {
        None
    }

    fn data(&self) -> Data {
        Data::NONE
    }

    fn files(&self) -> impl Files {
        Self
    }

    fn sockets(&self) -> impl Sockets {
        Self
    }
}

const HIDDEN: Unseen = Unseen(rustix::io::Errno::ACCESS);

impl Files for Hidden {
    fn of_call(&self) -> Seen<Vec<Sided>> {
        Err(HIDDEN)
    }

    fn executable(&self) -> Seen<Option<File>> {
        Err(HIDDEN)
    }

    fn identity(&self, _: &[u8]) -> Seen<Option<Identity>> {
        Err(HIDDEN)
    }

    fn at(&self, _: &[u8]) -> Seen<Option<Identity>> {
        Err(HIDDEN)
    }
}

impl Sockets for Hidden {
    fn end(&self, _: SocketSide) -> Seen<Option<End>> {
        Err(HIDDEN)
    }
}

#[test]
fn calls_that_cannot_be_looked_at_pass_and_are_counted() {
    for rule in [
        "fsync(path=*.db)=EIO",
        "fsync(path!=*.db)=EIO",
        "fsync(exe=/a)=EIO",
        "fsync(peer!=10.0.0.7)=EIO",
    ] {
        let decider = decider(&[rule, "fsync=EPERM"], false);
        // The others still decide.
        assert_eq!(decider.decide(CALL, &NO_ARGS, &Hidden).fate, Fate::Gets(-1));
        let rules = decider.memory.report(2).rules;
        let seen = rules
            .iter()
            .map(|rule| (rule.unseen, rule.excluded, rule.matched));
        assert_eq!(seen.collect::<Vec<_>>(), [(1, 0, 0), (0, 0, 1)], "{rule}");
        // Without files there is nothing to see.
        decider.decide(CALL, &NO_ARGS, &By::default());
        let first = decider.memory.report(2).rules[0];
        assert_eq!((first.unseen, first.excluded), (1, 1), "{rule}");
    }
}
