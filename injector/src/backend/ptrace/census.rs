//! How often each thread makes each call, counted by the tracer and handed over at its end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use crate::backend::memory::CallSlot;
use crate::syscall::CallId;

/// The calls of one thread that have one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The thread.
    pub tid: u32,
    /// The call.
    pub call: CallId,
    /// How many were made.
    pub number: u64,
}

/// The counters.
#[derive(Debug)]
pub(super) struct Census {
    numbers: Mutex<BTreeMap<(u32, CallSlot), u64>>,
    out: File,
}

impl Census {
    /// All at 0; `out` is the end of a pipe that its reader empties.
    pub(super) fn new(out: File) -> Self {
        Self {
            numbers: Mutex::default(),
            out,
        }
    }

    /// The descriptor that a process has to keep.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.out.as_fd()
    }

    /// Counts one.
    pub(super) fn count(&self, tid: u32, call: CallSlot) {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        *numbers.entry((tid, call)).or_default() += 1;
    }

    /// Writes them all, a line each. A reader that is gone wants none.
    pub(super) fn hand_over(&self) {
        let numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for ((tid, call), number) in numbers.iter() {
            let compat = u8::from(call.compat);
            let _ = writeln!(text, "{tid} {compat} {} {number}", call.nr);
        }
        let _ = (&self.out).write_all(text.as_bytes());
    }
}

/// One line of what was handed over.
fn parse(line: &str) -> Option<Counted> {
    let mut fields = line.split(' ');
    let tid = fields.next()?.parse().ok()?;
    let compat = fields.next()? == "1";
    let nr = fields.next()?.parse().ok()?;
    let number = fields.next()?.parse().ok()?;
    Some(Counted {
        tid,
        call: CallSlot { compat, nr }.into(),
        number,
    })
}

/// Reads what is handed over, up to its end.
pub(super) fn read(from: &File) -> Vec<Counted> {
    let lines = BufReader::new(from).lines().map_while(Result::ok);
    lines.filter_map(|line| parse(&line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::helper::pipe;

    #[test]
    fn what_is_handed_over_is_what_was_counted() {
        let (reader, writer) = pipe().unwrap();
        let census = Census::new(writer.into());
        let [read_call, compat] = [false, true].map(|compat| CallSlot { compat, nr: 3 });
        for (tid, call) in [(7, read_call), (7, read_call), (9, compat)] {
            census.count(tid, call);
        }
        census.hand_over();
        drop(census);
        let wanted = [(7, read_call, 2), (9, compat, 1)];
        let wanted = wanted.map(|(tid, call, number)| Counted {
            tid,
            call: call.into(),
            number,
        });
        assert_eq!(read(&reader.into()), wanted);
    }
}
