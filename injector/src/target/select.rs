//! From the numbers that the user gave to processes that may be targets. Nothing is touched here.

use super::process::{Proc, Process, Tgid};

/// A process that cannot be a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// There is none.
    #[error("there is no process {0}")]
    NoSuchProcess(Tgid),
    /// The number is a thread's.
    #[error("{thread} is a thread of process {process}")]
    Thread {
        /// The number given.
        thread: Tgid,
        /// Its process.
        process: Tgid,
    },
    /// It has ended and only waits for its parent.
    #[error("process {0} has ended; only its exit status is left")]
    Ended(Tgid),
    /// It is a thread of the kernel's.
    #[error("{0} ({1}) is a thread of the kernel's and makes no system calls")]
    KernelThread(Tgid, String),
    /// The first process: its death is the machine's.
    #[error("process 1 is never a target: if it fails, the whole system does")]
    Init,
    /// finject, or what started it.
    #[error("process {0} ({1}) is finject itself or one of its ancestors")]
    Own(Tgid, String),
    /// A process on which the machine or the session hangs.
    #[error("process {0} is {1}, on which others depend")]
    Vital(Tgid, String),
}

impl TargetError {
    /// What to do instead.
    pub fn help(&self) -> String {
        match self {
            Self::NoSuchProcess(_) => {
                "`pgrep -a NAME` or `ps -e` lists processes; inside a container the numbers are \
                 others than on its host"
                    .into()
            }
            Self::Thread { process, .. } => {
                format!("all threads of a process are targets together: --pid {process}")
            }
            Self::Ended(_) => "start the program again, and give its new number".into(),
            Self::KernelThread(..) => "give the number of a process".into(),
            Self::Init => "give the number of the service that you test".into(),
            Self::Own(..) => {
                "start the program apart from finject's own shell, and give its number".into()
            }
            Self::Vital(..) => "if you mean it, add --force".into(),
        }
    }
}

/// Names of programs that are targets only by force.
const VITAL: [&str; 8] = [
    "systemd",
    "init",
    "sshd",
    "dockerd",
    "containerd",
    "containerd-shim",
    "crio",
    "kubelet",
];

/// Checks one number. `own` is finject's process id.
pub fn check(proc: &Proc, id: Tgid, own: Tgid, force: bool) -> Result<Process, TargetError> {
    let process = proc.process(id).ok_or(TargetError::NoSuchProcess(id))?;
    if id.0 == 1 {
        return Err(TargetError::Init);
    }
    match proc.group_of(id) {
        Some(group) if group != id => {
            return Err(TargetError::Thread {
                thread: id,
                process: group,
            });
        }
        Some(_) => {}
        None => return Err(TargetError::NoSuchProcess(id)),
    }
    if process.is_kernel_thread {
        return Err(TargetError::KernelThread(id, process.comm));
    }
    if process.has_ended() {
        return Err(TargetError::Ended(id));
    }
    if proc.lineage(own).contains(&id) {
        return Err(TargetError::Own(id, process.comm));
    }
    // A name is cut at 15 bytes, as the kernel cuts it.
    let is_vital = VITAL
        .iter()
        .any(|vital| vital.get(..15).unwrap_or(vital) == process.comm);
    if is_vital && !force {
        return Err(TargetError::Vital(id, process.comm));
    }
    Ok(process)
}

/// The processes among `all` that descend from one of `roots`, roots left out. Processes that were
/// given to another parent before (daemons) are not found: nothing tells them any more.
pub fn descendants(all: &[Process], roots: &[Tgid], never: &[Tgid]) -> Vec<Process> {
    let mut known: Vec<Tgid> = roots.to_vec();
    let mut found: Vec<Process> = Vec::new();
    loop {
        let before = found.len();
        for process in all {
            let is_new = !known.contains(&process.tgid) && !never.contains(&process.tgid);
            if is_new && known.contains(&process.parent) && !process.has_ended() {
                known.push(process.tgid);
                found.push(process.clone());
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(tgid: u32, parent: u32) -> Process {
        Process {
            tgid: Tgid(tgid),
            parent: Tgid(parent),
            comm: "x".into(),
            state: 'S',
            is_kernel_thread: false,
            processor: 0,
            start_ticks: 1,
            stack_start: 0,
        }
    }

    #[test]
    fn descendants_are_found_whatever_the_order_of_numbers() {
        // A child may have a lower number than its parent once numbers have wrapped.
        let all = [
            process(5, 90),
            process(90, 80),
            process(80, 1),
            process(7, 1),
        ];
        let found: Vec<_> = descendants(&all, &[Tgid(80)], &[])
            .into_iter()
            .map(|p| p.tgid.0)
            .collect();
        assert_eq!(found, [90, 5]);
        assert!(descendants(&all, &[Tgid(80)], &[Tgid(90)]).is_empty());
    }

    #[test]
    fn refusals_name_the_remedy() {
        let proc = Proc::default();
        let own = Tgid(std::process::id());
        for (id, want) in [
            (Tgid(1), "process 1 is never a target"),
            (Tgid(4_194_303), "there is no process 4194303"),
            (own, "is finject itself"),
        ] {
            let error = check(&proc, id, own, true).unwrap_err();
            assert!(error.to_string().contains(want), "{error}");
            assert!(!error.help().is_empty());
        }
    }

    #[test]
    fn a_thread_is_told_from_its_process() {
        let own = Tgid(std::process::id());
        let (tell, told) = std::sync::mpsc::channel();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let link = std::fs::read_link("/proc/thread-self").unwrap();
            tell.send(link.file_name().unwrap().to_str().unwrap().parse().unwrap())
                .unwrap();
            let _ = wait.recv();
        });
        let tid = Tgid(told.recv().unwrap());
        let error = check(&Proc::default(), tid, Tgid(0), false).unwrap_err();
        assert_eq!(
            error,
            TargetError::Thread {
                thread: tid,
                process: own
            }
        );
        drop(done);
        thread.join().unwrap();
    }
}
