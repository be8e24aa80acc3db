//! Launched commands, on every kernel: without error injection, and without privilege. The rest of
//! launch mode is tested on the machine at hand (injector/tests/launch.rs).

use std::{fs, path::Path, process::Command, time::Duration};

use finject_tests::{
    child::{Child, PATIENCE},
    guest,
    scale::scaled,
    victim::Victim,
};
use rustix::process::Signal;

/// finject with a rule, complete up to the command, as nobody.
fn finject(rule: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(guest::finject())
        .args(["--quiet", "--rule", rule, "--"]);
    command
}

#[test]
fn the_hundredth_calls_of_eight_threads_fail_without_privilege() {
    let mut launcher = finject("getppid=EPERM@100+100");
    let mut victim = Victim::launched(&mut launcher, &["threads", "8", "500", "getppid"]);
    let seen = victim.work();
    assert_eq!((seen.calls, seen.errors), (4000, 40));
    assert_eq!(victim.end().code(), Some(0));
}

#[test]
fn a_32_bit_command_is_hit() {
    let mut launcher = finject("fsync=EIO@2");
    let mut victim = Victim::launched32(&mut launcher, &["threads", "1", "3", "fsync"]);
    assert_eq!(victim.work().errors, 1);
    assert_eq!(victim.end().code(), Some(0));
}

#[test]
fn killed_in_a_storm_the_command_goes_on_unfaulted() {
    for _ in 0..scaled(50) {
        let mut launcher = finject("getppid=EPERM");
        let mut victim = Victim::launched(&mut launcher, &["loop", "getppid"]);
        victim.until(PATIENCE, true);
        victim.child().signal(Signal::KILL);
        victim.until(Duration::from_secs(2), false);
        victim.child().close();
    }
}

/// cat's own message, which a rule brings about, behind these words.
fn cats_call_fails(before: &mut Command, finject: &str, backend: &str) {
    before
        .args([finject, "--quiet", "--backend", backend])
        .args(["--rule", "openat=ENOENT@1", "--", "cat", "/etc/hostname"])
        .env("LC_ALL", "C")
        .env_remove("FINJECT_RULES");
    let ended = Child::run(before);
    assert_eq!(ended.code(), Some(1), "{backend}: {ended}");
    let said = "cat: /etc/hostname: No such file or directory";
    assert_eq!(ended.err(), said, "{backend}: {ended}");
}

#[test]
fn an_ordinary_user_launches_in_a_namespace_of_their_own() {
    for backend in ["notify", "ptrace"] {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .args(["unshare", "-Ur"]);
        cats_call_fails(
            &mut command,
            &guest::finject().display().to_string(),
            backend,
        );
    }
}

/// As nobody in a container of Docker's, as far as system calls and processes go.
#[test]
fn dockers_default_profile_lets_it_work() {
    // Where the user nobody can reach it.
    const FINJECT: &str = "/tmp/finject-contained";
    const PROFILE: &str =
        "/usr/share/gocode/src/github.com/docker/docker/profiles/seccomp/default.json";
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/dockers_profile.py");
    fs::copy(guest::finject(), FINJECT).unwrap();
    let contained = |arguments: &[&str]| {
        let mut command = Command::new("/usr/bin/python3");
        command
            .arg(&script)
            .arg(PROFILE)
            .args(arguments)
            .env("LC_ALL", "C")
            .env_remove("FINJECT_RULES");
        Child::run(&mut command)
    };
    // The profile is in force: it lets nobody make namespaces.
    let refused = contained(&["unshare", "--user", "true"]);
    assert!(
        refused.err().contains("Operation not permitted"),
        "{refused}"
    );
    for backend in ["notify", "ptrace"] {
        // The first process of a container is another's.
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--mount-proc", "--"])
            .args(["/usr/bin/python3".as_ref(), script.as_os_str()])
            .args([PROFILE, "sh", "-c", "\"$@\"; exit $?", "sh"]);
        cats_call_fails(&mut command, FINJECT, backend);
    }
}
