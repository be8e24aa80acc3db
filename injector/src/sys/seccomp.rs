//! seccomp's user notification: a filter that hands chosen calls to a listener, and the listener's
//! side of it. seccomp_unotify(2); kernel/seccomp.c.

use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use super::SysError;
use super::mapping::Mapping;
use super::process::{PollFd, poll_fds};

// Constants of include/uapi/linux/audit.h: `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_I386`.
const ARCH_X86_64: u32 = 0xc000_003e;
const ARCH_I386: u32 = 0x4000_0003;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV` of include/uapi/linux/seccomp.h, Linux 5.19: a signal
/// that is not fatal does not take back a notification that was received. Without it a target with
/// a timer would restart one call for ever.
pub const WAIT_KILLABLE_RECV: u64 = 1 << 5;
/// `SECCOMP_IOCTL_NOTIF_SET_FLAGS` (`_IOW('!', 4, __u64)`) and its one flag, Linux 6.6: the listener
/// is woken on the caller's processor, since the caller sleeps from there on.
const SET_FLAGS: libc::c_ulong = 0x4008_2104;
const SYNC_WAKE_UP: u64 = 1;

/// A filter's instructions.
pub type Filter = Vec<libc::sock_filter>;

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

fn jump(k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt,
        jf,
        k,
    }
}

/// Whom a filter hands calls to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Its listener.
    Listener,
    /// The caller's tracer; without one they fail with ENOSYS.
    Tracer,
}

/// What the low half of an argument must be for a call to be handed over. An argument may be wider, so
/// that more calls may be handed over than are meant, and never fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Low {
    /// The argument's index, from 0.
    pub index: usize,
    /// What of it has to be so.
    pub must: Must,
}

/// See [`Low`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    /// The low 32 bits are these.
    Equal(u32),
    /// One of these bits is set.
    AnyBit(u32),
}

/// A number of one ABI, and which of its calls are handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The number.
    pub nr: u16,
    /// All conditions of one of these hold; [`None`] for every call.
    pub only: Option<Vec<Vec<Low>>>,
}

impl Wanted {
    /// Instructions up to which the conditions of one number are looked at: a jump over them reaches
    /// 255.
    const LONGEST: usize = 240;

    /// The filter's part for a call that has this number.
    fn part(&self, handed_over: u32) -> Filter {
        let mut part = Filter::new();
        for conditions in self.only.as_deref().unwrap_or_default() {
            let tests: Vec<[libc::sock_filter; 2]> = conditions.iter().map(Low::part).collect();
            let mut left = 2 * tests.len() + 1;
            for [load, mut test] in tests {
                left -= 2;
                // Over the tests that are left and the answer, where it does not hold.
                test.jf = u8::try_from(left).unwrap_or(u8::MAX);
                part.extend([load, test]);
            }
            part.push(answer(handed_over));
        }
        part.push(answer(libc::SECCOMP_RET_ALLOW));
        if self.only.is_none() || part.len() > Self::LONGEST {
            part = vec![answer(handed_over)];
        }
        part
    }
}

impl Low {
    fn part(&self) -> [libc::sock_filter; 2] {
        // Little-endian: the low half comes first.
        let at = offset_of!(libc::seccomp_data, args) + 8 * self.index;
        let test = |code: u32, k: u32| libc::sock_filter {
            code: (libc::BPF_JMP | code | libc::BPF_K) as u16,
            jt: 0,
            jf: 0,
            k,
        };
        let test = match self.must {
            Must::Equal(value) => test(libc::BPF_JEQ, value),
            Must::AnyBit(bits) => test(libc::BPF_JSET, bits),
        };
        [load(at), test]
    }
}

fn load(offset: usize) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset as u32)
}

fn answer(k: u32) -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, k)
}

/// The filter that hands the calls of the numbers given over and lets all others run. Of those the
/// kernel keeps a bitmap, so that they cost next to nothing however many are named
/// (kernel/seccomp.c, `seccomp_cache_check_allow`).
pub fn filter(to: To, native: &[Wanted], compat: &[Wanted]) -> Filter {
    let whole = filter_by(to, native, compat);
    if whole.len() <= MOST {
        return whole;
    }
    // Then arguments are left to whoever the calls are handed to.
    let every = |numbers: &[Wanted]| -> Vec<Wanted> {
        let every = |wanted: &Wanted| Wanted {
            nr: wanted.nr,
            only: None,
        };
        numbers.iter().map(every).collect()
    };
    filter_by(to, &every(native), &every(compat))
}

/// Instructions of one filter at most (`BPF_MAXINSNS` of include/uapi/linux/bpf_common.h).
const MOST: usize = 4096;

fn filter_by(to: To, native: &[Wanted], compat: &[Wanted]) -> Filter {
    let handed_over = match to {
        To::Listener => libc::SECCOMP_RET_USER_NOTIF,
        To::Tracer => libc::SECCOMP_RET_TRACE,
    };
    let mut filter = vec![load(offset_of!(libc::seccomp_data, arch))];
    for (arch, numbers) in [(ARCH_X86_64, native), (ARCH_I386, compat)] {
        // A jump reaches 255 instructions, so that what is skipped is skipped by each of them.
        let mut part = vec![load(offset_of!(libc::seccomp_data, nr))];
        for wanted in numbers {
            let own = wanted.part(handed_over);
            let over = u8::try_from(own.len()).unwrap_or(u8::MAX);
            part.push(jump(wanted.nr.into(), 0, over));
            part.extend(own);
        }
        part.push(answer(libc::SECCOMP_RET_ALLOW));
        filter.push(jump(arch, 1, 0));
        filter.push(statement(libc::BPF_JMP | libc::BPF_JA, part.len() as u32));
        filter.append(&mut part);
    }
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    filter
}

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The kernel's number of it.
    pub id: u64,
    /// The calling thread, as the receiver's pid namespace numbers it; 0 where it has no number.
    pub tid: u32,
    /// The 32-bit ABI.
    pub compat: bool,
    /// The call's number in that ABI.
    pub nr: u32,
    /// Where the caller's instruction pointer is.
    pub instruction: u64,
    /// The arguments.
    pub args: [u64; 6],
}

/// What a waiting call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It runs.
    Run,
    /// It does not run; `-errno`, or a value from 0 up.
    Value(i64),
}

/// The listener of a filter. While any process has the filter and nobody holds the listener, each of
/// the calls fails with ENOSYS.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Takes over what seccomp(2) returned.
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The descriptor: poll(2) says POLLHUP once no process has the filter any more.
    pub fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// Asks to be woken on the caller's processor; whether the kernel can.
    pub fn wake_on_callers_processor(&self) -> bool {
        // SAFETY: the flags are the argument itself.
        unsafe { libc::ioctl(self.0.as_raw_fd(), SET_FLAGS, SYNC_WAKE_UP) == 0 }
    }

    /// Whether a call waits that nobody has received.
    pub fn has_waiting(&self) -> bool {
        matches!(
            poll_fds(&mut [PollFd::readable(self.0.as_fd())], 0),
            Ok(1..)
        )
    }

    /// Whether the call still waits: its thread may have been killed.
    pub fn still_waits(&self, id: u64) -> bool {
        // SAFETY: eight bytes of ours.
        unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
                &raw const id,
            ) == 0
        }
    }

    fn send(&self, id: u64, answer: Answer) -> Result<(), SysError> {
        let (val, error, flags) = match answer {
            Answer::Run => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Answer::Value(value @ -4095..=-1) => (0, value as i32, 0),
            Answer::Value(value) => (value, 0, 0),
        };
        let mut response = libc::seccomp_notif_resp {
            id,
            val,
            error,
            flags,
        };
        // SAFETY: a response of ours.
        let sent = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SEND,
                &raw mut response,
            )
        };
        if sent == 0 {
            Ok(())
        } else {
            Err(SysError::last("ioctl(SECCOMP_IOCTL_NOTIF_SEND)"))
        }
    }
}

/// The calls that have been received and not yet answered, in memory that outlives the receiver: the
/// kernel writes a call's number there before the receiver can die with it, so that another process
/// can answer in its place. A received call that nobody answers waits until its process is killed.
#[derive(Debug)]
pub struct InFlight {
    mapping: Mapping,
    slots: usize,
}

/// Bytes from one receiver's room to the next.
const ROOM: usize = 128;
/// Calls that can wait at once for their answers, beside those that receivers are at work on.
pub const PARKED: usize = 1 << 16;

impl InFlight {
    /// Room for so many receivers, shared with processes that are forked after this.
    pub fn new(slots: usize) -> Result<Self, SysError> {
        Ok(Self {
            mapping: Mapping::anonymous((slots + 1) * ROOM + PARKED * size_of::<u64>())?,
            slots,
        })
    }

    /// How many receivers there may be.
    pub fn slots(&self) -> usize {
        self.slots
    }

    fn room(&self, slot: usize) -> *mut libc::seccomp_notif {
        const { assert!(size_of::<libc::seccomp_notif>() <= ROOM) };
        self.mapping.at((slot % self.slots) * ROOM).cast()
    }

    /// Waits for the next call. Each slot is one receiver's own. [`None`] where it was taken back, or
    /// the wait was interrupted.
    pub fn receive(
        &self,
        slot: usize,
        listener: &Listener,
    ) -> Result<Option<Notification>, SysError> {
        let room = self.room(slot);
        // SAFETY: room of this receiver alone, which the kernel wants zeroed.
        let received = unsafe {
            room.write_bytes(0, 1);
            libc::ioctl(listener.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, room)
        };
        if received < 0 {
            let error = SysError::last("ioctl(SECCOMP_IOCTL_NOTIF_RECV)");
            return match error.errno() {
                libc::EINTR | libc::ENOENT => Ok(None),
                _ => Err(error),
            };
        }
        // SAFETY: the kernel has filled it.
        let found = unsafe { room.read() };
        Ok(Some(Notification {
            id: found.id,
            tid: found.pid,
            compat: found.data.arch == ARCH_I386,
            nr: found.data.nr as u32,
            instruction: found.data.instruction_pointer,
            args: found.data.args,
        }))
    }

    /// Answers the call that `slot` has received. An error means that it no longer waited.
    pub fn answer(&self, slot: usize, listener: &Listener, answer: Answer) -> Result<(), SysError> {
        listener.send(self.id(slot), answer)
    }

    /// The receiver is done with its call.
    pub fn clear(&self, slot: usize) {
        // SAFETY: room of this receiver alone.
        unsafe { (&raw mut (*self.room(slot)).id).write_volatile(0) };
    }

    /// The number of the call that a receiver is at work on; 0 for none.
    pub fn at_work_on(&self, slot: usize) -> u64 {
        self.id(slot)
    }

    fn id(&self, slot: usize) -> u64 {
        // SAFETY: within the mapping; the id is one aligned word.
        unsafe { (&raw const (*self.room(slot)).id).read_volatile() }
    }

    fn place(&self, place: usize) -> Option<&AtomicU64> {
        let offset = (self.slots + 1) * ROOM + place * size_of::<u64>();
        self.mapping.word(offset).filter(|_| place < PARKED)
    }

    /// How many places are taken.
    fn taken(&self) -> Option<&AtomicU64> {
        self.mapping.word(self.slots * ROOM + size_of::<u64>())
    }

    /// Has a call wait that a receiver has received, who may then turn to others. Each place is one call's
    /// at a time, below [`PARKED`].
    pub fn park(&self, place: usize, id: u64) {
        if let (Some(word), Some(taken)) = (self.place(place), self.taken()) {
            taken.fetch_add(1, Release);
            word.store(id, Release);
        }
    }

    /// Answers a call that was parked. An error means that it no longer waited.
    pub fn answer_parked(
        &self,
        place: usize,
        listener: &Listener,
        answer: Answer,
    ) -> Result<(), SysError> {
        let id = self.place(place).map_or(0, |word| word.load(Acquire));
        listener.send(id, answer)
    }

    /// A parked call needs its place no longer.
    pub fn leave(&self, place: usize) {
        if let (Some(word), Some(taken)) = (self.place(place), self.taken())
            && word.swap(0, AcqRel) != 0
        {
            taken.fetch_sub(1, Release);
        }
    }

    /// A sign of life of the receivers' process.
    pub fn beat(&self) {
        if let Some(word) = self.mapping.word(self.slots * ROOM) {
            word.fetch_add(1, Relaxed);
        }
    }

    /// How many signs of life there have been.
    pub fn beats(&self) -> u64 {
        let word = self.mapping.word(self.slots * ROOM);
        word.map_or(0, |word| word.load(Relaxed))
    }

    /// Whether some call is not answered yet.
    fn is_busy(&self) -> bool {
        let is_parked = || self.taken().is_some_and(|taken| taken.load(Acquire) != 0);
        (0..self.slots).any(|slot| self.id(slot) != 0) || is_parked()
    }

    /// Waits until every call is answered, but not for longer than `time`.
    pub fn settle(&self, time: Duration) {
        let until = Instant::now() + time;
        while self.is_busy() && Instant::now() < until {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Lets the calls run that a receiver which is gone had not answered; how many there were. One
    /// that it had answered no longer waits, and is none.
    pub fn let_run(&self, listener: &Listener) -> usize {
        let left = |slot: &usize| {
            let id = self.id(*slot);
            let ran = id != 0 && listener.send(id, Answer::Run).is_ok();
            self.clear(*slot);
            ran
        };
        let parked = |place: &usize| {
            let id = self.place(*place).map_or(0, |word| word.load(Acquire));
            let ran = id != 0 && listener.send(id, Answer::Run).is_ok();
            self.leave(*place);
            ran
        };
        (0..self.slots).filter(left).count() + (0..PARKED).filter(parked).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(filter: &Filter, arch: u32, nr: u32) -> u32 {
        run_with(filter, arch, nr, [0; 6])
    }

    /// What a filter answers, by a reader of its few instructions.
    fn run_with(filter: &Filter, arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let instruction = &filter[at];
            at += 1;
            match u32::from(instruction.code) {
                0x20 if instruction.k == 0 => accumulator = nr,
                0x20 if instruction.k == 4 => accumulator = arch,
                0x20 => {
                    assert_eq!(instruction.k % 8, 0, "a low half");
                    accumulator = args[(instruction.k as usize - 16) / 8] as u32;
                }
                code @ (0x15 | 0x45) => {
                    let holds = match code {
                        0x15 => accumulator == instruction.k,
                        _ => accumulator & instruction.k != 0,
                    };
                    at += usize::from(if holds {
                        instruction.jt
                    } else {
                        instruction.jf
                    });
                }
                0x05 => at += instruction.k as usize,
                0x06 => return instruction.k,
                other => panic!("an instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn only_the_numbers_given_are_handed_over_each_in_its_abi() {
        let many: Vec<u16> = (0..400).filter(|nr| nr % 3 == 0).collect();
        for (native, compat) in [
            (vec![74], vec![118]),
            (vec![], vec![5]),
            (vec![], vec![]),
            (many.clone(), many),
        ] {
            let all = |numbers: &[u16]| -> Vec<Wanted> {
                let wanted = numbers.iter().map(|nr| Wanted {
                    nr: *nr,
                    only: None,
                });
                wanted.collect()
            };
            let filter = filter(To::Listener, &all(&native), &all(&compat));
            for nr in 0..=u16::try_from(libc::SYS_clone3).unwrap() + 10 {
                for (arch, numbers) in [(ARCH_X86_64, &native), (ARCH_I386, &compat)] {
                    let expected = if numbers.contains(&nr) {
                        libc::SECCOMP_RET_USER_NOTIF
                    } else {
                        libc::SECCOMP_RET_ALLOW
                    };
                    assert_eq!(run(&filter, arch, nr.into()), expected, "{arch:#x} {nr}");
                }
            }
            // x32 and what is to come.
            assert_eq!(
                run(&filter, ARCH_X86_64, 0x4000_004a),
                libc::SECCOMP_RET_ALLOW
            );
            assert_eq!(run(&filter, 0xc000_00b7, 74), libc::SECCOMP_RET_ALLOW);
        }
    }

    #[test]
    fn a_number_may_be_handed_over_for_some_arguments_only() {
        let low = |index, must| Low { index, must };
        let wanted = |nr, only: &[&[Low]]| Wanted {
            nr,
            only: Some(only.iter().map(|all| all.to_vec()).collect()),
        };
        let three_or_flagged: &[&[Low]] = &[
            &[low(0, Must::Equal(3)), low(2, Must::Equal(7))],
            &[low(5, Must::AnyBit(0x8000_0001))],
        ];
        let handed = libc::SECCOMP_RET_TRACE;
        for before in [0, 200] {
            // Whatever stands before and behind it, however far the jumps.
            let mut numbers: Vec<Wanted> = (300..300 + before)
                .map(|nr| wanted(nr, &[&[low(1, Must::Equal(1))]]))
                .collect();
            numbers.push(wanted(1, three_or_flagged));
            numbers.push(Wanted { nr: 2, only: None });
            numbers.push(wanted(3, &[]));
            let filter = filter(To::Tracer, &numbers, &[]);
            for (nr, args, expected) in [
                (1, [3, 0, 7, 0, 0, 0], true),
                (1, [3 | 1 << 32, 0, 7, 0, 0, 0], true),
                (1, [3, 0, 8, 0, 0, 0], false),
                (1, [4, 0, 7, 0, 0, 0], false),
                (1, [4, 0, 8, 0, 0, 1], true),
                (1, [4, 0, 8, 0, 0, 0x8000_0000], true),
                (1, [3, 0, 8, 0, 0, 2], false),
                (2, [0; 6], true),
                (3, [0; 6], false),
            ] {
                let answer = run_with(&filter, ARCH_X86_64, nr, args);
                assert_eq!(answer == handed, expected, "{nr} {args:?}");
                let other = run_with(&filter, ARCH_I386, nr, args);
                assert_eq!(other, libc::SECCOMP_RET_ALLOW);
            }
        }
        // More than a jump can span: all of them come.
        let many: Vec<Vec<Low>> = (0..200)
            .map(|n| vec![low(0, Must::Equal(1000 + n))])
            .collect();
        let long = Wanted {
            nr: 1,
            only: Some(many),
        };
        let filter = filter(To::Tracer, &[long], &[]);
        assert_eq!(run_with(&filter, ARCH_X86_64, 1, [0; 6]), handed);
    }
}
