//! What Rust's runtime changes before `main`: it ignores SIGPIPE, and opens standard streams that are
//! closed. A command that finject launches is to find them as they were, so that they are looked at
//! first.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// Bits 0 to 2: the standard stream was closed. Bit 3: SIGPIPE was ignored.
static FOUND: AtomicU32 = AtomicU32::new(0);
const SIGPIPE_IGNORED: u32 = 1 << 3;

extern "C" fn look() {
    let mut found = 0;
    // SAFETY: plain system calls, before anything else of the program runs; zeros are a valid
    // sigaction to be written over.
    unsafe {
        for fd in 0..3 {
            if libc::fcntl(fd, libc::F_GETFD) < 0 {
                found |= 1 << fd;
            }
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
        {
            found |= SIGPIPE_IGNORED;
        }
    }
    FOUND.store(found, Relaxed);
}

// SAFETY: a constructor, as the ELF gABI has them: the linker puts its address with the others'.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = look;

/// Whether finject was started with SIGPIPE ignored.
pub(super) fn ignored_sigpipe() -> bool {
    FOUND.load(Relaxed) & SIGPIPE_IGNORED != 0
}

/// The standard streams that finject was started without.
pub(super) fn closed_streams() -> impl Iterator<Item = i32> {
    let found = FOUND.load(Relaxed);
    (0..3).filter(move |fd| found >> fd & 1 != 0)
}
