//! Which processes are targets: checked before anything is touched, and their descendants found.

pub mod process;
pub mod select;
