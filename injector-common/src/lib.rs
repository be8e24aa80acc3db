//! What the kernel program and the user side of finject share: the wire form of a rule, the pure
//! decision function, the record of a firing, the layout of the shared memory, and every limit.
//! `no_std`, no allocation, no dependencies, so that the same text runs under the verifier and in
//! every backend.
#![no_std]

pub mod args;
pub mod caller;
pub mod decide;
pub mod event;
pub mod glob;
pub mod limits;
pub mod mark;
pub mod random;
pub mod rule;
pub mod shared;
pub mod socket;
pub mod trigger;

pub use args::{AddressKind, ArgKinds, DataKind, WireTest, all_hold};
pub use caller::{CallerFact, CallerFacts, WireCallerTest, is_called_by};
pub use decide::{Call, Counter, Decision, Outcome, advance, decide};
pub use event::{Event, EventKind};
pub use glob::{FileSide, WireGlob, WirePathTest, is_about_files};
pub use mark::{Mark, MarkState, MarkedFiring};
pub use rule::{Data, Scope, WireRule, WireStep, WireWait};
pub use shared::{
    Control, Release, Released, RuleCell, RunState, ScopeCell, ScopeKey, Shared, Shift, Target,
    Turn,
};
pub use socket::{Endpoint, SocketSide, WireSocketTest, is_about_sockets};
