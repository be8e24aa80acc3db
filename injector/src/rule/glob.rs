//! Patterns of file names: `*` and `?` within a component, `**` across, `[..]`, `{a,b}`, and `\`
//! before a character that is meant as itself. One without `/` at its start matches the end of a
//! path. They are matched as injector-common's [`WireGlob`], everywhere.

use injector_common::WireGlob;
use injector_common::glob::{
    BEGINS_ANYWHERE, BEGINS_AT_ROOT, TOKEN_ANY, TOKEN_CLASS, TOKEN_STAR, WireAlternative, WirePart,
};
use injector_common::limits::{
    MAX_GLOB_ALTERNATIVES, MAX_GLOB_CLASSES, MAX_GLOB_PARTS, MAX_GLOB_TOKENS,
};

/// A pattern that has been checked.
#[derive(Clone, Debug)]
pub struct Glob {
    text: String,
    /// Its alternatives, at least one.
    alternatives: Vec<Alternative>,
}

/// One alternative of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Alternative {
    is_absolute: bool,
    /// From the root down.
    names: Vec<Name>,
}

/// What one component of a path has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    /// That, byte by byte.
    Of(Vec<Token>),
    /// Any number of components.
    Across,
}

/// One character of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    Any,
    Star,
    /// A bit for each byte.
    Class([u64; 4]),
    /// A component's end.
    Slash,
}

/// How much of something a pattern has, and how much it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has {number} {what}; at most {limit} can be matched")]
pub struct TooLarge {
    /// Of what.
    pub what: &'static str,
    /// How many it has.
    pub number: usize,
    /// How many it may have.
    pub limit: usize,
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

/// More alternatives than any pattern needs, and more than a backend takes.
const MOST: usize = 256;

impl Glob {
    /// Takes a pattern.
    ///
    /// # Errors
    /// In words, where it is none, or one that no path can match.
    pub fn new(text: impl Into<String>) -> Result<Self, String> {
        let text = text.into();
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        let alternatives = expand(&text)?;
        Ok(Self {
            alternatives: alternatives
                .into_iter()
                .map(|tokens| Alternative::of(&tokens))
                .collect::<Result<_, _>>()?,
            text,
        })
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

    /// Whether it matches the ends of paths, and so says nothing of any one directory.
    pub fn begins_anywhere(&self) -> bool {
        let mut all = self.alternatives.iter();
        all.all(|alternative| !alternative.is_absolute)
    }

    /// As whoever decides takes it.
    ///
    /// # Errors
    /// Where it has more of something than can be matched.
    pub fn wire(&self) -> Result<WireGlob, TooLarge> {
        let mut wire = WireGlob::NONE;
        let (mut tokens, mut parts, mut classes) = (Vec::new(), Vec::new(), Vec::new());
        let mut alternatives = Vec::new();
        for alternative in &self.alternatives {
            let first = parts.len();
            for name in alternative.names.iter().rev() {
                let at = u16::try_from(tokens.len()).unwrap_or(u16::MAX);
                let len = match name {
                    Name::Across => WirePart::ACROSS,
                    Name::Of(name) => {
                        tokens.extend(name.iter().map(|token| token.wire(&mut classes)));
                        u16::try_from(name.len()).unwrap_or(u16::MAX)
                    }
                };
                parts.push(WirePart { at, len });
            }
            let plain = alternative.names.iter().take_while(|name| name.is_plain());
            let (begins, literal) = if alternative.is_absolute {
                (BEGINS_AT_ROOT, plain.count())
            } else {
                (BEGINS_ANYWHERE, 0)
            };
            let number = |of: usize| u16::try_from(of).unwrap_or(u16::MAX);
            alternatives.push(WireAlternative {
                first: number(first),
                parts: number(parts.len() - first),
                literal: number(literal),
                begins,
            });
        }
        fill(&mut wire.tokens, &tokens, "characters")?;
        fill(&mut wire.parts, &parts, "names")?;
        fill(&mut wire.classes, &classes, "different classes `[ ]`")?;
        fill(&mut wire.alternatives, &alternatives, "alternatives")?;
        Ok(wire)
    }
}

const _: () = assert!(MAX_GLOB_TOKENS < u16::MAX as usize);
const _: () = assert!(MAX_GLOB_PARTS < u16::MAX as usize);
const _: () = assert!(MAX_GLOB_CLASSES < 0x100 && MAX_GLOB_ALTERNATIVES < MOST);

fn fill<T: Copy>(room: &mut [T], values: &[T], what: &'static str) -> Result<(), TooLarge> {
    let (number, limit) = (values.len(), room.len());
    let too_large = TooLarge {
        what,
        number,
        limit,
    };
    let used = room.get_mut(..number).ok_or(too_large)?;
    used.copy_from_slice(values);
    Ok(())
}

impl Token {
    /// As whoever decides takes it; a class finds its place among those that there are.
    fn wire(self, classes: &mut Vec<[u64; 4]>) -> u16 {
        match self {
            Self::Byte(byte) => byte.into(),
            // No name holds one, and so no path has a name that does.
            Self::Slash => b'/'.into(),
            Self::Any => TOKEN_ANY,
            Self::Star => TOKEN_STAR,
            Self::Class(class) => {
                let known = classes.iter().position(|known| *known == class);
                let number = known.unwrap_or_else(|| {
                    classes.push(class);
                    classes.len() - 1
                });
                TOKEN_CLASS.saturating_add(u16::try_from(number).unwrap_or(u16::MAX))
            }
        }
    }
}

impl Name {
    fn of(tokens: &[Token]) -> Result<Self, String> {
        if tokens == [Token::Star, Token::Star] {
            return Ok(Self::Across);
        }
        let is = |text: &[u8]| {
            tokens
                .iter()
                .copied()
                .eq(text.iter().map(|b| Token::Byte(*b)))
        };
        match tokens {
            [] => Err("two `/` stand side by side: no path has an empty name".to_owned()),
            _ if is(b".") || is(b"..") => Err(
                "a path is matched as the kernel knows the file, without `.` and `..`".to_owned(),
            ),
            _ => {
                let mut name = tokens.to_vec();
                name.dedup_by(|one, other| *one == Token::Star && *other == Token::Star);
                Ok(Self::Of(name))
            }
        }
    }

    fn is_plain(&self) -> bool {
        match self {
            Self::Of(name) => name.iter().all(|token| matches!(token, Token::Byte(_))),
            Self::Across => false,
        }
    }
}

impl Alternative {
    fn of(tokens: &[Token]) -> Result<Self, String> {
        let (is_absolute, names) = match tokens {
            [Token::Slash, names @ ..] => (true, names),
            names => (false, names),
        };
        if names.is_empty() && is_absolute {
            return Ok(Self {
                is_absolute,
                names: Vec::new(),
            });
        }
        match names {
            [] => return Err("one of its alternatives is empty".to_owned()),
            [.., Token::Slash] => {
                return Err("it ends with `/`: leave that out for the directory itself, or write `/**` for all that is in it".to_owned());
            }
            _ => {}
        }
        let names = names.split(|token| *token == Token::Slash);
        Ok(Self {
            is_absolute,
            names: names.map(Name::of).collect::<Result<_, _>>()?,
        })
    }
}

/// Alternatives, each as its characters.
type Several = Vec<Vec<Token>>;

/// The alternatives that a pattern's `{ }` make.
fn expand(text: &str) -> Result<Several, String> {
    let mut all: Several = vec![Vec::new()];
    let mut rest = text.chars();
    // Those of the braces that are open: what stood before them, and what they have made so far.
    let mut open: Option<(Several, Several)> = None;
    while let Some(c) = rest.next() {
        let tokens: Vec<Token> = match c {
            '{' if open.is_some() => return Err("one `{ }` stands in another".to_owned()),
            '{' => {
                open = Some((std::mem::replace(&mut all, vec![Vec::new()]), Vec::new()));
                continue;
            }
            ',' if let Some((_, made)) = &mut open => {
                made.append(&mut std::mem::replace(&mut all, vec![Vec::new()]));
                continue;
            }
            '}' => {
                let (before, mut made) = open.take().ok_or("a `}` closes nothing")?;
                made.append(&mut all);
                let joined = before.iter().flat_map(|before| {
                    made.iter()
                        .map(|made| [before.as_slice(), made.as_slice()].concat())
                });
                all = joined.take(MOST + 1).collect();
                if all.len() > MOST {
                    return Err(format!("its `{{ }}` make more than {MOST} alternatives"));
                }
                continue;
            }
            '\\' => {
                let meant = rest
                    .next()
                    .ok_or("a `\\` at its end stands before nothing")?;
                bytes_of(meant)
            }
            '*' => vec![Token::Star],
            '?' => vec![Token::Any],
            '/' => vec![Token::Slash],
            '[' => vec![Token::Class(class(&mut rest)?)],
            c => bytes_of(c),
        };
        for one in &mut all {
            one.extend_from_slice(&tokens);
        }
    }
    if open.is_some() {
        return Err("a `{` is not closed".to_owned());
    }
    Ok(all)
}

fn bytes_of(c: char) -> Vec<Token> {
    let mut room = [0; 4];
    c.encode_utf8(&mut room).bytes().map(Token::Byte).collect()
}

/// The bytes of a class whose `[` has been read.
fn class(rest: &mut std::str::Chars<'_>) -> Result<[u64; 4], String> {
    let unclosed = || "a `[` is not closed".to_owned();
    let mut members: Vec<char> = Vec::new();
    let mut class = [0_u64; 4];
    let mut c = rest.next().ok_or_else(unclosed)?;
    let is_negated = matches!(c, '!' | '^');
    if is_negated {
        c = rest.next().ok_or_else(unclosed)?;
    }
    // The first character is a member, whatever it is.
    loop {
        members.push(c);
        c = rest.next().ok_or_else(unclosed)?;
        if c == ']' {
            break;
        }
    }
    let mut at = 0;
    while let Some(&from) = members.get(at) {
        let to = match members.get(at + 1..at + 3) {
            Some(&['-', to]) => {
                at += 2;
                to
            }
            _ => from,
        };
        at += 1;
        if !from.is_ascii() || !to.is_ascii() {
            return Err(
                "in `[ ]` stand ASCII characters only: names are compared byte by byte".to_owned(),
            );
        }
        if from > to {
            return Err(format!("`{from}-{to}` in `[ ]` runs backwards"));
        }
        for byte in from as u8..=to as u8 {
            class[usize::from(byte >> 6)] |= 1 << (byte & 63);
        }
    }
    if is_negated {
        class = class.map(|word| !word);
    }
    Ok(class)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether a whole path matches by its names.
    fn matches(glob: &WireGlob, path: &str) -> bool {
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        glob.alternatives.iter().any(|&alternative| {
            let mut states = glob.begin(alternative);
            let mut is_met = false;
            for name in names.iter().rev() {
                is_met |= alternative.is_through(states);
                states = glob.step(alternative, states, name.as_bytes());
            }
            let is_through = alternative.is_through(states);
            match alternative.begins {
                BEGINS_AT_ROOT => is_through,
                BEGINS_ANYWHERE => is_met || is_through,
                _ => false,
            }
        })
    }

    fn wire(text: &str) -> WireGlob {
        Glob::new(text).unwrap().wire().unwrap()
    }

    #[test]
    fn patterns_match_as_the_reference_says() {
        for (glob, path, expected) in [
            ("/data/wal/**", "/data/wal/0001", true),
            ("/data/wal/**", "/data/wal/a/b/c", true),
            ("/data/wal/**", "/data/wal", false),
            ("/data/wal/**", "/data/walrus", false),
            ("*.db", "/var/lib/x.db", true),
            ("*.db", "/var/lib/x.db/y", false),
            ("wal/*", "/data/wal/0001", true),
            ("wal/*", "/data/mywal/0001", false),
            ("*/CURRENT", "/data/db/CURRENT", true),
            ("*/CURRENT", "/CURRENT", false),
            ("/a/*", "/a/b/c", false),
            ("/a/?", "/a/b", true),
            ("/a/?", "/a/bc", false),
            ("/a/[bc]", "/a/c", true),
            ("/a/[!bc]", "/a/c", false),
            ("/a/[^bc]", "/a/d", true),
            ("/a/[]-]", "/a/-", true),
            ("/a/[]-]", "/a/]", true),
            ("/a/[0-9a-f]*", "/a/7z", true),
            ("/a/{b,c}/d", "/a/c/d", true),
            ("/a/{b,c/d}", "/a/c/d", true),
            ("/a/{,b}c", "/a/c", true),
            ("{/a,/b}/c", "/b/c", true),
            ("/a/\\*", "/a/*", true),
            ("/a/\\*", "/a/b", false),
            ("/**/c", "/a/b/c", true),
            ("/**/c", "/c", true),
            ("/a/**/b/**/c", "/a/b/c", true),
            ("/a/**/b/**/c", "/a/x/b/y/z/c", true),
            ("/a/**/b/**/c", "/a/x/c", false),
            ("**", "/a", true),
            ("/**", "/a/b", true),
            ("/", "/", true),
            ("/", "/a", false),
            ("/*a*b*c", "/xaxbxbxc", true),
            ("/*a*b*c", "/xaxcxbx", false),
        ] {
            assert_eq!(matches(&wire(glob), path), expected, "{glob} {path}");
        }
        let any = wire("/*");
        assert_eq!(any.step(any.alternatives[0], 1, b"\xff\xfe"), 2);
    }

    fn glob() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => "[ab]{1,2}",
            2 => Just("*".to_owned()),
            1 => Just("?".to_owned()),
            1 => Just("[ab]".to_owned()),
            // Its classes may be a slash.
            1 => Just("[!/a]".to_owned()),
            1 => Just("{a,b*}".to_owned()),
            1 => Just("\\*".to_owned()),
        ];
        let name = prop_oneof![
            5 => prop::collection::vec(piece, 1..4).prop_map(|pieces| pieces.concat()),
            1 => Just("**".to_owned()),
        ];
        let names = prop::collection::vec(name, 1..5);
        (any::<bool>(), names).prop_map(|(is_absolute, names)| {
            let start = if is_absolute { "/" } else { "" };
            format!("{start}{}", names.join("/"))
        })
    }

    proptest! {
        /// Another implementation of the same language, of whole paths.
        #[test]
        fn patterns_match_as_globset_does(glob in glob(), path in "(/[ab*]{1,4}){1,5}") {
            // It takes two stars within a name for something of its own.
            prop_assume!(!glob.split('/').any(|name| name != "**" && name.contains("**")));
            let anchored = if glob.starts_with('/') { glob.clone() } else { format!("**/{glob}") };
            let reference = globset::GlobBuilder::new(&anchored)
                .literal_separator(true)
                .backslash_escape(true)
                .empty_alternates(true)
                .build()
                .unwrap()
                .compile_matcher();
            let own = Glob::new(&*glob).unwrap().wire();
            prop_assume!(own.is_ok());
            // Before the first slash it sees a name, an empty one.
            let seen = if glob.starts_with('/') { &path } else { &path[1..] };
            prop_assert_eq!(matches(&own.unwrap(), &path), reference.is_match(seen), "{} {}", glob, path);
        }
    }

    #[test]
    fn two_are_the_same_when_they_are_written_the_same() {
        let glob = |text| Glob::new(text).unwrap();
        assert_eq!(glob("a/*"), glob("a/*"));
        assert_ne!(glob("a/*"), glob("a/?*"));
    }

    #[test]
    fn what_no_path_can_match_is_none() {
        for (text, words) in [
            ("", "empty"),
            ("/a/", "ends with `/`"),
            ("/a//b", "side by side"),
            ("/a/../b", "without `.` and `..`"),
            ("./a", "without `.` and `..`"),
            ("[a", "`[` is not closed"),
            ("[]", "`[` is not closed"),
            ("[b-a]", "`b-a` in `[ ]` runs backwards"),
            ("[é]", "ASCII"),
            ("a}", "`}` closes nothing"),
            ("{a", "`{` is not closed"),
            ("{a,{b}}", "stands in another"),
            ("{,a}", "alternatives is empty"),
            ("a\\", "before nothing"),
            (&"{a,b}".repeat(9), "more than 256 alternatives"),
        ] {
            let error = Glob::new(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn plain_names_are_told_from_patterns() {
        for (glob, is_plain, directory) in [
            ("/a/b", true, 1),
            ("/a/b\\*", true, 1),
            ("/a/*/c", false, 1),
            ("/a/\\{x\\}/**", false, 2),
            ("/*", false, 0),
            ("/", true, 0),
            ("a/b", false, 0),
        ] {
            let alternative = wire(glob).alternatives[0];
            assert_eq!(alternative.is_plain(), is_plain, "{glob}");
            assert_eq!(alternative.directory(), directory, "{glob}");
        }
    }

    #[test]
    fn what_is_too_large_says_how_much_it_may_have() {
        let many = (0..9).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let classes = "[a][b][c][d][e]".to_owned();
        for (text, what, number, limit) in [
            ("a".repeat(513), "characters", 513, MAX_GLOB_TOKENS),
            ("a/".repeat(32) + "a", "names", 33, MAX_GLOB_PARTS),
            (classes, "different classes `[ ]`", 5, MAX_GLOB_CLASSES),
            (
                format!("{{{many}}}"),
                "alternatives",
                9,
                MAX_GLOB_ALTERNATIVES,
            ),
        ] {
            let too_large = TooLarge {
                what,
                number,
                limit,
            };
            assert_eq!(Glob::new(text).unwrap().wire(), Err(too_large));
        }
    }

    #[test]
    fn what_is_escaped_matches_itself() {
        for text in ["/a*b", "/[x]", "/{a,b}", "/back\\slash", "/plain"] {
            assert!(matches(&wire(&Glob::escape(text)), text), "{text}");
        }
    }
}
