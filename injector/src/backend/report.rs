//! What a backend tells of its work: what it hooked, and its counters.

/// What was attached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookReport {
    /// The backend's name.
    pub backend: &'static str,
    /// Kernel functions hooked, each address once; or calls that come to finject.
    pub functions: usize,
    /// The kernel's mechanism.
    pub mechanism: String,
    /// Target processes, descendants included.
    pub targets: u64,
    /// Test calls that were tried, and came to [`HookReport::shown`].
    pub tested: usize,
    /// What each of them has shown.
    pub shown: Shown,
    /// Instructions that the kernel's verifier walked for the entry program, where there is one.
    pub verified_instructions: Option<u32>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// What a test call shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// It was failed, as asked.
    #[default]
    Failed,
    /// It ran, and its entry and its exit were seen: where no call can be failed.
    Seen,
}

impl std::fmt::Display for Shown {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Failed => "failed as asked",
            Self::Seen => "seen to enter and leave",
        })
    }
}

/// One rule's counters. Units as in `injector_common::RuleCell`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleReport {
    /// Calls that matched.
    pub matched: u64,
    /// Firings.
    pub fired: u64,
    /// Firings whose event found no room.
    pub dropped: u64,
    /// Results that lost against an earlier rule's.
    pub shadowed: u64,
    /// Firings of which a part could not be carried out: a signal could not be sent, say.
    pub lost: u64,
    /// Firings whose result, meant for a success, met a call that failed by itself.
    pub moot: u64,
    /// Selected calls of which nothing could be cut, or that move no data.
    pub dataless: u64,
    /// Calls that passed after losing every race for the chain's position.
    pub contended: u64,
    /// Calls that passed because there was no room for another process's or thread's counter.
    pub scopes_full: u64,
    /// Calls that passed because their files or sockets could not be looked at.
    pub unseen: u64,
    /// Calls that the rule names, and whose arguments it is not about.
    pub excluded: u64,
    /// `CLOCK_MONOTONIC` of the first firing, nanoseconds.
    pub first_ns: Option<u64>,
    /// `CLOCK_MONOTONIC` of the last firing, nanoseconds.
    pub last_ns: Option<u64>,
    /// Threads that wait now, since the rule says so.
    pub waiting: u64,
    /// Firings since it was armed, those included whose threads wait.
    pub hits: u64,
    /// It is in force.
    pub is_armed: bool,
    /// It was in force, or is.
    pub was_armed: bool,
}

/// All counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// By the rule's index in the plan.
    pub rules: Vec<RuleReport>,
    /// Target processes met.
    pub targets_seen: u64,
    /// Target processes that ended.
    pub targets_exited: u64,
    /// Children that could not become targets.
    pub targets_lost: u64,
    /// Records other than firings that found no room.
    pub notes_dropped: u64,
    /// Calls that the kernel's tracing left out; [`None`] where the kernel does not count them.
    pub misses: Option<u64>,
    /// The backend's own dead-man switch ended the faults.
    pub lapsed: bool,
}
