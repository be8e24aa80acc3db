//! The decision function by examples: tables of rules and the counts on which they fire.

#![expect(
    clippy::unwrap_used,
    clippy::decimal_bitwise_operands,
    reason = "tests"
)]

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use injector_common::limits::{MAX_POSITION, MAX_RETRIES, MAX_STEPS, PID_LIMIT, RING_BYTES};
use injector_common::random::{CERTAIN, Purpose, chance, flipped, hash, within};
use injector_common::rule::{
    ACT_AFTER, ACT_AFTER_DELAY, ACT_AFTER_HOLD, ACT_AFTER_KILL, ACT_AFTER_RESULT, ACT_AFTER_SIGNAL,
    ACT_AFTER_WAITS, ACT_CORRUPT, ACT_DECIDES, ACT_DELAY, ACT_EDITS, ACT_HELD, ACT_HOLD, ACT_KILL,
    ACT_REPLACES, ACT_RESULT, ACT_SHORT, ACT_SIGNAL, ACT_STOP, ACT_WAITS,
};
use injector_common::{
    Call, Counter, Data, Decision, EventKind, Outcome, WireRule, WireStep, advance, decide,
};

#[derive(Default)]
struct Shared {
    count: AtomicU64,
    chain: AtomicU64,
}

impl Counter for Shared {
    fn count_call(&self) -> u64 {
        self.count.fetch_add(1, SeqCst) + 1
    }
    fn load(&self) -> u64 {
        self.chain.load(SeqCst)
    }
    fn compare_exchange(&self, old: u64, new: u64) -> u64 {
        self.chain
            .compare_exchange(old, new, SeqCst, SeqCst)
            .unwrap_or_else(|found| found)
    }
}

const CALL: Call = Call {
    seed: 1,
    ordinal: 0,
    since_armed_ns: 0,
    decided: false,
};
const FIRE: WireStep = WireStep {
    until: WireStep::FOREVER,
    value: -5,
    actions: ACT_RESULT,
    ..WireStep::OFF
};

fn always() -> WireRule {
    let mut rule = WireRule::PASS;
    rule.steps[0] = FIRE;
    rule
}

/// The chain `first * step, second * step ...`, closed by `off`.
fn chain(steps: &[(u64, u32)]) -> WireRule {
    let mut rule = WireRule::PASS;
    let mut until = 0;
    for (index, (repeat, actions)) in steps.iter().enumerate() {
        until += repeat;
        rule.steps[index] = WireStep {
            until,
            actions: *actions,
            ..FIRE
        };
    }
    rule.steps_len = u16::try_from(steps.len() + 1).unwrap();
    rule
}

fn fires(rule: &WireRule, calls: u64) -> Vec<u64> {
    let counter = Shared::default();
    (0..calls)
        .filter_map(|_| match decide(rule, &counter, &CALL, || Data::NONE) {
            Decision::Fire { count, .. } => Some(count),
            _ => None,
        })
        .collect()
}

#[test]
fn counts_select_as_the_language_says() {
    let none = u64::MAX;
    for (what, first, last, step, want) in [
        ("3", 3, 3, 1, vec![3]),
        ("3+", 3, none, 1, vec![3, 4, 5, 6, 7, 8]),
        ("2..4", 2, 4, 1, vec![2, 3, 4]),
        ("2+3", 2, none, 3, vec![2, 5, 8]),
        ("1..7+3", 1, 7, 3, vec![1, 4, 7]),
        ("every one", 1, none, 1, vec![1, 2, 3, 4, 5, 6, 7, 8]),
    ] {
        let rule = WireRule {
            first,
            last,
            step,
            ..always()
        };
        assert_eq!(fires(&rule, 8), want, "@{what}");
    }
}

#[test]
fn a_chain_advances_by_selected_calls_only() {
    let rule = WireRule {
        first: 2,
        step: 2,
        ..chain(&[(1, 0), (2, ACT_RESULT)])
    };
    assert_eq!(fires(&rule, 12), [4, 6]);
}

#[test]
fn max_bounds_firings_not_calls() {
    let rule = WireRule {
        max: 2,
        first: 3,
        ..always()
    };
    assert_eq!(fires(&rule, 10), [3, 4]);
    let rule = WireRule {
        max: 2,
        ..chain(&[(3, 0), (9, ACT_RESULT)])
    };
    assert_eq!(fires(&rule, 10), [4, 5], "off takes nothing off max");
}

#[test]
fn a_shadowed_result_moves_neither_chain_nor_max() {
    let rule = WireRule { max: 1, ..always() };
    let counter = Shared::default();
    let shadowed = Call {
        decided: true,
        ..CALL
    };
    assert_eq!(
        decide(&rule, &counter, &shadowed, || Data::NONE),
        Decision::Shadowed { count: 1 }
    );
    assert!(matches!(
        decide(&rule, &counter, &CALL, || Data::NONE),
        Decision::Fire { count: 2, .. }
    ));
    assert_eq!(
        decide(&rule, &counter, &CALL, || Data::NONE),
        Decision::Exhausted { count: 3 }
    );
}

#[test]
fn a_signal_is_not_shadowed() {
    let mut rule = always();
    rule.steps[0].actions = ACT_SIGNAL;
    let shadowed = Call {
        decided: true,
        ..CALL
    };
    assert!(matches!(
        decide(&rule, &Shared::default(), &shadowed, || Data::NONE),
        Decision::Fire { count: 1, .. }
    ));
}

fn data(bytes: u64, unit: u64) -> Data {
    Data {
        bytes,
        can_be_cut: 1,
        unit,
    }
}

fn changing(actions: u32, edit: u32) -> WireRule {
    let mut rule = WireRule {
        edits: 1,
        ..always()
    };
    rule.steps[0] = WireStep {
        actions,
        edit,
        ..FIRE
    };
    rule
}

#[test]
fn lengths_are_cut_to_what_is_said_and_at_least_a_unit_is_left() {
    let share = |percent: u32| WireStep::SHARE + percent * (CERTAIN / 100);
    for (edit, asked, unit, kept) in [
        (5, 10, 1, 5),
        (5, 5, 1, 5),
        (5, 4, 1, 5),
        (share(50), 10, 1, 5),
        (share(50), 5, 1, 2),
        (share(50), 1, 1, 1),
        (share(1), 10, 1, 1),
        (share(100), 10, 1, 10),
        (5000, 8192, Data::BLOCK, 4096),
        (1, 8192, Data::BLOCK, 4096),
        (share(75), 16_384, Data::BLOCK, 12_288),
        (share(1), Data::MOST, 1, Data::MOST / 100),
    ] {
        let step = changing(ACT_SHORT, edit).steps[0];
        assert_eq!(step.kept(&data(asked, unit)), kept, "{edit} of {asked}");
    }
}

#[test]
fn a_length_is_asked_for_as_the_kernel_takes_it() {
    for (asked, bytes) in [
        (0, 0),
        (7, 7),
        (Data::MOST, Data::MOST),
        (Data::MOST + 1, Data::MOST),
        (i64::MAX as u64, Data::MOST),
        (1 << 63, 0),
        (u64::MAX, 0),
    ] {
        assert_eq!(Data::asked(asked), bytes, "{asked:#x}");
    }
}

/// Neither a chain nor `max:` moves for a call of which nothing can be changed.
#[test]
fn what_has_nothing_to_change_does_not_fire() {
    let uncut = Data {
        can_be_cut: 0,
        ..data(10, 1)
    };
    let short = changing(ACT_SHORT, 5);
    let corrupt = changing(ACT_CORRUPT, 1);
    for (rule, data, fires) in [
        (short, data(6, 1), true),
        (short, data(5, 1), false),
        (short, data(0, 1), false),
        (short, uncut, false),
        (corrupt, uncut, true),
        (corrupt, data(0, 1), false),
    ] {
        for rule in [rule, WireRule { max: 1, ..rule }] {
            let counter = Shared::default();
            let decision = decide(&rule, &counter, &CALL, || data);
            let want = u64::from(fires);
            assert_eq!(
                counter.chain.load(SeqCst),
                u64::from(rule.max) * (want << 32 | want)
            );
            if fires {
                assert!(
                    matches!(decision, Decision::Fire { count: 1, .. }),
                    "{data:?}"
                );
            } else {
                assert_eq!(decision, Decision::Dataless { count: 1 }, "{data:?}");
            }
        }
    }
    let unasked = || panic!("a rule that changes nothing asks for no data");
    assert!(matches!(
        decide(&always(), &Shared::default(), &CALL, unasked),
        Decision::Fire { .. }
    ));
    let later = WireRule { first: 2, ..short };
    let unasked = || panic!("nor does one that does not select the call");
    let decision = decide(&later, &Shared::default(), &CALL, unasked);
    assert_eq!(decision, Decision::NotSelected { count: 1 });
}

#[test]
fn flipped_bits_lie_in_the_data_in_order_and_each_once() {
    for (bits, bytes) in [(1, 1), (8, 1), (3, 1), (64, 8), (64, 1000), (7, Data::MOST)] {
        for choice in [0, 1, u64::MAX, hash(1, 2, 3, 4, Purpose::Corrupt)] {
            let flips: Vec<_> = (0..bits)
                .map(|index| flipped(choice, index, bits, bytes))
                .collect();
            assert!(flips.windows(2).all(|pair| pair[0] < pair[1]), "{flips:?}");
            assert!(flips.iter().all(|bit| *bit < 8 * bytes), "{flips:?}");
        }
    }
    let chosen: std::collections::BTreeSet<_> =
        (0..200).map(|choice| flipped(choice, 0, 1, 4)).collect();
    assert_eq!(chosen.len(), 32, "every bit has its turn");
}

#[test]
fn a_window_is_open_from_its_start_to_before_its_end() {
    let rule = WireRule {
        start_ns: 10,
        end_ns: 20,
        ..always()
    };
    for (since_armed_ns, want) in [(0, false), (9, false), (10, true), (19, true), (20, false)] {
        let call = Call {
            since_armed_ns,
            ..CALL
        };
        let fired = matches!(
            decide(&rule, &Shared::default(), &call, || Data::NONE),
            Decision::Fire { .. }
        );
        assert_eq!(fired, want, "{since_armed_ns}");
    }
}

#[test]
fn the_last_step_of_a_full_chain_holds_for_ever() {
    let mut rule = WireRule {
        steps_len: u16::try_from(MAX_STEPS).unwrap(),
        ..WireRule::PASS
    };
    for index in 0..MAX_STEPS - 1 {
        rule.steps[index] = WireStep {
            until: index as u64 + 1,
            ..WireStep::OFF
        };
    }
    rule.steps[MAX_STEPS - 1] = FIRE;
    assert_eq!(fires(&rule, MAX_STEPS as u64 + 2), [16, 17, 18]);
    assert_eq!(rule.steps[rule.step_at(u64::from(MAX_POSITION))], FIRE);
}

#[test]
fn position_and_firings_stop_at_their_ends() {
    let rule = always();
    let end = u64::from(MAX_POSITION);
    let (outcome, next) = advance(&rule, false, &Data::NONE, end << 32 | end);
    assert_eq!(
        (outcome, next),
        (Outcome::Fire, end << 32 | end),
        "neither half overflows"
    );
    let (_, next) = advance(&rule, false, &Data::NONE, (end - 1) << 32 | (end - 1));
    assert_eq!(next, end << 32 | end);
}

#[test]
fn losing_every_race_is_told() {
    struct Loser;
    impl Counter for Loser {
        fn count_call(&self) -> u64 {
            1
        }
        fn load(&self) -> u64 {
            0
        }
        fn compare_exchange(&self, old: u64, _new: u64) -> u64 {
            old ^ 1 << 32
        }
    }
    const { assert!(MAX_RETRIES > 0) };
    let rule = chain(&[(9, ACT_RESULT)]);
    assert_eq!(
        decide(&rule, &Loser, &CALL, || Data::NONE),
        Decision::Contended { count: 1 }
    );
}

#[test]
fn threads_share_a_chain_without_losing_or_repeating_a_step() {
    let rule = chain(&[(5_000, 0), (1_000, ACT_RESULT)]);
    let counter = Shared::default();
    let fired: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    (0..1_000)
                        .filter(|_| {
                            matches!(
                                decide(&rule, &counter, &CALL, || Data::NONE),
                                Decision::Fire { .. }
                            )
                        })
                        .count() as u64
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(fired, 1_000);
    assert_eq!(counter.chain.load(SeqCst), 8_000 << 32 | 1_000);
}

#[test]
fn probabilities_come_out_as_often_as_they_say() {
    for (probability, low, high) in [
        (CERTAIN / 2, 49_000, 51_000),
        (CERTAIN / 100, 900, 1_100),
        (1, 0, 4),
    ] {
        let rule = WireRule {
            probability,
            ..always()
        };
        let fired = fires(&rule, 100_000).len();
        assert!((low..=high).contains(&fired), "{probability}: {fired}");
    }
    assert_eq!(
        fires(
            &WireRule {
                probability: CERTAIN,
                ..always()
            },
            9
        )
        .len(),
        9
    );
}

#[test]
fn every_input_of_a_choice_matters() {
    let base = hash(1, 2, 3, 4, Purpose::Fire);
    for other in [
        hash(2, 2, 3, 4, Purpose::Fire),
        hash(1, 3, 3, 4, Purpose::Fire),
        hash(1, 2, 4, 4, Purpose::Fire),
        hash(1, 2, 3, 5, Purpose::Fire),
        hash(1, 2, 3, 4, Purpose::Delay),
        hash(1, 2, 3, 4, Purpose::Corrupt),
    ] {
        assert_ne!(other, base);
    }
}

#[test]
fn state_and_time_are_asked_for_only_where_a_rule_needs_them() {
    let plain = always();
    assert!(!plain.has_state() && !plain.has_window());
    assert!(WireRule { max: 1, ..plain }.has_state());
    assert!(chain(&[(1, ACT_RESULT)]).has_state());
    let mut one_step = plain;
    one_step.steps[0].until = 1;
    assert!(one_step.has_state());
    let two_steps = WireRule {
        steps_len: 2,
        ..plain
    };
    assert!(two_steps.has_state());
    assert!(
        WireRule {
            start_ns: 1,
            ..plain
        }
        .has_window()
    );
    assert!(WireRule { end_ns: 1, ..plain }.has_window());
}

#[test]
fn kinds_of_records_are_known_by_their_numbers() {
    for kind in [
        EventKind::Fired,
        EventKind::Started,
        EventKind::Exited,
        EventKind::Execed,
    ] {
        assert_eq!(EventKind::from_wire(kind as u32), Some(kind));
    }
    assert_eq!(EventKind::from_wire(0), None);
    assert_eq!(EventKind::from_wire(5), None);
}

/// What the kernel program and the user side must agree on, and what the kernel fixes.
#[test]
fn numbers_on_the_wire_are_these() {
    assert_eq!(
        (ACT_RESULT, ACT_KILL, ACT_SIGNAL, ACT_DELAY, ACT_HOLD),
        (1, 2, 4, 8, 16)
    );
    let after = [
        ACT_AFTER_RESULT,
        ACT_AFTER_KILL,
        ACT_AFTER_SIGNAL,
        ACT_AFTER_DELAY,
        ACT_AFTER_HOLD,
    ];
    assert_eq!(after, [256, 512, 1024, 2048, 4096]);
    assert_eq!(
        (
            ACT_DECIDES,
            ACT_REPLACES,
            ACT_WAITS,
            ACT_AFTER_WAITS,
            ACT_AFTER
        ),
        (0x303, 3, 0x98, 0x1800, 0x1f00)
    );
    assert_eq!(
        (ACT_SHORT, ACT_CORRUPT, ACT_EDITS, ACT_STOP),
        (32, 64, 96, 128)
    );
    assert_eq!(ACT_HELD, ACT_WAITS | ACT_EDITS | ACT_AFTER);
    assert_eq!((WireStep::SHARE, Data::MOST), (1 << 31, 0x7fff_f000));
    assert_eq!(MAX_POSITION, 0xffff_fffe);
    assert_eq!(RING_BYTES, 2_097_152);
    assert_eq!(PID_LIMIT, 4_194_304);
    assert_eq!(size_of::<injector_common::Shared>() % 128, 0);
    let calls = core::mem::offset_of!(injector_common::Shared, calls);
    let kinds = core::mem::offset_of!(injector_common::Shared, kinds);
    let targets = core::mem::offset_of!(injector_common::Shared, targets);
    let marks = core::mem::offset_of!(injector_common::Shared, marks);
    let beginning = core::mem::offset_of!(injector_common::Shared, beginning);
    let globs = core::mem::offset_of!(injector_common::Shared, globs);
    assert_eq!(
        beginning - marks,
        4096 * 360,
        "a mark for each of 4096 threads"
    );
    assert_eq!(kinds - calls, 8 * 1024, "two ABIs of 512 numbers");
    assert_eq!(targets - kinds, 4 * 1024, "the same, four bytes each");
    assert_eq!(
        size_of::<injector_common::Shared>() - globs,
        64 * 4 * 1344,
        "four patterns a rule"
    );
    for bits in [marks - targets, globs - beginning] {
        assert_eq!(bits, 4_194_304 / 8, "a bit a process id");
    }
}

/// Other backends and later versions must draw the same: a run is repeated from its seed.
#[test]
fn choices_are_those_of_the_first_version() {
    assert_eq!(hash(0, 0, 0, 0, Purpose::Fire), FIRST);
    assert_eq!(
        hash(u64::MAX, 0x0123_4567_89ab_cdef, 7, 11, Purpose::Corrupt),
        SECOND
    );
    assert!(chance(0, 1) && !chance(u64::MAX, CERTAIN - 1));
}

/// The upper half of a product of 128 bits, by which the kernel program has to do without.
#[test]
fn lengths_lie_within_their_bounds_each_as_likely() {
    for (hash, min, max, expected) in [
        (0, 7, 7, 7),
        (u64::MAX, 7, 7, 7),
        (0, 10, 19, 10),
        (u64::MAX, 10, 19, 19),
        (1 << 63, 10, 19, 15),
        (u64::MAX / 10 + 1, 10, 19, 11),
        (5, 0, u64::MAX, 5),
        (u64::MAX, 1, u64::MAX, u64::MAX),
        (
            0xdead_beef_cafe_f00d,
            0,
            0x0123_4567_89ab_cdee,
            0x00fd_5bde_eeb2_a05a,
        ),
    ] {
        assert_eq!(within(hash, min, max), expected, "{hash:#x} {min} {max}");
        let number = u128::from(max - min) + 1;
        let long = u128::from(min) + ((u128::from(hash) * number) >> 64);
        assert_eq!(
            u128::from(within(hash, min, max)),
            long,
            "{hash:#x} {min} {max}"
        );
    }
}

const FIRST: u64 = 16_321_491_304_643_971_414;
const SECOND: u64 = 5_561_169_548_734_957_463;
