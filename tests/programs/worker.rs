//! Works as programs in Rust do, and says whether all came out as it should: threads that compute, pass
//! bytes through pipes and words through channels, and wait with a time; programs that it starts; a file
//! that it syncs.
//!
//! ```text
//! worker FILE SECONDS
//! ```
//!
//! On a line from standard input it does its job again and again for so long, and prints
//!
//! ```text
//! done laps=N digest=HEX wrong=N calls=N errors=N other=N alarms=N
//! ```
//!
//! digest: what one lap comes to; wrong: laps that came to something else or met an error that nobody
//! made; calls: fsyncs; errors: those that failed with EIO; other: with anything else; alarms: waits that
//! ended by their time. It ends with standard input.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Read as _, Write as _},
    process::{Command, ExitCode, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

const WORKERS: u64 = 4;
const STEPS: u32 = 2_000_000;
const BLOCKS: u64 = 16;
const SIZE: u64 = 8192;
const SYNCS: u64 = 12;
/// errno(3).
const EIO: i32 = 5;

#[derive(Default)]
struct Tally {
    calls: u64,
    errors: u64,
    other: u64,
    alarms: u64,
}

fn block(seed: u64, number: u64) -> Vec<u8> {
    (0..SIZE)
        .map(|at| (seed * 31 + number + at).to_le_bytes()[0])
        .collect()
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

fn computed(mut seed: u64) -> u64 {
    for _ in 0..STEPS {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
    }
    seed
}

/// Blocks that one thread writes to a pipe and this one reads from it.
fn piped(seed: u64) -> io::Result<u64> {
    let (mut reader, mut writer) = io::pipe()?;
    let writing = thread::spawn(move || {
        (0..BLOCKS).try_for_each(|number| writer.write_all(&block(seed, number)))
    });
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    let written = writing.join();
    written.map_err(|_| io::Error::other("the writer panicked"))??;
    Ok(digest(&bytes))
}

/// Waits that end by their time, and one that ends by a word; how many of the first there were.
fn waited() -> io::Result<u64> {
    let (send, receive) = channel();
    let mut alarms = 0;
    let telling = thread::spawn(move || {
        thread::sleep(Duration::from_millis(10));
        send.send(7_u64)
    });
    loop {
        match receive.recv_timeout(Duration::from_millis(2)) {
            Ok(7) => break,
            Err(RecvTimeoutError::Timeout) => alarms += 1,
            other => return Err(io::Error::other(format!("{other:?}"))),
        }
    }
    match telling.join() {
        Ok(Ok(())) => Ok(alarms),
        other => Err(io::Error::other(format!("{other:?}"))),
    }
}

/// A file, written piece by piece, each of them synced, and read back. A sync that fails as it was told
/// to is counted, and no mistake.
fn synced(path: &str, tally: &mut Tally) -> io::Result<u64> {
    let mut file = File::create(path)?;
    for number in 0..SYNCS {
        file.write_all(&block(9, number))?;
        tally.calls += 1;
        match file.sync_all() {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(EIO) => tally.errors += 1,
            Err(_) => tally.other += 1,
        }
    }
    Ok(digest(&fs::read(path)?))
}

/// What other programs make of their input.
fn started() -> io::Result<u64> {
    let mut cat = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    cat.stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(&block(3, 3)))?;
    let output = cat.wait_with_output()?;
    let status = Command::new("sh").args(["-c", "exit 3"]).status()?;
    if !output.status.success() || status.code() != Some(3) {
        let said = format!("statuses {}, {status}", output.status);
        return Err(io::Error::other(said));
    }
    Ok(digest(&output.stdout))
}

fn lap(path: &str, tally: &mut Tally) -> io::Result<u64> {
    thread::scope(|scope| {
        let parts: Vec<_> = (1..=WORKERS)
            .flat_map(|seed| {
                let computing = scope.spawn(move || Ok(computed(seed)));
                let piping = scope.spawn(move || piped(seed));
                [computing, piping]
            })
            .chain([scope.spawn(started)])
            .collect();
        let waiting = scope.spawn(waited);
        let mut sums = vec![synced(path, tally)?];
        let failed = |_| io::Error::other("a part panicked");
        for part in parts {
            sums.push(part.join().map_err(failed)??);
        }
        tally.alarms += waiting.join().map_err(failed)??;
        let mut hasher = DefaultHasher::new();
        sums.hash(&mut hasher);
        Ok(hasher.finish())
    })
}

fn work(path: &str, time: Duration) -> io::Result<()> {
    let (mut laps, mut wrong, mut first) = (0, 0, None);
    let mut tally = Tally::default();
    let start = Instant::now();
    while laps < 2 || start.elapsed() < time {
        match lap(path, &mut tally) {
            Ok(sum) => wrong += u64::from(*first.get_or_insert(sum) != sum),
            Err(error) => {
                eprintln!("{error}");
                wrong += 1;
            }
        }
        laps += 1;
    }
    let Tally {
        calls,
        errors,
        other,
        alarms,
    } = tally;
    let digest = first.unwrap_or(0);
    let mut stdout = io::stdout();
    writeln!(
        stdout,
        "done laps={laps} digest={digest:x} wrong={wrong} calls={calls} errors={errors} \
         other={other} alarms={alarms}"
    )?;
    stdout.flush()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, path, seconds] = arguments.as_slice() else {
        eprintln!("usage: see the head of worker.rs");
        return ExitCode::from(2);
    };
    let Ok(seconds) = seconds.parse() else {
        eprintln!("not a number of seconds: {seconds}");
        return ExitCode::from(2);
    };
    let mut line = String::new();
    let worked = writeln!(io::stdout(), "ready {} {path}", std::process::id())
        .and_then(|()| io::stdin().read_line(&mut line))
        .and_then(|_| work(path, Duration::from_secs(seconds)))
        .and_then(|()| io::copy(&mut io::stdin(), &mut io::sink()));
    match worked {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
