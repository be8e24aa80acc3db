//! Every call that a tracer of running processes has been shown, named by a rule or not: what a rule that
//! never fired is told instead. In memory that finject shares with its tracer.

use std::sync::atomic::Ordering::Relaxed;

use injector_common::limits::{ABIS, MAX_NR};

use crate::backend::memory::CallSlot;
use crate::sys::SysError;
use crate::sys::mapping::Mapping;
use crate::syscall::CallId;

/// A counter for each number of each ABI.
#[derive(Debug)]
pub(super) struct Seen(Mapping);

const NUMBERS: usize = (ABIS * MAX_NR) as usize;

impl Seen {
    /// All at 0.
    pub(super) fn new() -> Result<Self, SysError> {
        Ok(Self(Mapping::anonymous(8 * NUMBERS)?))
    }

    /// Counts a call. Numbers beyond the tables are no calls.
    pub(super) fn add(&self, call: CallSlot) {
        if u32::from(call.nr) < MAX_NR
            && let Some(word) = self.0.word(8 * call.index())
        {
            word.fetch_add(1, Relaxed);
        }
    }

    /// Those that were made, the most frequent first.
    pub(super) fn calls(&self) -> Vec<(CallId, u64)> {
        let mut calls = Vec::new();
        for compat in [false, true] {
            for nr in 0..MAX_NR as u16 {
                let call = CallSlot { compat, nr };
                let word = self.0.word(8 * call.index());
                let number = word.map_or(0, |word| word.load(Relaxed));
                if number > 0 {
                    calls.push((call.into(), number));
                }
            }
        }
        calls.sort_by_key(|(call, number)| (std::cmp::Reverse(*number), *call));
        calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_abi_and_number() {
        let seen = Seen::new().unwrap();
        let [native, compat] = [false, true].map(|compat| CallSlot { compat, nr: 75 });
        for call in [native, compat, compat] {
            seen.add(call);
        }
        seen.add(CallSlot {
            compat: false,
            nr: 600,
        });
        assert_eq!(seen.calls(), [(compat.into(), 2), (native.into(), 1)]);
    }
}
