//! Two real programs: sqlite3 that commits row by row, on a file system in memory, so that a disk's times do not hide
//! the tools'; and a C project that is built by as many compilers at a time as there are processors.

use super::super::row::{Aim, Fires, Tool};
use super::super::tool;
use super::super::victim::Victim;
use super::measure::Effort;
use super::place::placement;
use anyhow::Context as _;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// A program and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    /// sqlite3 inserts rows.
    Rows,
    /// make and cc build a project.
    Build,
}

/// A program, and where it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Job {
    /// What it does.
    pub(super) work: Work,
    /// Whether it and the tool run on one processor.
    pub(super) pinned: bool,
}

impl Work {
    /// The call that the rule names, of which it makes many.
    pub(super) fn call(self) -> &'static str {
        match self {
            Self::Rows => "fdatasync",
            Self::Build => "openat",
        }
    }
}

impl Job {
    /// In the order of the table. Nothing is parallel on one processor.
    pub(super) fn all() -> [Self; 3] {
        let job = |work, pinned| Self { work, pinned };
        [
            job(Work::Rows, true),
            job(Work::Rows, false),
            job(Work::Build, false),
        ]
    }

    /// Its name in the table.
    pub(super) fn label(self) -> &'static str {
        match self.work {
            Work::Rows => "sqlite3",
            Work::Build => "cc",
        }
    }
}

/// The directory in which they run.
#[derive(Debug)]
pub(super) struct Ground {
    directory: tempfile::TempDir,
    rows: u32,
    files: u32,
}

/// The script of the rows: each is a transaction of its own. With a write-ahead log it syncs once, and so less often than
/// strace counts.
fn script(rows: u32) -> String {
    let mut script =
        "PRAGMA journal_mode=WAL;\nPRAGMA synchronous=FULL;\nCREATE TABLE t(k INTEGER PRIMARY KEY, v TEXT);\n".to_owned();
    for row in 1..=rows {
        let _ = writeln!(script, "INSERT INTO t(v) VALUES('row {row}');");
    }
    script.push_str("SELECT count(*) FROM t;\n");
    script
}

/// One file of the project.
fn source(number: u32) -> String {
    let mut source = "#include <errno.h>\n#include <fcntl.h>\n#include <signal.h>\n#include <stdio.h>\n\
                      #include <stdlib.h>\n#include <string.h>\n#include <sys/stat.h>\n#include <unistd.h>\n"
        .to_owned();
    for part in 0..8 {
        let _ = write!(
            source,
            "static int part{part}(const char *name) {{\n    struct stat found;\n    char text[64];\n    \
             if (stat(name, &found) != 0) return errno;\n    \
             snprintf(text, sizeof text, \"%ld\", (long)found.st_size + {part});\n    \
             return (int)strlen(text);\n}}\n"
        );
    }
    let _ = writeln!(
        source,
        "int unit{number}(const char *name) {{\n    int sum = 0;"
    );
    for part in 0..8 {
        let _ = writeln!(source, "    sum += part{part}(name);");
    }
    source.push_str("    return sum;\n}\n");
    source
}

/// The file with the project's entry.
fn entry(files: u32) -> String {
    let mut source = String::new();
    for number in 0..files {
        let _ = writeln!(source, "int unit{number}(const char *name);");
    }
    source.push_str("int main(int count, char **words) {\n    int sum = count;\n");
    for number in 0..files {
        let _ = writeln!(source, "    sum += unit{number}(words[0]);");
    }
    source.push_str("    return sum == 0;\n}\n");
    source
}

fn makefile(files: u32) -> String {
    let objects: Vec<String> = (0..files).map(|number| format!("unit{number}.o")).collect();
    format!(
        "project: main.o {}\n\tcc -o $@ $^\n%.o: %.c\n\tcc -O1 -c -o $@ $<\n",
        objects.join(" ")
    )
}

impl Ground {
    /// Writes what they need.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn prepare(effort: Effort) -> anyhow::Result<Self> {
        let (rows, files) = match effort {
            Effort::Full => (20_000, 32),
            Effort::Quick => (1000, 6),
        };
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        }
        .context("cannot make a directory")?;
        let write = |name: String, text: String| fs::write(directory.path().join(name), text);
        write("rows.sql".into(), script(rows))?;
        for number in 0..files {
            write(format!("unit{number}.c"), source(number))?;
        }
        write("main.c".into(), entry(files))?;
        write("Makefile".into(), makefile(files))?;
        Ok(Self {
            directory,
            rows,
            files,
        })
    }

    /// What they do, in words.
    pub(super) fn describe(&self) -> String {
        let kind = if self.directory.path().starts_with("/dev/shm") {
            "in memory (/dev/shm)"
        } else {
            "in the directory for temporary files"
        };
        format!(
            "sqlite3 inserts {} rows with `synchronous=FULL` and a write-ahead log, each in a transaction of its own; `make -j` builds {} C \
             files, as many at a time as there are processors. The files lie {kind}.",
            self.rows,
            self.files + 1
        )
    }

    /// The shell's words: a tool may attach before anything is done.
    fn shell(&self, work: Work) -> anyhow::Result<Vec<OsString>> {
        let directory = self.directory.path().display();
        let begin = format!("cd {directory} && echo ready && read go && exec");
        let script = match work {
            Work::Rows => format!("{begin} sqlite3 -batch rows.db <rows.sql"),
            Work::Build => format!(
                "{begin} make -s -j{} project",
                std::thread::available_parallelism()?
            ),
        };
        Ok(vec!["sh".into(), "-c".into(), script.into()])
    }

    /// Removes what an earlier run has made.
    fn clear(&self) -> anyhow::Result<()> {
        for entry in fs::read_dir(self.directory.path())? {
            let path = entry?.path();
            let is_source = path
                .extension()
                .is_some_and(|extension| extension == "c" || extension == "sql");
            if !is_source && !path.ends_with("Makefile") {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Whether it did what it should.
    fn check(&self, work: Work, text: &str) -> anyhow::Result<()> {
        let is_done = match work {
            Work::Rows => text.lines().any(|line| line == self.rows.to_string()),
            Work::Build => self.directory.path().join("project").is_file(),
        };
        anyhow::ensure!(is_done, "it did not do its work: {text:?}");
        Ok(())
    }

    /// What a program takes under a tool, in seconds. The rule names a call and does not fire.
    ///
    /// # Errors
    /// When it failed, did not do its work, or finject saw none of its calls.
    pub(super) fn run(&self, job: Job, tool: Tool, processor: usize) -> anyhow::Result<f64> {
        self.clear()?;
        let placement = placement(job.pinned, processor);
        let aim = Aim {
            call: job.work.call(),
            fires: Fires::Never,
        };
        let mut words = placement.words();
        words.extend(tool::launcher(tool, aim));
        words.extend(self.shell(job.work)?);
        let mut victim = Victim::start(tool::command_of(words)?)?;
        let mut attached = tool::spawn(tool, aim, &[victim.id()], placement)?;
        if let Some(attached) = &mut attached {
            attached.wait_until_armed()?;
        }
        let since = Instant::now();
        victim.release()?;
        let text = victim.finish()?;
        let time = since.elapsed().as_secs_f64();
        self.check(job.work, &text)?;
        let counted = match attached {
            Some(attached) => attached.finish()?,
            None => tool::launched_count(tool, &text)?,
        };
        let least = match job.work {
            Work::Rows => self.rows,
            Work::Build => self.files,
        };
        anyhow::ensure!(
            counted.is_none_or(|counted| counted >= u64::from(least)),
            "finject counted {counted:?} calls"
        );
        Ok(time)
    }
}

#[cfg(test)]
mod tests {
    use super::{entry, makefile, script, source};

    #[test]
    fn every_row_is_a_transaction() {
        let script = script(3);
        assert_eq!(script.matches("INSERT").count(), 3);
        assert!(!script.contains("BEGIN"));
        assert!(script.contains("synchronous=FULL"));
    }

    #[test]
    fn every_file_of_the_project_is_used() {
        assert!(source(5).contains("int unit5(const char *name) {"));
        let entry = entry(2);
        assert_eq!(entry.matches("unit1(").count(), 2);
        assert!(makefile(2).contains("main.o unit0.o unit1.o"));
    }
}
