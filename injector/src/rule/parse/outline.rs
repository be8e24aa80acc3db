//! Cutting a rule at its separators. Every text has an outline; what is missing is `None`, and
//! what cannot be meant is left in the piece for its reader to complain about.

use std::ops::Range;

use winnow::{
    LocatingSlice, Parser,
    combinator::{alt, opt, preceded, repeat, separated},
    error::EmptyError,
    stream::Location as _,
    token::{any, none_of, take_till, take_while},
};

use super::piece::Piece;

type Input<'a> = LocatingSlice<&'a str>;
type Cut<T> = Result<T, EmptyError>;

/// The pieces of a rule, untrimmed.
#[derive(Debug)]
pub(crate) struct Outline<'a> {
    /// Between commas, up to `(` or `=`.
    pub(crate) items: Vec<Piece<'a>>,
    /// Between `(` and `)`.
    pub(crate) preds: Option<Preds<'a>>,
    /// What stands between there and `=`, if anything but white space does.
    pub(crate) stray: Option<Piece<'a>>,
    /// Steps, each of actions; `None` without `=`.
    pub(crate) chain: Option<Vec<Vec<Piece<'a>>>>,
    /// Conditions; `None` without `@`.
    pub(crate) when: Option<Vec<Piece<'a>>>,
    /// All before `@`.
    pub(crate) before_when: Piece<'a>,
}

/// The pieces between `(` and `)`.
#[derive(Debug)]
pub(crate) struct Preds<'a> {
    pub(crate) open: Piece<'a>,
    pub(crate) pieces: Vec<Piece<'a>>,
    pub(crate) closed: bool,
}

/// Cuts a rule.
pub(crate) fn outline(whole: Piece<'_>) -> Outline<'_> {
    let piece = |range: Range<usize>| whole.from(range.start).split_at(range.len()).0;
    let pieces = |ranges: Vec<Range<usize>>| ranges.into_iter().map(piece).collect::<Vec<_>>();
    let mut input = Input::new(whole.text);
    let cut = cut(&mut input);
    // `cut` cannot fail: each of its parts matches the empty text.
    let Cuts {
        items,
        preds,
        stray,
        chain,
        when,
        before_when,
    } = cut.unwrap_or_default();
    Outline {
        items: pieces(items),
        preds: preds.map(|(open, ranges, closed)| Preds {
            open: piece(open),
            pieces: pieces(ranges),
            closed,
        }),
        stray: Some(piece(stray).trim()).filter(|stray| !stray.is_empty()),
        chain: chain.map(|steps| steps.into_iter().map(pieces).collect()),
        when: when.map(pieces),
        before_when: piece(before_when).trim(),
    }
}

#[derive(Debug, Default)]
struct Cuts {
    items: Vec<Range<usize>>,
    preds: Option<(Range<usize>, Vec<Range<usize>>, bool)>,
    stray: Range<usize>,
    chain: Option<Vec<Vec<Range<usize>>>>,
    when: Option<Vec<Range<usize>>>,
    before_when: Range<usize>,
}

fn cut(input: &mut Input<'_>) -> Cut<Cuts> {
    let items = separated(1.., item, ',').parse_next(input)?;
    let preds = opt((
        '('.span(),
        separated(0.., value_piece.span(), ','),
        opt(')').map(|close| close.is_some()),
    ))
    .parse_next(input)?;
    let stray = take_till(0.., '=').span().parse_next(input)?;
    let chain = opt(preceded('=', separated(1.., step, "->"))).parse_next(input)?;
    let before_when = 0..input.current_token_start();
    let when = opt(preceded(
        '@',
        separated(1.., take_till(0.., ',').span(), ','),
    ))
    .parse_next(input)?;
    Ok(Cuts {
        items,
        preds,
        stray,
        chain,
        when,
        before_when,
    })
}

/// An item ends at `,`, `(` or `=`, but not inside a regex.
fn item(input: &mut Input<'_>) -> Cut<Range<usize>> {
    (
        take_while(0.., |c: char| c.is_whitespace() || c == '!'),
        opt(regex),
        take_till(0.., [',', '(', '=']),
    )
        .span()
        .parse_next(input)
}

fn regex(input: &mut Input<'_>) -> Cut<()> {
    let inside = repeat::<_, _, (), _, _>(0.., alt((escaped, none_of(['/', '\\']).void())));
    ('/', inside, '/').void().parse_next(input)
}

fn escaped(input: &mut Input<'_>) -> Cut<()> {
    ('\\', any).void().parse_next(input)
}

fn quoted(input: &mut Input<'_>) -> Cut<()> {
    let inside = repeat::<_, _, (), _, _>(0.., alt((escaped, none_of(['"', '\\']).void())));
    ('"', inside, '"').void().parse_next(input)
}

/// A predicate ends at `,` or `)`, but not inside quotes, `{ }` or `[ ]`.
fn value_piece(input: &mut Input<'_>) -> Cut<()> {
    repeat::<_, _, (), _, _>(
        0..,
        alt((quoted, group, escaped, none_of([',', ')']).void())),
    )
    .parse_next(input)
}

/// `{ }` and `[ ]` that are closed; an opening that is not stands for itself.
fn group(input: &mut Input<'_>) -> Cut<()> {
    let length = group_length(input.as_ref()).ok_or(EmptyError)?;
    winnow::token::take(length).void().parse_next(input)
}

/// The length in bytes of the group that the text starts with. One pass: a group that is never
/// closed must not be tried again from each of its parts.
fn group_length(text: &str) -> Option<usize> {
    let mut chars = text.char_indices();
    let mut depth = 0usize;
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if at > 0 => {
                chars.next()?;
            }
            '{' => depth += 1,
            '}' => depth = depth.checked_sub(1)?,
            '[' => {
                // `]` as the first of a class is a member of it.
                let mut first = true;
                loop {
                    match chars.next()?.1 {
                        '!' | '^' => {}
                        ']' if !first => break,
                        _ => first = false,
                    }
                }
            }
            // Only an opening starts a group.
            _ if at == 0 => return None,
            _ => {}
        }
        if depth == 0 {
            return Some(chars.offset());
        }
    }
    None
}

fn step(input: &mut Input<'_>) -> Cut<Vec<Range<usize>>> {
    separated(1.., action, '+').parse_next(input)
}

/// An action ends at `@`, `+` or `->`, but not inside the parentheses of a foreign spelling.
fn action(input: &mut Input<'_>) -> Cut<Range<usize>> {
    let parens = ('(', take_till(0.., ')'), ')').void();
    let plain = (winnow::combinator::not("->"), none_of(['@', '+'])).void();
    repeat::<_, _, (), _, _>(0.., alt((parens, plain)))
        .span()
        .parse_next(input)
}

/// The length in bytes of the regex that the text starts with, slashes included.
pub(crate) fn regex_length(text: &str) -> Option<usize> {
    let mut input = Input::new(text);
    regex(&mut input).ok().map(|()| input.current_token_start())
}

fn parens(input: &mut Input<'_>) -> Cut<()> {
    let inside = separated::<_, _, (), _, _, _, _>(0.., value_piece, ',');
    ('(', inside, ')').void().parse_next(input)
}

/// The length in bytes of the `( )` that the text starts with.
pub(crate) fn parens_length(text: &str) -> Option<usize> {
    let mut input = Input::new(text);
    parens(&mut input)
        .ok()
        .map(|()| input.current_token_start())
}

/// Whether a value reads back whole when it is printed without quotes.
pub(crate) fn is_plain_value(text: &str) -> bool {
    // Starts that would be taken for a part of the operator, or for a quote.
    let starts = ['=', '<', '>', '~', '"', '\'', '“', '”', '‘', '’'];
    if text.is_empty() || text.trim() != text || text.starts_with(starts) || text.contains("${") {
        return false;
    }
    // It would take the `)` for its own.
    if text.ends_with('\\') {
        return false;
    }
    // A group that is opened and not closed would be closed by what comes after the rule.
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let group = matches!(c, '[' | '{').then(|| group_length(&text[at..]));
        match group {
            Some(None) => return false,
            Some(Some(length)) => at += length,
            None => at += c.len_utf8(),
        }
    }
    // Words that would be taken for a second condition.
    if super::predicate::joined_at(text).is_some() {
        return false;
    }
    let mut input = Input::new(text);
    let unquoted = !text.contains('"');
    unquoted && value_piece(&mut input).is_ok() && input.current_token_start() == text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_end_where_they_are_closed() {
        for (text, length) in [
            ("{a,b},c", Some(5)),
            ("{a,{b,c}},d", Some(9)),
            ("[,],", Some(3)),
            ("[]],", Some(3)),
            ("[!]a],", Some(5)),
            ("{[}]},", Some(5)),
            ("{\\}},", Some(4)),
            ("{a,b", None),
            ("[a", None),
            ("a{b}", None),
            ("}", None),
            ("\\{a}", None),
            ("[a!]b],", Some(4)),
        ] {
            assert_eq!(group_length(text), length, "{text}");
        }
    }

    #[test]
    fn parentheses_end_where_they_are_closed() {
        for (text, length) in [
            ("(a,b)=", Some(5)),
            ("(path={),},fd=1)=", Some(16)),
            ("()", Some(2)),
            ("(a", None),
            ("a)", None),
        ] {
            assert_eq!(parens_length(text), length, "{text}");
        }
    }

    #[test]
    fn values_that_read_back_whole_need_no_quotes() {
        for (text, plain) in [
            ("/data/*.db", true),
            ("{a,b}", true),
            ("é{a,b}[c]/d", true),
            ("{a}{b", false),
            ("é[", false),
            ("", false),
            (" a", false),
            ("=a", false),
            ("a\\", false),
            ("a,b", false),
            ("a)b", false),
            ("a\"b", false),
            ("${a}", false),
        ] {
            assert_eq!(is_plain_value(text), plain, "{text}");
        }
    }

    #[test]
    fn many_open_groups_take_no_time() {
        let text = format!("fsync(path={}", "{[".repeat(2000));
        assert!(outline(Piece::new(&text, 0)).preds.is_some());
    }

    #[test]
    fn separators_inside_values_do_not_cut() {
        let text = r#"/a,b=c/(path="x,)=@->",path={a,b}[)])=2*off+EIO -> kill @ 3 , max:2"#;
        let outline = outline(Piece::new(text, 0));
        assert_eq!(outline.items.len(), 1);
        assert_eq!(outline.preds.unwrap().pieces.len(), 2);
        let chain: Vec<Vec<&str>> = outline
            .chain
            .unwrap()
            .iter()
            .map(|s| s.iter().map(|a| a.trim().text).collect())
            .collect();
        assert_eq!(chain, [vec!["2*off", "EIO"], vec!["kill"]]);
        let when: Vec<_> = outline
            .when
            .unwrap()
            .iter()
            .map(|c| c.trim().text)
            .collect();
        assert_eq!(when, ["3", "max:2"]);
    }
}
