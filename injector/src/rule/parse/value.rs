//! Numbers, sizes, shares, durations, and variables in a value.

use std::{borrow::Cow, num::NonZeroU32, time::Duration};

use crate::rule::{
    ast::{Integer, Span},
    error::ValueError,
    glob::Glob,
    near::did_you_mean,
    value::{Percent, Plain, UNITS},
    vars::Vars,
};

use super::piece::{Piece, is_word};

/// How the text of a variable is put into a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// As it is.
    Plain,
    /// So that a pattern takes it literally.
    InGlob,
}

/// A value with its variables replaced.
pub(super) fn expand<'a>(
    value: Cow<'a, str>,
    piece: Piece<'_>,
    vars: Vars<'_>,
    put: Put,
) -> Result<Cow<'a, str>, ValueError> {
    // Where there can be no variable, what stands in quotes is what it says.
    let is_quoted = piece.text.starts_with('"');
    if !value.contains("${") || (vars.is_none() && is_quoted) {
        return Ok(value);
    }
    let mut out = String::new();
    let mut rest = value.as_ref();
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let Some((name, tail)) = after.split_once('}') else {
            return Err(ValueError::BadVariable(piece.span()));
        };
        // The place in the text; quotes may have changed what stands before it.
        let written = format!("${{{name}}}");
        let span = piece.text.find(&written).map_or(piece.span(), |at| {
            piece.from(at).split_at(written.len()).0.span()
        });
        if name.is_empty() || !name.chars().all(|c| is_word(c) || c == '-') {
            return Err(ValueError::BadVariable(span));
        }
        let Some(text) = vars.get(name) else {
            let help = if vars.is_none() {
                Some("variables belong to rule files; give the value itself here".to_owned())
            } else {
                did_you_mean(name, vars.names())
            };
            return Err(ValueError::UnknownVariable(span, name.to_owned(), help));
        };
        match put {
            Put::Plain => out.push_str(text),
            Put::InGlob => out.push_str(&Glob::escape(text)),
        }
        rest = tail;
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

/// Characters that are typed for another, or pasted from a text that was set.
pub(super) fn looks_like(piece: Piece<'_>) -> Option<ValueError> {
    let (c, at) = piece.find_char(|c| !c.is_ascii())?;
    let (meant, help) = match c {
        '→' | '⇒' | '➔' | '➜' | '⟶' => ("->", None),
        '–' | '—' | '−' | '‐' | '‑' => ("-", None),
        '…' => ("..", None),
        '×' | '∗' | '·' => ("*", None),
        '＝' => ("=", None),
        '＠' => ("@", None),
        '％' => ("%", None),
        '≥' => (">=", None),
        '≤' => ("<=", None),
        '≠' => ("!=", None),
        '“' | '”' | '„' | '″' => ("\"", None),
        '‘' | '’' | '‚' | '′' => ("'", None),
        '：' => (":", None),
        '，' => (",", None),
        c if c.is_whitespace() => (" ", Some("a space of another kind; type it again")),
        _ => return None,
    };
    Some(ValueError::LooksLike(
        at.span(),
        c,
        meant,
        help.map(str::to_owned),
    ))
}

/// A duration above zero.
pub(super) fn duration(text: &str, span: Span) -> Result<Duration, ValueError> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    if number.is_empty() || number == "." || number.matches('.').count() > 1 {
        return Err(ValueError::BadDuration(span));
    }
    let unit = unit.trim();
    if unit.is_empty() {
        return Err(ValueError::MissingUnit(
            span,
            format!("did you mean `{number}ms` or `{number}s`?"),
        ));
    }
    let canonical = if matches!(unit, "µs" | "μs") {
        "us"
    } else {
        unit
    };
    let Some((nanos, _)) = UNITS.iter().find(|(_, name)| *name == canonical) else {
        let meant = match unit.to_lowercase().as_str() {
            "s" | "sec" | "secs" | "second" | "seconds" => Some("s"),
            "msec" | "msecs" | "millis" | "millisecond" | "milliseconds" | "ms" => Some("ms"),
            "usec" | "usecs" | "micros" | "microsecond" | "microseconds" | "us" => Some("us"),
            "nsec" | "nanos" | "nanosecond" | "nanoseconds" | "ns" => Some("ns"),
            "min" | "mins" | "minute" | "minutes" | "m" => Some("m"),
            "hr" | "hrs" | "hour" | "hours" | "h" => Some("h"),
            _ => None,
        };
        let help = match (meant, unit) {
            (Some(meant), _) => Some(format!("write `{number}{meant}`")),
            (None, "d" | "day" | "days") => {
                let hours: Option<u64> = number.parse().ok();
                hours.map(|days| format!("write `{}h`", days.saturating_mul(24)))
            }
            (None, "%") => Some("a share of calls comes after `@`; a wait is a time".to_owned()),
            _ => None,
        };
        return Err(ValueError::UnknownUnit(span, unit.to_owned(), help));
    };
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let too_long = || ValueError::DurationTooLong(span);
    let whole: u128 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| too_long())?
    };
    let mut total = whole.checked_mul(*nanos).ok_or_else(too_long)?;
    let decimals = decimals.trim_end_matches('0');
    if !decimals.is_empty() {
        let too_precise = || ValueError::TooPrecise(span);
        let digits = u32::try_from(decimals.len()).map_err(|_| too_precise())?;
        let scale = 10u128.checked_pow(digits).ok_or_else(too_precise)?;
        let parts: u128 = decimals.parse().map_err(|_| too_precise())?;
        let scaled = parts.checked_mul(*nanos).ok_or_else(too_precise)?;
        if !scaled.is_multiple_of(scale) {
            return Err(too_precise());
        }
        total = total.checked_add(scaled / scale).ok_or_else(too_long)?;
    }
    let nanos = i64::try_from(total).map_err(|_| too_long())?;
    match u64::try_from(nanos).map_err(|_| too_long())? {
        0 => Err(ValueError::ZeroDuration(span)),
        nanos => Ok(Duration::from_nanos(nanos)),
    }
}

/// `D` or `D1..D2`, as bounds in the order written.
pub(super) fn duration_range(
    text: &str,
    piece: Piece<'_>,
) -> Result<(Duration, Duration), ValueError> {
    let Some((first, last)) = text.split_once("..") else {
        let one = duration(text, piece.span())?;
        return Ok((one, one));
    };
    // A variable may hold both.
    let (first_span, last_span) = match piece.split_once("..") {
        Some((a, b)) => (a.trim().span(), b.trim().span()),
        None => (piece.span(), piece.span()),
    };
    let last = duration(last, last_span)?;
    let first = match duration(first, first_span) {
        // `20..200ms`: the unit of the second was meant for both.
        Err(ValueError::MissingUnit(span, _)) => {
            let unit: String = Plain(last)
                .to_string()
                .chars()
                .filter(char::is_ascii_alphabetic)
                .collect();
            let number = first.trim();
            return Err(ValueError::MissingUnit(
                span,
                format!("write `{number}{unit}..{}`", Plain(last)),
            ));
        }
        other => other?,
    };
    Ok((first, last))
}

/// A share with its `%`.
pub(super) fn percent(text: &str, span: Span) -> Result<Percent, ValueError> {
    let number = text
        .trim()
        .strip_suffix('%')
        .ok_or(ValueError::BadPercent(span))?
        .trim_end();
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && decimals.is_empty()) || !digits(whole) || !digits(decimals) {
        let negative = number.starts_with('-') && digits(&number[1..]);
        return Err(if negative {
            ValueError::PercentRange(span, None)
        } else {
            ValueError::BadPercent(span)
        });
    }
    let decimals = decimals.trim_end_matches('0');
    if decimals.len() > 4 {
        return Err(ValueError::PercentTooPrecise(span));
    }
    let range = || ValueError::PercentRange(span, None);
    let whole: u32 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| range())?
    };
    let parts: u32 = format!("{decimals:0<4}").parse().map_err(|_| range())?;
    let parts = whole
        .checked_mul(10_000)
        .and_then(|w| w.checked_add(parts))
        .ok_or_else(range)?;
    Percent::from_parts(parts).ok_or_else(|| {
        let help = (parts == 0).then(|| "to switch a rule off, leave it out".to_owned());
        ValueError::PercentRange(span, help)
    })
}

/// A number from 0 on: decimal or hexadecimal, or with `sizes` one with a power of 1024.
pub(super) fn number(text: &str, span: Span, sizes: bool) -> Result<u128, ValueError> {
    let text = text.trim();
    let too_large = || ValueError::TooLarge(span, None);
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ValueError::BadNumber(span, None));
        }
        return u128::from_str_radix(hex, 16).map_err(|_| too_large());
    }
    let octal = text
        .strip_prefix("0o")
        .or_else(|| text.strip_prefix('0').filter(|t| !t.is_empty()));
    if let Some(octal) = octal.filter(|t| t.bytes().all(|b| b.is_ascii_digit())) {
        let decimal = text.trim_start_matches(['0', 'o']);
        let decimal = if decimal.is_empty() { "0" } else { decimal };
        let help = match u128::from_str_radix(octal, 8) {
            Ok(value) if text.starts_with("0o") => format!("write `{value:#x}`"),
            Ok(value) => format!("octal {octal} is `{value:#x}`; decimal is `{decimal}`"),
            Err(_) => format!("write `{decimal}`"),
        };
        return Err(ValueError::Octal(span, help));
    }
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    if digits.is_empty() {
        return Err(ValueError::BadNumber(span, None));
    }
    let value: u128 = digits.parse().map_err(|_| too_large())?;
    if unit.is_empty() {
        return Ok(value);
    }
    if unit.starts_with(['_', ',', '\'']) {
        let plain: String = text.chars().filter(char::is_ascii_digit).collect();
        return Err(ValueError::BadNumber(
            span,
            Some(format!("write `{plain}`")),
        ));
    }
    if !sizes {
        return Err(ValueError::BadNumber(span, None));
    }
    let shift = match unit {
        "k" | "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => {
            let meant = match unit
                .to_lowercase()
                .trim_end_matches('b')
                .trim_end_matches('i')
            {
                "" => Some(""),
                "k" => Some("k"),
                "m" => Some("M"),
                "g" => Some("G"),
                "t" => Some("T"),
                _ => None,
            };
            let help = match meant {
                Some("") => format!("write `{digits}`"),
                Some(letter) => format!("write `{digits}{letter}`, a power of 1024"),
                None => "a size is a number of bytes, or one with k, M, G or T".to_owned(),
            };
            return Err(ValueError::BadSize(span, help));
        }
    };
    value.checked_mul(1 << shift).ok_or_else(too_large)
}

/// A number that may be negative, or a size.
pub(super) fn integer(text: &str, span: Span) -> Result<Integer, ValueError> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let range = || ValueError::TooLarge(span, Some("a register holds -2^63 to 2^64-1".to_owned()));
    let value = i128::try_from(number(digits, span, true)?).map_err(|_| range())?;
    Integer::new(if negative { -value } else { value }).ok_or_else(range)
}

/// A number of at least 1 that fits 32 bits.
pub(super) fn at_least_one(text: &str, span: Span) -> Result<NonZeroU32, ValueError> {
    let value = number(text, span, false)?;
    let value = u32::try_from(value)
        .map_err(|_| ValueError::TooLarge(span, Some(format!("at most {}", u32::MAX))))?;
    NonZeroU32::new(value).ok_or(ValueError::Zero(span, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span() -> Span {
        (0, 0).into()
    }

    #[test]
    fn durations() {
        for (text, nanos) in [
            ("1ns", 1),
            ("1.5us", 1_500),
            ("20ms", 20_000_000),
            ("0.5s", 500_000_000),
            (".5s", 500_000_000),
            ("1.25m", 75_000_000_000),
            ("1h", 3_600_000_000_000),
            ("3µs", 3_000),
            ("0.000000001s", 1),
            ("1.10s", 1_100_000_000),
            ("0.0000001m", 6_000),
        ] {
            assert_eq!(
                duration(text, span()),
                Ok(Duration::from_nanos(nanos)),
                "{text}"
            );
        }
        for text in ["0.5ns", "0.0000000001s", "1.0000000000001h"] {
            assert_eq!(
                duration(text, span()),
                Err(ValueError::TooPrecise(span())),
                "{text}"
            );
        }
        assert_eq!(
            duration("0s", span()),
            Err(ValueError::ZeroDuration(span()))
        );
        assert_eq!(
            duration("300000000h", span()),
            Err(ValueError::DurationTooLong(span()))
        );
    }

    #[test]
    fn numbers_and_sizes() {
        for (text, value) in [
            ("0", 0),
            ("4096", 4096),
            ("0x10", 16),
            ("4k", 4096),
            ("1M", 1 << 20),
            ("2G", 2 << 30),
            ("3T", 3 << 40),
            ("0X1f", 31),
        ] {
            assert_eq!(number(text, span(), true), Ok(value), "{text}");
        }
        assert!(
            matches!(number("0644", span(), true), Err(ValueError::Octal(_, help)) if help.contains("0x1a4"))
        );
        assert!(
            matches!(number("4kb", span(), true), Err(ValueError::BadSize(_, help)) if help.contains("`4k`"))
        );
        assert!(number("4k", span(), false).is_err());
    }

    #[test]
    fn shares() {
        for (text, parts) in [
            ("10%", 100_000),
            ("0.0001%", 1),
            ("12.50%", 125_000),
            ("100%", 1_000_000),
        ] {
            assert_eq!(
                percent(text, span()).map(Percent::parts),
                Ok(parts),
                "{text}"
            );
        }
        for text in ["0%", "100.0001%", "-5%", "0.00001%", "%", "x%"] {
            assert!(percent(text, span()).is_err(), "{text}");
        }
    }
}
