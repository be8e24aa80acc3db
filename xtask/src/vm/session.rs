//! One boot from its first byte to its end: what the guest says on each channel, and the time it has.

use super::stream::UntilMark;
use super::{Boot, BootError, Outcome, qemu, watchdog};
use anyhow::Context as _;
use std::io::{Read, Write as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// What the threads that read the emulator's channels report.
#[derive(Debug)]
enum Event {
    Console(Vec<u8>),
    /// 0 standard output, 1 standard error.
    Stream(usize, Vec<u8>),
    Control(Vec<u8>),
    Emulator(Vec<u8>),
}

/// Follows a machine to its end and says what came of it. The directory holds its sockets and its RAM disk.
///
/// # Errors
/// [`BootError`] for a machine that failed, others for output that could not be written.
pub(crate) fn follow(
    boot: &Boot,
    mut machine: qemu::Machine,
    mark: &[u8],
    directory: tempfile::TempDir,
) -> anyhow::Result<Outcome> {
    let events = listen(&mut machine)?;
    let mut session = Session {
        boot,
        filters: [UntilMark::new(mark), UntilMark::new(mark)],
        console: watchdog::Console::default(),
        emulator: Vec::new(),
        control: Vec::new(),
        directory: Some(directory),
        up: false,
        status: None,
        outcome: Outcome {
            status: 0,
            output: Vec::new(),
            stdout: Vec::new(),
        },
    };
    session.follow(&mut machine, &events)
}

/// Starts the reading threads; they end with the emulator.
fn listen(machine: &mut qemu::Machine) -> anyhow::Result<Receiver<Event>> {
    let (sender, events) = channel();
    pass_on(machine.console.try_clone()?, &sender, Event::Console);
    for (number, stream) in machine.streams.iter().enumerate() {
        pass_on(stream.try_clone()?, &sender, move |bytes| {
            Event::Stream(number, bytes)
        });
    }
    pass_on(machine.control.try_clone()?, &sender, Event::Control);
    if let Some(stderr) = machine.child.stderr.take() {
        pass_on(stderr, &sender, Event::Emulator);
    }
    Ok(events)
}

fn pass_on(
    mut from: impl Read + Send + 'static,
    to: &Sender<Event>,
    wrap: impl Fn(Vec<u8>) -> Event + Send + 'static,
) {
    let to = to.clone();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    if to.send(wrap(buffer[..length].to_vec())).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
}

/// One boot in progress.
struct Session<'a> {
    boot: &'a Boot,
    filters: [UntilMark; 2],
    console: watchdog::Console,
    emulator: Vec<u8>,
    control: Vec<u8>,
    /// The sockets and the RAM disk, until the guest has read them.
    directory: Option<tempfile::TempDir>,
    up: bool,
    status: Option<i32>,
    outcome: Outcome,
}

/// The time that a failing kernel has for the rest of its message, and a hanging guest for its report.
const GRACE: Duration = Duration::from_secs(3);

impl Session<'_> {
    fn follow(
        &mut self,
        machine: &mut qemu::Machine,
        events: &Receiver<Event>,
    ) -> anyhow::Result<Outcome> {
        let mut deadline = Instant::now() + self.boot.timeout;
        let mut failing = false;
        let mut late = false;
        loop {
            match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => self.take(event)?,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if failing || late => break,
                Err(RecvTimeoutError::Timeout) => {
                    late = true;
                    deadline = Instant::now() + GRACE;
                    // A guest that cannot listen has nothing to report.
                    let _ = machine.control.write_all(b"report\n");
                }
            }
            if self.console.failure().is_some() && !failing {
                failing = true;
                deadline = Instant::now() + GRACE;
            }
            if self.status.is_some() && self.filters.iter().all(UntilMark::ended) {
                late = false;
                self.power_off(machine, events)?;
                break;
            }
        }
        for number in 0..2 {
            let rest = self.filters[number].rest();
            self.emit(number, &rest)?;
        }
        self.verdict(late)
    }

    /// Has the guest switch itself off; an emulator that is still there after a while is killed by its drop.
    fn power_off(
        &mut self,
        machine: &mut qemu::Machine,
        events: &Receiver<Event>,
    ) -> anyhow::Result<()> {
        let _ = machine.control.write_all(b"off\n");
        let deadline = Instant::now() + GRACE * 3;
        while let Ok(event) =
            events.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.take(event)?;
        }
        Ok(())
    }

    fn verdict(&mut self, late: bool) -> anyhow::Result<Outcome> {
        let mut outcome = std::mem::replace(
            &mut self.outcome,
            Outcome {
                status: 0,
                output: Vec::new(),
                stdout: Vec::new(),
            },
        );
        let (console, output) = (self.console.text(), outcome.output.clone());
        if let Some(marker) = self.console.failure() {
            return Err(BootError::Panic {
                marker,
                console,
                output,
            }
            .into());
        }
        if late {
            let stage = if self.up {
                "the command still ran"
            } else {
                "the guest was not up"
            };
            let after = self.boot.timeout;
            return Err(BootError::Hang {
                stage,
                after,
                console,
                output,
            }
            .into());
        }
        let Some(status) = self.status else {
            let emulator = String::from_utf8_lossy(&self.emulator).into_owned();
            return Err(BootError::Off {
                emulator,
                console,
                output,
            }
            .into());
        };
        outcome.status = status;
        Ok(outcome)
    }

    fn take(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Console(bytes) => {
                if self.boot.console {
                    std::io::stderr().write_all(&bytes)?;
                }
                self.console.push(&bytes);
            }
            Event::Stream(number, bytes) => {
                let bytes = self.filters[number].push(&bytes);
                self.emit(number, &bytes)?;
            }
            Event::Control(bytes) => {
                self.control.extend(bytes);
                while let Some(end) = self.control.iter().position(|&byte| byte == b'\n') {
                    let line: Vec<u8> = self.control.drain(..=end).collect();
                    self.word(String::from_utf8_lossy(&line).trim());
                }
            }
            Event::Emulator(bytes) => self.emulator.extend(bytes),
        }
        Ok(())
    }

    fn word(&mut self, word: &str) {
        if word == "up" {
            self.up = true;
            // Removed now, it cannot stay behind however we end.
            self.directory = None;
        } else if let Some(status) = word.strip_prefix("exit ") {
            self.status = status.parse().ok();
        }
    }

    fn emit(&mut self, number: usize, bytes: &[u8]) -> anyhow::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.boot.capture {
            self.outcome.output.extend_from_slice(bytes);
            if number == 0 {
                self.outcome.stdout.extend_from_slice(bytes);
            }
        } else if number == 0 {
            let mut stdout = std::io::stdout().lock();
            stdout
                .write_all(bytes)
                .and_then(|()| stdout.flush())
                .context("cannot write the output")?;
        } else {
            std::io::stderr()
                .write_all(bytes)
                .context("cannot write the error output")?;
        }
        Ok(())
    }
}
