//! The clocks: `CLOCK_MONOTONIC`, which the kernel program's `bpf_ktime_get_ns` reads too, and
//! `CLOCK_REALTIME`; and what wakes at a time.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::SysError;

/// Where an alarm is not heard since its thread was not waiting yet, how long until the next.
const AGAIN_NS: u64 = 500_000;

/// Interrupts what its thread waits for in the kernel, as [`super::signals::Waker`] does, at a time.
#[derive(Debug)]
pub struct Alarm(libc::timer_t);

impl Alarm {
    /// Of the thread that asks, which has a [`super::signals::Waker`].
    pub fn of_this_thread() -> Result<Self, SysError> {
        let mut timer: libc::timer_t = std::ptr::null_mut();
        // SAFETY: an event and a timer of ours; the signal has a handler.
        let made = unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGUSR1;
            event.sigev_notify_thread_id = libc::gettid();
            libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer)
        };
        if made == 0 {
            Ok(Self(timer))
        } else {
            Err(SysError::last("timer_create"))
        }
    }

    /// Rings at that time of `CLOCK_MONOTONIC`, and from then on again and again until it is set anew;
    /// [`None`] for never.
    pub fn set(&self, at_ns: Option<u64>) {
        let timing = timing(at_ns, AGAIN_NS);
        // SAFETY: a timer of ours, and times of ours.
        unsafe {
            libc::timer_settime(
                self.0,
                libc::TIMER_ABSTIME,
                &raw const timing,
                std::ptr::null_mut(),
            )
        };
    }
}

/// From a time on, every so many nanoseconds; [`None`] for never.
fn timing(at_ns: Option<u64>, every_ns: u64) -> libc::itimerspec {
    let span = |ns: u64| libc::timespec {
        tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: (ns % 1_000_000_000) as i64,
    };
    libc::itimerspec {
        it_interval: span(every_ns),
        // Zero is never.
        it_value: span(at_ns.map_or(0, |at_ns| at_ns.max(1))),
    }
}

/// Becomes readable at a time, on which the kernel allows itself no slack, as it does with what poll(2) is given
/// (fs/select.c, `select_estimate_accuracy`).
#[derive(Debug)]
pub struct Timer(OwnedFd);

impl Timer {
    /// Not set.
    pub fn new() -> Result<Self, SysError> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: no pointers; a descriptor that nobody else has.
        unsafe {
            match libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) {
                -1 => Err(SysError::last("timerfd_create")),
                fd => Ok(Self(OwnedFd::from_raw_fd(fd))),
            }
        }
    }

    /// For that time of `CLOCK_MONOTONIC`, [`None`] for never; what was before is forgotten.
    pub fn set(&self, at_ns: Option<u64>) {
        let timing = timing(at_ns, 0);
        // SAFETY: a timer of ours, and times of ours.
        unsafe {
            libc::timerfd_settime(
                self.0.as_raw_fd(),
                libc::TFD_TIMER_ABSTIME,
                &raw const timing,
                std::ptr::null_mut(),
            )
        };
    }

    /// What becomes readable.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: a timer of ours, used no more.
        unsafe { libc::timer_delete(self.0) };
    }
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a timespec of ours. The call fails only for unknown clocks.
    unsafe { libc::clock_gettime(id, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// `CLOCK_MONOTONIC`, nanoseconds.
pub fn monotonic_ns() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// `CLOCK_REALTIME`, nanoseconds since 1970.
pub fn realtime_ns() -> u64 {
    clock(libc::CLOCK_REALTIME)
}
