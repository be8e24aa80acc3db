//! Helpers of the integration tests.

pub mod agents;
pub mod child;
pub mod conformance;
pub mod errno;
pub mod exact;
pub mod finject;
pub mod guest;
pub mod held;
pub mod joining;
pub mod kernel;
pub mod programs;
pub mod refused;
pub mod scale;
pub mod storm;
pub mod victim;
pub mod workers;
