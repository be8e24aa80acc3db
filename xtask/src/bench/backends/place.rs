//! What is measured in a loop: which call, under which rule, by how many threads, on how many processors; and by which
//! tools, in three ways of getting at a call.

use super::super::row::{Aim, Call, Fires, NAMED, Placement, Tool};

/// A backend in one of its modes, with what it is compared to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// Launched, by seccomp notification.
    Notify,
    /// Launched, by ptrace.
    Launched,
    /// Attached, by ptrace.
    Attached,
}

impl Way {
    /// In the order of the tables.
    pub(super) const ALL: [Self; 3] = [Self::Notify, Self::Launched, Self::Attached];

    /// Its name in the tables.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Notify => "notify, launched",
            Self::Launched => "ptrace, launched",
            Self::Attached => "ptrace, attached",
        }
    }

    /// finject's.
    pub(super) fn own(self) -> Tool {
        match self {
            Self::Notify => Tool::Notify,
            Self::Launched => Tool::TraceLaunched,
            Self::Attached => Tool::TraceAttached,
        }
    }

    /// The bare mechanism.
    pub(super) fn raw(self) -> Tool {
        match self {
            Self::Notify => Tool::RawNotify,
            Self::Launched => Tool::RawLaunched,
            Self::Attached => Tool::RawAttached,
        }
    }

    /// strace's.
    pub(super) fn strace(self) -> Tool {
        match self {
            Self::Notify | Self::Launched => Tool::StraceSeccomp,
            Self::Attached => Tool::StraceAttach,
        }
    }

    /// The most of strace's cost that a matched call may have.
    pub(super) fn share_of_strace(self) -> f64 {
        match self {
            Self::Notify => 1.0 / 3.0,
            Self::Launched | Self::Attached => 0.6,
        }
    }
}

/// All tools, and none first.
pub(super) const TOOLS: [Tool; 9] = [
    Tool::Bare,
    Tool::RawNotify,
    Tool::Notify,
    Tool::RawLaunched,
    Tool::TraceLaunched,
    Tool::StraceSeccomp,
    Tool::RawAttached,
    Tool::TraceAttached,
    Tool::StraceAttach,
];

/// What becomes of the call in the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A rule names it, and does not fire.
    Passes,
    /// A rule names it, and fires each time.
    Fires,
    /// No rule names it.
    Other,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Passes, Self::Fires, Self::Other];

    /// Its name in the tables.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Passes => "matched, does not fire",
            Self::Fires => "matched, fires",
            Self::Other => "other",
        }
    }

    /// The call.
    pub(super) fn call(self) -> Call {
        match self {
            Self::Passes | Self::Fires => Call::Fsync,
            Self::Other => Call::Getppid,
        }
    }

    /// What the tool is told.
    pub(super) fn aim(self) -> Aim {
        let fires = match self {
            Self::Fires => Fires::Always,
            Self::Passes | Self::Other => Fires::Never,
        };
        Aim { call: NAMED, fires }
    }
}

/// A loop: a line of the table for each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// What becomes of the call.
    pub(super) kind: Kind,
    /// Threads that make it.
    pub(super) threads: u32,
    /// Whether they and the tool run on one processor.
    pub(super) pinned: bool,
}

impl Place {
    /// In the order of the table.
    pub(super) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for kind in Kind::ALL {
            for threads in [1, 8] {
                for pinned in [true, false] {
                    all.push(Self {
                        kind,
                        threads,
                        pinned,
                    });
                }
            }
        }
        all
    }

    /// Those that are started in it. Without a tool nothing fires.
    pub(super) fn tools(self) -> Vec<Tool> {
        let is_measured = |tool: &Tool| self.kind != Kind::Fires || *tool != Tool::Bare;
        TOOLS.into_iter().filter(is_measured).collect()
    }

    /// The loop whose figure without a tool is this one's too.
    pub(super) fn bare(self) -> Self {
        let kind = match self.kind {
            Kind::Passes | Kind::Fires => Kind::Passes,
            Kind::Other => Kind::Other,
        };
        Self { kind, ..self }
    }
}

/// Where tool and program may run.
pub(super) fn placement(pinned: bool, processor: usize) -> Placement {
    if pinned {
        Placement::On(processor)
    } else {
        Placement::Free
    }
}

/// How the tables say it.
pub(super) fn placement_label(pinned: bool) -> &'static str {
    if pinned { "pinned" } else { "free" }
}

#[cfg(test)]
mod tests {
    use super::super::super::row::Tool;
    use super::{Place, TOOLS, Way};

    #[test]
    fn every_comparison_is_of_tools_that_are_measured() {
        for way in Way::ALL {
            for tool in [way.own(), way.raw(), way.strace()] {
                assert!(TOOLS.contains(&tool), "{tool:?}");
                for place in Place::all() {
                    assert!(place.tools().contains(&tool));
                    assert!(place.bare().tools().contains(&Tool::Bare));
                }
            }
        }
        assert_eq!(Place::all().len(), 12);
    }
}
