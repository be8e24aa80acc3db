//! What a session shows while it runs: one line a firing on stderr, as many as a person can read;
//! the rest are counted. A stderr that nobody reads holds up nothing: what it does not take at once is
//! counted, too.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use injector_common::EventKind;

use crate::backend::HookReport;
use crate::backend::choose::Choice;
use crate::history::{Kind, Record};
use crate::session::Observer;
use crate::sys::process::{PollFd, outlive, poll_fds, without_waits};
use crate::text::{counted, escaped};

/// Lines shown in each interval.
const LINES: u64 = 20;
/// The interval.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a pipe takes without a wait that poll(2) calls writable: `PIPE_BUF` of pipe(7).
const PIECE: usize = 4096;

/// Standard error, as far as it takes lines without a wait.
#[derive(Debug)]
struct Out {
    /// The same once more, where it can be written without waits.
    own: Option<File>,
    /// The last line was not taken to its end.
    is_torn: bool,
    /// Lines that found no room since the last that did.
    unsaid: u64,
}

impl Out {
    fn to(stream: BorrowedFd<'_>) -> Self {
        Self {
            own: without_waits(stream),
            is_torn: false,
            unsaid: 0,
        }
    }

    /// Whether it takes a piece without a wait.
    fn has_room(&self) -> bool {
        let stderr = std::io::stderr();
        let stream = self.own.as_ref().map_or(stderr.as_fd(), File::as_fd);
        matches!(poll_fds(&mut [PollFd::writable(stream)], 0), Ok(1..))
    }

    fn say(&mut self, line: &str) {
        if !self.has_room() {
            self.unsaid += 1;
            return;
        }
        let mut text = String::new();
        if self.is_torn {
            text.push('\n');
        }
        if self.unsaid > 0 {
            let lines = counted(self.unsaid, "line", "lines");
            let _ = writeln!(
                text,
                "finject: ... and {lines} for which there was no room here"
            );
        }
        let _ = write!(text, "finject: {line}");
        if text.len() >= PIECE {
            text.truncate(text.floor_char_boundary(PIECE - 8));
            text.push_str(" ...");
        }
        text.push('\n');
        // In one piece, since the command writes there too. A closed stderr ends nothing.
        let written = match &mut self.own {
            Some(own) => own.write(text.as_bytes()),
            None => std::io::stderr().write(text.as_bytes()),
        };
        match written {
            Ok(length) if length < text.len() => {
                self.is_torn = true;
                self.unsaid += 1;
            }
            Ok(_) => (self.is_torn, self.unsaid) = (false, 0),
            Err(_) => self.unsaid += 1,
        }
    }
}

/// The observer of the command line.
#[derive(Debug)]
pub struct Live {
    out: Out,
    quiet: bool,
    colour: bool,
    ready: Option<OwnedFd>,
    /// It goes on when whoever waits for that line has ended.
    is_detached: bool,
    since: Instant,
    shown: u64,
    left_out: u64,
    targets: String,
}

impl Live {
    /// `ready` gets a line once faults are in force; `targets` is how they are named.
    pub fn new(quiet: bool, ready: Option<OwnedFd>, targets: String) -> Self {
        Self {
            out: Out::to(std::io::stderr().as_fd()),
            quiet,
            colour: super::colour(),
            ready,
            is_detached: false,
            since: Instant::now(),
            shown: 0,
            left_out: 0,
            targets,
        }
    }

    /// The same of a session that is left in the background.
    #[must_use]
    pub fn detached(self) -> Self {
        Self {
            is_detached: true,
            ..self
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Tells how many lines were left out since the last time, if any were.
    pub fn settle(&mut self) {
        if self.left_out > 0 {
            let firings = counted(self.left_out, "more firing", "more firings");
            self.out.say(&format!("... and {firings} not shown here"));
            self.left_out = 0;
        }
    }
}

/// One firing, as strace shows a call: `r1 #3: fdatasync(0x7) = EIO  [redis-server 123/125]`.
fn describe(record: &Record) -> Option<String> {
    let call = record.call.as_ref()?;
    let abi = if call.abi == "64" { "" } else { "@32" };
    let waits = [call.delay_ns, call.after_delay_ns];
    let waited = waits.into_iter().flatten().map(Duration::from_nanos);
    let waited = waited.reduce(|before, after| before + after);
    let waited = waited.map_or_else(String::new, |waited| format!(", waited {waited:.1?}"));
    Some(format!(
        "{} #{}: {}{abi}({}) = {}{waited}  [{} {}/{}]",
        record.rule.as_deref().unwrap_or("?"),
        record.count.unwrap_or(0),
        call.call,
        call.args.join(", "),
        call.action,
        escaped(record.comm.as_deref().unwrap_or("?")),
        record.pid.unwrap_or(0),
        record.tid.unwrap_or(0),
    ))
}

impl Observer for Live {
    fn armed(&mut self, hooks: &HookReport, passed_over: &[(Choice, String)]) {
        if !self.quiet {
            let number = hooks.functions as u64;
            let (targets, mechanism) = (&self.targets, &hooks.mechanism);
            self.out.say(&match hooks.tested {
                0 => format!(
                    "armed on {targets}: {} by {mechanism}",
                    counted(number, "call", "calls")
                ),
                tested => format!(
                    "armed on {targets}: {} of the kernel's hooked by {mechanism}, {} tried and {}",
                    counted(number, "function", "functions"),
                    counted(tested as u64, "call", "calls"),
                    hooks.shown,
                ),
            });
            for (choice, why) in passed_over {
                self.out.say(&format!("not by {choice}: {why}"));
            }
        }
        if let Some(ready) = self.ready.take() {
            if self.is_detached {
                // Whoever waits for the line below does not wait any longer.
                outlive();
            }
            let mut ready = File::from(ready);
            if let Err(error) = ready.write_all(b"ready\n") {
                self.out.say(&format!(
                    "warning: --ready-fd could not be written: {error}"
                ));
            }
        }
    }

    fn wants(&mut self, kind: EventKind) -> bool {
        if self.quiet || kind != EventKind::Fired {
            return false;
        }
        let has_room = self.shown < LINES;
        if has_room {
            self.shown += 1;
        } else {
            self.left_out += 1;
        }
        has_room
    }

    fn record(&mut self, record: &Record) {
        if self.quiet || record.kind != Kind::Fired {
            return;
        }
        if let Some(line) = describe(record) {
            self.out.say(&self.paint("1", &line));
        }
    }

    fn note(&mut self, note: &str) {
        if !self.quiet {
            self.out.say(note);
        }
    }

    fn warning(&mut self, warning: &str) {
        self.out
            .say(&format!("{}: {warning}", self.paint("33", "warning")));
    }

    fn turn(&mut self) {
        if self.since.elapsed() >= INTERVAL {
            self.since = Instant::now();
            self.shown = 0;
            self.settle();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    /// poll(2) calls a terminal writable that would make a whole line wait.
    #[test]
    fn a_terminal_that_nobody_reads_holds_nothing_up() {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let terminal = File::options()
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        let mut out = Out::to(terminal.as_fd());
        let mut said = 0_u64;
        while out.unsaid < 10 {
            out.say("a line of which many fit, and then one that does not, be it in part");
            said += 1;
            assert!(said < 1_000_000, "it takes any number of lines");
        }
        let mut master = File::from(master);
        let mut taken = vec![0; 1 << 20];
        while out.unsaid > 0 {
            let _ = master.read(&mut taken).unwrap();
            out.say("there is room again");
        }
    }
}
