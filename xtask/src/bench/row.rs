//! What is measured: the rows of the table, and the cases that yield them. A case is one start of one tool.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How a call's length is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub(super) enum Unit {
    /// The time-stamp counter of a machine whose clock is its count of instructions.
    Instructions,
    /// CLOCK_MONOTONIC.
    #[value(name = "ns")]
    Nanoseconds,
}

impl Unit {
    /// As `bench_call` and the command line spell it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::Nanoseconds => "ns",
        }
    }
}

/// The call in the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// `fsync(-1)`, which every tool's rule names.
    Fsync,
    /// `fdatasync(-1)`, which none names, though it is nearly the same code.
    Fdatasync,
    /// `getppid()`, the shortest that none names.
    Getppid,
}

impl Call {
    /// As `bench_call` spells it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Fdatasync => "fdatasync",
            Self::Getppid => "getppid",
        }
    }

    /// The errno it fails with when left alone, 0 where it succeeds.
    pub(super) fn own_errno(self) -> i32 {
        match self {
            Self::Fsync | Self::Fdatasync => libc::EBADF,
            Self::Getppid => 0,
        }
    }
}

/// How bpftrace is told the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Script {
    /// The shortest: one stub, one process by its number.
    OnePid,
    /// What finject does: both ABIs' stubs, and children of the target are targets.
    Tree,
}

/// Who stands between the program and the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tool {
    /// Nobody.
    Bare,
    /// An empty program on the stub, by this mechanism.
    Empty(&'static str),
    /// finject, by `--pid`.
    Finject,
    /// bpftrace with `override()`.
    Bpftrace(Script),
    /// strace that launches the program, with its seccomp filter.
    StraceSeccomp,
    /// strace attached to the running program.
    StraceAttach,
    /// finject that launches the program, by seccomp notification.
    Notify,
    /// finject that launches the program, by ptrace.
    TraceLaunched,
    /// finject attached to the running program, by ptrace.
    TraceAttached,
    /// A loop that receives notifications and answers them, and nothing else.
    RawNotify,
    /// A loop that waits for stops at a filter's calls and ends them, and nothing else.
    RawLaunched,
    /// The same for the entries and exits of all calls of the running program.
    RawAttached,
}

/// Whether the rule fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fires {
    /// It waits for a call that does not come.
    Never,
    /// On every call.
    Always,
    /// It delays every call, microseconds.
    Delays {
        /// By so much.
        us: u32,
    },
    /// It would delay a call that does not come.
    DelaysNever,
}

/// The call that rules name, unless said otherwise.
pub(super) const NAMED: &str = "fsync";

/// What a tool is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Aim {
    /// The call that its rule names.
    pub(super) call: &'static str,
    /// Whether it fires.
    pub(super) fires: Fires,
}

/// Where the program and the tool may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Placement {
    /// Wherever the kernel puts them.
    Free,
    /// Both on this processor.
    On(usize),
}

/// A line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Row {
    Bare,
    EmptyMulti,
    EmptyKprobe,
    FinjectOther,
    FinjectTarget,
    FinjectFires,
    PidOther,
    PidTarget,
    PidFires,
    TreeOther,
    TreeTarget,
    TreeFires,
    StraceSeccomp,
    StraceAttach,
    BareFdatasync,
    ArmedFdatasync,
    BareGetppid,
    ArmedGetppid,
}

impl Row {
    /// In the order of the table.
    pub(super) const ALL: [Self; 18] = [
        Self::Bare,
        Self::EmptyMulti,
        Self::EmptyKprobe,
        Self::FinjectOther,
        Self::FinjectTarget,
        Self::FinjectFires,
        Self::PidOther,
        Self::PidTarget,
        Self::PidFires,
        Self::TreeOther,
        Self::TreeTarget,
        Self::TreeFires,
        Self::StraceSeccomp,
        Self::StraceAttach,
        Self::BareFdatasync,
        Self::ArmedFdatasync,
        Self::BareGetppid,
        Self::ArmedGetppid,
    ];

    /// Its name in the table.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Bare => "no tool",
            Self::EmptyMulti => "the kernel's floor: an empty kprobe.multi program",
            Self::EmptyKprobe => "the kernel's floor: an empty kprobe program",
            Self::FinjectOther => "finject, a process that is no target",
            Self::FinjectTarget => "finject, target, does not fire",
            Self::FinjectFires => "finject, target, fires on every call",
            Self::PidOther => "bpftrace one pid, a process that is no target",
            Self::PidTarget => "bpftrace one pid, target, does not fire",
            Self::PidFires => "bpftrace one pid, target, fires on every call",
            Self::TreeOther => "bpftrace process tree, a process that is no target",
            Self::TreeTarget => "bpftrace process tree, target, does not fire",
            Self::TreeFires => "bpftrace process tree, target, fires on every call",
            Self::StraceSeccomp => "strace --seccomp-bpf, does not fire",
            Self::StraceAttach => "strace -p, does not fire",
            Self::BareFdatasync => "fdatasync(-1), no tool",
            Self::ArmedFdatasync => "fdatasync(-1), target of finject's fsync rule",
            Self::BareGetppid => "getppid(), no tool",
            Self::ArmedGetppid => "getppid(), target of finject's fsync rule",
        }
    }

    /// The row of the same call without a tool.
    pub(super) fn bare(self) -> Self {
        match self {
            Self::BareFdatasync | Self::ArmedFdatasync => Self::BareFdatasync,
            Self::BareGetppid | Self::ArmedGetppid => Self::BareGetppid,
            _ => Self::Bare,
        }
    }
}

/// A process in a loop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loop {
    /// The line that its figure is for.
    pub(super) row: Row,
    /// What it calls.
    pub(super) call: Call,
    /// Whether it is a target of the tool.
    pub(super) target: bool,
}

/// One start of one tool, and the loops that run one after the other while it is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    /// The tool.
    pub(super) tool: Tool,
    /// Whether its rule fires.
    pub(super) fires: Fires,
    /// The loops; targets last, since finject ends with its last one.
    pub(super) loops: &'static [Loop],
}

const fn target(row: Row, call: Call) -> Loop {
    Loop {
        row,
        call,
        target: true,
    }
}

const fn other(row: Row, call: Call) -> Loop {
    Loop {
        row,
        call,
        target: false,
    }
}

/// All cases, in the order of a round.
pub(super) const CASES: &[Case] = &[
    Case {
        tool: Tool::Bare,
        fires: Fires::Never,
        loops: &[
            other(Row::Bare, Call::Fsync),
            other(Row::BareFdatasync, Call::Fdatasync),
            other(Row::BareGetppid, Call::Getppid),
        ],
    },
    Case {
        tool: Tool::Empty("kprobe.multi"),
        fires: Fires::Never,
        loops: &[other(Row::EmptyMulti, Call::Fsync)],
    },
    Case {
        tool: Tool::Empty("kprobe"),
        fires: Fires::Never,
        loops: &[other(Row::EmptyKprobe, Call::Fsync)],
    },
    Case {
        tool: Tool::Finject,
        fires: Fires::Never,
        loops: &[
            other(Row::FinjectOther, Call::Fsync),
            target(Row::FinjectTarget, Call::Fsync),
        ],
    },
    Case {
        tool: Tool::Finject,
        fires: Fires::Never,
        loops: &[
            target(Row::ArmedFdatasync, Call::Fdatasync),
            target(Row::ArmedGetppid, Call::Getppid),
        ],
    },
    Case {
        tool: Tool::Finject,
        fires: Fires::Always,
        loops: &[target(Row::FinjectFires, Call::Fsync)],
    },
    Case {
        tool: Tool::Bpftrace(Script::OnePid),
        fires: Fires::Never,
        loops: &[
            other(Row::PidOther, Call::Fsync),
            target(Row::PidTarget, Call::Fsync),
        ],
    },
    Case {
        tool: Tool::Bpftrace(Script::OnePid),
        fires: Fires::Always,
        loops: &[target(Row::PidFires, Call::Fsync)],
    },
    Case {
        tool: Tool::Bpftrace(Script::Tree),
        fires: Fires::Never,
        loops: &[
            other(Row::TreeOther, Call::Fsync),
            target(Row::TreeTarget, Call::Fsync),
        ],
    },
    Case {
        tool: Tool::Bpftrace(Script::Tree),
        fires: Fires::Always,
        loops: &[target(Row::TreeFires, Call::Fsync)],
    },
    Case {
        tool: Tool::StraceSeccomp,
        fires: Fires::Never,
        loops: &[target(Row::StraceSeccomp, Call::Fsync)],
    },
    Case {
        tool: Tool::StraceAttach,
        fires: Fires::Never,
        loops: &[target(Row::StraceAttach, Call::Fsync)],
    },
];

#[cfg(test)]
mod tests {
    use super::{CASES, Row, Tool};

    #[test]
    fn every_row_is_measured_once_and_targets_come_last() {
        for row in Row::ALL {
            let loops = CASES.iter().flat_map(|case| case.loops);
            assert_eq!(loops.filter(|one| one.row == row).count(), 1, "{row:?}");
        }
        for case in CASES {
            let aims: Vec<bool> = case.loops.iter().map(|one| one.target).collect();
            assert!(aims.is_sorted(), "{case:?}");
            // A bpftrace script of ours has one target.
            let targets = aims.iter().filter(|aim| **aim).count();
            assert!(targets == 1 || !matches!(case.tool, Tool::Bpftrace(_)));
        }
    }
}
