//! seccomp's user notification: a filter that hands chosen calls to a listener, and the listener's
//! side of it. seccomp_unotify(2); kernel/seccomp.c.

use std::mem::offset_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::SysError;
use super::mapping::Mapping;

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

/// The filter that hands the calls of the numbers given over and lets all others run. Of those the
/// kernel keeps a bitmap, so that they cost next to nothing however many are named
/// (kernel/seccomp.c, `seccomp_cache_check_allow`).
pub fn filter(to: To, native: &[u16], compat: &[u16]) -> Filter {
    let handed_over = match to {
        To::Listener => libc::SECCOMP_RET_USER_NOTIF,
        To::Tracer => libc::SECCOMP_RET_TRACE,
    };
    let load = |offset: usize| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset as u32);
    let answer = |k| statement(libc::BPF_RET | libc::BPF_K, k);
    let mut filter = vec![load(offset_of!(libc::seccomp_data, arch))];
    for (arch, numbers) in [(ARCH_X86_64, native), (ARCH_I386, compat)] {
        // A jump reaches 255 instructions, so that what is skipped is skipped by each of them.
        let mut part = vec![load(offset_of!(libc::seccomp_data, nr))];
        for nr in numbers {
            part.push(jump(u32::from(*nr), 0, 1));
            part.push(answer(handed_over));
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

impl InFlight {
    /// Room for so many receivers, shared with processes that are forked after this.
    pub fn new(slots: usize) -> Result<Self, SysError> {
        Ok(Self {
            mapping: Mapping::anonymous((slots + 1) * ROOM)?,
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

    fn id(&self, slot: usize) -> u64 {
        // SAFETY: within the mapping; the id is one aligned word.
        unsafe { (&raw const (*self.room(slot)).id).read_volatile() }
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

    /// Whether some receiver is at work on a call.
    fn is_busy(&self) -> bool {
        (0..self.slots).any(|slot| self.id(slot) != 0)
    }

    /// Waits until no receiver is at work on a call, but not for longer than `time`.
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
        (0..self.slots).filter(left).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a filter answers, by a reader of its few instructions.
    fn run(filter: &Filter, arch: u32, nr: u32) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let instruction = &filter[at];
            at += 1;
            match u32::from(instruction.code) {
                0x20 if instruction.k == 4 => accumulator = arch,
                0x20 => accumulator = nr,
                0x15 if accumulator == instruction.k => at += usize::from(instruction.jt),
                0x15 => at += usize::from(instruction.jf),
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
            let filter = filter(To::Listener, &native, &compat);
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
}
