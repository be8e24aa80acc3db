//! `finject ctl`: what a session is asked while it runs, by every way whose threads finject holds.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::Path, process::Command, thread, time::Duration};

use finject_tests::{
    child::{Child, Ended, PATIENCE, eventually},
    finject::{Finject, Session},
    programs,
    victim::{Seen, Victim},
};
use rustix::process::Signal;
use serde_json::Value;

const FINJECT: &str = env!("CARGO_BIN_EXE_finject");

/// How rules are brought to a victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Notify,
    Traced,
    Attached,
}

const WAYS: [Way; 3] = [Way::Notify, Way::Traced, Way::Attached];

/// A victim under rules that are in force; it has not called yet.
struct Running {
    victim: Victim,
    session: Option<Session>,
    id: String,
}

fn start(way: Way, options: &[&str], victim: &[&str]) -> Running {
    let backend = if way == Way::Notify {
        "notify"
    } else {
        "ptrace"
    };
    if way == Way::Attached {
        let victim = Victim::of(programs::VICTIM, victim);
        let finject = Finject::of(Path::new(FINJECT)).args(["--backend", backend]);
        let mut session = finject.args(options).pid(victim.pid()).start();
        let id = session.child().pid().to_string();
        return Running {
            victim,
            session: Some(session),
            id,
        };
    }
    let mut launcher = Command::new("env");
    launcher
        .args(["--default-signal", FINJECT, "--quiet", "--backend", backend])
        .env_remove("FINJECT_RULES")
        .args(options)
        .args(["--", programs::VICTIM]);
    let mut victim = Victim::launched_by(&mut launcher, victim);
    let id = victim.child().pid().to_string();
    Running {
        victim,
        session: None,
        id,
    }
}

impl Running {
    fn try_ctl(&self, arguments: &[&str]) -> Ended {
        let mut command = Command::new(FINJECT);
        command
            .args(["ctl", "--json", "--session", &self.id])
            .args(arguments);
        Child::run(&mut command)
    }

    fn ctl(&self, arguments: &[&str]) -> Value {
        let ended = self.try_ctl(arguments);
        assert_eq!(ended.code(), Some(0), "{arguments:?}: {ended}");
        serde_json::from_str(&ended.out()).unwrap()
    }

    fn rule(&self, index: usize) -> Value {
        self.ctl(&["status"])["rules"][index].clone()
    }

    fn seen(&mut self) -> Seen {
        self.victim.seen("self")
    }

    /// Ends the victim, and the session with it.
    fn end(self) {
        let ended = self.victim.end();
        assert_eq!(ended.code(), Some(0), "{ended}");
        if let Some(session) = self.session {
            session.wait(PATIENCE);
        }
    }
}

#[test]
fn a_thread_is_held_until_it_is_released() {
    for way in WAYS {
        for (with, errors, zeros, errno) in [
            (&[][..], 1, 0, 1),
            (&["--with", "run"], 0, 0, 0),
            (&["--with", "EIO"], 1, 0, 5),
            (&["--with", "ret:0"], 0, 1, 0),
        ] {
            let rule = ["--rule", "getppid=hold:60s+EPERM@2"];
            let mut running = start(way, &rule, &["threads", "1", "3", "getppid"]);
            running.victim.go();
            let hit = running.ctl(&["wait-hit", "r1", "--timeout", "10s"]);
            assert_eq!(
                (&hit["hit"], &hit["held"]),
                (&1.into(), &1.into()),
                "{way:?}"
            );
            thread::sleep(Duration::from_millis(50));
            assert_eq!(running.rule(0)["held"], 1, "{way:?}");
            let release = [&["release", "r1"], with].concat();
            assert_eq!(running.ctl(&release)["released"], 1, "{way:?}");
            let seen = running.seen();
            assert_eq!(
                (seen.calls, seen.errors, seen.zeros, seen.errno),
                (3, errors, zeros, errno),
                "{way:?} {with:?}"
            );
            assert_eq!(
                running.ctl(&release)["released"],
                0,
                "{way:?}: it may be said twice"
            );
            running.end();
        }
    }
}

#[test]
fn threads_are_released_one_by_one_or_together() {
    for way in WAYS {
        let rule = ["--rule", "getppid=hold:60s@1,per:thread"];
        let mut running = start(way, &rule, &["threads", "8", "1", "getppid"]);
        running.victim.go();
        running.ctl(&["wait-hit", "r1", "--count", "8", "--timeout", "10s"]);
        for left in [7, 6] {
            assert_eq!(running.ctl(&["release", "r1", "--one"])["released"], 1);
            assert_eq!(running.rule(0)["held"], left, "{way:?}");
        }
        assert_eq!(running.ctl(&["release", "r1", "--all"])["released"], 6);
        assert_eq!(running.seen().errors, 0, "{way:?}");
        running.end();
    }
}

#[test]
fn who_waits_for_a_hit_in_vain_is_told() {
    let rule = ["--rule", "getppid=EPERM@3"];
    let mut running = start(Way::Notify, &rule, &["threads", "1", "3", "getppid"]);
    let ended = running.try_ctl(&["wait-hit", "r1", "--timeout", "200ms"]);
    assert_eq!(ended.code(), Some(124), "{ended}");
    running.victim.go();
    assert_eq!(
        running.ctl(&["wait-hit", "r1", "--timeout", "10s"])["hit"],
        1
    );
    running.end();
}

#[test]
fn a_rule_that_is_armed_again_counts_from_one() {
    for way in WAYS {
        let rules = [
            "--rule",
            "getppid=EPERM@2",
            "--rule",
            "getppid=EIO@3,per:thread",
        ];
        let running = start(way, &rules, &["loop", "getppid"]);
        running.victim.until(PATIENCE, false);
        eventually(PATIENCE, "both have fired", || {
            (0..2).all(|rule| running.rule(rule)["fired"] == 1)
        });
        for number in 2..4 {
            assert_eq!(running.ctl(&["disarm"])["disarmed"], 2, "{way:?}");
            assert_eq!(running.ctl(&["disarm"])["disarmed"], 0, "{way:?}");
            assert_eq!(running.rule(0)["armed"], false);
            assert_eq!(running.ctl(&["arm", "r1", "r2"])["armed"], 2, "{way:?}");
            assert_eq!(running.ctl(&["arm"])["armed"], 0, "{way:?}");
            eventually(PATIENCE, "both have fired again", || {
                (0..2).all(|rule| running.rule(rule)["fired"] == number)
            });
        }
        running.end();
    }
}

/// They run the real call at once, although the rule says what else is to happen.
#[test]
fn disarming_lets_threads_go() {
    for way in WAYS {
        let rule = ["--rule", "getppid=hold:60s+EPERM@1,per:thread"];
        let mut running = start(way, &rule, &["threads", "4", "2", "getppid"]);
        running.victim.go();
        running.ctl(&["wait-hit", "r1", "--count", "4", "--timeout", "10s"]);
        assert_eq!(running.ctl(&["disarm", "r1"])["released"], 4, "{way:?}");
        assert_eq!(running.seen().errors, 0, "{way:?}");
        running.end();
    }
}

/// Whatever else was decided for their calls.
#[test]
fn stopping_runs_the_calls_that_wait() {
    for way in WAYS {
        let rules = [
            "--rule",
            "getppid=hold:60s",
            "--rule",
            "getppid=signal:SIGUSR1+EPERM@max:9",
        ];
        let mut running = start(way, &rules, &["threads", "2", "1", "getppid"]);
        running.victim.go();
        running.ctl(&["wait-hit", "r1", "--count", "2", "--timeout", "10s"]);
        running.ctl(&["stop"]);
        let seen = running.seen();
        assert_eq!((seen.errors, seen.signals), (0, 0), "{way:?}");
        running.end();
    }
}

#[test]
fn a_rule_that_was_disarmed_holds_nobody_afterwards() {
    // The second wait of a call is of a rule that is out of force by then.
    for way in WAYS {
        let rules = [
            "--rule",
            "getppid=hold:60s@1",
            "--rule",
            "getppid=hold:60s+EPERM@1",
        ];
        let mut running = start(way, &rules, &["threads", "1", "2", "getppid"]);
        running.victim.go();
        running.ctl(&["wait-hit", "r1", "--timeout", "10s"]);
        running.ctl(&["disarm", "r2"]);
        running.ctl(&["release", "r1"]);
        assert_eq!(running.seen().errors, 0, "{way:?}");
        running.end();
    }
    // The wait comes after a call that runs when it is disarmed.
    for way in [Way::Traced, Way::Attached] {
        let rule = ["--rule", "pause=after:hold:60s@1"];
        let mut running = start(way, &rule, &["threads", "1", "1", "pause"]);
        running.victim.go();
        eventually(PATIENCE, "it is in its call", || {
            running.rule(0)["matched"] == 1
        });
        running.ctl(&["disarm"]);
        running.victim.signal_worker(Signal::USR1);
        assert_eq!(running.seen().calls, 1, "{way:?}");
        running.end();
    }
}

#[test]
fn a_firing_that_disarms_another_rule_lets_its_threads_go() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.toml");
    fs::write(
        &file,
        "[[rule]]\nname = \"holds\"\nrule = \"getppid=hold:60s@1..3\"\n\
         [[rule]]\nname = \"ends\"\nrule = \"getppid=ret:0@4\"\ndisarms = [\"holds\"]\n",
    )
    .unwrap();
    for way in WAYS {
        let rules = ["--rules", file.to_str().unwrap()];
        let mut running = start(way, &rules, &["threads", "4", "1", "getppid"]);
        running.victim.go();
        let seen = running.seen();
        assert_eq!((seen.calls, seen.zeros), (4, 1), "{way:?}");
        assert_eq!(running.rule(0)["fired"], 3, "{way:?}");
        running.end();
    }
}

/// It is out of force while it holds, and holds all the same.
#[test]
fn a_rule_that_disarms_itself_lets_go_when_it_is_disarmed_or_removed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.toml");
    let text = "[[rule]]\nname = \"own\"\nrule = \"getppid=hold:60s+EIO@1\"\ndisarms = [\"own\"]\n";
    fs::write(&file, text).unwrap();
    for way in WAYS {
        for (command, counted) in [("disarm", "disarmed"), ("remove", "removed")] {
            let rules = ["--rules", file.to_str().unwrap()];
            let mut running = start(way, &rules, &["threads", "1", "2", "getppid"]);
            running.victim.go();
            running.ctl(&["wait-hit", "own", "--timeout", "10s"]);
            let answer = running.ctl(&[command, "own"]);
            let number = u64::from(command == "remove");
            assert_eq!(answer[counted], number, "{way:?} {command}");
            assert_eq!(answer["released"], 1, "{way:?} {command}");
            assert_eq!(running.seen().errors, 0, "{way:?} {command}");
            running.end();
        }
    }
}

#[test]
fn stopping_heals_and_may_be_said_twice() {
    for way in WAYS {
        let rule = ["--rule", "getppid=EPERM"];
        let running = start(way, &rule, &["loop", "getppid"]);
        running.victim.until(PATIENCE, true);
        assert_eq!(running.ctl(&["stop"])["stopped"], true, "{way:?}");
        running.victim.until(PATIENCE, false);
        assert_eq!(running.ctl(&["stop"])["stopped"], false, "{way:?}");
        running.end();
    }
}

#[test]
fn a_rule_of_a_file_may_wait_to_be_armed_by_another() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.toml");
    fs::write(
        &file,
        "[[rule]]\nname = \"first\"\nrule = \"getppid=EPERM@2\"\narms = [\"second\"]\ndisarms = [\"first\"]\n\
         [[rule]]\nname = \"second\"\nrule = \"getppid=EIO@3\"\narmed = false\n",
    )
    .unwrap();
    for way in WAYS {
        let rules = ["--rules", file.to_str().unwrap()];
        let mut running = start(way, &rules, &["threads", "1", "10", "getppid"]);
        assert_eq!(running.rule(1)["armed"], false, "{way:?}");
        running.victim.go();
        let seen = running.seen();
        assert_eq!((seen.errors, seen.errno), (2, 1), "{way:?}");
        let (first, second) = (running.rule(0), running.rule(1));
        assert_eq!(
            (&first["matched"], &first["armed"]),
            (&2.into(), &false.into())
        );
        assert_eq!(
            (&second["matched"], &second["armed"]),
            (&8.into(), &true.into())
        );
        running.end();
    }
}

#[test]
fn a_session_that_was_killed_is_found_by_nobody() {
    let rule = ["--rule", "getppid=EPERM@3"];
    let mut running = start(Way::Attached, &rule, &["loop", "getppid"]);
    running.ctl(&["status"]);
    let mut session = running.session.take().unwrap();
    session.child().signal(Signal::KILL);
    session.child().wait(PATIENCE);
    let ended = running.try_ctl(&["status"]);
    assert_eq!(ended.code(), Some(64), "{ended}");
    assert!(
        ended.err().contains(&format!("no session {}", running.id)),
        "{ended}"
    );
    running.end();
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let rule = ["--rule", "getppid=EPERM@3"];
    let running = start(Way::Notify, &rule, &["loop", "getppid"]);
    for (arguments, said) in [
        (&["arm", "r2"][..], "there is no rule r2"),
        (&["release", "x"], "the session's rules: r1"),
        (&["release", "r1", "--with", "EOI"], "is no errno"),
        (&["wait-hit", "r1", "--timeout", "5"], "unit"),
    ] {
        let ended = running.try_ctl(arguments);
        assert_eq!(ended.code(), Some(64), "{arguments:?} {ended}");
        assert!(ended.err().contains(said), "{ended}");
    }
    running.end();
}

/// A finject that a shell starts, which ends at once.
fn in_background(options: &str) -> Ended {
    let line = format!("exec {FINJECT} --background --backend ptrace {options}");
    let mut shell = Command::new("setsid");
    shell
        .args(["--wait", "sh", "-c", &line])
        .env_remove("FINJECT_RULES");
    Child::run(&mut shell)
}

#[test]
fn a_session_in_the_background_outlives_its_shell_until_it_is_stopped() {
    for options in ["", "--json"] {
        let victim = Victim::looping("getppid");
        let pid = victim.pid();
        let started = in_background(&format!("{options} --pid {pid} --rule getppid=EPERM"));
        assert_eq!(started.code(), Some(0), "{started}");
        let id = if options.is_empty() {
            let told = started.out();
            let (id, _) = told
                .strip_prefix("session ")
                .unwrap()
                .split_once(':')
                .unwrap();
            assert!(
                started.err().contains("armed on"),
                "what is said until then: {started}"
            );
            id.to_owned()
        } else {
            let told: Value = serde_json::from_str(&started.out()).unwrap();
            told["session"].as_str().unwrap().to_owned()
        };
        victim.until(PATIENCE, true);
        let running = Running {
            victim,
            session: None,
            id,
        };
        assert_eq!(running.ctl(&["stop"])["stopped"], true);
        running.victim.until(PATIENCE, false);
        assert_eq!(
            running.ctl(&["stop"])["stopped"],
            false,
            "it may be said twice"
        );
        running.end();
    }
}

#[test]
fn a_session_in_the_background_ends_when_its_time_is_up() {
    let victim = Victim::looping("getppid");
    let options = format!("--duration 1s --pid {} --rule getppid=EPERM", victim.pid());
    assert_eq!(in_background(&options).code(), Some(0));
    victim.until(PATIENCE, true);
    victim.until(PATIENCE, false);
    assert_eq!(victim.end().code(), Some(0));
}

#[test]
fn a_session_that_does_not_begin_is_not_left_in_the_background() {
    for (options, code, said) in [
        ("--pid 4000000 --rule fsync=EIO", 64, "4000000"),
        ("--pid 4000000 --rule fsync=EOI", 64, "did you mean `EIO`"),
        (
            "--events - --pid 4000000 --rule fsync=EIO",
            64,
            "--events FILE",
        ),
        ("--rule fsync=EIO -- true", 64, "cannot be used with"),
        (
            "--must-fire --pid 1 --rule fsync=EIO",
            64,
            "cannot be used with",
        ),
    ] {
        let ended = in_background(options);
        assert_eq!(ended.code(), Some(code), "{options}: {ended}");
        assert!(ended.err().contains(said), "{options}: {ended}");
        assert_eq!(ended.out(), "", "{options}");
    }
}
