//! The tools: how each is started with the rule, when it is armed, how it is ended, and how many calls it says it saw.

use super::programs;
use super::row::{Aim, Fires, Placement, Script, Tool};
use crate::repo;
use anyhow::{Context as _, bail};
use std::ffi::OsString;
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
        // It has no delays, and is not asked for them.
        Fires::Always | Fires::Delays { .. } | Fires::DelaysNever => "@c >= 1".to_owned(),
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
pub(super) fn rule(aim: Aim) -> String {
    let call = aim.call;
    match aim.fires {
        Fires::Never => format!("{call}=EIO@{NEVER}"),
        Fires::Always => format!("{call}=EIO"),
        Fires::Delays { us } => format!("{call}=delay:{us}us"),
        Fires::DelaysNever => format!("{call}=delay:1s@{NEVER}"),
    }
}

/// strace's words up to the target.
pub(super) fn strace_words(aim: Aim) -> [String; 6] {
    let call = aim.call;
    let what = match aim.fires {
        Fires::Never => format!("error=EIO:when={STRACE_NEVER}"),
        Fires::Always => "error=EIO".to_owned(),
        Fires::Delays { us } => format!("delay_enter={us}"),
        Fires::DelaysNever => format!("delay_enter=1000000:when={STRACE_NEVER}"),
    };
    [
        "-f".to_owned(),
        "-o".to_owned(),
        "/dev/null".to_owned(),
        "-e".to_owned(),
        format!("trace={call}"),
        format!("--inject={call}:{what}"),
    ]
}

fn finject() -> OsString {
    repo::root().join("target/release/finject").into()
}

/// finject's words up to the target; it says how many calls it saw on standard output, and else nothing.
pub(super) fn finject_words(backend: Option<&str>, aim: Aim) -> Vec<String> {
    let mut words: Vec<String> = backend
        .map(|backend| ["--backend", backend].map(str::to_owned))
        .into_iter()
        .flatten()
        .collect();
    words.extend(["--rule".to_owned(), rule(aim)]);
    words.extend(["--quiet", "--json"].map(str::to_owned));
    words
}

/// `bench_raw`'s words up to the target.
fn raw_words(mechanism: &str, aim: Aim) -> Vec<OsString> {
    let end = match aim.fires {
        Fires::Always => "fails",
        Fires::Never | Fires::Delays { .. } | Fires::DelaysNever => "runs",
    };
    let program = programs().join("bench_raw");
    let mut words: Vec<OsString> = vec![program.into()];
    words.extend([mechanism, aim.call, end].map(OsString::from));
    words
}

/// The words before a command that a tool launches; none for a tool that attaches.
pub(super) fn launcher(tool: Tool, aim: Aim) -> Vec<OsString> {
    let by_finject = |backend| {
        let mut words = vec![finject()];
        words.extend(
            finject_words(Some(backend), aim)
                .into_iter()
                .map(OsString::from),
        );
        words.push("--".into());
        words
    };
    match tool {
        Tool::StraceSeccomp => {
            let mut words: Vec<OsString> = vec!["strace".into()];
            words.extend(strace_words(aim).map(OsString::from));
            words.push("--seccomp-bpf".into());
            words
        }
        Tool::Notify => by_finject("notify"),
        Tool::TraceLaunched => by_finject("ptrace"),
        Tool::RawNotify => raw_words("notify", aim),
        Tool::RawLaunched => raw_words("launch", aim),
        Tool::Bare
        | Tool::Empty(_)
        | Tool::Finject
        | Tool::Bpftrace(_)
        | Tool::StraceAttach
        | Tool::TraceAttached
        | Tool::RawAttached => Vec::new(),
    }
}

/// The words of a tool that attaches; none where it launches its target or there is none.
fn attacher(tool: Tool, aim: Aim, targets: &[u32]) -> anyhow::Result<Vec<OsString>> {
    let first = targets.first().unwrap_or(&0).to_string();
    let by_finject = |backend| {
        let mut words = vec![finject()];
        words.extend(finject_words(backend, aim).into_iter().map(OsString::from));
        words.extend(["--ready-fd", "1"].map(OsString::from));
        for target in targets {
            words.extend(["--pid".into(), target.to_string().into()]);
        }
        words
    };
    Ok(match tool {
        Tool::Bare
        | Tool::StraceSeccomp
        | Tool::Notify
        | Tool::TraceLaunched
        | Tool::RawNotify
        | Tool::RawLaunched => Vec::new(),
        Tool::Empty(mechanism) => vec![
            programs().join("bench_floor").into(),
            mechanism.into(),
            STUB.into(),
        ],
        Tool::Finject => by_finject(None),
        Tool::TraceAttached => by_finject(Some("ptrace")),
        Tool::Bpftrace(kind) => {
            anyhow::ensure!(targets.len() == 1, "a script has one target");
            let script = script(kind, targets[0], aim.fires);
            let words = ["bpftrace", "--unsafe", "-e", &script];
            words.map(OsString::from).into()
        }
        Tool::StraceAttach => {
            let mut words: Vec<OsString> = vec!["strace".into()];
            words.extend(strace_words(aim).map(OsString::from));
            words.extend(["-p".into(), first.into()]);
            words
        }
        Tool::RawAttached => {
            let mut words = raw_words("attach", aim);
            words.push(first.into());
            words
        }
    })
}

impl Placement {
    /// The words before a command that is to run there.
    pub(super) fn words(self) -> Vec<OsString> {
        match self {
            Self::Free => Vec::new(),
            Self::On(processor) => ["taskset", "-c", &processor.to_string()]
                .map(OsString::from)
                .into(),
        }
    }
}

/// A command of these words, the program first.
pub(super) fn command_of(words: impl IntoIterator<Item = OsString>) -> anyhow::Result<Command> {
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().context("no program")?);
    command.args(words);
    Ok(command)
}

/// Starts a tool that attaches; it may not be armed yet.
pub(super) fn spawn(
    tool: Tool,
    aim: Aim,
    targets: &[u32],
    placement: Placement,
) -> anyhow::Result<Option<Running>> {
    let words = attacher(tool, aim, targets)?;
    if words.is_empty() {
        return Ok(None);
    }
    let mut command = command_of(placement.words().into_iter().chain(words))?;
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
            Tool::Empty(_) | Tool::Finject | Tool::TraceAttached | Tool::RawAttached => {
                let stdout = self.stdout.as_mut().context("no standard output")?;
                if stdout.read_line(&mut line)? == 0 {
                    let tool = self.tool;
                    bail!("{tool:?} is not armed: {}", self.last_words());
                }
            }
            Tool::Bare
            | Tool::StraceSeccomp
            | Tool::Notify
            | Tool::TraceLaunched
            | Tool::RawNotify
            | Tool::RawLaunched => {}
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
            Tool::Finject | Tool::TraceAttached => finject_count(&text).map(Some),
            Tool::Bpftrace(_) => Ok(Some(bpftrace_count(&text))),
            _ => Ok(None),
        }
    }
}

/// What a finject that launched its target says at its end, after all that the target said; none of another tool.
pub(super) fn launched_count(tool: Tool, text: &str) -> anyhow::Result<Option<u64>> {
    if !matches!(tool, Tool::Notify | Tool::TraceLaunched) {
        return Ok(None);
    }
    let at = if text.starts_with('{') {
        0
    } else {
        text.find("\n{").context("no summary of finject's")?
    };
    finject_count(&text[at..]).map(Some)
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
    use super::super::row::{Aim, Fires, NAMED, Placement, Script, Tool};
    use super::{attacher, bpftrace_count, finject_count, launched_count, launcher, rule, script};

    const NEVER: Aim = Aim {
        call: NAMED,
        fires: Fires::Never,
    };
    const ALWAYS: Aim = Aim {
        call: "openat",
        fires: Fires::Always,
    };

    fn line(words: &[std::ffi::OsString]) -> String {
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    #[test]
    fn every_tool_either_launches_its_target_or_attaches_to_it() {
        for tool in [
            Tool::StraceSeccomp,
            Tool::StraceAttach,
            Tool::Notify,
            Tool::TraceLaunched,
            Tool::TraceAttached,
            Tool::RawNotify,
            Tool::RawLaunched,
            Tool::RawAttached,
        ] {
            let attached = attacher(tool, NEVER, &[7]).unwrap();
            assert_ne!(
                launcher(tool, NEVER).is_empty(),
                attached.is_empty(),
                "{tool:?}"
            );
            for aim in [NEVER, ALWAYS] {
                let mut words = launcher(tool, aim);
                words.extend(attacher(tool, aim, &[7]).unwrap());
                assert!(line(&words).contains(aim.call), "{tool:?}");
            }
        }
        assert!(
            line(&launcher(Tool::Notify, ALWAYS)).ends_with("--rule openat=EIO --quiet --json --")
        );
        let raw = line(&attacher(Tool::RawAttached, ALWAYS, &[7]).unwrap());
        assert!(raw.ends_with("bench_raw attach openat fails 7"), "{raw}");
        let strace = line(&launcher(Tool::StraceSeccomp, ALWAYS));
        assert!(
            strace.ends_with("--inject=openat:error=EIO --seccomp-bpf"),
            "{strace}"
        );
    }

    #[test]
    fn the_placement_comes_before_the_command() {
        assert!(Placement::Free.words().is_empty());
        assert_eq!(line(&Placement::On(3).words()), "taskset -c 3");
    }

    #[test]
    fn a_launched_targets_words_come_before_the_summary() {
        let text = "rounds 1\nerrors\n{\n  \"rules\": [{\"matched\": 4}]\n}\n";
        assert_eq!(launched_count(Tool::Notify, text).unwrap(), Some(4));
        assert_eq!(launched_count(Tool::RawNotify, text).unwrap(), None);
        assert!(launched_count(Tool::TraceLaunched, "rounds 1\n").is_err());
    }

    #[test]
    fn the_same_rule_in_each_language() {
        assert_eq!(rule(NEVER), "fsync=EIO@1000000000");
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
