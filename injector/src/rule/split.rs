//! Several rules in one text, as in `FINJECT_RULES='a;b'`.

use super::parse::{parens_length, regex_length};

/// The rules of a text, separated by `;` outside of `( )` and of regular
/// expressions; each without white space at its ends, empty ones left out.
pub fn split(text: &str) -> Vec<&str> {
    split_at(text).into_iter().map(|(_, rule)| rule).collect()
}

/// The same with the byte offset of each.
pub(crate) fn split_at(text: &str) -> Vec<(usize, &str)> {
    let mut rules = Vec::new();
    let mut start = 0;
    while start <= text.len() {
        let rest = &text[start..];
        let end = start + rule_length(rest);
        let rule = &text[start..end];
        let indent = rule.len() - rule.trim_start().len();
        if !rule.trim().is_empty() {
            rules.push((start + indent, rule.trim()));
        }
        start = end + 1;
    }
    rules
}

/// The length in bytes of the first rule, up to its `;` or the end.
fn rule_length(text: &str) -> usize {
    let mut at = 0;
    let mut previous = ',';
    let mut in_chain = false;
    while let Some(c) = text[at..].chars().next() {
        // What is not closed is a mistake of its own, and hides no `;`.
        let closed = match c {
            '(' if !in_chain => parens_length(&text[at..]),
            '/' if !in_chain && matches!(previous, ',' | '!') => regex_length(&text[at..]),
            _ => None,
        };
        if c == ';' {
            return at;
        }
        in_chain |= c == '=';
        if !c.is_whitespace() {
            previous = c;
        }
        at += closed.unwrap_or(c.len_utf8());
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_inside_values_do_not_split() {
        for (text, rules) in [
            ("", &[][..]),
            (" ; ;", &[]),
            ("fsync=EIO", &["fsync=EIO"]),
            ("fsync=EIO@3; read=EIO ;", &["fsync=EIO@3", "read=EIO"]),
            (
                "read(path=\"a;b\")=EIO;fsync=EIO",
                &["read(path=\"a;b\")=EIO", "fsync=EIO"],
            ),
            ("read(path=a;b)=EIO;x", &["read(path=a;b)=EIO", "x"]),
            (
                "read(path=\"a\\\";\")=EIO;x",
                &["read(path=\"a\\\";\")=EIO", "x"],
            ),
            ("/a;b/,!/c;/=EIO;x", &["/a;b/,!/c;/=EIO", "x"]),
            ("read(path=/a=EIO;x=EIO", &["read(path=/a=EIO", "x=EIO"]),
            ("fsync, /a;b/=EIO", &["fsync, /a;b/=EIO"]),
            // A regular expression stands where a call's name could.
            ("fsync/a;b/=EIO", &["fsync/a", "b/=EIO"]),
            ("fsync=EIO@3,/a;b/", &["fsync=EIO@3,/a", "b/"]),
            ("fsync=EIO(a;b)", &["fsync=EIO(a", "b)"]),
            ("fsync==EIO(a;b)", &["fsync==EIO(a", "b)"]),
        ] {
            assert_eq!(split(text), rules, "{text}");
        }
    }
}
