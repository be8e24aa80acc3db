//! Proof that the object's counts are counts. With any order weaker than sequential consistency
//! LLVM turns an atomic addition whose result is used into one that does not fetch, and what the
//! program then takes for the count is the number that it added. No test of a rule shows that as
//! reliably as the instructions do.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use object::{Object as _, ObjectSection as _, SectionKind};

/// `BPF_STX | BPF_ATOMIC | BPF_DW` (Documentation/bpf/standardization/instruction-set.rst).
const ATOMIC_64: u8 = 0xdb;
/// `BPF_STX | BPF_ATOMIC | BPF_W`.
const ATOMIC_32: u8 = 0xc3;
/// `BPF_LD | BPF_IMM | BPF_DW`: the one instruction that takes two slots.
const WIDE: u8 = 0x18;
/// `BPF_FETCH`.
const FETCH: i32 = 0x01;

/// The atomic operations, as they stand in an instruction's immediate without [`FETCH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    Add,
    Or,
    And,
    Xor,
    Exchange,
    CompareExchange,
}

impl Operation {
    fn of(immediate: i32) -> Option<Self> {
        Some(match immediate & !FETCH {
            0x00 => Self::Add,
            0x40 => Self::Or,
            0x50 => Self::And,
            0xa0 => Self::Xor,
            0xe0 => Self::Exchange,
            0xf0 => Self::CompareExchange,
            _ => return None,
        })
    }
}

/// Every atomic operation of the object fetches, and the two that counting needs are there.
///
/// An addition whose result nobody uses might do without fetching; telling those apart takes a
/// data-flow analysis, and the sources ask for none.
pub(super) fn all_fetch(object: &[u8]) -> anyhow::Result<()> {
    let file = object::File::parse(object).context("not an object")?;
    let mut found = BTreeMap::new();
    for section in file.sections() {
        if section.kind() != SectionKind::Text {
            continue;
        }
        let name = section.name().context("a section without a name")?;
        fetching(section.data()?, &mut found).with_context(|| format!("section {name}"))?;
    }
    for needed in [Operation::Add, Operation::CompareExchange] {
        ensure!(
            found.contains_key(&needed),
            "no atomic {needed:?} in the object: how does it count?"
        );
    }
    Ok(())
}

/// Tallies the atomic operations of a section; an error for one that does not fetch.
fn fetching(text: &[u8], found: &mut BTreeMap<Operation, usize>) -> anyhow::Result<()> {
    ensure!(
        text.len().is_multiple_of(8),
        "{} bytes are no whole instructions",
        text.len()
    );
    let mut slots = text.as_chunks::<8>().0.iter().enumerate();
    while let Some((slot, &[code, registers, _, _, a, b, c, d])) = slots.next() {
        match code {
            WIDE => drop(slots.next()),
            ATOMIC_32 | ATOMIC_64 => {
                let immediate = i32::from_le_bytes([a, b, c, d]);
                let Some(operation) = Operation::of(immediate) else {
                    bail!("slot {slot}: unknown atomic operation {immediate:#x}");
                };
                ensure!(
                    immediate & FETCH != 0,
                    "slot {slot}: atomic {operation:?} that does not fetch (register {}); only \
                     `AtomicOrdering::SeqCst` makes LLVM fetch",
                    registers >> 4,
                );
                *found.entry(operation).or_default() += 1;
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `*(u64 *)(r1 + 0) op= r2`, with the immediate given.
    fn atomic(code: u8, immediate: u8) -> [u8; 8] {
        [code, 0x21, 0, 0, immediate, 0, 0, 0]
    }

    fn tally(text: &[[u8; 8]]) -> Result<Vec<(Operation, usize)>, String> {
        let mut found = BTreeMap::new();
        match fetching(text.as_flattened(), &mut found) {
            Ok(()) => Ok(found.into_iter().collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn fetching_operations_are_counted() {
        let text = [
            atomic(ATOMIC_64, 0x01),
            atomic(ATOMIC_32, 0x01),
            atomic(ATOMIC_64, 0xf1),
            atomic(ATOMIC_64, 0xe1),
            atomic(ATOMIC_64, 0x41),
            atomic(ATOMIC_64, 0x51),
            [0x95, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(
            tally(&text).unwrap(),
            [
                (Operation::Add, 2),
                (Operation::Or, 1),
                (Operation::And, 1),
                (Operation::Exchange, 1),
                (Operation::CompareExchange, 1),
            ]
        );
    }

    #[test]
    fn one_that_does_not_fetch_is_refused() {
        for (code, immediate) in [
            (ATOMIC_64, 0x00),
            (ATOMIC_32, 0x00),
            (ATOMIC_64, 0x40),
            (ATOMIC_64, 0x50),
        ] {
            let error = tally(&[atomic(ATOMIC_64, 0x01), atomic(code, immediate)]).unwrap_err();
            assert!(error.contains("slot 1: atomic"), "{error}");
            assert!(error.contains("does not fetch"), "{error}");
        }
    }

    #[test]
    fn an_unknown_operation_is_refused() {
        let error = tally(&[atomic(ATOMIC_64, 0x21)]).unwrap_err();
        assert!(error.contains("0x21"), "{error}");
    }

    #[test]
    fn the_second_half_of_a_wide_load_is_no_instruction() {
        let wide = [WIDE, 0x01, 0, 0, 0, 0, 0, 0];
        assert_eq!(tally(&[wide, atomic(ATOMIC_64, 0x00)]).unwrap(), []);
    }

    #[test]
    fn half_an_instruction_is_refused() {
        assert!(fetching(&[0x95, 0, 0], &mut BTreeMap::new()).is_err());
    }

    #[test]
    fn the_committed_object_counts() {
        let object = std::fs::read(super::super::object_path()).unwrap();
        all_fetch(&object).unwrap();
    }
}
