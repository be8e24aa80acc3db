//! What is asked of the backends that decide in user space, and whether it holds. All of it are times, compared within
//! a round.

use super::super::row::Tool;
use super::place::{Kind, Place, Way, placement_label};
use super::timings::Timings;
use super::workload::Job;

/// The most times the bare mechanism's cost.
const OVER_RAW: f64 = 1.3;
/// What two tools that cost the same may differ by where they are timed.
const NOISE: f64 = 1.05;
/// The least share of a program's time that strace has to add for a comparison with it to mean anything.
const TELLING: f64 = 0.05;

/// A ratio, and the most that is asked of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ratio {
    /// As measured.
    pub(super) value: f64,
    /// The most that it may be; nothing is asked where there is none.
    pub(super) most: Option<f64>,
    /// What the bare mechanism alone comes to; none where it is what is compared with.
    pub(super) floor: Option<f64>,
}

impl Ratio {
    /// Whether it is what is asked; none where nothing is.
    pub(super) fn holds(self) -> Option<bool> {
        self.most.map(|most| self.value <= most)
    }

    /// Whether what is asked can be had by this mechanism at all.
    pub(super) fn is_possible(self) -> bool {
        let floor = self.floor.unwrap_or(0.0);
        self.most.is_none_or(|most| floor <= most)
    }
}

/// One line of a table: finject in one way at one place.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// What is measured, in words, a column each.
    pub(super) of: Vec<String>,
    /// The way's name.
    pub(super) way: &'static str,
    /// Without a tool, the bare mechanism, finject, strace: nanoseconds of a call, or seconds of a program.
    pub(super) times: [f64; 4],
    /// finject to the bare mechanism.
    pub(super) over_raw: Ratio,
    /// finject to strace.
    pub(super) over_strace: Ratio,
}

fn times<K: Copy + Ord + std::fmt::Debug>(
    timings: &Timings<K>,
    key: K,
    bare: K,
    way: Way,
) -> anyhow::Result<[f64; 4]> {
    Ok([
        timings.typical(bare, Tool::Bare)?,
        timings.typical(key, way.raw())?,
        timings.typical(key, way.own())?,
        timings.typical(key, way.strace())?,
    ])
}

/// The lines of the loops; none where they were not measured.
///
/// # Errors
/// When one of them was not.
pub(super) fn of_calls(timings: &Timings<Place>) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    if timings.is_empty() {
        return Ok(lines);
    }
    for place in Place::all() {
        for way in Way::ALL {
            let is_matched = place.kind != Kind::Other;
            lines.push(Line {
                of: vec![
                    place.kind.label().to_owned(),
                    place.threads.to_string(),
                    placement_label(place.pinned).to_owned(),
                ],
                way: way.label(),
                times: times(timings, place, place.bare(), way)?,
                over_raw: Ratio {
                    value: timings.ratio(place, way.own(), way.raw())?,
                    most: is_matched.then_some(OVER_RAW),
                    floor: None,
                },
                over_strace: Ratio {
                    value: timings.ratio(place, way.own(), way.strace())?,
                    most: Some(if is_matched {
                        way.share_of_strace()
                    } else {
                        NOISE
                    }),
                    floor: Some(timings.ratio(place, way.raw(), way.strace())?),
                },
            });
        }
    }
    Ok(lines)
}

/// The lines of the programs, whose ratio to strace is of what each adds; none where they were not measured.
///
/// # Errors
/// When one of them was not.
pub(super) fn of_jobs(timings: &Timings<Job>) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    if timings.is_empty() {
        return Ok(lines);
    }
    for job in Job::all() {
        for way in Way::ALL {
            let times = times(timings, job, job, way)?;
            let [bare, _, _, strace] = times;
            let is_telling = strace > bare * (1.0 + TELLING);
            lines.push(Line {
                of: vec![
                    job.label().to_owned(),
                    placement_label(job.pinned).to_owned(),
                ],
                way: way.label(),
                times,
                over_raw: Ratio {
                    value: timings.ratio(job, way.own(), way.raw())?,
                    most: Some(OVER_RAW),
                    floor: None,
                },
                over_strace: Ratio {
                    value: timings.ratio_of_added(job, way.own(), way.strace())?,
                    most: is_telling.then(|| way.share_of_strace()),
                    floor: Some(timings.ratio_of_added(job, way.raw(), way.strace())?),
                },
            });
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::super::place::TOOLS;
    use super::*;

    /// As it might be measured, but for one tool.
    fn typical(tool: Tool) -> f64 {
        match tool {
            Tool::Bare => 100.0,
            Tool::RawNotify | Tool::RawLaunched => 1000.0,
            Tool::Notify | Tool::TraceLaunched => 1200.0,
            Tool::StraceSeccomp => 5000.0,
            Tool::RawAttached => 2000.0,
            Tool::TraceAttached => 2500.0,
            _ => 6000.0,
        }
    }

    fn calls(changed: &[(Tool, f64)]) -> Vec<Line> {
        let mut timings = Timings::default();
        for place in Place::all() {
            for tool in place.tools() {
                let of = |tool: Tool| {
                    let found = changed.iter().find(|(key, _)| *key == tool);
                    found.map_or(typical(tool), |(_, value)| *value)
                };
                timings.add(place, tool, of(tool));
            }
        }
        of_calls(&timings).unwrap()
    }

    fn failing(lines: &[Line]) -> Vec<(&'static str, String, bool)> {
        let mut found = Vec::new();
        for line in lines {
            for (is_raw, ratio) in [(true, line.over_raw), (false, line.over_strace)] {
                if ratio.holds() == Some(false) {
                    found.push((line.way, line.of[0].clone(), is_raw));
                }
            }
        }
        found.dedup();
        found
    }

    #[test]
    fn each_demand_can_fail_and_no_other_then_does() {
        assert!(failing(&calls(&[])).is_empty());
        let matched = ["matched, does not fire", "matched, fires"];
        let all = ["matched, does not fire", "matched, fires", "other"];
        for (tool, value, way, is_raw, kinds) in [
            (
                Tool::RawNotify,
                900.0,
                "notify, launched",
                true,
                &matched[..],
            ),
            (Tool::RawLaunched, 900.0, "ptrace, launched", true, &matched),
            (
                Tool::RawAttached,
                1900.0,
                "ptrace, attached",
                true,
                &matched,
            ),
            (
                Tool::StraceSeccomp,
                3500.0,
                "notify, launched",
                false,
                &matched,
            ),
            (
                Tool::StraceAttach,
                4000.0,
                "ptrace, attached",
                false,
                &matched,
            ),
            (Tool::StraceAttach, 2300.0, "ptrace, attached", false, &all),
        ] {
            let expected: Vec<_> = kinds
                .iter()
                .map(|kind| (way, (*kind).to_owned(), is_raw))
                .collect();
            assert_eq!(failing(&calls(&[(tool, value)])), expected, "{tool:?}");
        }
    }

    #[test]
    fn what_the_bare_mechanism_alone_exceeds_cannot_be_had() {
        let of_strace = |strace: f64| {
            let lines = calls(&[(Tool::StraceAttach, strace)]);
            let line = lines.into_iter().find(|line| {
                line.way == "ptrace, attached" && line.of[0] == "matched, does not fire"
            });
            line.unwrap().over_strace
        };
        // Raw is 2000, finject 2500, and 60 % are asked.
        for (strace, holds, is_possible) in [
            (4200.0, true, true),
            (4100.0, false, true),
            (3400.0, false, true),
            (3300.0, false, false),
        ] {
            let ratio = of_strace(strace);
            assert_eq!(
                (ratio.holds(), ratio.is_possible()),
                (Some(holds), is_possible),
                "{strace}"
            );
        }
        assert!(calls(&[]).iter().all(|line| line.over_raw.is_possible()));
    }

    #[test]
    fn a_program_is_judged_by_what_is_added_to_it() {
        let lines = |strace: f64| {
            let mut timings = Timings::default();
            for job in Job::all() {
                for tool in TOOLS {
                    let time = match tool {
                        Tool::Bare => 100.0,
                        Tool::StraceSeccomp | Tool::StraceAttach => strace,
                        _ => 120.0,
                    };
                    timings.add(job, tool, time);
                }
            }
            of_jobs(&timings).unwrap()
        };
        assert!(failing(&lines(160.0)).is_empty());
        let ways: Vec<_> = failing(&lines(159.0)).iter().map(|found| found.0).collect();
        assert!(
            ways.iter().all(|way| *way == "notify, launched"),
            "{ways:?}"
        );
        assert!(!ways.is_empty());
        // strace adds too little to compare with.
        assert!(failing(&lines(104.0)).is_empty());
        assert!(
            lines(104.0)
                .iter()
                .all(|line| line.over_strace.most.is_none())
        );
    }

    #[test]
    fn nothing_measured_gives_no_lines() {
        assert!(of_calls(&Timings::default()).unwrap().is_empty());
        assert!(of_jobs(&Timings::default()).unwrap().is_empty());
    }
}
