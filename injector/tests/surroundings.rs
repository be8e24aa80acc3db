//! Launch mode in other surroundings: as an ordinary user, in a namespace, at a terminal, where files would
//! give more than the user has, and where nobody can listen to a filter.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    ffi::OsStr, fs, os::unix::fs::MetadataExt as _, path::Path, process::Command, thread::sleep,
    time::Duration,
};

use finject_tests::{
    child::{Child, PATIENCE, eventually},
    programs, test_name, unsupported,
    victim::Victim,
};
use rustix::process::Signal;

#[test]
fn where_nobody_can_listen_it_is_traced() {
    let mut command = Command::new(programs::UNLISTENED);
    command
        .arg(env!("CARGO_BIN_EXE_finject"))
        .args(["--rule", "openat=ENOENT@1", "--", "cat", "/etc/hostname"])
        .env_remove("FINJECT_RULES")
        .env("NO_COLOR", "1")
        .env("LC_ALL", "C");
    let ended = Child::run(&mut command);
    assert_eq!(ended.code(), Some(1), "{ended}");
    for words in [
        "by seccomp and ptrace",
        "finject: not by notify: the kernel does not take the seccomp filter",
        // cat writes its own words in pieces, between which this line may come.
        "r1 #1: openat(",
    ] {
        assert!(ended.err().contains(words), "no {words:?}: {ended}");
    }
    // Who names it gets it or nothing.
    let mut named = Command::new(programs::UNLISTENED);
    named
        .arg(env!("CARGO_BIN_EXE_finject"))
        .args(["--backend", "notify", "--rule", "fsync=EIO", "--", "true"])
        .env_remove("FINJECT_RULES");
    let ended = Child::run(&mut named);
    assert_eq!(ended.code(), Some(69), "{ended}");
}

/// finject and another program, where anybody can reach them.
struct Shared {
    directory: tempfile::TempDir,
}

impl Shared {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let shared = Self { directory };
        fs::set_permissions(shared.directory.path(), mode(0o755)).unwrap();
        shared.add(env!("CARGO_BIN_EXE_finject"), 0o755);
        shared
    }

    /// A copy of a program, with these permissions.
    fn add(&self, program: &str, permissions: u32) -> String {
        let name = program.rsplit('/').next().unwrap();
        let copy = self.directory.path().join(name);
        fs::copy(program, &copy).unwrap();
        fs::set_permissions(&copy, mode(permissions)).unwrap();
        copy.display().to_string()
    }

    fn finject(&self) -> String {
        self.directory.path().join("finject").display().to_string()
    }
}

/// A command of an ordinary user's; root becomes somebody else.
fn ordinary<S: AsRef<OsStr>>(words: &[S]) -> Command {
    let mut command = Command::new("env");
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if is_root {
        let nobody = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ];
        command.args(nobody).arg("--");
    }
    command
        .args(words)
        .current_dir("/")
        .env_remove("FINJECT_RULES")
        .env("NO_COLOR", "1")
        .env("LC_ALL", "C");
    command
}

fn mode(bits: u32) -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(bits)
}

/// cat's own message, which a rule brings about, behind these words.
fn an_ordinary_users_cat_fails(before: &[&str]) {
    let shared = Shared::new();
    let finject = shared.finject();
    for backend in ["notify", "ptrace"] {
        let rule = ["--quiet", "--backend", backend, "--rule", "openat=ENOENT@1"];
        let cat = ["--", "cat", "/etc/hostname"];
        let words = [before, &[finject.as_str()], &rule, &cat].concat();
        let ended = Child::run(&mut ordinary(&words));
        assert_eq!(ended.code(), Some(1), "{words:?}: {ended}");
        let said = "cat: /etc/hostname: No such file or directory";
        assert_eq!(ended.err(), said, "{words:?}");
    }
}

#[test]
fn an_ordinary_user_launches() {
    an_ordinary_users_cat_fails(&[]);
}

#[test]
fn an_ordinary_user_launches_in_a_namespace_of_their_own() {
    let unshare = ["unshare", "-Ur"];
    let may = Child::run(&mut ordinary(&["unshare", "-Ur", "true"]));
    if may.code() != Some(0) {
        unsupported!(
            test_name!(),
            "this machine lets ordinary users make no namespaces"
        );
    }
    an_ordinary_users_cat_fails(&unshare);
}

#[test]
fn a_program_that_would_gain_by_its_file_does_not_and_it_is_said() {
    let shared = Shared::new();
    let finject = shared.finject();
    let id = shared.add("/usr/bin/id", 0o4755);
    let words = [finject.as_str(), "--rule", "fsync=EIO", "--", &id, "-u"];
    let ended = Child::run(&mut ordinary(&words));
    assert_eq!(ended.code(), Some(0), "{ended}");
    assert_ne!(ended.out(), "0", "{ended}");
    let said = "is setuid or setgid, and gains nothing by it here";
    assert!(ended.err().contains(said), "{ended}");
}

/// On a terminal of its own, by script(1). Nobody there could let go on what ^Z has stopped. Whatever
/// shell script(1) takes gives its place to finject: ^C would end that, too.
#[test]
fn what_is_typed_reaches_the_command_once() {
    for backend in ["notify", "ptrace"] {
        let command = format!(
            "exec {} --quiet --backend {backend} --rule fsync=EIO -- sh -c \
             'trap \"echo heard; exit 7\" INT; echo ready; while :; do sleep 0.1; done'",
            env!("CARGO_BIN_EXE_finject")
        );
        let mut terminal = Command::new("script");
        terminal
            .args(["-qec", &command, "/dev/null"])
            .env_remove("FINJECT_RULES");
        let mut child = Child::start(&mut terminal);
        child.expect_line(PATIENCE, |line| line.contains("ready"));
        child.press("\x1a");
        sleep(Duration::from_millis(200));
        child.press("\x03");
        let ended = child.wait(PATIENCE);
        assert_eq!(ended.code(), Some(7), "{backend}: {ended}");
        let heard = ended.out().matches("heard").count();
        assert_eq!(heard, 1, "{backend}: {ended}");
    }
}

/// A shell at a terminal of its own.
fn interactive_shell() -> Child {
    let shell = "exec bash --norc --noprofile --noediting -i";
    let mut terminal = Command::new("script");
    terminal
        .args(["-qec", shell, "/dev/null"])
        .env_remove("FINJECT_RULES");
    Child::start(&mut terminal)
}

/// Stopped and let go on by the shell that started it, as any job.
#[test]
fn a_shell_stops_it_and_lets_it_go_on() {
    for backend in ["notify", "ptrace"] {
        let mut child = interactive_shell();
        child.say(&format!(
            "{} --quiet --backend {backend} --rule fsync=EIO -- \
             sh -c 'echo pid=$$; read word; echo got-$word; exit 5'",
            env!("CARGO_BIN_EXE_finject")
        ));
        let pid = child.expect_line(PATIENCE, |line| pid_of(line).is_some());
        let pid = pid_of(&pid).unwrap();
        for _ in 0..3 {
            child.press("\x1a");
            eventually(PATIENCE, "it is stopped", || is_stopped(pid));
            child.say("fg");
            eventually(PATIENCE, "it goes on", || !is_stopped(pid));
        }
        child.say("word");
        child.expect_line(PATIENCE, |line| line.trim().ends_with("got-word"));
        child.say("echo status-$?");
        child.expect_line(PATIENCE, |line| line.trim().ends_with("status-5"));
        child.say("exit");
        assert_eq!(child.wait(PATIENCE).code(), Some(0), "{backend}");
    }
}

/// By its number, and not with its job: the command is stopped with it, and goes on with it.
#[test]
fn whoever_stops_finject_alone_lets_its_command_go_on_too() {
    let mut child = interactive_shell();
    child.say(&format!(
        "{} --quiet --backend notify --rule fsync=EIO -- \
         sh -c 'echo pid=$$; while :; do sleep 0.1; done' &",
        env!("CARGO_BIN_EXE_finject")
    ));
    let pid = child.expect_line(PATIENCE, |line| pid_of(line).is_some());
    let pid = pid_of(&pid).unwrap();
    child.say("kill -TSTP $!");
    let finject = parent_of(pid);
    eventually(PATIENCE, "both are stopped", || {
        is_stopped(pid) && is_stopped(finject)
    });
    child.say("kill -CONT $!");
    eventually(PATIENCE, "it goes on", || !is_stopped(pid));
    child.say("kill $!");
    eventually(PATIENCE, "the command has ended", || {
        !Path::new(&format!("/proc/{pid}")).exists()
    });
}

fn status_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap()
}

fn parent_of(pid: u32) -> u32 {
    let status = status_of(pid);
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    parent.unwrap().trim().parse().unwrap()
}

fn is_stopped(pid: u32) -> bool {
    let status = status_of(pid);
    // The second of one that is traced.
    status.contains("State:\tT") || status.contains("State:\tt")
}

/// Behind a prompt, maybe; what the terminal echoes has no number.
fn pid_of(line: &str) -> Option<u32> {
    line.rsplit_once("pid=")?.1.trim().parse().ok()
}

/// Whoever started it hears of no child's end, as daemons may.
#[test]
fn whoever_ignores_the_ends_of_children_gets_the_status() {
    for backend in ["notify", "ptrace"] {
        let run = |command: &[&str]| {
            let mut ignoring = Command::new("env");
            ignoring
                .args(["--ignore-signal=CHLD", env!("CARGO_BIN_EXE_finject")])
                .args(["--quiet", "--backend", backend, "--rule", "fsync=EIO", "--"])
                .args(command)
                .env_remove("FINJECT_RULES");
            Child::run(&mut ignoring)
        };
        let ended = run(&["sh", "-c", "exit 3"]);
        assert_eq!(ended.code(), Some(3), "{backend}: {ended}");
        // The command ignores it too, as without finject.
        let ended = run(&["grep", "SigIgn", "/proc/self/status"]);
        let (_, ignored) = ended.stdout[0].split_once('\t').unwrap();
        let ignored = u64::from_str_radix(ignored, 16).unwrap();
        assert_ne!(ignored >> (Signal::CHILD.as_raw() - 1) & 1, 0, "{ended}");
    }
}

/// There are fewer descriptors than threads that are told apart.
#[test]
fn few_descriptors_are_enough() {
    for backend in ["notify", "ptrace"] {
        let script = "ulimit -n 24; exec \"$@\"";
        let rule = [
            "--quiet",
            "--backend",
            backend,
            "--rule",
            "getppid=EPERM@1,per:thread",
        ];
        let mut shell = Command::new("sh");
        shell
            .args(["-c", script, "sh", env!("CARGO_BIN_EXE_finject")])
            .args(rule)
            .arg("--")
            .env_remove("FINJECT_RULES");
        let mut victim = Victim::launched(&mut shell, &["threads", "64", "100", "getppid"]);
        let seen = victim.work();
        assert_eq!((seen.calls, seen.errors), (6400, 64), "{backend}");
        let ended = victim.end();
        assert_eq!(ended.code(), Some(0), "{backend}: {ended}");
    }
}

/// Until the new program is there, the one that is left makes calls that look like its: they begin
/// nothing, and the loader's calls after them do not fail.
#[test]
fn a_thread_executes_a_program_while_another_calls() {
    for backend in ["notify", "ptrace"] {
        for round in 0..20 {
            let mut command = Command::new(env!("CARGO_BIN_EXE_finject"));
            command
                .args(["--quiet", "--backend", backend])
                .args(["--rule", "openat=ENOENT", "--"])
                .args([programs::VICTIM, "busyexec", "/bin/true"])
                .env_remove("FINJECT_RULES");
            let ended = Child::run(&mut command);
            assert_eq!(ended.code(), Some(0), "{backend}, round {round}: {ended}");
        }
    }
}
