//! What rules ask of who calls.

use injector_common::caller::{CALLER_IS, CALLER_IS_NOT};
use injector_common::limits::MAX_CALLER_TESTS;
use injector_common::{CallerFact, CallerFacts, WireCallerTest, WireRule, is_called_by};

fn padded(name: &[u8], padding: u8) -> [u8; 16] {
    let mut bytes = [padding; 16];
    bytes[..name.len()].copy_from_slice(name);
    if name.len() < 16 {
        bytes[name.len()] = 0;
    }
    bytes
}

/// Some kernels leave what a longer name has left behind the end.
#[test]
fn a_name_ends_at_its_end() {
    for length in 0..=15 {
        for byte in [1, 0x7f, 0x80, 0xff] {
            let name = vec![byte; length];
            let clean = CallerFacts::name_of(&padded(&name, 0));
            let expected = u128::from_le_bytes(padded(&name, 0));
            assert_eq!(clean, [expected as u64, (expected >> 64) as u64]);
            for padding in [1, 0x80, 0xff] {
                assert_eq!(
                    CallerFacts::name_of(&padded(&name, padding)),
                    clean,
                    "{length} {byte}"
                );
            }
        }
    }
    assert_ne!(
        CallerFacts::name_of(&padded(b"eight-by", 0)),
        CallerFacts::name_of(&padded(b"eight-by-more", 0))
    );
}

#[test]
fn a_caller_is_who_all_tests_say() {
    let name = |name: &[u8]| CallerFacts::name_of(&padded(name, 0));
    let caller = CallerFacts::of(name(b"server"), name(b"worker"), CallerFacts::uid(7));
    let test = |fact: CallerFact, op, value| WireCallerTest {
        value,
        fact: fact as u32,
        op,
    };
    let comm = |op, value: &[u8]| test(CallerFact::Comm, op, name(value));
    let thread = |op, value: &[u8]| test(CallerFact::Thread, op, name(value));
    let uid = |op, value| test(CallerFact::Uid, op, CallerFacts::uid(value));
    let is_by = |rule: &WireRule| is_called_by(rule, |test| test.holds(caller.fact(test.fact)));
    for (test, holds) in [
        (comm(CALLER_IS, b"server"), true),
        (comm(CALLER_IS, b"worker"), false),
        (comm(CALLER_IS, b"serve"), false),
        (comm(CALLER_IS_NOT, b"server"), false),
        (comm(CALLER_IS_NOT, b"worker"), true),
        (thread(CALLER_IS, b"worker"), true),
        (thread(CALLER_IS, b"server"), false),
        (uid(CALLER_IS, 7), true),
        (uid(CALLER_IS, 8), false),
        (uid(CALLER_IS_NOT, 8), true),
        (uid(CALLER_IS_NOT, 7), false),
    ] {
        assert_eq!(test.holds(caller.fact(test.fact)), holds, "{test:?}");
        // Wherever it stands, and whatever holds beside it.
        for at in 0..MAX_CALLER_TESTS {
            let mut rule = WireRule::PASS;
            assert!(!rule.has_callers() && is_by(&rule));
            for place in 0..=at {
                rule.callers[place] = uid(CALLER_IS, 7);
            }
            assert!(rule.has_callers() && is_by(&rule));
            rule.callers[at] = test;
            assert_eq!(is_by(&rule), holds, "{at}: {test:?}");
        }
    }
    let nobody = CallerFacts::of(name(b"server"), name(b"server"), CallerFacts::NO_UID);
    assert!(!uid(CALLER_IS, u32::MAX).holds(nobody.fact(CallerFact::Uid as u32)));
    assert!(uid(CALLER_IS_NOT, u32::MAX).holds(nobody.fact(CallerFact::Uid as u32)));
}
