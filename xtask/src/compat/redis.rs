//! Redis's own tests, from Debian's source package, on the servers of Debian's binary package.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::compare::{Outcome, Outcomes};
use super::run::Job;
use crate::{apt, repo, setup};

/// Those of its tests that fork servers, stop, kill and restart them, and load and write their files;
/// and of the others some that take seconds.
const UNITS: &[&str] = &[
    "unit/auth",
    "unit/multi",
    "unit/other",
    "unit/pubsub",
    "unit/shutdown",
    "unit/type/string",
    "unit/type/hash",
    "integration/aof",
    "integration/rdb",
    "integration/logging",
    "integration/redis-cli",
];

/// What the tests take from the directory in which Redis is built.
const PROGRAMS: &[&str] = &[
    "redis-server",
    "redis-cli",
    "redis-benchmark",
    "redis-check-aof",
    "redis-check-rdb",
];

/// What of the source the tests need.
const PARTS: &[&str] = &["runtest", "redis.conf", "tests", "utils"];

/// The source in the cache, fetched if it is not there.
pub(super) fn source() -> anyhow::Result<PathBuf> {
    let version = apt::candidate("redis-server")?;
    // An epoch's colon has no place in a name.
    let name = format!("redis-{}", version.replace(':', "."));
    let cache = repo::cache().join("compat");
    let ready = cache.join(name);
    if ready.is_dir() {
        return Ok(ready);
    }
    fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
    let fresh = tempfile::tempdir_in(&cache)?;
    let unpacked = apt::source("redis-server", "redis", &version, fresh.path())?;
    fs::rename(unpacked, &ready).with_context(|| format!("making {}", ready.display()))?;
    Ok(ready)
}

/// The command, and the tests' own copy of what they need in `directory`, where they leave their data.
pub(super) fn job(source: &Path, directory: &Path, log: &Path) -> anyhow::Result<Job> {
    for part in PARTS {
        let mut copy = std::process::Command::new("cp");
        copy.arg("-a").arg(source.join(part)).arg(directory);
        apt::quiet(&mut copy)?;
    }
    let built = directory.join("src");
    fs::create_dir(&built).with_context(|| format!("making {}", built.display()))?;
    for program in PROGRAMS {
        let path = setup::on_path(program).with_context(|| format!("there is no {program}"))?;
        symlink(path, built.join(program))?;
    }
    // One at a time, so that the results come in the order of the tests.
    let mut words = vec!["./runtest".into(), "--clients".into(), "1".into()];
    for unit in UNITS {
        words.extend(["--single".into(), (*unit).into()]);
    }
    Ok(Job {
        words,
        directory: directory.into(),
        log: log.into(),
    })
}

/// What the run has printed: a line `[ok]: NAME (3 ms)` for each test, after one that names the unit.
/// A name that comes again in a unit gets a number.
pub(super) fn outcomes(log: &Path) -> anyhow::Result<Outcomes> {
    let text = fs::read(log).with_context(|| format!("reading {}", log.display()))?;
    let outcomes = parse(&String::from_utf8_lossy(&text));
    ensure!(
        !outcomes.is_empty(),
        "Redis's tests did not run; see {}",
        log.display()
    );
    Ok(outcomes)
}

fn parse(text: &str) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let mut unit = "";
    for line in text.lines() {
        let line = line.trim_end();
        if let Some(name) = line.strip_prefix("Testing ") {
            unit = name;
            continue;
        }
        let Some((word, rest)) = line.strip_prefix('[').and_then(|it| it.split_once("]: ")) else {
            continue;
        };
        let (outcome, name) = match word {
            "ok" => (Outcome::Passed, without_time(rest)),
            "err" => (Outcome::Failed, without_place(rest)),
            "skip" | "ignore" => (Outcome::Skipped, rest),
            "exception" | "timeout" => (Outcome::Unfinished, rest),
            _ => continue,
        };
        let name = format!("{unit}: {name}");
        let mut numbered = name.clone();
        let mut number = 1;
        while outcomes.contains_key(&numbered) {
            number += 1;
            numbered = format!("{name} #{number}");
        }
        outcomes.insert(numbered, outcome);
    }
    outcomes
}

/// Without ` (3 ms)` at the end.
fn without_time(text: &str) -> &str {
    match text.rsplit_once(" (") {
        Some((name, time)) if time.ends_with("ms)") => name,
        _ => text,
    }
}

/// Without ` in tests/unit/other.tcl` and what comes after it.
fn without_place(text: &str) -> &str {
    text.split_once(" in tests/").map_or(text, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_results_are_read_by_unit_and_name() {
        let text = "\
Cleanup: may take some time... OK
Starting test server at port 21079
[ready]: 4711
Testing unit/multi
[ok]: MULTI / EXEC basics (0 ms)
[ok]: MULTI / EXEC basics (12 ms)
[err]: DISCARD in tests/unit/multi.tcl
Expected 'a' to be equal to 'b' (context: type eval line 4 cmd {x} proc ::test)
[skip]: a slow one (takes long)
[1/2 done]: unit/multi (3 seconds)
Testing unit/auth
[ok]: MULTI / EXEC basics (0 ms)
[exception]: Executing test client: no server.
";
        let expected = [
            (
                "unit/auth: Executing test client: no server.",
                Outcome::Unfinished,
            ),
            ("unit/auth: MULTI / EXEC basics", Outcome::Passed),
            ("unit/multi: DISCARD", Outcome::Failed),
            ("unit/multi: MULTI / EXEC basics", Outcome::Passed),
            ("unit/multi: MULTI / EXEC basics #2", Outcome::Passed),
            ("unit/multi: a slow one (takes long)", Outcome::Skipped),
        ];
        assert_eq!(
            parse(text),
            expected.map(|(name, it)| (name.to_owned(), it)).into()
        );
        assert!(parse("Starting test server at port 21079\n").is_empty());
    }
}
