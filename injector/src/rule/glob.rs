//! Patterns of file names: `*` and `?` within a component, `**` across, `[..]`, `{a,b}`, and `\`
//! before a character that is meant as itself. One without `/` at its start matches the end of a
//! path.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

/// A pattern that has been checked.
#[derive(Clone, Debug)]
pub struct Glob {
    text: String,
    compiled: globset::GlobMatcher,
}

/// Two patterns are the same when they are written the same.
impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Glob {}

/// Characters that mean something in a pattern.
const SPECIAL: &[char] = &['*', '?', '[', ']', '{', '}', '\\'];

impl Glob {
    /// Takes a pattern.
    ///
    /// # Errors
    /// In words, where it is none.
    pub fn new(text: impl Into<String>) -> Result<Self, String> {
        let text = text.into();
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        let anchored = if text.starts_with('/') {
            text.clone()
        } else {
            format!("**/{text}")
        };
        let compiled = globset::GlobBuilder::new(&anchored)
            .literal_separator(true)
            .backslash_escape(true)
            .empty_alternates(true)
            .build()
            .map_err(|error| words(error.kind()))?
            .compile_matcher();
        Ok(Self { text, compiled })
    }

    /// A pattern that matches that text only.
    pub fn escape(text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            if SPECIAL.contains(&c) {
                out.push('\\');
            }
            out.push(c);
        }
        out
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a whole path matches, given as the bytes the kernel has.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.compiled.is_match(Path::new(OsStr::from_bytes(path)))
    }

    /// The file name that is meant, where the pattern is one absolute path without wildcards.
    pub fn literal(&self) -> Option<String> {
        if !self.text.starts_with('/') {
            return None;
        }
        unescape(&self.text)
    }

    /// The directory at the pattern's start that holds no wildcard, without a final `/` (the root
    /// is empty); `None` for a pattern that starts anywhere.
    pub fn literal_directory(&self) -> Option<String> {
        if !self.text.starts_with('/') {
            return None;
        }
        let mut directory = String::new();
        let components: Vec<&str> = self.text[1..].split('/').collect();
        let (_, parents) = components.split_last()?;
        for component in parents {
            let Some(name) = unescape(component) else {
                break;
            };
            directory.push('/');
            directory.push_str(&name);
        }
        Some(directory)
    }
}

/// The text without escapes; `None` where something in it is special.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(chars.next()?),
            c if SPECIAL.contains(&c) => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

fn words(kind: &globset::ErrorKind) -> String {
    use globset::ErrorKind as Kind;
    match kind {
        Kind::UnclosedClass => "a `[` is not closed".to_owned(),
        Kind::InvalidRange(from, to) => format!("`{from}-{to}` in `[ ]` runs backwards"),
        Kind::UnopenedAlternates => "a `}` closes nothing".to_owned(),
        Kind::UnclosedAlternates => "a `{` is not closed".to_owned(),
        Kind::NestedAlternates => "one `{ }` stands in another".to_owned(),
        Kind::DanglingEscape => "a `\\` at its end stands before nothing".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_the_reference_says() {
        for (glob, path, expected) in [
            ("/data/wal/**", "/data/wal/0001", true),
            ("/data/wal/**", "/data/wal/a/b/c", true),
            ("/data/wal/**", "/data/walrus", false),
            ("*.db", "/var/lib/x.db", true),
            ("*.db", "/var/lib/x.db/y", false),
            ("wal/*", "/data/wal/0001", true),
            ("wal/*", "/data/mywal/0001", false),
            ("*/CURRENT", "/data/db/CURRENT", true),
            ("/a/*", "/a/b/c", false),
            ("/a/?", "/a/b", true),
            ("/a/[bc]", "/a/c", true),
            ("/a/[!bc]", "/a/c", false),
            ("/a/{b,c}/d", "/a/c/d", true),
            ("/a/\\*", "/a/*", true),
            ("/a/\\*", "/a/b", false),
            ("/**/c", "/a/b/c", true),
        ] {
            assert_eq!(
                Glob::new(glob).unwrap().matches(path.as_bytes()),
                expected,
                "{glob} {path}"
            );
        }
        assert!(Glob::new("/a/*").unwrap().matches(b"/a/\xff\xfe"));
    }

    #[test]
    fn two_are_the_same_when_they_are_written_the_same() {
        let glob = |text| Glob::new(text).unwrap();
        assert_eq!(glob("a/*"), glob("a/*"));
        assert_ne!(glob("a/*"), glob("a/?*"));
    }

    #[test]
    fn literals_are_told_from_patterns() {
        for (glob, literal, directory) in [
            ("/a/b", Some("/a/b"), Some("/a")),
            ("/a/b\\*", Some("/a/b*"), Some("/a")),
            ("/a/*/c", None, Some("/a")),
            ("/a/\\{x\\}/**", None, Some("/a/{x}")),
            ("/*", None, Some("")),
            ("a/b", None, None),
        ] {
            let glob = Glob::new(glob).unwrap();
            assert_eq!(glob.literal().as_deref(), literal, "{}", glob.as_str());
            assert_eq!(
                glob.literal_directory().as_deref(),
                directory,
                "{}",
                glob.as_str()
            );
        }
    }

    #[test]
    fn what_is_escaped_matches_itself() {
        for text in ["/a*b", "/[x]", "/{a,b}", "/back\\slash", "/plain"] {
            let glob = Glob::new(Glob::escape(text)).unwrap();
            assert!(glob.matches(text.as_bytes()), "{text}");
            assert_eq!(glob.literal().as_deref(), Some(text));
        }
    }
}
