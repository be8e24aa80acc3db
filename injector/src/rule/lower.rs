//! From a resolved rule to its wire form: what every backend's decision goes by. What the wire form
//! cannot say yet is told as such, part by part.

use std::time::Duration;

use injector_common::args::{
    ARG_DESCRIPTOR, OP_ANY_BIT, OP_EQUAL, OP_GREATER, OP_LESS, OP_NEGATIVE,
};
use injector_common::caller::{CALLER_IS, CALLER_IS_NOT};
use injector_common::glob::{PATH_IS, PATH_IS_NOT};
use injector_common::limits::{
    MAX_CALLER_TESTS, MAX_FLIPS, MAX_PATH_TESTS, MAX_POSITION, MAX_SOCKET_TESTS, MAX_STEPS,
    MAX_TESTS,
};
use injector_common::rule::{
    ACT_AFTER_DELAY, ACT_AFTER_HOLD, ACT_AFTER_KILL, ACT_AFTER_RESULT, ACT_AFTER_SIGNAL,
    ACT_CORRUPT, ACT_DELAY, ACT_EDITS, ACT_HOLD, ACT_KILL, ACT_RESULT, ACT_SHORT, ACT_SIGNAL,
    ACT_STOP,
};
use injector_common::socket::{FAMILY_NONE, FAMILY_UNIX, FAMILY_V6, SOCKET_IS, SOCKET_IS_NOT};
use injector_common::{
    AddressKind, ArgKinds, CallerFact, CallerFacts, DataKind, FileSide, Scope as WireScope,
    SocketSide, WireCallerTest, WireGlob, WirePathTest, WireRule, WireSocketTest, WireStep,
    WireTest, WireWait,
};

use super::address::AddressPattern;
use super::ast::{
    Action, After, ArgOp, CommOf, Delay, HOLD_DEFAULT, Integer, Predicate, RetValue, Scope, Short,
    Side, SocketEnd,
};
use super::glob::{Glob, TooLarge};
use super::{ResolvedRule, Step};
use crate::syscall::{CallId, DataPlace, Direction, arg_width, by_id};

/// A part of a rule that has no wire form.
#[derive(Clone, Debug, PartialEq)]
pub enum NotLowered {
    /// More bits to flip than one firing may; how many.
    TooManyBits(u32),
    /// More predicates on arguments than a rule can have; how many there are.
    TooManyTests(usize),
    /// More predicates on who calls than a rule can have; how many there are.
    TooManyCallerTests(usize),
    /// More predicates on sockets than a rule can have; how many there are.
    TooManySocketTests(usize),
    /// More predicates on files than a rule can have; how many there are.
    TooManyPathTests(usize),
    /// A pattern of which there is too much; as written.
    Glob(String, TooLarge),
    /// More steps than a chain can have; how many there are, the closing `off` included.
    ChainTooLong(usize),
    /// The calls that the chain's steps span, more than can be counted.
    ChainTooWide(u64),
}

/// A time in nanoseconds; the longest where it is longer.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A rule as whoever decides takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Lowered {
    /// Its wire form.
    pub wire: WireRule,
    /// The patterns of its tests of files, in their order, and behind them those of its tests of unix sockets.
    pub globs: Vec<WireGlob>,
}

/// Lowers a rule.
pub fn lower(rule: &ResolvedRule) -> Result<Lowered, Vec<NotLowered>> {
    let mut problems = Vec::new();
    let mut wire = WireRule {
        key: rule.key,
        ..WireRule::PASS
    };
    let when = &rule.when;
    wire.first = when.count.first().get();
    wire.last = when
        .count
        .last()
        .map_or(u64::MAX, std::num::NonZeroU64::get);
    wire.step = when.count.step().get();
    wire.start_ns = when.start.map_or(0, nanoseconds);
    wire.end_ns = when.for_.map_or(u64::MAX, |length| {
        wire.start_ns.saturating_add(nanoseconds(length))
    });
    wire.max = when.max.map_or(0, std::num::NonZeroU32::get);
    wire.probability = when
        .probability
        .map_or(injector_common::random::CERTAIN, super::Percent::parts);
    wire.scope = match when.per {
        Scope::Rule => WireScope::Rule,
        Scope::Process => WireScope::Process,
        Scope::Thread => WireScope::Thread,
    } as u32;

    let (mut tests, mut callers) = (Vec::new(), Vec::new());
    let (mut paths, mut sockets) = (Vec::new(), Vec::new());
    let (mut globs, mut names) = (Vec::new(), Vec::new());
    for predicate in &rule.preds {
        match lower_predicate(predicate) {
            Test::Argument(test) => tests.push(test),
            Test::Caller(test) => callers.push(test),
            Test::Path(test, glob) => match glob.wire() {
                Ok(glob) => {
                    paths.push(test);
                    globs.push(glob);
                }
                Err(too_large) => {
                    problems.push(NotLowered::Glob(glob.as_str().to_owned(), too_large));
                }
            },
            Test::Socket(test, name) => {
                sockets.push(test);
                match name.map(Glob::wire).transpose() {
                    Ok(name) => names.extend(name),
                    Err(too_large) => {
                        let text = name.map_or("", Glob::as_str).to_owned();
                        problems.push(NotLowered::Glob(text, too_large));
                    }
                }
            }
        }
    }
    if callers.len() > MAX_CALLER_TESTS {
        problems.push(NotLowered::TooManyCallerTests(callers.len()));
    } else {
        wire.callers[..callers.len()].copy_from_slice(&callers);
    }
    globs.append(&mut names);
    if sockets.len() > MAX_SOCKET_TESTS {
        problems.push(NotLowered::TooManySocketTests(sockets.len()));
    } else {
        wire.sockets[..sockets.len()].copy_from_slice(&sockets);
    }
    if globs.len() > MAX_PATH_TESTS {
        problems.push(NotLowered::TooManyPathTests(globs.len()));
    } else {
        wire.paths[..paths.len()].copy_from_slice(&paths);
    }
    if tests.len() > MAX_TESTS {
        problems.push(NotLowered::TooManyTests(tests.len()));
    } else {
        wire.tests[..tests.len()].copy_from_slice(&tests);
    }

    let mut steps = Vec::new();
    let mut until = 0_u64;
    for step in &rule.chain {
        let mut wire_step = lower_step(step, &mut problems);
        wire_step.until = match step.repeat {
            None => WireStep::FOREVER,
            Some(calls) => {
                until = until.saturating_add(u64::from(calls.get()));
                until
            }
        };
        steps.push(wire_step);
    }
    if steps
        .last()
        .is_none_or(|last| last.until != WireStep::FOREVER)
    {
        steps.push(WireStep::OFF);
    }
    if until > u64::from(MAX_POSITION) {
        problems.push(NotLowered::ChainTooWide(until));
    }
    if steps.len() > MAX_STEPS {
        problems.push(NotLowered::ChainTooLong(steps.len()));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    wire.steps_len = u16::try_from(steps.len()).unwrap_or(0);
    wire.edits = u16::from(steps.iter().any(|step| step.actions & ACT_EDITS != 0));
    wire.steps[..steps.len()].copy_from_slice(&steps);
    Ok(Lowered { wire, globs })
}

/// What a predicate is as a test.
enum Test<'a> {
    Argument(WireTest),
    Caller(WireCallerTest),
    Path(WirePathTest, &'a Glob),
    Socket(WireSocketTest, Option<&'a Glob>),
}

/// A predicate as a test.
fn lower_predicate(predicate: &Predicate<Integer>) -> Test<'_> {
    let caller = |fact: CallerFact, negated: bool, value| {
        let op = if negated { CALLER_IS_NOT } else { CALLER_IS };
        let fact = fact as u32;
        Test::Caller(WireCallerTest { value, fact, op })
    };
    let path = |side: FileSide, negated: bool, glob| {
        let op = if negated { PATH_IS_NOT } else { PATH_IS };
        let side = side as u32;
        Test::Path(WirePathTest { side, op }, glob)
    };
    let argument = match predicate {
        Predicate::Fd { negated, fd } => WireTest {
            value: u64::from(*fd),
            arg: ARG_DESCRIPTOR,
            op: if *negated {
                OP_LESS | OP_GREATER
            } else {
                OP_EQUAL
            },
        },
        Predicate::Arg { arg, op, value } => {
            let holds = match op {
                ArgOp::Equal => OP_EQUAL,
                ArgOp::NotEqual => OP_LESS | OP_GREATER,
                ArgOp::Below => OP_LESS,
                ArgOp::AtMost => OP_LESS | OP_EQUAL,
                ArgOp::Above => OP_GREATER,
                ArgOp::AtLeast => OP_GREATER | OP_EQUAL,
                ArgOp::AnyBit => OP_ANY_BIT,
            };
            let sign = if value.is_negative() { OP_NEGATIVE } else { 0 };
            WireTest {
                value: value.register(),
                arg: arg.get().into(),
                op: holds | sign,
            }
        }
        Predicate::Comm { of, negated, comm } => {
            let fact = match of {
                CommOf::Process => CallerFact::Comm,
                CommOf::Thread => CallerFact::Thread,
            };
            let mut name = [0; 16];
            let bytes = comm.as_str().as_bytes();
            name[..bytes.len()].copy_from_slice(bytes);
            return caller(fact, *negated, CallerFacts::name_of(&name));
        }
        Predicate::Uid { negated, uid } => {
            return caller(CallerFact::Uid, *negated, CallerFacts::uid(*uid));
        }
        Predicate::Path {
            side,
            negated,
            glob,
        } => {
            let side = match side {
                Side::Any => FileSide::Any,
                Side::From => FileSide::From,
                Side::To => FileSide::To,
            };
            return path(side, *negated, glob);
        }
        Predicate::Exe { negated, glob } => return path(FileSide::Executable, *negated, glob),
        Predicate::Socket {
            end,
            negated,
            address,
        } => {
            let side = match end {
                SocketEnd::Peer => SocketSide::Peer,
                SocketEnd::Local => SocketSide::Own,
            };
            return lower_socket(side, *negated, address);
        }
    };
    Test::Argument(argument)
}

fn lower_socket(side: SocketSide, negated: bool, address: &AddressPattern) -> Test<'_> {
    let mut test = WireSocketTest {
        side: side as u32,
        op: if negated { SOCKET_IS_NOT } else { SOCKET_IS },
        ..WireSocketTest::NONE
    };
    let (net, port) = match address {
        AddressPattern::Unix(name) => {
            test.family = FAMILY_UNIX;
            return Test::Socket(test, Some(name));
        }
        AddressPattern::Ip { net, port } => (net, port),
    };
    test.port = port.unwrap_or(0).into();
    if let Some(net) = net {
        let (bits, mask) = net.bits();
        let words = |bits: u128| [(bits >> 64) as u64, bits as u64];
        (test.address, test.mask) = (words(bits), words(mask));
        test.family = if net.is_v4() { FAMILY_NONE } else { FAMILY_V6 };
    }
    Test::Socket(test, None)
}

/// How the kernel reads a call's arguments, as the deciding side takes it.
pub fn kinds_of(call: CallId) -> ArgKinds {
    let mut kinds = ArgKinds::NONE;
    for arg in 1..=6_u8 {
        if let Some((bits, signed)) = arg_width(call, arg) {
            kinds = kinds.with(arg.into(), bits.into(), signed);
        }
    }
    let roles = by_id(call).map(|call| call.roles()).unwrap_or_default();
    if let Some(arg) = roles.fd() {
        kinds = kinds.with_descriptor(arg.into());
    }
    if let Some(address) = roles.address {
        kinds = kinds.with_address(match (address.peer, address.at) {
            (true, 2) => AddressKind::PeerInSecond,
            (false, 2) => AddressKind::OwnInSecond,
            (true, 5) => AddressKind::PeerInFifth,
            // There is no other (a test looks).
            _ => AddressKind::None,
        });
    }
    let Some(data) = roles.data else {
        return kinds;
    };
    let kind = match data.place {
        DataPlace::Buffer { at: 2, len: 3 } => DataKind::Buffer,
        DataPlace::Vector { at: 2, count: 3 } => DataKind::Vector,
        DataPlace::Message { at: 2 } => DataKind::Message,
        // Several messages have a length each; there is no other order of arguments (a test looks).
        _ => DataKind::None,
    };
    kinds.with_data(kind, data.direction == Direction::Out)
}

fn lower_step(step: &Step, problems: &mut Vec<NotLowered>) -> WireStep {
    let mut wire = WireStep::OFF;
    for action in &step.actions {
        match action {
            Action::Off => {}
            Action::Error(errno) => {
                wire.actions |= ACT_RESULT;
                wire.value = -i64::from(errno.number());
            }
            Action::Ret(value) => {
                wire.actions |= ACT_RESULT;
                wire.value = result(*value);
            }
            Action::Kill => wire.actions |= ACT_KILL,
            Action::Signal(signal) => {
                wire.actions |= ACT_SIGNAL;
                wire.signal = u32::from(signal.number());
            }
            Action::Delay(delay) => {
                wire.actions |= ACT_DELAY;
                wire.wait = delayed(*delay);
            }
            Action::Hold(most) => {
                wire.actions |= ACT_HOLD;
                wire.wait = held(*most);
            }
            Action::After(after) => lower_after(*after, &mut wire),
            Action::Short(short) => {
                wire.actions |= ACT_SHORT;
                wire.edit = match short {
                    // No call moves as much as that.
                    Short::Bytes(bytes) => u32::try_from(bytes.get())
                        .map_or(!WireStep::SHARE, |bytes| bytes.min(!WireStep::SHARE)),
                    Short::Percent(share) => WireStep::SHARE | share.parts(),
                };
            }
            Action::Corrupt(bits) if bits.get() > MAX_FLIPS => {
                problems.push(NotLowered::TooManyBits(bits.get()));
            }
            Action::Corrupt(bits) => {
                wire.actions |= ACT_CORRUPT;
                wire.edit = bits.get();
            }
            Action::Stop => {
                wire.actions |= ACT_STOP;
                // Until it is released.
                wire.wait = held(Some(Duration::MAX));
            }
        }
    }
    wire
}

fn lower_after(after: After, wire: &mut WireStep) {
    match after {
        After::Error(errno) => {
            wire.actions |= ACT_AFTER_RESULT;
            wire.value = -i64::from(errno.number());
        }
        After::Ret(value) => {
            wire.actions |= ACT_AFTER_RESULT;
            wire.value = result(value);
        }
        After::Kill => wire.actions |= ACT_AFTER_KILL,
        After::Signal(signal) => {
            wire.actions |= ACT_AFTER_SIGNAL;
            wire.after_signal = u32::from(signal.number());
        }
        After::Delay(delay) => {
            wire.actions |= ACT_AFTER_DELAY;
            wire.after_wait = delayed(delay);
        }
        After::Hold(most) => {
            wire.actions |= ACT_AFTER_HOLD;
            wire.after_wait = held(most);
        }
    }
}

fn result(value: RetValue) -> i64 {
    i64::try_from(value.get()).unwrap_or(i64::MAX)
}

fn delayed(delay: Delay) -> WireWait {
    WireWait {
        min_ns: nanoseconds(delay.min()),
        max_ns: nanoseconds(delay.max()),
    }
}

fn held(most: Option<Duration>) -> WireWait {
    let ns = nanoseconds(most.unwrap_or(HOLD_DEFAULT));
    WireWait {
        min_ns: ns,
        max_ns: ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{RuleText, compile};

    fn lowered(rule: &str) -> WireRule {
        lower(&compile(&[RuleText::new(rule)]).unwrap().rules[0])
            .unwrap()
            .wire
    }

    fn refused(rule: &str) -> Vec<NotLowered> {
        lower(&compile(&[RuleText::new(rule)]).unwrap().rules[0]).unwrap_err()
    }

    #[test]
    fn waits_are_bounds_in_nanoseconds_and_what_comes_after_stands_apart() {
        let step = |rule: &str| lowered(rule).steps[0];
        let wait = |min_ns, max_ns| WireWait { min_ns, max_ns };
        for (rule, actions, before, after) in [
            (
                "fsync=delay:1ms",
                ACT_DELAY,
                wait(1_000_000, 1_000_000),
                WireWait::NONE,
            ),
            (
                "fsync=delay:20ms..0.2s",
                ACT_DELAY,
                wait(20_000_000, 200_000_000),
                WireWait::NONE,
            ),
            (
                "fsync=hold",
                ACT_HOLD,
                wait(30_000_000_000, 30_000_000_000),
                WireWait::NONE,
            ),
            (
                "fsync=after:hold:5s",
                ACT_AFTER_HOLD,
                WireWait::NONE,
                wait(5_000_000_000, 5_000_000_000),
            ),
            (
                "fsync=hold:2s+after:delay:1us",
                ACT_HOLD | ACT_AFTER_DELAY,
                wait(2_000_000_000, 2_000_000_000),
                wait(1000, 1000),
            ),
        ] {
            let step = step(rule);
            assert_eq!(
                (step.actions, step.wait, step.after_wait),
                (actions, before, after),
                "{rule}"
            );
        }
        let stop = step("fsync=stop");
        assert_eq!(
            (stop.actions, stop.wait),
            (ACT_STOP, wait(u64::MAX, u64::MAX))
        );
        for (rule, actions, edit) in [
            ("write=short:7", ACT_SHORT, 7),
            ("write=short:3G", ACT_SHORT, 0x7fff_ffff),
            ("write=short:100G", ACT_SHORT, 0x7fff_ffff),
            ("write=short:12.5%", ACT_SHORT, WireStep::SHARE + 125_000),
            ("write=corrupt:3", ACT_CORRUPT, 3),
        ] {
            let rule = lowered(rule);
            assert_eq!((rule.steps[0].actions, rule.steps[0].edit), (actions, edit));
            assert!(rule.has_edits());
        }
        assert!(lowered("write=EIO->short:7").has_edits() && !lowered("write=EIO").has_edits());
        let both = step("fsync=signal:SIGUSR1+after:EIO+after:signal:SIGUSR2@1");
        assert_eq!(
            (both.actions, both.value, both.signal, both.after_signal),
            (ACT_SIGNAL | ACT_AFTER_RESULT | ACT_AFTER_SIGNAL, -5, 10, 12)
        );
        let told = step("fsync=after:ret:3");
        assert_eq!((told.actions, told.value), (ACT_AFTER_RESULT, 3));
        assert_eq!(step("fsync=after:kill").actions, ACT_AFTER_KILL);
    }

    /// A step: its end, actions, value and signal.
    fn steps(rule: &str) -> Vec<(u64, u32, i64, u32)> {
        let wire = lowered(rule);
        let used = &wire.steps[..wire.steps_len as usize];
        let unused = &wire.steps[wire.steps_len as usize..];
        assert!(unused.iter().all(|step| *step == WireStep::OFF), "{rule}");
        used.iter()
            .map(|step| (step.until, step.actions, step.value, step.signal))
            .collect()
    }

    #[test]
    fn actions_become_bits_and_what_they_carry() {
        const EVER: u64 = WireStep::FOREVER;
        for (rule, expected) in [
            ("fsync=EIO", vec![(EVER, ACT_RESULT, -5, 0)]),
            ("fsync=ret:7", vec![(EVER, ACT_RESULT, 7, 0)]),
            ("fsync=kill", vec![(EVER, ACT_KILL, 0, 0)]),
            ("fsync=signal:SIGUSR1@1", vec![(EVER, ACT_SIGNAL, 0, 10)]),
            (
                "fsync=signal:SIGUSR1+EIO@1",
                vec![(EVER, ACT_SIGNAL | ACT_RESULT, -5, 10)],
            ),
            (
                "fsync=signal:SIGUSR1+kill@1",
                vec![(EVER, ACT_SIGNAL | ACT_KILL, 0, 10)],
            ),
            (
                "fsync=EIO->EPERM",
                vec![(1, ACT_RESULT, -5, 0), (EVER, ACT_RESULT, -1, 0)],
            ),
            (
                "fsync=2*off->3*EIO",
                vec![(2, 0, 0, 0), (5, ACT_RESULT, -5, 0), (EVER, 0, 0, 0)],
            ),
        ] {
            assert_eq!(steps(rule), expected, "{rule}");
        }
    }

    #[test]
    fn a_rule_keeps_its_key_its_sequence_and_its_scope() {
        let rule = compile(&[RuleText::new("fsync=EIO@3..9+2,50%,max:4,per:thread")]).unwrap();
        let wire = lower(&rule.rules[0]).unwrap().wire;
        assert_eq!(wire.key, rule.rules[0].key);
        assert_ne!(wire.key, 0);
        assert_eq!((wire.first, wire.last, wire.step, wire.max), (3, 9, 2, 4));
        assert_eq!(wire.probability, injector_common::random::CERTAIN / 2);
        assert_eq!(wire.scope, WireScope::Thread as u32);
        let wire = lowered("fsync=EIO@per:process");
        assert_eq!(
            (wire.first, wire.last, wire.step, wire.max),
            (1, u64::MAX, 1, 0)
        );
        assert_eq!(wire.scope, WireScope::Process as u32);
    }

    #[test]
    fn chains_have_their_limits_to_the_step() {
        let chain = |steps: usize| format!("fsync={}", vec!["EIO"; steps].join("->"));
        assert_eq!(steps(&chain(MAX_STEPS)).len(), MAX_STEPS);
        assert_eq!(
            refused(&chain(MAX_STEPS + 1)),
            [NotLowered::ChainTooLong(MAX_STEPS + 1)]
        );
        // An end of its own costs the closing `off` a step.
        assert_eq!(
            refused(&format!("{}->2*EIO", chain(MAX_STEPS - 1))),
            [NotLowered::ChainTooLong(MAX_STEPS + 1)]
        );
        let wide = |calls: u64| format!("fsync={calls}*EIO->off");
        let most = u64::from(MAX_POSITION);
        assert_eq!(steps(&wide(most))[0].0, most);
        assert_eq!(
            refused(&format!("fsync={most}*EIO->1*EPERM->off")),
            [NotLowered::ChainTooWide(most + 1)]
        );
        let flips = |bits: u32| format!("write=corrupt:{bits}");
        assert_eq!(refused(&flips(65)), [NotLowered::TooManyBits(65)]);
        assert_eq!(lowered(&flips(64)).steps[0].edit, 64);
    }

    #[test]
    fn predicates_on_arguments_become_tests() {
        let tests = |rule: &str| {
            let wire = lowered(rule);
            let used = wire.tests.iter().filter(|test| test.op != 0);
            used.map(|test| (test.arg, test.op, test.value))
                .collect::<Vec<_>>()
        };
        for (rule, expected) in [
            ("write=EIO", vec![]),
            ("write(fd=3)=EIO", vec![(ARG_DESCRIPTOR, OP_EQUAL, 3)]),
            (
                "write(fd!=3)=EIO",
                vec![(ARG_DESCRIPTOR, OP_LESS | OP_GREATER, 3)],
            ),
            (
                "write(arg3>4k,arg3<=1M)=EIO",
                vec![(3, OP_GREATER, 4096), (3, OP_LESS | OP_EQUAL, 1 << 20)],
            ),
            (
                "openat(arg1=-100,arg3&O_CREAT)=EIO",
                vec![
                    (1, OP_EQUAL | OP_NEGATIVE, -100_i64 as u64),
                    (3, OP_ANY_BIT, 0o100),
                ],
            ),
            (
                "lseek(arg2>=0,arg2!=7)=EIO",
                vec![(2, OP_GREATER | OP_EQUAL, 0), (2, OP_LESS | OP_GREATER, 7)],
            ),
            ("lseek(arg2<0)=EIO", vec![(2, OP_LESS, 0)]),
        ] {
            assert_eq!(tests(rule), expected, "{rule}");
        }
        let many = |tests: usize| {
            let tests: Vec<_> = (0..tests).map(|n| format!("arg3!={n}")).collect();
            format!("write({})=EIO", tests.join(","))
        };
        assert_eq!(tests(&many(MAX_TESTS)).len(), MAX_TESTS);
        assert_eq!(
            refused(&many(MAX_TESTS + 1)),
            [NotLowered::TooManyTests(MAX_TESTS + 1)]
        );
    }

    #[test]
    fn predicates_on_files_become_tests_and_patterns() {
        let rule = "rename(path=*.db,from!=/a/*,to=/b,exe=/bin/cat)=EIO";
        let lowered = lower(&compile(&[RuleText::new(rule)]).unwrap().rules[0]).unwrap();
        let tests = [
            (FileSide::Any, PATH_IS),
            (FileSide::From, PATH_IS_NOT),
            (FileSide::To, PATH_IS),
            (FileSide::Executable, PATH_IS),
        ];
        let tests = tests.map(|(side, op)| WirePathTest {
            side: side as u32,
            op,
        });
        assert!(lowered.wire.has_paths());
        assert_eq!(lowered.wire.paths, tests);
        let globs = ["*.db", "/a/*", "/b", "/bin/cat"];
        assert_eq!(
            lowered.globs,
            globs.map(|glob| Glob::new(glob).unwrap().wire().unwrap())
        );
        let many: Vec<_> = (0..5).map(|glob| format!("path=*.{glob}")).collect();
        let many = format!("fsync({})=EIO", many.join(","));
        assert_eq!(refused(&many), [NotLowered::TooManyPathTests(5)]);
        let long = "a".repeat(513);
        assert!(matches!(
            &refused(&format!("fsync(path={long})=EIO"))[..],
            [NotLowered::Glob(glob, _)] if *glob == long
        ));
    }

    #[test]
    fn predicates_on_sockets_become_tests() {
        const ALL: u64 = u64::MAX;
        let sockets = |rule: &str| {
            let rule = format!("connect({rule})=EIO");
            let lowered = lower(&compile(&[RuleText::new(rule)]).unwrap().rules[0]).unwrap();
            (lowered.wire.sockets, lowered.globs)
        };
        let test = |address, mask, port, family| WireSocketTest {
            address,
            mask,
            port,
            family,
            side: SocketSide::Peer as u32,
            op: SOCKET_IS,
        };
        for (rule, expected) in [
            (
                "peer=10.0.0.7",
                test([0, 0xffff_0a00_0007], [ALL; 2], 0, FAMILY_NONE),
            ),
            (
                "peer=10.0.0.0/8:80",
                test([0, 0xffff_0a00_0000], [ALL, ALL << 24], 80, FAMILY_NONE),
            ),
            ("peer=:443", test([0; 2], [0; 2], 443, FAMILY_NONE)),
            (
                "peer=[2001:db8::/32]:1",
                test([0x2001_0db8 << 32, 0], [ALL << 32, 0], 1, FAMILY_V6),
            ),
            ("peer=::/0", test([0; 2], [0; 2], 0, FAMILY_V6)),
            ("peer=unix:/a", test([0; 2], [0; 2], 0, FAMILY_UNIX)),
        ] {
            assert_eq!(sockets(rule).0, [expected, WireSocketTest::NONE], "{rule}");
        }
        let ([peer, own], globs) = sockets("peer!=unix:/a,addr=unix:*.sock,path=*.db");
        assert_eq!(
            (peer.side, peer.op),
            (SocketSide::Peer as u32, SOCKET_IS_NOT)
        );
        assert_eq!((own.side, own.op), (SocketSide::Own as u32, SOCKET_IS));
        let wanted = ["*.db", "/a", "*.sock"];
        assert_eq!(
            globs,
            wanted.map(|glob| Glob::new(glob).unwrap().wire().unwrap())
        );
        let many = "connect(peer!=:1,peer!=:2,peer!=:3)=EIO";
        assert_eq!(refused(many), [NotLowered::TooManySocketTests(3)]);
        let five = "connect(peer=unix:/a,path=*.1,path=*.2,path=*.3,path=*.4)=EIO";
        assert_eq!(refused(five), [NotLowered::TooManyPathTests(5)]);
    }

    #[test]
    fn calls_give_addresses_in_three_places() {
        for name in crate::syscall::names() {
            for call in crate::syscall::by_name(name) {
                let kind = kinds_of(call.id()).address();
                let expected = match *name {
                    "connect" => AddressKind::PeerInSecond,
                    "bind" => AddressKind::OwnInSecond,
                    "sendto" => AddressKind::PeerInFifth,
                    _ => AddressKind::None,
                };
                assert_eq!(kind, expected, "{name}");
                assert_eq!(call.roles().address.is_some(), kind != AddressKind::None);
            }
        }
    }

    #[test]
    fn who_calls_becomes_tests() {
        let callers = |rule: &str| {
            let found = lowered(rule)
                .callers
                .into_iter()
                .filter(|test| test.op != 0);
            found
                .map(|test| (test.fact, test.op, test.value))
                .collect::<Vec<_>>()
        };
        let name = |name: &[u8; 16]| CallerFacts::name_of(name);
        assert_eq!(
            callers("fsync(comm=redis-server,thread!=bio,uid=33)=EIO"),
            [
                (
                    CallerFact::Comm as u32,
                    CALLER_IS,
                    name(b"redis-server\0\0\0\0")
                ),
                (
                    CallerFact::Thread as u32,
                    CALLER_IS_NOT,
                    name(b"bio\0\0\0\0\0\0\0\0\0\0\0\0\0")
                ),
                (CallerFact::Uid as u32, CALLER_IS, [33, 0]),
            ]
        );
        let many = |tests: u32| {
            let tests: Vec<_> = (0..tests).map(|uid| format!("uid!={uid}")).collect();
            format!("fsync({})=EIO", tests.join(","))
        };
        assert_eq!(callers(&many(4)).len(), MAX_CALLER_TESTS);
        assert_eq!(refused(&many(5)), [NotLowered::TooManyCallerTests(5)]);
    }

    #[test]
    fn arguments_are_read_as_the_kernel_declares_them() {
        let kinds = |name: &str| {
            let known = crate::syscall::by_name(name);
            known
                .iter()
                .map(|call| kinds_of(call.id()))
                .collect::<Vec<_>>()
        };
        let none = ArgKinds::NONE;
        let buffer = none.with_data(DataKind::Buffer, false);
        let read = buffer.with(1, 32, false).with_descriptor(1);
        assert_eq!(
            kinds("read"),
            [
                read.with(2, 64, false).with(3, 64, false),
                read.with(2, 32, false).with(3, 32, false)
            ]
        );
        let open = none.with(2, 32, true).with(3, 16, false);
        assert_eq!(
            kinds("open"),
            [open.with(1, 64, false), open.with(1, 32, false)]
        );
        assert_eq!(kinds("getppid"), [none, none]);
        let mmap = kinds("mmap")[0];
        assert_eq!(
            mmap,
            (1..=6)
                .fold(none, |kinds, arg| kinds.with(arg, 64, false))
                .with_descriptor(5)
        );
        // It splits its offset in two, so that what it declares is not what it is given.
        let all_words = (1..=6).fold(none, |kinds, arg| kinds.with(arg, 32, false));
        assert_eq!(
            kinds("pread64")[1],
            all_words
                .with_descriptor(1)
                .with_data(DataKind::Buffer, false)
        );
    }

    #[test]
    fn calls_describe_their_data_in_three_ways() {
        for (name, kind, sends) in [
            ("read", DataKind::Buffer, false),
            ("pwrite64", DataKind::Buffer, true),
            ("recvfrom", DataKind::Buffer, false),
            ("sendto", DataKind::Buffer, true),
            ("preadv2", DataKind::Vector, false),
            ("writev", DataKind::Vector, true),
            ("recvmsg", DataKind::Message, false),
            ("sendmsg", DataKind::Message, true),
            // Each message has a length of its own.
            ("sendmmsg", DataKind::None, true),
            ("fsync", DataKind::None, false),
        ] {
            for call in crate::syscall::by_name(name) {
                let kinds = kinds_of(call.id());
                assert_eq!((kinds.data(), kinds.sends()), (kind, sends), "{name}");
            }
        }
    }

    #[test]
    fn times_are_nanoseconds_after_arming() {
        let rule = lowered("fsync=EIO@start:2s,for:500ms");
        assert_eq!((rule.start_ns, rule.end_ns), (2_000_000_000, 2_500_000_000));
        let rule = lowered("fsync=EIO");
        assert_eq!((rule.start_ns, rule.end_ns), (0, u64::MAX));
    }
}
