//! Helpers of the integration tests.

pub mod agents;
pub mod child;
pub mod conformance;
pub mod errno;
pub mod finject;
pub mod guest;
pub mod kernel;
pub mod programs;
pub mod refused;
pub mod victim;
