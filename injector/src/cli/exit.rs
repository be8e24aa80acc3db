//! Exit statuses, as documented in the README.

use std::process::ExitCode;

/// Why finject ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The target ended, the time was up, or finject was asked to end.
    Done = 0,
    /// What the user wrote cannot be meant (sysexits.h, `EX_USAGE`).
    Usage = 64,
    /// This machine cannot do it (sysexits.h, `EX_UNAVAILABLE`).
    Unavailable = 69,
    /// `--must-fire`, and a rule never fired.
    NeverFired = 124,
    /// finject itself failed.
    Failed = 125,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
