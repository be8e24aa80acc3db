//! Patterns of names against the plainest matcher there is, and what rules ask of files.

#![expect(clippy::unwrap_used, reason = "tests")]

use injector_common::glob::{
    BEGINS_ANYWHERE, BEGINS_AT_ROOT, PATH_IS, PATH_IS_NOT, TOKEN_ANY, TOKEN_CLASS, TOKEN_STAR,
    WireAlternative, WirePart,
};
use injector_common::limits::MAX_PATH_TESTS;
use injector_common::{FileSide, WireGlob, WirePathTest, WireRule, is_about_files};
use proptest::prelude::*;

/// A part of a pattern: characters of a name (`*`, `?`, and `#` for an `a` or a `z`), or any number of names.
type Part = Option<&'static str>;

/// The bits of `a` and `z`.
const CLASS: [u64; 4] = [0, 1 << (b'a' - 64) | 1 << (b'z' - 64), 0, 0];

/// A pattern of one alternative, its parts from the root down.
fn wire(begins: u16, parts: &[Part]) -> WireGlob {
    let mut glob = WireGlob::NONE;
    glob.classes[0] = CLASS;
    let mut tokens = 0;
    for (index, part) in parts.iter().rev().enumerate() {
        let Some(text) = part else {
            glob.parts[index].len = WirePart::ACROSS;
            continue;
        };
        glob.parts[index] = WirePart {
            at: u16::try_from(tokens).unwrap(),
            len: u16::try_from(text.len()).unwrap(),
        };
        for byte in text.bytes() {
            glob.tokens[tokens] = match byte {
                b'*' => TOKEN_STAR,
                b'?' => TOKEN_ANY,
                b'#' => TOKEN_CLASS,
                byte => byte.into(),
            };
            tokens += 1;
        }
    }
    let is_plain = |part: &&Part| part.is_some_and(|part| !part.contains(['*', '?', '#']));
    let literal = parts.iter().take_while(is_plain).count();
    glob.alternatives[0] = WireAlternative {
        first: 0,
        parts: u16::try_from(parts.len()).unwrap(),
        literal: if begins == BEGINS_AT_ROOT {
            u16::try_from(literal).unwrap()
        } else {
            0
        },
        begins,
    };
    glob
}

fn is_name(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], _) => name.is_empty(),
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|taken| is_name(rest, &name[taken..])),
        (_, []) => false,
        ([b'?', pattern @ ..], [_, name @ ..])
        | ([b'#', pattern @ ..], [b'a' | b'z', name @ ..]) => is_name(pattern, name),
        ([wanted, pattern @ ..], [byte, name @ ..]) => wanted == byte && is_name(pattern, name),
    }
}

/// Whether parts are a whole path; any number of names at the end is at least one.
fn is_path(parts: &[Part], names: &[String]) -> bool {
    match parts {
        [] => names.is_empty(),
        [None] => !names.is_empty(),
        [None, rest @ ..] => (0..=names.len()).any(|taken| is_path(rest, &names[taken..])),
        [Some(pattern), rest @ ..] => names.split_first().is_some_and(|(name, names)| {
            is_name(pattern.as_bytes(), name.as_bytes()) && is_path(rest, names)
        }),
    }
}

/// Where a match stands behind each number of the lowest names.
fn states(glob: &WireGlob, names: &[String]) -> Vec<u64> {
    let alternative = glob.alternatives[0];
    let mut all = vec![glob.begin(alternative)];
    for name in names.iter().rev() {
        let last = *all.last().unwrap();
        all.push(glob.step(alternative, last, name.as_bytes()));
    }
    all
}

fn part() -> impl Strategy<Value = Part> {
    prop::sample::select(vec![
        Some("a"),
        Some("ab"),
        Some("*"),
        Some("a*"),
        Some("*b"),
        Some("*a*b*"),
        Some("?"),
        Some("?b"),
        Some("#"),
        Some("#*"),
        None,
    ])
}

proptest! {
    #[test]
    fn patterns_match_as_the_plainest_matcher_says(
        parts in prop::collection::vec(part(), 0..6),
        names in prop::collection::vec("[abz]{1,4}", 0..6),
    ) {
        let glob = wire(BEGINS_AT_ROOT, &parts);
        let alternative = glob.alternatives[0];
        let states = states(&glob, &names);
        prop_assert_eq!(alternative.is_through(states[names.len()]), is_path(&parts, &names));
        // One that begins anywhere is through at the end of some path.
        let anywhere = wire(BEGINS_ANYWHERE, &parts).alternatives[0];
        let is_through = states.iter().any(|states| anywhere.is_through(*states));
        let ends = (0..=names.len()).any(|from| is_path(&parts, &names[from..]));
        prop_assert_eq!(is_through, ends);
        // Below its directory, by whatever name that is known.
        let directory = usize::from(alternative.directory());
        for (taken, states) in states.iter().enumerate() {
            let lower = &names[names.len() - taken..];
            prop_assert_eq!(
                alternative.is_at_directory(*states),
                is_path(&parts[directory..], lower)
            );
        }
    }
}

#[test]
fn names_are_bytes_and_nothing_is_cut_off() {
    let glob = wire(BEGINS_AT_ROOT, &[Some("?")]);
    let alternative = glob.alternatives[0];
    assert_eq!(glob.step(alternative, 1, b"\xff"), 2);
    assert_eq!(glob.step(alternative, 1, b"\xc3\xa4"), 0);
    assert_eq!(glob.step(alternative, 0, b"a"), 0, "it has come to nothing");
    let class = wire(BEGINS_AT_ROOT, &[Some("#")]);
    let takes = |byte: u8| class.step(class.alternatives[0], 1, &[byte]) == 2;
    assert_eq!(
        (0..=255).filter(|byte| takes(*byte)).collect::<Vec<_>>(),
        b"az"
    );
    // Many stars, and a name that almost fits: it comes to an end.
    let stars = wire(BEGINS_AT_ROOT, &[Some("*a*a*a*a*a*a*a*a*b")]);
    assert_eq!(stars.step(stars.alternatives[0], 1, &[b'a'; 255]), 0);
}

#[test]
fn tokens_are_those_of_the_part() {
    let glob = wire(BEGINS_AT_ROOT, &[Some("ab"), None]);
    let alternative = glob.alternatives[0];
    assert_eq!(glob.tokens_of(glob.part(alternative, 0)), [0; 0]);
    assert_eq!(
        glob.tokens_of(glob.part(alternative, 1)),
        [b'a'.into(), b'b'.into()]
    );
    let far = WirePart {
        at: u16::MAX,
        len: 1,
    };
    assert_eq!(glob.tokens_of(far), [0; 0]);
}

#[test]
fn a_directory_is_all_that_is_plain_but_the_files_own_name() {
    for (parts, is_plain, directory) in [
        (&[][..], true, 0),
        (&[Some("a")], true, 0),
        (&[Some("a"), Some("b")], true, 1),
        (&[Some("a"), None], false, 1),
        (&[Some("a"), Some("b*")], false, 1),
        (&[None, Some("b")], false, 0),
    ] {
        let alternative = wire(BEGINS_AT_ROOT, parts).alternatives[0];
        assert_eq!(alternative.is_plain(), is_plain, "{parts:?}");
        assert_eq!(alternative.directory(), directory, "{parts:?}");
        let anywhere = wire(BEGINS_ANYWHERE, parts).alternatives[0];
        assert!(!anywhere.is_plain() && anywhere.directory() == 0);
    }
}

#[test]
fn all_of_a_rules_tests_have_to_hold() {
    let test = |op| WirePathTest {
        side: FileSide::To as u32,
        op,
    };
    let mut rule = WireRule::PASS;
    assert!(!rule.has_paths());
    assert!(is_about_files(&rule, |_, _| None), "nothing is asked");
    for (op, found, holds) in [
        (PATH_IS, Some(true), true),
        (PATH_IS, Some(false), false),
        (PATH_IS, None, false),
        (PATH_IS_NOT, Some(false), true),
        (PATH_IS_NOT, Some(true), false),
        (PATH_IS_NOT, None, false),
    ] {
        rule.paths[0] = test(op);
        assert!(rule.has_paths());
        assert_eq!(is_about_files(&rule, |_, _| found), holds, "{op} {found:?}");
    }
    rule.paths = [test(PATH_IS); MAX_PATH_TESTS];
    for fails in 0..=MAX_PATH_TESTS {
        let mut asked = Vec::new();
        let holds = is_about_files(&rule, |index, seen| {
            assert_eq!(*seen, test(PATH_IS));
            asked.push(index);
            Some(index != fails)
        });
        assert_eq!(holds, fails == MAX_PATH_TESTS);
        assert_eq!(
            asked,
            (0..=fails.min(MAX_PATH_TESTS - 1)).collect::<Vec<_>>()
        );
    }
}
