//! finjects that are killed or stopped at random moments while a program of several threads and many
//! children calls and calls, on processors that others keep busy (programs/storm.c). Whatever the
//! moment, nobody is left stopped or traced, nobody dies, every later call works, no call ever fails in
//! a way that no rule named, and nothing of finject's stays. One body for every backend.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests: to panic is how it fails"
)]

use std::{
    env, fs,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread::sleep,
    time::{Duration, Instant},
};

use fastrand::Rng;
use rustix::process::Signal;

use crate::{
    child::{Child, Ended, PATIENCE, alone, eventually},
    conformance::Way,
    finject::{Finject, LONG_LEASE},
    programs,
    victim::on_first_processor,
};

/// Names the moments of a run to have again.
const SEED: &str = "FINJECT_TEST_SEED";
/// In the environment of what a round starts, so that what is left of it is found.
const MARK: &str = "FINJECT_TEST_STORM";
/// Threads that call, and where they share an emulated processor with finject.
const THREADS: [&str; 2] = ["4", "1"];
/// The lease of a finject that is stopped.
const LEASE: &str = "4s";
/// How long faults may go on, and threads be held, without finject: that, and some time to see it.
const HEALED: Duration = Duration::from_secs(7);
/// Milliseconds from finject's start: while it looks, attaches, arms, and a little beyond.
const EARLY: Range<u64> = 0..250;
/// Microseconds from its first child.
const ARMING: Range<u64> = 0..8000;
/// Milliseconds from finject's start in an emulated machine.
const EMULATED: Range<u64> = 0..3000;
/// Milliseconds from the first fault that was seen.
const LATE: Range<u64> = 0..100;

/// What befalls finject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wound {
    Killed,
    Stopped,
}

/// Kills finject at `rounds` random moments; `after` each of them looks for what else has to hold.
pub fn killed(way: Way, finject: impl Into<PathBuf>, rounds: u64, after: impl FnMut()) {
    let _alone = alone();
    Storm::new(way, finject.into(), Wound::Killed).blow(rounds, after);
}

/// The same, where finject is stopped, and goes on or is killed later.
pub fn stopped(way: Way, finject: impl Into<PathBuf>, rounds: u64, after: impl FnMut()) {
    let _alone = alone();
    Storm::new(way, finject.into(), Wound::Stopped).blow(rounds, after);
}

/// What was seen between two looks.
#[derive(Clone, Copy, Debug, Default)]
struct Lap {
    least: u64,
    failed: u64,
    enosys: u64,
    other: u64,
    children: u64,
    lost: u64,
}

impl Lap {
    fn parse(line: &str) -> Self {
        let field = |name: &str| {
            let value = line
                .split(' ')
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            value.unwrap().parse().unwrap()
        };
        Self {
            least: field("least"),
            failed: field("failed"),
            enosys: field("enosys"),
            other: field("other"),
            children: field("children"),
            lost: field("lost"),
        }
    }
}

/// The program.
#[derive(Debug)]
struct Caller {
    /// It, or the finject that launches it.
    child: Child,
    /// Its own process id, once it is ready.
    pid: u32,
    laps: usize,
}

impl Caller {
    fn of(child: Child) -> Self {
        let (pid, laps) = (0, 0);
        Self { child, pid, laps }
    }

    /// One that runs.
    fn start(is_pinned: bool, call: &str) -> Self {
        let mut command = if is_pinned {
            on_first_processor(programs::STORM)
        } else {
            Command::new(programs::STORM)
        };
        let mut caller = Self::of(Child::start(
            command.args([THREADS[usize::from(is_pinned)], call]),
        ));
        assert!(caller.is_ready_within(PATIENCE), "{caller:?} is not ready");
        caller
    }

    /// Whether it is, within the time; false at once when it can no longer be.
    fn is_ready_within(&mut self, time: Duration) -> bool {
        let ready = self
            .child
            .find_line(time, |line| line.starts_with("ready "));
        let pid = ready.and_then(|ready| ready.split(' ').nth(1)?.parse().ok());
        self.pid = pid.unwrap_or(0);
        pid.is_some()
    }

    /// What there was to see since the last one. At no time does a call fail as no rule says, nor a
    /// child.
    fn lap(&mut self) -> Lap {
        self.child.say("");
        self.laps += 1;
        let (child, laps) = (&self.child, self.laps);
        let told = || -> Vec<String> {
            let lines = child.stdout_now().into_iter();
            lines.filter(|line| line.starts_with("lap ")).collect()
        };
        eventually(PATIENCE, "it tells what it saw", || told().len() >= laps);
        let lap = Lap::parse(&told()[laps - 1]);
        assert_eq!((lap.enosys, lap.other, lap.lost), (0, 0, 0), "{lap:?}");
        lap
    }

    /// Waits until calls fail.
    fn await_faults(&mut self) {
        eventually(PATIENCE, "calls fail", || self.lap().failed > 0);
    }

    /// Calls work, within the time, and from then on, each thread's and the children's. A thread may
    /// have been put aside before it took note of a call that failed, so that it has to come round.
    fn works_within(&mut self, time: Duration) {
        let until = Instant::now() + time;
        let mut gap = Duration::from_millis(10);
        // What there was to see before tells nothing of who has come round since.
        self.lap();
        loop {
            sleep(gap);
            let lap = self.lap();
            if lap.failed == 0 && lap.least > 0 && lap.children > 0 {
                break;
            }
            let told = "calls work, of all threads and children";
            assert!(
                Instant::now() < until,
                "not within {time:?}: {told}: {lap:?}"
            );
            gap = (2 * gap).min(Duration::from_millis(400));
        }
        for _ in 0..3 {
            sleep(Duration::from_millis(20));
            let lap = self.lap();
            assert_eq!(lap.failed, 0, "{lap:?}");
        }
    }

    /// Nobody holds a thread of it or of a child.
    fn is_free_within(&self, time: Duration) {
        let mut held = Vec::new();
        let until = Instant::now() + time;
        loop {
            held.retain(|_| false);
            for pid in [self.pid].into_iter().chain(children_of(self.pid)) {
                held.extend(held_threads(pid));
            }
            if held.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "held: {held:?}");
            sleep(Duration::from_millis(20));
        }
    }
}

/// The names of what is in a directory of /proc; none where it is gone.
fn entries(path: impl AsRef<Path>) -> Vec<PathBuf> {
    let found = fs::read_dir(path).into_iter().flatten().flatten();
    found.map(|entry| entry.path()).collect()
}

fn children_of(pid: u32) -> Vec<u32> {
    let tasks = entries(format!("/proc/{pid}/task"));
    let of = |task: &PathBuf| fs::read_to_string(task.join("children")).unwrap_or_default();
    let all: Vec<String> = tasks.iter().map(of).collect();
    let pids = all.iter().flat_map(|line| line.split_ascii_whitespace());
    pids.filter_map(|pid| pid.parse().ok()).collect()
}

/// Its threads that are stopped or have a tracer, each with these words of /proc/PID/status.
fn held_threads(pid: u32) -> Vec<String> {
    let mut held = Vec::new();
    for task in entries(format!("/proc/{pid}/task")) {
        let status = fs::read_to_string(task.join("status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        let (state, tracer) = (field("State:"), field("TracerPid:"));
        if state.starts_with(['T', 't']) || !matches!(tracer.as_str(), "" | "0") {
            held.push(format!("{}: {state}, tracer {tracer}", task.display()));
        }
    }
    held
}

/// The processes with a mark in their environment, with their names.
fn marked(mark: &str) -> Vec<String> {
    let wanted = format!("{MARK}={mark}");
    let has_it = |path: &PathBuf| {
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|one| one == wanted.as_bytes())
    };
    let with_name = |path: PathBuf| {
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        format!("{} {}", path.display(), name.trim())
    };
    let marked = entries("/proc").into_iter().filter(has_it);
    marked.map(with_name).collect()
}

/// When finject is wounded.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// This long after its start.
    Early(Duration),
    /// This long after it has started a process of its own: while it arms.
    Arming(Duration),
    /// This long after a call was seen to fail.
    Late(Duration),
}

/// How a round goes on after finject was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    GoesOn,
    IsKilled,
}

struct Storm {
    way: Way,
    finject: PathBuf,
    wound: Wound,
    call: &'static str,
    rng: Rng,
    /// Keeps the processors busy.
    _load: Child,
}

impl Storm {
    fn new(way: Way, finject: PathBuf, wound: Wound) -> Self {
        let given = env::var(SEED).ok().map(|seed| seed.parse().unwrap());
        let seed = given.unwrap_or_else(|| fastrand::u64(..));
        println!("{way:?}, {wound:?}: {SEED}={seed}");
        Self {
            way,
            finject,
            wound,
            // Of the kernel's functions one that nobody else calls.
            call: match way {
                Way::EbpfAttach => "fsync",
                _ => "getppid",
            },
            rng: Rng::with_seed(seed),
            _load: Child::start(Command::new(programs::STORM).args(["2", "spin"])),
        }
    }

    fn is_pinned(&self) -> bool {
        self.way == Way::EbpfAttach
    }

    fn moment(&mut self) -> Moment {
        let early = if self.is_pinned() { EMULATED } else { EARLY };
        let mut millis = |range| Duration::from_millis(self.rng.u64(range));
        let (early, arming, late) = (millis(early), millis(ARMING) / 1000, millis(LATE));
        match self.rng.u8(0..4) {
            0 => Moment::Early(early),
            1 => Moment::Arming(arming),
            _ => Moment::Late(late),
        }
    }

    fn blow(mut self, rounds: u64, mut after: impl FnMut()) {
        let mut caller = None;
        for round in 0..rounds {
            let moment = self.moment();
            let then = if self.rng.bool() {
                Then::GoesOn
            } else {
                Then::IsKilled
            };
            println!("round {round}: {moment:?}, {then:?}");
            let mark = new_mark();
            if self.way.launches() {
                self.launched(moment, then, &mark);
            } else {
                let start = || Caller::start(self.is_pinned(), self.call);
                let caller = caller.get_or_insert_with(start);
                self.attached(caller, moment, then, &mark);
            }
            // finject's own processes end with it, or with the command that they look after.
            eventually(PATIENCE, "nothing of finject's is left", || {
                let left = marked(&mark);
                if !left.is_empty() {
                    println!("left: {left:?}");
                }
                left.is_empty()
            });
            after();
        }
        if let Some(caller) = caller {
            let ended = end(caller);
            assert_eq!(ended.code(), Some(0), "{ended}");
        }
    }

    /// finject with a rule for all calls, complete up to the target.
    fn finject(&self, mark: &str) -> Finject {
        let finject = if self.is_pinned() {
            Finject::pinned().with_its_own_lease()
        } else {
            Finject::of(&self.finject).args(["--backend", self.way.backend()])
        };
        // A machine that stands still for that long would end faults that nobody has wounded.
        let lease = match self.wound {
            Wound::Killed => LONG_LEASE[1],
            Wound::Stopped => LEASE,
        };
        finject
            .args(["--quiet", "--lease", lease])
            .rule(&format!("{}=EIO", self.call))
            .env(MARK, mark)
    }

    fn attached(&self, caller: &mut Caller, moment: Moment, then: Then, mark: &str) {
        let mut finject = self.finject(mark).pid(caller.pid).begin();
        match moment {
            Moment::Early(time) => sleep(time),
            Moment::Arming(time) => until_arming(&mut finject, time),
            Moment::Late(time) => {
                caller.await_faults();
                sleep(time);
            }
        }
        if self.wound == Wound::Stopped {
            finject.signal(Signal::STOP);
            caller.works_within(HEALED);
            match (then, moment) {
                (Then::IsKilled, _) => finject.signal(Signal::KILL),
                (Then::GoesOn, Moment::Late(_)) => finject.signal(Signal::CONT),
                (Then::GoesOn, Moment::Early(time) | Moment::Arming(time)) => {
                    // It may not have armed before, and do so now.
                    finject.signal(Signal::CONT);
                    sleep(time);
                    finject.signal(Signal::INT);
                }
            }
        } else {
            finject.signal(Signal::KILL);
        }
        let ended = finject.wait(PATIENCE);
        self.ended_as_it_should(&ended, moment, then);
        caller.works_within(HEALED);
        caller.is_free_within(HEALED);
    }

    fn launched(&self, moment: Moment, then: Then, mark: &str) {
        let finject = self
            .finject(mark)
            .args(["--", programs::STORM, THREADS[0], self.call]);
        let mut caller = Caller::of(finject.begin());
        match moment {
            Moment::Early(time) => sleep(time),
            Moment::Arming(time) => until_arming(&mut caller.child, time),
            Moment::Late(time) => {
                assert!(caller.is_ready_within(PATIENCE), "{caller:?}");
                caller.await_faults();
                sleep(time);
            }
        }
        let mut is_dead = true;
        if self.wound == Wound::Stopped {
            caller.child.signal(Signal::STOP);
            // A command that had not begun waits for finject.
            if caller.is_ready_within(HEALED) {
                caller.works_within(HEALED);
            }
            is_dead = then == Then::IsKilled;
            let signal = if is_dead { Signal::KILL } else { Signal::CONT };
            caller.child.signal(signal);
        } else {
            caller.child.signal(Signal::KILL);
        }
        if caller.is_ready_within(PATIENCE) {
            if is_dead {
                caller.works_within(HEALED);
            }
            // A tracer stays for as long as its command, and holds threads for moments.
            if self.way == Way::NotifyLaunch {
                caller.is_free_within(HEALED);
            }
            let ended = end(caller);
            self.ended_as_it_should(&ended, moment, then);
        } else {
            // It was never started; that nothing of it waits is looked for.
            let ended = caller.child.wait(PATIENCE);
            assert!(is_dead && !matches!(moment, Moment::Late(_)), "{ended}");
        }
    }

    /// The status says what became of finject.
    fn ended_as_it_should(&self, ended: &Ended, moment: Moment, then: Then) {
        let is_killed = self.wound == Wound::Killed || then == Then::IsKilled;
        let is_right = match ended.code() {
            None if is_killed => true,
            Some(125) => !is_killed,
            // Stopped before it had armed, and asked to end before it could be.
            Some(0) | None => !is_killed && !matches!(moment, Moment::Late(_)),
            Some(_) => false,
        };
        assert!(is_right, "{moment:?}, {then:?}: {ended}");
    }
}

/// Waits until finject has a child, and then so long.
fn until_arming(finject: &mut Child, time: Duration) {
    let until = Instant::now() + PATIENCE;
    while children_of(finject.pid()).is_empty() && !finject.has_ended() {
        assert!(Instant::now() < until, "it starts nothing: {finject:?}");
    }
    sleep(time);
}

/// Lets it come to its end, which all of its threads do.
fn end(mut caller: Caller) -> Ended {
    caller.child.close();
    let ended = caller.child.wait(PATIENCE);
    assert!(ended.stdout.iter().any(|line| line == "whole"), "{ended}");
    ended
}

fn new_mark() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed))
}
