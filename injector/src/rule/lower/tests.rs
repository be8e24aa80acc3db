//! What rules come to on the wire.

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
