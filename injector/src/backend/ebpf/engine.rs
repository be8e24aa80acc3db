//! The program at work: loaded, tied to targets and stubs, armed, and taken away again. Knows wire
//! rules and kernel addresses, and neither the language nor the command line. Dropping it undoes
//! everything: the links close with their descriptors, and so they do when finject is killed.

use std::collections::{BTreeSet, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use aya::maps::{MapData, RingBuf};
use aya_obj::generated::bpf_prog_type::{BPF_PROG_TYPE_KPROBE, BPF_PROG_TYPE_RAW_TRACEPOINT};
use injector_common::limits::MAX_SCOPES;
use injector_common::{Event, Scope, Target, WireRule};

use super::object::{self, Constant, Loaded, ObjectError};
use crate::backend::memory::{CallSlot, Memory};
use crate::plan::Arming;
use crate::rule::lower::kinds_of;
use crate::sys::{SysError, bpf, perf};

/// Where the kernel names its kprobe event source.
const KPROBE_TYPE: &str = "/sys/bus/event_source/devices/kprobe/type";

/// A rule for the engine: its wire form and the calls that it names.
#[derive(Clone, Debug)]
pub struct EngineRule {
    /// The wire form.
    pub wire: WireRule,
    /// The calls.
    pub calls: Vec<CallSlot>,
    /// Which rules its firing puts in force and out of it.
    pub arming: Arming,
}

/// What stays the same while the engine runs.
#[derive(Clone, Debug)]
pub struct EngineSpec {
    /// At most `MAX_RULES`.
    pub rules: Vec<EngineRule>,
    /// The seed of random choices.
    pub seed: u64,
    /// Count, fire nothing.
    pub dry_run: bool,
    /// Delays up to so long are spun away by the program itself, nanoseconds.
    pub spin_ns: u64,
    /// Children of targets become targets.
    pub follow: bool,
    /// Calls before a program's own entry point do not count.
    pub gated: bool,
    /// The process whose marked calls are tests; 0 for none.
    pub canary: u32,
    /// The kernel's field offsets, by the constant's symbol.
    pub offsets: Vec<(&'static str, u32)>,
    /// How the entry program is to hang on the stubs, if the kernel can.
    pub attach: AttachKind,
}

/// How the entry program hangs on the stubs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachKind {
    /// A kprobe each. Kprobes of others in the same place share one handler with ours, so that an
    /// override holds whoever came first.
    Kprobe,
    /// One kprobe.multi link for all (Linux 5.18 with `CONFIG_FPROBE`): cheaper a call, and armed at
    /// once whatever their number. A kprobe of somebody else's on the same function undoes an
    /// override, since its handler sets the program counter after ours.
    KprobeMulti,
}

impl AttachKind {
    /// Functions up to which each gets a kprobe of its own.
    const KPROBES: usize = 32;

    /// What fits so many functions.
    pub fn for_functions(number: usize) -> Self {
        if number <= Self::KPROBES {
            Self::Kprobe
        } else {
            Self::KprobeMulti
        }
    }
}

impl std::fmt::Display for AttachKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::KprobeMulti => "kprobe.multi",
            Self::Kprobe => "kprobe",
        })
    }
}

/// An engine that did not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The object or a program.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A call.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// The kernel does not let one of the functions be hooked.
    #[error("the kernel does not let one of the functions be overridden")]
    NotInjectable(#[source] SysError),
}

/// The engine. Fields are dropped in this order: the links go first.
#[expect(missing_debug_implementations, reason = "aya's ring buffer has none")]
pub struct Engine {
    entries: Vec<OwnedFd>,
    hooks: Vec<OwnedFd>,
    programs: Programs,
    ring: RingBuf<MapData>,
    memory: Arc<Memory>,
    loaded: Loaded,
}

#[derive(Debug)]
struct Programs {
    entry: OwnedFd,
    kind: AttachKind,
}

impl Engine {
    /// Creates the maps, writes the rules, and loads the entry program. Nothing is attached yet.
    pub fn load(spec: &EngineSpec) -> Result<Self, EngineError> {
        let scoped = spec
            .rules
            .iter()
            .any(|rule| rule.wire.scope != Scope::Rule as u32);
        let tested = spec.rules.iter().any(|rule| rule.wire.has_tests());
        let held = spec
            .rules
            .iter()
            .any(|rule| rule.wire.has_holds(spec.spin_ns));
        let spins = spec
            .rules
            .iter()
            .any(|rule| rule.wire.has_spins(spec.spin_ns));
        let arms = |rule: &EngineRule| rule.arming.arms | rule.arming.disarms != 0;
        let arms = spec.rules.iter().any(arms);
        let edited = spec.rules.iter().any(|rule| rule.wire.has_edits());
        let flag = |flag: bool| u32::from(flag).to_le_bytes().to_vec();
        let mut constants: Vec<Constant> = vec![
            ("SEED", spec.seed.to_le_bytes().to_vec()),
            ("DRY_RUN", flag(spec.dry_run)),
            ("FOLLOW", flag(spec.follow)),
            ("HAS_SCOPES", flag(scoped)),
            ("HAS_TESTS", flag(tested)),
            ("GATED", flag(spec.gated)),
            ("HAS_HOLDS", flag(held)),
            ("HAS_EDITS", flag(edited)),
            ("HAS_SPINS", flag(spins)),
            ("HAS_ARMING", flag(arms)),
            ("SPIN_NS", spec.spin_ns.to_le_bytes().to_vec()),
            ("CANARY_TGID", spec.canary.to_le_bytes().to_vec()),
        ];
        let offsets = spec
            .offsets
            .iter()
            .map(|(name, value)| (*name, value.to_le_bytes().to_vec()));
        constants.extend(offsets);
        let scope_room = if scoped { MAX_SCOPES } else { 1 };
        let mut loaded = Loaded::new(&object::bytes()?, &constants, &[("SCOPES", scope_room)])?;

        let mut memory = Memory::map(loaded.map(object::MAPPED)?.fd().as_fd())?;
        for (index, rule) in spec.rules.iter().enumerate() {
            memory.write_rule(index, &rule.wire);
            memory.write_arming(index, rule.arming);
            for call in &rule.calls {
                memory.name_call(*call, index);
                if rule.wire.looks_at_args() {
                    memory.write_kinds(*call, kinds_of((*call).into()));
                }
            }
        }
        if spec.canary != 0 {
            memory.set_target(spec.canary);
        }
        let ring = loaded.ring("EVENTS")?;
        let programs = Programs::load(&loaded, spec.attach)?;
        Ok(Self {
            entries: Vec::new(),
            hooks: Vec::new(),
            programs,
            ring,
            memory: Arc::new(memory),
            loaded,
        })
    }

    /// Starts following forks, exits and execs. Before the first target is added.
    pub fn attach_hooks(&mut self) -> Result<(), EngineError> {
        for (program, tracepoint) in [
            ("finject_fork", c"sched_process_fork"),
            ("finject_exit", c"sched_process_exit"),
            ("finject_exec", c"sched_process_exec"),
        ] {
            let program = self
                .loaded
                .program(program, BPF_PROG_TYPE_RAW_TRACEPOINT, 0)?;
            self.hooks
                .push(bpf::raw_tracepoint(program.as_fd(), tracepoint)?);
        }
        Ok(())
    }

    /// Makes a process a target. `start_ticks` is field 22 of its /proc/PID/stat.
    pub fn add_target(&self, pid: u32, start_ticks: u64) -> Result<(), EngineError> {
        self.know(pid, start_ticks)?;
        self.memory.set_target(pid);
        Ok(())
    }

    /// Makes a process a target from its next exec on.
    pub fn add_launched(&self, pid: u32, start_ticks: u64) -> Result<(), EngineError> {
        self.know(pid, start_ticks)?;
        self.memory.set_launched(pid);
        Ok(())
    }

    fn know(&self, pid: u32, start_ticks: u64) -> Result<(), EngineError> {
        let target = Target {
            start_ticks,
            ordinal: self.memory.next_target(),
        };
        bpf::map_update(self.loaded.map("TARGETS")?.fd().as_fd(), &pid, &target)?;
        Ok(())
    }

    /// Lets a process go.
    pub fn remove_target(&self, pid: u32) -> Result<(), EngineError> {
        self.memory.clear_target(pid);
        bpf::map_delete(self.loaded.map("TARGETS")?.fd().as_fd(), &pid)?;
        Ok(())
    }

    /// Whether a process is a target.
    pub fn is_target(&self, pid: u32) -> bool {
        self.memory.is_target(pid)
    }

    /// Hangs the entry program on the stubs, each address once. Where the kernel refuses one of
    /// them, none is hooked; [`Engine::injectable`] tells which are good.
    pub fn attach_entries(&mut self, addresses: &[u64]) -> Result<AttachKind, EngineError> {
        let addresses: BTreeSet<u64> = addresses.iter().copied().collect();
        let addresses: Vec<u64> = addresses.into_iter().collect();
        if self.programs.kind == AttachKind::KprobeMulti {
            match bpf::kprobe_multi(self.programs.entry.as_fd(), &addresses) {
                Ok(link) => {
                    self.entries.push(link);
                    return Ok(AttachKind::KprobeMulti);
                }
                // Without CONFIG_FPROBE the kernel has the attach type and nothing behind it.
                Err(error) if error.errno() == libc::EOPNOTSUPP => self.use_kprobes()?,
                Err(error) => return Err(refused(error)),
            }
        }
        let mut links = Vec::new();
        for address in addresses {
            links.extend(self.kprobe(address).map_err(refused)?);
        }
        self.entries = links;
        Ok(AttachKind::Kprobe)
    }

    /// From here on hangs the entry program on each stub by a kprobe of its own. Nothing is attached
    /// when this returns.
    pub fn use_kprobes(&mut self) -> Result<(), EngineError> {
        self.entries.clear();
        self.programs = Programs::load(&self.loaded, AttachKind::Kprobe)?;
        Ok(())
    }

    /// Those of several addresses that the kernel lets be hooked: tried together, by halves where
    /// some of them are refused. Each try costs the kernel a grace period or two.
    pub fn injectable(&self, addresses: &[u64]) -> HashSet<u64> {
        if addresses.is_empty() {
            return HashSet::new();
        }
        if self.try_together(addresses) {
            return addresses.iter().copied().collect();
        }
        if addresses.len() == 1 {
            return HashSet::new();
        }
        let (left, right) = addresses.split_at(addresses.len() / 2);
        let mut good = self.injectable(left);
        good.extend(self.injectable(right));
        good
    }

    fn try_together(&self, addresses: &[u64]) -> bool {
        match self.programs.kind {
            AttachKind::KprobeMulti => {
                bpf::kprobe_multi(self.programs.entry.as_fd(), addresses).is_ok()
            }
            AttachKind::Kprobe => addresses
                .iter()
                .all(|address| self.kprobe(*address).is_ok()),
        }
    }

    fn kprobe(&self, address: u64) -> Result<[OwnedFd; 2], SysError> {
        let kind = std::fs::read_to_string(KPROBE_TYPE)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0);
        let event = perf::kprobe(kind, address)?;
        let link = bpf::perf_link(self.programs.entry.as_fd(), event.as_fd())?;
        Ok([link, event])
    }

    /// Takes the entry program off all stubs. When this returns no call is hooked any more.
    pub fn detach_entries(&mut self) {
        self.entries.clear();
    }

    /// The shared memory.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Runs of the entry program that the kernel left out, as far as it counts them, and the
    /// instructions that the verifier walked.
    pub fn program_info(&self) -> Result<bpf::ProgramInfo, EngineError> {
        Ok(bpf::program_info(self.programs.entry.as_fd())?)
    }

    /// The descriptor that becomes readable when there are events.
    pub fn ring_fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsRawFd;
        // The ring shows its descriptor as a number only.
        crate::sys::borrow_fd(&self.ring, self.ring.as_raw_fd())
    }

    /// The next event, [`None`] when there is none now. Records of a size that this version does
    /// not know cannot occur: object and binary are one build.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let item = self.ring.next()?;
            if let Some(event) = crate::sys::event_of(&item) {
                return Some(event);
            }
        }
    }
}

/// perf_event_attach_bpf_prog and bpf_kprobe_multi_link_attach of kernel/trace/bpf_trace.c answer
/// EINVAL for a function outside of the error-injection list.
fn refused(error: SysError) -> EngineError {
    if error.errno() == libc::EINVAL {
        EngineError::NotInjectable(error)
    } else {
        error.into()
    }
}

impl Programs {
    fn load(loaded: &Loaded, kind: AttachKind) -> Result<Self, ObjectError> {
        let attach = match kind {
            AttachKind::Kprobe => 0,
            AttachKind::KprobeMulti => bpf::ATTACH_KPROBE_MULTI,
        };
        match loaded.program("finject_entry", BPF_PROG_TYPE_KPROBE, attach) {
            Ok(entry) => Ok(Self { entry, kind }),
            // Before 5.18 the attach type itself is refused.
            Err(ObjectError::Refused { source, .. })
                if kind == AttachKind::KprobeMulti && source.errno() == libc::EINVAL =>
            {
                Self::load(loaded, AttachKind::Kprobe)
            }
            Err(error) => Err(error),
        }
    }
}
