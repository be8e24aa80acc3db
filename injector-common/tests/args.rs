//! Tests of arguments against a naive reference in 128-bit numbers, and the cases that people meet.

#![expect(clippy::unwrap_used, reason = "tests")]

use injector_common::args::{
    ARG_DESCRIPTOR, OP_ANY_BIT, OP_EQUAL, OP_GREATER, OP_LESS, OP_NEGATIVE,
};
use injector_common::limits::MAX_TESTS;
use injector_common::{ArgKinds, DataKind, WireRule, WireTest, all_hold};
use proptest::prelude::*;

/// A value as a rule says it, -2^63 to 2^64 - 1.
fn test(arg: u32, op: u32, value: i128) -> WireTest {
    let sign = if value < 0 { OP_NEGATIVE } else { 0 };
    let bits = u64::try_from(value & i128::from(u64::MAX)).unwrap();
    WireTest {
        value: bits,
        arg,
        op: op | sign,
    }
}

/// The number that the low bits of a register are.
fn read(register: u64, bits: u32, signed: bool) -> i128 {
    let low = i128::from(register) & ((1 << bits) - 1);
    if signed && low >> (bits - 1) != 0 {
        low - (1 << bits)
    } else {
        low
    }
}

fn reference(
    test: &WireTest,
    op: u32,
    value: i128,
    bits: u32,
    signed: bool,
    register: u64,
) -> bool {
    let found = read(register, bits, signed);
    let fits = (-(1_i128 << (bits - 1))..1 << bits).contains(&value);
    let wanted = if fits {
        read(test.value, bits, signed)
    } else {
        value
    };
    (op & OP_LESS != 0 && found < wanted)
        || (op & OP_EQUAL != 0 && found == wanted)
        || (op & OP_GREATER != 0 && found > wanted)
        || (op & OP_ANY_BIT != 0 && read(register, bits, false) & i128::from(test.value) != 0)
}

/// Numbers near the edges of every width, of both signs.
fn near_an_edge() -> impl Strategy<Value = i128> {
    let edge = prop_oneof![
        Just(0_i128),
        (0..5_u32).prop_map(|n| 1_i128 << [7, 15, 31, 32, 63][n as usize]),
        Just(1 << 16),
        Just(1 << 64),
    ];
    (edge, -3..=3_i128, any::<bool>())
        .prop_map(|(edge, off, minus)| if minus { -edge + off } else { edge + off })
        .prop_filter("in range", |value| {
            (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(value)
        })
}

proptest! {
    #[test]
    fn arguments_are_compared_at_their_own_width(
        arg in 1..=6_u32,
        op in prop::sample::select(vec![
            OP_LESS, OP_EQUAL, OP_GREATER, OP_ANY_BIT,
            OP_LESS | OP_EQUAL, OP_GREATER | OP_EQUAL, OP_LESS | OP_GREATER,
        ]),
        bits in prop::sample::select(vec![16_u32, 32, 64]),
        signed: bool,
        value in near_an_edge(),
        register in prop_oneof![
            any::<u64>(),
            near_an_edge().prop_map(|n| u64::try_from(n & i128::from(u64::MAX)).unwrap()),
        ],
    ) {
        let wire = test(arg, op, value);
        let mut args = [0x5a5a_5a5a_5a5a_5a5a; 6];
        args[arg as usize - 1] = register;
        let kinds = ArgKinds::NONE.with(arg, bits, signed);
        prop_assert_eq!(
            wire.holds(kinds, &args),
            reference(&wire, op, value, bits, signed, register)
        );
    }
}

#[test]
fn what_people_ask_of_arguments() {
    let openat = ArgKinds::NONE
        .with(1, 32, true)
        .with(2, 64, false)
        .with(3, 32, true);
    let at_fdcwd = [0xffff_ff9c, 0x1000, 0o101, 0, 0, 0];
    for (arg, op, value, holds) in [
        (1, OP_EQUAL, -100, true),
        (1, OP_EQUAL, 0xffff_ff9c, true),
        (1, OP_LESS, 0, true),
        (1, OP_GREATER, 0, false),
        (1, OP_GREATER, -101, true),
        // Beyond an int on either side.
        (1, OP_LESS, 1 << 32, true),
        (1, OP_EQUAL, 0x1_ffff_ff9c, false),
        (1, OP_GREATER, -(1 << 40), true),
        (3, OP_ANY_BIT, 0o100, true),
        (3, OP_ANY_BIT, 0o2000, false),
        (3, OP_ANY_BIT, 0, false),
        // The call has no fourth argument: nothing holds of it.
        (4, OP_EQUAL, 0, false),
        (4, OP_LESS | OP_GREATER, 7, false),
    ] {
        let test = test(arg, op, value);
        assert_eq!(test.holds(openat, &at_fdcwd), holds, "{test:?}");
    }
}

#[test]
fn a_descriptor_is_found_in_its_place() {
    // As mmap: the fifth, declared as a long, of which the kernel takes an int.
    let mmap = ArgKinds::NONE.with(5, 64, false).with_descriptor(5);
    let three = [9, 9, 9, 9, 0xffff_ffff_0000_0003, 9];
    assert!(test(ARG_DESCRIPTOR, OP_EQUAL, 3).holds(mmap, &three));
    assert!(!test(ARG_DESCRIPTOR, OP_LESS | OP_GREATER, 3).holds(mmap, &three));
    assert!(!test(5, OP_EQUAL, 3).holds(mmap, &three));
    let none = ArgKinds::NONE.with(1, 32, false);
    for op in [OP_EQUAL, OP_LESS | OP_GREATER] {
        assert!(!test(ARG_DESCRIPTOR, op, 9).holds(none, &three));
    }
}

#[test]
fn all_tests_must_hold() {
    let kinds = ArgKinds::NONE.with(1, 32, false).with(2, 32, false);
    let args = [5, 7, 0, 0, 0, 0];
    let mut rule = WireRule::PASS;
    assert!(!rule.has_tests());
    assert!(all_hold(&rule, kinds, &args));
    for index in 0..MAX_TESTS {
        rule.tests[index] = test(2, OP_EQUAL, 7);
        assert!(rule.has_tests());
        assert!(all_hold(&rule, kinds, &args), "{index}");
        rule.tests[index] = test(1, OP_EQUAL, 7);
        assert!(!all_hold(&rule, kinds, &args), "{index}");
        rule.tests[index] = test(2, OP_EQUAL, 7);
    }
}

#[test]
fn widths_and_places_of_arguments_are_told() {
    let kinds = ArgKinds::NONE
        .with(1, 16, false)
        .with(2, 32, true)
        .with(3, 64, false)
        .with_descriptor(2);
    let bits: Vec<_> = (0..4).map(|index| kinds.bits(index)).collect();
    assert_eq!(bits, [16, 32, 64, 8], "8 stands for none");
    let signed = ArgKinds::NONE.with(6, 64, true);
    assert_eq!((signed.bits(5), signed.bits(0)), (64, 8));
    let index = |arg| test(arg, OP_EQUAL, 0).index(kinds);
    let found: Vec<_> = [1, 2, 3, 4, 7, ARG_DESCRIPTOR].map(index).to_vec();
    assert_eq!(found, [Some(0), Some(1), Some(2), None, None, Some(1)]);
}

/// An argument is at its value or on one side of it, never both.
#[test]
fn an_argument_that_is_the_value_is_not_below_it() {
    let kinds = ArgKinds::NONE.with(1, 32, false);
    let args = [5, 0, 0, 0, 0, 0];
    for (op, holds) in [(OP_LESS, false), (OP_EQUAL, true), (OP_GREATER, false)] {
        assert_eq!(test(1, op, 5).holds(kinds, &args), holds, "{op}");
    }
}

#[test]
fn how_a_call_describes_its_data_stands_beside_its_arguments() {
    let plain = ArgKinds::NONE.with(1, 32, true).with_descriptor(1);
    assert_eq!((plain.data(), plain.sends()), (DataKind::None, false));
    for kind in [DataKind::Buffer, DataKind::Vector, DataKind::Message] {
        for sends in [false, true] {
            let kinds = plain.with_data(kind, sends);
            assert_eq!((kinds.data(), kinds.sends()), (kind, sends));
            assert_eq!((kinds.bits(0), kinds.bits(1)), (32, 8));
            assert_eq!(test(ARG_DESCRIPTOR, OP_EQUAL, 0).index(kinds), Some(0));
        }
    }
}
