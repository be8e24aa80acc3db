//! The cases of calls whose data is changed: cut short, or with bits flipped. Each is made by a program that looks
//! whether its registers and its own memory are as they were.

use std::fmt::Write;

use serde_json::Value;

use super::{Rig, fired};
use crate::{child::Ended, programs};

/// What one call of the mover's came to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moved {
    call: String,
    result: i64,
    /// What arrived.
    data: Vec<u8>,
    /// Registers and memory are as they were.
    keeps: bool,
}

/// A run of the mover under rules.
struct Run {
    calls: Vec<Moved>,
    summary: Value,
    /// The records of firings.
    fired: Vec<Value>,
}

impl Run {
    fn tally(&self, rule: usize, counter: &str) -> u64 {
        self.summary["rules"][rule][counter].as_u64().unwrap()
    }

    /// The calls of one kind.
    fn of(&self, call: &str) -> Vec<&Moved> {
        self.calls
            .iter()
            .filter(|moved| moved.call == call)
            .collect()
    }

    /// The firings on calls of one kind.
    fn fired_on(&self, call: &str) -> Vec<&Value> {
        self.fired
            .iter()
            .filter(|record| record["call"] == call)
            .collect()
    }
}

/// The bytes that the mover moves with one of its calls.
fn bytes(turn: usize, number: usize) -> Vec<u8> {
    (0..number)
        .map(|byte| (byte * 7 + turn * 13 + 1) as u8)
        .collect()
}

fn moved(ended: &Ended) -> Vec<Moved> {
    let moved = |line: &String| {
        let (call, rest) = line.strip_prefix("call=")?.split_once(" result=")?;
        let (result, rest) = rest.split_once(' ')?;
        let (kept, hex) = rest.split_once(" data=")?;
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        Some(Moved {
            call: call.to_owned(),
            result: result.parse().unwrap(),
            data: (0..hex.len()).step_by(2).map(byte).collect(),
            keeps: kept == "registers=kept memory=kept",
        })
    };
    ended.stdout.iter().filter_map(moved).collect()
}

/// Some calls of each kind that ask for so many bytes each.
fn moves(
    rig: &Rig,
    program: &str,
    rules: &[String],
    (place, calls): Place<'_>,
    (length, number): (usize, usize),
) -> Run {
    assert!(!program.is_empty(), "the compiler could not build it");
    let options: Vec<_> = rules.iter().flat_map(|rule| ["--rule", rule]).collect();
    let (length, number) = (length.to_string(), number.to_string());
    let arguments = [place, &calls.join(","), &length, &number];
    let mut running = rig.start(&options, program, &arguments);
    running.victim.go();
    running.victim.done();
    let (ended, summary, events) = running.finish();
    assert_eq!(ended.code(), Some(0), "{rig:?} {rules:?}: {ended}");
    let run = Run {
        calls: moved(&ended),
        summary,
        fired: fired(&events).into_iter().cloned().collect(),
    };
    for call in &run.calls {
        assert!(call.keeps, "{place} {call:?} {rules:?} {}", run.summary);
    }
    for rule in 0..rules.len() {
        assert_eq!(run.tally(rule, "lost"), 0, "{place} {}", run.summary);
    }
    run
}

/// Where calls are made.
type Place<'p> = (&'p str, &'p [&'p str]);

const PLACES: &[Place<'_>] = &[
    (
        "file",
        &[
            "write", "pwrite64", "writev", "pwritev", "pwritev2", "read", "pread64", "readv",
            "preadv", "preadv2",
        ],
    ),
    ("pipe", &["write", "writev", "read", "readv"]),
    (
        "stream",
        &[
            "write", "writev", "sendto", "sendmsg", "read", "readv", "recvfrom", "recvmsg",
        ],
    ),
];

/// The length that calls ask for, of which four parts have 10, 0, 10 and 11.
const ASKED: usize = 31;

/// Bytes, with the bits flipped that a record names.
fn flipped(mut bytes: Vec<u8>, record: &Value) -> Vec<u8> {
    for flip in record["flips"].as_array().unwrap() {
        let offset = flip["offset"].as_u64().unwrap() as usize;
        bytes[offset] ^= 1 << flip["bit"].as_u64().unwrap();
    }
    bytes
}

/// Each kind of call is cut within its first part and behind it, and has bits flipped.
fn is_changed(rig: &Rig, program: &str) {
    for place in PLACES {
        let mut rules = Vec::new();
        for call in place.1 {
            for what in ["short:3@2", "short:17@4", "corrupt:5@6"] {
                rules.push(format!("{call}(fd=77)={what}"));
            }
        }
        let run = moves(rig, program, &rules, *place, (ASKED, 7));
        for call in place.1 {
            let fired = run.fired_on(call);
            let mut what = format!("{} {call}: {fired:?}", place.0);
            let calls = run.of(call);
            let _ = write!(what, " {calls:?}");
            let actions: Vec<_> = fired.iter().map(|record| &record["action"]).collect();
            assert_eq!(actions, ["short:3", "short:17", "corrupt:5"], "{what}");
            let left = [ASKED, 3, ASKED, 17, ASKED, ASKED, ASKED];
            for (turn, (moved, left)) in calls.iter().zip(left).enumerate() {
                let mut want = bytes(turn, left);
                if turn == 5 {
                    let plain = want.clone();
                    want = flipped(want, fired[2]);
                    let pairs = plain.iter().zip(&want);
                    let flips: u32 = pairs.map(|(one, other)| (one ^ other).count_ones()).sum();
                    assert_eq!(flips, 5, "{what}");
                }
                assert_eq!(moved.data, want, "{what}");
                assert_eq!(moved.result, left as i64, "{what}");
            }
            assert_eq!(calls.len(), 7, "{what}");
        }
    }
}

/// The program looks at what it has sent: that is as it was.
pub(super) fn data_is_cut_and_corrupted(rig: &Rig) {
    is_changed(rig, programs::MOVER);
}

pub(super) fn data_of_a_32_bit_caller_is_cut_and_corrupted(rig: &Rig) {
    is_changed(rig, programs::MOVER32);
}

fn rules<const N: usize>(rules: [&str; N]) -> Vec<String> {
    rules.map(str::to_owned).to_vec()
}

pub(super) fn a_share_is_left(rig: &Rig) {
    let rules = rules(["write(fd=77)=short:50%"]);
    let place = ("file", &["write"][..]);
    let run = moves(rig, programs::MOVER, &rules, place, (ASKED, 3));
    let results: Vec<_> = run.calls.iter().map(|call| call.result).collect();
    assert_eq!(results, [15; 3]);
    assert_eq!(run.fired[0]["action"], "short:15");
    assert_eq!(run.fired.len(), 3);
}

/// `max:` is not used up meanwhile. Datagrams are not cut, but their bits may be flipped.
pub(super) fn nothing_is_cut_where_nothing_can_be(rig: &Rig) {
    let short = rules([
        "write(fd=77)=short:4@max:1",
        "sendto(fd=77)=short:4@max:1",
        "recvmsg(fd=77)=corrupt:2@2",
    ]);
    let calls = &["write", "sendto", "recvmsg"][..];
    let run = moves(
        rig,
        programs::MOVER,
        &short,
        ("datagram", calls),
        (ASKED, 3),
    );
    for moved in run.of("write").iter().chain(&run.of("sendto")) {
        assert_eq!(moved.result, ASKED as i64);
    }
    let received = run.of("recvmsg")[1];
    assert_eq!(received.data, flipped(bytes(1, ASKED), &run.fired[0]));
    let tallies = |rule| (run.tally(rule, "fired"), run.tally(rule, "dataless"));
    assert_eq!([0, 1, 2].map(tallies), [(0, 3), (0, 3), (1, 0)]);
    // So long that nothing is left to cut off.
    let calls = &["write", "sendto"][..];
    let run = moves(rig, programs::MOVER, &short, ("stream", calls), (4, 3));
    let tallies = |rule| (run.tally(rule, "fired"), run.tally(rule, "dataless"));
    assert_eq!([0, 1].map(tallies), [(0, 3), (0, 3)]);
}

/// Bits are flipped in what is left, whichever rule comes first.
pub(super) fn data_is_cut_before_it_is_corrupted(rig: &Rig) {
    let rules = rules([
        "write,sendmsg,readv(fd=77)=corrupt:9@2+3",
        "write,sendmsg,readv(fd=77)=short:2@2+3",
    ]);
    let place = ("stream", &["write", "sendmsg", "readv"][..]);
    let run = moves(rig, programs::MOVER, &rules, place, (ASKED, 3));
    for call in place.1 {
        let fired = run.fired_on(call);
        assert_eq!(fired.len(), 2, "{call}: {fired:?}");
        let moved = run.of(call)[1];
        assert_eq!(moved.data, flipped(bytes(1, 2), fired[0]), "{moved:?}");
        assert_eq!(moved.result, 2);
    }
}

/// In one firing.
pub(super) fn a_call_that_is_cut_waits_and_lies(rig: &Rig) {
    let rules = rules(["write(fd=77)=delay:20ms+short:3+after:EIO@2"]);
    let place = ("file", &["write"][..]);
    let run = moves(rig, programs::MOVER, &rules, place, (ASKED, 3));
    let seen: Vec<_> = run
        .calls
        .iter()
        .map(|call| (call.result, call.data.len()))
        .collect();
    assert_eq!(
        seen,
        [(ASKED as i64, ASKED), (-5, 3), (ASKED as i64, ASKED)]
    );
    assert_eq!(run.fired[0]["action"], "delay+short:3+after:EIO");
    assert!(run.fired[0]["delay_ns"].as_u64().unwrap() >= 20_000_000);
}

/// What fails by itself is not told as changed, and what does not run has no data.
pub(super) fn a_call_that_fails_has_no_data_that_is_changed(rig: &Rig) {
    let rules = rules([
        "pwrite64(fd=77)=short:3@2",
        "write(fd=77)=EIO",
        "write(fd=77)=corrupt:1",
    ]);
    let place = ("pipe", &["pwrite64", "write"][..]);
    let run = moves(rig, programs::MOVER, &rules, place, (ASKED, 3));
    assert!(
        run.calls.iter().all(|call| call.result < 0),
        "{:?}",
        run.calls
    );
    let tallies = |rule| (run.tally(rule, "fired"), run.tally(rule, "moot"));
    assert_eq!([0, 1, 2].map(tallies), [(0, 1), (3, 0), (0, 3)]);
}
