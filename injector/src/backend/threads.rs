//! What /proc tells of the threads that call, kept for as long as they live: to look it up anew for each call costs more
//! than the call. A descriptor of a thread's name stays that thread's, and can be read no more once it has ended, so
//! that reading the name tells both that what is known still holds, and the name.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use super::decider::Caller;
use crate::target::process::{Proc, Tgid};

/// Threads that are known at most: each is a descriptor, of which a process has 1024 where nobody says otherwise.
const MOST: usize = 512;
/// Bytes of a thread's name, its end included (include/linux/sched.h, `TASK_COMM_LEN`).
const NAME: usize = 16;

/// A thread that was seen.
#[derive(Debug)]
struct Known {
    comm: File,
    caller: Caller,
}

/// The threads that were seen.
#[derive(Debug, Default)]
pub(super) struct Threads {
    /// By thread id.
    known: Mutex<HashMap<u32, Known>>,
    proc: Proc,
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
    /// Who a thread is, and what it is called now; [`None`] where it is gone.
    pub(super) fn look(&self, tid: u32) -> Option<(Caller, [u8; NAME])> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&tid) {
            if let Some(name) = name_of(&found.comm) {
                return Some((found.caller, name));
            }
            known.remove(&tid);
        }
        let open = || File::open(format!("/proc/{tid}/comm")).ok();
        let comm = open().or_else(|| {
            // Where it is the descriptors that ran out.
            known.clear();
            open()
        })?;
        let caller = self.caller(tid)?;
        // After the rest, which is then the same thread's.
        let name = name_of(&comm)?;
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(tid, Known { comm, caller });
        Some((caller, name))
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

    use super::*;

    #[test]
    fn a_thread_is_looked_up_once_and_its_name_each_time() {
        let threads = Threads::default();
        let (first, second) = std::thread::spawn(move || {
            let tid = std::fs::read_link("/proc/thread-self").unwrap();
            let tid: u32 = tid.file_name().unwrap().to_str().unwrap().parse().unwrap();
            let first = threads.look(tid).unwrap();
            std::fs::write("/proc/thread-self/comm", "fifteen-letters").unwrap();
            let second = threads.look(tid).unwrap();
            assert_eq!(threads.known.lock().unwrap().len(), 1);
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
    fn what_was_known_of_a_thread_that_has_ended_is_forgotten() {
        let threads = Threads::default();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        assert_eq!(threads.look(pid).unwrap().0.tgid, pid);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(threads.look(pid), None);
        assert!(threads.known.lock().unwrap().is_empty());
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
            let known = Known { comm, caller };
            threads.known.lock().unwrap().insert(u32::MAX - tid, known);
        }
        assert!(threads.look(own).is_some());
        assert_eq!(threads.known.lock().unwrap().len(), 1);
    }
}
