//! Which calls come before a program's own entry point: those that the dynamic loader makes after an
//! exec. They neither count nor fail. A call's instruction pointer tells: until the first call from
//! outside of the loader's mapping, the program has not begun. Where the loader is the C library too (musl),
//! its stack tells.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::sys::process::read_memory;
use crate::target::process::{Proc, Tgid};

/// `AT_BASE` of include/uapi/linux/auxvec.h: where the loader is mapped; 0 for a static program.
const AT_BASE: u64 = 7;
/// `AT_ENTRY` of the same: the program's entry point.
const AT_ENTRY: u64 = 9;

/// A process between its exec and its program's first call.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pending {
    /// The thread that called exec. The program's first calls are the first thread's, whose id is
    /// the process's.
    tid: u32,
    /// The loader's mapping before the exec.
    before: Option<Range<u64>>,
    /// The loader's mapping, once looked up after it.
    loader: Option<Range<u64>>,
    /// Calls of other threads that may yet come before it is taken for over.
    patience: u32,
}

/// Calls of other threads after which an exec that changed nothing is taken for one that failed.
const PATIENCE: u32 = 16;

/// All processes between exec and entry point.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    /// How many there are, so that a call costs nothing while there is none.
    number: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    /// By process id.
    pending: HashMap<u32, Pending>,
    /// Threads of programs that have begun, since the last exec of any process: many programs make
    /// no matched call for long, and what others call must not pay for it.
    begun: HashSet<u32>,
}

impl Gate {
    /// A process has called exec, which may yet fail. `before` is its loader's mapping so far.
    pub(super) fn exec(&self, tgid: u32, tid: u32, before: Option<Range<u64>>) {
        let mut state = self.state();
        let process = Pending {
            tid,
            before,
            loader: None,
            patience: PATIENCE,
        };
        state.begun.clear();
        state.pending.insert(tgid, process);
        self.number.store(state.pending.len(), Release);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a thread's program is known to have begun.
    pub(super) fn has_begun(&self, tid: u32) -> bool {
        self.number.load(Acquire) == 0 || self.state().begun.contains(&tid)
    }

    /// Lets processes go that have ended without a matched call.
    pub(super) fn prune(&self, lives: impl Fn(u32) -> bool) {
        if self.number.load(Acquire) != 0 {
            let mut state = self.state();
            state.pending.retain(|tgid, _| lives(*tgid));
            self.number.store(state.pending.len(), Release);
        }
    }

    /// Whether a call comes before the program's entry point.
    pub(super) fn holds(&self, tgid: u32, tid: u32, instruction: u64, looks: &impl Looks) -> bool {
        let mut state = self.state();
        let Some(found) = state.pending.get_mut(&tgid) else {
            state.begun.insert(tid);
            return false;
        };
        // The thread that executes takes over the process's own id, and no other is left.
        let caller = format!("/proc/{tgid}/task/{}", found.tid);
        if found.tid != tgid && Path::new(&caller).exists() {
            return false; // It has not come to it yet: this is a call of the program that is left.
        }
        if tid != found.tid && tid != tgid {
            // Another thread: of the program that calls exec, or of the new one, which has begun.
            let is_before = looks.loader() == found.before;
            if !looks.still_waits() {
                return false; // The exec has ended it meanwhile, and the mapping is the new one's.
            }
            if is_before && found.patience > 0 {
                found.patience -= 1;
                return false;
            }
        } else {
            if !looks.still_waits() {
                return false; // The exec has ended the caller, whose id may be the new program's by now.
            }
            let range = found
                .loader
                .get_or_insert_with(|| looks.loader().unwrap_or(0..0));
            if range.contains(&instruction) && !looks.has_entered() {
                return true;
            }
        }
        state.pending.remove(&tgid);
        state.begun.insert(tid);
        self.number.store(state.pending.len(), Release);
        false
    }
}

/// What is looked up of a process that may be between exec and entry point.
pub(super) trait Looks {
    /// Whether the caller is still in the call.
    fn still_waits(&self) -> bool;
    /// Where the loader is mapped; [`None`] where the process has none, or is gone.
    fn loader(&self) -> Option<Range<u64>>;
    /// Whether a program has begun although its calls come from the loader's mapping.
    fn has_entered(&self) -> bool;
}

/// Looks at a process.
#[derive(Debug)]
pub(super) struct Look<W> {
    /// The process.
    pub(super) tgid: u32,
    /// Whether the caller is still in the call.
    pub(super) still_waits: W,
}

impl<W: Fn() -> bool> Looks for Look<W> {
    fn still_waits(&self) -> bool {
        (self.still_waits)()
    }

    fn loader(&self) -> Option<Range<u64>> {
        loader_of(self.tgid)
    }

    fn has_entered(&self) -> bool {
        has_entered(self.tgid).unwrap_or(false)
    }
}

/// Where the loader of a process is mapped; [`None`] where it has none, or is gone.
pub(super) fn loader_of(tgid: u32) -> Option<Range<u64>> {
    let (auxv, maps) = memory_of(tgid)?;
    loader(&auxv, &maps)
}

/// The auxiliary vector and the mappings of a process (/proc/PID/auxv and /proc/PID/maps).
fn memory_of(tgid: u32) -> Option<(Vec<u8>, String)> {
    let auxv = std::fs::read(format!("/proc/{tgid}/auxv")).ok()?;
    let maps = std::fs::read_to_string(format!("/proc/{tgid}/maps")).ok()?;
    Some((auxv, maps))
}

/// Of a program, and of its loader, the first instructions call a function, on the stack as the kernel has made
/// it but for its alignment (musl's crt_arch.h of each architecture): the address that is returned to is
/// the program's from its entry point on. Of glibc's programs nothing is told, whose calls come from
/// elsewhere.
fn has_entered(tgid: u32) -> Option<bool> {
    let (auxv, maps) = memory_of(tgid)?;
    let is_narrow = value(&auxv, AT_BASE, Width::Wide)
        .and_then(|base| mapping_at(base, &maps))
        .is_none();
    let width = if is_narrow {
        Width::Narrow
    } else {
        Width::Wide
    };
    let stack = Proc::default().process(Tgid(tgid))?.stack_start & !15;
    let mut word = [0; 8];
    match width {
        Width::Wide => read_memory(tgid, stack.checked_sub(8)?, &mut word).ok()?,
        // Behind two words that align it.
        Width::Narrow => {
            read_memory(tgid, stack.checked_sub(12)?, word.first_chunk_mut::<4>()?).ok()?;
        }
    }
    let program = file_at(value(&auxv, AT_ENTRY, width)?, &maps)?;
    let caller = file_at(u64::from_ne_bytes(word), &maps)?;
    let loader = file_at(value(&auxv, AT_BASE, width)?, &maps)?;
    Some(caller == program && program != loader)
}

/// How long the words of a program are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    /// 64 bits.
    Wide,
    /// 32 bits.
    Narrow,
}

/// A value of an auxiliary vector, but 0.
fn value(auxv: &[u8], key: u64, width: Width) -> Option<u64> {
    let is_it = |entry: [u64; 2]| (entry[0] == key && entry[1] != 0).then_some(entry[1]);
    match width {
        Width::Wide => auxv.as_chunks::<16>().0.iter().find_map(|entry| {
            let (words, _) = entry.as_chunks::<8>();
            is_it([words[0], words[1]].map(u64::from_ne_bytes))
        }),
        Width::Narrow => auxv.as_chunks::<8>().0.iter().find_map(|entry| {
            let (words, _) = entry.as_chunks::<4>();
            is_it([words[0], words[1]].map(|word| u32::from_ne_bytes(word).into()))
        }),
    }
}

/// Where the loader of a process is mapped, from its auxiliary vector and its mappings; [`None`] where it
/// has none.
fn loader(auxv: &[u8], maps: &str) -> Option<Range<u64>> {
    let bases = [Width::Wide, Width::Narrow].map(|width| value(auxv, AT_BASE, width));
    let mut bases = bases.into_iter().flatten();
    bases.find_map(|base| mapping_at(base, maps))
}

/// The path of the file that is mapped at an address; [`None`] for memory without one.
fn file_at(address: u64, maps: &str) -> Option<&str> {
    let mut lines = maps.lines();
    lines.find_map(|line| {
        let (start, rest) = line.split_once('-')?;
        let (end, _) = rest.split_once(' ')?;
        let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
        let path = line.split_ascii_whitespace().nth(5)?;
        (range.contains(&address) && path.starts_with('/')).then_some(path)
    })
}

/// The file that is mapped at an address, as far as it is mapped without a gap.
fn mapping_at(base: u64, maps: &str) -> Option<Range<u64>> {
    let mapped = |line: &str| -> Option<(Range<u64>, String)> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
        // Device and inode.
        let file = format!("{} {}", fields.nth(2)?, fields.next()?);
        Some((range, file))
    };
    let mut lines = maps.lines().filter_map(mapped).peekable();
    let (first, file) = lines.find(|(range, _)| range.start == base)?;
    let mut end = first.end;
    while let Some((range, _)) = lines.next_if(|(range, of)| *of == file && range.start == end) {
        end = range.end;
    }
    Some(base..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is to be seen; to ask for what is not there is a mistake.
    #[derive(Clone, Debug, Default)]
    struct Seen {
        has_ended: bool,
        may_be_asked: bool,
        loader: Option<Range<u64>>,
        has_entered: bool,
    }

    impl Looks for Seen {
        fn still_waits(&self) -> bool {
            !self.has_ended
        }

        fn loader(&self) -> Option<Range<u64>> {
            assert!(self.may_be_asked);
            self.loader.clone()
        }

        fn has_entered(&self) -> bool {
            self.has_entered
        }
    }

    fn at(loader: Range<u64>) -> Seen {
        Seen {
            may_be_asked: true,
            loader: Some(loader),
            ..Seen::default()
        }
    }

    fn nowhere() -> Seen {
        Seen {
            may_be_asked: true,
            ..Seen::default()
        }
    }

    fn auxv(base: u64) -> Vec<u8> {
        [(6, 4096), (AT_BASE, base), (0, 0)]
            .iter()
            .flat_map(|(key, value): &(u64, u64)| [key.to_ne_bytes(), value.to_ne_bytes()].concat())
            .collect()
    }

    const MAPS: &str = "\
555555554000-555555558000 r--p 00000000 08:01 100                        /bin/cat
7ffff7fc9000-7ffff7fca000 r--p 00000000 08:01 200                        /lib/ld.so
7ffff7fca000-7ffff7ff0000 r-xp 00001000 08:01 200                        /lib/ld.so
7ffff7ff0000-7ffff7ffa000 r--p 00027000 08:01 200                        /lib/ld.so
7ffff7ffb000-7ffff7ffd000 r--p 00031000 08:01 200                        /lib/ld.so
7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0                          [stack]
";

    #[test]
    fn the_loader_is_what_is_mapped_at_its_base() {
        let found = loader(&auxv(0x7fff_f7fc_9000), MAPS);
        assert_eq!(found, Some(0x7fff_f7fc_9000..0x7fff_f7ff_a000));
    }

    #[test]
    fn a_32_bit_programs_loader_is_found_too() {
        let auxv: Vec<u8> = [(6, 4096), (7, 0xf7fc_9000), (0, 0)]
            .iter()
            .flat_map(|(key, value): &(u32, u32)| [key.to_ne_bytes(), value.to_ne_bytes()].concat())
            .collect();
        let maps = "f7fc9000-f7ff0000 r--p 00000000 08:01 200    /lib/ld-linux.so.2\n";
        assert_eq!(loader(&auxv, maps), Some(0xf7fc_9000..0xf7ff_0000));
    }

    #[test]
    fn a_static_program_has_none() {
        assert_eq!(loader(&auxv(0), MAPS), None);
        assert_eq!(loader(&[], MAPS), None);
        assert_eq!(loader(&auxv(0x1000), MAPS), None);
    }

    #[test]
    fn calls_are_held_until_the_first_from_outside_of_the_loader() {
        let gate = Gate::default();
        assert!(gate.has_begun(10));
        gate.exec(10, 10, None);
        assert!(!gate.has_begun(10));
        let loader = at(100..200);
        assert!(gate.holds(10, 10, 150, &loader));
        assert!(gate.holds(10, 10, 199, &Seen::default()));
        assert!(!gate.holds(11, 11, 150, &loader), "another process");
        assert!(!gate.holds(10, 10, 200, &loader), "the program's own");
        assert!(gate.has_begun(10));
        assert!(
            !gate.holds(10, 10, 150, &loader),
            "it calls the loader itself"
        );
    }

    #[test]
    fn other_threads_of_a_program_that_calls_exec_count_until_it_has_happened() {
        let gate = Gate::default();
        gate.exec(10, 12, Some(300..400));
        assert!(!gate.holds(10, 11, 900, &at(300..400)));
        assert!(!gate.has_begun(10), "the exec may still come");
        let loader = at(100..200);
        assert!(
            gate.holds(10, 10, 150, &loader),
            "the first thread is the new program's"
        );
    }

    #[test]
    fn a_call_whose_thread_the_exec_has_ended_begins_nothing() {
        let gate = Gate::default();
        gate.exec(10, 12, Some(300..400));
        let gone = Seen {
            has_ended: true,
            ..Seen::default()
        };
        assert!(!gate.holds(10, 10, 900, &gone));
        assert!(!gate.has_begun(10));
        assert!(gate.holds(10, 10, 150, &at(100..200)));
    }

    #[test]
    fn a_call_of_a_thread_that_the_exec_has_ended_meanwhile_begins_nothing() {
        let gate = Gate::default();
        gate.exec(10, 10, Some(300..400));
        let gone = Seen {
            has_ended: true,
            ..at(100..200)
        };
        assert!(!gate.holds(10, 11, 900, &gone));
        assert!(!gate.has_begun(10));
    }

    #[test]
    fn a_program_whose_loader_is_its_library_begins_at_its_entry_point() {
        let gate = Gate::default();
        gate.exec(10, 10, None);
        assert!(gate.holds(10, 10, 150, &at(100..200)));
        let entered = Seen {
            has_entered: true,
            ..at(100..200)
        };
        assert!(!gate.holds(10, 10, 150, &entered));
        assert!(gate.has_begun(10));
    }

    #[test]
    fn files_are_told_by_their_addresses() {
        assert_eq!(file_at(0x7fff_f7fc_a000, MAPS), Some("/lib/ld.so"));
        assert_eq!(file_at(0x5555_5555_4000, MAPS), Some("/bin/cat"));
        assert_eq!(file_at(0x7fff_ffff_0000, MAPS), None, "a stack");
        assert_eq!(file_at(0x1000, MAPS), None);
    }

    #[test]
    fn after_an_exec_that_failed_the_caller_goes_on_counting() {
        let gate = Gate::default();
        gate.exec(10, 12, Some(100..200));
        assert!(!gate.holds(10, 12, 900, &at(100..200)));
        assert!(gate.has_begun(10));
    }

    #[test]
    fn a_new_program_whose_other_threads_call_has_begun() {
        let gate = Gate::default();
        gate.exec(10, 10, Some(300..400));
        assert!(!gate.holds(10, 11, 900, &at(100..200)));
        assert!(gate.has_begun(10), "although its first thread made no call");
    }

    #[test]
    fn an_exec_that_changes_nothing_is_not_waited_for_for_ever() {
        let gate = Gate::default();
        gate.exec(10, 10, None);
        for _ in 0..PATIENCE {
            assert!(!gate.holds(10, 11, 900, &nowhere()));
            assert!(!gate.has_begun(10));
        }
        assert!(!gate.holds(10, 11, 900, &nowhere()));
        assert!(gate.has_begun(10));
    }

    #[test]
    fn a_program_without_a_loader_counts_at_once() {
        let gate = Gate::default();
        gate.exec(10, 10, None);
        assert!(!gate.holds(10, 10, 150, &nowhere()));
    }

    #[test]
    fn others_pay_once_for_a_program_that_makes_no_matched_call() {
        let gate = Gate::default();
        gate.exec(10, 10, None);
        assert!(!gate.has_begun(20));
        assert!(!gate.holds(20, 20, 900, &Seen::default()));
        assert!(gate.has_begun(20));
        gate.exec(11, 11, None);
        assert!(
            !gate.has_begun(20),
            "it could be a thread of the program that was replaced"
        );
    }

    #[test]
    fn those_that_end_without_a_call_are_let_go() {
        let gate = Gate::default();
        gate.exec(10, 10, None);
        gate.exec(11, 11, None);
        gate.prune(|tgid| tgid == 11);
        assert!(!gate.has_begun(11));
        gate.prune(|_| false);
        assert!(gate.has_begun(11));
    }
}
