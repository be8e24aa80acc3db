//! What the rounds took, by what was measured and under which tool; and the ratios, each taken within a round, since what
//! disturbs one tool there disturbs the others.

use super::super::row::Tool;
use super::median;
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// One figure a round for each thing and tool.
#[derive(Debug)]
pub(super) struct Timings<K>(BTreeMap<(K, Tool), Vec<f64>>);

impl<K> Default for Timings<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Copy + Ord + Debug> Timings<K> {
    /// Adds the next round's.
    pub(super) fn add(&mut self, key: K, tool: Tool, value: f64) {
        self.0.entry((key, tool)).or_default().push(value);
    }

    /// Whether nothing was measured.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn rounds(&self, key: K, tool: Tool) -> anyhow::Result<&[f64]> {
        let found = self.0.get(&(key, tool));
        Ok(found.with_context(|| format!("{tool:?} was not measured for {key:?}"))?)
    }

    /// The median of the rounds.
    ///
    /// # Errors
    /// When it was not measured.
    pub(super) fn typical(&self, key: K, tool: Tool) -> anyhow::Result<f64> {
        let rounds = self.rounds(key, tool)?;
        median(rounds.iter().copied()).context("no round")
    }

    /// The median of the rounds' ratios of one tool to another.
    ///
    /// # Errors
    /// When one was not measured.
    pub(super) fn ratio(&self, key: K, over: Tool, under: Tool) -> anyhow::Result<f64> {
        let (over, under) = (self.rounds(key, over)?, self.rounds(key, under)?);
        median(over.iter().zip(under).map(|(over, under)| over / under)).context("no round")
    }

    /// The median of the rounds' ratios of what one tool adds to what another adds.
    ///
    /// # Errors
    /// When one was not measured, or without a tool.
    pub(super) fn ratio_of_added(&self, key: K, over: Tool, under: Tool) -> anyhow::Result<f64> {
        let bare = self.rounds(key, Tool::Bare)?;
        let (over, under) = (self.rounds(key, over)?, self.rounds(key, under)?);
        let both = over.iter().zip(under).zip(bare);
        median(both.map(|((over, under), bare)| (over - bare) / (under - bare))).context("no round")
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::row::Tool;
    use super::Timings;

    fn timings(rounds: &[(Tool, &[f64])]) -> Timings<u8> {
        let mut timings = Timings::default();
        for (tool, values) in rounds {
            for value in *values {
                timings.add(1, *tool, *value);
            }
        }
        timings
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The last round was disturbed, by the same factor for both.
        let timings = timings(&[
            (Tool::Bare, &[1.0, 1.0, 10.0]),
            (Tool::Notify, &[3.0, 4.0, 40.0]),
            (Tool::RawNotify, &[2.0, 2.0, 20.0]),
        ]);
        let ratio = timings.ratio(1, Tool::Notify, Tool::RawNotify).unwrap();
        assert!((ratio - 2.0).abs() < 1e-9);
        let added = timings.ratio_of_added(1, Tool::Notify, Tool::RawNotify);
        assert!((added.unwrap() - 3.0).abs() < 1e-9);
        assert!((timings.typical(1, Tool::Notify).unwrap() - 4.0).abs() < 1e-9);
    }

    #[test]
    fn what_was_not_measured_is_an_error() {
        let timings = timings(&[(Tool::Notify, &[3.0])]);
        assert!(timings.ratio(1, Tool::Notify, Tool::RawNotify).is_err());
        assert!(timings.typical(2, Tool::Notify).is_err());
        assert!(
            timings
                .ratio_of_added(1, Tool::Notify, Tool::Notify)
                .is_err()
        );
    }
}
