//! What /proc tells of a process (proc_pid_stat(5), proc_pid_status(5)).

use std::fs;
use std::path::{Path, PathBuf};

/// A process id, as the initial pid namespace numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tgid(pub u32);

impl std::fmt::Display for Tgid {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// `PF_KTHREAD` of include/linux/sched.h.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// A process at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub tgid: Tgid,
    /// Its parent's id, 0 for none.
    pub parent: Tgid,
    /// Its name, at most 15 bytes.
    pub comm: String,
    /// The one-letter state: `Z` and `X` have ended.
    pub state: char,
    /// Whether it is a thread of the kernel's.
    pub is_kernel_thread: bool,
    /// The processor that it last ran on.
    pub processor: usize,
    /// When it started, in hundredths of a second since boot: with the id it tells a process from a
    /// later one with the same id.
    pub start_ticks: u64,
    /// Where its first thread's stack began; 0 where the kernel does not show it.
    pub stack_start: u64,
}

impl Process {
    /// Parses the text of /proc/PID/stat. The name stands in parentheses and may hold any
    /// character, parentheses too.
    pub fn parse(stat: &str) -> Option<Self> {
        let (open, close) = (stat.find('(')?, stat.rfind(')')?);
        let tgid = stat.get(..open)?.trim().parse().ok()?;
        let comm = stat.get(open + 1..close)?.to_owned();
        let fields: Vec<&str> = stat.get(close + 1..)?.split_ascii_whitespace().collect();
        // The state is field 3 of the page, so that field N is at N - 3 here.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            tgid: Tgid(tgid),
            parent: Tgid(u32::try_from(number(4)?).ok()?),
            comm,
            state: fields.first()?.chars().next()?,
            is_kernel_thread: number(9)? & KERNEL_THREAD != 0,
            processor: usize::try_from(number(39).unwrap_or(0)).ok()?,
            start_ticks: number(22)?,
            stack_start: number(28).unwrap_or(0),
        })
    }

    /// Whether it has ended and only waits for its parent.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// The process file system; tests show another directory.
#[derive(Clone, Debug)]
pub struct Proc {
    root: PathBuf,
}

impl Default for Proc {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/proc"),
        }
    }
}

impl Proc {
    /// A process file system at another place.
    pub fn at(root: impl AsRef<Path>) -> Self {
        Self {
            root: root.as_ref().to_owned(),
        }
    }

    /// A process; [`None`] where there is none of that id.
    pub fn process(&self, id: Tgid) -> Option<Process> {
        let stat = fs::read(self.root.join(id.0.to_string()).join("stat")).ok()?;
        Process::parse(&String::from_utf8_lossy(&stat))
    }

    /// The process that a thread belongs to; a process belongs to itself.
    pub fn group_of(&self, id: Tgid) -> Option<Tgid> {
        self.status(id, "Tgid:").map(Tgid)
    }

    /// The threads of a process, by their ids; none where it is gone.
    pub fn threads_of(&self, id: Tgid) -> Vec<Tgid> {
        let directory = self.root.join(id.0.to_string()).join("task");
        let Ok(entries) = fs::read_dir(directory) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .map(Tgid)
            .collect()
    }

    /// Whether a thread of a process runs, or would if it were given a processor: one that gives no
    /// sign of life although it could then does not hang, but starves.
    pub fn wants_processor(&self, id: Tgid) -> bool {
        let task = self.root.join(id.0.to_string()).join("task");
        let threads = Self::at(task);
        let is_runnable = |tid: &Tgid| threads.process(*tid).is_some_and(|it| it.state == 'R');
        self.threads_of(id).iter().any(is_runnable)
    }

    /// A number in /proc/PID/status, decimal.
    fn status(&self, id: Tgid, name: &str) -> Option<u32> {
        let status = fs::read(self.root.join(id.0.to_string()).join("status")).ok()?;
        let status = String::from_utf8_lossy(&status);
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    }

    /// The effective user id of a thread, as the reader's user namespace numbers it.
    pub fn effective_uid(&self, id: Tgid) -> Option<u32> {
        let path = self.root.join(id.0.to_string()).join("status");
        let status = fs::read(path).ok()?;
        let status = String::from_utf8_lossy(&status);
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    }

    /// The flags of the file that a thread's descriptor is of (proc_pid_fdinfo(5)).
    pub fn flags_of(&self, id: Tgid, fd: u32) -> Option<u32> {
        let thread = self.root.join(id.0.to_string());
        let info = fs::read_to_string(thread.join("fdinfo").join(fd.to_string())).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        u32::from_str_radix(flags.trim(), 8).ok()
    }

    /// The process that traces a thread; [`None`] where nobody does.
    pub fn tracer_of(&self, id: Tgid) -> Option<Tgid> {
        let tracer = self.status(id, "TracerPid:")?;
        (tracer != 0).then_some(Tgid(tracer))
    }

    /// How many seccomp filters a thread has; [`None`] where the kernel does not tell (before 5.9).
    pub fn filters(&self, id: Tgid) -> Option<u32> {
        self.status(id, "Seccomp_filters:")
    }

    /// Whether a thread has a seccomp filter of its own, or is in strict mode; also where that cannot be
    /// read. A kernel without seccomp says nothing of it.
    pub fn has_filter(&self, id: Tgid) -> bool {
        match self.status(id, "Seccomp:") {
            Some(mode) => mode != 0,
            None => self.status(id, "Tgid:").is_none(),
        }
    }

    /// What Yama allows; 0 where there is no Yama. Documentation/admin-guide/LSM/Yama.rst.
    pub fn yama_scope(&self) -> u8 {
        let text = fs::read_to_string(self.root.join("sys/kernel/yama/ptrace_scope"));
        text.ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }

    /// All processes that there are now.
    pub fn processes(&self) -> Vec<Process> {
        let Ok(entries) = fs::read_dir(&self.root) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|id| self.process(Tgid(id)))
            .collect()
    }

    /// A process and its ancestors, nearest first.
    pub fn lineage(&self, id: Tgid) -> Vec<Tgid> {
        let mut lineage = Vec::new();
        let mut next = Some(id);
        while let Some(id) = next
            && id.0 != 0
            && !lineage.contains(&id)
        {
            lineage.push(id);
            next = self.process(id).map(|process| process.parent);
        }
        lineage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_parentheses_and_blanks() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 100 1";
        let process = Process::parse(stat).unwrap();
        assert_eq!(process.comm, "a) b (c");
        assert_eq!((process.tgid, process.parent), (Tgid(42), Tgid(7)));
        assert_eq!(process.start_ticks, 12345);
        assert!(!process.is_kernel_thread && !process.has_ended());
    }

    #[test]
    fn damaged_lines_are_no_process() {
        for stat in [
            "",
            "42",
            "42 (x",
            "42 (x)",
            "x (x) S 1 2 3",
            "42 (x) S 7 42",
        ] {
            assert_eq!(Process::parse(stat), None, "{stat:?}");
        }
    }

    #[test]
    fn who_runs_wants_a_processor_and_who_sleeps_does_not() {
        let proc = Proc::default();
        assert!(proc.wants_processor(Tgid(std::process::id())));
        let mut sleeper = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let id = Tgid(sleeper.id());
        let sleeps = || proc.process(id).is_some_and(|it| it.state == 'S');
        while !sleeps() {
            std::thread::yield_now();
        }
        assert!(!proc.wants_processor(id));
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        assert!(!proc.wants_processor(id), "it is gone");
    }

    #[test]
    fn this_process_is_found_with_its_lineage() {
        let own = Tgid(std::process::id());
        let process = Proc::default().process(own).unwrap();
        assert_eq!(process.tgid, own);
        assert_eq!(Proc::default().group_of(own), Some(own));
        assert_eq!(Proc::default().lineage(own).get(1), Some(&process.parent));
    }
}
