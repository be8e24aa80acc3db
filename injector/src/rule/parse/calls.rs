//! Reading the set of calls.

use crate::{
    rule::{
        ast::{Item, Node, Select},
        error::{CallError, RuleError, ValueError},
        near::near,
    },
    syscall::{Abi, Class, Sysno},
};

use super::{
    foreign,
    outline::Outline,
    piece::{Piece, is_word},
    value,
};

pub(super) fn items(
    outline: &Outline<'_>,
    whole: Piece<'_>,
    errors: &mut Vec<RuleError>,
) -> Vec<Node<Item>> {
    if let [only] = outline.items.as_slice()
        && only.trim().is_empty()
    {
        let span = whole.from(only.text.len()).split_at(1).0.span();
        errors.push(CallError::MissingCalls(span).into());
        return Vec::new();
    }
    let mut items = Vec::new();
    for piece in &outline.items {
        let trimmed = piece.trim();
        if trimmed.is_empty() {
            // Where nothing is, show the comma before or after it.
            let at = piece.at.saturating_sub(whole.at);
            let comma = whole.from(at.saturating_sub(1)).split_at(1).0;
            errors.push(CallError::EmptyItem(comma.span()).into());
            continue;
        }
        match item(trimmed, whole) {
            Ok(item) => items.push(Node {
                node: item,
                span: trimmed.span(),
            }),
            Err(error) => errors.push(error),
        }
    }
    items
}

fn item(piece: Piece<'_>, whole: Piece<'_>) -> Result<Item, RuleError> {
    let (negated, rest) = match piece.strip_prefix("!") {
        Some(rest) => (true, rest.trim()),
        None => (false, piece),
    };
    if negated && rest.text.starts_with('!') {
        return Err(CallError::TwoMarks(piece.span()).into());
    }
    if let Some(regex) = rest.strip_prefix("/") {
        return regex_item(negated, rest, regex, whole);
    }
    if let Some(error) = value::looks_like(rest) {
        return Err(error.into());
    }
    let (name, abi) = match rest.split_once("@") {
        Some((name, abi)) => (name.trim(), Some(read_abi(abi.trim(), name.trim(), whole)?)),
        None => (rest, None),
    };
    let select = select(name)?;
    Ok(Item {
        negated,
        select,
        abi,
    })
}

fn select(piece: Piece<'_>) -> Result<Select, RuleError> {
    if piece.is_empty() {
        return Err(CallError::EmptyItem(piece.span()).into());
    }
    if piece.text.contains("${") {
        return Err(ValueError::MisplacedVariable(piece.span()).into());
    }
    let marks = piece.take_while(|c| matches!(c, '!' | '?' | '%')).0;
    if marks.text.len() > 1 && marks.text != "%%" {
        return Err(CallError::TwoMarks(marks.span()).into());
    }
    if let Some(class) = piece.strip_prefix("%") {
        return Ok(Select::Class(read_class(class)?));
    }
    let optional = piece.strip_prefix("?");
    let name = optional.unwrap_or(piece).trim();
    if matches!(name.text, "all" | "*" | "any" | "every" | "everything") {
        return Err(CallError::EveryCall(name.span()).into());
    }
    if let Some((_, at)) = name.find_char(|c| matches!(c, '*' | '?' | '[')) {
        let start = name.take_while(is_word).0.text;
        let help = if start.is_empty() {
            "use a class (`%write`), or a regular expression (`/sync$/`)".to_owned()
        } else {
            format!("use a class (`%write`), or a regular expression: `/^{start}/`")
        };
        return Err(CallError::Wildcard(at.span(), help).into());
    }
    let (word, rest) = name.take_while(is_word);
    if let Some(meant) = foreign::call_and_action(name.text) {
        return Err(
            CallError::ExpectedEquals(rest.span(), Some(format!("write `{meant}`"))).into(),
        );
    }
    let after = rest.trim();
    if !after.is_empty() && after.text.len() < rest.text.len() {
        // `fsync fdatasync=EIO`
        let help = format!("join calls with a comma: `{},{}`", word.text, after.text);
        return Err(CallError::ExpectedEquals(after.span(), Some(help)).into());
    }
    if !rest.is_empty() || word.is_empty() {
        return Err(CallError::UnknownCall(name.span(), name.text.to_owned(), None).into());
    }
    let text = word.text.to_owned();
    if optional.is_none() && text.bytes().all(|b| b.is_ascii_digit()) {
        let unknown = CallError::UnknownNumber(word.span(), text.clone(), "64");
        return match text.parse() {
            Ok(nr) if text == "0" || !text.starts_with('0') => Ok(Select::Number(Sysno(nr))),
            _ => Err(unknown.into()),
        };
    }
    Ok(if optional.is_some() {
        Select::Optional(text)
    } else {
        Select::Name(text)
    })
}

fn read_class(piece: Piece<'_>) -> Result<Class, RuleError> {
    Class::by_name(piece.text).ok_or_else(|| {
        let names = || Class::ALL.iter().map(|class| class.name()).chain(["net"]);
        let meant = match piece.text {
            "%stat" => Some("write `%stat,%lstat,%fstat` for every kind of stat".to_owned()),
            "%statfs" => Some("write `%statfs`".to_owned()),
            "io" => Some("write `%read,%write`".to_owned()),
            "all" => Some("take some away from all instead: `!futex=delay:1ms@1%`".to_owned()),
            "disk" | "fs" => Some("write `%read,%write,%sync`".to_owned()),
            "socket" | "sock" | "tcp" | "inet" => Some("did you mean `%network`?".to_owned()),
            "mem" | "mm" => Some("did you mean `%memory`?".to_owned()),
            "proc" => Some("did you mean `%process`?".to_owned()),
            "time" => Some("did you mean `%clock`?".to_owned()),
            "fd" => Some("did you mean `%desc`?".to_owned()),
            text => {
                let near: Vec<String> = near(text, names())
                    .iter()
                    .map(|name| format!("%{name}"))
                    .collect();
                crate::rule::near::alternatives(&near).map(|names| format!("did you mean {names}?"))
            }
        };
        let all: Vec<_> = Class::ALL.iter().map(ToString::to_string).collect();
        let help = meant.or_else(|| Some(format!("classes are {}", all.join(" "))));
        CallError::UnknownClass(piece.span(), piece.text.to_owned(), help).into()
    })
}

fn regex_item(
    negated: bool,
    whole_item: Piece<'_>,
    inside: Piece<'_>,
    whole: Piece<'_>,
) -> Result<Item, RuleError> {
    let mut regex = String::new();
    let mut chars = inside.text.char_indices();
    let end = loop {
        match chars.next() {
            None => return Err(CallError::UnterminatedRegex(whole_item.span()).into()),
            Some((at, '/')) => break at,
            Some((_, '\\')) => match chars.next() {
                Some((_, '/')) => regex.push('/'),
                Some((_, c)) => regex.extend(['\\', c]),
                None => regex.push('\\'),
            },
            Some((_, c)) => regex.push(c),
        }
    };
    let (body, rest) = inside.split_at(end);
    if body.is_empty() {
        return Err(CallError::BadRegex(whole_item.span(), "it is empty".to_owned()).into());
    }
    if let Err(error) = regex_lite::Regex::new(&regex) {
        return Err(CallError::BadRegex(body.span(), error.to_string()).into());
    }
    let rest = rest.from(1).trim();
    let abi = match rest.strip_prefix("@") {
        Some(abi) => Some(read_abi(abi.trim(), whole_item.split_at(end + 2).0, whole)?),
        None if rest.is_empty() => None,
        None => return Err(CallError::ExpectedEquals(rest.span(), None).into()),
    };
    Ok(Item {
        negated,
        select: Select::Regex(regex),
        abi,
    })
}

fn read_abi(piece: Piece<'_>, name: Piece<'_>, whole: Piece<'_>) -> Result<Abi, RuleError> {
    match piece.text {
        "64" => Ok(Abi::X86_64),
        "32" => Ok(Abi::I386),
        "x32" => Err(CallError::X32(piece.span()).into()),
        text if text.starts_with(|c: char| c.is_ascii_digit()) && !matches!(text, "16" | "386") => {
            // The rule with the count moved to its end.
            let start = name.at + name.text.len() - whole.at;
            let end = piece.at + text.len() - whole.at;
            let (before, after) = (&whole.text[..start], whole.text[end..].trim());
            let after = if after.contains('=') { after } else { "=EIO" };
            Err(CallError::CountInCalls(piece.span(), format!("{before}{after}@{text}")).into())
        }
        text => Err(CallError::BadAbi(piece.span(), text.to_owned()).into()),
    }
}
