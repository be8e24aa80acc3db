//! The cases of rules that are about sockets: the ends of a connection, and addresses that calls give.

use super::{Rig, files::ways_under};
use crate::programs;

/// A rule, and which of the ways it makes fail.
fn expect(rig: &Rig, program: &str, rule: &str, ways: &[&str], failing: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let rule = format!("{rule}=EPROTONOSUPPORT");
    let arguments: Vec<&str> = [directory.path().to_str().unwrap()]
        .into_iter()
        .chain(ways.iter().copied())
        .collect();
    let seen = ways_under(rig, program, &rule, &arguments);
    let wanted: Vec<_> = ways
        .iter()
        .map(|way| ((*way).to_owned(), failing.contains(way)))
        .collect();
    assert_eq!(seen, wanted, "{rig:?} {rule}");
}

const CONNECTS: &[&str] = &[
    "connect4",
    "connect6",
    "mapped",
    "connectunix",
    "connectabstract",
];

pub(super) fn a_peer_is_known_by_the_address_that_is_given(rig: &Rig) {
    for (peer, failing) in [
        ("peer=127.0.0.1", &["connect4", "mapped"][..]),
        ("peer=127.0.0.0/8", &["connect4", "mapped"]),
        ("peer=127.0.0.2", &[]),
        ("peer=::1", &["connect6"]),
        ("peer=::/0", &["connect6", "mapped"]),
        (
            "peer!=127.0.0.1",
            &["connect6", "connectunix", "connectabstract"],
        ),
        ("peer=:1", &[]),
        ("peer!=:1", CONNECTS),
        ("addr=127.0.0.1", &[]),
    ] {
        let rule = format!("connect({peer})");
        expect(rig, programs::CALLER, &rule, CONNECTS, failing);
    }
}

pub(super) fn a_peer_may_have_a_name(rig: &Rig) {
    for (peer, failing) in [
        ("peer=unix:name", &["connectunix"][..]),
        ("peer=unix:@name-*", &["connectabstract"]),
        ("peer=unix:**", &["connectunix", "connectabstract"]),
        (
            "peer!=unix:name",
            &["connect4", "connect6", "mapped", "connectabstract"],
        ),
    ] {
        let rule = format!("connect({peer})");
        expect(rig, programs::CALLER, &rule, CONNECTS, failing);
    }
}

pub(super) fn a_peer_is_known_by_the_socket(rig: &Rig) {
    const WAYS: &[&str] = &[
        "send4", "send6", "sendto4", "sendto6", "sendmsg4", "sendmsg6", "sendmsg", "pipe", "loose",
    ];
    for (peer, failing) in [
        (
            "peer=127.0.0.1",
            &["send4", "sendto4", "sendmsg4", "sendmsg"][..],
        ),
        ("peer=::1", &["send6", "sendto6", "sendmsg6"]),
        ("peer!=127.0.0.1", &["send6", "sendto6", "sendmsg6"]),
        ("addr=127.0.0.1", &["send4", "sendmsg"]),
        ("peer=:1", &[]),
    ] {
        let rule = format!("sendto,sendmsg({peer})");
        expect(rig, programs::CALLER, &rule, WAYS, failing);
    }
}

pub(super) fn an_own_address_is_known_where_it_is_given(rig: &Rig) {
    for (address, failing) in [
        ("addr=127.0.0.1", &["bind4"][..]),
        ("addr=10.0.0.0/8", &[]),
        ("addr!=10.0.0.0/8", &["bind4"]),
        ("peer=127.0.0.1", &[]),
    ] {
        let rule = format!("bind({address})");
        expect(rig, programs::CALLER, &rule, &["bind4"], failing);
    }
}
