//! Other tools' spellings, and what their users mean by them here: strace's `inject=`, the fail
//! points of fail-rs, gofail and pingcap/failpoint, systemd's `SystemCallFilter=`, enosys(1),
//! bpftrace's `override`. They are known so that they can be translated, never accepted.

use crate::{
    rule::{
        ast::{RetValue, Span},
        error::{ActionError, CallError, RuleError},
        value::Plain,
    },
    syscall::{Errno, Signal, by_name},
};

use super::{
    outline::Outline,
    parse,
    piece::{Piece, is_word},
    value,
};

/// A rule that is another language's from its start.
pub(super) fn whole_rule(whole: Piece<'_>) -> Option<RuleError> {
    let rule = whole.trim();
    if rule.is_empty() {
        return Some(CallError::EmptyRule(whole.span()).into());
    }
    quoted(rule)
        .or_else(|| option(rule))
        .or_else(|| strace(rule))
        .or_else(|| systemd(rule))
        .or_else(|| second_rule(rule))
        .map(Into::into)
}

fn quoted(rule: Piece<'_>) -> Option<CallError> {
    let mut chars = rule.text.chars();
    let (first, last) = (chars.next()?, chars.next_back()?);
    let pair = matches!(
        (first, last),
        ('\'', '\'') | ('"', '"') | ('“', '”') | ('‘', '’') | ('`', '`')
    );
    let inside = rule.from(first.len_utf8());
    let inside = &inside.text[..inside.text.len() - last.len_utf8()];
    pair.then(|| {
        let clean = if inside.is_empty() {
            "empty".to_owned()
        } else {
            format!("`{inside}`")
        };
        CallError::QuotedRule(rule.span(), clean)
    })
}

fn option(rule: Piece<'_>) -> Option<CallError> {
    ["--rule=", "--rule ", "-r ", "rule=", "rule:"]
        .iter()
        .find_map(|prefix| {
            let rest = rule.strip_prefix(prefix)?;
            let meant = rest.trim().text.trim_matches(['\'', '"']).to_owned();
            Some(CallError::OptionInRule(
                rule.split_at(prefix.len()).0.span(),
                meant,
            ))
        })
}

/// Two rules joined by `;` outside of any value.
fn second_rule(rule: Piece<'_>) -> Option<CallError> {
    let parts = crate::rule::split::split_at(rule.text);
    let (at, second) = *parts.get(1)?;
    Some(CallError::TwoRules((rule.at + at, second.len()).into()))
}

/// Keys of strace's `inject=`, as they stand behind a set of calls.
const KEYS: &[&str] = &[
    ":error=",
    ":retval=",
    ":signal=",
    ":when=",
    ":delay_enter=",
    ":delay_exit=",
    ":syscall=",
    ":poke_enter=",
    ":poke_exit=",
];

/// `inject=fsync:error=EIO:when=3`, with or without its first word.
fn strace(rule: Piece<'_>) -> Option<CallError> {
    let mut rest = rule;
    for word in ["strace", "-e"] {
        rest = rest.strip_prefix(word).map_or(rest, Piece::trim);
    }
    let head = ["--inject=", "--fault=", "inject=", "fault="]
        .iter()
        .find_map(|word| Some((word.contains("fault"), rest.strip_prefix(word)?)));
    let keyed = KEYS.iter().any(|key| rest.text.contains(key));
    if head.is_none() && !keyed {
        return None;
    }
    let (fault, body) = head.unwrap_or((false, rest));
    // `fsync=EIO:when=3` is nearly ours; its own reader says more.
    if head.is_none()
        && body
            .text
            .split(':')
            .next()
            .is_some_and(|calls| calls.contains('='))
    {
        return None;
    }
    let help =
        translate_strace(body.text, fault).map(|meant| format!("in finject it is `{meant}`"));
    Some(CallError::StraceRule(rule.span(), help))
}

/// strace's rule in our words, where all of it can be said.
fn translate_strace(body: &str, fault: bool) -> Option<String> {
    let mut parts = body.split(':');
    let calls = parts.next()?.trim();
    let mut actions = Vec::new();
    let mut when = String::new();
    let mut result = false;
    for part in parts {
        let (key, value) = part.split_once('=')?;
        match key.trim() {
            "when" => when = format!("@{value}"),
            "error" | "retval" => {
                result = true;
                actions.push(strace_action(key, value)?);
            }
            key => actions.push(strace_action(key, value)?),
        }
    }
    if fault && !result {
        actions.push("ENOSYS".to_owned());
    }
    if actions.is_empty() {
        return None;
    }
    let rule = format!("{calls}={}{when}", actions.join("+"));
    parse(&rule).is_ok().then_some(rule)
}

/// One `key=value` of strace in our words.
fn strace_action(key: &str, value: &str) -> Option<String> {
    Some(match key {
        "error" => match Errno::by_name(value) {
            Some(errno) => errno.to_string(),
            None => Errno::new(value.parse().ok()?).ok()?.to_string(),
        },
        "retval" => format!("ret:{}", RetValue::new(value.parse().ok()?)?.get()),
        "signal" => {
            let by_number = value.parse().ok().and_then(Signal::new);
            let signal = Signal::by_name(value)
                .or_else(|| Signal::by_name(&format!("SIG{value}")))
                .or(by_number)?;
            format!("signal:{signal}")
        }
        "delay_enter" => format!("delay:{}", strace_time(value)?),
        "delay_exit" => format!("after:delay:{}", strace_time(value)?),
        _ => return None,
    })
}

/// A time without a unit is in microseconds there.
fn strace_time(value: &str) -> Option<String> {
    let nowhere: Span = (0, 0).into();
    let with_unit = format!("{value}us");
    let time = value::duration(value, nowhere)
        .or_else(|_| value::duration(&with_unit, nowhere))
        .ok()?;
    Some(Plain(time).to_string())
}

/// `SystemCallFilter=~fsync:EIO`, `~fsync:EIO`.
fn systemd(rule: Piece<'_>) -> Option<CallError> {
    let body = rule
        .strip_prefix("SystemCallFilter=")
        .or_else(|| rule.text.starts_with('~').then_some(rule))?;
    let body = body.text.trim_start_matches('~').trim();
    let help = colon_errno(body).map(|meant| format!("in finject it is `{meant}`"));
    Some(CallError::SystemdRule(rule.span(), help))
}

/// `fsync:EIO` with `=` in the place of the colon.
fn colon_errno(body: &str) -> Option<String> {
    let (calls, action) = body.split_once(':')?;
    let errno = Errno::by_name(action.trim())
        .or_else(|| action.trim().parse().ok().and_then(|n| Errno::new(n).ok()))?;
    let calls: Vec<&str> = calls.split_whitespace().collect();
    let rule = format!("{}={errno}", calls.join(","));
    parse(&rule).is_ok().then_some(rule)
}

/// A rule without `=`.
pub(super) fn no_equals(outline: &Outline<'_>, whole: Piece<'_>) -> CallError {
    let trimmed = whole.trim();
    if let Some(stray) = outline.stray {
        let calls = &whole.text[..stray.at - whole.at];
        let meant = format!(
            "{}={}",
            calls.trim(),
            stray.text.trim_start_matches([':', '-', '>']).trim()
        );
        let help = parse(&meant).is_ok().then(|| format!("write `{meant}`"));
        return CallError::ExpectedEquals(stray.span(), help);
    }
    CallError::MissingAction(trimmed.span(), Some(format!("as `{}=EIO`", trimmed.text)))
}

/// What stands in the place of a call's name where the user's `=` is missing: `fsync:EIO`,
/// `fsync EIO`.
pub(super) fn call_and_action(text: &str) -> Option<String> {
    if let Some(rule) = colon_errno(text) {
        return Some(rule);
    }
    let at = text.find(|c: char| !is_word(c))?;
    let (name, rest) = text.split_at(at);
    let rest = rest
        .trim_start_matches([':', ' ', '-', '>', '/', '.'])
        .trim();
    if by_name(name).is_empty() {
        return None;
    }
    let rule = format!("{name}={rest}");
    parse(&rule).is_ok().then_some(rule)
}

/// An action of another language.
pub(super) fn action(piece: Piece<'_>, last: bool) -> Option<ActionError> {
    let text = piece.text;
    for arrow in ["-->", "=>", "~>", "<-"] {
        if let Some(at) = text.find(arrow) {
            let span = piece.from(at).split_at(arrow.len()).0.span();
            return Some(ActionError::WrongArrow(span, arrow.to_owned()));
        }
    }
    if last && text.ends_with('-') {
        return Some(ActionError::CutArrow(piece.from(text.len() - 1).span()));
    }
    if let Some((open, _)) = text.split_once('(') {
        return call_like(piece, open.trim());
    }
    for arrow in [">", "|", ";", "&"] {
        if let Some(at) = text.find(arrow) {
            let span = piece.from(at).split_at(arrow.len()).0.span();
            return Some(ActionError::WrongArrow(span, arrow.to_owned()));
        }
    }
    if let Some(at) = text.find(',') {
        let (head, tail) = (text[..at].trim(), text[at + 1..].trim());
        let span = piece.from(at).split_at(1).0.span();
        if tail.is_empty() || head.is_empty() {
            return Some(ActionError::Trailing(span));
        }
        return Some(ActionError::Comma(
            span,
            format!("{head}+{tail}"),
            format!("{head}->{tail}"),
        ));
    }
    if let Some((key, value)) = piece.split_once("=") {
        return Some(key_value(piece, key.trim(), value.trim()));
    }
    if let Some((share, _)) = leading_percent(piece) {
        return Some(ActionError::LeadingPercent(
            share.span(),
            share.text.to_owned(),
        ));
    }
    number(piece).or_else(|| fail_point_word(piece))
}

fn leading_percent(piece: Piece<'_>) -> Option<(Piece<'_>, Piece<'_>)> {
    let (number, _) = piece.take_while(|c| c.is_ascii_digit() || c == '.');
    let (share, rest) = piece.split_at(number.text.len() + 1);
    (!number.is_empty() && share.text.ends_with('%')).then_some((share, rest))
}

/// `5`, `-5`, `-EIO`.
fn number(piece: Piece<'_>) -> Option<ActionError> {
    let unsigned = piece.text.strip_prefix('-').unwrap_or(piece.text);
    let signed = unsigned.len() != piece.text.len();
    if signed && let Some(errno) = Errno::by_name(unsigned) {
        return Some(ActionError::SignedErrno(piece.span(), errno.to_string()));
    }
    let number: u64 = unsigned
        .parse()
        .ok()
        .filter(|_| !unsigned.starts_with('+'))?;
    let errno = Errno::new(number).ok();
    let help = match errno {
        Some(errno) if signed => match errno.name() {
            Some(name) => format!("for that error, write `{name}` or `error:{number}`"),
            None => format!("for that error, write `error:{number}`"),
        },
        Some(errno) => match errno.name() {
            Some(name) => {
                format!(
                    "for the error, write `{name}` or `error:{number}`; for the result, `ret:{number}`"
                )
            }
            None => {
                format!("for the error, write `error:{number}`; for the result, `ret:{number}`")
            }
        },
        None => format!("for the result, write `ret:{number}`; a count comes after `@`"),
    };
    Some(ActionError::BareNumber(piece.span(), help))
}

/// `return(5)`, `sleep("10s")`, `override(-5)`, `delay(20ms)`.
fn call_like(piece: Piece<'_>, open: &str) -> Option<ActionError> {
    let (_, argument) = piece.text.split_once('(')?;
    let argument = argument
        .trim()
        .trim_end_matches(')')
        .trim()
        .trim_matches(['"', '\'']);
    let share = leading_percent(Piece::new(open, 0)).map(|(share, _)| share.text.to_owned());
    let word = open
        .trim_start_matches(|c: char| !c.is_ascii_alphabetic())
        .to_lowercase();
    let meant = match word.as_str() {
        "return" | "ret" | "override" => result_of(argument),
        "error" | "fail" | "errno" => result_of(argument).map(|meant| errno_if_number(&meant)),
        "sleep" | "delay" => fail_point_time(argument).map(|time| format!("delay:{time}")),
        "signal" | "raise" => strace_action("signal", argument),
        "panic" | "kill" | "exit" => Some("kill".to_owned()),
        "pause" | "hold" => Some("hold".to_owned()),
        _ => None,
    };
    let help = match (meant, &share) {
        (Some(meant), Some(share)) => Some(format!(
            "write `{meant}`, and after the whole chain `@{share}`"
        )),
        (Some(meant), None) => Some(format!("write `{meant}`")),
        (None, _) if word == "print" => {
            Some("every firing is reported anyway; leave it out".to_owned())
        }
        (None, _) => Some("an action takes its value after `:`, as `delay:20ms`".to_owned()),
    };
    let spelled = piece.text.to_owned();
    if word == "override" {
        return Some(ActionError::BpftraceAction(piece.span(), help));
    }
    Some(ActionError::FailPointAction(piece.span(), spelled, help))
}

/// What a program is given back: `5`, `-5`, `EIO`, `-EIO`.
fn result_of(argument: &str) -> Option<String> {
    let unsigned = argument.trim_start_matches('-');
    if let Some(errno) = Errno::by_name(unsigned) {
        return Some(errno.to_string());
    }
    let number: u64 = if argument.is_empty() {
        0
    } else {
        unsigned.parse().ok()?
    };
    if unsigned.len() == argument.len() {
        return RetValue::new(number).map(|value| format!("ret:{}", value.get()));
    }
    Errno::new(number).ok().map(|errno| errno.to_string())
}

/// A time without a unit is in milliseconds there.
fn fail_point_time(argument: &str) -> Option<String> {
    let nowhere: Span = (0, 0).into();
    let with_unit = format!("{argument}ms");
    let time = value::duration(argument, nowhere)
        .or_else(|_| value::duration(&with_unit, nowhere))
        .ok()?;
    Some(Plain(time).to_string())
}

fn fail_point_word(piece: Piece<'_>) -> Option<ActionError> {
    let help = match piece.text {
        "return" => "for a success without the call, write `ret:0`; for an error, its errno",
        "panic" | "break" => "to end the process, write `kill`",
        "pause" => "write `hold`, which waits until it is released",
        "yield" => "write `delay:1us`",
        "sleep" => "write `delay:20ms`",
        "print" => "every firing is reported anyway; to let calls pass, write `off`",
        _ => return None,
    };
    Some(ActionError::FailPointAction(
        piece.span(),
        piece.text.to_owned(),
        Some(help.to_owned()),
    ))
}

/// `error=EIO`, `delay=20ms`, `EIO=...`.
fn key_value(piece: Piece<'_>, key: Piece<'_>, value: Piece<'_>) -> ActionError {
    let strace_keys = [
        "error",
        "retval",
        "signal",
        "delay_enter",
        "delay_exit",
        "poke_enter",
        "poke_exit",
        "syscall",
        "when",
    ];
    if key.text == "when" || key.text.ends_with(":when") {
        let help = if key.text == "when" {
            format!("a count comes last, after `@`: `@{}`", value.text)
        } else {
            format!(
                "write `{}@{}`",
                key.text.trim_end_matches(":when"),
                value.text
            )
        };
        return ActionError::StraceAction(piece.span(), piece.text.to_owned(), Some(help));
    }
    if strace_keys.contains(&key.text) {
        let (first, rest) = value
            .split_once(":")
            .map_or((value, None), |(a, b)| (a, Some(b)));
        let when = rest.and_then(|rest| rest.text.strip_prefix("when="));
        let help = match (strace_action(key.text, first.text), key.text, when) {
            (Some(meant), _, Some(when)) => Some(format!("write `{meant}@{when}`")),
            (Some(meant), ..) => Some(format!("write `{meant}`")),
            (None, "poke_enter" | "poke_exit", _) => {
                Some("memory is not overwritten; `corrupt:8` flips bits of the data".to_owned())
            }
            (None, "syscall", _) => {
                Some("for a success without the call, write `ret:0`".to_owned())
            }
            (None, "retval", _) => {
                Some("a result is 0 or more: `ret:0`; an error is its errno".to_owned())
            }
            (None, "error", _) => Some("an error is written as its errno: `EIO`".to_owned()),
            _ => None,
        };
        return ActionError::StraceAction(piece.span(), piece.text.to_owned(), help);
    }
    let meant = match key.text {
        "errno" | "err" => {
            result_of(value.text).map_or_else(|| "EIO".to_owned(), |meant| errno_if_number(&meant))
        }
        "return" | "result" => result_of(value.text).unwrap_or_else(|| "ret:0".to_owned()),
        "" => value.text.to_owned(),
        key => format!("{key}:{}", value.text),
    };
    let at = piece.from(piece.text.find('=').unwrap_or(0)).split_at(1).0;
    ActionError::EqualsInAction(at.span(), meant)
}

/// Words that mean an action elsewhere, with what to write.
pub(super) fn word(name: &str, value: Option<&str>) -> Option<String> {
    let value = value.unwrap_or_default();
    let with = |action: &str, example: &str| {
        let value = if value.is_empty() { example } else { value };
        Some(format!("write `{action}:{value}`"))
    };
    match name.to_lowercase().as_str() {
        "sleep" | "wait" | "latency" | "slow" | "lag" | "delay_enter" => with("delay", "20ms"),
        "delay_exit" | "delay_after" => with("after:delay", "20ms"),
        "block" | "pause" | "park" | "freeze" | "hang" | "stall" => {
            if value.is_empty() {
                Some("write `hold`".to_owned())
            } else {
                with("hold", "10s")
            }
        }
        "sig" | "raise" => with("signal", "SIGTERM"),
        "errno" | "err" | "fail" | "inject" => match result_of(value) {
            Some(meant) if !value.is_empty() => {
                Some(format!("write `{}`", errno_if_number(&meant)))
            }
            _ => Some("an error is written as its errno: `EIO`".to_owned()),
        },
        "return" | "retval" | "result" | "rc" => match result_of(value) {
            Some(meant) => Some(format!("write `{meant}`")),
            None => Some("write `ret:0`, or an errno".to_owned()),
        },
        "crash" | "panic" | "die" | "abort" | "exit" | "terminate" => {
            Some("write `kill`".to_owned())
        }
        "pass" | "ok" | "none" | "skip" | "nop" | "noop" | "continue" | "allow" => Some(
            "to let a call pass, write `off`; for a success without the call, `ret:0`".to_owned(),
        ),
        "success" | "succeed" | "drop" | "ignore" => {
            Some("for a success without the call, write `ret:0`".to_owned())
        }
        "partial" | "truncate" | "cut" | "torn" => with("short", "50%"),
        "flip" | "bitflip" | "garble" | "mangle" => with("corrupt", "8"),
        "suspend" => Some("write `stop`".to_owned()),
        "eof" => Some("write `ret:0`".to_owned()),
        "timeout" => Some("for the error write `ETIMEDOUT`, for a wait `delay:30s`".to_owned()),
        "enospace" | "diskfull" | "nospace" | "nospc" => Some("write `ENOSPC`".to_owned()),
        _ => None,
    }
}

/// `errno:5` means the error, not the result.
fn errno_if_number(meant: &str) -> String {
    let number = meant.strip_prefix("ret:").and_then(|n| n.parse().ok());
    match number.and_then(|n| Errno::new(n).ok()) {
        Some(errno) => errno.to_string(),
        None => meant.to_owned(),
    }
}
