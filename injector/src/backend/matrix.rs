//! What each backend carries out, part by part: asked of the functions that admit plans, so that what
//! `finject doctor` and doc/semantics.md show is what is done.

use super::Unsupported;
use super::choose::Choice;
use super::unsupported::Why;
use crate::plan::{LEASE, Plan, SPIN_MAX, Targets};
use crate::rule::{RuleText, compile};
use crate::target::launch::Launch;

/// Every part of a rule, with a rule that has it.
pub const PARTS: [(&str, &str); 33] = [
    ("`ERRNO`, `error:N`", "fsync=EIO"),
    ("`ret:N`", "fsync=ret:0"),
    ("`signal:SIG`", "fsync=signal:SIGUSR1@1"),
    ("`kill`", "fsync=kill"),
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
    ("`off`, chains, `N*`", "fsync=2*off->EIO->off"),
    ("`@N`, `N+`, `N..M`, `N+S`", "fsync=EIO@1..9+2"),
    ("`@P%`", "fsync=EIO@1%"),
    ("`max:N`", "fsync=EIO@max:3"),
    ("`start:D`, `for:D`", "fsync=EIO@start:1s,for:1s"),
    ("`per:process`", "fsync=EIO@per:process"),
    ("`per:thread`", "fsync=EIO@per:thread"),
    ("`@32`, `@64`", "fsync@32=EIO"),
    (
        "`path=` (end of a path, descriptors)",
        "fsync(path=*.db)=EIO",
    ),
    (
        "`path=` (from the root; names)",
        "openat(path=/data/**)=EIO",
    ),
    ("`from=`, `to=`", "rename(to=*/CURRENT)=EIO"),
    ("`fd=`", "fsync(fd=3)=EIO"),
    ("`peer=`, `addr=`", "connect(peer=10.0.0.7:5432)=EIO"),
    (
        "`peer=unix:`, `addr=unix:`",
        "connect(peer=unix:/run/*.sock)=EIO",
    ),
    ("`argN`", "write(arg3>4096)=EIO"),
    ("`comm=`, `thread=`", "fsync(comm=redis-server)=EIO"),
    ("`exe=`", "fsync(exe=/usr/bin/redis-server)=EIO"),
    ("`uid=`", "fsync(uid=0)=EIO"),
];

/// So many of them are actions, the first.
pub const ACTIONS: usize = 15;

/// Every kind of target: whether finject launches it.
pub const TARGETS: [(&str, bool); 2] = [
    ("running processes, `--pid N`", false),
    ("commands, `-- COMMAND`", true),
];

/// A plan of one rule, on a command where the backend launches and on no process where it attaches.
pub fn trial(rule: &str, backend: Choice) -> Plan {
    let launches = backend == Choice::Notify;
    plan(rule, launches)
}

fn plan(rule: &str, launches: bool) -> Plan {
    let rules = compile(&[RuleText::new(rule)]).map_or_else(|_| Vec::new(), |found| found.rules);
    let targets = if launches {
        Targets::Launched(Launch {
            path: "/bin/true".into(),
            args: vec!["true".into()],
        })
    } else {
        Targets::Running(Vec::new())
    };
    Plan {
        rules,
        arming: Vec::new(),
        targets,
        seed: 0,
        follow: true,
        from_exec: false,
        dry_run: false,
        spin_max: SPIN_MAX,
        lease: LEASE,
        duration: None,
    }
}

/// Whether a backend reaches such targets, in the words of the tables.
pub fn reaches(launched: bool, backend: Choice) -> &'static str {
    match backend.admit(&plan("fsync=EIO", launched)) {
        Ok(()) => "yes",
        Err(_) => "no: it only launches",
    }
}

/// Whether a backend carries out such a rule, in the words of the tables.
pub fn answer(rule: &str, backend: Choice) -> &'static str {
    let Err(refused) = backend.admit(&trial(rule, backend)) else {
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
