//! User ids of finject's own user namespace as the initial one numbers them (user_namespaces(7)): /proc shows the former,
//! and rules name the latter.

use std::fs;

/// A map of user ids: ranges that begin at a number inside, at a number outside, and their length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users(Vec<[u32; 3]>);

/// What /proc shows of a user that the reader's namespace does not have (sysctl kernel.overflowuid).
const OVERFLOW: u32 = 65_534;

impl Users {
    /// finject's own. Of namespaces within namespaces the kernel tells the innermost step only, which is then taken for
    /// the whole.
    pub fn own() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default())
    }

    fn parse(map: &str) -> Self {
        let range = |line: &str| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse);
            let mut next = || numbers.next()?.ok();
            Some([next()?, next()?, next()?])
        };
        Self(map.lines().filter_map(range).collect())
    }

    /// The number outside; [`None`] for a user that has none.
    pub fn outside(&self, uid: u32) -> Option<u32> {
        let in_range = self.0.iter().find_map(|[inside, outside, length]| {
            let at = uid.checked_sub(*inside).filter(|at| at < length)?;
            outside.checked_add(at)
        });
        // In the initial namespace it is a user like any other.
        let is_all = self
            .0
            .first()
            .is_some_and(|[.., length]| *length == u32::MAX);
        in_range.filter(|_| uid != OVERFLOW || is_all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_their_number_outside() {
        let initial = "         0          0 4294967295\n";
        let rootless = "0 1000 1\n1 100000 65536\n";
        for (map, inside, outside) in [
            (initial, 0, Some(0)),
            (initial, 65_534, Some(65_534)),
            (rootless, 0, Some(1000)),
            (rootless, 1, Some(100_000)),
            (rootless, 65_533, Some(165_532)),
            (rootless, 65_534, None),
            (rootless, 70_000, None),
            ("", 0, None),
        ] {
            assert_eq!(Users::parse(map).outside(inside), outside, "{map} {inside}");
        }
    }
}
