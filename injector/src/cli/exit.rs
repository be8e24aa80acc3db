//! Exit statuses, as documented in the README.

use std::process::ExitCode;

/// Why finject ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The target ended, the time was up, or finject was asked to end.
    Done,
    /// What the user wrote cannot be meant (sysexits.h, `EX_USAGE`).
    Usage,
    /// This machine cannot do it (sysexits.h, `EX_UNAVAILABLE`).
    Unavailable,
    /// `--must-fire`, and a rule never fired.
    NeverFired,
    /// finject itself failed.
    Failed,
    /// What the launched command ended with, as a shell says it.
    Mirrored(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Usage => 64,
            Exit::Unavailable => 69,
            Exit::NeverFired => 124,
            Exit::Failed => 125,
            Exit::Mirrored(status) => status,
        })
    }
}
