//! From the kernel program's record to the history's: numbers get their names.

use injector_common::event::{Event, EventKind};
use injector_common::random::{Purpose, flipped, hash};
use injector_common::rule::{
    ACT_AFTER_DELAY, ACT_AFTER_HOLD, ACT_AFTER_KILL, ACT_AFTER_RESULT, ACT_AFTER_SIGNAL,
    ACT_AFTER_WAITS, ACT_CORRUPT, ACT_DELAY, ACT_HOLD, ACT_KILL, ACT_RESULT, ACT_SHORT, ACT_SIGNAL,
    ACT_STOP, ACT_WAITS,
};

use crate::history::{CallRecord, Flip, Kind, Record};
use crate::plan::Plan;
use crate::syscall::{self, Abi, CallId, Errno, Signal, Sysno};

/// Decodes one record. `offset_ns` is `CLOCK_REALTIME` minus `CLOCK_MONOTONIC`.
pub fn record(event: &Event, plan: &Plan, offset_ns: u64) -> Record {
    let status = i32::try_from(event.value).unwrap_or(0);
    let kind = match EventKind::from_wire(event.kind) {
        Some(EventKind::Fired) => Kind::Fired,
        Some(EventKind::Started) => Kind::TargetStarted,
        Some(EventKind::Execed) => Kind::TargetExeced,
        Some(EventKind::Exited) if status & 0x7f != 0 => Kind::TargetKilled,
        Some(EventKind::Exited) => Kind::TargetExited,
        None => Kind::Warning,
    };
    let mut record = Record::new(kind, event.mono_ns, event.mono_ns + offset_ns);
    record.pid = Some(event.tgid);
    record.tid = Some(event.tid);
    // By ptrace an end is seen when the name is gone.
    record.comm = Some(comm(&event.comm)).filter(|comm| !comm.is_empty());
    match kind {
        Kind::Fired => {
            record.rule = plan
                .rules
                .get(event.rule as usize)
                .map(|rule| rule.name.to_string());
            record.count = Some(event.count);
            record.call = Some(call(event, flips(event, plan)));
        }
        // These are about the process whose id stands in `count`.
        Kind::TargetStarted => record.pid = u32::try_from(event.count).ok(),
        // Wait status, wait(2): the low seven bits are the signal, the next byte the exit status.
        Kind::TargetKilled => record.signal = Some(status & 0x7f),
        Kind::TargetExited => record.status = Some(status >> 8 & 0xff),
        _ => {}
    }
    record
}

fn comm(bytes: &[u8; 16]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The bits that were flipped: the same choice once more.
fn flips(event: &Event, plan: &Plan) -> Vec<Flip> {
    let rule = plan.rules.get(event.rule as usize);
    let Some(rule) = rule.filter(|_| has(event, ACT_CORRUPT)) else {
        return Vec::new();
    };
    let (ordinal, count) = (event.ordinal, event.count);
    let choice = hash(plan.seed, rule.key, ordinal, count, Purpose::Corrupt);
    let bits = 0..event.flipped;
    bits.map(|index| flipped(choice, index.into(), event.bits.into(), event.bytes))
        .map(|bit| Flip {
            offset: bit / 8,
            bit: (bit % 8) as u8,
        })
        .collect()
}

fn call(event: &Event, flips: Vec<Flip>) -> CallRecord {
    let abi = if event.abi == 0 {
        Abi::NATIVE
    } else {
        Abi::I386
    };
    let nr = Sysno(u16::try_from(event.nr).unwrap_or(u16::MAX));
    let known = syscall::by_id(CallId { abi, nr });
    let number = known.and_then(|known| known.args()).map_or(6, <[_]>::len);
    CallRecord {
        call: known.map_or_else(|| nr.to_string(), |known| known.name().to_owned()),
        abi: if event.abi == 0 { "64" } else { "32" },
        nr: event.nr,
        args: event
            .args
            .iter()
            .take(number)
            .map(|arg| format!("{arg:#x}"))
            .collect(),
        action: action(event),
        value: has(event, ACT_RESULT | ACT_AFTER_RESULT).then_some(event.value),
        delay_ns: has(event, ACT_WAITS).then_some(event.delay_ns),
        after_delay_ns: has(event, ACT_AFTER_WAITS).then_some(event.after_delay_ns),
        flips,
    }
}

fn has(event: &Event, actions: u32) -> bool {
    event.actions & actions != 0
}

/// What was done, as a rule would say it; how long was waited stands apart.
fn action(event: &Event) -> String {
    let signal = |number: u32| {
        let signal = Signal::new(u64::from(number));
        signal.map_or_else(|| number.to_string(), |signal| signal.to_string())
    };
    let result = || {
        let errno = u64::try_from(-event.value)
            .ok()
            .and_then(|number| Errno::new(number).ok());
        errno.map_or_else(|| format!("ret:{}", event.value), |e| e.to_string())
    };
    let parts = [
        (ACT_DELAY, "delay".into()),
        (ACT_HOLD, "hold".into()),
        (ACT_STOP, "stop".into()),
        (ACT_SIGNAL, format!("signal:{}", signal(event.signal))),
        (ACT_SHORT, format!("short:{}", event.bytes)),
        (ACT_CORRUPT, format!("corrupt:{}", event.flipped)),
        (ACT_RESULT, result()),
        (ACT_KILL, "kill".into()),
        (ACT_AFTER_RESULT, format!("after:{}", result())),
        (ACT_AFTER_KILL, "after:kill".into()),
        (ACT_AFTER_DELAY, "after:delay".into()),
        (ACT_AFTER_HOLD, "after:hold".into()),
        (
            ACT_AFTER_SIGNAL,
            format!("after:signal:{}", signal(event.after_signal)),
        ),
    ];
    let done = parts.into_iter().filter(|(action, _)| has(event, *action));
    done.map(|(_, words): (u32, String)| words)
        .collect::<Vec<_>>()
        .join("+")
}
