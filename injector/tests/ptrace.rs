//! The ptrace backend on the kernel at hand: that nobody notices it but by the faults, and what becomes
//! of targets when one of finject's processes dies or hangs.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{fs, path::Path, process::Command, thread::sleep, time::Duration};

use finject_tests::{
    child::{Child, PATIENCE, eventually},
    finject::{Finject, Session},
    programs,
    victim::Victim,
};
use rustix::process::{Pid, Signal, kill_process};

const FINJECT: &str = env!("CARGO_BIN_EXE_finject");
/// How long targets may take to run on.
const SOON: Duration = Duration::from_secs(2);

fn attach(pid: u32, rule: &str) -> Finject {
    Finject::of(Path::new(FINJECT))
        .args(["--backend", "ptrace"])
        .pid(pid)
        .rule(rule)
}

/// finject with a rule, complete up to the command.
fn launch(rule: &str) -> Command {
    let mut command = Command::new("env");
    command
        .args([
            "--default-signal",
            FINJECT,
            "--backend",
            "ptrace",
            "--quiet",
        ])
        .args(["--rule", rule, "--"])
        .env_remove("FINJECT_RULES");
    command
}

fn looping() -> Victim {
    Victim::of(programs::VICTIM, &["loop", "getppid"])
}

/// A process of finject's beside the one that was started, by its name.
fn helper(of: u32, name: &str) -> u32 {
    find_helper(of, name).unwrap_or_else(|| panic!("no {name} of {of}"))
}

fn find_helper(of: u32, name: &str) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).ok()?;
    let is_it = |pid: &&str| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
        comm.is_ok_and(|comm| comm.trim() == name)
    };
    let pid = children.split_ascii_whitespace().find(is_it);
    pid?.parse().ok()
}

fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// The states of a process's threads, and whether one of them is traced.
fn threads(pid: u32) -> (Vec<char>, bool) {
    let mut states = Vec::new();
    let mut traced = false;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or("").trim().to_owned()
        };
        states.extend(field("State:").chars().next());
        traced |= field("TracerPid:") != "0";
    }
    (states, traced)
}

fn is_free(pid: u32) -> bool {
    let (states, traced) = threads(pid);
    !traced && !states.iter().any(|state| matches!(state, 'T' | 't'))
}

/// A rule whose call never comes is told what comes instead.
#[test]
fn what_was_seen_instead_is_told() {
    for (call, rule, why) in [
        (
            "fdatasync",
            "fsync=EIO",
            "r1 never fired: fdatasync 5 times, fsync never: try %sync",
        ),
        (
            "getppid",
            "fsync=EIO",
            "r1 never fired: fsync never came; what came most: getppid 5 times",
        ),
        (
            "lseek",
            "lseek(fd=76)=EIO",
            "r1 never fired: 5 of its calls came, none with fd=76",
        ),
    ] {
        let mut victim = Victim::of(programs::VICTIM, &["threads", "1", "5", call]);
        let session = attach(victim.pid(), rule).start();
        victim.work();
        let outcome = session.stop();
        assert!(outcome.ended.err().contains(why), "{}", outcome.ended);
        let why_not = outcome.summary["rules"][0]["why_not"].as_str().unwrap();
        let told = format!("r1 never fired: {why_not}");
        assert!(told.starts_with(why), "{}", outcome.summary);
    }
}

/// Targets come and go: their records, by attaching and by launching.
#[test]
fn what_becomes_of_targets_is_recorded() {
    const WHO: [&str; 4] = ["child-before", "child-after", "grandchild", "after-exec"];
    let family = ["family", "5", "getppid"];
    let rule = "getppid=ret:0@2,per:process";
    let tell = |seen: &[u32], events: &[serde_json::Value]| {
        let pids = |kind: &str| {
            let of_kind = events.iter().filter(|event| event["kind"] == kind);
            let mut pids: Vec<_> = of_kind
                .map(|event| event["pid"].as_u64().unwrap())
                .collect();
            pids.sort_unstable();
            pids
        };
        let sorted = |indices: &[usize]| {
            let mut pids: Vec<_> = indices
                .iter()
                .map(|index| u64::from(seen[*index]))
                .collect();
            pids.sort_unstable();
            pids
        };
        assert_eq!(pids("target-execed"), sorted(&[3]), "{events:?}");
        assert_eq!(pids("fired"), sorted(&[0, 1, 2, 3]), "{events:?}");
        let exited = events
            .iter()
            .filter(|event| event["kind"] == "target-exited");
        for event in exited {
            assert_eq!(event["status"], 0, "{event}");
        }
        (
            pids("target-started"),
            pids("target-exited"),
            sorted(&[1, 2]),
        )
    };

    let mut victim = Victim::of(programs::VICTIM, &family);
    let session = attach(victim.pid(), rule).start();
    victim.go();
    let seen = WHO.map(|who| victim.seen(who).pid);
    let (started, exited, new) = tell(&seen, &session.stop().events);
    assert_eq!(started, new);
    assert_eq!(exited.len(), 3, "all but the first, which waits");

    let events = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new(FINJECT);
    command
        .args(["--backend", "ptrace", "--quiet", "--rule", rule, "--events"])
        .arg(events.path())
        .arg("--")
        .env_remove("FINJECT_RULES");
    let mut victim = Victim::launched(&mut command, &family);
    victim.go();
    let seen = WHO.map(|who| victim.seen(who).pid);
    assert_eq!(victim.end().code(), Some(0));
    let text = fs::read_to_string(events.path()).unwrap();
    let records: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (started, exited, _) = tell(&seen, &records);
    assert_eq!(
        started.len(),
        3,
        "also the child from before the line: {records:?}"
    );
    assert_eq!(exited.len(), 4, "{records:?}");
}

/// A program that waits in all ways, and its process.
fn waiter(mut command: Command) -> (Child, u32) {
    let waiter = Child::start(command.arg("200"));
    let ready = waiter.find_line(PATIENCE, |line| line.starts_with("ready "));
    let pid = ready.unwrap()["ready ".len()..].parse().unwrap();
    (waiter, pid)
}

/// Calls that sleep are neither cut short nor made longer, however often finject comes and goes. How
/// long each takes is the machine's matter; twice its time, again and again, would be finject's.
#[test]
fn sleeping_calls_do_not_notice() {
    do_not_notice(programs::WAITER, 100);
}

#[test]
fn sleeping_calls_of_a_32_bit_program_do_not_notice() {
    assert!(
        !programs::WAITER32.is_empty(),
        "the compiler could not build it"
    );
    do_not_notice(programs::WAITER32, 40);
}

fn do_not_notice(program: &str, cycles: u64) {
    let (waiter, pid) = waiter(Command::new(program));
    for _ in 0..cycles {
        let session = attach(pid, "fsync=EIO@3")
            .args(["--duration", "30ms"])
            .start();
        let outcome = session.wait(PATIENCE);
        assert_eq!(outcome.code(), Some(0), "{}", outcome.ended);
    }
    waits_of(waiter, &["interrupted", "early", "other", "late"]);
}

/// Longer than a session and than finject waits at its end: the tracer stays for it, and goes when another
/// finject comes, which then knows when the wait is over.
#[test]
fn a_long_wait_takes_its_time_whoever_comes_and_goes() {
    const SECONDS: u32 = 8;
    assert!(!programs::PYTHON.is_empty(), "there is no python3");
    let script = format!(
        "import select, time; poll = select.epoll(); print('ready', flush=True); \
         start = time.monotonic(); poll.poll({SECONDS}); print('took', time.monotonic() - start)"
    );
    let mut child = Child::start(Command::new(programs::PYTHON).args(["-c", &script]));
    child.expect_line(PATIENCE, |line| line == "ready");
    for _ in 0..2 {
        sleep(Duration::from_secs(2));
        let session = attach(child.pid(), "fsync=EIO@3")
            .args(["--duration", "100ms"])
            .start();
        let outcome = session.wait(PATIENCE);
        assert_eq!(outcome.code(), Some(0), "{}", outcome.ended);
        assert!(threads(child.pid()).1, "somebody stays for it");
        assert!(!threads(child.pid()).0.contains(&'t'), "and holds nobody");
    }
    let took = child.expect_line(PATIENCE, |line| line.starts_with("took "));
    let took: f64 = took["took ".len()..].parse().unwrap();
    // Begun anew it would take a quarter more at least, and half more the second time.
    assert!(
        (f64::from(SECONDS)..f64::from(SECONDS) * 1.2).contains(&took),
        "{took}"
    );
    assert_eq!(child.wait(PATIENCE).code(), Some(0));
}

/// Nor do they notice signals that do nothing, for which a traced thread stops all the same.
#[test]
fn sleeping_calls_do_not_notice_signals_that_do_nothing() {
    let (waiter, pid) = waiter(Command::new(programs::WAITER));
    let session = attach(pid, "fsync=EIO@3").start();
    for _ in 0..100 {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        for tid in tasks.flatten() {
            let tid: u32 = tid.file_name().to_str().unwrap().parse().unwrap();
            // kill(2) takes a thread for its process, and the kernel prefers that thread.
            send(tid, Signal::WINCH);
        }
        sleep(Duration::from_millis(20));
    }
    sleep(Duration::from_millis(200));
    assert_eq!(session.stop().code(), Some(0));
    waits_of(waiter, &["interrupted", "early", "other", "late"]);
}

/// Those of a launched program begin anew then, and are not cut short either.
#[test]
fn a_launched_programs_calls_do_not_end_early_for_signals_that_do_nothing() {
    let mut command = launch("fsync=EIO@3");
    command.arg(programs::WAITER);
    let (mut waiter, _) = waiter(command);
    for _ in 0..20 {
        waiter.say("w");
        sleep(Duration::from_millis(150));
    }
    waits_of(waiter, &["interrupted", "early", "other"]);
}

/// A call that was made again for finject, and then ends for a handler, leaves the next one its time.
#[test]
fn a_handler_ends_one_call_and_not_the_next() {
    let (mut waiter, pid) = waiter(Command::new(programs::WAITER));
    for _ in 0..20 {
        let session = attach(pid, "fsync=EIO@3").start();
        waiter.say("u");
        sleep(Duration::from_millis(250));
        assert_eq!(session.stop().code(), Some(0));
    }
    waits_of(waiter, &["early", "other"]);
}

/// Asks a waiter what became of its waits: nothing of this, late ones aside.
fn waits_of(mut waiter: Child, never: &[&str]) {
    waiter.close();
    let ended = waiter.wait(PATIENCE);
    let ways: Vec<&String> = ended
        .stdout
        .iter()
        .filter(|line| line.contains(" waits="))
        .collect();
    assert_eq!(ways.len(), 11, "{ended}");
    for way in ways {
        let field = |name: &str| -> u64 {
            let value = way
                .split(' ')
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            value.unwrap().parse().unwrap()
        };
        println!("{way}");
        for name in never {
            let most = match *name {
                "late" => field("waits") / 10,
                _ => 0,
            };
            assert!(field(name) <= most, "{name}: {way}");
        }
    }
}

#[test]
fn a_timer_changes_nothing() {
    for mode in ["restart", "interrupt"] {
        let work = |command: &mut Command| {
            let mut ticker = Child::start(command.args([mode, "3000"]));
            ticker.expect_line(PATIENCE, |line| line.starts_with("ready "));
            ticker
        };
        let wanted = "done wrong=0 errors=30 ticked=1 restarted=1 cut=0";
        let mut attached = work(&mut Command::new(programs::TICKER));
        let session = attach(attached.pid(), "getppid=EPERM@100+100").start();
        attached.say("");
        attached.expect_line(PATIENCE, |line| line == wanted);
        assert_eq!(session.wait(PATIENCE).fired(), 30);
        let mut launched = work(launch("getppid=EPERM@100+100").arg(programs::TICKER));
        launched.say("");
        launched.expect_line(PATIENCE, |line| line == wanted);
        assert_eq!(launched.wait(PATIENCE).code(), Some(0));
    }
}

/// A traced thread is stopped for signals that do nothing, too. The call that it sleeps in is made again,
/// and neither that one nor the next is taken for another.
#[test]
fn signals_that_do_nothing_change_no_count() {
    let victim = ["threads", "1", "10", "getppid"];
    for rule in ["getppid=EPERM@10", "read,getppid=EPERM@11"] {
        let mut launched = launch(rule);
        launched.arg(programs::VICTIM);
        let mut victim = Victim::launched_by(&mut launched, &victim);
        for _ in 0..5 {
            // It waits for its line in a read, which is one call however often it is made again.
            let pid = victim.worker();
            eventually(PATIENCE, "it sleeps", || threads(pid).0 == ['S']);
            victim.signal_worker(Signal::WINCH);
            sleep(Duration::from_millis(10));
        }
        let seen = victim.work();
        assert_eq!((seen.calls, seen.errors), (10, 1), "{rule}");
        assert_eq!(victim.end().code(), Some(0));
    }
}

/// Whoever dies or hangs, the target runs on without faults, and nobody holds it.
fn runs_on_after(wound: impl Fn(&mut Session)) {
    let victim = looping();
    for _ in 0..5 {
        let mut session = attach(victim.pid(), "getppid=EPERM").start();
        victim.until(PATIENCE, true);
        wound(&mut session);
        victim.until(SOON, false);
        eventually(SOON, "nobody holds it", || is_free(victim.pid()));
        drop(session);
    }
    assert_eq!(victim.end().code(), Some(0));
}

#[test]
fn killed_in_a_storm_the_target_runs_on() {
    runs_on_after(|session| {
        session.child().signal(Signal::KILL);
        assert_eq!(session.child().wait(PATIENCE).code(), None);
    });
}

#[test]
fn the_tracers_death_frees_the_target_and_is_told() {
    runs_on_after(|session| {
        send(helper(session.pid(), "finject-tracer"), Signal::KILL);
        let ended = session.child().wait(PATIENCE);
        assert_eq!(ended.code(), Some(125), "{ended}");
        assert!(ended.err().contains("has died or hung"), "{ended}");
    });
}

#[test]
fn stopped_it_injects_nothing_and_holds_nobody() {
    let victim = looping();
    let mut session = attach(victim.pid(), "getppid=EPERM").start();
    victim.until(PATIENCE, true);
    session.child().signal(Signal::STOP);
    victim.until(Duration::from_secs(3), false);
    eventually(SOON, "nobody holds it", || is_free(victim.pid()));
    session.child().signal(Signal::CONT);
    assert_eq!(session.wait(PATIENCE).code(), Some(125));
    assert_eq!(victim.end().code(), Some(0));
}

#[test]
fn a_tracer_that_somebody_stops_goes_on_or_is_ended() {
    let victim = looping();
    let mut session = attach(victim.pid(), "getppid=EPERM@2+2").start();
    victim.until(PATIENCE, true);
    for _ in 0..4 {
        send(helper(session.pid(), "finject-tracer"), Signal::STOP);
        sleep(Duration::from_millis(1500));
        let before = victim.changes().len();
        eventually(SOON, "it calls again", || {
            victim.changes().len() > before + 10
        });
    }
    session.child().signal(Signal::INT);
    assert_eq!(session.wait(PATIENCE).code(), Some(0));
    assert_eq!(victim.end().code(), Some(0));
}

#[test]
fn a_tracer_without_its_keeper_is_looked_after_all_the_same() {
    let victim = looping();
    let mut session = attach(victim.pid(), "getppid=EPERM@2+2").start();
    victim.until(PATIENCE, true);
    let goes_on = |within: Duration| {
        let before = victim.changes().len();
        eventually(within, "it calls again", || {
            victim.changes().len() > before + 10
        });
    };
    let keeper = helper(session.pid(), "finject-keeper");
    send(keeper, Signal::STOP);
    let status = || fs::read_to_string(format!("/proc/{keeper}/status")).unwrap();
    eventually(2 * SOON, "the keeper goes on", || {
        !status().contains("State:\tT")
    });
    goes_on(SOON);
    send(keeper, Signal::KILL);
    send(helper(session.pid(), "finject-tracer"), Signal::STOP);
    sleep(Duration::from_millis(100));
    goes_on(2 * SOON);
    session.child().signal(Signal::INT);
    assert_eq!(session.wait(PATIENCE).code(), Some(0));
    assert_eq!(victim.end().code(), Some(0));
}

/// One of finject's processes is hit while it comes or goes, at any moment of that.
fn is_free_after(hit: (&str, Signal), round: u64, coming: bool) {
    let (name, signal) = hit;
    let victim = looping();
    let mut session = attach(victim.pid(), "getppid=EPERM@1000000").begin();
    let finject = session.pid();
    eventually(PATIENCE, "it starts", || {
        find_helper(finject, name).is_some()
    });
    if !coming {
        eventually(PATIENCE, "it is traced", || threads(victim.pid()).1);
        session.signal(Signal::INT);
    }
    sleep(Duration::from_micros(round * 300));
    let found = find_helper(finject, name).and_then(|pid| Pid::from_raw(pid.cast_signed()));
    if let Some(helper) = found {
        // It may be gone by now.
        let _ = kill_process(helper, signal);
    }
    if coming {
        sleep(Duration::from_millis(100));
        session.signal(Signal::INT);
    }
    let ended = session.wait(PATIENCE);
    let why = format!("{hit:?}, round {round}, coming: {coming}: {ended}");
    assert!(matches!(ended.code(), Some(0 | 69 | 125)), "{why}");
    eventually(SOON, &why, || is_free(victim.pid()));
    assert_eq!(victim.changes().len(), 1, "no call fails: {why}");
    assert_eq!(victim.end().code(), Some(0), "{why}");
}

#[test]
fn a_helper_that_is_hit_while_it_comes_or_goes_leaves_nobody_held() {
    for coming in [true, false] {
        for name in ["finject-tracer", "finject-keeper"] {
            for signal in [Signal::KILL, Signal::STOP] {
                for round in 0..10 {
                    is_free_after((name, signal), round, coming);
                }
            }
        }
    }
}

/// The same for a command that finject launches and traces: somebody stops its tracer, stops or kills
/// its keeper.
#[test]
fn a_launched_commands_tracer_and_keeper_are_looked_after() {
    let mut victim = Victim::launched(&mut launch("getppid=EPERM@2+2"), &["loop", "getppid"]);
    victim.until(PATIENCE, true);
    let finject = victim.pid();
    let goes_on = |within: Duration| {
        let before = victim.changes().len();
        eventually(within, "it calls again", || {
            victim.changes().len() > before + 10
        });
    };
    let [tracer, keeper] = ["finject-tracer", "finject-keeper"].map(|name| helper(finject, name));
    send(tracer, Signal::STOP);
    goes_on(2 * SOON);
    send(keeper, Signal::STOP);
    goes_on(SOON);
    send(keeper, Signal::KILL);
    send(tracer, Signal::STOP);
    sleep(Duration::from_millis(100));
    goes_on(2 * SOON);
    victim.child().close();
    assert_eq!(victim.child().wait(PATIENCE).code(), Some(0));
}

#[test]
fn a_launched_command_outlives_finject_and_not_its_tracer() {
    let launched = || {
        let victim = Victim::launched(&mut launch("getppid=EPERM"), &["loop", "getppid"]);
        victim.until(PATIENCE, true);
        victim
    };
    let mut victim = launched();
    victim.child().signal(Signal::KILL);
    victim.until(SOON, false);
    victim.child().close();
    // Without a tracer the filter's calls would fail with ENOSYS for ever.
    let mut victim = launched();
    send(helper(victim.pid(), "finject-tracer"), Signal::KILL);
    let ended = victim.child().wait(PATIENCE);
    assert_eq!(ended.code(), Some(125), "{ended}");
    assert!(ended.err().contains("has died or hung"), "{ended}");
}

#[test]
fn job_control_works_as_without() {
    let victim = looping();
    let session = attach(victim.pid(), "getppid=EPERM@2+2").start();
    victim.until(PATIENCE, true);
    for _ in 0..3 {
        victim.signal_worker(Signal::STOP);
        eventually(SOON, "it stops", || {
            threads(victim.pid())
                .0
                .iter()
                .all(|state| matches!(state, 'T' | 't'))
        });
        sleep(Duration::from_millis(100));
        let before = victim.changes().len();
        sleep(Duration::from_millis(200));
        assert_eq!(victim.changes().len(), before, "it stays stopped");
        victim.signal_worker(Signal::CONT);
        eventually(SOON, "it goes on", || victim.changes().len() > before + 10);
    }
    assert_eq!(session.stop().code(), Some(0));
    eventually(SOON, "nobody holds it", || is_free(victim.pid()));
    assert_eq!(victim.end().code(), Some(0));
}

#[test]
fn a_process_has_one_tracer() {
    let victim = looping();
    let session = attach(victim.pid(), "getppid=EPERM@1000000").start();
    let Err(ended) = attach(victim.pid(), "getppid=EPERM").try_start() else {
        panic!("a second tracer attached");
    };
    assert_eq!(ended.code(), Some(69), "{ended}");
    for words in [
        "is traced already, by process",
        "finject-tracer",
        "help: a process has one tracer",
    ] {
        assert!(ended.err().contains(words), "{ended}");
    }
    assert_eq!(session.stop().code(), Some(0));
    assert_eq!(victim.fails(), Some(false));
}

/// One of two targets cannot be traced; the other one's calls, which were stopped by then, are made again.
#[test]
fn a_refused_attach_disturbs_nobody() {
    let traced = looping();
    let session = attach(traced.pid(), "getppid=EPERM@1000000").start();
    let (waiter, pid) = waiter(Command::new(programs::WAITER));
    for _ in 0..20 {
        let both = attach(pid, "fsync=EIO@3").pid(traced.pid());
        let Err(ended) = both.try_start() else {
            panic!("a second tracer attached");
        };
        assert_eq!(ended.code(), Some(69), "{ended}");
        assert!(ended.err().contains("is traced already"), "{ended}");
        sleep(Duration::from_millis(50));
    }
    waits_of(waiter, &["interrupted", "early", "other", "late"]);
    assert_eq!(session.stop().code(), Some(0));
}

/// The time is up, and records wait for a reader: the first signal gives them up.
#[test]
fn a_signal_ends_the_wait_for_a_reader_of_events() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    // Somebody who could read, and does not.
    let reader = fs::File::options()
        .read(true)
        .write(true)
        .open(&fifo)
        .unwrap();
    let mut victim = Victim::of(programs::VICTIM, &["threads", "1", "2000", "getppid"]);
    let mut finject = attach(victim.pid(), "getppid=EPERM")
        .args(["--json", "--duration", "2s", "--events"])
        .args([&fifo])
        .begin();
    eventually(PATIENCE, "it is traced", || threads(victim.pid()).1);
    sleep(Duration::from_millis(500));
    assert_eq!(victim.work().errors, 2000);
    eventually(PATIENCE, "the time is up", || !threads(victim.pid()).1);
    assert!(!finject.has_ended(), "it waits for the reader");
    finject.signal(Signal::TERM);
    let ended = finject.wait(Duration::from_secs(5));
    assert_eq!(ended.code(), Some(0), "{ended}");
    let summary: serde_json::Value = serde_json::from_str(&ended.out()).unwrap();
    assert!(summary["unwritten"].as_u64().unwrap() > 0, "{summary}");
    drop(reader);
}

#[test]
fn a_target_that_dies_at_any_moment_ends_the_session() {
    for round in 0..20_u64 {
        let mut victim = looping();
        let pid = victim.pid();
        let killer = std::thread::spawn(move || {
            sleep(Duration::from_millis(round * 3));
            victim.child().signal(Signal::KILL);
            victim.child().wait(PATIENCE);
        });
        match attach(pid, "getppid=EPERM").try_start() {
            Ok(session) => {
                let outcome = session.wait(PATIENCE);
                assert_eq!(outcome.code(), Some(0), "{}", outcome.ended);
                assert_eq!(outcome.summary["ending"], "targets-ended");
            }
            Err(ended) => assert!(matches!(ended.code(), Some(0 | 64 | 69 | 125)), "{ended}"),
        }
        killer.join().unwrap();
    }
}

/// A filter that knows its calls kills for others, and would judge a call that is skipped as the call
/// -1; it is suspended for that one.
#[test]
fn a_targets_own_filter_does_not_judge_the_calls_that_fail() {
    let mut victim = Victim::of(programs::VICTIM, &["filtered", "10", "getppid"]);
    match attach(victim.pid(), "getppid=EPERM@2+2").try_start() {
        Ok(session) => {
            let seen = victim.work();
            assert_eq!((seen.calls, seen.errors), (10, 5));
            assert_eq!(victim.end().code(), Some(0));
            assert_eq!(session.wait(PATIENCE).fired(), 5);
        }
        // Without privilege, or where whoever runs the tests has a filter: said, and left alone.
        Err(ended) => {
            let own = fs::read_to_string("/proc/self/status").unwrap();
            let may_suspend = own.contains("\nSeccomp:\t0\n") && own.contains("\nUid:\t0\t");
            assert!(!may_suspend, "{ended}");
            assert_eq!(ended.code(), Some(69), "{ended}");
            assert!(
                ended.err().contains("has a seccomp filter of its own"),
                "{ended}"
            );
            assert_eq!(victim.work().errors, 0);
        }
    }
}

/// In strict mode the kernel kills for any call but four, and for one that is skipped.
#[test]
fn a_target_in_strict_mode_is_hit_or_left_alone() {
    let mut child = Child::start(Command::new(programs::VICTIM).arg("strict"));
    child.expect_line(PATIENCE, |line| line.starts_with("ready "));
    let pid = child.pid();
    let strict = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    eventually(PATIENCE, "it is strict", || {
        strict().contains("\nSeccomp:\t1\n")
    });
    match attach(pid, "read(fd=0)=EIO@2").try_start() {
        Ok(session) => {
            child.say("abcd");
            // The fourth and fifth come once the second has been tried again.
            child.expect_line(PATIENCE, |line| line.matches('e').count() == 1);
            child.close();
            assert_eq!(session.wait(PATIENCE).fired(), 1);
        }
        Err(ended) => {
            assert!(
                ended.err().contains("has a seccomp filter of its own"),
                "{ended}"
            );
            child.say("abcd");
            child.expect_line(PATIENCE, |line| line == "rrrrr");
            child.close();
        }
    }
    assert_eq!(child.wait(PATIENCE).code(), Some(0));
}

/// Regression: between the end of the last target and its own, finject was killed by the first interrupt, and said nothing.
#[test]
fn an_interrupt_when_it_ends_by_itself_takes_no_summary_away() {
    for round in 0..100 {
        let mut target = Child::start(&mut Command::new("cat"));
        let mut session = Finject::of(Path::new(FINJECT))
            .args(["--backend", "ptrace", "--rule", "fsync=EIO"])
            .pid(target.pid())
            .start();
        target.close();
        sleep(Duration::from_micros(40 * round));
        session.child().signal(Signal::INT);
        let outcome = session.wait(PATIENCE);
        assert_eq!(outcome.code(), Some(0), "{round}: {}", outcome.ended);
        target.wait(PATIENCE);
    }
}
