//! Reading the conditions after `@`.

use std::num::NonZeroU64;

use crate::{
    rule::{
        ast::{Condition, Node, Scope},
        error::{RuleError, ValueError, WhenError},
        near::did_you_mean,
        value::Count,
        vars::Vars,
    },
    syscall::Errno,
};

use super::{
    outline::Outline,
    piece::{Piece, is_word},
    value::{self, Put},
};

type Read<T> = Result<T, RuleError>;

pub(super) fn conditions(
    pieces: &[Piece<'_>],
    outline: &Outline<'_>,
    vars: Vars<'_>,
    errors: &mut Vec<RuleError>,
) -> Vec<Node<Condition>> {
    let mut found: Vec<Node<Condition>> = Vec::new();
    for piece in pieces {
        let trimmed = piece.trim();
        if trimmed.is_empty() {
            let separator = (piece.at.saturating_sub(1), 1).into();
            errors.push(WhenError::Empty(separator).into());
            continue;
        }
        if let Some((count, chain)) = trimmed.split_once("->") {
            let meant = format!(
                "{}->{}@{}",
                outline.before_when.text,
                chain.trim().text,
                count.trim().text
            );
            errors.push(WhenError::ChainInWhen(chain.trim().span(), meant).into());
            continue;
        }
        match condition(trimmed, vars) {
            Ok(node) => {
                let same = |earlier: &&Node<Condition>| {
                    std::mem::discriminant(&earlier.node) == std::mem::discriminant(&node)
                };
                match found.iter().find(same) {
                    Some(first) => errors.push(twice(first, node, trimmed, outline).into()),
                    None => found.push(Node {
                        node,
                        span: trimmed.span(),
                    }),
                }
            }
            Err(error) => errors.push(error),
        }
    }
    found
}

fn twice(
    first: &Node<Condition>,
    second: Condition,
    at: Piece<'_>,
    outline: &Outline<'_>,
) -> WhenError {
    let kind = match second {
        Condition::Count(_) => {
            let rule = outline.before_when.text;
            let help = format!(
                "write two rules: `{rule}@{}` and `{rule}@{second}`",
                first.node
            );
            return WhenError::TwoCounts(at.span(), first.span, help);
        }
        Condition::Percent(_) => "P%",
        Condition::Max(_) => "max:",
        Condition::Start(_) => "start:",
        Condition::For(_) => "for:",
        Condition::Per(_) => "per:",
    };
    WhenError::Duplicate(at.span(), first.span, kind)
}

fn condition(piece: Piece<'_>, vars: Vars<'_>) -> Read<Condition> {
    if let Some((_, at)) = piece.find_char(|c| c == '@') {
        return Err(WhenError::SecondAt(at.span()).into());
    }
    if let Some(error) = value::looks_like(piece) {
        return Err(error.into());
    }
    if let Some((_, at)) = piece.find_char(char::is_whitespace) {
        let joined: String = piece.text.split_whitespace().collect();
        // `3 max:2` is two conditions; `3 +` is one with a space in it.
        let words: Vec<&str> = piece.text.split_whitespace().collect();
        let several = words
            .iter()
            .all(|w| condition(Piece::new(w, 0), vars).is_ok());
        let meant = if several { words.join(",") } else { joined };
        return Err(WhenError::Space(at.span(), meant).into());
    }
    let first = piece.text.chars().next().unwrap_or_default();
    if first.is_ascii_digit() || matches!(first, '.' | '-' | '+' | '#') {
        return numeric(piece);
    }
    word(piece, vars)
}

fn numeric(piece: Piece<'_>) -> Read<Condition> {
    let text = piece.text;
    if text.ends_with('%') {
        return Ok(Condition::Percent(value::percent(text, piece.span())?));
    }
    if let Some(rest) = text.strip_prefix('#') {
        return Err(WhenError::Ordinal(piece.span(), rest.to_owned()).into());
    }
    if let Some(rest) = text.strip_prefix("..") {
        let end = rest.trim_start_matches(['=', '.']);
        return Err(WhenError::NoStart(piece.span(), end.to_owned()).into());
    }
    if let Some(rest) = text.strip_prefix('-') {
        let help = if is_digits(rest) {
            Some(format!("for the first {rest} calls, write `1..{rest}`"))
        } else {
            None
        };
        return Err(WhenError::NegativeCount(piece.span(), help).into());
    }
    if let Some(rest) = text.strip_prefix('+') {
        let help = if is_digits(rest) {
            format!("one call in {rest} is `{rest}+{rest}`, all from number {rest} on `{rest}+`")
        } else {
            "a count stands before the `+`: `3+` is all calls from the third on".to_owned()
        };
        return Err(WhenError::Unknown(piece.span(), text.to_owned(), Some(help)).into());
    }
    let (first, rest) = piece.take_while(|c| c.is_ascii_digit());
    if let Some(error) = fraction(piece, first.text, rest.text) {
        return Err(error.into());
    }
    let first_number = count_number(first)?;
    match rest.text {
        "" => {
            return Ok(count(
                first_number,
                Some(first_number),
                NonZeroU64::MIN,
                piece,
            )?);
        }
        "+" => return Ok(count(first_number, None, NonZeroU64::MIN, piece)?),
        ".." | "..." | "+.." => {
            return Err(WhenError::OpenRange(piece.span(), first.text.to_owned()).into());
        }
        "st" | "nd" | "rd" | "th" | "x" => {
            return Err(WhenError::Ordinal(piece.span(), first.text.to_owned()).into());
        }
        _ => {}
    }
    if let Some(step) = rest.strip_prefix("+") {
        let step = step_number(step, piece)?;
        return Ok(count(first_number, None, step, piece)?);
    }
    for wrong in ["..=", "...", "-", "~", ":", "to"] {
        if let Some(last) = rest.strip_prefix(wrong)
            && is_digits(last.text)
        {
            let meant = format!("{}..{}", first.text, last.text);
            return Err(WhenError::WrongRange(piece.span(), meant).into());
        }
    }
    if let Some(range) = rest.strip_prefix("..") {
        let (last, tail) = range.take_while(|c| c.is_ascii_digit());
        if !last.is_empty() {
            let last_number = count_number(last)?;
            if last_number < first_number {
                let meant = format!("{last_number}..{first_number}{}", tail.text);
                return Err(WhenError::Reversed(piece.span(), meant).into());
            }
            if tail.is_empty() {
                return Ok(count(
                    first_number,
                    Some(last_number),
                    NonZeroU64::MIN,
                    piece,
                )?);
            }
            if tail.text == "+" {
                let meant = format!("{first_number}..{last_number}");
                return Err(WhenError::OpenStep(piece.span(), meant).into());
            }
            if let Some(step) = tail.strip_prefix("+") {
                let step = step_number(step, piece)?;
                return Ok(count(first_number, Some(last_number), step, piece)?);
            }
        }
    }
    let help = if value::duration(piece.text, piece.span()).is_ok() {
        Some(format!(
            "from {0} after arming on is `start:{0}`, only for {0} is `for:{0}`",
            piece.text
        ))
    } else {
        None
    };
    Err(WhenError::Unknown(piece.span(), piece.text.to_owned(), help).into())
}

fn count(
    first: NonZeroU64,
    last: Option<NonZeroU64>,
    step: NonZeroU64,
    piece: Piece<'_>,
) -> Result<Condition, WhenError> {
    Count::new(first, last, step)
        .map(Condition::Count)
        .ok_or_else(|| WhenError::Reversed(piece.span(), format!("{first}+{step}")))
}

fn count_number(piece: Piece<'_>) -> Read<NonZeroU64> {
    let number: u64 = piece
        .text
        .parse()
        .map_err(|_| WhenError::TooLarge(piece.span(), Some(format!("at most {}", u64::MAX))))?;
    NonZeroU64::new(number).ok_or_else(|| WhenError::ZeroCount(piece.span()).into())
}

fn step_number(step: Piece<'_>, piece: Piece<'_>) -> Read<NonZeroU64> {
    if !is_digits(step.text) {
        return Err(WhenError::Unknown(piece.span(), piece.text.to_owned(), None).into());
    }
    let number: u64 = step
        .text
        .parse()
        .map_err(|_| WhenError::TooLarge(step.span(), Some(format!("at most {}", u64::MAX))))?;
    NonZeroU64::new(number).ok_or_else(|| WhenError::ZeroStep(step.span()).into())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// `0.1`, `1/10`, `1in10`.
fn fraction(piece: Piece<'_>, first: &str, rest: &str) -> Option<WhenError> {
    if let Some(decimals) = rest.strip_prefix('.')
        && is_digits(decimals)
    {
        let share: f64 = piece.text.parse().ok()?;
        let percent = plain_percent(if share < 1.0 { share * 100.0 } else { share })?;
        return Some(WhenError::Fraction(
            piece.span(),
            format!("write `{percent}`"),
        ));
    }
    let divisor = rest.strip_prefix('/').or_else(|| rest.strip_prefix("in"))?;
    if !is_digits(divisor) {
        return None;
    }
    let (of, number): (f64, f64) = (first.parse().ok()?, divisor.parse().ok()?);
    let help = match plain_percent(of / number * 100.0) {
        Some(percent) if first == "1" => {
            format!(
                "write `{percent}`; `{divisor}+{divisor}` is one call in {divisor} without chance"
            )
        }
        Some(percent) => format!("write `{percent}`"),
        None => "it is above 0% and at most 100%".to_owned(),
    };
    Some(WhenError::Fraction(piece.span(), help))
}

/// A share as a rule may say it; `None` where it may not.
fn plain_percent(percent: f64) -> Option<String> {
    let text = format!("{percent:.4}");
    let text = format!("{}%", text.trim_end_matches('0').trim_end_matches('.'));
    value::percent(&text, (0, 0).into()).ok().map(|_| text)
}

const WORDS: &[&str] = &["max", "start", "for", "per"];

fn word(piece: Piece<'_>, vars: Vars<'_>) -> Read<Condition> {
    let (key, rest) = piece.take_while(is_word);
    let separator = rest.text.chars().next();
    let raw = rest.from(separator.map_or(0, char::len_utf8));
    if !WORDS.contains(&key.text) {
        return Err(unknown(piece, key, raw));
    }
    match separator {
        Some(':') => {}
        Some('=') => {
            let meant = format!("{}:{}", key.text, raw.text);
            return Err(WhenError::Equals(rest.split_at(1).0.span(), meant).into());
        }
        _ => {
            let example = match key.text {
                "max" => "max:5",
                "per" => "per:process",
                "for" => "for:30s",
                _ => "start:10s",
            };
            return Err(WhenError::MissingValue(piece.span(), key.text.to_owned(), example).into());
        }
    }
    if raw.is_empty() {
        return Err(WhenError::MissingValue(
            piece.span(),
            key.text.to_owned(),
            match key.text {
                "max" => "max:5",
                "per" => "per:process",
                "for" => "for:30s",
                _ => "start:10s",
            },
        )
        .into());
    }
    let text = value::expand(raw.text.into(), raw, vars, Put::Plain)?;
    let span = raw.span();
    Ok(match key.text {
        "max" => Condition::Max(value::at_least_one(&text, span)?),
        "start" => Condition::Start(value::duration(&text, span)?),
        "for" => Condition::For(value::duration(&text, span)?),
        _ => Condition::Per(match text.as_ref() {
            "rule" => Scope::Rule,
            "process" => Scope::Process,
            "thread" => Scope::Thread,
            other => {
                let meant = match other {
                    "pid" | "tgid" | "proc" => Some("process"),
                    "tid" | "task" | "tracee" => Some("thread"),
                    "all" | "global" | "total" | "session" | "tree" => Some("rule"),
                    "call" | "syscall" => {
                        let help =
                            "to count each call by itself, write one rule for each".to_owned();
                        return Err(
                            WhenError::UnknownScope(span, other.to_owned(), Some(help)).into()
                        );
                    }
                    _ => None,
                };
                let help = meant
                    .map(|scope| format!("did you mean `per:{scope}`?"))
                    .or_else(|| did_you_mean(other, ["rule", "process", "thread"]));
                return Err(WhenError::UnknownScope(span, other.to_owned(), help).into());
            }
        }),
    })
}

fn unknown(piece: Piece<'_>, key: Piece<'_>, raw: Piece<'_>) -> RuleError {
    let other =
        |meant: String| WhenError::OtherWord(piece.span(), key.text.to_owned(), meant).into();
    let n = raw.text;
    let number = is_digits(n);
    let timed = value::duration(n, raw.span()).is_ok();
    let example = |fallback: &str| {
        if n.is_empty() {
            fallback.to_owned()
        } else {
            n.to_owned()
        }
    };
    match key.text {
        "times" | "limit" | "count" | "n" | "atmost" => {
            return other(format!("max:{}", example("5")));
        }
        "once" => return other("1` for the first call, or `max:1".to_owned()),
        "always" | "all" | "every_call" => {
            return WhenError::Unknown(
                piece.span(),
                piece.text.to_owned(),
                Some("without `@` every call is selected".to_owned()),
            )
            .into();
        }
        "after" if timed => return other(format!("start:{n}")),
        "after" | "skip" if number => {
            let from = n.parse::<u64>().map_or(1, |n| n.saturating_add(1));
            return other(format!("{from}+"));
        }
        "from" if number => return other(format!("{n}+")),
        "nth" | "at" | "call" if number => return other(n.to_owned()),
        "first" if number => return other(format!("1..{n}")),
        "every" | "interval" | "step" if number => return other(format!("{n}+{n}")),
        "every" | "interval" if timed => {
            return WhenError::Unknown(
                piece.span(),
                piece.text.to_owned(),
                Some("calls are selected by count, not by time: `10+10` is every tenth".to_owned()),
            )
            .into();
        }
        "p" | "prob" | "probability" | "rate" | "chance" | "percent" => {
            let percent = match n.parse::<f64>() {
                Ok(share) if share <= 1.0 => plain_percent(share * 100.0),
                Ok(share) => plain_percent(share),
                Err(_) => value::percent(n, raw.span())
                    .ok()
                    .map(|percent| percent.to_string()),
            };
            return other(percent.unwrap_or_else(|| "10%".to_owned()));
        }
        "duration" | "during" | "timeout" => return other(format!("for:{}", example("30s"))),
        "thread" | "process" | "rule" => return other(format!("per:{}", key.text)),
        "scope" | "by" => return other(format!("per:{}", example("process"))),
        "when" => return other(example("3")),
        "seed" => {
            return WhenError::Unknown(
                piece.span(),
                piece.text.to_owned(),
                Some("the seed belongs to the run, not to a rule: `--seed`".to_owned()),
            )
            .into();
        }
        _ => {}
    }
    let actions = [
        "delay", "hold", "signal", "kill", "stop", "short", "corrupt", "off", "ret", "error",
    ];
    if Errno::by_name(key.text).is_some() || actions.contains(&key.text) {
        return WhenError::ActionInWhen(piece.span(), piece.text.to_owned()).into();
    }
    if piece.text.contains("${") {
        return ValueError::MisplacedVariable(piece.span()).into();
    }
    let help = did_you_mean(key.text, WORDS.iter().copied());
    WhenError::Unknown(piece.span(), piece.text.to_owned(), help).into()
}
