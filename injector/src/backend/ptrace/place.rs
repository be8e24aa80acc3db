//! Where the thread that traces runs. Of a tracee and its tracer one waits while the other runs, so that on one processor
//! neither has to be woken across to another. That pays while one thread makes nearly all the calls; several are traced
//! the faster the more run at once. Whether it does is tried: what so many stops take is compared with and without.

use crate::sys::process::Processors;

/// Stops that are looked at together.
const STOPS: u32 = 1024;
/// The most that they may take for it to matter, nanoseconds.
const BRISK_NS: u64 = 250_000_000;
/// How many times as many stops until it is tried anew.
const LASTING: u32 = 64;

/// So many stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    /// What they took.
    length_ns: u64,
    /// Where the thread ran whose stops they were; [`None`] where they were several threads', or is not known.
    processor: Option<usize>,
}

/// How the tracer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Anywhere, and for so many windows more.
    Free { left: u32 },
    /// On that processor, to find out whether it is faster than this.
    Tried { processor: usize, free_ns: u64 },
    /// On that processor, for so many windows more.
    Bound { processor: usize, left: u32 },
}

impl State {
    fn processor(self) -> Option<usize> {
        match self {
            Self::Free { .. } => None,
            Self::Tried { processor, .. } | Self::Bound { processor, .. } => Some(processor),
        }
    }

    fn after(self, window: Window) -> Self {
        let Window {
            length_ns,
            processor: Some(processor),
        } = window
        else {
            return Self::Free { left: 0 };
        };
        if length_ns > BRISK_NS {
            return Self::Free { left: 0 };
        }
        match self {
            Self::Free { left: 0 } => Self::Tried {
                processor,
                free_ns: length_ns,
            },
            Self::Free { left } => Self::Free { left: left - 1 },
            Self::Tried { free_ns, .. } if length_ns > free_ns => Self::Free { left: LASTING },
            Self::Tried { .. } => Self::Bound {
                processor,
                left: LASTING,
            },
            Self::Bound { left: 0, .. } => Self::Free { left: 0 },
            // The thread may have been moved.
            Self::Bound { left, .. } => Self::Bound {
                processor,
                left: left - 1,
            },
        }
    }
}

/// Where the tracer runs, and what it has seen for that.
#[derive(Debug)]
pub(super) struct Place {
    /// Where it may; [`None`] where that is one processor anyway, or not known.
    allowed: Option<Processors>,
    state: State,
    stops: u32,
    began_ns: u64,
    /// The thread that stopped last.
    tid: u32,
    /// All stops were that thread's.
    is_one: bool,
}

impl Place {
    /// Of the calling thread.
    pub(super) fn of_this_thread() -> Self {
        Self {
            allowed: Processors::allowed().filter(|allowed| allowed.count() > 1),
            state: State::Free { left: 0 },
            stops: 0,
            began_ns: 0,
            tid: 0,
            is_one: false,
        }
    }

    /// A thread has stopped. `processor_of` tells where it runs, and is asked once in many stops.
    pub(super) fn stopped(
        &mut self,
        tid: u32,
        now_ns: u64,
        processor_of: impl FnOnce(u32) -> Option<usize>,
    ) {
        let Some(allowed) = &self.allowed else {
            return;
        };
        self.is_one &= tid == self.tid;
        self.tid = tid;
        self.stops += 1;
        if self.stops < STOPS {
            return;
        }
        let one = self.is_one.then(|| processor_of(tid)).flatten();
        let next = self.state.after(Window {
            length_ns: now_ns.saturating_sub(self.began_ns),
            processor: one.filter(|processor| allowed.contains(*processor)),
        });
        if next.processor() != self.state.processor() {
            // Where the kernel does not let it, it runs as before, and the next window tells the same.
            match next.processor() {
                Some(processor) => Processors::only(processor).take(),
                None => allowed.take(),
            };
        }
        self.state = next;
        self.stops = 0;
        self.began_ns = now_ns;
        self.is_one = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: State = State::Free { left: 0 };

    fn window(length_ns: u64, processor: usize) -> Window {
        Window {
            length_ns,
            processor: Some(processor),
        }
    }

    #[test]
    fn a_processor_is_kept_where_it_is_faster() {
        let tried = FREE.after(window(100, 3));
        assert_eq!(tried.processor(), Some(3));
        let bound = tried.after(window(90, 3));
        assert_eq!(bound.processor(), Some(3));
        assert_eq!(bound.after(window(200, 2)).processor(), Some(2), "it moves");
        let mut state = bound;
        for _ in 0..=LASTING {
            assert_eq!(state.processor(), Some(3));
            state = state.after(window(90, 3));
        }
        assert_eq!(state, FREE, "it is tried anew");
    }

    #[test]
    fn one_that_is_slower_is_left_alone_for_long() {
        let mut state = FREE.after(window(100, 3)).after(window(101, 3));
        for _ in 0..LASTING {
            assert_eq!(state.processor(), None);
            state = state.after(window(100, 3));
        }
        assert_eq!(state, FREE);
    }

    #[test]
    fn several_threads_and_rare_stops_free_the_tracer() {
        let tried = FREE.after(window(100, 3));
        let bound = tried.after(window(100, 3));
        let several = Window {
            length_ns: 100,
            processor: None,
        };
        for state in [FREE, tried, bound] {
            assert_eq!(state.after(several), FREE);
            assert_eq!(state.after(window(BRISK_NS + 1, 3)), FREE);
        }
    }

    #[test]
    fn the_tracer_goes_where_its_one_tracee_runs_and_back() {
        std::thread::spawn(|| {
            let mut place = Place::of_this_thread();
            let Some(before) = place.allowed.clone() else {
                return; // A machine with one processor.
            };
            let target = (0..1024).rfind(|at| before.contains(*at)).unwrap();
            let on = || Processors::allowed().unwrap();
            let mut now = 0;
            let mut windows = |place: &mut Place, number: u32, tids: &[u32]| {
                for stop in 0..STOPS * number {
                    now += 1;
                    let tid = tids[stop as usize % tids.len()];
                    place.stopped(tid, now, |_| Some(target));
                }
            };
            // The first has the stop before it, which was nobody's.
            windows(&mut place, 2, &[7]);
            assert_eq!(on(), Processors::only(target));
            windows(&mut place, 1, &[7]);
            assert_eq!(on(), Processors::only(target));
            windows(&mut place, 1, &[7, 8]);
            assert_eq!(on(), before);
        })
        .join()
        .unwrap();
    }
}
