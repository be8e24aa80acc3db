//! The process that looks after the tracer: a tracer that hangs would hold every target's threads for
//! ever, while the death of one lets them go on. It outlives finject, and ends with the tracer.

use std::time::Duration;

use super::pulse::{Phase, Pulse};
use crate::sys::helper::Helper;
use crate::target::process::{Proc, Tgid};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Looks without a sign of life after which the tracer is asked to go on: somebody may have stopped
/// it.
const STOPPED: u32 = 5;
/// Looks without a sign of life after which it is killed, unless it only lacks a processor: on a machine
/// with much to do its death would be that of a launched command.
const HUNG: u32 = 10;
/// Looks after which it is killed all the same.
const LOST: u32 = 100;

/// Looks after the tracer until it ends.
pub(super) fn keep(tracer: &Helper, pulse: &Pulse) {
    let mut last = pulse.beats();
    let mut silent = 0;
    let (proc, id) = (Proc::default(), Tgid(tracer.pid()));
    while !tracer.has_ended() {
        tracer.wait_for(LOOK);
        let beats = pulse.beats();
        if beats != last || pulse.phase() == Phase::Starting {
            (last, silent) = (beats, 0);
            continue;
        }
        silent += 1;
        if silent == STOPPED {
            tracer.signal(libc::SIGCONT);
        } else if silent >= LOST || silent >= HUNG && !proc.wants_processor(id) {
            tracer.signal(libc::SIGKILL);
        }
    }
}
