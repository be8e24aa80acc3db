//! The programs: one for the entry of every hooked system call, and the hooks that follow targets.
#![no_std]
#![no_main]

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_ns, bpf_loop, bpf_override_return, bpf_send_signal, bpf_send_signal_thread,
};
use injector_common::limits::{MAX_MARKED, MAX_RETRIES, MAX_RULES, MAX_STEPS};
use injector_common::mark::{MarkedFiring, RESTART};
use injector_common::rule::{
    ACT_DECIDES, ACT_DELAY, ACT_HELD, ACT_KILL, ACT_REPLACES, ACT_RESULT, ACT_SIGNAL,
};
use injector_common::shared::CANARY_ERRNO;
use injector_common::{
    Call, Counter, Data, Decision, EventKind, Outcome, RuleCell, RunState, Scope, ScopeCell,
    ScopeKey, Shared, Turn, WireRule, WireStep, advance, decide, is_called_by,
};
use injector_ebpf::emit::{Firing, emit};
use injector_ebpf::facts::{Regs, Task};
use injector_ebpf::maps::{self, SCOPES, SHIFTS};
use injector_ebpf::sift::{holds, is_about, lowest_bit, sift};
use injector_ebpf::{arming, atomic, data, gate, hand, spin, target};

const _: () = assert!(MAX_RULES == 64, "a word of bits names the rules of a call");

const SIGKILL: u32 = 9;
const EINTR: i64 = 4;
/// `BPF_NOEXIST` of include/uapi/linux/bpf.h.
const NO_EXIST: u64 = 1;

/// A counter in map memory.
struct Cell {
    count: *mut u64,
    chain: *mut u64,
}

impl Counter for Cell {
    #[inline(always)]
    fn count_call(&self) -> u64 {
        // SAFETY: map memory.
        unsafe { atomic::fetch_add(self.count, 1) + 1 }
    }

    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: map memory; volatile, since other CPUs change it.
        unsafe { core::ptr::read_volatile(self.chain) }
    }

    #[inline(always)]
    fn compare_exchange(&self, old: u64, new: u64) -> u64 {
        // SAFETY: map memory.
        unsafe { atomic::compare_exchange(self.chain, old, new) }
    }

    /// In a loop of the kernel's, whose body the verifier walks once.
    #[inline(always)]
    fn move_chain(&self, rule: &WireRule, decided: bool, data: &Data) -> Option<(Outcome, u64)> {
        let mut race = Race {
            chain: self.chain,
            rule,
            word: self.load(),
            decided: u32::from(decided),
            outcome: UNDECIDED,
            data: *data,
        };
        // SAFETY: a callback of the helper's form and memory that outlives the loop.
        unsafe {
            bpf_loop(
                MAX_RETRIES,
                try_to_move as *mut c_void,
                (&raw mut race).cast(),
                0,
            );
        }
        let outcome = match race.outcome {
            0 => Outcome::Off,
            1 => Outcome::Fire,
            2 => Outcome::Exhausted,
            3 => Outcome::Shadowed,
            4 => Outcome::Dataless,
            _ => return None,
        };
        Some((outcome, race.word))
    }
}

/// One call's race for a chain's position.
#[repr(C)]
struct Race<'rule> {
    chain: *mut u64,
    rule: &'rule WireRule,
    /// The chain's word as last seen.
    word: u64,
    decided: u32,
    /// An [`Outcome`] as its number, or [`UNDECIDED`].
    outcome: u32,
    /// What the call is about to move.
    data: Data,
}

const UNDECIDED: u32 = u32::MAX;

extern "C" fn try_to_move(_index: u32, race: *mut Race<'_>) -> i64 {
    // SAFETY: the helper passes what `move_chain` gave it; the chain is map memory.
    unsafe {
        let race = &mut *race;
        let (outcome, next) = advance(race.rule, race.decided != 0, &race.data, race.word);
        let found = if next == race.word {
            next
        } else {
            atomic::compare_exchange(race.chain, race.word, next)
        };
        if found == race.word {
            race.outcome = outcome as u32;
            return 1;
        }
        race.word = found;
        0
    }
}

/// One call on its way through its rules.
#[repr(C)]
struct InCall {
    /// Rules still to look at, a bit each.
    pending: u64,
    /// The process.
    tgid: u32,
    /// The thread.
    tid: u32,
    /// 1 for the 32-bit ABI.
    abi: u32,
    /// The call's number.
    nr: u32,
    /// 1 once a rule has decided what the caller gets.
    decided: u32,
    /// Firings in the thread's mark, to be carried out when all rules were asked.
    listed: u32,
    /// The `ACT_*` bits of those.
    actions: u32,
    /// 1 once a firing found no room in the mark: those behind it are carried out at once too.
    is_unmarked: u32,
    /// What the caller gets.
    value: i64,
}

/// The entry of a hooked system call. Only the way of a process that is no target is here, so that
/// it saves no registers that it does not use.
#[unsafe(no_mangle)]
#[unsafe(link_section = "kprobe/finject_entry")]
pub extern "C" fn finject_entry(ctx: *mut c_void) -> u32 {
    let pid_tgid = bpf_get_current_pid_tgid();
    if maps::is_target((pid_tgid >> 32) as u32) {
        enter(ctx, pid_tgid);
    }
    0
}

/// A target's call.
#[inline(never)]
fn enter(ctx: *mut c_void, pid_tgid: u64) -> u32 {
    let mut call = MaybeUninit::uninit();
    if begin(ctx, pid_tgid, &mut call) == 0 {
        return 0;
    }
    // SAFETY: `begin` has written it.
    let call = unsafe { call.assume_init_mut() };
    if maps::has_paths() != 0 || maps::has_sockets() != 0 {
        call.pending = sift(call.pending, call.abi, call.nr, call.tgid);
        if call.pending == 0 {
            return 0;
        }
    }
    if call.pending & (call.pending - 1) == 0 {
        next_rule(call);
    } else {
        // SAFETY: a callback of the helper's form and memory that outlives the loop.
        unsafe {
            bpf_loop(
                MAX_RULES as u32,
                next_rule_callback as *mut c_void,
                core::ptr::from_mut(call).cast(),
                0,
            );
        }
    }
    if maps::has_holds() != 0 && call.listed != 0 && hand_over_or_carry_out(call) {
        if maps::overrides() != 0 {
            // SAFETY: the program's own context; the signal is pending.
            unsafe { bpf_override_return(ctx.cast(), RESTART as u64) };
        }
        return 0;
    }
    if call.decided != 0 && maps::overrides() != 0 {
        // SAFETY: the program's own context. Lowering has kept 512..531 out of the value.
        unsafe { bpf_override_return(ctx.cast(), call.value as u64) };
    }
    0
}

/// Whether some rule is about a target's call, which is written down then. Apart, so that what it keeps on its stack is
/// not there while rules decide.
#[inline(never)]
fn begin(ctx: *mut c_void, pid_tgid: u64, call: &mut MaybeUninit<InCall>) -> u32 {
    let tgid = (pid_tgid >> 32) as u32;
    let task = Task::current();
    let regs = task.regs();
    let compat = task.is_compat();
    if tgid == maps::canary_tgid() {
        if regs.is_test_call(compat) {
            // SAFETY: the mapped memory; the program's own context.
            unsafe {
                let tested_by = &raw mut (*maps::shared()).control.tested_by;
                atomic::compare_exchange(tested_by, 0, u64::from(maps::program()));
                if maps::overrides() != 0 {
                    bpf_override_return(ctx.cast(), -CANARY_ERRNO as u64);
                }
            }
        }
        return 0;
    }
    let nr = regs.nr();
    let named = maps::rules_of(compat, nr);
    if named == 0 || !has_turn(pid_tgid, compat, nr) {
        return 0;
    }
    // Whatever is in force by now, and wherever its program is: a mark is for this call.
    if maps::has_holds() != 0 && hand::is_let_through(pid_tgid as u32, u32::from(compat), regs) {
        return 0;
    }
    let rules = named & maps::armed();
    if rules == 0 {
        return 0;
    }
    if maps::gated() != 0 && maps::is_beginning(tgid) && gate::holds(tgid, nr, compat) {
        return 0;
    }
    call.write(InCall {
        pending: rules,
        tgid,
        tid: pid_tgid as u32,
        abi: u32::from(compat),
        nr,
        // Always 0, since no id is that large, and no constant: before Linux 6.7 the verifier walks
        // the body of a loop once, with what it knows from before the loop, and takes out of it what
        // only a later round can reach.
        decided: tgid >> 31,
        listed: tgid >> 31,
        actions: 0,
        is_unmarked: tgid >> 31,
        value: 0,
    });
    1
}

/// Whether this program decides the call, rather than one that takes its place or whose place it takes.
#[inline(always)]
fn has_turn(pid_tgid: u64, compat: bool, nr: u32) -> bool {
    let turn = maps::turn();
    turn == Turn::Of(maps::program()).word()
        || turn & 1 != 0 && has_shift(turn, pid_tgid, compat, nr)
}

#[inline(never)]
fn has_shift(turn: u64, pid_tgid: u64, compat: bool, nr: u32) -> bool {
    let call = u64::from(nr) | u64::from(compat) << 32;
    SHIFTS.get_ptr_mut(0).is_some_and(|shift| {
        // SAFETY: this processor's own entry of the map, which nothing else reaches meanwhile.
        unsafe { (*shift).decides(turn, maps::program(), pid_tgid, call) }
    })
}

/// The firings in the thread's mark go to the tracer where one of them needs it; whether they did. Otherwise what
/// needs no tracer is carried out here.
#[inline(never)]
fn hand_over_or_carry_out(call: &mut InCall) -> bool {
    if call.actions & ACT_HELD != 0 && hand::hand_over(call.tid, call.tgid, call.abi, call.listed) {
        return true;
    }
    call.decided = 0;
    // SAFETY: a callback of the helper's form and memory that outlives the loop.
    unsafe {
        bpf_loop(
            MAX_MARKED as u32,
            carry_out_callback as *mut c_void,
            core::ptr::from_mut(call).cast(),
            0,
        );
    }
    hand::give_back(call.tid);
    false
}

extern "C" fn carry_out_callback(index: u32, call: *mut InCall) -> i64 {
    // SAFETY: the helper passes what `hand_over_or_carry_out` gave it.
    let call = unsafe { &mut *call };
    if index >= call.listed {
        return 1;
    }
    let listed = hand::listed(call.tid, index);
    let shared = maps::shared();
    let (rule, step) = (
        listed.rule as usize & (MAX_RULES - 1),
        listed.step as usize & (MAX_STEPS - 1),
    );
    // SAFETY: the mapped memory, both indices below their lengths; a rule does not change once it was in force.
    unsafe {
        let cell = &raw mut (*shared).cells[rule];
        let step = &(*shared).rules[rule].steps[step];
        carry_out(call, cell, &listed, step);
    }
    0
}

extern "C" fn next_rule_callback(_index: u32, call: *mut InCall) -> i64 {
    // SAFETY: the helper passes what `finject_entry` gave it.
    let call = unsafe { &mut *call };
    i64::from(call.pending == 0 || next_rule(call) != 0)
}

/// Takes the lowest of the pending rules through its decision; 1 where it was the last. Of a function that returns nothing,
/// or what nobody looks at, the verifier takes what is left in the register for it, which may be a pointer to the stack.
#[inline(never)]
fn next_rule(call: &mut InCall) -> u32 {
    let index = lowest_bit(call.pending);
    call.pending &= call.pending.wrapping_sub(1);
    let is_last = u32::from(call.pending == 0);
    let shared = maps::shared();
    // SAFETY: the mapped memory, the index below MAX_RULES; a rule does not change once it was in force.
    let (rule, cell) = unsafe { (&(*shared).rules[index], &raw mut (*shared).cells[index]) };
    if maps::has_tests() != 0 && rule.has_tests() && !is_about(rule, call.abi != 0, call.nr) {
        // SAFETY: the mapped memory.
        unsafe { atomic::add(&raw mut (*cell).excluded, 1) };
        return is_last;
    }
    if maps::has_callers() != 0 && rule.has_callers() && !is_called_by(rule, holds) {
        // SAFETY: the mapped memory.
        unsafe { atomic::add(&raw mut (*cell).excluded, 1) };
        return is_last;
    }
    let counter = if rule.scope == Scope::Rule as u32 || maps::has_scopes() == 0 {
        // SAFETY: the mapped memory.
        unsafe {
            Some((
                Cell {
                    count: &raw mut (*cell).count,
                    chain: &raw mut (*cell).chain,
                },
                0,
            ))
        }
    } else {
        scoped(call, index as u32, rule, cell)
    };
    if let Some((counter, ordinal)) = counter {
        apply(call, index as u32, rule, shared, cell, &counter, ordinal);
    }
    is_last
}

/// The counter of the caller's process or thread, and its ordinal; made when it is not there yet.
#[inline(always)]
fn scoped(call: &InCall, index: u32, rule: &WireRule, cell: *mut RuleCell) -> Option<(Cell, u64)> {
    let task = Task::current();
    let (id, start_ns) = if rule.scope == Scope::Thread as u32 {
        (call.tid, task.thread_start())
    } else {
        (call.tgid, task.process_start())
    };
    let key = ScopeKey {
        rule: index,
        id,
        start_ns,
        // SAFETY: the mapped memory; volatile, since finject changes it.
        armed_ns: unsafe { core::ptr::read_volatile(&raw const (*cell).armed_ns) },
    };
    let mut found = SCOPES.get_ptr_mut(key);
    if found.is_none() {
        // SAFETY: the mapped memory.
        let ordinal = unsafe { atomic::fetch_add(&raw mut (*cell).scopes, 1) };
        let fresh = ScopeCell {
            count: 0,
            chain: 0,
            ordinal,
        };
        let _ = SCOPES.insert(key, fresh, NO_EXIST); // Another thread may have been first.
        found = SCOPES.get_ptr_mut(key);
    }
    // SAFETY: the mapped memory and the table's value.
    unsafe {
        match found {
            None => {
                atomic::add(&raw mut (*cell).scopes_full, 1);
                None
            }
            Some(scope) => {
                atomic::add(&raw mut (*cell).matched, 1);
                let counter = Cell {
                    count: &raw mut (*scope).count,
                    chain: &raw mut (*scope).chain,
                };
                Some((counter, (*scope).ordinal))
            }
        }
    }
}

/// Decides, and carries out what was decided.
#[inline(always)]
fn apply(
    call: &mut InCall,
    index: u32,
    rule: &WireRule,
    shared: *mut Shared,
    cell: *mut RuleCell,
    counter: &Cell,
    ordinal: u64,
) {
    let since_armed_ns = if rule.has_window() {
        // SAFETY: no arguments; the mapped memory.
        unsafe { bpf_ktime_get_ns().wrapping_sub((*cell).armed_ns) }
    } else {
        0
    };
    let facts = Call {
        seed: maps::seed(),
        ordinal,
        since_armed_ns,
        decided: call.decided != 0,
    };
    // SAFETY: the mapped memory.
    unsafe {
        let data = || {
            if maps::has_edits() == 0 {
                Data::NONE
            } else {
                let compat = call.abi != 0;
                let mut data = Data::NONE;
                data.bytes = data::read(compat, maps::kinds_of(compat, call.nr), &mut data);
                data
            }
        };
        match decide(rule, counter, &facts, data) {
            Decision::NotSelected { .. } | Decision::Off { .. } | Decision::Exhausted { .. } => {}
            Decision::Shadowed { .. } => atomic::add(&raw mut (*cell).shadowed, 1),
            Decision::Dataless { .. } => atomic::add(&raw mut (*cell).dataless, 1),
            Decision::Contended { .. } => atomic::add(&raw mut (*cell).contended, 1),
            Decision::Fire {
                count,
                step,
                index: at,
            } => {
                let listed = MarkedFiring {
                    rule: index,
                    step: at as u32,
                    count,
                    ordinal,
                    at_ns: bpf_ktime_get_ns(),
                };
                fire(call, shared, cell, &listed, step);
            }
        }
    }
}

/// Carries a firing out or lists it, unless the lease has lapsed.
///
/// # Safety
///
/// `shared` and `cell` are the mapped memory.
#[inline(always)]
unsafe fn fire(
    call: &mut InCall,
    shared: *mut Shared,
    cell: *mut RuleCell,
    firing: &MarkedFiring,
    step: &WireStep,
) {
    // SAFETY: the caller's promise, throughout.
    unsafe {
        let control = &raw mut (*shared).control;
        if firing.at_ns > core::ptr::read_volatile(&raw const (*control).lease_ns) {
            core::ptr::write_volatile(&raw mut (*control).lapsed, 1);
            core::ptr::write_volatile(&raw mut (*control).state, RunState::Off as u32);
            core::ptr::write_volatile(&raw mut (*control).armed, 0);
            return;
        }
        if maps::has_arming() != 0
            && maps::dry_run() == 0
            && arming::fired(cell, firing.at_ns) != RunState::Armed as u32
        {
            return;
        }
        if maps::has_holds() == 0 || maps::dry_run() != 0 {
            carry_out(call, cell, firing, step);
            return;
        }
        let rule = &(*shared).rules[firing.rule as usize & (MAX_RULES - 1)];
        let spins = if spin::length(rule, step, firing) != 0 {
            ACT_DELAY
        } else {
            0
        };
        let actions = step.actions & !spins;
        // Waits come before results, whichever rule has them; where nothing can wait before the call, nothing does.
        let is_first = maps::overrides() == 0 && actions & ACT_HELD == 0;
        let has_mark = !is_first
            && call.is_unmarked == 0
            && if call.listed == 0 {
                hand::claim(call.tid)
            } else {
                call.listed < MAX_MARKED as u32
            };
        if !has_mark {
            if !is_first {
                call.is_unmarked = 1;
            }
            carry_out(call, cell, firing, step);
            return;
        }
        hand::list(call.tid, call.listed, *firing);
        call.listed += 1;
        call.actions |= actions;
        if step.actions & ACT_DECIDES != 0 {
            call.decided = 1;
        }
    }
}

/// Carries out what of a firing needs no tracer; the rest is counted as lost.
///
/// # Safety
///
/// `cell` is the mapped memory.
#[inline(always)]
unsafe fn carry_out(
    call: &mut InCall,
    cell: *mut RuleCell,
    firing: &MarkedFiring,
    step: &WireStep,
) {
    // SAFETY: the caller's promise, throughout.
    unsafe {
        let mut actions = step.actions;
        let mut delay_ns = 0;
        if maps::dry_run() == 0 {
            let mut lost = ACT_HELD;
            if maps::has_spins() != 0 {
                let rule = &(*maps::shared()).rules[firing.rule as usize & (MAX_RULES - 1)];
                let length_ns = spin::length(rule, step, firing);
                if length_ns != 0 {
                    delay_ns = spin::spin(length_ns);
                    lost &= !ACT_DELAY;
                }
            }
            if maps::has_holds() != 0 && actions & lost != 0 {
                atomic::add(&raw mut (*cell).lost, 1);
                actions &= !lost;
            }
            // A signal that cannot be sent is a firing that did not happen: the call passes.
            if actions & ACT_SIGNAL != 0 && bpf_send_signal_thread(step.signal) != 0 {
                atomic::add(&raw mut (*cell).lost, 1);
                actions &= !ACT_SIGNAL;
            }
            if actions & ACT_KILL != 0 && bpf_send_signal(SIGKILL) != 0 {
                atomic::add(&raw mut (*cell).lost, 1);
                actions &= !ACT_KILL;
            }
            if actions == 0 {
                return;
            }
            if actions & ACT_REPLACES != 0 {
                call.decided = 1;
                // The killed thread never sees this value; a tracer of it might.
                call.value = if actions & ACT_RESULT != 0 {
                    step.value
                } else {
                    -EINTR
                };
            }
        }
        atomic::add(&raw mut (*cell).fired, 1);
        atomic::add(&raw mut (*cell).hits, 1);
        if (*cell).first_ns == 0 {
            atomic::compare_exchange(&raw mut (*cell).first_ns, 0, firing.at_ns);
        }
        core::ptr::write_volatile(&raw mut (*cell).last_ns, firing.at_ns);
        if maps::dry_run() != 0 {
            return;
        }
        let task = Task::current();
        let regs: Regs = task.regs();
        let record = Firing {
            abi: call.abi,
            nr: call.nr,
            args: regs.args(call.abi != 0),
            rule: firing.rule,
            ordinal: firing.ordinal,
            actions,
            signal: step.signal,
            delay_ns,
        };
        let value = if actions & ACT_RESULT != 0 {
            step.value
        } else {
            0
        };
        let (at_ns, count) = (firing.at_ns, firing.count);
        if !emit(EventKind::Fired, at_ns, count, value, Some(&record)) {
            atomic::add(&raw mut (*cell).dropped, 1);
        }
    }
}

/// The exit of a hooked system call, where the kernel lets no call be overridden: what was decided at its entry for
/// afterwards is handed to the tracer.
#[unsafe(no_mangle)]
#[unsafe(link_section = "fexit/finject_left")]
pub extern "C" fn finject_left(_ctx: *mut c_void) -> u32 {
    let pid_tgid = bpf_get_current_pid_tgid();
    let tgid = (pid_tgid >> 32) as u32;
    if maps::is_target(tgid) {
        if tgid == maps::canary_tgid() {
            let task = Task::current();
            if task.regs().is_test_call(task.is_compat()) {
                // SAFETY: the mapped memory; volatile, since finject reads it.
                unsafe {
                    let left = &raw mut (*maps::shared()).control.test_left;
                    core::ptr::write_volatile(left, 1);
                }
            }
        } else {
            hand::left(pid_tgid as u32);
        }
    }
    0
}

/// A raw tracepoint's arguments (`struct bpf_raw_tracepoint_args`).
#[repr(C)]
pub struct RawArgs {
    args: [usize; 3],
}

/// `sched_process_fork(parent, child)`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tracepoint/sched_process_fork")]
pub extern "C" fn finject_fork(ctx: *const RawArgs) -> u32 {
    // SAFETY: the program's own context.
    let (parent, child) = unsafe { ((*ctx).args[0], (*ctx).args[1]) };
    target::forked(parent as *const u8, child as *const u8);
    0
}

/// `sched_process_exit(task)`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tracepoint/sched_process_exit")]
pub extern "C" fn finject_exit(ctx: *const RawArgs) -> u32 {
    // SAFETY: the program's own context.
    target::exited(unsafe { (*ctx).args[0] } as *const u8);
    0
}

/// `sched_process_exec(task, old_pid, bprm)`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tracepoint/sched_process_exec")]
pub extern "C" fn finject_exec(ctx: *const RawArgs) -> u32 {
    // SAFETY: the program's own context.
    target::execed(unsafe { (*ctx).args[0] } as *const u8);
    0
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// What makes the GPL-only helpers available.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
