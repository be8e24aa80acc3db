//! A victim that is played: it makes the calls of tests/programs/victim.c in the world of a mock backend,
//! under a session of finject's as any other.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Seek as _},
    sync::mpsc,
    thread,
};

use finject_tests::{conformance::Observed, programs, victim::Seen};
use injector::{
    backend::{
        HookReport,
        choose::Choice,
        decider::Caller,
        firing::Fate,
        mock::{Mock, World},
    },
    history::{Record, Writer},
    plan::{LEASE, Plan, SPIN_MAX, Targets},
    rule::{RuleText, compile},
    session::{Observer, Session},
    syscall::{Abi, CallId, by_name},
};

/// Tells when faults are in force.
struct Armed(mpsc::Sender<()>);

impl Observer for Armed {
    fn armed(&mut self, _hooks: &HookReport, _passed_over: &[(Choice, String)]) {
        self.0.send(()).unwrap();
    }
    fn record(&mut self, _record: &Record) {}
    fn warning(&mut self, warning: &str) {
        // The system's log may be out of reach; nothing else is to be warned of.
        assert!(warning.contains("the system's log"), "{warning}");
    }
}

/// What finject's options say, as far as cases use them.
fn plan(options: &[&str]) -> Plan {
    let mut texts = Vec::new();
    let (mut seed, mut dry_run, mut follow) = (1, false, true);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let mut value = || options.next().unwrap();
        match *option {
            "--rule" => texts.push(RuleText::new(*value())),
            "--seed" => seed = value().parse().unwrap(),
            "--dry-run" => dry_run = true,
            "--no-follow" => follow = false,
            other => panic!("{other} is not played"),
        }
    }
    Plan {
        rules: compile(&texts).unwrap().rules,
        arming: Vec::new(),
        targets: Targets::Running(Vec::new()),
        seed,
        follow,
        from_exec: false,
        dry_run,
        spin_max: SPIN_MAX,
        lease: LEASE,
        duration: None,
    }
}

/// A process that makes calls.
#[derive(Clone)]
struct Player {
    world: World,
    call: CallId,
    tgid: u32,
    /// It is no target: its calls do not come to the world.
    is_spared: bool,
}

impl Player {
    fn arguments(&self, turn: u64) -> [u64; 6] {
        let is_lseek = by_name("lseek").iter().any(|call| call.id() == self.call);
        if !is_lseek {
            return [3, 0x1000, 1, 0, 0, 0];
        }
        // As the register holds it; a 32-bit program's are half as wide.
        let offset = (i64::try_from(turn % 10).unwrap() - 5).cast_unsigned();
        let offset = match self.call.abi {
            Abi::X86_64 => offset,
            Abi::I386 => offset & 0xffff_ffff,
        };
        [77, offset, 2, 0, 0, 0]
    }

    /// One thread's calls; [`None`] where the process was killed.
    fn work(&self, thread: u32, calls: u64) -> Option<Seen> {
        let mut seen = Seen {
            who: "self".into(),
            pid: self.tgid,
            calls: 0,
            errors: 0,
            zeros: 0,
            errno: 0,
            signals: 0,
            size: 0,
            exists: true,
        };
        let caller = Caller {
            tgid: self.tgid,
            tid: self.tgid + thread,
            process_start: 1,
            thread_start: 1,
        };
        for turn in 0..calls {
            let mut fate = Fate::Runs;
            if !self.is_spared {
                let made = self.world.call(caller, self.call, self.arguments(turn));
                seen.signals += made.signals.len() as u64;
                fate = made.fate;
            }
            seen.calls += 1;
            if matches!(fate, Fate::Runs | Fate::RunsThenGets(_)) {
                // The bodies of write and unlink.
                if self.call == by_name("write")[0].id() {
                    seen.size += 1;
                } else if self.call == by_name("unlink")[0].id() {
                    seen.exists = false;
                }
            }
            match fate {
                Fate::Dies | Fate::RunsThenDies => return None,
                Fate::Gets(0) | Fate::RunsThenGets(0) => seen.zeros += 1,
                Fate::Gets(value @ ..0) | Fate::RunsThenGets(value @ ..0) => {
                    if seen.errors == 0 {
                        seen.errno = i32::try_from(-value).unwrap();
                    }
                    seen.errors += 1;
                }
                Fate::Gets(_) | Fate::RunsThenGets(_) | Fate::Runs => {}
            }
        }
        Some(seen)
    }

    /// Threads that all call at once; what each saw.
    fn threads(&self, threads: u32, calls: u64) -> Option<Vec<Seen>> {
        thread::scope(|scope| {
            let working: Vec<_> = (0..threads)
                .map(|thread| scope.spawn(move || self.work(thread, calls)))
                .collect();
            working.into_iter().map(|it| it.join().unwrap()).collect()
        })
    }
}

fn sum(threads: &[Seen]) -> Seen {
    let mut all = threads[0].clone();
    for seen in &threads[1..] {
        all.calls += seen.calls;
        all.errors += seen.errors;
        all.zeros += seen.zeros;
        all.signals += seen.signals;
        if all.errno == 0 {
            all.errno = seen.errno;
        }
    }
    all
}

/// What the processes saw, by name, and each thread's errors; [`None`] where the victim was killed.
type Played = Option<(BTreeMap<String, Seen>, Vec<u64>)>;

fn victim(player: &Player, follow: bool, arguments: &[&str]) -> Played {
    let number = |text: &str| text.parse::<u64>().unwrap();
    match arguments {
        ["threads", threads, calls, _] => {
            player.world.start();
            let threads = u32::try_from(number(threads)).unwrap();
            let seen = player.threads(threads, number(calls));
            player.world.end();
            let seen = seen?;
            let errors = seen.iter().map(|seen| seen.errors).collect();
            Some((BTreeMap::from([("self".to_owned(), sum(&seen))]), errors))
        }
        ["threadexec", calls, _] => {
            player.world.start();
            let seen = player.work(0, number(calls));
            player.world.end();
            Some((
                BTreeMap::from([("after-exec".to_owned(), seen?)]),
                Vec::new(),
            ))
        }
        ["family", calls, _] => {
            let mut all = BTreeMap::new();
            let family = ["child-before", "child-after", "grandchild", "after-exec"];
            player.world.start();
            for (index, who) in family.into_iter().enumerate() {
                let is_child = who != "after-exec";
                let member = Player {
                    tgid: player.tgid
                        + if is_child {
                            100 * (index as u32 + 1)
                        } else {
                            0
                        },
                    is_spared: is_child && !follow,
                    ..player.clone()
                };
                if is_child && follow {
                    player.world.start();
                }
                all.insert(who.to_owned(), member.work(0, number(calls))?);
                if is_child && follow {
                    player.world.end();
                }
            }
            player.world.end();
            Some((all, Vec::new()))
        }
        ["kin", calls, _] => {
            let mut all = BTreeMap::new();
            let kin = ["grandchild-before", "vforked", "spawned", "daemon"];
            for (index, who) in kin.into_iter().enumerate() {
                let member = Player {
                    tgid: player.tgid + 100 * (index as u32 + 1),
                    ..player.clone()
                };
                player.world.start();
                all.insert(who.to_owned(), member.work(0, number(calls))?);
                player.world.end();
            }
            Some((all, Vec::new()))
        }
        other => panic!("{other:?} is not played"),
    }
}

/// Plays a victim under a session; what there was to see, and whether it was killed.
pub(crate) fn play(options: &[&str], program: &str, arguments: &[&str]) -> (Observed, bool) {
    let plan = plan(options);
    let mock = Mock::new().unwrap();
    let abi = if program == programs::VICTIM32 {
        Abi::I386
    } else {
        Abi::X86_64
    };
    let call = by_name(arguments.last().unwrap())
        .iter()
        .map(injector::syscall::Syscall::id)
        .find(|call| call.abi == abi)
        .unwrap();
    let player = Player {
        world: mock.world(),
        call,
        tgid: 1000,
        is_spared: false,
    };
    // A session has targets from its beginning on.
    mock.world().start();
    let mut events = tempfile::tempfile().unwrap();
    let history = Writer::to(events.try_clone().unwrap());
    let (armed, is_armed) = mpsc::channel();
    let (summary, played) = thread::scope(|scope| {
        let running = scope.spawn(|| {
            let session = Session::with(&plan, Box::new(mock)).unwrap();
            session.run(history, &mut Armed(armed))
        });
        is_armed.recv().unwrap();
        let played = victim(&player, plan.follow, arguments);
        player.world.end();
        (running.join().unwrap().unwrap(), played)
    });
    events.rewind().unwrap();
    let lines = BufReader::new(events).lines();
    let events = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap());
    let was_killed = played.is_none();
    let (seen, threads) = played.unwrap_or_default();
    let observed = Observed {
        seen,
        threads,
        summary: summary.to_json(),
        events: events.collect(),
    };
    (observed, was_killed)
}
