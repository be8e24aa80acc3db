//! The in-kernel backend: one program at the entry of every hooked system call decides and injects
//! (`bpf_override_return`), so that a call costs a fraction of a microsecond and nothing waits for
//! user space.

pub mod btf;
pub mod engine;
pub mod kallsyms;
pub mod object;
mod others;
pub mod probe;
pub mod support;
mod tests_of_calls;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use injector_common::Event;

use self::engine::{AttachKind, Engine, EngineError, EngineSpec};
use self::others::Others;
use self::probe::{Capabilities, Need};
use self::tests_of_calls::{Proof, Tester};
use super::launching::image;
use super::memory::Memory;
use super::ptrace::act::Actor;
use super::report::Shown;
use super::spec::{Spec, SpecRule};
use super::{Backend, BackendError, HookReport, Lost, Report};
use crate::plan::{Plan, Targets, calls_of};
use crate::rule::ResolvedRule;
use crate::rule::ast::Predicate;
use crate::rule::lower::nanoseconds;
use crate::sys::bpf;
use crate::sys::canary::Canary;
use crate::sys::launch::{Command, Latch};
use crate::sys::process::{has_ended, pidfd_open};
use crate::syscall::{self, CallId};
use crate::target::launch::Launch;
use crate::target::process::{Proc, Process, Tgid};
use crate::target::select::descendants;
use crate::text::some_of;

/// The backend.
pub struct Ebpf {
    capabilities: Capabilities,
    tester: Tester,
    engine: Option<Engine>,
    /// What is hooked.
    stubs: Vec<Stub>,
    /// Sessions that were there before.
    others: Others,
    targets: Vec<OwnedFd>,
    launched: Option<Launched>,
    /// Holds threads, where a rule says so.
    actor: Option<Actor>,
    healed: bool,
    misses: Option<u64>,
}

impl std::fmt::Debug for Ebpf {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Ebpf")
            .field("stubs", &self.stubs)
            .finish_non_exhaustive()
    }
}

/// A command that finject launches.
#[derive(Debug)]
struct Launched {
    command: Command,
    /// Lets it go on to its exec; [`None`] once it was opened.
    latch: Option<Latch>,
}

/// A kernel function to hook, with the calls that enter by it.
#[derive(Clone, Debug)]
struct Stub {
    function: String,
    address: u64,
    calls: Vec<CallId>,
}

/// How functions were hooked.
#[derive(Clone, Copy, Debug)]
struct Hooks {
    kind: AttachKind,
    /// Calls that were tried.
    tested: usize,
}

/// Does without calls that this kernel lacks. A name that exists in one ABI only, or a class
/// with calls that the kernel was built without, is no mistake; a rule of which nothing is left
/// is.
fn leave_out(
    rules: &[ResolvedRule],
    absent: &[(CallId, String)],
    warnings: &mut Vec<String>,
) -> Result<(), BackendError> {
    for rule in rules {
        let is_absent = |call: &CallId| absent.iter().any(|(known, _)| known == call);
        if rule.calls.iter().all(is_absent)
            && let Some((call, function)) =
                absent.iter().find(|(call, _)| rule.calls.contains(call))
        {
            return Err(BackendError::NoSuchStub {
                call: call.to_string(),
                function: function.clone(),
            });
        }
    }
    if !absent.is_empty() {
        let calls = absent.iter().map(|(call, _)| call.to_string());
        warnings.push(format!("this kernel does not have {}", some_of(calls)));
    }
    Ok(())
}

impl Ebpf {
    /// Looks at the machine and starts the caller of test calls. Before any thread is started.
    pub fn new() -> Result<Self, BackendError> {
        Ok(Self {
            capabilities: probe::probe(),
            tester: Tester::new(Canary::start()?),
            engine: None,
            stubs: Vec::new(),
            others: Others::default(),
            targets: Vec::new(),
            launched: None,
            actor: None,
            healed: false,
            misses: None,
        })
    }

    /// What probing found, with the reason of each no.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Handles on the targets that the plan named; each becomes readable when its process ends.
    pub fn target_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.targets.iter().map(AsFd::as_fd)
    }

    fn engine(&mut self) -> Result<&mut Engine, BackendError> {
        self.engine.as_mut().ok_or(BackendError::NotLoaded)
    }

    /// The functions by which the calls of rules enter the kernel, aliases joined.
    fn stubs(
        &self,
        rules: &[ResolvedRule],
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Stub>, BackendError> {
        let mut wanted: Vec<(CallId, Vec<String>)> = Vec::new();
        for call in calls_of(rules) {
            let functions = syscall::by_id(call)
                .map(|known| known.stubs())
                .unwrap_or_default();
            wanted.push((call, functions));
        }
        let known = &self.capabilities.stubs;
        // A call that the kernel was built without has a stub too, which may not be hooked. Of a few
        // the kernel itself says so; of many it would take long to find out which.
        let injectable = match AttachKind::for_functions(wanted.len()) {
            AttachKind::Kprobe => None,
            AttachKind::KprobeMulti => known.injectable(),
        };
        let may_be_hooked = |address: &u64| {
            injectable
                .as_ref()
                .is_none_or(|list| list.contains(address))
        };
        let mut stubs: BTreeMap<u64, Stub> = BTreeMap::new();
        let mut absent = Vec::new();
        for (call, functions) in &wanted {
            let stub = functions
                .iter()
                .find_map(|function| Some((function, known.address(function)?)))
                .filter(|(_, address)| may_be_hooked(address));
            match stub {
                Some((function, address)) => stubs
                    .entry(address)
                    .or_insert_with(|| Stub {
                        function: function.clone(),
                        address,
                        calls: Vec::new(),
                    })
                    .calls
                    .push(*call),
                None => absent.push((*call, functions.first().cloned().unwrap_or_default())),
            }
        }
        leave_out(rules, &absent, warnings)?;
        Ok(stubs.into_values().collect())
    }

    /// Hangs the entry program on the functions by which the calls of rules enter the kernel, as far as it does not yet,
    /// and proves that faults arrive there.
    fn hook(
        &mut self,
        rules: &[ResolvedRule],
        warnings: &mut Vec<String>,
    ) -> Result<Hooks, BackendError> {
        let mut stubs = self.stubs(rules, warnings)?;
        let names: Vec<&str> = stubs.iter().map(|stub| stub.function.as_str()).collect();
        // Nothing is lost beside a trampoline where nothing is overridden.
        if self.capabilities.has(Need::Override)
            && let Some(list) = probe::enabled_functions()
        {
            let busy = probe::trampolines(&list, &names);
            if !busy.is_empty() {
                let functions = busy.into_iter().map(str::to_owned).collect();
                return Err(BackendError::Collision { functions });
            }
        }
        let mut addresses: Vec<u64> = stubs.iter().map(|stub| stub.address).collect();
        let engine = self.engine()?;
        engine.check_exits(&addresses)?;
        let hooked = engine.hooked();
        let is_first = hooked.is_empty();
        let fresh = addresses.iter().filter(|at| !hooked.contains(at)).count();
        if !is_first && !engine.takes(fresh) {
            return Err(BackendError::TooManyFunctions(fresh));
        }
        let mut kind = match engine.attach_entries(&addresses) {
            Ok(kind) => kind,
            Err(EngineError::NotInjectable(source)) => {
                // A few functions, or many where the kernel's list could not be read.
                let mut good = engine.hooked();
                let fresh = addresses.iter().copied().filter(|at| !good.contains(at));
                let fresh: Vec<u64> = fresh.collect();
                good.extend(engine.injectable(&fresh));
                let (kept, lost): (Vec<_>, Vec<_>) = stubs
                    .into_iter()
                    .partition(|stub| good.contains(&stub.address));
                if lost.is_empty() {
                    return Err(EngineError::NotInjectable(source).into());
                }
                let absent: Vec<_> = lost
                    .iter()
                    .flat_map(|stub| stub.calls.iter().map(|call| (*call, stub.function.clone())))
                    .collect();
                leave_out(rules, &absent, warnings)?;
                stubs = kept;
                addresses.retain(|address| good.contains(address));
                engine.attach_entries(&addresses)?
            }
            Err(error) => return Err(error.into()),
        };
        let known = &self.capabilities.stubs;
        let exits = stubs.iter();
        let exits = exits.map(|stub| (stub.address, known.names(&stub.function)));
        let exits = exits.collect();
        self.engine()?.attach_exits(&exits)?;
        let calls = || stubs.iter().flat_map(|stub| stub.calls.iter().copied());
        let (tested, untested) = match self.tester.prove(calls()) {
            // Somebody else's kprobe on one of the functions: with a kprobe of our own there, both
            // share one handler, which ends with the first that changes the program counter
            // (aggr_pre_handler of kernel/kprobes.c).
            Err(BackendError::NoFault { .. }) if kind == AttachKind::KprobeMulti && is_first => {
                let engine = self.engine()?;
                engine.use_kprobes()?;
                kind = engine.attach_entries(&addresses)?;
                self.tester.prove(calls())?
            }
            proven => proven?,
        };
        if !untested.is_empty() {
            warnings.push(format!(
                "not tried by a test call, since it could not be undone: {}",
                some_of(untested.iter().map(ToString::to_string))
            ));
        }
        for stub in stubs {
            match self
                .stubs
                .iter_mut()
                .find(|known| known.address == stub.address)
            {
                None => self.stubs.push(stub),
                Some(known) => known.calls.extend(stub.calls),
            }
        }
        Ok(Hooks { kind, tested })
    }

    /// Takes the entry program off the functions that no rule needs any more.
    fn unhook(&mut self) -> Result<(), BackendError> {
        let engine = self.engine.as_mut().ok_or(BackendError::NotLoaded)?;
        let memory = Arc::clone(engine.memory());
        let is_named = |call: &CallId| memory.rules_of((*call).into()) != 0;
        let before = self.stubs.clone();
        self.stubs.retain_mut(|stub| {
            stub.calls.retain(is_named);
            !stub.calls.is_empty()
        });
        engine.keep_entries(&self.stubs.iter().map(|stub| stub.address).collect());
        let hooked = engine.hooked();
        let unhooked = before.iter().filter(|stub| !hooked.contains(&stub.address));
        let unhooked: Vec<CallId> = unhooked
            .flat_map(|stub| stub.calls.iter().copied())
            .collect();
        self.tester.forget(is_named, &unhooked)
    }

    /// Has an entry program that can do what a rule needs, too.
    fn enable(&mut self, rule: &SpecRule) -> Result<(), BackendError> {
        let engine = self.engine.as_mut().ok_or(BackendError::NotLoaded)?;
        if engine.lacks_scopes(rule) {
            return Err(BackendError::NoScopes);
        }
        if engine.can_do(rule) {
            return Ok(());
        }
        if bpf::grace_period().is_err() {
            return Err(BackendError::NoGracePeriod);
        }
        let changed = engine
            .stand_by(rule)
            .map_err(BackendError::from)
            .and_then(|()| {
                // On all functions alike: those of which a test call would do harm are hooked as the others are.
                engine.memory().forget_tester();
                self.tester.try_again()?;
                let first = engine.memory().tested_by().ok_or(BackendError::NoOrder)?;
                Ok(engine.take_turn(first)?)
            });
        engine.stand_down();
        changed
    }

    fn add(&self, engine: &Engine, process: &Process) -> Result<Option<OwnedFd>, BackendError> {
        if self.others.have(process.tgid.0) {
            return Err(BackendError::AnothersTarget(process.tgid.0));
        }
        // The handle first: if it is still good after the process was added, it was that process
        // that was added, and its end will be seen.
        let Ok(handle) = pidfd_open(process.tgid.0) else {
            return Ok(None);
        };
        let still_the_same = |process: &Process| {
            Proc::default()
                .process(process.tgid)
                .is_some_and(|now| now.start_ticks == process.start_ticks && !now.has_ended())
        };
        if !still_the_same(process) {
            return Ok(None);
        }
        engine.add_target(process.tgid.0, process.start_ticks)?;
        if has_ended(handle.as_fd()) {
            engine.remove_target(process.tgid.0)?;
            return Ok(None);
        }
        Ok(Some(handle))
    }

    /// Starts the command, which waits, and becomes a target with its exec.
    fn launch(&mut self, launch: &Launch) -> Result<(), BackendError> {
        let engine = self.engine.as_ref().ok_or(BackendError::NotLoaded)?;
        let (command, latch) = Command::start_held(&image(launch))?;
        let process = Proc::default().process(Tgid(command.pid()));
        let process = process.ok_or(BackendError::TargetGone(command.pid()))?;
        // Whoever follows this process has it, too.
        if self.others.have(command.pid()) {
            return Err(BackendError::AnothersTarget(command.pid()));
        }
        engine.add_launched(command.pid(), process.start_ticks)?;
        self.launched = Some(Launched {
            command,
            latch: Some(latch),
        });
        Ok(())
    }

    /// Whether this machine has all that a plan's rules need.
    fn can_do(&self, plan: &Plan) -> Result<(), BackendError> {
        let needs = self.capabilities.missing_for(support::overrides(plan));
        let needs: Vec<_> = needs.cloned().collect();
        if !needs.is_empty() {
            return Err(BackendError::Machine { needs });
        }
        let predicates = || plan.rules.iter().flat_map(|rule| &rule.preds);
        let has_paths = predicates().any(|it| matches!(it, Predicate::Path { .. }));
        let has_sockets = predicates().any(|it| matches!(it, Predicate::Socket { .. }));
        let offsets = &self.capabilities.offsets;
        if has_paths && !btf::has_paths(offsets) {
            return Err(BackendError::Unknown("files"));
        }
        if has_sockets && !btf::has_sockets(offsets) {
            return Err(BackendError::Unknown("sockets"));
        }
        Ok(())
    }

    /// Whether a plan's rules have threads held, which not every kernel lets a program do.
    fn holds(&self, plan: &Plan) -> Result<bool, BackendError> {
        let holds = !plan.dry_run && Spec::of(plan)?.has_holds(plan.spin_max);
        if holds && !self.capabilities.has(Need::Preemption) {
            return Err(BackendError::Realtime);
        }
        Ok(holds)
    }

    /// Attaches to the targets' threads, where a rule has threads held.
    fn hold(&mut self, plan: &Plan) -> Result<(), BackendError> {
        if !self.holds(plan)? {
            return Ok(());
        }
        let spec = Spec::of(plan)?;
        let memory = Arc::clone(self.engine()?.memory());
        let tester = self.tester.pid();
        // Afterwards its number may be another's, and what it has become has its bit.
        let launched = self.launched.as_ref().filter(|_| memory.awaits_exec());
        let launched = launched.map(|own| Tgid(own.command.pid()));
        // Also those that were born meanwhile, and given to another parent.
        let all = Proc::default().processes().into_iter();
        let all = all.map(|process| process.tgid);
        let targets = all.filter(|tgid| memory.is_target(tgid.0) && tgid.0 != tester);
        let targets = targets.chain(launched).collect();
        self.actor = Some(Actor::start(&memory, &spec, plan, targets)?);
        Ok(())
    }

    /// What a rule that joins needs, before it is written.
    fn prepare(&mut self, plan: &Plan, rule: usize) -> Result<Vec<String>, BackendError> {
        self.can_do(plan)?;
        self.holds(plan)?;
        let mut warnings = Vec::new();
        let rules = plan.rules.get(rule..=rule).unwrap_or_default();
        self.hook(rules, &mut warnings)?;
        self.enable(&SpecRule::of(plan, rule)?)?;
        if self.actor.is_none() {
            self.hold(plan)?;
        }
        Ok(warnings)
    }

    fn add_targets(&mut self, plan: &Plan) -> Result<(), BackendError> {
        let engine = self.engine.as_ref().ok_or(BackendError::NotLoaded)?;
        let Targets::Running(targets) = &plan.targets else {
            return Ok(());
        };
        for process in targets {
            let handle = self.add(engine, process)?;
            let handle = handle.ok_or(BackendError::TargetGone(process.tgid.0))?;
            self.targets.push(handle);
        }
        if !plan.follow {
            return Ok(());
        }
        // Children born from here on are seen by the fork hook; those from before by looking until
        // a look finds nothing new.
        let proc = Proc::default();
        let never = proc.lineage(Tgid(std::process::id()));
        loop {
            let all = proc.processes();
            let known: Vec<Tgid> = all
                .iter()
                .map(|process| process.tgid)
                .filter(|tgid| engine.is_target(tgid.0) && tgid.0 != self.tester.pid())
                .collect();
            let mut grown = false;
            for process in descendants(&all, &known, &never) {
                grown |= self.add(engine, &process)?.is_some();
            }
            if !grown {
                return Ok(());
            }
        }
    }
}

impl Backend for Ebpf {
    fn load(&mut self, plan: &Plan) -> Result<(), BackendError> {
        self.can_do(plan)?;
        let overrides = self.capabilities.has(Need::Override);
        self.others = Others::look();
        let engine = Engine::load(EngineSpec {
            spec: Spec::of(plan)?,
            spin_ns: nanoseconds(plan.spin_max),
            overrides,
            follow: plan.follow,
            gated: !plan.from_exec,
            canary: self.tester.pid(),
            offsets: self.capabilities.offsets.clone(),
            attach: AttachKind::for_functions(calls_of(&plan.rules).len()),
        })?;
        if !overrides {
            self.tester
                .prove_by(Proof::Met(Arc::clone(engine.memory())));
        }
        self.engine = Some(engine);
        Ok(())
    }

    fn attach(&mut self, plan: &Plan) -> Result<HookReport, BackendError> {
        let mut warnings = Vec::new();
        self.engine()?.attach_hooks()?;
        self.add_targets(plan)?;
        let Hooks { kind, tested } = self.hook(&plan.rules, &mut warnings)?;
        // Late, since it waits by turning round.
        if let Targets::Launched(launch) = &plan.targets {
            self.launch(launch)?;
        }
        self.hold(plan)?;
        self.others = Others::default();
        let (mechanism, shown) = if self.capabilities.has(Need::Override) {
            (kind.to_string(), Shown::Failed)
        } else {
            (format!("{kind} and fexit"), Shown::Seen)
        };
        Ok(HookReport {
            backend: support::NAME,
            functions: self.stubs.len(),
            mechanism,
            shown,
            targets: self.report().targets_seen,
            tested,
            verified_instructions: self.engine()?.program_info().ok().map(|info| info.verified),
            warnings,
        })
    }

    fn activate(&mut self, plan: &Plan) -> Result<u64, BackendError> {
        let armed_ns = self
            .engine()?
            .memory()
            .arm_now(plan.armed(), nanoseconds(plan.lease));
        if let Some(latch) = self.launched.as_mut().and_then(|own| own.latch.take()) {
            latch.open();
        }
        Ok(armed_ns)
    }

    fn join(&mut self, plan: &Plan, rule: usize) -> Result<Vec<String>, BackendError> {
        let joined = self.prepare(plan, rule);
        let joined = joined.and_then(|warnings| {
            self.engine()?.join(plan, rule)?;
            Ok(warnings)
        });
        if joined.is_err() {
            // That it failed is told, whatever else does.
            let _ = self.unhook();
        }
        joined
    }

    fn part(&mut self, rule: usize) -> Result<(), BackendError> {
        let memory = Arc::clone(self.engine()?.memory());
        memory.forget_calls(rule);
        memory.free_unnamed_marks();
        let unhooked = self.unhook();
        // Of calls that had begun, and whose exits are hooked no more.
        memory.free_unnamed_marks();
        unhooked
    }

    fn memory(&self) -> Option<&Arc<Memory>> {
        self.engine.as_ref().map(Engine::memory)
    }

    fn event_fds(&self) -> Vec<BorrowedFd<'_>> {
        let decided = self.engine.as_ref().map(Engine::ring_fd);
        let acted = self.actor.as_ref().map(|actor| actor.events().fd());
        decided.into_iter().chain(acted).collect()
    }

    fn wake(&self) {
        if let Some(actor) = &self.actor {
            actor.wake();
        }
    }

    fn watch(&mut self) -> Option<Lost> {
        if self.healed {
            return None;
        }
        let lost = self.actor.as_mut().and_then(Actor::watch);
        lost.or_else(|| self.tester.watch())
    }

    fn poll(&mut self) -> Option<Event> {
        let acted = self.actor.as_ref().and_then(|actor| actor.events().next());
        acted.or_else(|| self.engine.as_mut()?.next_event())
    }

    fn heal(&mut self) -> Result<(), BackendError> {
        let Some(engine) = &mut self.engine else {
            return Ok(());
        };
        if self.healed {
            return Ok(());
        }
        engine.memory().switch_off();
        if self.capabilities.has(Need::MissCounts) {
            self.misses = engine.misses().ok();
        }
        engine.detach();
        if let Some(actor) = &mut self.actor {
            actor.finish();
        }
        self.healed = true;
        self.tester.prove_healed()
    }

    fn end_fds(&self) -> Vec<BorrowedFd<'_>> {
        let launched = self.launched.as_ref();
        let command = launched.and_then(|own| own.command.handle());
        let actor = self.actor.as_ref().map(Actor::handle);
        command.into_iter().chain(actor).collect()
    }

    fn command(&mut self) -> Option<&mut Command> {
        self.launched.as_mut().map(|own| &mut own.command)
    }

    fn report(&self) -> Report {
        let Some(engine) = &self.engine else {
            return Report::default();
        };
        let misses = if !self.healed && self.capabilities.has(Need::MissCounts) {
            engine.misses().ok()
        } else {
            self.misses
        };
        let report = engine.memory().report(engine.rules());
        // A command that was never executed was no target, and its end is that of all.
        let never_began = engine.memory().awaits_exec()
            && self
                .launched
                .as_ref()
                .is_some_and(|own| own.command.ended().is_some());
        Report {
            misses,
            targets_exited: report.targets_exited + u64::from(never_began),
            ..report
        }
    }
}
