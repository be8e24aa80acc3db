//! Launch mode in other surroundings: as an ordinary user, in a namespace, at a terminal, where files would
//! give more than the user has, and where nobody can listen to a filter.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    ffi::OsStr, fs, os::unix::fs::MetadataExt as _, process::Command, thread::sleep, time::Duration,
};

use finject_tests::{
    child::{Child, PATIENCE},
    programs, test_name, unsupported,
};

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
        child.say("\x1a");
        sleep(Duration::from_millis(200));
        child.say("\x03");
        let ended = child.wait(PATIENCE);
        assert_eq!(ended.code(), Some(7), "{backend}: {ended}");
        let heard = ended.out().matches("heard").count();
        assert_eq!(heard, 1, "{backend}: {ended}");
    }
}
