//! Writes records as JSON lines. A stream that cannot be written never ends a session: the records
//! are counted as lost, and the summary says so.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::Record;

/// The writer; records get their numbers here.
pub struct Writer {
    out: Option<Box<dyn Write>>,
    seq: u64,
    failed: u64,
    first_error: Option<io::Error>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Writer")
            .field("seq", &self.seq)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Writes nowhere.
    pub fn none() -> Self {
        Self {
            out: None,
            seq: 0,
            failed: 0,
            first_error: None,
        }
    }

    /// Writes to any stream.
    pub fn to(out: impl Write + 'static) -> Self {
        Self {
            out: Some(Box::new(BufWriter::new(out))),
            ..Self::none()
        }
    }

    /// Writes to a file, which is made or emptied; `-` is standard output.
    pub fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::to(io::stdout()));
        }
        Ok(Self::to(File::create(path)?))
    }

    /// Numbers a record and writes it.
    pub fn write(&mut self, mut record: Record) {
        self.seq += 1;
        record.seq = self.seq;
        if self.out.is_none() {
            return;
        }
        let line = serde_json::to_string(&record).map_err(io::Error::from);
        let result = line.and_then(|line| match &mut self.out {
            Some(out) => writeln!(out, "{line}"),
            None => Ok(()),
        });
        self.note(result, 1);
    }

    /// Hands everything on.
    pub fn flush(&mut self) {
        let result = self.out.as_mut().map_or(Ok(()), Write::flush);
        self.note(result, 0);
    }

    fn note(&mut self, result: io::Result<()>, records: u64) {
        if let Err(error) = result {
            self.failed += records.max(1);
            self.first_error.get_or_insert(error);
        }
    }

    /// Records that could not be written, and why the first could not.
    pub fn failure(&self) -> Option<(u64, &io::Error)> {
        self.first_error.as_ref().map(|error| (self.failed, error))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::Kind;
    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn records_are_numbered_densely_and_absent_fields_are_left_out() {
        let sink = Sink::default();
        let mut writer = Writer::to(sink.clone());
        writer.write(Record::new(Kind::Armed, 1, 2));
        writer.write(Record {
            pid: Some(7),
            ..Record::new(Kind::TargetStarted, 3, 4)
        });
        writer.flush();
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            text,
            "{\"seq\":1,\"mono_ns\":1,\"wall_ns\":2,\"kind\":\"armed\"}\n\
             {\"seq\":2,\"mono_ns\":3,\"wall_ns\":4,\"kind\":\"target-started\",\"pid\":7}\n"
        );
        assert!(writer.failure().is_none());
    }

    #[test]
    fn a_full_disk_is_counted_and_ends_nothing() {
        let Ok(full) = File::options().write(true).open("/dev/full") else {
            return;
        };
        let mut writer = Writer::to(full);
        for _ in 0..3 {
            writer.write(Record::new(Kind::Armed, 1, 2));
            writer.flush();
        }
        let (failed, error) = writer.failure().unwrap();
        assert!(failed >= 3, "{failed}");
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    }
}
