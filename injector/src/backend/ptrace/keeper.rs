//! The process that looks after the tracer: a tracer that hangs would hold every target's threads for
//! ever, while the death of one lets them go on. It outlives finject, and ends with the tracer.

use std::time::{Duration, Instant};

use super::pulse::{Phase, Pulse};
use super::{PATIENCE, SETTLING};
use crate::sys::helper::Helper;
use crate::sys::process::send_thread_signal;
use crate::sys::time::monotonic_ns;
use crate::target::process::{Proc, Tgid};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// The time without a sign of life after which the tracer is asked to go on: somebody may have stopped
/// it.
const STOPPED_NS: u64 = 500_000_000;
/// After which it is killed, unless it only lacks a processor: on a machine with much to do its death
/// would be that of a launched command.
const HUNG_NS: u64 = 1_000_000_000;
/// After which it is killed all the same.
const LOST_NS: u64 = 10_000_000_000;

/// The most that counts from one look to the next: whoever looks may have been stopped itself.
const GAP_NS: u64 = HUNG_NS;

/// What was seen of a tracer. finject looks itself where somebody has killed the keeper.
#[derive(Debug)]
pub(super) struct Care {
    beats: u32,
    looked_ns: u64,
    /// How long there were no more.
    silent_ns: u64,
    /// It was asked to go on.
    was_asked: bool,
}

impl Care {
    /// From now on.
    pub(super) fn of(pulse: &Pulse) -> Self {
        Self {
            beats: pulse.beats(),
            looked_ns: monotonic_ns(),
            silent_ns: 0,
            was_asked: false,
        }
    }

    /// Looks; a tracer that is silent is asked to go on, and one that hangs is killed.
    pub(super) fn look(&mut self, tracer: &Helper, pulse: &Pulse) {
        let (beats, now_ns) = (pulse.beats(), monotonic_ns());
        let gap_ns = now_ns.saturating_sub(self.looked_ns).min(GAP_NS);
        self.looked_ns = now_ns;
        if beats != self.beats {
            self.beats = beats;
            self.silent_ns = 0;
            self.was_asked = false;
            return;
        }
        self.silent_ns += gap_ns;
        if self.silent_ns < STOPPED_NS {
            return;
        }
        let starves = || Proc::default().wants_processor(Tgid(tracer.pid()));
        if !self.was_asked {
            let found = Proc::default().process(Tgid(tracer.pid()));
            if found.is_some_and(|tracer| tracer.state == 'T') {
                pulse.tell_stopped();
            }
            tracer.signal(libc::SIGCONT);
            self.was_asked = true;
        } else if self.silent_ns >= LOST_NS || self.silent_ns >= HUNG_NS && !starves() {
            tracer.signal(libc::SIGKILL);
        }
    }
}

/// A tracer and its keeper. The keeper ends with the tracer; then nothing of them is left to whoever started
/// finject, whatever somebody has done to the keeper.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) tracer: Helper,
    pub(super) keeper: Helper,
}

impl Kept {
    /// Has the thread that traces look around.
    pub(super) fn wake(&self) {
        let tracer = self.tracer.pid();
        send_thread_signal(tracer, tracer, libc::SIGUSR1 as u32);
    }

    /// Looks after the keeper, which somebody may have stopped, and in the place of one that has ended.
    pub(super) fn look(&self, care: &mut Care, pulse: &Pulse) {
        if self.keeper.has_ended() {
            care.look(&self.tracer, pulse);
        } else {
            self.keeper.signal(libc::SIGCONT);
        }
    }

    /// Waits until all threads are let go, but such as the tracer stays for; ends one that hangs.
    pub(super) fn see_off(&self, pulse: &Pulse) {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if self.tracer.has_ended() || pulse.phase() == Phase::Staying {
                return;
            }
            std::thread::sleep(super::LOOK);
        }
        self.tracer.kill();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.tracer.has_ended() {
            self.keeper.wait_for(SETTLING);
            self.keeper.kill();
        }
    }
}

/// Looks after the tracer until it ends.
pub(super) fn keep(tracer: &Helper, pulse: &Pulse) {
    let mut care = Care::of(pulse);
    while !tracer.has_ended() {
        tracer.wait_for(LOOK);
        care.look(tracer, pulse);
    }
}
