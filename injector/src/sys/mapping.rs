//! Shared memory mapped from a map's descriptor, seen as 64-bit and 32-bit atomics at byte offsets:
//! the other side is a kernel program, so that nothing but atomics is sound.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::SysError;
use super::wire::{Wire, bytes_of};

/// Mapped memory; unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is reached through atomics only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes of an mmapable array map, readable and writable.
    pub fn new(fd: BorrowedFd<'_>, length: usize) -> Result<Self, SysError> {
        Self::map(libc::MAP_SHARED, fd.as_raw_fd(), length)
    }

    /// `length` bytes of zeros, shared with the processes that are forked after it.
    pub fn anonymous(length: usize) -> Result<Self, SysError> {
        Self::map(libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, length)
    }

    fn map(flags: i32, fd: i32, length: usize) -> Result<Self, SysError> {
        let page = 4096;
        let length = length.div_ceil(page) * page;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping, at an address of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, fd, 0) };
        match NonNull::new(base.cast::<u8>()) {
            Some(base) if base.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { base, length }),
            _ => Err(SysError::last("mmap")),
        }
    }

    /// The 64-bit word at a byte offset; [`None`] outside of the mapping or off alignment.
    pub fn word(&self, offset: usize) -> Option<&AtomicU64> {
        if !offset.is_multiple_of(8) || offset.checked_add(8)? > self.length {
            return None;
        }
        // SAFETY: within the mapping, aligned (the base is a page's), alive as long as `self`.
        Some(unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) })
    }

    /// The 32-bit word at a byte offset; [`None`] outside of the mapping or off alignment.
    pub fn half(&self, offset: usize) -> Option<&AtomicU32> {
        if !offset.is_multiple_of(4) || offset.checked_add(4)? > self.length {
            return None;
        }
        // SAFETY: as above.
        Some(unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast()) })
    }
}

impl Mapping {
    /// The address of a byte, for structures of the kernel's; the caller keeps to what it asked for.
    pub(super) fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset < self.length, "outside of the mapping");
        // SAFETY: within the mapping.
        unsafe { self.base.as_ptr().add(offset % self.length) }
    }

    /// Copies a value to a byte offset, 32 bits at a time; what would not fit is left out. Who reads it meanwhile may
    /// find some of it: an atomic written after it tells when it is whole.
    pub fn write<T: Wire>(&self, offset: usize, value: &T) {
        const { assert!(size_of::<T>().is_multiple_of(4)) };
        let (halves, _) = bytes_of(value).as_chunks::<4>();
        for (at, half) in (offset..).step_by(4).zip(halves) {
            let place = self.half(at);
            debug_assert!(place.is_some(), "a value outside of the mapping");
            if let Some(place) = place {
                place.store(u32::from_ne_bytes(*half), Relaxed);
            }
        }
    }

    /// The value at a byte offset, as whole as whoever reads it knows it to be; what lies outside is zeros.
    pub fn read<T: Wire>(&self, offset: usize) -> T {
        const { assert!(size_of::<T>().is_multiple_of(4)) };
        let mut value = MaybeUninit::<T>::uninit();
        let halves = value.as_mut_ptr().cast::<u32>();
        for (index, at) in (offset..).step_by(4).take(size_of::<T>() / 4).enumerate() {
            let half = self.half(at).map_or(0, |half| half.load(Relaxed));
            // SAFETY: within the value, which is a multiple of as many bytes.
            unsafe { halves.add(index).write_unaligned(half) };
        }
        // SAFETY: every byte of it was written, each of which may be anything.
        unsafe { value.assume_init() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; references into it borrow `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}
