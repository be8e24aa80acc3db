//! The program at work: loaded, tied to targets and stubs, armed, and taken away again. Knows wire
//! rules and kernel addresses, and neither the language nor the command line. Dropping it undoes
//! everything: the links close with their descriptors, and so they do when finject is killed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use aya::maps::{MapData, RingBuf};
use injector_common::limits::MAX_SCOPES;
use injector_common::{Event, Scope, Target, Turn};

use super::btf::{self, Btf, BtfError};
use super::object::{self, Constant, Hook, Loaded, ObjectError};
use crate::backend::BackendError;
use crate::backend::memory::Memory;
use crate::backend::spec::{Spec, SpecRule};
use crate::plan::Plan;
use crate::sys::{SysError, bpf, perf};

/// Where the kernel names its kprobe event source.
const KPROBE_TYPE: &str = "/sys/bus/event_source/devices/kprobe/type";

/// What stays the same while the engine runs.
#[derive(Clone, Debug)]
pub struct EngineSpec {
    /// The rules, the seed of random choices, and whether nothing fires.
    pub spec: Spec,
    /// Delays up to so long are spun away by the program itself, nanoseconds.
    pub spin_ns: u64,
    /// The kernel lets programs override the functions on which they hang.
    pub overrides: bool,
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

impl EngineSpec {
    fn constants(&self, features: Features, program: u32) -> Vec<Constant> {
        let flag = |flag: bool| u32::from(flag).to_le_bytes().to_vec();
        let mut constants: Vec<Constant> = vec![
            ("SEED", self.spec.seed.to_le_bytes().to_vec()),
            ("DRY_RUN", flag(self.spec.dry_run)),
            ("OVERRIDES", flag(self.overrides)),
            ("FOLLOW", flag(self.follow)),
            ("GATED", flag(self.gated)),
            ("PROGRAM", program.to_le_bytes().to_vec()),
            ("SPIN_NS", self.spin_ns.to_le_bytes().to_vec()),
            ("CANARY_TGID", self.canary.to_le_bytes().to_vec()),
        ];
        constants.extend(features.symbols().map(|(name, has)| (name, flag(has))));
        let offsets = self.offsets.iter();
        constants.extend(offsets.map(|(name, value)| (*name, value.to_le_bytes().to_vec())));
        constants
    }
}

/// What some rule needs of the entry program, a bit each. What none needs is not in it, and costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Features(u16);

/// The constant of one, and whether a rule needs it, where delays up to so many nanoseconds are spun away.
type Feature = (&'static str, fn(&SpecRule, u64) -> bool);

const FEATURES: [Feature; 9] = [
    ("HAS_SCOPES", |rule, _| {
        rule.wire.scope != Scope::Rule as u32
    }),
    ("HAS_TESTS", |rule, _| rule.wire.has_tests()),
    ("HAS_CALLERS", |rule, _| rule.wire.has_callers()),
    ("HAS_PATHS", |rule, _| rule.wire.has_paths()),
    ("HAS_SOCKETS", |rule, _| rule.wire.has_sockets()),
    ("HAS_HOLDS", |rule, spin_ns| rule.wire.has_holds(spin_ns)),
    ("HAS_EDITS", |rule, _| rule.wire.has_edits()),
    ("HAS_SPINS", |rule, spin_ns| rule.wire.has_spins(spin_ns)),
    ("HAS_ARMING", |rule, _| {
        rule.arming.arms | rule.arming.disarms != 0
    }),
];

const _: () = assert!(FEATURES.len() <= u16::BITS as usize);

impl Features {
    /// The counters of processes and threads.
    const SCOPES: Self = Self(1);

    fn of(rules: &[SpecRule], spin_ns: u64) -> Self {
        let needed = FEATURES.iter().enumerate().filter(|(_, (_, needs))| {
            let mut rules = rules.iter();
            rules.any(|rule| needs(rule, spin_ns))
        });
        Self(needed.fold(0, |bits, (index, _)| bits | 1 << index))
    }

    fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    fn symbols(self) -> impl Iterator<Item = (&'static str, bool)> {
        let all = FEATURES.iter().enumerate();
        all.map(move |(index, (symbol, _))| (*symbol, self.0 >> index & 1 != 0))
    }
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
    /// More functions than are followed to their exits, one by one.
    #[error("{0} functions are too many to follow to their exits")]
    TooManyExits(usize),
    /// The kernel's type information lacks a function.
    #[error("{types} has no function {0}", types = btf::VMLINUX)]
    NoExit(String),
    /// The kernel does not let a program hang on a function's exit.
    #[error("the kernel does not let the exit of {function} be followed")]
    Exit {
        /// The function.
        function: String,
        /// Why not.
        #[source]
        source: Box<ObjectError>,
    },
    /// It cannot be read.
    #[error(transparent)]
    Types(#[from] BtfError),
}

impl EngineError {
    /// Whether it is the kernel that cannot do it, rather than finject that failed.
    pub fn is_machine(&self) -> bool {
        matches!(
            self,
            Self::TooManyExits(_) | Self::NoExit(_) | Self::Exit { .. }
        )
    }
}

/// The engine. Fields are dropped in this order: the links go first.
#[expect(missing_debug_implementations, reason = "aya's ring buffer has none")]
pub struct Engine {
    entry: Entry,
    /// By the function's address; none where calls can be overridden.
    exits: BTreeMap<u64, Exit>,
    /// One that hangs beside it, and is to take its place, with what it was loaded from.
    successor: Option<(Entry, Loaded)>,
    /// Runs that the kernel left out of those whose place was taken.
    past_misses: u64,
    hooks: Vec<OwnedFd>,
    ring: RingBuf<MapData>,
    memory: Arc<Memory>,
    loaded: Loaded,
    spec: EngineSpec,
}

/// An entry program and the functions that it hangs on. The links are dropped first.
#[derive(Debug)]
struct Entry {
    hooked: Vec<Hooked>,
    program: OwnedFd,
    kind: AttachKind,
    /// Among those that took each other's place, from 1.
    number: u32,
    features: Features,
}

/// Programs on the exit of a function, all of which do the same.
#[derive(Debug)]
struct Exit {
    _links: [OwnedFd; RELAYS],
}

/// A program at an exit is left out for a thread while another that was preempted in it waits for the same processor
/// (kernel/bpf/trampoline.c, `__bpf_prog_enter_recur`): the next one takes its place. What all of them miss is seen when
/// the thread calls again, and counted as lost.
const RELAYS: usize = 2;

/// Functions that are followed to their exits: each takes a program of its own.
const MAX_EXITS: usize = 32;

/// Functions on which a program hangs by the same link.
#[derive(Debug)]
struct Hooked {
    addresses: Vec<u64>,
    _links: Vec<OwnedFd>,
}

impl Engine {
    /// Creates the maps, writes the rules, and loads the entry program. Nothing is attached yet.
    pub fn load(spec: EngineSpec) -> Result<Self, EngineError> {
        let features = Features::of(&spec.spec.rules, spec.spin_ns);
        let has_scopes = features.has(Features::SCOPES);
        let scope_room = if has_scopes { MAX_SCOPES } else { 1 };
        let constants = spec.constants(features, 1);
        let mut loaded = Loaded::new(&object::bytes()?, &constants, &[("SCOPES", scope_room)])?;

        let memory = Memory::map(loaded.map(object::MAPPED)?)?;
        spec.spec.write(&memory);
        memory.set_turn(Turn::Of(1));
        if spec.canary != 0 {
            memory.set_target(spec.canary);
        }
        let ring = loaded.ring()?;
        let entry = Entry::load(&loaded, spec.attach, 1, features)?;
        Ok(Self {
            entry,
            exits: BTreeMap::new(),
            successor: None,
            past_misses: 0,
            hooks: Vec::new(),
            ring,
            memory: Arc::new(memory),
            loaded,
            spec,
        })
    }

    /// Starts following forks, exits and execs. Before the first target is added.
    pub fn attach_hooks(&mut self) -> Result<(), EngineError> {
        for (program, tracepoint) in [
            ("finject_fork", c"sched_process_fork"),
            ("finject_exit", c"sched_process_exit"),
            ("finject_exec", c"sched_process_exec"),
        ] {
            let program = self.loaded.program(program, Hook::RawTracepoint)?;
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
        bpf::map_update(self.loaded.map("TARGETS")?, &pid, &target)?;
        Ok(())
    }

    /// Lets a process go.
    pub fn remove_target(&self, pid: u32) -> Result<(), EngineError> {
        self.memory.clear_target(pid);
        bpf::map_delete(self.loaded.map("TARGETS")?, &pid)?;
        Ok(())
    }

    /// Whether a process is a target.
    pub fn is_target(&self, pid: u32) -> bool {
        self.memory.is_target(pid)
    }

    /// Hangs the entry program on those of the stubs on which it does not yet, each address once. Where the kernel
    /// refuses one of them, none is hooked; [`Engine::injectable`] tells which are good.
    pub fn attach_entries(&mut self, addresses: &[u64]) -> Result<AttachKind, EngineError> {
        let known = self.hooked();
        let addresses: BTreeSet<u64> = addresses.iter().copied().collect();
        let addresses: Vec<u64> = addresses.difference(&known).copied().collect();
        match self.entry.hook(&addresses) {
            // Without CONFIG_FPROBE the kernel has the attach type and nothing behind it.
            Err(error) if error.errno() == libc::EOPNOTSUPP && known.is_empty() => {
                self.use_kprobes()?;
                self.entry.hook(&addresses).map_err(refused)?;
            }
            hooked => hooked.map_err(refused)?,
        }
        Ok(self.entry.kind)
    }

    /// Whether all of these functions can be followed to their exits, where they have to be.
    pub fn check_exits(&self, functions: &[u64]) -> Result<(), EngineError> {
        let all = self.exits.keys().chain(functions);
        let number = all.collect::<BTreeSet<_>>().len();
        if self.spec.overrides || number <= MAX_EXITS {
            Ok(())
        } else {
            Err(EngineError::TooManyExits(number))
        }
    }

    /// Where calls cannot be overridden, hangs programs on the exit of each function that has none: by its address and
    /// its names there, its own first. Where it fails, what hung there before still does.
    pub fn attach_exits(
        &mut self,
        functions: &BTreeMap<u64, Vec<String>>,
    ) -> Result<(), EngineError> {
        let fresh = functions.iter();
        let fresh = fresh.filter(|(at, _)| !self.exits.contains_key(at));
        let fresh: Vec<(u64, &[String])> = fresh.map(|(at, names)| (*at, &**names)).collect();
        if self.spec.overrides || fresh.is_empty() {
            return Ok(());
        }
        let types = std::fs::read(btf::VMLINUX).map_err(|source| SysError {
            call: "read",
            source,
        })?;
        let names = fresh.iter().flat_map(|(_, names)| *names);
        let known = Btf::parse(&types)?.functions(&names.map(String::as_str).collect())?;
        let mut exits = BTreeMap::new();
        for (address, names) in fresh {
            let name = || names.first().cloned().unwrap_or_default();
            let function = names.iter().find_map(|name| known.get(name.as_str()));
            let function = *function.ok_or_else(|| EngineError::NoExit(name()))?;
            let link = || {
                let hook = Hook::Exit { function };
                let program = self.loaded.program("finject_left", hook)?;
                Ok(bpf::trampoline(program.as_fd())?)
            };
            let refused = |source| EngineError::Exit {
                function: name(),
                source: Box::new(source),
            };
            let links = [link().map_err(refused)?, link().map_err(refused)?];
            exits.insert(address, Exit { _links: links });
        }
        self.exits.append(&mut exits);
        Ok(())
    }

    /// From here on hangs the entry program on each stub by a kprobe of its own. Nothing is attached
    /// when this returns.
    pub fn use_kprobes(&mut self) -> Result<(), EngineError> {
        self.entry.hooked.clear();
        let (number, features) = (self.entry.number, self.entry.features);
        self.entry = Entry::load(&self.loaded, AttachKind::Kprobe, number, features)?;
        Ok(())
    }

    /// The addresses on which the entry program hangs.
    pub fn hooked(&self) -> BTreeSet<u64> {
        let hooked = self.entry.hooked.iter();
        hooked
            .flat_map(|hooked| hooked.addresses.iter().copied())
            .collect()
    }

    /// Takes the entry program off the stubs that are not among these, as far as none of these hangs by the same link.
    pub fn keep_entries(&mut self, needed: &BTreeSet<u64>) {
        let is_needed = |hooked: &Hooked| hooked.addresses.iter().any(|at| needed.contains(at));
        self.entry.hooked.retain(is_needed);
        let hooked = self.hooked();
        self.exits.retain(|at, _| hooked.contains(at));
    }

    /// Those of several addresses that the kernel lets be hooked: tried together, by halves where
    /// some of them are refused. Each try costs the kernel a grace period or two.
    pub fn injectable(&self, addresses: &[u64]) -> HashSet<u64> {
        if addresses.is_empty() {
            return HashSet::new();
        }
        if self.entry.links(addresses).is_ok() {
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

    /// Takes the programs off all stubs. When this returns no call is hooked any more.
    pub fn detach(&mut self) {
        self.successor = None;
        self.entry.hooked.clear();
        self.exits.clear();
    }

    /// Whether so many more functions can be hooked while the session runs: one by one, each takes a while.
    pub fn takes(&self, functions: usize) -> bool {
        self.entry.kind == AttachKind::KprobeMulti || functions <= AttachKind::KPROBES
    }

    /// Whether the entry program can do what a rule needs.
    pub fn can_do(&self, rule: &SpecRule) -> bool {
        self.entry.features.has(self.needs(rule))
    }

    /// Whether a rule needs counters that there is no table for.
    pub fn lacks_scopes(&self, rule: &SpecRule) -> bool {
        let scopes = Features::SCOPES;
        self.needs(rule).has(scopes) && !self.entry.features.has(scopes)
    }

    fn needs(&self, rule: &SpecRule) -> Features {
        Features::of(std::slice::from_ref(rule), self.spec.spin_ns)
    }

    /// Loads an entry program that can do what a rule needs, too, and hangs it beside the present one, whose turn it
    /// remains.
    pub fn stand_by(&mut self, rule: &SpecRule) -> Result<(), EngineError> {
        let features = self.entry.features.with(self.needs(rule));
        let number = self.entry.number + 1;
        let constants = self.spec.constants(features, number);
        let loaded = self.loaded.again(&object::bytes()?, &constants)?;
        let mut successor = Entry::load(&loaded, self.entry.kind, number, features)?;
        for hooked in &self.entry.hooked {
            successor.hook(&hooked.addresses).map_err(refused)?;
        }
        self.successor = Some((successor, loaded));
        Ok(())
    }

    /// The one that stands by goes.
    pub fn stand_down(&mut self) {
        self.successor = None;
    }

    /// The one that stands by takes the other's place; each call is decided by exactly one of them ([`Turn`]). `first` is
    /// the number of the one that runs first for each call.
    pub fn take_turn(&mut self, first: u32) -> Result<(), EngineError> {
        let Some((successor, loaded)) = self.successor.take() else {
            return Ok(());
        };
        let (old, new) = (self.entry.number, successor.number);
        for turn in Turn::way(old, new, first) {
            self.memory.set_turn(turn);
            bpf::grace_period()?;
        }
        self.past_misses += self.program_info()?.misses;
        (self.entry, self.loaded) = (successor, loaded);
        Ok(())
    }

    /// A rule of the plan joins the others.
    pub fn join(&mut self, plan: &Plan, rule: usize) -> Result<(), BackendError> {
        self.spec.spec.join(plan, rule, &self.memory)
    }

    /// How many rules there are, those among them that were taken away.
    pub fn rules(&self) -> usize {
        self.spec.spec.rules.len()
    }

    /// The shared memory.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Runs of the entry program that the kernel left out, as far as it counts them, and the
    /// instructions that the verifier walked.
    pub fn program_info(&self) -> Result<bpf::ProgramInfo, EngineError> {
        Ok(bpf::program_info(self.entry.program.as_fd())?)
    }

    /// Runs of entry programs that the kernel left out, as far as it counts them.
    pub fn misses(&self) -> Result<u64, EngineError> {
        Ok(self.past_misses + self.program_info()?.misses)
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
            if let Some(event) = crate::sys::value_of(&item) {
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

impl Entry {
    fn load(
        loaded: &Loaded,
        kind: AttachKind,
        number: u32,
        features: Features,
    ) -> Result<Self, ObjectError> {
        let hook = match kind {
            AttachKind::Kprobe => Hook::Kprobe,
            AttachKind::KprobeMulti => Hook::KprobeMulti,
        };
        match loaded.program("finject_entry", hook) {
            Ok(program) => Ok(Self {
                hooked: Vec::new(),
                program,
                kind,
                number,
                features,
            }),
            // Before 5.18 the attach type itself is refused.
            Err(ObjectError::Refused { source, .. })
                if kind == AttachKind::KprobeMulti && source.errno() == libc::EINVAL =>
            {
                Self::load(loaded, AttachKind::Kprobe, number, features)
            }
            Err(error) => Err(error),
        }
    }

    /// Hangs on functions, on all of them or on none.
    fn hook(&mut self, addresses: &[u64]) -> Result<(), SysError> {
        let hooked = self.links(addresses)?;
        self.hooked.extend(hooked);
        Ok(())
    }

    fn links(&self, addresses: &[u64]) -> Result<Vec<Hooked>, SysError> {
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        match self.kind {
            AttachKind::KprobeMulti => Ok(vec![Hooked {
                addresses: addresses.to_vec(),
                _links: vec![bpf::kprobe_multi(self.program.as_fd(), addresses)?],
            }]),
            AttachKind::Kprobe => addresses
                .iter()
                .map(|address| {
                    Ok(Hooked {
                        addresses: vec![*address],
                        _links: self.kprobe(*address)?.into(),
                    })
                })
                .collect(),
        }
    }

    fn kprobe(&self, address: u64) -> Result<[OwnedFd; 2], SysError> {
        let kind = std::fs::read_to_string(KPROBE_TYPE)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0);
        let event = perf::kprobe(kind, address)?;
        let link = bpf::perf_link(self.program.as_fd(), event.as_fd())?;
        Ok([link, event])
    }
}
