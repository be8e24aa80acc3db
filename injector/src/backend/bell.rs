//! Wakes a process of finject's that waits with poll(2): whoever has one end rings, and whoever has the
//! other hears it. A fork shares both.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use crate::sys::SysError;
use crate::sys::helper::pipe_without_waits;

/// The bell.
#[derive(Debug)]
pub(super) struct Bell {
    ear: File,
    rope: File,
}

impl Bell {
    /// Nobody has rung yet.
    pub(super) fn new() -> Result<Self, SysError> {
        let (ear, rope) = pipe_without_waits()?;
        Ok(Self {
            ear: ear.into(),
            rope: rope.into(),
        })
    }

    /// The descriptors that a process has to keep.
    pub(super) fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.ear.as_fd(), self.rope.as_fd()]
    }

    /// Becomes readable when somebody rings.
    pub(super) fn ear(&self) -> BorrowedFd<'_> {
        self.ear.as_fd()
    }

    /// Rings. One that is full has been rung.
    pub(super) fn ring(&self) {
        let _ = (&self.rope).write(&[0]);
    }

    /// Forgets that it was rung.
    pub(super) fn heard(&self) {
        let _ = (&self.ear).read(&mut [0; 64]);
    }
}
