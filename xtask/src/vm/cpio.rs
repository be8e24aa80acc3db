//! Archives in the "newc" format, the one the kernel unpacks as its initial RAM disk
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

/// An archive that is being written.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const REGULAR: u32 = 0o100_000;

impl Archive {
    /// Adds a directory that everyone may read.
    pub(crate) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[]);
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, CHARACTER_DEVICE | 0o600, (major, minor), &[]);
    }

    /// Adds an executable file.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, REGULAR | 0o755, (0, 0), content);
    }

    /// The whole archive, with the trailer.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    /// One header (magic, then 13 fields of 8 hexadecimal digits), name and content, each padded to 4.
    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let fields = [
            self.inode,
            mode,
            0, // uid
            0, // gid
            1, // links
            0, // time
            u32::try_from(content.len()).unwrap_or(u32::MAX),
            0, // device of the file system, major
            0, // and minor
            device.0,
            device.1,
            u32::try_from(path.len() + 1).unwrap_or(u32::MAX),
            0, // checksum, unused by this magic
        ];
        self.inode += 1;
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn an_archive_is_headers_names_and_contents_padded_to_four() {
        let mut archive = Archive::default();
        archive.directory("d");
        archive.device("console", 5, 1);
        archive.file("d/f", b"hello");
        let expected = [
            "07070100000000000041ed000000000000000000000001000000000000000000000000000000000000000000000000",
            "0000000200000000d\0",
            "07070100000001000021800000000000000000000000010000000000000000000000000000000000000005",
            "000000010000000800000000console\0\0\0",
            "070701000000020000",
            "81ed000000000000000000000001000000000000000500000000000000000000000000000000",
            "0000000400000000d/f\0\0\0hello\0\0\0",
            "070701000000000000000000000000000000000000000100000000000000000000000000000000000000000000000",
            "00000000b00000000TRAILER!!!\0\0\0\0",
        ]
        .concat();
        assert_eq!(String::from_utf8(archive.finish()).unwrap(), expected);
    }

    #[test]
    fn every_entry_starts_on_a_multiple_of_four() {
        let mut archive = Archive::default();
        for length in 0..9 {
            archive.file(&"n".repeat(length + 1), &vec![b'x'; length]);
        }
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let starts: Vec<usize> = (0..bytes.len() - 6)
            .filter(|&at| &bytes[at..at + 6] == b"070701")
            .collect();
        assert_eq!(starts.len(), 10);
        assert!(starts.iter().all(|at| at % 4 == 0), "{starts:?}");
    }
}
