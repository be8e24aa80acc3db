//! Records of firings on their way to finject from its process that decides: a ring in memory that the two share. To
//! leave a record there takes no system call, of which one costs a tenth of a call that a rule fails. A pipe beside it
//! wakes finject, once each time that it has found the ring empty.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU64, fence};
use std::sync::{Arc, Mutex, PoisonError};

use injector_common::Event;

use crate::sys::helper::pipe_without_waits;
use crate::sys::mapping::Mapping;
use crate::sys::{SysError, bytes_of, value_of};

/// Records that find room: a firing every 5 us for 40 ms, in which finject may not have come to look.
const ROOM: u64 = 8192;
const SIZE: usize = size_of::<Event>();
const WORD: usize = size_of::<u64>();

// Where what lies in the memory; what the two sides write is not in one cache line.
const WRITTEN: usize = 0;
const READ: usize = 64;
const WAITS: usize = 128;
const RECORDS: usize = 192;

/// The memory.
#[derive(Debug)]
struct Ring(Mapping);

impl Ring {
    /// A word; of an offset outside there is none, and no such is asked for.
    fn word(&self, offset: usize) -> &AtomicU64 {
        static NOWHERE: AtomicU64 = AtomicU64::new(0);
        let word = self.0.word(offset);
        debug_assert!(word.is_some(), "a word outside of the ring");
        word.unwrap_or(&NOWHERE)
    }

    /// How many records were ever written.
    fn written(&self) -> &AtomicU64 {
        self.word(WRITTEN)
    }

    /// How many of them were read.
    fn read(&self) -> &AtomicU64 {
        self.word(READ)
    }

    /// 1 while finject waits for the bell.
    fn waits(&self) -> &AtomicU64 {
        self.word(WAITS)
    }

    /// The words of the record with a number.
    fn record(&self, number: u64) -> impl Iterator<Item = &AtomicU64> {
        let base = RECORDS + (number % ROOM) as usize * SIZE;
        (base..base + SIZE).step_by(WORD).map(|at| self.word(at))
    }
}

/// The end of whoever decides.
#[derive(Debug)]
pub(super) struct Sender {
    ring: Arc<Ring>,
    /// Never waits.
    bell: File,
    /// Held while a record is written.
    turn: Mutex<()>,
}

/// finject's end.
#[derive(Debug)]
pub(super) struct Receiver {
    ring: Arc<Ring>,
    bell: File,
}

/// A ring for a process that is forked after this.
pub(super) fn ring() -> Result<(Sender, Receiver), SysError> {
    let memory = Mapping::anonymous(RECORDS + ROOM as usize * SIZE)?;
    let ring = Arc::new(Ring(memory));
    let (bell, rope) = pipe_without_waits()?;
    let sender = Sender {
        ring: Arc::clone(&ring),
        bell: rope.into(),
        turn: Mutex::new(()),
    };
    let receiver = Receiver {
        ring,
        bell: bell.into(),
    };
    Ok((sender, receiver))
}

impl Sender {
    /// The descriptor that the process has to keep.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Leaves a record; false where there is no room.
    pub(super) fn send(&self, event: &Event) -> bool {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = &self.ring;
        let number = ring.written().load(Relaxed);
        if number.wrapping_sub(ring.read().load(Acquire)) >= ROOM {
            return false;
        }
        let (words, _) = bytes_of(event).as_chunks::<WORD>();
        for (to, word) in ring.record(number).zip(words) {
            to.store(u64::from_ne_bytes(*word), Relaxed);
        }
        ring.written().store(number + 1, Release);
        // Either this sees that finject waits, or finject, which has said so before it looked once more,
        // sees the record.
        fence(SeqCst);
        self.wake();
        true
    }

    /// Wakes finject where it waits.
    pub(super) fn wake(&self) {
        let waits = self.ring.waits();
        if waits.load(Relaxed) == 1 && waits.swap(0, AcqRel) == 1 {
            // One that is full has been rung, and without a reader there is nobody to hear it.
            let _ = (&self.bell).write(&[0]);
        }
    }
}

impl Receiver {
    /// The descriptor to poll; there is something to hear, once [`next`](Self::next) gave nothing, when
    /// it will give something.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The next record; [`None`] when there is none now.
    pub(super) fn next(&self) -> Option<Event> {
        if let Some(event) = self.take() {
            return Some(event);
        }
        // What was rung before; then what comes from here on rings again. A bell may also ring late, for a
        // record that was taken without it.
        let _ = (&self.bell).read(&mut [0; 64]);
        self.ring.waits().store(1, Relaxed);
        fence(SeqCst);
        self.take()
    }

    fn take(&self) -> Option<Event> {
        let ring = &self.ring;
        let number = ring.read().load(Relaxed);
        if number == ring.written().load(Acquire) {
            return None;
        }
        let mut bytes = [0; SIZE];
        let (words, _) = bytes.as_chunks_mut::<WORD>();
        for (word, from) in words.iter_mut().zip(ring.record(number)) {
            *word = from.load(Relaxed).to_ne_bytes();
        }
        ring.read().store(number + 1, Release);
        value_of(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::sys::process::{PollFd, poll_fds};

    fn record(number: u64) -> Event {
        Event {
            kind: 1,
            rule: 2,
            count: number,
            ordinal: 4,
            mono_ns: 5,
            tgid: 6,
            tid: 7,
            comm: *b"sixteen letters.",
            abi: 9,
            nr: 10,
            args: [11, 12, 13, 14, 15, u64::MAX - number],
            actions: 17,
            signal: 18,
            value: -19,
            delay_ns: 20,
            after_delay_ns: 21,
            after_signal: 22,
            bits: 23,
            flipped: 24,
            bytes: 25,
        }
    }

    fn rings(receiver: &Receiver, wait_ms: i32) -> bool {
        poll_fds(&mut [PollFd::readable(receiver.fd())], wait_ms).unwrap() > 0
    }

    #[test]
    fn a_full_ring_takes_no_more_until_it_is_read() {
        let (sender, receiver) = ring().unwrap();
        for number in 0..ROOM {
            assert!(sender.send(&record(number)));
        }
        assert!(!sender.send(&record(ROOM)));
        assert_eq!(receiver.next(), Some(record(0)));
        assert!(sender.send(&record(ROOM)));
        assert!(!sender.send(&record(ROOM + 1)));
        for number in 1..=ROOM {
            assert_eq!(receiver.next(), Some(record(number)));
        }
        assert_eq!(receiver.next(), None);
    }

    #[test]
    fn the_bell_rings_once_for_whoever_found_nothing() {
        let (sender, receiver) = ring().unwrap();
        assert!(sender.send(&record(0)));
        assert!(!rings(&receiver, 0), "nobody has looked yet");
        assert!(receiver.next().is_some());
        for round in 0..3 {
            assert_eq!(receiver.next(), None);
            assert!(!rings(&receiver, 0), "{round}");
            for number in 0..3 {
                assert!(sender.send(&record(number)));
                assert!(rings(&receiver, 0), "{round}");
            }
            let mut heard = [0; 64];
            assert_eq!((&receiver.bell).read(&mut heard).unwrap(), 1, "{round}");
            for number in 0..3 {
                assert_eq!(receiver.next(), Some(record(number)));
            }
        }
    }

    #[test]
    fn a_bell_that_rings_late_is_heard_once() {
        let (sender, receiver) = ring().unwrap();
        assert_eq!(receiver.next(), None);
        // A record is sent, and taken by a receiver that looks by itself, before the bell is rung.
        assert_eq!(receiver.ring.waits().swap(0, AcqRel), 1);
        assert_eq!(receiver.next(), None);
        (&sender.bell).write_all(&[0]).unwrap();
        assert!(rings(&receiver, 0));
        assert_eq!(receiver.next(), None);
        assert!(!rings(&receiver, 0));
    }

    #[test]
    fn who_waits_for_the_bell_misses_nothing() {
        const RECORDS: u64 = 200_000;
        let (sender, receiver) = ring().unwrap();
        let reader = std::thread::spawn(move || {
            let mut expected = 0;
            while expected < RECORDS {
                match receiver.next() {
                    Some(event) => {
                        assert_eq!(event, record(expected));
                        expected += 1;
                    }
                    None => assert!(rings(&receiver, 10_000), "{expected} of {RECORDS}"),
                }
            }
        });
        for number in 0..RECORDS {
            while !sender.send(&record(number)) {
                std::thread::yield_now();
            }
            if number % 7 == 0 {
                std::thread::yield_now();
            }
        }
        reader.join().unwrap();
    }

    proptest! {
        #[test]
        fn it_is_a_queue_with_an_end(steps in prop::collection::vec((any::<bool>(), 1..2 * ROOM), 1..12)) {
            let (sender, receiver) = ring().unwrap();
            let (mut queue, mut next) = (VecDeque::new(), 0);
            for (is_sent, number) in steps {
                for _ in 0..number {
                    if is_sent {
                        let has_room = queue.len() < ROOM as usize;
                        prop_assert_eq!(sender.send(&record(next)), has_room);
                        if has_room {
                            queue.push_back(next);
                        }
                        next += 1;
                    } else {
                        prop_assert_eq!(receiver.next(), queue.pop_front().map(record));
                    }
                }
            }
        }
    }
}
