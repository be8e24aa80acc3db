//! Reading the chain of actions.

use std::num::{NonZeroU32, NonZeroU64};

use crate::{
    rule::{
        ast::{Action, After, ChainStep, Delay, Node, Phase, RetValue, Short},
        error::{ActionError, RuleError, ValueError},
        near::did_you_mean,
        value::Plain,
        vars::Vars,
    },
    syscall::{Errno, ErrnoError, Signal},
};

use super::{
    foreign,
    piece::{Piece, is_word},
    value::{self, Put},
};

type Read<T> = Result<T, RuleError>;

/// Words that are actions, for suggestions.
pub(super) const WORDS: &[&str] = &[
    "off", "error", "ret", "delay", "hold", "signal", "kill", "stop", "short", "corrupt", "after",
];

pub(super) fn chain(
    steps: &[Vec<Piece<'_>>],
    whole: Piece<'_>,
    vars: Vars<'_>,
    errors: &mut Vec<RuleError>,
) -> Vec<ChainStep> {
    let mut chain = Vec::new();
    for (i, pieces) in steps.iter().enumerate() {
        let before = errors.len();
        let step = step(pieces, i + 1 == steps.len(), whole, vars, errors);
        if errors.len() == before {
            chain.extend(step);
        }
    }
    chain
}

fn step(
    pieces: &[Piece<'_>],
    last_step: bool,
    whole: Piece<'_>,
    vars: Vars<'_>,
    errors: &mut Vec<RuleError>,
) -> Option<ChainStep> {
    let (first, rest) = pieces.split_first()?;
    let (repeat, first) = match repeat(first.trim()) {
        Ok(read) => read,
        Err(error) => {
            errors.push(error);
            return None;
        }
    };
    let mut actions = Vec::new();
    let mut pieces = std::iter::once(first)
        .chain(rest.iter().copied())
        .peekable();
    let mut before: Option<Piece<'_>> = None;
    while let Some(piece) = pieces.next() {
        let trimmed = piece.trim();
        if trimmed.is_empty() {
            errors.push(empty(piece, before, repeat.as_ref(), whole).into());
            continue;
        }
        before = Some(trimmed);
        // `signal:SIGRTMIN+3` is one action to those who write it.
        if let Some(next) = pieces.peek()
            && trimmed.text.ends_with("SIGRTMIN")
            && let Ok(number) = next.trim().text.parse::<u8>()
        {
            let end = next.at + next.text.len();
            let span = (trimmed.at, end - trimmed.at).into();
            // The C library's SIGRTMIN is the kernel's third.
            let meant = format!("SIGRT{}", number.saturating_add(2));
            errors.push(ActionError::RealTimeSignal(span, meant).into());
            pieces.next();
            continue;
        }
        let last = last_step && pieces.peek().is_none();
        match action(trimmed, last, whole, vars) {
            Ok(node) => actions.push(Node {
                node,
                span: trimmed.span(),
            }),
            Err(error) => errors.push(error),
        }
    }
    check_phases(&actions, errors);
    Some(ChainStep { repeat, actions })
}

fn empty(
    piece: Piece<'_>,
    before: Option<Piece<'_>>,
    repeat: Option<&Node<NonZeroU32>>,
    whole: Piece<'_>,
) -> ActionError {
    if let (Some(repeat), None) = (repeat, before) {
        return ActionError::EmptyStep(repeat.span, repeat.node.to_string());
    }
    // The separator before it, or the `=`.
    let at = piece.at.saturating_sub(whole.at);
    let start = at.saturating_sub(1);
    let span = whole.from(start).split_at(1).0.span();
    let help = match before {
        Some(before)
            if whole.text[at..].trim_start().starts_with('@') || whole.text.len() == at =>
        {
            Some(format!(
                "leave out the `+` after `{}`; a count with `+` comes after `@`",
                before.text
            ))
        }
        Some(_) => None,
        None => {
            Some("an action is an errno (`EIO`) or a word (`delay:20ms`, `kill`, `off`)".to_owned())
        }
    };
    ActionError::EmptyAction(span, help)
}

/// `N*`, and what follows it.
fn repeat(piece: Piece<'_>) -> Read<(Option<Node<NonZeroU32>>, Piece<'_>)> {
    let Some((number, rest)) = piece.split_once("*") else {
        return Ok((None, piece));
    };
    let number = number.trim();
    if number.text.contains('(') {
        // `sleep(2*3)`: the reader of the action says what is wrong.
        return Ok((None, piece));
    }
    let rest = rest.trim();
    let digits =
        |piece: Piece<'_>| !piece.is_empty() && piece.text.bytes().all(|b| b.is_ascii_digit());
    if digits(rest) && !digits(number) && !number.is_empty() {
        let meant = format!("{}*{}", rest.text, number.text);
        return Err(ActionError::Spelling(piece.span(), piece.text.to_owned(), meant).into());
    }
    if number.text.ends_with('%') && value::percent(number.text, number.span()).is_ok() {
        return Err(ActionError::LeadingPercent(number.span(), number.text.to_owned()).into());
    }
    if !digits(number) {
        let span = if number.is_empty() {
            piece.split_at(1).0.span()
        } else {
            number.span()
        };
        return Err(ActionError::BadRepeat(span).into());
    }
    match value::at_least_one(number.text, number.span()) {
        Ok(node) => Ok((
            Some(Node {
                node,
                span: number.span(),
            }),
            rest,
        )),
        Err(ValueError::Zero(..)) => Err(ActionError::BadRepeat(number.span()).into()),
        Err(error) => Err(error.into()),
    }
}

/// At most one action a phase, and none that the others make impossible.
fn check_phases(actions: &[Node<Action>], errors: &mut Vec<RuleError>) {
    if let [first, second, ..] = actions
        && let Some(off) = actions.iter().find(|action| action.node == Action::Off)
    {
        let other = if off.span == first.span {
            second
        } else {
            first
        };
        errors.push(ActionError::OffCombined(off.span, other.span).into());
        return;
    }
    let with = |test: &dyn Fn(&Action) -> bool| actions.iter().find(|action| test(&action.node));
    for (i, action) in actions.iter().enumerate() {
        let phase = action.node.phase();
        let earlier = actions[..i]
            .iter()
            .find(|earlier| earlier.node.phase() == phase);
        if let (Some(earlier), Some(phase)) = (earlier, phase) {
            errors.push(ActionError::TwoOfPhase(action.span, earlier.span, phase).into());
        }
        let Some(phase) = phase else { continue };
        if phase == Phase::Edit
            && let Some(result) = with(&Action::skips_call)
        {
            errors.push(ActionError::EditWithResult(action.span, result.span).into());
        }
        if matches!(phase, Phase::AfterWait | Phase::AfterSignal) {
            if let Some(kill) = with(&Action::kills) {
                errors.push(ActionError::AfterKill(action.span, kill.span).into());
            } else if let Some(result) = with(&Action::skips_call) {
                let plain = action.node.to_string().replacen("after:", "", 1);
                errors.push(ActionError::AfterSkipped(action.span, result.span, plain).into());
            }
        }
    }
}

fn action(piece: Piece<'_>, last: bool, whole: Piece<'_>, vars: Vars<'_>) -> Read<Action> {
    if let Some(error) = value::looks_like(piece).filter(|_| !piece.text.contains("${")) {
        // `20µs` is a unit, not a mistake; it is not in that list.
        return Err(error.into());
    }
    if let Some(error) = foreign::action(piece, last) {
        return Err(error.into());
    }
    let (name, value) = match piece.split_once(":") {
        Some((name, value)) => (name.trim(), Some(value.trim())),
        None => (piece, None),
    };
    if name.text == "after" {
        return after(piece, value, whole, vars);
    }
    simple(piece, name, value, whole, vars)
}

fn after(
    piece: Piece<'_>,
    value: Option<Piece<'_>>,
    whole: Piece<'_>,
    vars: Vars<'_>,
) -> Read<Action> {
    let inner = match value {
        Some(value) if !value.is_empty() => value,
        _ => {
            return Err(
                ActionError::MissingValue(piece.span(), "after".to_owned(), "after:EIO").into(),
            );
        }
    };
    if let Ok(time) = value::duration(inner.text, inner.span()) {
        let help = format!("write `after:delay:{}`", Plain(time));
        return Err(
            ActionError::UnknownAction(inner.span(), inner.text.to_owned(), Some(help)).into(),
        );
    }
    let action = action(inner, false, whole, vars)?;
    Ok(Action::After(match action {
        Action::Error(errno) => After::Error(errno),
        Action::Ret(value) => After::Ret(value),
        Action::Delay(delay) => After::Delay(delay),
        Action::Hold(max) => After::Hold(max),
        Action::Kill => After::Kill,
        Action::Signal(signal) => After::Signal(signal),
        Action::Off | Action::Stop | Action::Short(_) | Action::Corrupt(_) | Action::After(_) => {
            let word = inner.take_while(is_word).0.text.to_owned();
            return Err(ActionError::NoAfter(piece.span(), word).into());
        }
    }))
}

fn simple(
    piece: Piece<'_>,
    name: Piece<'_>,
    value: Option<Piece<'_>>,
    whole: Piece<'_>,
    vars: Vars<'_>,
) -> Read<Action> {
    let text = name.text;
    let given = match value {
        Some(value) => Some((
            value,
            value::expand(value.text.into(), value, vars, Put::Plain)?,
        )),
        None => None,
    };
    let none = |action: Action| match value {
        None => Ok(action),
        Some(value) => {
            let help = match text {
                "kill" => Some("for a signal, write `signal:SIGTERM`"),
                "stop" => Some("for a wait, write `hold:10s`"),
                "off" => Some("for several calls, write `2*off`"),
                _ => None,
            };
            let span = (
                name.at + text.len(),
                value.at + value.text.len() - name.at - text.len(),
            );
            let help = help.map(str::to_owned);
            Err(ActionError::UnexpectedValue(span.into(), text.to_owned(), help).into())
        }
    };
    let needed = |example: &'static str| {
        given
            .clone()
            .filter(|(_, text)| !text.is_empty())
            .ok_or_else(|| {
                RuleError::from(ActionError::MissingValue(
                    piece.span(),
                    text.to_owned(),
                    example,
                ))
            })
    };
    match text {
        "off" => none(Action::Off),
        "kill" => none(Action::Kill),
        "stop" => none(Action::Stop),
        "error" => {
            let (value, text) = needed("error:5")?;
            if let Some(errno) = Errno::by_name(&text) {
                let meant = errno.to_string();
                return Err(
                    ActionError::Spelling(piece.span(), piece.text.to_owned(), meant).into(),
                );
            }
            if text.starts_with(|c: char| c.is_ascii_alphabetic()) {
                return Err(unknown_errno(value, &text).into());
            }
            Ok(Action::Error(errno_number(value, &text)?))
        }
        "ret" => {
            let (value, text) = needed("ret:0")?;
            Ok(Action::Ret(ret(value, &text)?))
        }
        "delay" => {
            let (value, text) = needed("delay:20ms")?;
            let (min, max) = value::duration_range(&text, value)?;
            Delay::new(min, max).map(Action::Delay).ok_or_else(|| {
                let meant = format!("delay:{}..{}", Plain(max), Plain(min));
                ActionError::ReversedRange(value.span(), meant).into()
            })
        }
        "hold" => match given {
            None => Ok(Action::Hold(None)),
            Some((value, text)) => Ok(Action::Hold(Some(value::duration(&text, value.span())?))),
        },
        "signal" => {
            let (value, text) = needed("signal:SIGTERM")?;
            Ok(Action::Signal(signal(value, &text)?))
        }
        "short" => {
            let (value, text) = needed("short:50%")?;
            if text.ends_with('%') {
                let percent = value::percent(&text, value.span()).map_err(|error| match error {
                    ValueError::PercentRange(span, _)
                        if text.trim_start_matches(['0', '.']) == "%" =>
                    {
                        RuleError::from(ActionError::ShortZero(span))
                    }
                    other => other.into(),
                })?;
                return Ok(Action::Short(Short::Percent(percent)));
            }
            let bytes = value::number(&text, value.span(), true)?;
            let bytes =
                u64::try_from(bytes).map_err(|_| ValueError::TooLarge(value.span(), None))?;
            NonZeroU64::new(bytes)
                .map(|bytes| Action::Short(Short::Bytes(bytes)))
                .ok_or_else(|| ActionError::ShortZero(value.span()).into())
        }
        "corrupt" => {
            let (value, text) = needed("corrupt:1")?;
            value::at_least_one(&text, value.span())
                .map(Action::Corrupt)
                .map_err(|error| match error {
                    ValueError::Zero(span, _) => {
                        ValueError::Zero(span, Some("`corrupt:1` flips one bit".to_owned())).into()
                    }
                    other => other.into(),
                })
        }
        _ => errno_or_unknown(piece, name, value, whole),
    }
}

fn errno_or_unknown(
    piece: Piece<'_>,
    name: Piece<'_>,
    value: Option<Piece<'_>>,
    whole: Piece<'_>,
) -> Read<Action> {
    if let Some(errno) = Errno::by_name(name.text) {
        let Some(value) = value else {
            return Ok(Action::Error(errno));
        };
        if value.text.starts_with(|c: char| c.is_ascii_digit()) && !whole.text.contains('@') {
            let at = piece.at - whole.at;
            let meant = format!("{}{}@{}", &whole.text[..at], name.text, value.text);
            return Err(ActionError::CountAfterColon(value.span(), meant).into());
        }
        let span = (name.at + name.text.len(), value.text.len() + 1).into();
        return Err(ActionError::UnexpectedValue(span, name.text.to_owned(), None).into());
    }
    if name.text.contains("${") {
        return Err(ValueError::MisplacedVariable(piece.span()).into());
    }
    let upper = name.text.to_uppercase();
    let lower = name.text.to_lowercase();
    if let Some(errno) = Errno::by_name(&upper) {
        return Err(
            ActionError::Spelling(name.span(), name.text.to_owned(), errno.to_string()).into(),
        );
    }
    if name.text != lower && WORDS.contains(&lower.as_str()) {
        return Err(ActionError::Spelling(name.span(), name.text.to_owned(), lower).into());
    }
    if internal_errno(&upper) {
        return Err(ActionError::InternalErrno(name.span()).into());
    }
    if let Some(signal) = Signal::by_name(&upper) {
        let help = if signal == Signal::KILL {
            "write `kill`, which the call does not survive either, or `signal:SIGKILL`".to_owned()
        } else {
            format!("write `signal:{signal}`")
        };
        return Err(
            ActionError::UnknownAction(name.span(), name.text.to_owned(), Some(help)).into(),
        );
    }
    if let Some(help) = foreign::word(name.text, value.map(|value| value.text)) {
        return Err(
            ActionError::UnknownAction(name.span(), name.text.to_owned(), Some(help)).into(),
        );
    }
    if let Ok(time) = value::duration(piece.text, piece.span()) {
        let help = format!("write `delay:{}`", Plain(time));
        return Err(
            ActionError::UnknownAction(piece.span(), piece.text.to_owned(), Some(help)).into(),
        );
    }
    let (word, rest) = name.take_while(is_word);
    if !rest.is_empty() {
        if word.is_empty() {
            return Err(
                ActionError::UnknownAction(piece.span(), piece.text.to_owned(), None).into(),
            );
        }
        if Errno::by_name(word.text).is_some() || WORDS.contains(&word.text) {
            return Err(ActionError::Trailing(rest.trim().span()).into());
        }
    }
    if name.text.starts_with('E')
        && name
            .text
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
    {
        return Err(unknown_errno(name, name.text).into());
    }
    let errnos = near_errno(name.text);
    let help = did_you_mean(
        name.text,
        WORDS
            .iter()
            .copied()
            .chain(Errno::names().filter(|_| errnos)),
    );
    let help = help.or_else(|| {
        Some(format!(
            "an action is an errno (`EIO`) or one of {}",
            WORDS.join(", ")
        ))
    });
    Err(ActionError::UnknownAction(name.span(), name.text.to_owned(), help).into())
}

fn near_errno(text: &str) -> bool {
    text.starts_with(['e', 'E']) || text.chars().all(|c| c.is_ascii_uppercase())
}

fn unknown_errno(piece: Piece<'_>, text: &str) -> ActionError {
    if internal_errno(text) {
        return ActionError::InternalErrno(piece.span());
    }
    // Those that are not near in letters.
    let meant = match text {
        "EDISKFULL" | "EFULL" => Some("ENOSPC"),
        "EFAIL" | "EERROR" | "EIOERROR" => Some("EIO"),
        "EINTERRUPTED" | "EINTERRUPT" => Some("EINTR"),
        "ENOTFOUND" => Some("ENOENT"),
        "EREFUSED" => Some("ECONNREFUSED"),
        "ERESET" => Some("ECONNRESET"),
        "EOOM" => Some("ENOMEM"),
        "EREADONLY" => Some("EROFS"),
        _ => None,
    };
    let help = meant
        .map(|name| format!("did you mean `{name}`?"))
        .or_else(|| did_you_mean(text, Errno::names()))
        .or_else(|| {
            Some(
                "errno(3) lists them; one without a name is written by number: `error:200`"
                    .to_owned(),
            )
        });
    ActionError::UnknownErrno(piece.span(), text.to_owned(), help)
}

/// Names of `include/linux/errno.h` that no program is ever shown.
fn internal_errno(name: &str) -> bool {
    matches!(
        name,
        "ERESTARTSYS"
            | "ERESTARTNOINTR"
            | "ERESTARTNOHAND"
            | "ENOIOCTLCMD"
            | "ERESTART_RESTARTBLOCK"
            | "EPROBE_DEFER"
            | "EOPENSTALE"
            | "ENOPARAM"
    )
}

fn errno_number(piece: Piece<'_>, text: &str) -> Read<Errno> {
    if let Some(number) = text.strip_prefix('-') {
        let meant =
            Errno::by_name(number).map_or_else(|| format!("error:{number}"), |e| e.to_string());
        return Err(ActionError::SignedErrno(piece.span(), meant).into());
    }
    let number = value::number(text, piece.span(), false)?;
    let number = u64::try_from(number).unwrap_or(u64::MAX);
    Errno::new(number).map_err(|error| match error {
        ErrnoError::Internal => ActionError::InternalErrno(piece.span()).into(),
        ErrnoError::OutOfRange => {
            let help =
                (number == 0).then(|| "for a success without the call, write `ret:0`".to_owned());
            ActionError::ErrnoRange(piece.span(), help).into()
        }
    })
}

fn ret(piece: Piece<'_>, text: &str) -> Read<RetValue> {
    if let Some(number) = text.strip_prefix('-') {
        let help = match number.parse::<u64>().ok().and_then(|n| Errno::new(n).ok()) {
            Some(errno) => match errno.name() {
                Some(name) => format!("for that error, write `{name}` or `error:{number}`"),
                None => format!("for that error, write `error:{number}`"),
            },
            None => match Errno::by_name(number) {
                Some(errno) => format!("write `{errno}`"),
                None => "an error is written as its errno: `EIO`".to_owned(),
            },
        };
        return Err(ActionError::NegativeRet(piece.span(), help).into());
    }
    if let Some(errno) = Errno::by_name(text) {
        return Err(
            ActionError::Spelling(piece.span(), format!("ret:{text}"), errno.to_string()).into(),
        );
    }
    let number = value::number(text, piece.span(), false)?;
    let range = |help: Option<String>| ActionError::RetRange(piece.span(), help);
    let number = u64::try_from(number).map_err(|_| range(None))?;
    RetValue::new(number).ok_or_else(|| {
        // A 64-bit negative number in hex, as debuggers print errors.
        let errno = Errno::new(number.wrapping_neg()).ok();
        range(errno.map(|errno| format!("this is -{}: write `{errno}`", errno.number()))).into()
    })
}

fn signal(piece: Piece<'_>, text: &str) -> Read<Signal> {
    if let Some(signal) = Signal::by_name(text) {
        return Ok(signal);
    }
    let upper = text.to_uppercase();
    let meant = Signal::by_name(&upper)
        .or_else(|| Signal::by_name(&format!("SIG{upper}")))
        .or_else(|| text.parse().ok().and_then(Signal::new));
    let help = match meant {
        Some(signal) => Some(format!("write `signal:{signal}`")),
        None if upper.contains("RTMIN") => {
            let number = upper.trim_start_matches("SIG").trim_start_matches("RTMIN");
            let number: u8 = number.trim_start_matches(['_', '+']).parse().unwrap_or(0);
            let meant = format!("SIGRT{}", number.saturating_add(2));
            return Err(ActionError::RealTimeSignal(piece.span(), meant).into());
        }
        None if text == "0" => Some("signal 0 only asks whether a process is there".to_owned()),
        None => did_you_mean(&upper, Signal::names())
            .or_else(|| did_you_mean(&format!("SIG{upper}"), Signal::names())),
    };
    Err(ActionError::UnknownSignal(piece.span(), text.to_owned(), help).into())
}
