//! Shared memory mapped from a map's descriptor, seen as 64-bit and 32-bit atomics at byte offsets:
//! the other side is a kernel program, so that nothing but atomics is sound.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::SysError;
use super::bpf::Wire;

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

    /// Copies a value to a byte offset; nothing happens where it would not fit. The exclusive
    /// reference and the caller's word that no program is attached yet keep others away.
    pub fn write<T: Wire>(&mut self, offset: usize, value: &T) {
        let fits = offset
            .checked_add(size_of::<T>())
            .is_some_and(|end| end <= self.length);
        debug_assert!(fits, "a value outside of the mapping");
        if fits {
            // SAFETY: within the mapping; plain bytes.
            unsafe {
                self.base
                    .as_ptr()
                    .add(offset)
                    .cast::<T>()
                    .write_unaligned(*value);
            }
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; references into it borrow `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}
