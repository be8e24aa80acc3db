//! Rules made up for property tests: every production of the grammar, with values that need
//! quotes, escapes and brackets.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{
    address::{AddressPattern, IpNet},
    ast::{
        Action, After, ArgIndex, ArgOp, ArgValue, ChainStep, Comm, CommOf, Condition, Delay,
        Integer, Item, Node, Predicate, RetValue, Rule, Scope, Select, Short, Side, SocketEnd,
    },
    glob::Glob,
    value::{Count, Percent},
};
use crate::syscall::{Abi, Class, Errno, Signal, Sysno, flag_names, names};

fn bare<T>(node: T) -> Node<T, ()> {
    Node { node, span: () }
}

fn nz32() -> impl Strategy<Value = NonZeroU32> {
    prop_oneof![1..10u32, any::<u32>()].prop_filter_map("not zero", NonZeroU32::new)
}

fn nz64() -> impl Strategy<Value = NonZeroU64> {
    prop_oneof![1..10u64, any::<u64>()].prop_filter_map("not zero", NonZeroU64::new)
}

fn percent() -> impl Strategy<Value = Percent> {
    prop_oneof![
        (1..=100u32).prop_map(|whole| whole * 10_000),
        1..=Percent::PARTS
    ]
    .prop_filter_map("a share", Percent::from_parts)
}

fn duration() -> impl Strategy<Value = Duration> {
    let units = select(vec![
        1u64,
        1_000,
        1_000_000,
        1_000_000_000,
        60_000_000_000,
        3_600_000_000_000,
    ]);
    prop_oneof![
        (units, 1..2000u64).prop_map(|(unit, n)| unit * n),
        1..(1u64 << 63)
    ]
    .prop_map(Duration::from_nanos)
}

fn abi() -> impl Strategy<Value = Option<Abi>> {
    option::of(select(Abi::ALL.to_vec()))
}

/// Regular expressions with everything that is special between slashes.
fn regex() -> impl Strategy<Value = String> {
    let atom = select(vec![
        "sync", "^f", "open.*", "[a-z]+", "/", r"\\", r"\.", "(at|2)", "a,b", "=", "@", "x{2}", "!",
    ]);
    vec(atom, 1..5)
        .prop_map(|atoms| atoms.concat())
        .prop_filter("compiles", |regex| regex_lite::Regex::new(regex).is_ok())
}

fn item() -> impl Strategy<Value = Node<Item, ()>> {
    let name = prop_oneof![
        8 => select(names().to_vec()).prop_map(str::to_owned),
        1 => "[a-z_][a-z0-9_]{1,12}",
    ]
    .prop_filter("words for every call", |n| {
        !["all", "any", "every", "everything"].contains(&n.as_str())
    });
    let choice = prop_oneof![
        4 => name.clone().prop_map(Select::Name),
        1 => name.prop_map(Select::Optional),
        2 => select(Class::ALL.to_vec()).prop_map(Select::Class),
        2 => regex().prop_map(Select::Regex),
        1 => any::<u16>().prop_map(|nr| Select::Number(Sysno(nr))),
    ];
    (any::<bool>(), choice, abi()).prop_map(|(negated, select, abi)| {
        bare(Item {
            negated,
            select,
            abi,
        })
    })
}

/// Patterns with wildcards, groups, escapes, and characters that a rule uses itself.
pub(super) fn glob() -> impl Strategy<Value = Glob> {
    let atom = prop_oneof![
        6 => "[a-zA-Z0-9_.-]{1,6}",
        4 => Just("/".to_owned()),
        2 => select(vec!["*", "**", "?", "[a-z]", "[!a]", "{a,b}", "{x,[yz]}", r"\*", r"\\", r"\{"])
            .prop_map(str::to_owned),
        2 => select(vec![",", ")", "(", "@", "->", "+", "=", ";", "\"", "'", " ", "ü", "→", "${x}", "$"])
            .prop_map(str::to_owned),
    ];
    vec(atom, 1..8)
        .prop_map(|atoms| atoms.concat())
        .prop_filter_map("a pattern", |text| {
            let relative = ["~", "./", "../"]
                .iter()
                .any(|start| text.starts_with(start));
            // In canonical text a variable is already replaced; `${` itself is escaped by `\{`.
            if relative || text.contains("${") {
                None
            } else {
                Glob::new(text).ok()
            }
        })
}

fn net() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<u32>(), 0..=32u8)
        .prop_map(|(bits, len)| (IpAddr::V4(Ipv4Addr::from_bits(bits)), len));
    let v6 = (any::<u128>(), 0..=128u8)
        .prop_map(|(bits, len)| (IpAddr::V6(Ipv6Addr::from_bits(bits)), len));
    prop_oneof![v4, v6].prop_filter_map("a network", |(address, len)| {
        IpNet::new(IpNet::masked(address, len), len)
    })
}

fn address() -> impl Strategy<Value = AddressPattern> {
    prop_oneof![
        (net(), option::of(1..=u16::MAX)).prop_map(|(net, port)| AddressPattern::Ip {
            net: Some(net),
            port
        }),
        (1..=u16::MAX).prop_map(|port| AddressPattern::Ip {
            net: None,
            port: Some(port)
        }),
        glob().prop_map(AddressPattern::Unix),
    ]
}

fn comm() -> impl Strategy<Value = Comm> {
    prop_oneof!["[a-z-]{1,15}", "[ -~]{1,15}", "[ü,)\"' @]{1,5}"]
        .prop_filter_map("a name", Comm::new)
}

fn integer() -> impl Strategy<Value = Integer> {
    prop_oneof![
        -100..5000i128,
        any::<u64>().prop_map(i128::from),
        any::<i64>().prop_map(i128::from)
    ]
    .prop_filter_map("fits", Integer::new)
}

fn predicate() -> impl Strategy<Value = Predicate> {
    let ops = vec![
        ArgOp::Equal,
        ArgOp::NotEqual,
        ArgOp::Below,
        ArgOp::AtMost,
        ArgOp::Above,
        ArgOp::AtLeast,
        ArgOp::AnyBit,
    ];
    let flags: Vec<_> = flag_names().collect();
    let value = prop_oneof![
        integer().prop_map(ArgValue::Integer),
        select(flags).prop_map(|name| ArgValue::Flag(name.to_owned())),
    ];
    prop_oneof![
        3 => (select(vec![Side::Any, Side::From, Side::To]), any::<bool>(), glob())
            .prop_map(|(side, negated, glob)| Predicate::Path { side, negated, glob }),
        1 => (any::<bool>(), 0..=i32::MAX)
            .prop_map(|(negated, fd)| Predicate::Fd { negated, fd: fd.unsigned_abs() }),
        2 => (select(vec![SocketEnd::Peer, SocketEnd::Local]), any::<bool>(), address())
            .prop_map(|(end, negated, address)| Predicate::Socket { end, negated, address }),
        2 => (1..=6u64, select(ops), value).prop_map(|(arg, op, value)| Predicate::Arg {
            arg: ArgIndex::new(arg).unwrap(),
            op,
            value,
        }),
        1 => (select(vec![CommOf::Process, CommOf::Thread]), any::<bool>(), comm())
            .prop_map(|(of, negated, comm)| Predicate::Comm { of, negated, comm }),
        1 => (any::<bool>(), glob()).prop_map(|(negated, glob)| Predicate::Exe { negated, glob }),
        1 => (any::<bool>(), any::<u32>()).prop_map(|(negated, uid)| Predicate::Uid { negated, uid }),
    ]
}

fn predicates() -> impl Strategy<Value = Vec<Node<Predicate, ()>>> {
    vec(predicate(), 0..4).prop_map(|preds| {
        let mut distinct: Vec<Predicate> = Vec::new();
        for pred in preds {
            if !distinct.contains(&pred) {
                distinct.push(pred);
            }
        }
        distinct.into_iter().map(bare).collect()
    })
}

fn errno() -> impl Strategy<Value = Errno> {
    (1..=4095u64).prop_filter_map("of a program", |number| Errno::new(number).ok())
}

fn delay() -> impl Strategy<Value = Delay> {
    (duration(), duration()).prop_filter_map("in order", |(a, b)| Delay::new(a.min(b), a.max(b)))
}

fn signal() -> impl Strategy<Value = Signal> {
    (1..=64u64).prop_filter_map("a signal", Signal::new)
}

fn ret() -> impl Strategy<Value = RetValue> {
    (0..=i64::MAX).prop_filter_map("no error", |value| RetValue::new(value.unsigned_abs()))
}

fn wait() -> impl Strategy<Value = Action> {
    prop_oneof![
        delay().prop_map(Action::Delay),
        option::of(duration()).prop_map(Action::Hold),
        Just(Action::Stop),
    ]
}

fn edit() -> impl Strategy<Value = Action> {
    prop_oneof![
        nz64().prop_map(|bytes| Action::Short(Short::Bytes(bytes))),
        percent().prop_map(|percent| Action::Short(Short::Percent(percent))),
        nz32().prop_map(Action::Corrupt),
    ]
}

/// What happens in place of the call.
fn skip() -> impl Strategy<Value = Action> {
    prop_oneof![
        errno().prop_map(Action::Error),
        ret().prop_map(Action::Ret),
        Just(Action::Kill),
    ]
}

/// What happens once the call has run: at most a result, a wait and a signal.
fn after() -> impl Strategy<Value = Vec<Action>> {
    let result = prop_oneof![errno().prop_map(After::Error), ret().prop_map(After::Ret)];
    let wait = prop_oneof![
        delay().prop_map(After::Delay),
        option::of(duration()).prop_map(After::Hold),
    ];
    let signal = signal().prop_map(After::Signal);
    prop_oneof![
        4 => (option::of(result), option::of(wait), option::of(signal)).prop_map(|(r, w, s)| {
            [r, w, s].into_iter().flatten().map(Action::After).collect()
        }),
        1 => Just(vec![Action::After(After::Kill)]),
    ]
}

/// Actions that may happen together, in any order.
fn actions() -> impl Strategy<Value = Vec<Action>> {
    let before = (
        option::of(wait()),
        option::of(signal().prop_map(Action::Signal)),
    );
    let rest = prop_oneof![
        skip().prop_map(|action| vec![action]),
        (option::of(edit()), after())
            .prop_map(|(edit, after)| edit.into_iter().chain(after).collect()),
    ];
    let some = (before, rest)
        .prop_map(|((wait, signal), rest)| {
            wait.into_iter()
                .chain(signal)
                .chain(rest)
                .collect::<Vec<_>>()
        })
        .prop_filter("not empty", |actions| !actions.is_empty())
        .prop_shuffle();
    prop_oneof![1 => Just(vec![Action::Off]), 4 => some]
}

fn step() -> impl Strategy<Value = ChainStep<()>> {
    (option::of(nz32()), actions()).prop_map(|(repeat, actions)| ChainStep {
        repeat: repeat.map(bare),
        actions: actions.into_iter().map(bare).collect(),
    })
}

fn count() -> impl Strategy<Value = Count> {
    (nz64(), option::of(nz64()), nz64()).prop_filter_map("forwards", |(first, last, step)| {
        Count::new(first, last, step)
    })
}

fn conditions() -> impl Strategy<Value = Vec<Node<Condition, ()>>> {
    (
        option::of(count().prop_map(Condition::Count)),
        option::of(percent().prop_map(Condition::Percent)),
        option::of(nz32().prop_map(Condition::Max)),
        option::of(duration().prop_map(Condition::Start)),
        option::of(duration().prop_map(Condition::For)),
        option::of(
            select(vec![Scope::Rule, Scope::Process, Scope::Thread]).prop_map(Condition::Per),
        ),
    )
        .prop_map(|(a, b, c, d, e, f)| {
            [a, b, c, d, e, f]
                .into_iter()
                .flatten()
                .map(bare)
                .collect::<Vec<_>>()
        })
        .prop_shuffle()
}

/// Any rule that can be written.
pub(super) fn rule() -> impl Strategy<Value = Rule<()>> {
    (
        vec(item(), 1..4),
        predicates(),
        vec(step(), 1..4),
        conditions(),
    )
        .prop_map(|(calls, preds, chain, when)| Rule {
            calls,
            preds,
            chain,
            when,
        })
}
