//! Values inside a rule that are no name: shares, counts, and how durations are printed.

use std::{
    fmt,
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

/// A share above 0 and at most 100 %, in steps of 0.0001 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(NonZeroU32);

impl Percent {
    /// 100 %.
    pub const PARTS: u32 = 1_000_000;

    /// Takes millionths; `None` for 0 and above [`Percent::PARTS`].
    pub fn from_parts(parts: u32) -> Option<Self> {
        NonZeroU32::new(parts)
            .filter(|parts| parts.get() <= Self::PARTS)
            .map(Self)
    }

    /// The share in millionths, 1 to 1 000 000.
    pub fn parts(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.parts() / 10_000, self.parts() % 10_000);
        if rest == 0 {
            return write!(f, "{whole}%");
        }
        let digits = format!("{rest:04}");
        write!(f, "{whole}.{}%", digits.trim_end_matches('0'))
    }
}

/// Which calls are selected by their number: the first, the last, and every `step`th from the
/// first on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Count {
    first: NonZeroU64,
    last: Option<NonZeroU64>,
    step: NonZeroU64,
}

impl Count {
    /// Every call.
    pub const ALL: Self = Self {
        first: NonZeroU64::MIN,
        last: None,
        step: NonZeroU64::MIN,
    };

    /// `first..last+step`; without `last` for ever. `None` where `last` is below `first`.
    pub fn new(first: NonZeroU64, last: Option<NonZeroU64>, step: NonZeroU64) -> Option<Self> {
        match last {
            Some(last) if last < first => None,
            // With one call there is no step; written so, it is the same condition.
            Some(last) if last == first => Some(Self {
                first,
                last: Some(last),
                step: NonZeroU64::MIN,
            }),
            _ => Some(Self { first, last, step }),
        }
    }

    /// The first number selected.
    pub fn first(&self) -> NonZeroU64 {
        self.first
    }

    /// The last number that may be selected; `None` for no end.
    pub fn last(&self) -> Option<NonZeroU64> {
        self.last
    }

    /// The distance between two that are selected.
    pub fn step(&self) -> NonZeroU64 {
        self.step
    }

    /// Whether every call is selected.
    pub fn is_all(&self) -> bool {
        *self == Self::ALL
    }

    /// How many calls are selected in all; `None` for no end.
    pub fn selected(&self) -> Option<u64> {
        self.last
            .map(|last| (last.get() - self.first.get()) / self.step.get() + 1)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, step } = self;
        match last {
            Some(last) if last == first => write!(f, "{first}"),
            Some(last) if step.get() == 1 => write!(f, "{first}..{last}"),
            Some(last) => write!(f, "{first}..{last}+{step}"),
            None if step.get() == 1 => write!(f, "{first}+"),
            None => write!(f, "{first}+{step}"),
        }
    }
}

/// A duration as rules say it: in the largest unit that needs no decimals.
pub(crate) struct Plain(pub(crate) Duration);

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        for (unit, name) in UNITS.iter().rev() {
            if nanos.is_multiple_of(*unit) {
                return write!(f, "{}{name}", nanos / unit);
            }
        }
        write!(f, "{nanos}ns")
    }
}

/// Units of a duration in nanoseconds, ascending.
pub(crate) const UNITS: &[(u128, &str)] = &[
    (1, "ns"),
    (1_000, "us"),
    (1_000_000, "ms"),
    (1_000_000_000, "s"),
    (60_000_000_000, "m"),
    (3_600_000_000_000, "h"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_print_without_needless_digits() {
        for (parts, text) in [
            (1, "0.0001%"),
            (100_000, "10%"),
            (125_000, "12.5%"),
            (1_000_000, "100%"),
        ] {
            assert_eq!(Percent::from_parts(parts).unwrap().to_string(), text);
        }
        assert_eq!(Percent::from_parts(0), None);
        assert_eq!(Percent::from_parts(1_000_001), None);
    }

    #[test]
    fn durations_print_in_the_largest_whole_unit() {
        for (nanos, text) in [
            (0, "0h"),
            (1, "1ns"),
            (1_500, "1500ns"),
            (20_000_000, "20ms"),
            (60_000_000_000, "1m"),
            (90_000_000_000, "90s"),
            (7_200_000_000_000, "2h"),
        ] {
            assert_eq!(Plain(Duration::from_nanos(nanos)).to_string(), text);
        }
    }

    #[test]
    fn counts_know_how_many_they_select() {
        let n = |n| NonZeroU64::new(n).unwrap();
        for (first, last, step, text, selected) in [
            (3, Some(3), 1, "3", Some(1)),
            (3, Some(3), 7, "3", Some(1)),
            (3, None, 1, "3+", None),
            (3, Some(7), 1, "3..7", Some(5)),
            (3, Some(7), 2, "3..7+2", Some(3)),
            (3, None, 5, "3+5", None),
        ] {
            let count = Count::new(n(first), last.map(n), n(step)).unwrap();
            assert_eq!(
                (count.to_string().as_str(), count.selected()),
                (text, selected)
            );
        }
        assert_eq!(Count::new(n(4), Some(n(3)), n(1)), None);
    }
}
