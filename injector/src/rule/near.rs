//! Finding what was probably meant: names at a small edit distance, and names that begin with
//! what was written.

/// At most three candidates near `text`, nearest first.
pub(crate) fn near<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = text.to_lowercase();
    let limit = (wanted.chars().count() / 3).clamp(1, 3);
    let mut found: Vec<(usize, &str)> = candidates
        .into_iter()
        .filter_map(|candidate| {
            let lower = candidate.to_lowercase();
            let begins = wanted.len() >= 3 && lower.starts_with(&wanted);
            let distance = strsim::damerau_levenshtein(&wanted, &lower);
            match distance {
                // The kernel's name for what the C library names without the suffix.
                _ if lower.strip_suffix("64") == Some(&wanted) => Some((0, candidate)),
                _ if begins => Some((distance.min(1), candidate)),
                _ if distance <= limit => Some((distance, candidate)),
                _ => None,
            }
        })
        .collect();
    found.sort_by_key(|(distance, candidate)| {
        (
            *distance,
            !candidate.to_lowercase().starts_with(&wanted),
            candidate.len(),
            *candidate,
        )
    });
    found.dedup_by_key(|(_, candidate)| *candidate);
    let best = found.first().map_or(0, |(distance, _)| *distance);
    found
        .into_iter()
        .filter(|(d, _)| *d <= best + 2)
        .take(3)
        .map(|(_, c)| c)
        .collect()
}

/// `a`, `b` or `c`, each in back quotes.
pub(crate) fn alternatives(names: &[impl AsRef<str>]) -> Option<String> {
    let quoted: Vec<String> = names
        .iter()
        .map(|name| format!("`{}`", name.as_ref()))
        .collect();
    match quoted.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        [most @ .., last] => Some(format!("{} or {last}", most.join(", "))),
    }
}

/// The question that a help line asks.
pub(crate) fn did_you_mean<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    alternatives(&near(text, candidates)).map(|names| format!("did you mean {names}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_come_before_beginnings() {
        for (text, candidates, expected) in [
            ("EOI", &["EIO", "EPERM", "E2BIG"][..], &["EIO"][..]),
            ("eio", &["EIO", "EPERM"], &["EIO"]),
            (
                "pwrite",
                &["pwrite64", "pwritev", "write", "pwritev2"],
                &["pwrite64"],
            ),
            ("zzzz", &["read", "write"], &[]),
            ("fsnc", &["fsync", "sync", "read"], &["fsync"]),
            // As far away; the one that begins so is meant.
            ("sync", &["fsync", "syncfs"], &["syncfs"]),
        ] {
            let found = near(text, candidates.iter().copied());
            assert_eq!(found.first(), expected.first(), "{text}: {found:?}");
        }
    }

    #[test]
    fn the_nearest_come_first() {
        let names = [
            "fsync",
            "fdatasync",
            "sync_file_range",
            "pwrite64",
            "pwritev",
            "read",
        ];
        for (text, expected) in [
            ("fsycn", &["fsync"][..]),
            ("FSYNC", &["fsync"]),
            // What the kernel calls with a suffix is nearer than any misspelling.
            ("pwrite", &["pwrite64", "pwritev"]),
            // Three letters are enough of a beginning, two are not.
            ("fda", &["fdatasync"]),
            ("fd", &[]),
            ("syn", &["sync_file_range"]),
            ("raed", &["read"]),
            ("xyzzy", &[]),
        ] {
            assert_eq!(near(text, names), expected, "{text}");
        }
    }
}
