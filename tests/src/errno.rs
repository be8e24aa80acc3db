//! Numbers of errors and signals, as programs see them (include/uapi/asm-generic/errno-base.h).

/// Interrupted system call.
pub const EINTR: i32 = 4;
/// Input/output error.
pub const EIO: i32 = 5;
/// No space left on device.
pub const ENOSPC: i32 = 28;
/// The signal that cannot be handled.
pub const SIGKILL: i32 = 9;
