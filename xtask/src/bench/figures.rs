//! The figures of one boot, as the guest hands them over.

use super::row::{Row, Unit};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// The length of a call in one run of a loop, in the reading's unit.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct PerCall {
    /// The median of the run's rounds: what the call itself takes.
    pub(super) median: f64,
    /// The mean of all rounds: with what other work came between, such as a tool that reads its events.
    pub(super) mean: f64,
}

/// A tool whose arming is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Armed {
    Finject,
    BpftraceOnePid,
    BpftraceTree,
}

impl Armed {
    pub(super) const ALL: [Self; 3] = [Self::Finject, Self::BpftraceOnePid, Self::BpftraceTree];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Finject => "finject",
            Self::BpftraceOnePid => "bpftrace one pid",
            Self::BpftraceTree => "bpftrace process tree",
        }
    }
}

/// One start of a tool whose rule fires on every call.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Arming {
    /// From before the tool's exec to the target's first failed call, in nanoseconds of the guest's clock.
    pub(super) fault_ns: u64,
    /// The tool's processor time until then, in milliseconds.
    pub(super) cpu_ms: u64,
    /// From before the exec to the tool's own word that it is ready, where it gives one.
    pub(super) ready_ns: Option<u64>,
    /// The peak resident size in KiB (VmHWM of proc(5)).
    pub(super) peak_kib: u64,
    /// The kernel's memory of its maps, in bytes (`memlock` of a map's fdinfo).
    pub(super) maps_bytes: u64,
    /// The kernel's memory of its programs, in bytes (`memlock` of a program's fdinfo).
    pub(super) programs_bytes: u64,
}

/// What one boot measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Reading {
    /// The kernel's release.
    pub(super) kernel: String,
    /// Processors.
    pub(super) processors: usize,
    /// How calls were measured.
    pub(super) unit: Unit,
    /// Each row's runs, one a round.
    pub(super) rows: Vec<(Row, Vec<PerCall>)>,
    /// Each tool's starts.
    pub(super) arming: Vec<(Armed, Vec<Arming>)>,
}

impl Reading {
    fn runs(&self, row: Row) -> anyhow::Result<&[PerCall]> {
        let found = self.rows.iter().find(|(key, _)| *key == row);
        let (_, runs) = found.with_context(|| format!("{row:?} was not measured"))?;
        Ok(runs)
    }

    /// A row's length of a call: the median of its runs.
    ///
    /// # Errors
    /// When it was not measured.
    pub(super) fn call(&self, row: Row) -> anyhow::Result<f64> {
        median(self.runs(row)?.iter().map(|run| run.median))
            .with_context(|| format!("{row:?} has no run"))
    }

    /// A row's mean length of a call: the median of its runs' means.
    ///
    /// # Errors
    /// When it was not measured.
    pub(super) fn mean(&self, row: Row) -> anyhow::Result<f64> {
        median(self.runs(row)?.iter().map(|run| run.mean))
            .with_context(|| format!("{row:?} has no run"))
    }

    /// What a row's tool adds to the same call without one.
    ///
    /// # Errors
    /// When it was not measured.
    pub(super) fn over_bare(&self, row: Row) -> anyhow::Result<f64> {
        Ok(self.call(row)? - self.call(row.bare())?)
    }

    /// The median over a tool's starts of one of their figures.
    ///
    /// # Errors
    /// When it was not measured, or has not that figure.
    #[expect(
        clippy::cast_precision_loss,
        reason = "nanoseconds of minutes and bytes of megabytes are below 2^53"
    )]
    pub(super) fn armed(
        &self,
        tool: Armed,
        figure: impl Fn(&Arming) -> Option<u64>,
    ) -> anyhow::Result<f64> {
        let found = self.arming.iter().find(|(key, _)| *key == tool);
        let (_, starts) = found.with_context(|| format!("{tool:?} was not armed"))?;
        median(starts.iter().filter_map(figure).map(|figure| figure as f64))
            .with_context(|| format!("{tool:?} lacks a figure"))
    }
}

/// The middle value, or the mean of the two in the middle; none of nothing.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        Some(upper)
    } else {
        Some(f64::midpoint(values[values.len() / 2 - 1], upper))
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0]), Some(3.0));
        assert_eq!(median([9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 9.0, 2.0]), Some(3.0));
    }
}
