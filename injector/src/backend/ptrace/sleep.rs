//! Calls that sleep, and that the kernel ends with EINTR when a tracer stops the thread: epoll_wait(2),
//! semtimedop(2), sockets with a timeout and their like, which signal(7) lists as never restarted. The
//! tracer makes them again, and ends them when their own time is over.

use injector_common::mark::MARK_SIGNAL;

use super::owed::Deadline;
use crate::sys::process::{TimeoutOf, on_processor, read_memory, socket_timeout};
use crate::sys::ptrace::{Entry, Registers};
use crate::sys::time::monotonic_ns;
use crate::target::process::{Proc, Tgid};

/// `-EINTR`.
pub(super) const INTERRUPTED: i64 = -4;
/// The results of calls that the kernel makes again by itself where no handler runs: from
/// `ERESTART_RESTARTBLOCK`, which it goes on with as restart_syscall(2), to `ERESTARTSYS`
/// (include/linux/errno.h).
pub(super) const RESTARTS: i64 = -516;
pub(super) const RESTARTS_LAST: i64 = -512;

const AGAIN: i64 = -11;
const IN_PROGRESS: i64 = -115;

/// Signals that do nothing where no handler was asked for (signal(7)).
const IGNORED_BY_DEFAULT: [i32; 4] = [libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGCONT];

/// A thread that sleeps, before it is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sleep {
    /// Since when.
    since_ns: u64,
    /// When that was looked at last.
    seen_ns: u64,
    /// How often it had gone to sleep by then.
    sleeps: Option<u64>,
    /// When the call is over in which it slept already under another tracer, which had it made again.
    owed: Option<Deadline>,
}

/// How often a thread went to sleep so far, stops included (proc_pid_status(5)).
fn sleeps(tid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let mut lines = status.lines();
    let number = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    number.trim().parse().ok()
}

/// The number of milliseconds, with six places behind the point, after a name in /proc/PID/sched.
fn field_ns(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    let (whole, part) = line.rsplit_once(':')?.1.trim().split_once('.')?;
    let part: u64 = part.get(..6)?.parse().ok()?;
    Some(whole.parse::<u64>().ok()? * 1_000_000 + part)
}

fn last_ran_ns(path: &str) -> Option<u64> {
    field_ns(&std::fs::read_to_string(path).ok()?, "se.exec_start")
}

/// Whether a thread sleeps in a call (proc_pid_syscall(5)).
fn is_in_call(tid: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{tid}/syscall"));
    text.is_ok_and(|text| text.starts_with(|first: char| first.is_ascii_digit()))
}

/// How long a thread has slept. The scheduler's clocks of two processors differ, by what interrupts
/// and the hypervisor took of each (kernel/sched/core.c, `update_rq_clock_task`), so that its own is
/// asked for the time.
fn slept_ns(tid: u32) -> Option<u64> {
    let thread = Proc::default().process(Tgid(tid))?;
    if thread.state != 'S' {
        return None;
    }
    on_processor(thread.processor, || {
        let its = last_ran_ns(&format!("/proc/{tid}/sched"))?;
        Some(last_ran_ns("/proc/thread-self/sched")?.saturating_sub(its))
    })?
}

impl Sleep {
    /// Since when a thread sleeps, as the scheduler last saw it run; from now on where the kernel does
    /// not tell (CONFIG_SCHED_DEBUG).
    pub(super) fn of(tid: u32) -> Self {
        let sleeps = sleeps(tid);
        let slept = slept_ns(tid).unwrap_or(0);
        // After it, so that a wait is never taken for older than it is.
        let now = monotonic_ns();
        Self {
            since_ns: now.saturating_sub(slept),
            seen_ns: now,
            sleeps,
            owed: None,
        }
    }

    /// The same of a thread that is asked to stop right after this. One that woke meanwhile may be entering
    /// its next call, which would then end before it sleeps and be taken for this one, whose time is over.
    pub(super) fn still(self, tid: u32) -> Self {
        let sleeps = self.sleeps.filter(|_| is_in_call(tid));
        Self {
            seen_ns: monotonic_ns(),
            sleeps,
            ..self
        }
    }

    /// The same of a thread that another tracer owed a deadline, of which it told until `until_ns`: it is
    /// this sleep's where that began before both.
    pub(super) fn owing(self, deadline: Option<Deadline>, until_ns: u64) -> Self {
        let owed = deadline.filter(|(at, _)| self.since_ns < until_ns.min(*at));
        Self { owed, ..self }
    }

    /// One that began with a call, at that time; now where it was not seen (0).
    pub(super) fn since(entered_ns: u64) -> Self {
        let since_ns = if entered_ns == 0 {
            monotonic_ns()
        } else {
            entered_ns
        };
        Self {
            since_ns,
            seen_ns: since_ns,
            sleeps: None,
            owed: None,
        }
    }

    /// When the call in which it slept is over by itself, and what that gives; [`None`] for never.
    pub(super) fn deadline(self, tgid: u32, tid: u32, registers: &Registers) -> Option<Deadline> {
        let (span_ns, value) = timeout(tgid, tid, registers)?;
        // It may have woken in between, and gone to sleep again. The stop is one sleep itself.
        let is_same = self
            .sleeps
            .is_some_and(|number| sleeps(tid) == Some(number + 1));
        if is_same && self.owed.is_some() {
            return self.owed;
        }
        let since_ns = if is_same { self.since_ns } else { self.seen_ns };
        Some((since_ns.saturating_add(span_ns), value))
    }
}

/// A time span of the thread's, of two words of 64 bits or of 32; [`None`] for a null pointer.
fn timespec_ns(tid: u32, address: u64, is_narrow: bool) -> Option<u64> {
    if address == 0 {
        return None;
    }
    let mut bytes = [0; 16];
    let [seconds, nanos] = if is_narrow {
        read_memory(tid, address, bytes.first_chunk_mut::<8>()?).ok()?;
        let (words, _) = bytes.as_chunks::<4>();
        [words[0], words[1]].map(|word| u32::from_ne_bytes(word).into())
    } else {
        read_memory(tid, address, &mut bytes).ok()?;
        let (words, _) = bytes.as_chunks::<8>();
        [words[0], words[1]].map(u64::from_ne_bytes)
    };
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// The native number of a call of the 32-bit ABI that may have a timeout, by which its arguments stand in the
/// same order (arch/x86/entry/syscalls/syscall_32.tbl).
const COMPAT: [(i64, i64); 16] = [
    (3, libc::SYS_read),
    (4, libc::SYS_write),
    (145, libc::SYS_readv),
    (146, libc::SYS_writev),
    (RT_SIGTIMEDWAIT_I386, libc::SYS_rt_sigtimedwait),
    (256, libc::SYS_epoll_wait),
    (319, libc::SYS_epoll_pwait),
    (362, libc::SYS_connect),
    (364, libc::SYS_accept4),
    (369, libc::SYS_sendto),
    (370, libc::SYS_sendmsg),
    (371, libc::SYS_recvfrom),
    (372, libc::SYS_recvmsg),
    (420, libc::SYS_semtimedop),
    (421, libc::SYS_rt_sigtimedwait),
    (441, libc::SYS_epoll_pwait2),
];

/// The one of them whose time span is of 32-bit words.
const RT_SIGTIMEDWAIT_I386: i64 = 177;

/// ipc(2) of the 32-bit ABI, by which its C library may call semtimedop(2): `SEMTIMEDOP` of
/// include/uapi/linux/ipc.h in the low half of its first argument, the time span's address in its last.
const IPC: i64 = 117;

fn is_semtimedop_by_ipc(nr: i64, args: &[u64; 6]) -> bool {
    const SEMTIMEDOP: u64 = 4;
    nr == IPC && args[0] & 0xffff == SEMTIMEDOP
}

/// socketcall(2) of the 32-bit ABI, by which its C library may call those of sockets: the call by its number of
/// include/uapi/linux/net.h is the first argument, the address of its own arguments the second.
const SOCKETCALL: i64 = 102;

fn socketcall(nr: i64, args: &[u64; 6]) -> Option<i64> {
    let native = match (nr, args[0]) {
        (SOCKETCALL, 3) => libc::SYS_connect,
        (SOCKETCALL, 5) => libc::SYS_accept,
        (SOCKETCALL, 9 | 11) => libc::SYS_sendto,
        (SOCKETCALL, 10 | 12) => libc::SYS_recvfrom,
        (SOCKETCALL, 16) => libc::SYS_sendmsg,
        (SOCKETCALL, 17) => libc::SYS_recvmsg,
        (SOCKETCALL, 18) => libc::SYS_accept4,
        _ => return None,
    };
    Some(native)
}

/// The native number of a call, where it is one of these.
fn native(nr: i64, compat: bool) -> Option<i64> {
    if !compat {
        return Some(nr);
    }
    let found = COMPAT.iter().find(|(narrow, _)| *narrow == nr);
    found.map(|(_, native)| *native)
}

/// The time that a call was given, and what it gives once that is over.
fn timeout(tgid: u32, tid: u32, registers: &Registers) -> Option<(u64, i64)> {
    let compat = !registers.is_native();
    let args = registers.args();
    if compat && is_semtimedop_by_ipc(registers.nr(), &args) {
        return Some((timespec_ns(tid, args[5], true)?, AGAIN));
    }
    let (nr, args) = match socketcall(registers.nr(), &args) {
        Some(nr) if compat => {
            let mut socket = [0; 4];
            read_memory(tid, args[1], &mut socket).ok()?;
            (nr, [u32::from_ne_bytes(socket).into(), 0, 0, 0, 0, 0])
        }
        _ => (native(registers.nr(), compat)?, args),
    };
    let is_narrow = compat && registers.nr() == RT_SIGTIMEDWAIT_I386;
    let socket = |of| -> Option<u64> {
        let span = socket_timeout(tgid, args[0] as i32, of).ok()??;
        u64::try_from(span.as_nanos()).ok()
    };
    let milliseconds = |arg: u64| u64::try_from(arg as i32).ok().map(|ms| ms * 1_000_000);
    match nr {
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait => Some((milliseconds(args[3])?, 0)),
        libc::SYS_epoll_pwait2 => Some((timespec_ns(tid, args[3], is_narrow)?, 0)),
        libc::SYS_io_getevents => Some((timespec_ns(tid, args[4], is_narrow)?, 0)),
        libc::SYS_semtimedop => Some((timespec_ns(tid, args[3], is_narrow)?, AGAIN)),
        libc::SYS_rt_sigtimedwait => Some((timespec_ns(tid, args[2], is_narrow)?, AGAIN)),
        libc::SYS_accept
        | libc::SYS_accept4
        | libc::SYS_read
        | libc::SYS_readv
        | libc::SYS_recvfrom
        | libc::SYS_recvmsg => Some((socket(TimeoutOf::Receiving)?, AGAIN)),
        libc::SYS_write | libc::SYS_writev | libc::SYS_sendto | libc::SYS_sendmsg => {
            Some((socket(TimeoutOf::Sending)?, AGAIN))
        }
        libc::SYS_connect => Some((socket(TimeoutOf::Sending)?, IN_PROGRESS)),
        _ => None,
    }
}

/// Whether a call is close(2), of either ABI.
pub(super) fn is_close(registers: &Registers) -> bool {
    const SYS_CLOSE_I386: i64 = 6;
    let close = if registers.is_native() {
        libc::SYS_close
    } else {
        SYS_CLOSE_I386
    };
    registers.nr() == close
}

/// Whether a call at its entry is one that the kernel may end with EINTR for a signal without a handler.
pub(super) fn is_prone(entry: &Entry) -> bool {
    let nr = i64::try_from(entry.nr).ok();
    nr.and_then(|nr| native(nr, entry.compat))
        .is_some_and(|nr| {
            matches!(
                nr,
                libc::SYS_epoll_wait
                    | libc::SYS_epoll_pwait
                    | libc::SYS_epoll_pwait2
                    | libc::SYS_io_getevents
                    | libc::SYS_semop
                    | libc::SYS_semtimedop
                    | libc::SYS_rt_sigtimedwait
                    | libc::SYS_accept
                    | libc::SYS_accept4
                    | libc::SYS_recvfrom
                    | libc::SYS_recvmsg
                    | libc::SYS_sendto
                    | libc::SYS_sendmsg
                    | libc::SYS_connect
            )
        })
}

/// What a thread does with signals (proc_pid_status(5)).
struct Signals {
    status: String,
}

impl Signals {
    fn of(tid: u32) -> Self {
        Self {
            status: std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default(),
        }
    }

    fn set(&self, name: &str) -> u64 {
        let line = self.status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .unwrap_or(0)
    }

    /// Those that it would get now.
    fn pending(&self) -> u64 {
        (self.set("SigPnd:") | self.set("ShdPnd:")) & !self.set("SigBlk:")
    }

    /// Those that do nothing to it.
    fn idle(&self) -> u64 {
        let by_default = IGNORED_BY_DEFAULT
            .iter()
            .fold(0, |set, signal| set | bit(*signal));
        self.set("SigIgn:") | by_default & !self.set("SigCgt:")
    }
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1).clamp(0, 63)
}

/// Whether a call with this result, which the kernel would make again, gives EINTR where a handler runs:
/// `ERESTARTNOHAND` and `ERESTART_RESTARTBLOCK` (arch/x86/kernel/signal.c, `handle_signal`).
pub(super) fn ends_for_a_handler(result: i64) -> bool {
    const NO_HANDLER: i64 = -514;
    result == NO_HANDLER || result == RESTARTS
}

/// Whether a signal is about to be delivered to a thread.
pub(super) fn is_pending(tid: u32, signal: i32) -> bool {
    Signals::of(tid).pending() & bit(signal) != 0
}

/// Whether a handler of the thread's runs for a signal.
pub(super) fn is_caught(tid: u32, signal: i32) -> bool {
    Signals::of(tid).set("SigCgt:") & bit(signal) != 0
}

/// Whether a signal ends the thread's call whether it is traced or not: `signal`, which is about to be
/// delivered, or one that is pending, but for the kernel program's where that is `is_late`.
pub(super) fn is_handled(tid: u32, signal: Option<i32>, is_late: bool) -> bool {
    let signals = Signals::of(tid);
    let ours = if is_late { bit(MARK_SIGNAL as i32) } else { 0 };
    let coming = signal.map_or_else(|| signals.pending() & !ours, bit);
    coming & !signals.idle() != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheduler_tells_when_a_thread_last_ran() {
        let text = "cat (1, #threads: 1)\n---\nse.exec_start                                :     \
                    12345.678901\nse.vruntime : 3.0\n";
        assert_eq!(field_ns(text, "se.exec_start"), Some(12_345_678_901));
        assert_eq!(field_ns("", "se.exec_start"), None);
        assert_eq!(field_ns("se.exec_start : 12", "se.exec_start"), None);
    }

    #[test]
    fn a_sleep_that_began_after_a_deadline_is_another() {
        let sleep = Sleep::since(100);
        for (at, until, is_its) in [
            (200, 150, true),
            (200, 100, false),
            (100, 150, false),
            (50, 150, false),
        ] {
            let owed = sleep.owing(Some((at, 0)), until).owed;
            assert_eq!(owed.is_some(), is_its, "{at} {until}");
        }
    }

    #[test]
    fn only_signals_that_do_nothing_leave_a_call_as_it_was() {
        let own = std::process::id();
        assert!(!is_handled(own, Some(libc::SIGWINCH), false));
        assert!(is_handled(own, Some(libc::SIGTERM), false));
        // Rust's runtime ignores it.
        assert!(!is_handled(own, Some(libc::SIGPIPE), false));
    }
}
