//! One entry program takes another's place while calls go on: every call is decided by exactly one of the two, in
//! whichever order they run, and however the change falls between them.

use injector_common::{Shift, Turn};

/// The way from the first program to the second.
fn way(first: u32) -> [u64; 4] {
    let [about_to, just_has, has] = Turn::way(1, 2, first);
    [Turn::Of(1), about_to, just_has, has].map(Turn::word)
}

/// What the program does with a call: see `has_turn` of the kernel program.
fn decides(turn: u64, program: u32, shift: &mut Shift, call: u64) -> bool {
    turn == Turn::Of(program).word()
        || turn & 1 != 0 && shift.decides(turn, program, 7 << 32 | 9, call)
}

/// Where on the way a call's two programs find it: both at the same place, or the second one step further, as it is while
/// every step waits for what ran before it; last, the first program is gone.
const PLACES: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Call {
    place: usize,
    processor: usize,
    number: u64,
}

/// Which programs decide a call.
fn who(order: [u32; 2], call: Call, shifts: &mut [Shift; 2], override_ends: bool) -> Vec<u32> {
    let way = way(order[0]);
    let shift = &mut shifts[call.processor];
    if call.place == PLACES - 1 {
        let decided = decides(way[3], 2, shift, call.number);
        return decided.then_some(2).into_iter().collect();
    }
    let turns = [way[call.place / 2], way[call.place.div_ceil(2)]];
    let mut deciding = Vec::new();
    for (program, turn) in order.into_iter().zip(turns) {
        // The kernel runs no other handler behind one that has changed the program counter.
        if override_ends && !deciding.is_empty() {
            break;
        }
        if decides(turn, program, shift, call.number) {
            deciding.push(program);
        }
    }
    deciding
}

/// All ways of so many calls, each not before the last one's place.
fn histories(length: usize, from: usize, so_far: &mut Vec<Call>, seen: &mut impl FnMut(&[Call])) {
    if so_far.len() == length {
        return seen(so_far);
    }
    for place in from..PLACES {
        for variant in 0..4 {
            let (processor, number) = (variant & 1, variant as u64 >> 1);
            so_far.push(Call {
                place,
                processor,
                number,
            });
            histories(length, place, so_far, seen);
            so_far.pop();
        }
    }
}

#[test]
fn exactly_one_program_decides_each_call() {
    let mut number = 0;
    histories(4, 0, &mut Vec::new(), &mut |calls| {
        for order in [[1, 2], [2, 1]] {
            for override_ends in [false, true] {
                // On one processor there is what an earlier change has left, for the same caller and call.
                let earlier = Shift {
                    caller: 7 << 32 | 9,
                    call: 1 << 33,
                    decides: u64::from(override_ends),
                };
                let mut shifts = [Shift::NONE, earlier];
                for call in calls {
                    let deciding = who(order, *call, &mut shifts, override_ends);
                    assert_eq!(deciding.len(), 1, "{call:?} of {calls:?}, {order:?}");
                }
                number += 1;
            }
        }
    });
    assert_eq!(number, 330 * 256 * 4);
}

/// Without what they tell each other, a call in the middle of the change would be decided twice, or by nobody.
#[test]
fn the_turn_alone_does_not_do() {
    let by_turn = |order: [u32; 2]| {
        let turns = [way(order[0])[1], way(order[0])[2]];
        let decide = order.into_iter().zip(turns);
        decide
            .filter(|(program, turn)| (turn >> 2) as u32 == *program)
            .count()
    };
    assert_eq!([by_turn([1, 2]), by_turn([2, 1])], [2, 0]);
}

#[test]
fn turns_are_words_of_their_own() {
    let mut words = vec![];
    for program in [1, 2, 3] {
        words.push(Turn::Of(program).word());
        for first in [program, 9] {
            for successor in [program, program + 1] {
                let to = program;
                let turn = Turn::Changing {
                    to,
                    first,
                    successor,
                };
                words.push(turn.word());
            }
        }
    }
    let mut distinct = words.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), words.len());
    assert!(
        !words.contains(&0),
        "a program that was not told its number has no turn"
    );
}

/// Only what the first program has left for this very call, in this very change, is taken for its word.
#[test]
fn what_was_left_for_another_call_is_nothing() {
    let [_, just_has, _] = Turn::way(1, 2, 1);
    let left = |caller, call| Shift {
        caller,
        call,
        decides: 1,
    };
    let (caller, call) = (7 << 32 | 9, 1 << 32 | 0x4a);
    let own = call | 2 << 33;
    for (left, decides) in [
        // The first one has it.
        (left(caller, own), false),
        (left(caller + 1, own), true),
        (left(caller, own + 1), true),
        (left(caller, call | 1 << 33), true),
        (left(caller, 2 << 33), true),
        (Shift::NONE, true),
    ] {
        let mut shift = left;
        let has_it = shift.decides(just_has.word(), 2, caller, call);
        assert_eq!(has_it, decides, "{left:?}");
    }
    let mut shift = Shift::NONE;
    assert!(!shift.decides(just_has.word(), 1, caller, call));
    assert_eq!((shift.caller, shift.call, shift.decides), (caller, own, 0));
}
