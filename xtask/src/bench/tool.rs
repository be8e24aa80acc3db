//! The tools in the guest: how each is started with the rule, when it is armed, how it is ended, and how many calls it
//! says it saw.

use super::programs;
use super::row::{Fires, Script, Tool};
use crate::repo;
use anyhow::{Context as _, bail};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The function that fsync is, on x86-64.
const STUB: &str = "__x64_sys_fsync";
/// What bpftrace 0.17 takes for -1 (its literals are unsigned): any errno costs the same, but EIO shows that it was ours.
const MINUS_EIO: u64 = 0_u64.wrapping_sub(5);
/// A count that no loop reaches.
const NEVER: u64 = 1_000_000_000;
/// The same for strace, whose counts end at 65535 (strace(1), `when=`).
const STRACE_NEVER: u32 = 65_535;

/// The time in which a tool has to be armed and to end.
const PATIENCE: Duration = Duration::from_secs(90);

/// A tool that runs.
#[derive(Debug)]
pub(super) struct Running {
    tool: Tool,
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: Option<BufReader<ChildStderr>>,
}

/// The rule as a bpftrace script.
pub(super) fn script(script: Script, target: u32, fires: Fires) -> String {
    let count = match fires {
        Fires::Never => format!("@c == {NEVER}"),
        Fires::Always => "@c >= 1".to_owned(),
    };
    let body = format!("{{ @c++; if ({count}) {{ override({MINUS_EIO}); }} }}");
    match script {
        Script::OnePid => format!("kprobe:{STUB} /pid == {target}/ {body}"),
        Script::Tree => format!(
            "BEGIN {{ @t[{target}] = 1; }} kprobe:{STUB},kprobe:__ia32_sys_fsync /@t[pid]/ {body} \
             tracepoint:sched:sched_process_fork /@t[pid]/ {{ @t[args->child_pid] = 1; }}"
        ),
    }
}

/// The rule in finject's language.
pub(super) fn rule(fires: Fires) -> String {
    match fires {
        Fires::Never => format!("fsync=EIO@{NEVER}"),
        Fires::Always => "fsync=EIO".to_owned(),
    }
}

/// strace's words up to the target.
pub(super) fn strace_words() -> [String; 6] {
    [
        "-f".to_owned(),
        "-o".to_owned(),
        "/dev/null".to_owned(),
        "-e".to_owned(),
        "trace=fsync".to_owned(),
        format!("--inject=fsync:error=EIO:when={STRACE_NEVER}"),
    ]
}

/// The command of a tool that attaches; none where it launches its target or there is none.
fn command(tool: Tool, fires: Fires, targets: &[u32]) -> anyhow::Result<Option<Command>> {
    let first = *targets.first().unwrap_or(&0);
    Ok(Some(match tool {
        Tool::Bare | Tool::StraceSeccomp => return Ok(None),
        Tool::Empty(mechanism) => {
            let mut command = Command::new(programs().join("bench_floor"));
            command.args([mechanism, STUB]);
            command
        }
        Tool::Finject => {
            let mut command = Command::new(repo::root().join("target/release/finject"));
            for target in targets {
                command.args(["--pid", &target.to_string()]);
            }
            command.args([
                "--rule",
                &rule(fires),
                "--quiet",
                "--json",
                "--ready-fd",
                "1",
            ]);
            command
        }
        Tool::Bpftrace(kind) => {
            anyhow::ensure!(targets.len() == 1, "a script has one target");
            let mut command = Command::new("bpftrace");
            command.args(["--unsafe", "-e", &script(kind, first, fires)]);
            command
        }
        Tool::StraceAttach => {
            let mut command = Command::new("strace");
            command
                .args(strace_words())
                .args(["-p", &first.to_string()]);
            command
        }
    }))
}

/// Starts a tool; it may not be armed yet.
pub(super) fn spawn(tool: Tool, fires: Fires, targets: &[u32]) -> anyhow::Result<Option<Running>> {
    let Some(mut command) = command(tool, fires, targets)? else {
        return Ok(None);
    };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    Ok(Some(Running {
        tool,
        stdout: child.stdout.take().map(BufReader::new),
        stderr: child.stderr.take().map(BufReader::new),
        child,
    }))
}

impl Running {
    /// The process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it writes, for a caller that reads it itself.
    pub(super) fn take_stdout(&mut self) -> Option<BufReader<ChildStdout>> {
        self.stdout.take()
    }

    /// Returns when its probe is in place: a line of the tool's own where that comes after, else the kernel's list.
    pub(super) fn wait_until_armed(&mut self) -> anyhow::Result<()> {
        let mut line = String::new();
        match self.tool {
            Tool::Bpftrace(_) => {
                let since = Instant::now();
                while !std::fs::read_to_string("/sys/kernel/debug/kprobes/list")?.contains(STUB) {
                    if since.elapsed() > PATIENCE || self.child.try_wait()?.is_some() {
                        bail!("bpftrace hangs no probe: {}", self.last_words());
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                // The list has the probe shortly before the program hangs on it, and the fork hook comes after it.
                std::thread::sleep(Duration::from_millis(500));
            }
            Tool::StraceAttach => {
                let stderr = self.stderr.as_mut().context("no standard error")?;
                while !line.contains(" attached") {
                    line.clear();
                    anyhow::ensure!(stderr.read_line(&mut line)? > 0, "strace does not attach");
                }
            }
            Tool::Empty(_) | Tool::Finject => {
                let stdout = self.stdout.as_mut().context("no standard output")?;
                if stdout.read_line(&mut line)? == 0 {
                    let tool = self.tool;
                    bail!("{tool:?} is not armed: {}", self.last_words());
                }
            }
            Tool::Bare | Tool::StraceSeccomp => {}
        }
        Ok(())
    }

    /// Ends it: asks every second, since bpftrace 0.17 now and then does not hear the first time.
    ///
    /// # Errors
    /// When it had to be killed.
    pub(super) fn end(&mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let since = Instant::now();
        let mut asked = 0;
        // Not waited for before it ends, so the number is its own also where finject ends with its last target.
        let pid = i32::try_from(self.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        while self.child.try_wait()?.is_none() {
            if since.elapsed() > PATIENCE {
                self.child.kill()?;
                self.child.wait()?;
                bail!("{:?} did not end when asked to", self.tool);
            }
            if since.elapsed().as_secs() >= asked {
                asked += 1;
                if let Some(pid) = pid {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn last_words(&mut self) -> String {
        let mut text = String::new();
        if let Some(stderr) = self.stderr.as_mut() {
            let _ = stderr.read_to_string(&mut text);
        }
        text
    }

    /// Ends it and returns how many of the targets' calls it counted, where it counts.
    pub(super) fn finish(mut self) -> anyhow::Result<Option<u64>> {
        // What it says at the end is far less than a pipe holds.
        self.end()?;
        let mut text = String::new();
        if let Some(stdout) = self.stdout.as_mut() {
            stdout.read_to_string(&mut text)?;
        }
        match self.tool {
            Tool::Finject => finject_count(&text).map(Some),
            Tool::Bpftrace(_) => Ok(Some(bpftrace_count(&text))),
            _ => Ok(None),
        }
    }
}

/// The calls that finject's summary says matched its one rule.
fn finject_count(json: &str) -> anyhow::Result<u64> {
    let summary: serde_json::Value =
        serde_json::from_str(json).context("cannot read finject's summary")?;
    summary["rules"][0]["matched"]
        .as_u64()
        .context("finject's summary has no count")
}

/// The value of `@c` among the maps that bpftrace prints at its end; 0 where it has none.
fn bpftrace_count(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.strip_prefix("@c: "))
        .find_map(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Fires, Script, bpftrace_count, finject_count, rule, script};

    #[test]
    fn the_same_rule_in_each_language() {
        assert_eq!(rule(Fires::Never), "fsync=EIO@1000000000");
        assert_eq!(
            script(Script::OnePid, 7, Fires::Always),
            "kprobe:__x64_sys_fsync /pid == 7/ { @c++; if (@c >= 1) { override(18446744073709551611); } }"
        );
        let tree = script(Script::Tree, 7, Fires::Never);
        assert!(tree.starts_with("BEGIN { @t[7] = 1; } kprobe:"), "{tree}");
        assert!(tree.contains("@c == 1000000000"), "{tree}");
    }

    #[test]
    fn what_a_tool_counted_is_read_from_its_last_words() {
        assert_eq!(
            bpftrace_count("Attaching 1 probe...\n\n\n@c: 8200\n@t[7]: 1\n"),
            8200
        );
        assert_eq!(bpftrace_count("Attaching 1 probe...\n"), 0);
        assert_eq!(
            finject_count(r#"{"rules":[{"name":"r1","matched":12}]}"#).unwrap(),
            12
        );
        assert!(finject_count("{}").is_err());
    }
}
