//! Launched commands, on every kernel: without error injection, and without privilege. The rest of
//! launch mode is tested on the machine at hand (injector/tests/launch.rs).

use std::{process::Command, time::Duration};

use finject_tests::{child::PATIENCE, guest, victim::Victim};
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
    for _ in 0..guest::scaled(50) {
        let mut launcher = finject("getppid=EPERM");
        let mut victim = Victim::launched(&mut launcher, &["loop", "getppid"]);
        victim.until(PATIENCE, true);
        victim.child().signal(Signal::KILL);
        victim.until(Duration::from_secs(2), false);
        victim.child().close();
    }
}
