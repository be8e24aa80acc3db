//! Writes records as JSON lines. A stream that cannot be written never ends a session: the records
//! are counted as lost, and the summary says so. A reader that does not read never holds one up
//! either: records wait here, and are written only as far as the stream takes them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::Record;

/// What a pipe that poll(2) calls writable takes without a wait: `PIPE_BUF` of pipe(7).
const PIECE: usize = 4096;

/// The writer; records get their numbers here.
#[derive(Debug)]
pub struct Writer {
    out: Option<File>,
    /// The most that is written at once.
    piece: usize,
    /// Whole records, but for the part of the first that was written.
    waiting: VecDeque<u8>,
    /// A part of the first was.
    is_inside: bool,
    seq: u64,
    failed: u64,
    first_error: Option<io::Error>,
}

impl Writer {
    /// Writes nowhere.
    pub fn none() -> Self {
        Self {
            out: None,
            piece: PIECE,
            waiting: VecDeque::new(),
            is_inside: false,
            seq: 0,
            failed: 0,
            first_error: None,
        }
    }

    /// Writes to an open file.
    pub fn to(out: File) -> Self {
        let is_regular = out.metadata().is_ok_and(|metadata| metadata.is_file());
        Self {
            out: Some(out),
            piece: if is_regular { usize::MAX } else { PIECE },
            ..Self::none()
        }
    }

    /// Writes to a file, which is made or emptied; `-` is standard output. `without_waits` gives the same
    /// once more, where it can be written so.
    pub fn open(
        path: &Path,
        without_waits: impl FnOnce(BorrowedFd<'_>) -> Option<File>,
    ) -> io::Result<Self> {
        let out = if path.as_os_str() == "-" {
            File::from(io::stdout().as_fd().try_clone_to_owned()?)
        } else {
            File::create(path)?
        };
        Ok(Self::to(without_waits(out.as_fd()).unwrap_or(out)))
    }

    /// Whether records go anywhere.
    pub fn is_kept(&self) -> bool {
        self.out.is_some()
    }

    /// Numbers a record and lets it wait.
    pub fn write(&mut self, mut record: Record) {
        self.seq += 1;
        record.seq = self.seq;
        if self.out.is_none() {
            return;
        }
        match serde_json::to_writer(&mut self.waiting, &record) {
            Ok(()) => self.waiting.push_back(b'\n'),
            Err(error) => self.fail(1, error.into()),
        }
    }

    /// Bytes that wait to be written.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The stream, while something waits: to be polled, and then given to [`Writer::hand_on`].
    pub fn stream(&self) -> Option<BorrowedFd<'_>> {
        let out = self.out.as_ref().filter(|_| !self.waiting.is_empty())?;
        Some(out.as_fd())
    }

    /// Writes as much as a writable stream takes without a wait.
    pub fn hand_on(&mut self) {
        let Some(out) = &mut self.out else {
            return;
        };
        let (piece, _) = self.waiting.as_slices();
        match out.write(&piece[..piece.len().min(self.piece)]) {
            Ok(written) => {
                if let Some(last) = self.waiting.drain(..written).next_back() {
                    self.is_inside = last != b'\n';
                }
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => self.drop_waiting(error),
        }
    }

    /// Gives up what waits: it is counted as lost.
    pub fn give_up(&mut self) {
        let error = io::Error::other("finject was ended before its reader had taken them");
        self.drop_waiting(error);
        self.waiting.clear();
    }

    fn drop_waiting(&mut self, error: io::Error) {
        let ends = self.waiting.iter().filter(|byte| **byte == b'\n').count();
        // What ends the line of a half record, below, is none itself.
        let is_end_alone = !self.is_inside && self.waiting.front() == Some(&b'\n');
        self.waiting.clear();
        if std::mem::take(&mut self.is_inside) {
            // So that the next one is whole.
            self.waiting.push_back(b'\n');
        }
        self.fail((ends - usize::from(is_end_alone)) as u64, error);
    }

    fn fail(&mut self, records: u64, error: io::Error) {
        self.failed += records;
        self.first_error.get_or_insert(error);
    }

    /// Records that could not be written, and why the first could not.
    pub fn failure(&self) -> Option<(u64, &io::Error)> {
        self.first_error.as_ref().map(|error| (self.failed, error))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::os::fd::OwnedFd;

    use super::super::Kind;
    use super::*;

    #[test]
    fn records_are_numbered_densely_and_absent_fields_are_left_out() {
        let mut file = tempfile::tempfile().unwrap();
        let mut writer = Writer::to(file.try_clone().unwrap());
        writer.write(Record::new(Kind::Armed, 1, 2));
        writer.write(Record {
            pid: Some(7),
            ..Record::new(Kind::TargetStarted, 3, 4)
        });
        writer.hand_on();
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(
            text,
            "{\"seq\":1,\"mono_ns\":1,\"wall_ns\":2,\"kind\":\"armed\"}\n\
             {\"seq\":2,\"mono_ns\":3,\"wall_ns\":4,\"kind\":\"target-started\",\"pid\":7}\n"
        );
        assert!(writer.failure().is_none() && writer.stream().is_none());
    }

    #[test]
    fn a_full_disk_is_counted_and_ends_nothing() {
        let Ok(full) = File::options().write(true).open("/dev/full") else {
            return;
        };
        let mut writer = Writer::to(full);
        for _ in 0..3 {
            writer.write(Record::new(Kind::Armed, 1, 2));
            writer.hand_on();
        }
        let (failed, error) = writer.failure().unwrap();
        assert_eq!(failed, 3);
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    }

    #[test]
    fn what_a_pipe_does_not_take_waits_and_is_whole_in_the_end() {
        let (mut reader, end) = io::pipe().unwrap();
        let mut writer = Writer::to(OwnedFd::from(end).into());
        for _ in 0..200 {
            writer.write(Record::new(Kind::Armed, 1, 2));
        }
        let all = writer.waiting();
        assert!(all > PIECE);
        writer.hand_on();
        assert_eq!(writer.waiting(), all - PIECE);
        while writer.stream().is_some() {
            writer.hand_on();
        }
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.len(), all);
        assert!(text.lines().last().unwrap().starts_with("{\"seq\":200,"));
    }

    #[test]
    fn what_is_given_up_is_counted() {
        let (_reader, end) = io::pipe().unwrap();
        let mut writer = Writer::to(OwnedFd::from(end).into());
        for _ in 0..3 {
            writer.write(Record::new(Kind::Armed, 1, 2));
        }
        writer.give_up();
        assert_eq!(writer.failure().unwrap().0, 3);
        assert!(writer.stream().is_none());
    }

    #[test]
    fn the_record_behind_a_half_one_is_whole() {
        let (mut reader, end) = io::pipe().unwrap();
        let mut writer = Writer::to(OwnedFd::from(end).into());
        writer.piece = 20;
        writer.write(Record::new(Kind::Armed, 1, 2));
        writer.write(Record::new(Kind::Armed, 1, 2));
        writer.hand_on();
        writer.drop_waiting(io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(writer.failure().unwrap().0, 2);
        writer.drop_waiting(io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(
            writer.failure().unwrap().0,
            2,
            "an end of line is no record"
        );
        writer.piece = PIECE;
        for kind in [Kind::Armed, Kind::Disarmed] {
            writer.write(Record::new(kind, 1, 2));
            while writer.stream().is_some() {
                writer.hand_on();
            }
        }
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let last = text.lines().last().unwrap();
        assert!(
            last.starts_with("{\"seq\":4,") && last.ends_with('}'),
            "{text}"
        );
    }

    #[test]
    fn a_reader_that_has_gone_is_counted_in_records() {
        let (reader, end) = io::pipe().unwrap();
        drop(reader);
        let mut writer = Writer::to(OwnedFd::from(end).into());
        for _ in 0..200 {
            writer.write(Record::new(Kind::Armed, 1, 2));
        }
        writer.hand_on();
        let (failed, error) = writer.failure().unwrap();
        assert_eq!((failed, error.kind()), (200, ErrorKind::BrokenPipe));
        assert!(writer.stream().is_none());
    }
}
