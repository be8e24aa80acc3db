//! One loop under one tool, which is started for it. A figure counts only where every call ended as it should and finject
//! counted each of them.

use super::super::row::{Fires, Tool, Unit};
use super::super::tool;
use super::super::victim::{self, Repeats, Victim};
use super::place::{Kind, Place, placement};

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// Enough to see whether it works.
    Quick,
    /// Enough for figures.
    Full,
}

/// Whether a tool gets at a call that no rule names: attached, it sees all of them.
fn sees_others(tool: Tool) -> bool {
    matches!(
        tool,
        Tool::RawAttached | Tool::TraceAttached | Tool::StraceAttach
    )
}

/// Calls that nobody gets at are a hundred times as fast. strace's rule ends at 65535 calls of a thread.
fn repeats(place: Place, tool: Tool, effort: Effort) -> Repeats {
    let is_seen = tool != Tool::Bare && (place.kind != Kind::Other || sees_others(tool));
    let calls = match (effort, is_seen) {
        (Effort::Full, true) => 800,
        (Effort::Full, false) => 24_000,
        (Effort::Quick, true) => 80,
        (Effort::Quick, false) => 2400,
    };
    Repeats {
        rounds: 11,
        calls: calls / place.threads,
        threads: place.threads,
    }
}

/// The errno with which every call of the loop has to fail; 0 for none.
fn errno(place: Place, tool: Tool) -> i32 {
    if place.kind.aim().fires == Fires::Always && tool != Tool::Bare {
        libc::EIO
    } else {
        place.kind.call().own_errno()
    }
}

/// What a call takes, in nanoseconds: the time of all threads' calls over their number.
pub(super) fn call(
    place: Place,
    tool: Tool,
    effort: Effort,
    processor: usize,
) -> anyhow::Result<f64> {
    let (aim, placement) = (place.kind.aim(), placement(place.pinned, processor));
    let repeats = repeats(place, tool, effort);
    let mut words = placement.words();
    words.extend(tool::launcher(tool, aim));
    words.extend(victim::bench_call(
        place.kind.call(),
        Unit::Nanoseconds,
        repeats,
    ));
    let mut victim = Victim::start(tool::command_of(words)?)?;
    let mut attached = tool::spawn(tool, aim, &[victim.id()], placement)?;
    if let Some(attached) = &mut attached {
        attached.wait_until_armed()?;
    }
    victim.release()?;
    let text = victim.finish()?;
    let figure = victim::read(&text, repeats, errno(place, tool))?;
    let counted = match attached {
        Some(attached) => attached.finish()?,
        None => tool::launched_count(tool, &text)?,
    };
    let matched = match place.kind {
        Kind::Passes | Kind::Fires => u64::from(repeats.total()),
        Kind::Other => 0,
    };
    anyhow::ensure!(
        counted.is_none_or(|counted| counted == matched),
        "finject counted {counted:?} calls, not {matched}"
    );
    Ok(figure.median)
}

#[cfg(test)]
mod tests {
    use super::super::place::{Kind, Place, TOOLS};
    use super::{Effort, Tool, errno, repeats};

    #[test]
    fn no_loop_reaches_the_count_at_which_straces_rule_fires() {
        for place in Place::all() {
            for tool in [Tool::StraceSeccomp, Tool::StraceAttach] {
                let repeats = repeats(place, tool, Effort::Full);
                assert!(place.kind == Kind::Other || repeats.rounds * repeats.calls < 65_535);
            }
        }
    }

    #[test]
    fn calls_fail_by_the_rule_or_by_themselves() {
        let place = Place {
            kind: Kind::Fires,
            threads: 1,
            pinned: true,
        };
        let passes = Place {
            kind: Kind::Passes,
            ..place
        };
        let other = Place {
            kind: Kind::Other,
            ..place
        };
        for tool in TOOLS {
            let by_rule = if tool == Tool::Bare {
                libc::EBADF
            } else {
                libc::EIO
            };
            assert_eq!(errno(place, tool), by_rule);
            assert_eq!(errno(passes, tool), libc::EBADF);
            assert_eq!(errno(other, tool), 0);
        }
    }
}
