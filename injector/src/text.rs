//! Untrusted bytes on their way to a terminal, and numbers as people read them.

/// A name that a program chose (a path, a comm), with control characters made visible, so that it
/// can neither move the cursor nor forge a line.
pub fn escaped(name: &str) -> String {
    name.chars()
        .flat_map(|c| {
            let bidi = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if c.is_control() || bidi {
                c.escape_unicode().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect()
}

/// Nanoseconds as seconds with three decimals.
pub fn seconds(nanoseconds: u64) -> String {
    format!(
        "{}.{:03}",
        nanoseconds / 1_000_000_000,
        nanoseconds / 1_000_000 % 1000
    )
}

/// At most so many characters, with an ellipsis in place of what does not fit.
pub fn clipped(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    kept + "…"
}

/// `1 process`, `2 processes`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// The first dozen of a list, and how many more there are.
pub fn some_of(items: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 12;
    let items: Vec<String> = items.collect();
    let shown = items
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match items.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The message of an error and of all that caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_move_the_cursor() {
        assert_eq!(escaped("redis-server"), "redis-server");
        assert_eq!(escaped("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\u{a}");
        assert_eq!(escaped("\u{202e}txt"), "\\u{202e}txt");
    }

    #[test]
    fn long_texts_are_clipped() {
        assert_eq!(clipped("four", 4), "four");
        assert_eq!(clipped("fünf!", 4), "fün…");
    }

    #[test]
    fn long_lists_are_cut() {
        let list = |n: u32| some_of((1..=n).map(|i| i.to_string()));
        assert_eq!(list(2), "1, 2");
        assert!(list(12).ends_with("11, 12"));
        assert!(list(14).ends_with("11, 12 and 2 more"));
    }

    #[test]
    fn numbers_are_said_as_people_say_them() {
        assert_eq!(seconds(12_345_678_901), "12.345");
        assert_eq!(counted(1, "process", "processes"), "1 process");
        assert_eq!(counted(0, "process", "processes"), "0 processes");
    }
}
