//! finject as a library: rules, plans, backends, sessions.
//!
//! A rule is text ([`rule`]); with targets ([`target`]) and a seed it becomes a [`plan`]; a
//! [`backend`] carries the plan out; a [`session`] runs it, records what happened ([`history`]) and
//! undoes everything when it ends, however it ends.

pub mod backend;
pub mod cli;
pub mod control;
pub mod history;
pub mod plan;
pub mod rule;
pub mod session;
pub mod sys;
pub mod syscall;
pub mod target;
pub mod text;
