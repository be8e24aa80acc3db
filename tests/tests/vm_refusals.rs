//! What finject refuses: before anything is touched, with the status that says whose matter it is,
//! and with words that name the remedy.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, process::Command, time::Duration};

use finject_tests::{
    agents::Bpftrace,
    child::{Child, PATIENCE, eventually},
    finject::{Finject, attach, calls_under, work_under},
    guest, kernel, needs_override,
    refused::{UNAVAILABLE, USAGE, refuses, says},
    victim::Victim,
};
use rustix::process::Signal;

/// A rule on a victim is refused as usage.
fn rule(rule: &str, words: &[&str]) {
    let victim = Victim::threads(1, 1, "fsync");
    refuses(attach(&victim, rule), USAGE, words);
}

/// A target is refused as usage.
fn target(pid: u32, words: &[&str]) {
    refuses(Finject::new().pid(pid).rule("fsync=EIO@3"), USAGE, words);
}

#[test]
fn not_root() {
    let victim = Victim::threads(1, 1, "fsync");
    let before = kernel::Traces::now();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(guest::finject());
    command.args(["--pid", &victim.pid().to_string(), "--rule", "fsync=EIO@3"]);
    command.args(["--backend", "ebpf"]);
    let ended = Child::run(&mut command);
    says(
        &ended,
        UNAVAILABLE,
        &["privilege", "uid 65534", "help: ", "sudo finject"],
    );
    assert_eq!(kernel::Traces::now(), before);
}

#[test]
fn no_such_pid() {
    // pid_max is far below.
    target(
        4_000_000,
        &["there is no process 4000000", "help: ", "pgrep"],
    );
}

#[test]
fn a_process_that_has_ended() {
    let mut victim = Victim::threads(1, 1, "fsync");
    victim.child().signal(Signal::KILL);
    // Not waited for: its status is still there.
    let stat = format!("/proc/{}/stat", victim.pid());
    eventually(PATIENCE, "it is a zombie", || {
        fs::read_to_string(&stat).unwrap().contains(") Z ")
    });
    target(
        victim.pid(),
        &["has ended", "help: start the program again"],
    );
}

#[test]
fn pid_one() {
    target(1, &["process 1 is never a target", "help: "]);
}

#[test]
fn finject_itself() {
    // Its number is known beforehand to the shell that becomes it.
    let script = format!(
        "exec {} --pid $$ --rule fsync=EIO@3",
        guest::finject().display()
    );
    let before = kernel::Traces::now();
    let ended = Child::run(Command::new("sh").args(["-c", &script]));
    says(
        &ended,
        USAGE,
        &["is finject itself or one of its ancestors", "help: "],
    );
    assert_eq!(kernel::Traces::now(), before);
}

#[test]
fn an_ancestor_of_finject() {
    target(
        std::process::id(),
        &["is finject itself or one of its ancestors", "help: "],
    );
}

#[test]
fn a_thread() {
    let victim = Victim::looping("getppid");
    let pid = victim.pid();
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let mut thread: Option<u32> = None;
    eventually(PATIENCE, "it has a second thread", || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        thread = tasks.filter_map(number).find(|tid| *tid != pid);
        thread.is_some()
    });
    let thread = thread.unwrap();
    let remedy = format!("--pid {pid}");
    target(
        thread,
        &[
            &format!("{thread} is a thread of process {pid}"),
            "help: ",
            &remedy,
        ],
    );
}

#[test]
fn a_thread_of_the_kernels() {
    let second = fs::read_to_string("/proc/2/comm").unwrap();
    assert_eq!(second.trim(), "kthreadd");
    target(2, &["is a thread of the kernel's", "help: "]);
}

#[test]
fn a_process_that_others_depend_on() {
    // A name is all that it takes.
    let copy = "/tmp/sshd";
    fs::copy("/bin/sleep", copy).unwrap();
    let daemon = Child::start(Command::new(copy).arg("600"));
    let comm = format!("/proc/{}/comm", daemon.pid());
    eventually(PATIENCE, "it has its name", || {
        fs::read_to_string(&comm).unwrap().trim() == "sshd"
    });
    target(daemon.pid(), &["sshd", "others depend", "--force"]);
}

#[test]
fn another_sessions_target() {
    needs_override!();
    let mut victim = Victim::threads(1, 10, "fsync");
    let first = attach(&victim, "fsync=EIO@3").start();
    // Whatever the rule, and by whichever of its processes.
    for other in ["fsync=EIO@5", "getppid=delay:1s@9"] {
        let words = [
            "is a target of another finject already",
            "help: finject ctl add",
        ];
        refuses(attach(&victim, other), UNAVAILABLE, &words);
    }
    assert_eq!(victim.work().errors, 1);
    first.stop();
    // It is nobody's any more.
    attach(&victim, "fsync=EIO@3").start().stop();
}

#[test]
fn a_process_that_is_traced_when_its_threads_are_to_be_held() {
    needs_override!();
    let victim = Victim::threads(1, 10, "fsync");
    let tracer = Finject::of(&guest::finject());
    let tracer = tracer.args(["--backend", "ptrace"]).pid(victim.pid());
    let tracer = tracer.rule("getppid=EIO").start();
    let words = ["is traced already", "finject-tracer", "help: "];
    refuses(attach(&victim, "fsync=hold@3"), UNAVAILABLE, &words);
    // What needs no tracer is as good as ever.
    attach(&victim, "fsync=EIO@3").start().stop();
    tracer.stop();
}

#[test]
fn every_wrong_target_is_named_at_once() {
    let finject = Finject::new()
        .pid(1)
        .pid(4_000_000)
        .pid(2)
        .rule("fsync=EIO");
    refuses(
        finject,
        USAGE,
        &["process 1 is never", "no process 4000000", "kernel's"],
    );
}

#[test]
fn unknown_call() {
    rule(
        "fsnc=EIO@3",
        &["unknown call `fsnc`", "did you mean `fsync`?"],
    );
}

#[test]
fn unknown_errno() {
    rule(
        "fsync=EOI@3",
        &["unknown errno `EOI`", "did you mean `EIO`?"],
    );
}

#[test]
fn unknown_key() {
    rule(
        "fsync(pth=/x)=EIO@3",
        &["unknown condition `pth`", "did you mean `path`?"],
    );
    rule(
        "fsync=EIO@pre:process",
        &["unknown condition `pre:process`", "did you mean `per`?"],
    );
}

#[test]
fn call_that_may_not_be_overridden() {
    rule(
        "exit_group=EIO",
        &[
            "`exit_group` may not be given a result",
            "it does not return",
        ],
    );
    rule(
        "rt_sigreturn=EIO",
        &["`rt_sigreturn` may not be given a result"],
    );
    rule(
        "close=EIO",
        &["`close` may not be given a result", "help: `after:EIO`"],
    );
    rule("execve=EIO", &["`execve` may not be given a result"]);
}

#[test]
fn no_rule() {
    let victim = Victim::threads(1, 1, "fsync");
    refuses(
        Finject::new().pid(victim.pid()),
        USAGE,
        &["no rule", "help: ", "--rule 'fsync=EIO@3'"],
    );
}

#[test]
fn no_target() {
    refuses(
        Finject::new().rule("fsync=EIO"),
        USAGE,
        &["no target", "help: --pid PID"],
    );
}

#[test]
fn what_this_version_does_not_carry_out() {
    let victim = Victim::threads(1, 1, "fsync");
    for (rule, what) in [
        ("write=corrupt:65", "65 bits are more than one firing flips"),
        ("fsync(path=/x)=EIO", "does not look at `path=/x`"),
        (
            "write(arg3!=1,arg3!=2,arg3!=3,arg3!=4,arg3!=5,arg3!=6,arg3!=7,arg3!=8,arg3!=9)=EIO",
            "9 predicates on arguments are more than a rule can have",
        ),
        ("fsync(exe=/bin/cat)=EIO", "does not look at `exe=/bin/cat`"),
        (
            "connect(peer=unix:/x)=EIO",
            "does not look at `peer=unix:/x`",
        ),
    ] {
        refuses(attach(&victim, rule), UNAVAILABLE, &[what, "help: "]);
    }
}

fn rule_file(name: &str, text: &str) -> Finject {
    let path = format!("/tmp/{name}.toml");
    fs::write(&path, text).unwrap();
    // Any process will do: rules are looked at in any case.
    Finject::new().pid(4_000_000).args(["--rules", &path])
}

#[test]
fn empty_rule_file() {
    let finject = rule_file("empty", "");
    refuses(
        finject,
        USAGE,
        &["the rule file is empty", "help: ", "[[rule]]"],
    );
    let finject = rule_file("no-rule", "description = \"nothing\"\n");
    refuses(finject, USAGE, &["rule", "help: "]);
}

#[test]
fn rule_file_with_unknown_key() {
    let text = "[[rule]]\nname = \"a\"\nrule = \"fsync=EIO\"\npurpse = \"?\"\n";
    let words = [
        "unknown key `purpse`",
        "unknown.toml:4",
        "did you mean `purpose`?",
    ];
    refuses(rule_file("unknown", text), USAGE, &words);
}

#[test]
fn rule_file_that_is_not_there() {
    let finject = Finject::new()
        .pid(4_000_000)
        .args(["--rules", "/tmp/absent.toml"]);
    refuses(
        finject,
        USAGE,
        &["/tmp/absent.toml", "No such file", "help: "],
    );
}

#[test]
fn descriptor_that_is_not_open() {
    let victim = Victim::threads(1, 1, "fsync");
    let finject = attach(&victim, "fsync=EIO").args(["--ready-fd", "77"]);
    refuses(
        finject,
        USAGE,
        &["--ready-fd 77", "Bad file descriptor", "help: "],
    );
}

#[test]
fn events_that_cannot_be_written() {
    needs_override!();
    let victim = Victim::threads(1, 1, "fsync");
    let finject = attach(&victim, "fsync=EIO").args(["--events", "/nonexistent/events"]);
    refuses(finject, USAGE, &["--events /nonexistent/events", "help: "]);
}

#[test]
fn a_refusal_leaves_an_older_file_of_events_alone() {
    let victim = Victim::threads(1, 1, "fsync");
    let path = "/tmp/older.jsonl";
    fs::write(path, "older\n").unwrap();
    let finject = attach(&victim, "fsync(exe=/bin/cat)=EIO").args(["--events", path]);
    refuses(finject, UNAVAILABLE, &["does not look at"]);
    assert_eq!(fs::read_to_string(path).unwrap(), "older\n");
}

#[test]
fn another_agents_trampoline_on_the_function() {
    needs_override!();
    let mut victim = Victim::threads(1, 3, "fsync");
    let agent = Bpftrace::counting("kfunc", "__x64_sys_fsync");
    let finject = attach(&victim, "fsync=EIO@3");
    let words = [
        "another agent has a trampoline on __x64_sys_fsync",
        "help: stop that agent",
    ];
    refuses(finject, UNAVAILABLE, &words);
    // Other functions are not its.
    let (seen, _) = calls_under(1, "fdatasync", "fdatasync=EIO");
    assert_eq!(seen.errors, 1);
    agent.end();
    eventually(PATIENCE, "the agent is gone", || {
        kernel::hooked().is_empty()
    });
    let (seen, outcome) = work_under(&mut victim, &["fsync=EIO@3"], &[]);
    assert_eq!(seen.errors, 1, "{}", outcome.ended);
}

#[test]
fn another_agents_trampoline_that_comes_later_ends_it() {
    needs_override!();
    let mut victim = Victim::threads(1, 5, "fsync");
    let session = attach(&victim, "fsync=EIO").start();
    let agent = Bpftrace::counting("kfunc", "__x64_sys_fsync");
    let outcome = session.wait(Duration::from_mins(1));
    assert_eq!(outcome.code(), Some(125), "{}", outcome.ended);
    assert_eq!(outcome.summary["ending"], "lost", "{}", outcome.ended);
    assert!(outcome.summary["unproven_ns"].is_u64(), "{}", outcome.ended);
    let warnings = outcome.kind("warning");
    let told = |warning: &&serde_json::Value| {
        let message = warning["message"].as_str().unwrap_or_default();
        message.starts_with("faults no longer arrive on fsync")
    };
    assert!(warnings.iter().any(told), "{}", outcome.ended);
    assert_eq!(victim.work().errors, 0, "it has healed");
    agent.end();
}

#[test]
fn another_agents_kprobe_that_comes_later_under_many_functions_takes_nothing_away() {
    needs_override!();
    let mut victim = Victim::threads(1, 5, "fsync");
    let session = attach(&victim, "fsync,%net,%ipc,%creds=EIO").start();
    let agent = Bpftrace::counting("kprobe", "__x64_sys_fsync");
    let seen = victim.work();
    let outcome = session.stop();
    assert_eq!((seen.errors, outcome.fired()), (5, 5), "{}", outcome.ended);
    assert_eq!(outcome.code(), Some(0), "{}", outcome.ended);
    agent.end();
}
