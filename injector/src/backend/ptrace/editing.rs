//! Calls whose data is changed (`short:`, `corrupt:`): the thread makes its own call, with other arguments than it had
//! asked for, and has its registers back before it could look. Where a length in a register does not do, the parts of the
//! data are described anew in memory that the thread is made to map for it.

use std::collections::HashMap;
use std::sync::LazyLock;

use injector_common::limits::MAX_FLIPS;
use injector_common::rule::{ACT_CORRUPT, ACT_EDITS, ACT_SHORT};
use injector_common::{ArgKinds, Data, DataKind, RunState};

use super::data::{self, MESSAGE_PARTS, MESSAGE_WORDS, MOST_PARTS, Part, bytes_of};
use super::edit::{self, Piece};
use super::held::Held;
use super::sleep::Sleep;
use super::tracing::Tracing;
use crate::backend::memory::CallSlot;
use crate::backend::waits::Stay;
use crate::rule::lower::kinds_of;
use crate::sys::process::{read_memory, write_memory};
use crate::sys::ptrace::{self, Registers};
use crate::sys::time::monotonic_ns;
use crate::syscall::by_name;
use crate::target::process::Tgid;

/// Where in mapped memory the parts are described, behind the head of a message.
const PARTS: u64 = 64;
/// Where copies of parts of the data begin.
const COPIES: u64 = 5 * Data::BLOCK;
/// How much is mapped.
const MAPPED: u64 = COPIES + MAX_FLIPS as u64 * Data::BLOCK;
const _: () = assert!(PARTS + 16 * MOST_PARTS as u64 <= COPIES);

/// Sending that leaves the data with the program until the kernel is through with it (`MSG_ZEROCOPY` of
/// include/linux/socket.h).
const ZERO_COPY: u64 = 0x0400_0000;

/// Calls that send one part of data, and those that send several in the same way.
const SEVERAL: [(&str, &str); 3] = [
    ("write", "writev"),
    ("pwrite64", "pwritev"),
    ("sendto", "sendmsg"),
];

/// The call that does with several parts what another does with one.
fn of_several(call: CallSlot) -> Option<CallSlot> {
    static CALLS: LazyLock<Vec<(CallSlot, CallSlot)>> = LazyLock::new(|| {
        let mut pairs = Vec::new();
        for (one, several) in SEVERAL {
            for one in by_name(one) {
                let mut calls = by_name(several).into_iter();
                let several = calls.find(|several| several.id().abi == one.id().abi);
                pairs.extend(several.map(|several| (one.id().into(), several.id().into())));
            }
        }
        pairs
    });
    let found = CALLS.iter().find(|(one, _)| *one == call);
    found.map(|(_, several)| *several)
}

/// The call by which an ABI maps memory that is no file's.
fn mmap(compat: bool) -> Option<CallSlot> {
    let calls = by_name(if compat { "mmap2" } else { "mmap" });
    let mut slots = calls.into_iter().map(|call| CallSlot::from(call.id()));
    slots.find(|call| call.compat == compat)
}

/// What was changed of a call.
#[derive(Debug)]
pub(super) struct Edit {
    /// The registers with which the thread made it; [`None`] where it has them again, or still.
    before: Option<Registers>,
    /// Memory of the process's that it uses.
    memory: Option<u64>,
    /// The program's own description of a message that it receives into.
    message: Option<u64>,
    /// The data, as far as it is not cut off.
    parts: Vec<Part>,
    sends: bool,
}

impl Edit {
    /// Whether the thread has other registers than it had asked with.
    pub(super) fn is_on(&self) -> bool {
        self.before.is_some()
    }
}

/// Memory that processes were made to map, and that no call uses.
#[derive(Debug, Default)]
pub(super) struct Spare {
    /// By process.
    all: HashMap<u32, Vec<u64>>,
    /// By the thread that has mapped it, and is about to use it.
    own: HashMap<u32, u64>,
}

impl Spare {
    fn take(&mut self, tgid: u32, tid: u32) -> Option<u64> {
        let own = self.own.remove(&tid);
        own.or_else(|| self.all.get_mut(&tgid)?.pop())
    }

    fn give(&mut self, tid: u32, address: u64) {
        self.own.insert(tid, address);
    }

    fn put(&mut self, tgid: u32, address: u64) {
        self.all.entry(tgid).or_default().push(address);
    }

    /// A thread has ended, and leaves to its process what it has mapped.
    pub(super) fn leave(&mut self, tgid: u32, tid: u32) {
        if let Some(address) = self.own.remove(&tid) {
            self.put(tgid, address);
        }
    }

    /// A process has ended, or has another program.
    pub(super) fn forget(&mut self, tgid: u32) {
        self.all.remove(&tgid);
        self.own.remove(&tgid);
    }
}

/// To how much of the data the call is cut, and which of its bits are flipped when it is sent. Takes down both.
fn plan(stay: &mut Stay, data: Data, sends: bool) -> (u64, Vec<u64>) {
    let mut bytes = data.bytes;
    for (firing, done) in stay.firings() {
        if firing.actions() & ACT_SHORT != 0 {
            let left = Data { bytes, ..data };
            bytes = bytes.min(firing.kept(&left));
            done.bytes = bytes;
        }
    }
    let mut flips = Vec::new();
    for (firing, done) in stay.firings() {
        if sends && firing.actions() & ACT_CORRUPT != 0 {
            done.bytes = bytes;
            flips.extend(firing.flips(bytes));
        }
    }
    (bytes, flips)
}

/// Flips a bit of a thread's memory.
fn flip(tid: u32, parts: &[Part], flip: u64) -> bool {
    let mut byte = [0];
    let Some(at) = edit::address_of(parts, flip / 8) else {
        return false;
    };
    if read_memory(tid, at, &mut byte).is_err() {
        return false;
    }
    byte[0] ^= 1 << (flip % 8);
    write_memory(tid, at, &byte).is_ok()
}

/// What is to stand in mapped memory, by address.
type Draft = Vec<(u64, Vec<u8>)>;

/// Data that there is room for, copied whole, with bits flipped: the call stays the one that it is, which matters to files
/// that take what they are given in pieces for something else (eventfd(2)).
fn copy_whole(tid: u32, memory: u64, parts: &[Part], flips: &[u64]) -> Option<Draft> {
    let [part] = parts else {
        return None;
    };
    let mut copy = vec![0; usize::try_from(part.len).ok()?];
    read_memory(tid, part.at, &mut copy).ok()?;
    for flip in flips {
        *copy.get_mut(usize::try_from(flip / 8).ok()?)? ^= 1 << (flip % 8);
    }
    Some(vec![(memory + COPIES, copy)])
}

/// The pieces, and the parts that describe them; [`None`] where several rules flip more bits than there is room for.
fn lay_out(tid: u32, memory: u64, pieces: &[Piece], data: Data, compat: bool) -> Option<Draft> {
    let mut draft = Draft::new();
    let mut words = Vec::new();
    let mut room = memory + COPIES;
    for piece in pieces {
        let part = match piece {
            Piece::Own(part) => *part,
            Piece::Copy { of, flips } => {
                let mut copy = vec![0; usize::try_from(of.len).ok()?];
                read_memory(tid, of.at, &mut copy).ok()?;
                for (byte, bit) in flips {
                    *copy.get_mut(*byte)? ^= 1 << bit;
                }
                let part = Part { at: room, ..*of };
                draft.push((room, copy));
                room += data.unit;
                part
            }
        };
        words.extend([part.at, part.len]);
    }
    draft.push((memory + PARTS, bytes_of(&words, compat)));
    (room <= memory + MAPPED).then_some(draft)
}

/// Puts back what the kernel has told of a received message: the lengths of its sender's name and of its control data,
/// and its flags.
fn tell_message(tid: u32, memory: u64, message: u64, compat: bool) {
    // `msg_namelen`, `msg_controllen`, `msg_flags`: where they are, and how long.
    let fields = if compat {
        [(4, 4), (20, 4), (24, 4)]
    } else {
        [(8, 4), (40, 8), (48, 4)]
    };
    for (at, len) in fields {
        let mut field = [0; 8];
        if read_memory(tid, memory + at, &mut field[..len]).is_ok() {
            let _ = write_memory(tid, message + at, &field[..len]);
        }
    }
}

impl Tracing<'_> {
    /// What a thread's call is about to move.
    pub(super) fn data(&self, tgid: u32, tid: u32, call: CallSlot, args: &[u64; 6]) -> Data {
        let kinds = kinds_of(call.into());
        data::of(&self.proc, (tgid, tid), call.compat, kinds, args)
    }

    /// A thread is at the entry of a call, of which something may have to be changed.
    pub(super) fn edit(&mut self, tid: u32) {
        let Some(mut held) = self.keeping.has_run(tid) else {
            return;
        };
        if held.stay.has_edits()
            && !held.is_changed()
            && self.own.memory.state() == RunState::Armed
            && !self.stopped.holds(held.facts.tgid)
        {
            held.edit = self.change(tid, &mut held);
        }
        self.keeping.let_run(tid, held);
    }

    /// Changes a call at whose entry a thread is; [`None`] where that cannot be done, or not before the thread has
    /// come to the entry once more.
    fn change(&mut self, tid: u32, held: &mut Held) -> Option<Edit> {
        let facts = &held.facts;
        let (tgid, args) = (facts.tgid, facts.args);
        let call = CallSlot {
            compat: facts.abi != 0,
            nr: facts.nr as u16,
        };
        let kinds = kinds_of(call.into());
        let parts = data::parts(tid, call.compat, kinds, &args)?;
        let data = self.data(tgid, tid, call, &args);
        let (bytes, flips) = plan(&mut held.stay, data, kinds.sends());
        let mut edit = Edit {
            before: None,
            memory: None,
            message: None,
            parts: edit::cut(&parts, bytes),
            sends: kinds.sends(),
        };
        if bytes == data.bytes && flips.is_empty() {
            return Some(edit);
        }
        let before = Registers::of(tid).ok()?;
        let mut registers = before;
        if kinds.data() == DataKind::Buffer && flips.is_empty() {
            registers.set_arg(call.compat, 2, bytes);
        } else {
            let flags = match kinds.data() {
                DataKind::Message => args[2],
                DataKind::Buffer => args[3],
                DataKind::Vector | DataKind::None => 0,
            };
            let is_socket =
                kinds.data() == DataKind::Message || of_several(call).is_some_and(is_message);
            if is_socket && flags & ZERO_COPY != 0 && !flips.is_empty() || !self.is_unjudged(tid) {
                return None;
            }
            let Some(memory) = self.spare.take(tgid, tid) else {
                if !std::mem::replace(&mut held.has_mapped, true) {
                    self.map(tid, call.compat);
                }
                return None;
            };
            edit.memory = Some(memory);
            let drafted = if kinds.data() == DataKind::Buffer && bytes <= MAPPED - COPIES {
                copy_whole(tid, memory, &edit.parts, &flips).inspect(|_| {
                    registers.set_arg(call.compat, 1, memory + COPIES);
                    registers.set_arg(call.compat, 2, bytes);
                })
            } else {
                edit::pieces(&edit.parts, &flips, data.unit).and_then(|pieces| {
                    let mut draft = lay_out(tid, memory, &pieces, data, call.compat)?;
                    let at = (memory, pieces.len() as u64);
                    let head = arrange(tid, call, kinds, &args, at, &mut registers)?;
                    draft.push((memory, bytes_of(&head, call.compat)));
                    Some(draft)
                })
            };
            let Some(draft) = drafted else {
                self.spare.put(tgid, memory);
                return None;
            };
            let mut written = draft.iter();
            if !written.all(|(at, bytes)| write_memory(tid, *at, bytes).is_ok()) {
                // The program has taken it away: another is mapped the next time.
                return None;
            }
            let receives = kinds.data() == DataKind::Message && !kinds.sends();
            edit.message = receives.then_some(args[1]);
        }
        if registers.set(tid).is_err() {
            if let Some(memory) = edit.memory {
                self.spare.put(tgid, memory);
            }
            return None;
        }
        if registers.nr() != before.nr() {
            self.own.let_pass_no_longer(tid);
            self.own.let_pass(tid, &registers);
        }
        edit.before = Some(before);
        if let Some(tracee) = self.tracees.get_mut(&tid) {
            tracee.is_edited = true;
        }
        Some(edit)
    }

    /// Whether no filter of the target's own judges what call a thread makes instead.
    fn is_unjudged(&mut self, tid: u32) -> bool {
        if self.own.is_filtered() {
            // The filter that hands calls over, and those under which finject runs itself, let all of these run.
            let own = self.proc.filters(Tgid(std::process::id()));
            let its = self.proc.filters(Tgid(tid));
            return own.is_some_and(|own| its == Some(own + 1));
        }
        !self.proc.has_filter(Tgid(tid)) || self.unfilter(tid)
    }

    /// Has a thread at the entry of its call map memory first; it comes to the entry again, and gets no signal before
    /// that.
    fn map(&mut self, tid: u32, compat: bool) {
        let (Ok(before), Ok(blocked), Some(call)) = (
            Registers::of(tid),
            ptrace::blocked_signals(tid),
            mmap(compat),
        ) else {
            return;
        };
        let mut registers = before;
        registers.set_nr(call.nr);
        let readable = libc::PROT_READ | libc::PROT_WRITE;
        let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let none = u64::from(u32::MAX);
        let words = [0, MAPPED, readable as u64, private as u64, none, 0];
        for (index, word) in words.into_iter().enumerate() {
            registers.set_arg(compat, index, word);
        }
        if ptrace::block_signals(tid, u64::MAX).is_err() {
            return;
        }
        if registers.set(tid).is_err() {
            let _ = ptrace::block_signals(tid, blocked);
            return;
        }
        self.own.let_pass(tid, &registers);
        if let Some(tracee) = self.tracees.get_mut(&tid) {
            tracee.mapping = Some(before);
            tracee.blocked = Some(blocked);
            tracee.inside = true;
        }
    }

    /// A thread leaves the call by which it has mapped memory, and goes back to the one that it was about to make.
    pub(super) fn mapped(&mut self, tid: u32) {
        let acts = self.own.acts();
        let Some(tracee) = self.tracees.get_mut(&tid) else {
            return;
        };
        let Some(before) = tracee.mapping.take() else {
            return;
        };
        tracee.inside = false;
        tracee.again = !acts;
        let Ok(after) = Registers::of(tid) else {
            return;
        };
        if !(-4095..0).contains(&after.result()) {
            self.spare.give(tid, after.result().cast_unsigned());
        }
        let mut again = before;
        again.make_again();
        let _ = again.set(tid);
        self.own.let_pass_no_longer(tid);
        self.own.let_pass(tid, &before);
    }

    /// A thread leaves a call that was changed: it has its registers back, and the kernel makes the call again, if it
    /// does, as it was.
    pub(super) fn change_back(&mut self, tid: u32) {
        let Some(mut held) = self.keeping.has_run(tid) else {
            return;
        };
        if let Some(edit) = &mut held.edit
            && let Some(before) = edit.before.take()
        {
            let mut result = 0;
            if let Ok(mut registers) = Registers::of(tid) {
                result = registers.result();
                registers.put_back(&before);
                let _ = registers.set(tid);
            }
            if let Some(memory) = edit.memory.take() {
                if let Some(message) = edit.message.filter(|_| result >= 0) {
                    tell_message(tid, memory, message, held.facts.abi != 0);
                }
                self.spare.put(held.facts.tgid, memory);
            }
        }
        if let Some(tracee) = self.tracees.get_mut(&tid) {
            tracee.is_edited = false;
        }
        self.keeping.let_run(tid, held);
    }

    /// A call has come to its end: what was changed of it has happened, unless it failed. What was read gets its
    /// flipped bits.
    pub(super) fn tell_edits(&self, tid: u32, held: &mut Held, result: i64) {
        let Some(edit) = held.edit.take() else {
            return;
        };
        let is_armed = self.own.memory.state() == RunState::Armed;
        for (firing, done) in held.stay.firings() {
            let edits = firing.actions() & ACT_EDITS;
            if edits == 0 {
                continue;
            }
            let Ok(moved) = u64::try_from(result) else {
                done.is_moot = true;
                continue;
            };
            if edits == ACT_CORRUPT {
                if !edit.sends {
                    // Of a datagram that was cut off the whole length is told.
                    done.bytes = moved.min(data::length(&edit.parts));
                    if !is_armed {
                        continue;
                    }
                }
                // The kernel may have taken less than it was given.
                let flips: Vec<u64> = firing.flips(done.bytes).collect();
                let flipped = flips.iter().filter(|flip| **flip / 8 < moved).count();
                if flipped == 0 {
                    done.is_moot = true;
                    continue;
                }
                done.bits = firing.bits(done.bytes);
                done.flipped = u16::try_from(flipped).unwrap_or(u16::MAX);
                if !edit.sends && !flips.iter().all(|bit| flip(tid, &edit.parts, *bit)) {
                    continue;
                }
            }
            done.actions |= edits;
        }
    }

    /// A thread is gone that was in a call: its memory is its process's.
    pub(super) fn spare_memory(&mut self, held: &Held) {
        if let Some(memory) = held.edit.as_ref().and_then(|edit| edit.memory) {
            self.spare.put(held.facts.tgid, memory);
        }
    }

    /// The faults are over: threads in calls that are changed are asked to stop, so that they have their registers back
    /// and make their calls as they had asked for them.
    pub(super) fn end_edits(&mut self) {
        for (tid, tracee) in &mut self.tracees {
            if tracee.is_edited && tracee.asked.is_none() {
                self.own.pulse.begin(monotonic_ns());
                tracee.asked = Some(Sleep::of(*tid).still(*tid));
                self.is_owing = true;
                let _ = ptrace::interrupt(*tid);
            }
        }
    }
}

/// Sets the registers for a call whose parts are described in mapped memory; the head of its message, where it has one.
fn arrange(
    tid: u32,
    call: CallSlot,
    kinds: ArgKinds,
    args: &[u64; 6],
    (memory, number): (u64, u64),
    registers: &mut Registers,
) -> Option<Vec<u64>> {
    let parts = memory + PARTS;
    let compat = call.compat;
    Some(match kinds.data() {
        DataKind::None => return None,
        DataKind::Vector => {
            registers.set_arg(compat, 1, parts);
            registers.set_arg(compat, 2, number);
            Vec::new()
        }
        DataKind::Message => {
            registers.set_arg(compat, 1, memory);
            let mut head = data::words(tid, args[1], MESSAGE_WORDS, call.compat)?;
            head[MESSAGE_PARTS] = parts;
            head[MESSAGE_PARTS + 1] = number;
            head
        }
        DataKind::Buffer => {
            let several = of_several(call)?;
            registers.set_nr(several.nr);
            if is_message(several) {
                registers.set_arg(compat, 1, memory);
                registers.set_arg(compat, 2, args[3]);
                vec![args[4], args[5], parts, number, 0, 0, 0]
            } else {
                registers.set_arg(compat, 1, parts);
                registers.set_arg(compat, 2, number);
                Vec::new()
            }
        }
    })
}

/// Whether the call's data is a message's.
fn is_message(call: CallSlot) -> bool {
    kinds_of(call.into()).data() == DataKind::Message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sends_one_part_has_a_call_for_several() {
        let slot = |compat, nr| CallSlot { compat, nr };
        for (one, several) in [
            (slot(false, 1), slot(false, 20)),
            (slot(false, 18), slot(false, 296)),
            (slot(false, 44), slot(false, 46)),
            (slot(true, 4), slot(true, 146)),
            (slot(true, 181), slot(true, 334)),
            (slot(true, 369), slot(true, 370)),
        ] {
            assert_eq!(of_several(one), Some(several), "{one:?}");
        }
        assert_eq!(of_several(slot(false, 0)), None);
        assert_eq!(
            (mmap(false), mmap(true)),
            (Some(slot(false, 9)), Some(slot(true, 192)))
        );
    }

    #[test]
    fn memory_is_its_process_s() {
        let mut spare = Spare::default();
        spare.put(1, 100);
        assert_eq!(spare.take(2, 21), None);
        spare.give(11, 200);
        assert_eq!((spare.take(1, 12), spare.take(1, 12)), (Some(100), None));
        assert_eq!(spare.take(1, 11), Some(200), "for whoever has mapped it");
        spare.give(11, 200);
        spare.leave(1, 11);
        assert_eq!(spare.take(1, 12), Some(200));
        spare.put(1, 100);
        spare.forget(1);
        assert_eq!(spare.take(1, 11), None);
    }
}
