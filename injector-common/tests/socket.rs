//! What rules ask of the ends of sockets.

use injector_common::limits::MAX_SOCKET_TESTS;
use injector_common::socket::{
    FAMILY_NONE, FAMILY_OTHER, FAMILY_UNIX, FAMILY_V4, FAMILY_V6, SOCKET_IS, SOCKET_IS_NOT,
};
use injector_common::{
    AddressKind, ArgKinds, DataKind, Endpoint, SocketSide, WirePathTest, WireRule, WireSocketTest,
    is_about_sockets,
};

const fn v4(address: u32, port: u32) -> Endpoint {
    Endpoint {
        address: [0, Endpoint::mapped(address)],
        port,
        family: FAMILY_V4,
    }
}

const fn v6(address: [u64; 2], port: u32) -> Endpoint {
    Endpoint {
        address,
        port,
        family: FAMILY_V6,
    }
}

const fn test(address: [u64; 2], mask: [u64; 2], port: u32, family: u32) -> WireSocketTest {
    WireSocketTest {
        address,
        mask,
        port,
        family,
        side: SocketSide::Peer as u32,
        op: SOCKET_IS,
    }
}

#[test]
fn addresses_are_compared_under_their_masks() {
    const ALL: u64 = u64::MAX;
    const SEVEN: u32 = 0x0a00_0007;
    let whole = test([0, Endpoint::mapped(SEVEN)], [ALL, ALL], 0, FAMILY_NONE);
    let net = test(
        [0, Endpoint::mapped(0x0a00_0000)],
        [ALL, ALL << 24],
        80,
        FAMILY_NONE,
    );
    let six = test([0x2001_0db8 << 32, 0], [ALL << 32, 0], 0, FAMILY_V6);
    let port = test([0; 2], [0; 2], 443, FAMILY_NONE);
    let name = test([0; 2], [0; 2], 0, FAMILY_UNIX);
    let mapped = v6([0, 0xffff_0a00_0007], 80);
    let unix = Endpoint {
        family: FAMILY_UNIX,
        ..Endpoint::NONE
    };
    let other = Endpoint {
        family: FAMILY_OTHER,
        ..Endpoint::NONE
    };
    for (test, end, is_met) in [
        (whole, v4(SEVEN, 1), true),
        (whole, v4(SEVEN + 1, 1), false),
        (whole, mapped, true),
        (whole, v6([1, 0xffff_0a00_0007], 80), false),
        // Both halves differ, and in the same bit.
        (whole, v6([1, 0xffff_0a00_0006], 80), false),
        (net, v4(SEVEN, 80), true),
        (net, v4(SEVEN, 81), false),
        (net, v4(0x0b00_0007, 80), false),
        (net, mapped, true),
        (six, v6([0x2001_0db8_0000_0001, 5], 1), true),
        (six, v6([0x2001_0db9_0000_0001, 5], 1), false),
        (
            six,
            Endpoint {
                family: FAMILY_V4,
                ..v6([0x2001_0db8 << 32, 0], 1)
            },
            false,
        ),
        (port, v4(SEVEN, 443), true),
        (port, v6([1, 2], 443), true),
        (port, v4(SEVEN, 80), false),
        (port, unix, false),
        (port, other, false),
        (whole, unix, false),
        (name, unix, true),
        (name, v4(SEVEN, 1), false),
        (name, other, false),
    ] {
        assert_eq!(test.is_met(&end), is_met, "{test:?} {end:?}");
    }
    assert_eq!(Endpoint::mapped(0x7f00_0001), 0xffff_7f00_0001);
    assert!(name.is_unix() && !whole.is_unix() && !six.is_unix());
    assert!(!WireSocketTest { op: 0, ..name }.is_unix());
}

#[test]
fn all_of_a_rules_tests_have_to_hold() {
    let mut rule = WireRule::PASS;
    assert!(!rule.has_sockets() && !rule.looks_at_args());
    assert!(is_about_sockets(&rule, |_| None), "nothing is asked");
    for (op, found, holds) in [
        (SOCKET_IS, Some(true), true),
        (SOCKET_IS, Some(false), false),
        (SOCKET_IS, None, false),
        (SOCKET_IS_NOT, Some(false), true),
        (SOCKET_IS_NOT, Some(true), false),
        (SOCKET_IS_NOT, None, false),
    ] {
        rule.sockets[0] = WireSocketTest {
            op,
            ..test([0; 2], [0; 2], 1, FAMILY_NONE)
        };
        assert!(rule.has_sockets() && rule.looks_at_args());
        assert_eq!(is_about_sockets(&rule, |_| found), holds, "{op} {found:?}");
    }
    rule.sockets = [test([0; 2], [0; 2], 1, FAMILY_NONE); MAX_SOCKET_TESTS];
    for fails in 0..=MAX_SOCKET_TESTS {
        let mut asked = 0;
        let holds = is_about_sockets(&rule, |_| {
            asked += 1;
            Some(asked != fails + 1)
        });
        assert_eq!(holds, fails == MAX_SOCKET_TESTS);
        assert_eq!(asked, (fails + 1).min(MAX_SOCKET_TESTS));
    }
}

#[test]
fn patterns_of_names_stand_behind_those_of_files() {
    let mut rule = WireRule::PASS;
    assert_eq!((rule.path_tests(), rule.globs()), (0, 0));
    rule.paths[0] = WirePathTest { side: 0, op: 1 };
    rule.paths[1] = WirePathTest { side: 0, op: 2 };
    rule.sockets[0] = test([0; 2], [0; 2], 1, FAMILY_NONE);
    assert_eq!((rule.path_tests(), rule.globs()), (2, 2));
    assert!(rule.looks_at_args());
    rule.sockets[1] = test([0; 2], [0; 2], 0, FAMILY_UNIX);
    assert_eq!((rule.path_tests(), rule.globs()), (2, 3));
}

#[test]
fn calls_say_which_argument_is_an_address() {
    for kind in [
        AddressKind::None,
        AddressKind::PeerInSecond,
        AddressKind::OwnInSecond,
        AddressKind::PeerInFifth,
    ] {
        let kinds = ArgKinds::NONE
            .with(1, 32, true)
            .with_descriptor(1)
            .with_data(DataKind::Message, true)
            .with_address(kind);
        assert_eq!((kinds.address(), kinds.descriptor()), (kind, 1));
        assert!(kinds.sends() && kinds.data() == DataKind::Message && kinds.bits(0) == 32);
    }
    assert_eq!(ArgKinds::NONE.descriptor(), 0);
    assert_eq!(ArgKinds::NONE.with_descriptor(6).descriptor(), 6);
}
