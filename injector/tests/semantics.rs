//! The table of doc/semantics.md is what the code says: made from the same function that admits
//! plans. `INSTA_UPDATE=always cargo test` writes it anew.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write;
use std::path::PathBuf;

use injector::backend::Unsupported;
use injector::backend::choose::Choice;
use injector::backend::unsupported::Why;
use injector::plan::{Plan, Targets};
use injector::rule::{RuleText, compile};
use injector::target::launch::Launch;

/// An example of each action, condition and predicate.
const ROWS: [(&str, &str); 31] = [
    ("`ERRNO`, `error:N`", "fsync=EIO"),
    ("`ret:N`", "fsync=ret:0"),
    ("`signal:SIG`", "fsync=signal:SIGUSR1@1"),
    ("`kill`", "fsync=kill"),
    ("`off`, chains, `N*`", "fsync=2*off->EIO->off"),
    ("`delay:D`", "fsync=delay:1s"),
    ("`hold`", "fsync=hold"),
    ("`stop`", "fsync=stop"),
    ("`short:N`", "write=short:1"),
    ("`corrupt:N`", "write=corrupt:1"),
    ("`after:ERRNO`", "fsync=after:EIO"),
    ("`after:ret:N`", "fsync=after:ret:0"),
    ("`after:delay:D`", "fsync=after:delay:1s"),
    ("`after:hold`", "fsync=after:hold"),
    ("`after:kill`", "fsync=after:kill"),
    ("`after:signal:SIG`", "fsync=after:signal:SIGUSR1"),
    ("`@N`, `N+`, `N..M`, `N+S`", "fsync=EIO@1..9+2"),
    ("`@P%`", "fsync=EIO@1%"),
    ("`max:N`", "fsync=EIO@max:3"),
    ("`start:D`, `for:D`", "fsync=EIO@start:1s,for:1s"),
    ("`per:process`", "fsync=EIO@per:process"),
    ("`per:thread`", "fsync=EIO@per:thread"),
    ("`@32`, `@64`", "fsync@32=EIO"),
    ("`path=`", "fsync(path=*.db)=EIO"),
    ("`from=`, `to=`", "rename(to=*/CURRENT)=EIO"),
    ("`fd=`", "fsync(fd=3)=EIO"),
    ("`peer=`, `addr=`", "connect(peer=10.0.0.7:5432)=EIO"),
    ("`argN`", "write(arg3>4096)=EIO"),
    ("`comm=`, `thread=`", "fsync(comm=redis-server)=EIO"),
    ("`exe=`", "fsync(exe=/usr/bin/redis-server)=EIO"),
    ("`uid=`", "fsync(uid=0)=EIO"),
];

fn answer(rule: &str, backend: Choice) -> &'static str {
    let rules = compile(&[RuleText::new(rule)]).unwrap().rules;
    let targets = match backend {
        Choice::Ebpf | Choice::Ptrace => Targets::Running(Vec::new()),
        Choice::Notify => Targets::Launched(Launch {
            path: "/bin/true".into(),
            args: vec!["true".into()],
            from_exec: false,
        }),
    };
    let plan = Plan {
        rules,
        arming: Vec::new(),
        targets,
        seed: 0,
        follow: true,
        dry_run: false,
        duration: None,
    };
    let Err(refused) = backend.admit(&plan) else {
        return "yes";
    };
    match refused.first() {
        Some(Unsupported::Action { why, .. } | Unsupported::Predicate { why, .. }) => match why {
            Why::NotBuilt => "no: not built yet",
            Why::NeedsTracer => "no: needs a backend that holds threads",
        },
        _ => "no",
    }
}

fn table() -> String {
    let mut table = String::from(
        "| part of a rule | `ebpf` | `notify` | `ptrace` |\n| --- | --- | --- | --- |\n",
    );
    for (part, rule) in ROWS {
        let backends = [Choice::Ebpf, Choice::Notify, Choice::Ptrace];
        let [ebpf, notify, ptrace] = backends.map(|backend| answer(rule, backend));
        writeln!(table, "| {part} | {ebpf} | {notify} | {ptrace} |").unwrap();
    }
    table
}

#[test]
fn the_table_says_what_the_code_admits() {
    const MARKS: (&str, &str) = ("<!-- table -->\n", "<!-- end -->\n");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../doc/semantics.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(MARKS.0).unwrap();
    let (written, after) = rest.split_once(MARKS.1).unwrap();
    if std::env::var("INSTA_UPDATE").as_deref() == Ok("always") {
        let new = format!("{before}{}{}{}{after}", MARKS.0, table(), MARKS.1);
        std::fs::write(&path, new).unwrap();
        return;
    }
    assert_eq!(
        written,
        table(),
        "renew it by INSTA_UPDATE=always cargo test"
    );
}
