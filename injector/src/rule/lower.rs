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
mod tests;
