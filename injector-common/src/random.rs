//! Random choices without state: each is a hash of the seed and of what is being decided, so that a
//! run repeats from its seed whatever the order in which threads arrive. The mixing function is the
//! finaliser of `SplitMix64` (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
//! OOPSLA 2014).

/// What a random choice is for. Choices for different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Whether a call is selected (`P%`).
    Fire = 1,
    /// How long a delay lasts.
    Delay = 2,
    /// Which bits are flipped.
    Corrupt = 3,
}

/// One probability in steps of 0.0001 %: 1 000 000 is always.
pub const CERTAIN: u32 = 1_000_000;

#[inline(always)]
const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The hash of a choice: `seed` of the run, `key` of the rule, `ordinal` of the scope (0 for
/// `per:rule`), `count` of the call within the scope.
#[inline(always)]
pub const fn hash(seed: u64, key: u64, ordinal: u64, count: u64, purpose: Purpose) -> u64 {
    let word = mix(seed ^ purpose as u64);
    let word = mix(word ^ key);
    let word = mix(word ^ ordinal);
    mix(word ^ count)
}

/// Whether a choice with this hash comes out with `probability` (of [`CERTAIN`]).
#[inline(always)]
pub const fn chance(hash: u64, probability: u32) -> bool {
    ((hash >> 32) * CERTAIN as u64) >> 32 < probability as u64
}
