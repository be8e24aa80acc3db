//! What /proc tells of the threads that call, kept for as long as they live: to look it up anew for each call costs more
//! than the call. A descriptor of a thread's name stays that thread's, and can be read no more once it has ended, so
//! that reading the name tells both that what is known still holds, and the name. It is read once a millisecond at
//! most, within which the kernel gives no thread's id to another: it goes through all others first.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use injector_common::CallerFacts;

use super::decider::Caller;
use crate::sys::time::monotonic_ns;
use crate::target::process::{Proc, Tgid};
use crate::target::users::Users;

/// Threads that are known at most: each is a descriptor, of which a process has 1024 where nobody says otherwise.
const MOST: usize = 512;
/// Bytes of a thread's name, its end included (include/linux/sched.h, `TASK_COMM_LEN`).
const NAME: usize = 16;

/// How long a name is taken to hold, nanoseconds.
const LASTS_NS: u64 = 1_000_000;

/// A thread that was seen.
#[derive(Debug)]
struct Known {
    comm: File,
    caller: Caller,
    name: [u8; NAME],
    /// When the name was read, `CLOCK_MONOTONIC` nanoseconds; 0 for one that is to be read again.
    read_ns: u64,
}

/// The threads that were seen.
#[derive(Debug, Default)]
pub(super) struct Threads {
    /// By thread id.
    known: Mutex<HashMap<u32, Known>>,
    proc: Proc,
    users: OnceLock<Users>,
}

/// The name that the kernel gives, padded with zeros; [`None`] where the thread has ended.
fn name_of(comm: &File) -> Option<[u8; NAME]> {
    let mut name = [0; NAME];
    let length = comm.read_at(&mut name, 0).ok()?;
    if let Some(last) = name.get_mut(length.checked_sub(1)?) {
        // The end of the line.
        *last = 0;
    }
    Some(name)
}

impl Threads {
    /// Who a thread is, and what it is called now, or was a millisecond ago; [`None`] where it is gone.
    pub(super) fn look(&self, tid: u32) -> Option<(Caller, [u8; NAME])> {
        let now_ns = monotonic_ns();
        let mut known = self.known();
        if let Some(found) = known.get_mut(&tid) {
            if now_ns.saturating_sub(found.read_ns) < LASTS_NS {
                return Some((found.caller, found.name));
            }
            if let Some(name) = name_of(&found.comm) {
                (found.name, found.read_ns) = (name, now_ns);
                return Some((found.caller, name));
            }
            known.remove(&tid);
        }
        if known.len() >= MOST {
            known.clear();
        }
        let thread = self.look_up(tid, now_ns).or_else(|| {
            // It may be the descriptors that ran out.
            let had_some = !known.is_empty();
            known.clear();
            had_some.then(|| self.look_up(tid, now_ns)).flatten()
        })?;
        let found = (thread.caller, thread.name);
        known.insert(tid, thread);
        Some(found)
    }

    fn look_up(&self, tid: u32, now_ns: u64) -> Option<Known> {
        let comm = File::open(format!("/proc/{tid}/comm")).ok()?;
        let caller = self.caller(tid)?;
        // After the rest, which is then the same thread's.
        let name = name_of(&comm)?;
        Some(Known {
            comm,
            caller,
            name,
            read_ns: now_ns,
        })
    }

    /// What rules ask of who calls, as it is now; [`None`] where the thread is gone.
    pub(super) fn facts(&self, tid: u32) -> Option<CallerFacts> {
        let name = |id: u32| {
            let comm = File::open(format!("/proc/{id}/comm")).ok()?;
            Some(CallerFacts::name_of(&name_of(&comm)?))
        };
        let thread = name(tid)?;
        let tgid = self.proc.group_of(Tgid(tid))?.0;
        let comm = if tgid == tid { thread } else { name(tgid)? };
        let uid = self.proc.effective_uid(Tgid(tid))?;
        let users = self.users.get_or_init(Users::own);
        let uid = users.outside(uid).map(CallerFacts::uid);
        Some(CallerFacts::of(
            comm,
            thread,
            uid.unwrap_or(CallerFacts::NO_UID),
        ))
    }

    /// A process executes another program, or is about to: its name is another then.
    pub(super) fn forget_names(&self) {
        for thread in self.known().values_mut() {
            thread.read_ns = 0;
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u32, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn caller(&self, tid: u32) -> Option<Caller> {
        let thread = self.proc.process(Tgid(tid))?;
        let tgid = self.proc.group_of(Tgid(tid))?;
        let process = self.proc.process(tgid)?;
        Some(Caller {
            tgid: tgid.0,
            tid,
            process_start: process.start_ticks,
            thread_start: thread.start_ticks,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_is_looked_up_once_and_its_name_now_and_then() {
        let threads = Threads::default();
        let (first, second) = std::thread::spawn(move || {
            let tid = std::fs::read_link("/proc/thread-self").unwrap();
            let tid: u32 = tid.file_name().unwrap().to_str().unwrap().parse().unwrap();
            let first = threads.look(tid).unwrap();
            std::fs::write("/proc/thread-self/comm", "fifteen-letters").unwrap();
            std::thread::sleep(Duration::from_nanos(LASTS_NS));
            let second = threads.look(tid).unwrap();
            assert_eq!(threads.known().len(), 1);
            (first, second)
        })
        .join()
        .unwrap();
        assert_eq!(first.0, second.0);
        assert_eq!(first.0.tgid, std::process::id());
        assert_ne!(first.0.tid, first.0.tgid);
        assert_ne!(first.1, second.1);
        assert_eq!(&second.1, b"fifteen-letters\0");
    }

    #[test]
    fn a_name_is_read_again_when_another_program_is_executed() {
        let threads = Threads::default();
        let own = std::process::id();
        let name = threads.look(own).unwrap().1;
        let stale = |known: &mut Known| (known.name, known.read_ns) = ([7; NAME], u64::MAX);
        stale(threads.known().get_mut(&own).unwrap());
        assert_eq!(threads.look(own).unwrap().1, [7; NAME]);
        threads.forget_names();
        assert_eq!(threads.look(own).unwrap().1, name);
    }

    #[test]
    fn what_was_known_of_a_thread_that_has_ended_is_forgotten() {
        let threads = Threads::default();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        assert_eq!(threads.look(pid).unwrap().0.tgid, pid);
        drop(child.stdin.take());
        child.wait().unwrap();
        std::thread::sleep(Duration::from_nanos(LASTS_NS));
        assert_eq!(threads.look(pid), None);
        assert!(threads.known().is_empty());
    }

    #[test]
    fn no_more_are_known_than_there_may_be() {
        let threads = Threads::default();
        let own = std::process::id();
        for tid in 0..u32::try_from(MOST).unwrap() {
            let comm = File::open("/dev/null").unwrap();
            let caller = Caller {
                tgid: 0,
                tid,
                process_start: 0,
                thread_start: 0,
            };
            let known = Known {
                comm,
                caller,
                name: [0; NAME],
                read_ns: 0,
            };
            threads.known().insert(u32::MAX - tid, known);
        }
        assert!(threads.look(own).is_some());
        assert_eq!(threads.known().len(), 1);
    }
}
