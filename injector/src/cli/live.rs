//! What a session shows while it runs: one line a firing on stderr, as many as a person can read;
//! the rest are counted. A stderr that nobody reads holds up nothing: what it does not take at once is
//! counted, too.

use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use injector_common::EventKind;

use crate::backend::HookReport;
use crate::backend::choose::Choice;
use crate::history::{Kind, Record};
use crate::session::Observer;
use crate::sys::process::{PollFd, poll_fds};
use crate::text::{counted, escaped};

/// Lines shown in each interval.
const LINES: u64 = 20;
/// The interval.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a pipe takes without a wait that poll(2) calls writable: `PIPE_BUF` of pipe(7).
const PIECE: usize = 4096;

/// Standard error, as far as it takes lines without a wait.
#[derive(Debug, Default)]
struct Out {
    /// Lines that found no room since the last that did.
    unsaid: u64,
}

impl Out {
    fn has_room() -> bool {
        let stderr = std::io::stderr();
        let mut fds = [PollFd::writable(stderr.as_fd())];
        matches!(poll_fds(&mut fds, 0), Ok(1..))
    }

    fn say(&mut self, line: &str) {
        if !Self::has_room() {
            self.unsaid += 1;
            return;
        }
        let mut text = String::new();
        if self.unsaid > 0 {
            let lines = counted(self.unsaid, "line", "lines");
            text = format!("finject: ... and {lines} for which there was no room here\n");
            self.unsaid = 0;
        }
        text.push_str("finject: ");
        text.push_str(line);
        if text.len() >= PIECE {
            text.truncate(text.floor_char_boundary(PIECE - 8));
            text.push_str(" ...");
        }
        text.push('\n');
        // In one piece, since the command writes there too. A closed stderr ends nothing.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// The observer of the command line.
#[derive(Debug)]
pub struct Live {
    out: Out,
    quiet: bool,
    colour: bool,
    ready: Option<OwnedFd>,
    since: Instant,
    shown: u64,
    left_out: u64,
    targets: String,
}

impl Live {
    /// `ready` gets a line once faults are in force; `targets` is how they are named.
    pub fn new(quiet: bool, ready: Option<OwnedFd>, targets: String) -> Self {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            out: Out::default(),
            quiet,
            colour,
            ready,
            since: Instant::now(),
            shown: 0,
            left_out: 0,
            targets,
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
    Some(format!(
        "{} #{}: {}{abi}({}) = {}  [{} {}/{}]",
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
        if let Some(ready) = self.ready.take() {
            let mut ready = std::fs::File::from(ready);
            if let Err(error) = ready.write_all(b"ready\n") {
                self.out.say(&format!(
                    "warning: --ready-fd could not be written: {error}"
                ));
            }
        }
        if !self.quiet {
            let number = hooks.functions as u64;
            let (targets, mechanism) = (&self.targets, &hooks.mechanism);
            self.out.say(&match hooks.tested {
                0 => format!(
                    "armed on {targets}: {} by {mechanism}",
                    counted(number, "call", "calls")
                ),
                tested => format!(
                    "armed on {targets}: {} of the kernel's hooked by {mechanism}, {} tried and \
                     failed as asked",
                    counted(number, "function", "functions"),
                    counted(tested as u64, "call", "calls"),
                ),
            });
            for (choice, why) in passed_over {
                self.out.say(&format!("not by {choice}: {why}"));
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
