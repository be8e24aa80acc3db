//! Atomic operations on map memory. The BPF target offers none through `core::sync::atomic`, so
//! that they come from intrinsics. Sequential consistency is not a choice: with a relaxed order
//! LLVM emits an addition that does not fetch, and the value it returns is wrong.

use core::intrinsics::{AtomicOrdering, atomic_and, atomic_cxchg, atomic_or, atomic_xadd};

const ORDER: AtomicOrdering = AtomicOrdering::SeqCst;

/// Adds `value` and returns what was there before.
///
/// # Safety
///
/// `word` points into a map's value or another place that the verifier knows to be writable.
#[inline(always)]
pub unsafe fn fetch_add(word: *mut u64, value: u64) -> u64 {
    // SAFETY: the caller's word.
    unsafe { atomic_xadd::<u64, u64, ORDER>(word, value) }
}

/// Adds `value`.
///
/// # Safety
///
/// As for [`fetch_add`].
#[inline(always)]
pub unsafe fn add(word: *mut u64, value: u64) {
    // SAFETY: the caller's word.
    unsafe { atomic_xadd::<u64, u64, ORDER>(word, value) };
}

/// Sets bits and returns what was there before.
///
/// # Safety
///
/// As for [`fetch_add`].
#[inline(always)]
pub unsafe fn fetch_or(word: *mut u64, bits: u64) -> u64 {
    // SAFETY: the caller's word.
    unsafe { atomic_or::<u64, u64, ORDER>(word, bits) }
}

/// Clears all bits but `bits` and returns what was there before.
///
/// # Safety
///
/// As for [`fetch_add`].
#[inline(always)]
pub unsafe fn fetch_and(word: *mut u64, bits: u64) -> u64 {
    // SAFETY: the caller's word.
    unsafe { atomic_and::<u64, u64, ORDER>(word, bits) }
}

/// Stores `new` if the word is `old`; returns what it was.
///
/// # Safety
///
/// As for [`fetch_add`].
#[inline(always)]
pub unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> u64 {
    // SAFETY: the caller's word.
    unsafe { atomic_cxchg::<u64, ORDER, ORDER>(word, old, new).0 }
}
