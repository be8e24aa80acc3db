//! The rule language: text to [`ast::Rule`] to [`ResolvedRule`].
//!
//! - [`parse`] reads one rule and reports all its mistakes at once; a rule prints (`Display`) in
//!   canonical form, and `parse(&rule.to_string())` gives the same rule.
//! - [`compile`] reads and resolves all rules of a run: names become calls, defaults are filled in,
//!   what can never act is warned of ([`RuleWarning`]).
//! - [`split()`] cuts a text with several rules (`FINJECT_RULES='a;b'`).
//! - [`file::RuleFile`] reads a rule file; its rules go to [`compile`] like any others.
//! - [`RuleErrors`] is all that is wrong with one rule; `render` shows it as a person reads it.
//!
//! The language itself is described in `doc/rules.md`, which is [`REFERENCE`]. Nothing here asks the machine or a clock.

pub mod address;
pub mod ast;
mod error;
pub mod file;
#[cfg(test)]
mod generate;
pub mod glob;
mod key;
pub mod lower;
mod near;
mod parse;
mod print;
mod reference;
mod resolve;
mod split;
mod suggest;
#[cfg(test)]
mod tests;
mod value;
mod vars;
mod warning;

pub use self::{
    address::{AddressPattern, IpNet},
    error::{
        ActionError, CallError, PredicateError, RuleError, RuleErrors, Source, ValueError,
        WhenError, render,
    },
    glob::Glob,
    parse::{duration as parse_duration, parse},
    reference::REFERENCE,
    resolve::{Compiled, ResolvedRule, RuleName, RuleText, Step, When, compile, compile_after},
    split::split,
    suggest::{family_of, to_begin_with},
    value::{Count, Percent},
    warning::{RuleWarning, Warning},
};
