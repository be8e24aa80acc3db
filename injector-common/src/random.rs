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
    /// How long a delay after the call lasts.
    AfterDelay = 4,
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

/// The number between `min` and `max`, both included, that a choice with this hash comes out with: each as
/// likely as the others, but for one part in 2^64 of their number.
#[inline(always)]
pub const fn within(hash: u64, min: u64, max: u64) -> u64 {
    let others = max.saturating_sub(min);
    match others.checked_add(1) {
        Some(number) => min + high(hash, number),
        None => hash,
    }
}

/// The bit, counted from the first byte's lowest, that is the `index`th (from 0) of `bits` that are flipped in so many
/// bytes, which have that many; `choice` is the [`hash`] for [`Purpose::Corrupt`]. Each comes from a part of the data of its own, all
/// parts being as long as each other: so that none is flipped twice, and they come in order.
#[inline(always)]
pub const fn flipped(choice: u64, index: u32, bits: u32, bytes: u64) -> u64 {
    let (index, parts) = (index as u64, bits as u64);
    let total = bytes * 8;
    let first = total * index / parts;
    let next = total * (index + 1) / parts;
    within(mix(choice ^ mix(index)), first, next - 1)
}

/// The upper half of a product. The kernel program has no numbers of 128 bits.
#[inline(always)]
const fn high(a: u64, b: u64) -> u64 {
    const HALF: u64 = 0xffff_ffff;
    let (a_high, a_low) = (a >> 32, a & HALF);
    let (b_high, b_low) = (b >> 32, b & HALF);
    // Or LLVM sees what it is, and asks for a function that multiplies numbers of 128 bits.
    let middle = core::hint::black_box(a_high * b_low + ((a_low * b_low) >> 32));
    let other = a_low * b_high + (middle & HALF);
    a_high * b_high + (middle >> 32) + (other >> 32)
}
