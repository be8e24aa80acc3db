//! Launch mode, on the kernel at hand and without privilege: commands under rules, and what becomes
//! of them when one of finject's processes dies or hangs.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use finject_tests::{
    child::{Child, Ended, PATIENCE, eventually},
    conformance::summary_of,
    programs, test_name, unsupported,
    victim::{Seen, Victim},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What launches without privilege.
const UNPRIVILEGED: [&str; 2] = ["notify", "ptrace"];

/// finject with rules, complete up to the command. Whoever runs the tests may have signals ignored,
/// as nohup(1) has; finject would leave them so.
fn finject(options: &[&str]) -> Command {
    let mut command = Command::new("env");
    command
        .args(["--default-signal", env!("CARGO_BIN_EXE_finject")])
        .env_remove("FINJECT_RULES")
        .env("NO_COLOR", "1")
        .env("LC_ALL", "C")
        .args(options)
        .arg("--");
    command
}

fn run<S: AsRef<OsStr>>(options: &[&str], command: &[S]) -> Ended {
    Child::run(finject(options).args(command))
}

/// A script for /bin/sh under a rule.
fn shell(rule: &str, script: &str) -> Ended {
    run(&["--quiet", "--rule", rule], &["/bin/sh", "-c", script])
}

/// Lets a launched victim work under rules; what it saw, and the summary.
fn work(options: &[&str], victim: &[&str]) -> (Seen, Value) {
    let mut launcher = finject(&[&["--json", "--quiet"], options].concat());
    let mut victim = Victim::launched(&mut launcher, victim);
    let seen = victim.work();
    let ended = victim.end();
    assert_eq!(ended.code(), Some(0), "{ended}");
    (seen, summary_of(&ended))
}

#[test]
fn the_third_call_fails_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c", "d"] {
        fs::write(directory.path().join(name), "").unwrap();
    }
    let mut command = finject(&["--quiet", "--rule", "fsync=EIO@3"]);
    command
        .args(["sync", "a", "b", "c", "d"])
        .current_dir(&directory);
    let ended = Child::run(&mut command);
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert_eq!(ended.err(), "sync: error syncing 'c': Input/output error");
}

#[test]
fn a_firing_is_shown_and_summed_up() {
    let ended = run(&["--rule", "getppid=ret:7"], &["true"]);
    assert!(
        ended
            .err()
            .contains("r1 never fired: no target called getppid"),
        "{ended}"
    );
    let ended = run(&["--rule", "fsync(fd=3)=EIO"], &["true"]);
    assert!(
        ended.err().contains(
            "r1 never fired: no target called fsync with fd=3 while it was armed; %sync names \
             its relatives too; finject count -- true shows what is called"
        ),
        "{ended}"
    );
    let mut launcher = finject(&["--rule", "getppid=EPERM@2"]);
    let mut victim = Victim::launched(&mut launcher, &["threads", "1", "3", "getppid"]);
    victim.work();
    let said = victim.end().err();
    assert!(
        said.contains("finject: r1 #2: getppid() = EPERM  [victim "),
        "{said}"
    );
    assert!(said.contains("  r1        3      1  "), "{said}");
}

#[test]
fn statuses_are_the_commands() {
    for backend in UNPRIVILEGED {
        statuses_are_the_commands_by(backend);
    }
}

fn statuses_are_the_commands_by(backend: &str) {
    let never = ["--quiet", "--backend", backend, "--rule", "fsync=EIO"];
    for (command, status) in [
        (vec!["true"], 0),
        (vec!["sh", "-c", "exit 7"], 7),
        (vec!["sh", "-c", "kill -TERM $$"], 143),
        (vec!["sh", "-c", "kill -KILL $$"], 137),
        (vec!["no-such-command"], 127),
        (vec!["/no/such/file"], 127),
        (vec![""], 127),
        (vec!["/"], 126),
        (vec!["/etc/passwd"], 126),
    ] {
        let ended = run(&never, &command);
        assert_eq!(
            ended.code(),
            Some(status),
            "{backend}, {command:?}: {ended}"
        );
    }
    let must = [&never[..], &["--must-fire"]].concat();
    assert_eq!(run(&must, &["true"]).code(), Some(124));
    assert_eq!(
        run(&must, &["sh", "-c", "exit 3"]).code(),
        Some(3),
        "the command's comes first"
    );
}

#[test]
fn a_file_that_the_kernel_cannot_execute_is_the_shells_as_execvp_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    fs::write(&script, "echo plain $1\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for backend in UNPRIVILEGED {
        let ended = run(
            &["--quiet", "--backend", backend, "--rule", "fsync=EIO"],
            &[script.as_os_str(), OsStr::new("text")],
        );
        assert_eq!(
            (ended.code(), ended.out().as_str()),
            (Some(0), "plain text"),
            "{backend}: {ended}"
        );
    }
}

#[test]
fn calls_of_the_dynamic_loader_neither_count_nor_fail() {
    // cat's own first openat is of its file; before it come the loader's.
    let cat = ["cat", "/etc/hostname"];
    let ended = run(&["--quiet", "--rule", "openat=ENOENT@1"], &cat);
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert_eq!(ended.err(), "cat: /etc/hostname: No such file or directory");
    let ended = run(
        &["--quiet", "--arm-at", "exec", "--rule", "openat=ENOENT@1"],
        &cat,
    );
    assert_eq!(
        ended.code(),
        Some(0),
        "the loader's first one fails, and it does without: {ended}"
    );
    // So it is on every later exec.
    let ended = shell("openat=ENOENT@1", "cat /etc/hostname; echo $?");
    assert_eq!(ended.out(), "1", "{ended}");
    let ended = shell(
        "openat=ENOENT@2",
        "cat /etc/hostname; cat /etc/hostname; echo $?",
    );
    assert_eq!(
        ended.stdout.last().map(String::as_str),
        Some("1"),
        "{ended}"
    );
}

#[test]
fn a_kill_comes_at_its_call() {
    let ended = shell("write=kill@2", "echo one; echo two; echo three");
    assert_eq!(
        (ended.code(), ended.out().as_str()),
        (Some(137), "one"),
        "{ended}"
    );
}

#[test]
fn chains_are_taken_step_by_step_by_racing_threads() {
    let rule = ["--rule", "getppid=5*EPERM->3*off->2*ret:0->off"];
    let (seen, _) = work(&rule, &["threads", "8", "500", "getppid"]);
    assert_eq!((seen.errors, seen.zeros), (5, 2));
}

#[test]
fn a_timer_changes_nothing() {
    for mode in ["restart", "interrupt"] {
        let mut launcher = finject(&["--json", "--quiet", "--rule", "getppid=EPERM@100+100"]);
        let mut ticker = Child::start(launcher.args([programs::TICKER, mode, "3000"]));
        ticker.expect_line(PATIENCE, |line| line.starts_with("ready "));
        ticker.say("");
        let done = ticker.expect_line(PATIENCE, |line| line.starts_with("done "));
        let wanted = "done wrong=0 errors=30 ticked=1 restarted=1 cut=";
        let cut = done.strip_prefix(wanted).map(str::parse::<u64>);
        // A signal that comes between a call and its receipt cuts it short, as doc/semantics.md has it.
        let may_be_cut = mode == "interrupt";
        assert!(
            matches!(cut, Some(Ok(cut)) if cut == 0 || may_be_cut && cut < 300),
            "{done}"
        );
        let ended = ticker.wait(PATIENCE);
        assert_eq!(ended.code(), Some(0), "{ended}");
        let counted = &summary_of(&ended)["rules"][0];
        assert_eq!(
            (counted["matched"].as_u64(), counted["fired"].as_u64()),
            (Some(3000), Some(30)),
            "{ended}"
        );
    }
}

#[test]
fn a_rule_on_what_finject_itself_does_to_launch_stops_nothing() {
    for rule in [
        "%desc=EIO@100000",
        "%process=EPERM@100000",
        "%signal=EPERM@100000",
    ] {
        assert_eq!(shell(rule, "exit 5").code(), Some(5), "{rule}");
    }
}

#[test]
fn signals_sent_to_finject_are_the_commands() {
    for (signal, status) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let mut launcher = finject(&["--quiet", "--rule", "fsync=EIO"]);
        let mut child = Child::start(launcher.args(["sh", "-c", "echo up; exec sleep 60"]));
        child.expect_line(PATIENCE, |line| line == "up");
        child.signal(signal);
        assert_eq!(child.wait(PATIENCE).code(), Some(status), "{signal:?}");
    }
}

#[test]
fn a_daemon_is_a_target_until_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let script = format!(
        "(sleep 1; sync -d {0}; echo $? >{0}) </dev/null >/dev/null 2>&1 & exit 3",
        mark.display()
    );
    fs::write(&mark, "").unwrap();
    let ended = shell("fdatasync=EIO", &script);
    assert_eq!(ended.code(), Some(3), "{ended}");
    assert_eq!(fs::read_to_string(&mark).unwrap(), "1\n", "it was hit");
}

/// The process of finject's that answers the calls of a launcher's command.
fn keeper(launcher: u32) -> Pid {
    let children = format!("/proc/{launcher}/task/{launcher}/children");
    let children = fs::read_to_string(children).unwrap();
    let is_keeper = |pid: &&str| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
        comm.is_ok_and(|comm| comm.trim() == "finject-keeper")
    };
    let pid = children.split_ascii_whitespace().find(is_keeper);
    Pid::from_raw(pid.unwrap().parse().unwrap()).unwrap()
}

/// The command of a launcher.
fn command_of(launcher: u32) -> u32 {
    let children = format!("/proc/{launcher}/task/{launcher}/children");
    let children = fs::read_to_string(children).unwrap();
    let is_victim = |pid: &&str| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
        comm.is_ok_and(|comm| comm.trim() == "victim")
    };
    let pid = children.split_ascii_whitespace().find(is_victim);
    pid.unwrap().parse().unwrap()
}

fn looping() -> Victim {
    let mut launcher = finject(&["--quiet", "--rule", "getppid=EPERM"]);
    let victim = Victim::launched(&mut launcher, &["loop", "getppid"]);
    victim.until(PATIENCE, true);
    victim
}

fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let state = stat.rsplit(") ").next().unwrap().chars().next();
    matches!(state, Some('T' | 't'))
}

#[test]
fn killed_in_a_storm_the_command_goes_on_unfaulted() {
    for round in 0..10 {
        let mut victim = looping();
        let command = command_of(victim.pid());
        sleep(Duration::from_millis(7 * round));
        victim.child().signal(Signal::KILL);
        victim.until(Duration::from_secs(2), false);
        sleep(Duration::from_millis(300));
        assert!(victim.fails() == Some(false) && !is_stopped(command));
        victim.child().close();
        let proc = format!("/proc/{command}");
        eventually(PATIENCE, "the command has ended", || {
            fs::metadata(&proc).is_err()
        });
    }
}

#[test]
fn stopped_it_injects_nothing_and_says_so_when_it_goes_on() {
    let mut victim = looping();
    victim.child().signal(Signal::STOP);
    victim.until(Duration::from_secs(3), false);
    victim.child().signal(Signal::CONT);
    sleep(Duration::from_secs(1));
    assert_eq!(
        victim.fails(),
        Some(false),
        "once lapsed the rules stay off"
    );
    let ended = victim.end();
    assert_eq!(ended.code(), Some(125), "{ended}");
}

#[test]
fn a_keeper_that_dies_or_hangs_is_replaced() {
    for signal in [Signal::KILL, Signal::STOP] {
        let victim = looping();
        let command = command_of(victim.pid());
        kill_process(keeper(victim.pid()), signal).unwrap();
        victim.until(Duration::from_secs(5), false);
        sleep(Duration::from_millis(300));
        assert!(
            victim.fails() == Some(false) && !is_stopped(command),
            "{signal:?}"
        );
        let ended = victim.end();
        assert_eq!(ended.code(), Some(125), "{signal:?}: {ended}");
        assert!(
            ended.err().contains("has died or hung"),
            "{signal:?}: {ended}"
        );
    }
}

#[test]
fn time_that_is_up_heals_and_the_command_goes_on() {
    let mut launcher = finject(&["--quiet", "--duration", "1s", "--rule", "getppid=EPERM"]);
    let victim = Victim::launched(&mut launcher, &["loop", "getppid"]);
    victim.until(PATIENCE, true);
    victim.until(Duration::from_secs(5), false);
    assert_eq!(victim.end().code(), Some(0));
}

#[test]
fn what_it_does_not_carry_out_is_refused_before_anything_is_started() {
    for rule in [
        "fsync=stop",
        "write=short:1",
        "write=corrupt:1",
        "fsync=after:EIO",
    ] {
        let ended = run(
            &["--backend", "notify", "--rule", rule],
            &["sh", "-c", "echo started"],
        );
        assert_eq!(
            (ended.code(), ended.out().as_str()),
            (Some(69), ""),
            "{rule}: {ended}"
        );
        assert!(
            ended.err().contains("notify backend does not"),
            "{rule}: {ended}"
        );
    }
    let ended = run(&["--pid", "1", "--rule", "fsync=EIO"], &["true"]);
    assert_eq!(ended.code(), Some(64), "{ended}");
}

#[test]
fn a_firing_on_the_last_call_of_the_last_process_is_recorded() {
    for _ in 0..30 {
        let mut launcher = finject(&["--json", "--quiet", "--must-fire", "--rule", "getppid=kill"]);
        let mut victim = Victim::launched(&mut launcher, &["threads", "1", "1", "getppid"]);
        victim.go();
        let ended = victim.end();
        assert_eq!(ended.code(), Some(137), "{ended}");
        assert_eq!(summary_of(&ended)["rules"][0]["fired"], 1, "{ended}");
    }
}

#[test]
fn the_loaders_calls_of_a_32_bit_program_do_not_count_either() {
    let (options, victim) = (
        ["--quiet", "--rule", "openat@32=ENOENT@1"],
        [programs::VICTIM32, "threads", "1", "1", "fsync"],
    );
    let ended = run(&options, &victim);
    assert_eq!(ended.code(), Some(2), "its own first one: {ended}");
    assert!(ended.err().contains("No such file"), "{ended}");
}

/// What a process finds, bare and launched by finject.
fn bare_and_launched(before: &str, script: &str) -> [String; 3] {
    let [notified, traced] = UNPRIVILEGED.map(|backend| {
        format!(
            "{} --quiet --backend {backend} --rule fsync=EIO -- ",
            env!("CARGO_BIN_EXE_finject")
        )
    });
    [String::new(), notified, traced].map(|launcher| {
        let whole = format!("{before}; {launcher}/bin/sh -c '{script}'");
        let ended = Child::run(Command::new("/bin/sh").args(["-c", &whole]));
        ended.out()
    })
}

#[test]
fn the_command_finds_what_it_would_without_finject() {
    let status = "grep -E \"^(Sig(Blk|Ign|Cgt)|ShdPnd|Umask|Seccomp_)\" /proc/self/status";
    for (before, script) in [
        ("true", status),
        ("trap \"\" HUP INT QUIT TERM TSTP PIPE USR1", status),
        (
            "true",
            "echo $0 $# $PPID | cut -d\\  -f1,2; pwd; umask; ulimit -a",
        ),
        ("exec 7</dev/null 8>/dev/null", "ls /proc/self/fd"),
        ("exec 0<&-", "test -e /proc/self/fd/0; echo $?"),
        ("exec 2>&-", "test -e /proc/self/fd/2; echo $?"),
    ] {
        let [bare, notified, traced] = bare_and_launched(before, script);
        let same = |text: &str| {
            let lines = text.lines().filter(|line| !line.starts_with("Seccomp_"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(same(&bare), same(&notified), "{before}; {script}");
        assert_eq!(same(&bare), same(&traced), "{before}; {script}");
        assert!(!bare.is_empty(), "{before}; {script}");
    }
}

#[test]
fn nothing_is_left_to_whoever_started_it() {
    // In a pid namespace of its own the shell is given whatever finject leaves; it looks by its own
    // builtins, since to wait for another program would take that away.
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
         \"$0\" --quiet --rule fsync=EIO -- true || exit; \
         for comm in /proc/[0-9]*/comm; do read name <$comm; echo $name; done; done";
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--mount-proc",
    ]);
    let ended = Child::run(command.args(["sh", "-c", script, env!("CARGO_BIN_EXE_finject")]));
    assert_eq!(ended.code(), Some(0), "{ended}");
    assert_eq!(ended.stdout, ["sh"; 20], "{ended}");
}

#[test]
fn a_signal_ends_it_when_only_descendants_are_left() {
    let mut launcher = finject(&["--quiet", "--rule", "fsync=EIO"]);
    let script = "sleep 60 >/dev/null 2>&1 & echo $!; exit 4";
    let mut child = Child::start(launcher.args(["sh", "-c", script]));
    let left = child.expect_line(PATIENCE, |line| line.parse::<i32>().is_ok());
    sleep(Duration::from_millis(300));
    assert!(!child.has_ended(), "a descendant is a target too");
    child.signal(Signal::TERM);
    assert_eq!(child.wait(Duration::from_secs(5)).code(), Some(4));
    kill_process(Pid::from_raw(left.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn a_stream_of_events_that_cannot_be_opened_yet_can_be_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let mut launcher = finject(&["--events", fifo.to_str().unwrap(), "--rule", "fsync=EIO"]);
    let mut child = Child::start(launcher.arg("true"));
    sleep(Duration::from_millis(300));
    assert!(!child.has_ended());
    child.signal(Signal::TERM);
    assert_eq!(
        child.wait(Duration::from_secs(5)).code(),
        None,
        "by the signal"
    );
}

#[test]
fn a_launch_inside_a_launch_says_why_it_cannot_be() {
    let inner = env!("CARGO_BIN_EXE_finject");
    let never = "fsync=EIO";
    let command = [inner, "--rule", never, "--", "true"];
    let ended = run(&["--quiet", "--rule", never], &command);
    assert_eq!(ended.code(), Some(69), "{ended}");
    assert!(ended.err().contains("name all rules in one run"), "{ended}");
}

/// A pipe without room.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

#[test]
fn a_standard_error_that_nobody_reads_holds_nothing_up() {
    for backend in UNPRIVILEGED {
        nothing_is_held_up_by(backend);
    }
}

fn nothing_is_held_up_by(backend: &str) {
    let (mut reader, writer) = full_pipe();
    let mut launcher = finject(&["--backend", backend, "--rule", "getppid=EPERM@2+2"]);
    launcher
        .args([programs::VICTIM, "threads", "1", "100", "getppid"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(writer);
    let mut child = launcher.spawn().unwrap();
    drop(launcher);
    // Its calls are made, and half of them fail, while there is no room for a word of finject's.
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let seen =
        lines.find_map(|line| Some(line.unwrap()).filter(|line| line.starts_with("who=self")));
    assert!(seen.as_ref().unwrap().contains(" errors=50 "), "{seen:?}");
    let mut text = String::new();
    let reading = std::thread::spawn(move || {
        reader.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let text = reading.join().unwrap();
    assert!(text.contains("getppid=EPERM@2+2"), "a summary: {text}");
}

#[test]
fn a_program_with_a_filter_of_its_own_is_hit() {
    for backend in ["notify", "ptrace"] {
        let options = ["--backend", backend, "--rule", "getppid=EPERM@3"];
        let (seen, _) = work(&options, &["filtered", "10", "getppid"]);
        assert_eq!((seen.calls, seen.errors), (10, 1), "{backend}");
    }
}

/// What reads and writes past the page cache does so by blocks, and from memory that is laid out so.
#[test]
fn a_file_without_the_page_cache_is_changed_by_blocks() {
    let rules = [
        "write,pwritev(fd=77)=short:5000@2+3",
        "write,pwritev(fd=77)=corrupt:3@3+3",
    ];
    let mut command = finject(&["--quiet", "--json", "--rule", rules[0], "--rule", rules[1]]);
    command
        .args([programs::MOVER, "direct", "write,pwritev", "16384", "3"])
        .env("MOVER_DIR", env!("CARGO_TARGET_TMPDIR"));
    let ended = Child::run(&mut command);
    if ended.err().contains("Invalid argument") {
        unsupported!(test_name!(), "the file system has no O_DIRECT");
    }
    assert_eq!(ended.code(), Some(0), "{ended}");
    let calls: Vec<_> = ended
        .stdout
        .iter()
        .filter_map(|line| line.strip_prefix("call=")?.split_once(" data="))
        .map(|(call, _)| call)
        .collect();
    let kept = "registers=kept memory=kept";
    let expected: Vec<_> = ["write", "pwritev"]
        .into_iter()
        .flat_map(|call| {
            [16_384, 4096, 16_384].map(|moved| format!("{call} result={moved} {kept}"))
        })
        .collect();
    assert_eq!(calls, expected);
    let summary = summary_of(&ended);
    for rule in 0..2 {
        assert_eq!(summary["rules"][rule]["fired"], 2, "{summary}");
        assert_eq!(summary["rules"][rule]["lost"], 0, "{summary}");
    }
}

/// Memory that a call did not use after all is there for the next.
#[test]
fn calls_whose_data_cannot_be_read_do_not_fill_the_memory() {
    if programs::PYTHON.is_empty() {
        unsupported!(
            test_name!(),
            "there was no Python when the tests were built"
        );
    }
    let script = "import ctypes\n\
                  libc = ctypes.CDLL(None, use_errno=True)\n\
                  size = lambda: int(open('/proc/self/statm').read().split()[0]) * 4\n\
                  before = size()\n\
                  for _ in range(100): libc.write(1, None, 100)\n\
                  print(size() - before < 1000, ctypes.get_errno())";
    let rule = "write(fd=1,arg3=100)=corrupt:1";
    let options = ["--quiet", "--json", "--rule", rule];
    let ended = run(&options, &[programs::PYTHON, "-c", script]);
    assert_eq!(ended.stdout[0], "True 14", "{ended}");
    let rule = &summary_of(&ended)["rules"][0];
    assert_eq!(
        (&rule["matched"], &rule["lost"]),
        (&100.into(), &100.into())
    );
}
