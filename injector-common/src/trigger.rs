//! Which counts a rule selects: the pure part of `when`. Position in the chain and `max:` need what
//! happened before and are in [`mod@crate::decide`].

use crate::random::{CERTAIN, Purpose, chance, hash};
use crate::rule::WireRule;

/// Whether the count (from 1, within its scope) is one of `first..last+step`.
#[inline(always)]
pub const fn in_sequence(rule: &WireRule, count: u64) -> bool {
    if count < rule.first || count > rule.last {
        return false;
    }
    // The verifier's target divides by zero into zero; the user side would panic.
    rule.step <= 1 || (count - rule.first).is_multiple_of(rule.step)
}

/// Whether `since_armed_ns` lies within `start:` and `for:`.
#[inline(always)]
pub const fn in_window(rule: &WireRule, since_armed_ns: u64) -> bool {
    since_armed_ns >= rule.start_ns && since_armed_ns < rule.end_ns
}

/// Whether the draw for this count comes out.
#[inline(always)]
pub const fn drawn(rule: &WireRule, seed: u64, ordinal: u64, count: u64) -> bool {
    rule.probability >= CERTAIN
        || chance(
            hash(seed, rule.key, ordinal, count, Purpose::Fire),
            rule.probability,
        )
}
