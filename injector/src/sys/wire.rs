//! Values that cross to the kernel program, or to another process of finject's, as their bytes.

use injector_common::{ArgKinds, Event, Mark, ScopeCell, ScopeKey, Target, WireGlob, WireRule};

/// A value that may be copied as its bytes.
///
/// # Safety
///
/// `repr(C)`, no padding, no pointers, every bit pattern valid.
pub unsafe trait Wire: Copy {}
// SAFETY: asserted in injector-common: sizes without padding, integers only.
unsafe impl Wire for WireRule {}
// SAFETY: as above.
unsafe impl Wire for WireGlob {}
// SAFETY: as above.
unsafe impl Wire for Target {}
// SAFETY: as above.
unsafe impl Wire for ScopeKey {}
// SAFETY: as above.
unsafe impl Wire for ScopeCell {}
// SAFETY: as above.
unsafe impl Wire for Event {}
// SAFETY: as above.
unsafe impl Wire for Mark {}
// SAFETY: one integer.
unsafe impl Wire for ArgKinds {}
// SAFETY: integers.
unsafe impl Wire for u32 {}
// SAFETY: integers.
unsafe impl Wire for u64 {}

/// A value's bytes.
pub(crate) fn bytes_of<T: Wire>(value: &T) -> &[u8] {
    // SAFETY: no padding, and as many bytes as the value has.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// The value of these bytes; [`None`] where the size is another.
pub(crate) fn value_of<T: Wire>(bytes: &[u8]) -> Option<T> {
    // SAFETY: as many bytes as the value has, each of which may be anything; alignment is not needed.
    (bytes.len() == size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
