//! Which processes are targets: checked before anything is touched, and their descendants found.

pub mod launch;
pub mod process;
pub mod select;
pub mod users;
pub mod view;
