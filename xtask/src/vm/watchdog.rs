//! Reads the guest's console for the words with which a kernel says that it is broken.

/// What the kernel says when it cannot go on, or when what it does from now on proves nothing.
const MARKERS: &[&str] = &[
    "Kernel panic",
    "BUG:",
    "kernel BUG at",
    "Oops",
    "general protection fault",
    "soft lockup",
    "hard LOCKUP",
];

/// The marker in a console line, if the kernel reports its own failure there.
///
/// Lines that start with `traps:` are about a program that crashed, which a fault injector's targets may do.
pub(crate) fn marker(line: &str) -> Option<&'static str> {
    if line.contains("traps:") {
        return None;
    }
    // `DEBUG:` holds `BUG:`, and is none.
    let stands_alone = |at: usize| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
    MARKERS
        .iter()
        .copied()
        .find(|marker| line.match_indices(marker).any(|(at, _)| stands_alone(at)))
}

/// The console: every byte kept, up to a bound, and every line searched.
#[derive(Debug, Default)]
pub(crate) struct Console {
    text: Vec<u8>,
    line: Vec<u8>,
    found: Option<&'static str>,
}

/// What is kept of a console; the oldest goes first.
const KEPT: usize = 1 << 20;

impl Console {
    /// Takes the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\r' => {}
                b'\n' => {
                    self.search();
                    self.line.clear();
                    self.text.push(b'\n');
                }
                _ => {
                    self.line.push(byte);
                    self.text.push(byte);
                }
            }
        }
        // A line that never ends is a line, too: the machine may have stopped in the middle of it.
        self.search();
        if self.text.len() > KEPT {
            self.text.drain(..self.text.len() - KEPT / 2);
        }
    }

    fn search(&mut self) {
        if self.found.is_none() {
            self.found = marker(&String::from_utf8_lossy(&self.line));
        }
    }

    /// The first marker seen.
    pub(crate) fn failure(&self) -> Option<&'static str> {
        self.found
    }

    /// The text so far, without carriage returns.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{Console, marker};

    #[test]
    fn a_broken_kernel_is_recognised_and_a_crashing_program_is_not() {
        for (line, expected) in [
            (
                "[    3.1] Kernel panic - not syncing: sysrq triggered crash",
                Some("Kernel panic"),
            ),
            ("[    3.1] systemd: DEBUG: all is well", None),
            (
                "[    3.1] BUG: unable to handle page fault for address: 0",
                Some("BUG:"),
            ),
            (
                "[    3.1] kernel BUG at mm/slub.c:1!",
                Some("kernel BUG at"),
            ),
            ("[    3.1] Oops: 0002 [#1] PREEMPT SMP", Some("Oops")),
            (
                "[    3.1] Oops: general protection fault, maybe for address 0x1",
                Some("Oops"),
            ),
            (
                "[    3.1] general protection fault, probably for non-canonical",
                Some("general protection fault"),
            ),
            (
                "[   99.1] watchdog: BUG: soft lockup - CPU#1 stuck for 22s!",
                Some("BUG:"),
            ),
            (
                "[    3.1] traps: victim[99] general protection fault ip:401000",
                None,
            ),
            (
                "[    3.1] victim[99]: segfault at 0 ip 0 sp 0 error 4",
                None,
            ),
            ("[    3.1] debugging enabled", None),
            ("", None),
        ] {
            assert_eq!(marker(line), expected, "{line}");
        }
    }

    #[test]
    fn a_marker_is_found_however_the_bytes_arrive() {
        let text = b"[1] quiet\r\n[2] Kernel panic - not syncing\r\nmore";
        for size in 1..text.len() {
            let mut console = Console::default();
            for chunk in text.chunks(size) {
                console.push(chunk);
            }
            assert_eq!(
                console.failure(),
                Some("Kernel panic"),
                "in pieces of {size}"
            );
            assert_eq!(
                console.text(),
                "[1] quiet\n[2] Kernel panic - not syncing\nmore"
            );
        }
    }
}
