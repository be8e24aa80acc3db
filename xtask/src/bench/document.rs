//! doc/benchmarks.md: a part for each of the commands that measure, so that one can be written anew without the others.

use crate::repo;
use anyhow::Context as _;

/// What stands above all parts.
const HEAD: &str = "# Benchmarks\n";
/// What stands below each part.
const END: &str = "<!-- end -->\n";

/// A part of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// `cargo xtask bench override`.
    Override,
    /// `cargo xtask bench backends`.
    Backends,
    /// `cargo xtask bench delay`.
    Delay,
}

impl Part {
    /// What stands above it.
    fn mark(self) -> &'static str {
        match self {
            Self::Override => "<!-- bench override -->\n",
            Self::Backends => "<!-- bench backends -->\n",
            Self::Delay => "<!-- bench delay -->\n",
        }
    }
}

/// Writes one part of doc/benchmarks.md.
///
/// # Errors
/// When the page cannot be read or written, or is not one of ours.
pub(super) fn write(part: Part, text: &str) -> anyhow::Result<()> {
    let path = repo::root().join("doc/benchmarks.md");
    let page = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => HEAD.to_owned(),
        page => page.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let page = replaced(&page, part, text).with_context(|| format!("in {}", path.display()))?;
    std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}

/// The page with this text as that part; at its end where it has none yet.
fn replaced(page: &str, part: Part, text: &str) -> anyhow::Result<String> {
    let (before, after) = match page.split_once(part.mark()) {
        None => (format!("{page}\n"), ""),
        Some((before, rest)) => {
            let (_, after) = rest
                .split_once(END)
                .with_context(|| format!("no {} after {}", END.trim(), part.mark().trim()))?;
            (before.to_owned(), after)
        }
    };
    Ok(format!("{before}{}{text}{END}{after}", part.mark()))
}

#[cfg(test)]
mod tests {
    use super::{HEAD, Part, replaced};
    use crate::repo;

    #[test]
    fn a_part_is_replaced_and_the_others_are_left() {
        let one = replaced(HEAD, Part::Override, "one\n").unwrap();
        assert_eq!(
            one,
            "# Benchmarks\n\n<!-- bench override -->\none\n<!-- end -->\n"
        );
        let both = replaced(&one, Part::Backends, "two\n").unwrap();
        let anew = replaced(&both, Part::Override, "three\n").unwrap();
        assert_eq!(
            anew,
            "# Benchmarks\n\n<!-- bench override -->\nthree\n<!-- end -->\n\n\
             <!-- bench backends -->\ntwo\n<!-- end -->\n"
        );
        assert_eq!(replaced(&anew, Part::Backends, "two\n").unwrap(), anew);
    }

    #[test]
    fn a_part_without_an_end_is_an_error() {
        assert!(replaced("<!-- bench override -->\nx\n", Part::Override, "").is_err());
    }

    #[test]
    fn the_page_has_both_parts() {
        let page = std::fs::read_to_string(repo::root().join("doc/benchmarks.md")).unwrap();
        for part in [Part::Override, Part::Backends] {
            assert_eq!(page.matches(part.mark()).count(), 1, "{part:?}");
            assert!(replaced(&page, part, "").is_ok());
        }
    }
}
