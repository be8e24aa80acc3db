//! The sign of life. A thread renews the lease; the kernel program injects only while it is valid.
//! A finject that is stopped, or whose main loop no longer gets anywhere, renews nothing, and its
//! faults end by themselves. Once lapsed the rules stay off.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use injector_common::limits::RENEW_NS;

use crate::backend::Leased;
use crate::rule::lower::nanoseconds;
use crate::sys::SysError;
use crate::sys::process::run_first;
use crate::sys::time::monotonic_ns;

/// How long the main loop may take for one turn (a slow terminal, a slow disk under `--events`)
/// before it counts as hung.
const TURN_NS: u64 = 10_000_000_000;

/// How long the lease holds while finject is stopped together with its command.
const SUSPENDED_NS: u64 = 3_600_000_000_000;

/// The renewing thread; ends on drop.
#[derive(Debug)]
pub struct Heartbeat {
    shared: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    ended: AtomicBool,
    lapsed: AtomicBool,
    last_turn_ns: AtomicU64,
    /// What one renewal is good for.
    lease_ns: u64,
    /// Held while the lease is renewed.
    beating: Mutex<()>,
}

impl Heartbeat {
    /// Starts renewing, each time for `lease` from then on.
    pub fn start(leased: Arc<dyn Leased>, lease: Duration) -> Result<Self, SysError> {
        let shared = Arc::new(State {
            lease_ns: nanoseconds(lease),
            ..State::default()
        });
        shared.last_turn_ns.store(monotonic_ns(), Relaxed);
        let state = Arc::clone(&shared);
        let beating = move || {
            // However much there is to do: a lease that lapses ends all faults. Without the privilege it has
            // its turn as others.
            let _ = run_first();
            while !state.ended.load(Acquire) && beat(&*leased, &state, monotonic_ns) {
                std::thread::park_timeout(Duration::from_nanos(RENEW_NS));
            }
        };
        let thread = std::thread::Builder::new().spawn(beating);
        Ok(Self {
            shared,
            thread: Some(thread.map_err(|source| SysError {
                call: "clone",
                source,
            })?),
        })
    }

    /// The main loop got round once more.
    pub fn turn(&self) {
        self.shared.last_turn_ns.store(monotonic_ns(), Relaxed);
    }

    /// The main loop does something that may take so long, nanoseconds: it does not count as hung before.
    pub fn takes(&self, ns: u64) {
        let until = monotonic_ns() + ns;
        self.shared.last_turn_ns.store(until, Relaxed);
    }

    /// Runs something that may take long without a sign of life (finject is stopped together with
    /// its command), during which the lease holds for an hour.
    pub fn suspended(&self, leased: &dyn Leased, stop: impl FnOnce()) {
        let _beating = self
            .shared
            .beating
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        leased.renew(monotonic_ns() + SUSPENDED_NS);
        stop();
        let now = monotonic_ns();
        leased.renew(now + self.shared.lease_ns);
        self.shared.last_turn_ns.store(now, Relaxed);
    }

    /// Whether the lease lapsed.
    pub fn has_lapsed(&self) -> bool {
        self.shared.lapsed.load(Acquire)
    }
}

/// One renewal; false once the lease has lapsed. The new end is counted from a time read before, so
/// that a process which is stopped in between renews nothing.
fn beat(leased: &dyn Leased, state: &State, clock: impl FnOnce() -> u64) -> bool {
    let _beating = state.beating.lock().unwrap_or_else(PoisonError::into_inner);
    let now = clock();
    if now > leased.lease() {
        state.lapsed.store(true, Release);
        leased.switch_off();
        return false;
    }
    if now.saturating_sub(state.last_turn_ns.load(Relaxed)) <= TURN_NS {
        leased.renew(now + state.lease_ns);
    }
    true
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.shared.ended.store(true, Release);
        if let Some(thread) = self.thread.take() {
            Thread::unpark(thread.thread());
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Fake {
        lease: AtomicU64,
        off: AtomicBool,
    }

    impl Leased for Fake {
        fn lease(&self) -> u64 {
            self.lease.load(Relaxed)
        }
        fn renew(&self, until_ns: u64) {
            self.lease.store(until_ns, Relaxed);
        }
        fn switch_off(&self) {
            self.off.store(true, Relaxed);
        }
    }

    #[test]
    fn a_lease_is_renewed_while_the_main_loop_turns() {
        let state = State {
            lease_ns: 7 * RENEW_NS,
            ..State::default()
        };
        let fake = Fake::default();
        fake.renew(RENEW_NS);
        assert!(beat(&fake, &state, || RENEW_NS));
        assert_eq!(fake.lease(), RENEW_NS + 7 * RENEW_NS);
    }

    #[test]
    fn a_hung_main_loop_lets_the_lease_lapse() {
        let (fake, state) = (Fake::default(), State::default());
        let now = TURN_NS + 1;
        fake.renew(now + 5);
        assert!(beat(&fake, &state, || now));
        assert_eq!(fake.lease(), now + 5, "not renewed");
    }

    #[test]
    fn a_lapsed_lease_stays_lapsed() {
        let (fake, state) = (Fake::default(), State::default());
        fake.renew(100);
        assert!(!beat(&fake, &state, || 101));
        assert!(state.lapsed.load(Relaxed) && fake.off.load(Relaxed));
        assert_eq!(fake.lease(), 100, "never renewed again");
    }
}
