//! Reading the predicates between `(` and `)`.

use std::{borrow::Cow, net::IpAddr};

use crate::rule::{
    address::{AddressPattern, IpNet},
    ast::{ArgIndex, ArgOp, ArgValue, Comm, CommOf, Node, Predicate, Side, SocketEnd, Span},
    error::{PredicateError, RuleError, ValueError},
    glob::Glob,
    near::did_you_mean,
    vars::Vars,
};

use super::{
    outline::Outline,
    piece::{Piece, is_word},
    value::{self, Put},
};

type Read<T> = Result<T, RuleError>;

const KEYS: &[&str] = &[
    "path", "from", "to", "fd", "peer", "addr", "arg1", "arg2", "arg3", "arg4", "arg5", "arg6",
    "comm", "thread", "exe", "uid",
];

pub(super) fn predicates(
    outline: &Outline<'_>,
    vars: Vars<'_>,
    errors: &mut Vec<RuleError>,
) -> Vec<Node<Predicate>> {
    let Some(preds) = &outline.preds else {
        return Vec::new();
    };
    let mut found: Vec<Node<Predicate>> = Vec::new();
    if !preds.closed {
        errors.push(PredicateError::Unclosed(preds.open.span()).into());
        return found;
    }
    if let [only] = preds.pieces.as_slice()
        && only.trim().is_empty()
    {
        let span = (preds.open.at, only.text.len() + 2).into();
        errors.push(PredicateError::Empty(span).into());
        return found;
    }
    for piece in &preds.pieces {
        let trimmed = piece.trim();
        if trimmed.is_empty() {
            let comma = (piece.at.saturating_sub(1), 1).into();
            errors.push(PredicateError::EmptyPredicate(comma).into());
            continue;
        }
        match predicate(trimmed, vars) {
            Ok(node) => match found.iter().find(|earlier| earlier.node == node) {
                Some(first) => {
                    errors.push(PredicateError::Duplicate(trimmed.span(), first.span).into());
                }
                None => found.push(Node {
                    node,
                    span: trimmed.span(),
                }),
            },
            Err(error) => errors.push(error),
        }
    }
    found
}

/// Where a value goes on with another condition after a word of other languages.
pub(super) fn joined_at(text: &str) -> Option<(usize, usize)> {
    ["&&", "||", " and ", " or ", " AND ", " OR "]
        .iter()
        .find_map(|word| {
            text.match_indices(word).find_map(|(at, _)| {
                let rest = text[at + word.len()..].trim_start();
                let key = rest.split(|c| !is_word(c)).next().unwrap_or_default();
                let after = rest[key.len()..].trim_start();
                let compared = after.starts_with(['=', '!', '<', '>']);
                (KEYS.contains(&key) && compared).then_some((at, word.len()))
            })
        })
}

fn predicate(piece: Piece<'_>, vars: Vars<'_>) -> Read<Predicate> {
    let (key, rest) = piece.take_while(is_word);
    let rest = rest.trim();
    let (operator, raw) = rest.take_while(|c| matches!(c, '=' | '!' | '<' | '>' | '&' | '~' | ':'));
    if key.is_empty() || !(KEYS.contains(&key.text) || is_arg(key.text)) {
        if let Some(error) = value::looks_like(piece.split_at(key.text.len() + 4).0) {
            return Err(error.into());
        }
        return Err(unknown_key(key, piece, raw.trim().text).into());
    }
    // `arg1=-5` and `path=!x`: only what belongs to the operator.
    let (operator, raw) = split_operator(rest, operator, raw);
    if operator.is_empty() {
        if let Some(error) = value::looks_like(rest.split_at(4).0) {
            return Err(error.into());
        }
        let help = format!("as `{}={}`", key.text, example(key.text));
        return Err(
            PredicateError::MissingOperator(piece.span(), key.text.to_owned(), Some(help)).into(),
        );
    }
    let raw = raw.trim();
    if raw.is_empty() {
        return Err(PredicateError::EmptyValue(operator.span()).into());
    }
    if !raw.text.starts_with('"')
        && let Some((at, len)) = joined_at(raw.text)
    {
        return Err(PredicateError::Joined(raw.from(at).split_at(len).0.trim().span()).into());
    }
    if is_arg(key.text) {
        return arg(key, operator, raw, vars);
    }
    let negated = match operator.text {
        "=" => false,
        "!=" => true,
        "<" | "<=" | ">" | ">=" | "&" => {
            return Err(PredicateError::WrongOperator(operator.span(), key.text.to_owned()).into());
        }
        _ => return Err(unknown_operator(operator).into()),
    };
    named(key, negated, raw, vars)
}

fn named(key: Piece<'_>, negated: bool, raw: Piece<'_>, vars: Vars<'_>) -> Read<Predicate> {
    let plain = |put| Ok::<_, RuleError>(value::expand(unquote(raw)?, raw, vars, put)?);
    let span = raw.span();
    Ok(match key.text {
        "path" | "from" | "to" => {
            let side = match key.text {
                "from" => Side::From,
                "to" => Side::To,
                _ => Side::Any,
            };
            Predicate::Path {
                side,
                negated,
                glob: glob(&plain(Put::InGlob)?, span)?,
            }
        }
        "exe" => Predicate::Exe {
            negated,
            glob: glob(&plain(Put::InGlob)?, span)?,
        },
        "fd" => Predicate::Fd {
            negated,
            fd: fd(&plain(Put::Plain)?, span)?,
        },
        "uid" => Predicate::Uid {
            negated,
            uid: uid(&plain(Put::Plain)?, span)?,
        },
        "peer" | "addr" => {
            let end = if key.text == "peer" {
                SocketEnd::Peer
            } else {
                SocketEnd::Local
            };
            let text = unquote(raw)?;
            let put = if text.starts_with("unix:") {
                Put::InGlob
            } else {
                Put::Plain
            };
            let text = value::expand(text, raw, vars, put)?;
            Predicate::Socket {
                end,
                negated,
                address: address(&text, span)?,
            }
        }
        _ => {
            let of = if key.text == "comm" {
                CommOf::Process
            } else {
                CommOf::Thread
            };
            let quoted = raw.text.starts_with('"');
            let text = plain(Put::Plain)?;
            Predicate::Comm {
                of,
                negated,
                comm: comm(&text, key.text, quoted, span)?,
            }
        }
    })
}

fn is_arg(key: &str) -> bool {
    key.strip_prefix("arg")
        .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// The operator is the longest known one; what follows belongs to the value.
fn split_operator<'a>(rest: Piece<'a>, run: Piece<'a>, raw: Piece<'a>) -> (Piece<'a>, Piece<'a>) {
    for known in [
        "==", "=~", "!~", "=<", "=>", "<>", "&&", "!=", "<=", ">=", ":=", "&=", "=", "<", ">", "&",
    ] {
        // `path=~/x` means a home directory, not an operator.
        if known == "=~" && rest.text.starts_with("=~/") {
            continue;
        }
        if run.text.starts_with(known) {
            return rest.split_at(known.len());
        }
    }
    (run, raw)
}

fn unknown_operator(operator: Piece<'_>) -> PredicateError {
    let help = match operator.text {
        "==" | ":" | ":=" => "write `=`",
        "=~" | "~" => "a pattern is compared with `=` too: `path=/data/*`",
        "!~" | "<>" | "!" => "write `!=`",
        "=<" => "write `<=`",
        "=>" => "write `>=`",
        "&&" | "&=" => "write `&`: any of these bits is set",
        _ => "write `=` or `!=`",
    };
    PredicateError::UnknownOperator(operator.span(), operator.text.to_owned(), help.to_owned())
}

fn unknown_key(key: Piece<'_>, piece: Piece<'_>, raw: &str) -> PredicateError {
    let raw = if raw.is_empty() { "..." } else { raw };
    let help = match key.text {
        "" => Some("a condition is a word, an operator and a value: `path=*.db`".to_owned()),
        "file" | "filename" | "name" | "pathname" | "glob" => Some(format!("write `path={raw}`")),
        "dir" | "directory" | "under" => Some(format!("write `path={}/**`", raw.trim_end_matches('/'))),
        "ext" | "suffix" => Some(format!("write `path=*{raw}`")),
        "oldpath" | "old" | "source" => Some(format!("write `from={raw}`")),
        "newpath" | "new" | "target" => Some(format!("write `to={raw}`")),
        "pid" | "tgid" => Some("which processes are meant is said outside of the rule: `--pid`".to_owned()),
        "tid" => Some("a thread is named by `thread=NAME`".to_owned()),
        "process" | "procname" | "proc" => Some(format!("write `comm={raw}`")),
        "binary" | "program" | "cmd" | "command" => Some(format!("write `exe={raw}`")),
        "user" | "euid" => Some("write `uid=N`, the number of the user".to_owned()),
        "ip" | "host" | "dst" | "dest" | "remote" | "raddr" => Some(format!("write `peer={raw}`")),
        "port" | "dport" => Some(format!("write `peer=:{raw}`")),
        "src" | "local" | "laddr" | "bind" => Some(format!("write `addr={raw}`")),
        "sport" => Some(format!("write `addr=:{raw}`")),
        "size" | "len" | "length" | "count" | "bytes" => {
            Some("write the argument by its number: the length of read, write, send and recv is `arg3`, as in `arg3>=4k`".to_owned())
        }
        "flags" | "flag" | "mode" => {
            Some("write the argument by its number: the flags of openat are `arg3&O_SYNC`".to_owned())
        }
        "arg" | "args" | "a" => Some("arguments are `arg1` to `arg6`: `arg3>=4k`".to_owned()),
        "when" | "max" | "per" | "start" | "for" => {
            Some(format!("conditions on counts and time come last: `=EIO@{}:{raw}`", key.text))
        }
        "ret" | "retval" | "error" | "errno" => {
            Some("a rule decides before the call's result is known".to_owned())
        }
        text => did_you_mean(text, KEYS.iter().copied()),
    };
    let (span, text) = if key.is_empty() {
        (piece.span(), piece.text)
    } else {
        (key.span(), key.text)
    };
    PredicateError::UnknownKey(span, text.to_owned(), help)
}

fn example(key: &str) -> &'static str {
    match key {
        "path" => "*.db",
        "from" | "to" => "*/CURRENT",
        "fd" => "3",
        "peer" => "10.0.0.7:5432",
        "addr" => ":8080",
        "comm" => "redis-server",
        "thread" => "bio_aof",
        "exe" => "/usr/bin/redis-*",
        "uid" => "1000",
        _ => "4k",
    }
}

/// The text of a value, without its quotes.
fn unquote(raw: Piece<'_>) -> Read<Cow<'_, str>> {
    if let Some((c @ ('“' | '”' | '‘' | '’' | '\''), at)) = raw.find_char(|_| true) {
        let help = Some("a value is quoted with `\"`".to_owned());
        return Err(ValueError::LooksLike(at.span(), c, "\"", help).into());
    }
    let Some(inside) = raw.strip_prefix("\"") else {
        return Ok(Cow::Borrowed(raw.text));
    };
    let mut out = String::new();
    let mut chars = inside.text.char_indices();
    loop {
        match chars.next() {
            None => return Err(PredicateError::UnclosedQuote(raw.span()).into()),
            Some((at, '"')) => {
                let rest = inside.from(at + 1).trim();
                if rest.is_empty() {
                    return Ok(Cow::Owned(out));
                }
                return Err(PredicateError::QuoteInside(rest.span()).into());
            }
            Some((at, '\\')) => match chars.next() {
                Some((_, c @ ('"' | '\\'))) => out.push(c),
                Some((_, c)) => {
                    let escape = inside.from(at).split_at(1 + c.len_utf8()).0;
                    return Err(PredicateError::BadEscape(escape.span(), c).into());
                }
                None => return Err(PredicateError::UnclosedQuote(raw.span()).into()),
            },
            Some((_, c)) => out.push(c),
        }
    }
}

fn glob(text: &str, span: Span) -> Read<Glob> {
    if text.starts_with('~') {
        return Err(PredicateError::Tilde(span).into());
    }
    for prefix in ["./", "../"] {
        if text.starts_with(prefix) {
            return Err(PredicateError::RelativeGlob(span, prefix.to_owned()).into());
        }
    }
    Glob::new(text).map_err(|words| PredicateError::BadGlob(span, words).into())
}

fn fd(text: &str, span: Span) -> Read<u32> {
    let help = match text {
        "stdin" => Some("write `fd=0`"),
        "stdout" => Some("write `fd=1`"),
        "stderr" => Some("write `fd=2`"),
        "AT_FDCWD" | "-100" => {
            Some("a directory descriptor is compared as an argument: `arg1=-100`")
        }
        _ => None,
    };
    let bad = || PredicateError::BadFd(span, help.map(str::to_owned)).into();
    let number = value::number(text, span, false).map_err(|error| match error {
        ValueError::BadNumber(..) => bad(),
        other => RuleError::from(other),
    })?;
    i32::try_from(number)
        .ok()
        .and_then(|fd| u32::try_from(fd).ok())
        .ok_or_else(bad)
}

fn uid(text: &str, span: Span) -> Read<u32> {
    let help = match text {
        "root" => "write `uid=0`".to_owned(),
        name => format!("`id -u {name}` says which"),
    };
    let known = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let bad = || PredicateError::BadUid(span, known.then(|| help.clone())).into();
    let number = value::number(text, span, false).map_err(|error| match error {
        ValueError::BadNumber(..) => bad(),
        other => RuleError::from(other),
    })?;
    u32::try_from(number).map_err(|_| bad())
}

fn comm(text: &str, key: &str, quoted: bool, span: Span) -> Read<Comm> {
    if !quoted && text.contains(['*', '?']) {
        return Err(PredicateError::CommPattern(span, key.to_owned()).into());
    }
    Comm::new(text).ok_or_else(|| {
        if text.is_empty() || text.contains('\0') {
            return PredicateError::EmptyValue(span).into();
        }
        let mut end = Comm::MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        PredicateError::CommTooLong(span, text[..end].to_owned(), text.len()).into()
    })
}

fn arg(key: Piece<'_>, operator: Piece<'_>, raw: Piece<'_>, vars: Vars<'_>) -> Read<Predicate> {
    let index = key.from("arg".len());
    let arg = index
        .text
        .parse()
        .ok()
        .and_then(ArgIndex::new)
        .ok_or_else(|| {
            let help = (index.text == "0")
                .then(|| "they are counted from 1: the first is `arg1`".to_owned());
            PredicateError::BadArgIndex(key.span(), help)
        })?;
    let op = match operator.text {
        "=" => ArgOp::Equal,
        "!=" => ArgOp::NotEqual,
        "<" => ArgOp::Below,
        "<=" => ArgOp::AtMost,
        ">" => ArgOp::Above,
        ">=" => ArgOp::AtLeast,
        "&" => ArgOp::AnyBit,
        _ => return Err(unknown_operator(operator).into()),
    };
    let text = value::expand(unquote(raw)?, raw, vars, Put::Plain)?;
    let span = raw.span();
    if text.contains('|') {
        let names: Vec<&str> = text.split('|').map(str::trim).collect();
        let any = names
            .iter()
            .map(|name| format!("arg{}&{name}", arg.get()))
            .collect::<Vec<_>>();
        let help = match op {
            ArgOp::AnyBit => {
                "for any of several bits, write the number that holds them all".to_owned()
            }
            _ => format!("for all of them, write `{}`", any.join(",")),
        };
        return Err(PredicateError::FlagsJoined(span, Some(help)).into());
    }
    let flag = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(is_word);
    let value = if flag {
        ArgValue::Flag(text.into_owned())
    } else {
        ArgValue::Integer(value::integer(&text, span)?)
    };
    Ok(Predicate::Arg { arg, op, value })
}

fn address(text: &str, span: Span) -> Read<AddressPattern> {
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(PredicateError::EmptyValue(span).into());
        }
        return Ok(AddressPattern::Unix(glob(path, span)?));
    }
    if text.starts_with('/') || text.starts_with('@') {
        let help = format!("for a unix socket, write `unix:{text}`");
        return Err(PredicateError::BadAddress(span, help).into());
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let help = format!("leave out `{scheme}://`: `{rest}`");
        return Err(PredicateError::BadAddress(span, help).into());
    }
    if let Some(port) = text.strip_prefix(':')
        && !port.starts_with(':')
    {
        return Ok(AddressPattern::Ip {
            net: None,
            port: Some(read_port(port, span)?),
        });
    }
    if let Some(inside) = text.strip_prefix('[') {
        let Some((net, rest)) = inside.split_once(']') else {
            return Err(PredicateError::BadAddress(span, "a `[` is not closed".to_owned()).into());
        };
        let net = Some(network(net, span)?);
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(read_port(port, span)?),
            None if rest.is_empty() => None,
            None => {
                let help = "after `]` comes `:PORT`; the prefix length stands inside: `[2001:db8::/32]:443`";
                return Err(PredicateError::BadAddress(span, help.to_owned()).into());
            }
        };
        return Ok(AddressPattern::Ip { net, port });
    }
    // An IPv6 address without a port, or one whose port cannot be told from it.
    if text.matches(':').count() > 1 {
        return match network(text, span) {
            Ok(net) => Ok(AddressPattern::Ip {
                net: Some(net),
                port: None,
            }),
            Err(RuleError::Predicate(PredicateError::BadAddress(..))) => {
                Err(PredicateError::Brackets(span).into())
            }
            Err(other) => Err(other),
        };
    }
    let (net, port) = match text.split_once(':') {
        Some((net, port)) => (net, Some(read_port(port, span)?)),
        None => (text, None),
    };
    if net == "*" {
        return match port {
            Some(port) => Err(PredicateError::BadAddress(
                span,
                format!("any address with this port is `:{port}`"),
            )
            .into()),
            None => Err(PredicateError::BadAddress(
                span,
                "for any address, leave the condition out".to_owned(),
            )
            .into()),
        };
    }
    Ok(AddressPattern::Ip {
        net: Some(network(net, span)?),
        port,
    })
}

fn network(text: &str, span: Span) -> Read<IpNet> {
    let (base, len) = text
        .split_once('/')
        .map_or((text, None), |(base, len)| (base, Some(len)));
    let Ok(address) = base.parse::<IpAddr>() else {
        let named = base.starts_with(|c: char| c.is_ascii_alphabetic())
            && base
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
        if named && !base.contains(':') {
            return Err(PredicateError::HostName(span).into());
        }
        if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
            return Err(
                PredicateError::BadAddress(span, format!("a port is written `:{text}`")).into(),
            );
        }
        if base.contains('*') {
            let parts: Vec<&str> = base.split('.').take_while(|part| *part != "*").collect();
            let zeros = format!(
                "{}{}",
                parts.join("."),
                ".0".repeat(4usize.saturating_sub(parts.len()))
            );
            let zeros = zeros.trim_start_matches('.');
            let help = format!(
                "networks are written with a prefix length: `{zeros}/{}`",
                parts.len() * 8
            );
            return Err(PredicateError::BadAddress(span, help).into());
        }
        let help = "an address is written `10.0.0.7`, `10.0.0.0/8`, `2001:db8::1`, with a port `10.0.0.7:5432`, `[2001:db8::1]:443`";
        return Err(PredicateError::BadAddress(span, help.to_owned()).into());
    };
    let max = IpNet::max_len(address);
    let len = match len {
        None => max,
        Some(len) => len
            .parse()
            .ok()
            .filter(|n| *n <= max && !len.starts_with('+'))
            .ok_or(PredicateError::BadPrefix(span, max))?,
    };
    IpNet::new(address, len).ok_or_else(|| {
        PredicateError::HostBits(span, format!("{}/{len}", IpNet::masked(address, len))).into()
    })
}

fn read_port(text: &str, span: Span) -> Read<u16> {
    let known = match text {
        "http" => Some(80),
        "https" => Some(443),
        "postgres" | "postgresql" => Some(5432),
        "mysql" => Some(3306),
        "redis" => Some(6379),
        "dns" | "domain" => Some(53),
        "ssh" => Some(22),
        _ => None,
    };
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = if digits {
        text.parse().ok().filter(|port| *port > 0)
    } else {
        None
    };
    port.ok_or_else(|| {
        let help = match known {
            Some(port) => Some(format!("services are not looked up; write `:{port}`")),
            None if text == "*" => Some("for any port, leave it out".to_owned()),
            None => None,
        };
        PredicateError::BadPort(span, help).into()
    })
}
