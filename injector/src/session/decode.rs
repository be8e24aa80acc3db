//! From the kernel program's record to the history's: numbers get their names.

use injector_common::event::{Event, EventKind};
use injector_common::rule::{ACT_KILL, ACT_RESULT, ACT_SIGNAL};

use crate::history::{CallRecord, Kind, Record};
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
            record.call = Some(call(event));
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

fn call(event: &Event) -> CallRecord {
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
        value: (event.actions & ACT_RESULT != 0).then_some(event.value),
    }
}

/// What was done, as a rule would say it.
fn action(event: &Event) -> String {
    let mut actions = Vec::new();
    if event.actions & ACT_SIGNAL != 0 {
        let signal = Signal::new(u64::from(event.signal));
        let signal = signal.map_or_else(|| event.signal.to_string(), |signal| signal.to_string());
        actions.push(format!("signal:{signal}"));
    }
    if event.actions & ACT_RESULT != 0 {
        let errno = u64::try_from(-event.value)
            .ok()
            .and_then(|number| Errno::new(number).ok());
        actions.push(errno.map_or_else(|| format!("ret:{}", event.value), |e| e.to_string()));
    }
    if event.actions & ACT_KILL != 0 {
        actions.push("kill".into());
    }
    actions.join("+")
}
