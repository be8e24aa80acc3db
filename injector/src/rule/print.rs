//! Rules back to text, in canonical form: no white space, the shortest spelling of each part.
//! What is printed parses to the same rule again.

use std::fmt::{self, Display, Formatter, Write as _};

use super::{
    ast::{
        Action, After, ArgValue, ChainStep, CommOf, Condition, Delay, Item, Predicate, Rule, Scope,
        Select, Short, Side, SocketEnd,
    },
    parse,
    value::Plain,
};

impl<S> Display for Rule<S> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            calls,
            preds,
            chain,
            when,
        } = self;
        joined(f, calls.iter().map(|item| &item.node), ",")?;
        if !preds.is_empty() {
            f.write_char('(')?;
            joined(f, preds.iter().map(|pred| &pred.node), ",")?;
            f.write_char(')')?;
        }
        f.write_char('=')?;
        joined(f, chain, "->")?;
        if !when.is_empty() {
            f.write_char('@')?;
            joined(f, when.iter().map(|condition| &condition.node), ",")?;
        }
        Ok(())
    }
}

fn joined<T: Display>(
    f: &mut Formatter<'_>,
    parts: impl IntoIterator<Item = T>,
    separator: &str,
) -> fmt::Result {
    for (i, part) in parts.into_iter().enumerate() {
        if i > 0 {
            f.write_str(separator)?;
        }
        part.fmt(f)?;
    }
    Ok(())
}

impl Display for Item {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            negated,
            select,
            abi,
        } = self;
        if *negated {
            f.write_char('!')?;
        }
        match select {
            Select::Name(name) => f.write_str(name)?,
            Select::Optional(name) => write!(f, "?{name}")?,
            Select::Class(class) => class.fmt(f)?,
            Select::Regex(regex) => write!(f, "/{}/", escape_slashes(regex))?,
            Select::Number(nr) => nr.fmt(f)?,
        }
        match abi {
            Some(abi) => write!(f, "@{abi}"),
            None => Ok(()),
        }
    }
}

/// Slashes of a regex as they stand between slashes.
fn escape_slashes(regex: &str) -> String {
    let mut out = String::with_capacity(regex.len());
    let mut chars = regex.chars();
    while let Some(c) = chars.next() {
        match c {
            '/' => out.push_str("\\/"),
            '\\' => {
                out.push('\\');
                out.extend(chars.next());
            }
            c => out.push(c),
        }
    }
    out
}

fn equals(negated: bool) -> &'static str {
    if negated { "!=" } else { "=" }
}

impl<V: Display> Display for Predicate<V> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path {
                side,
                negated,
                glob,
            } => {
                let key = match side {
                    Side::Any => "path",
                    Side::From => "from",
                    Side::To => "to",
                };
                write!(f, "{key}{}{}", equals(*negated), Quoted(glob.as_str()))
            }
            Self::Fd { negated, fd } => write!(f, "fd{}{fd}", equals(*negated)),
            Self::Socket {
                end,
                negated,
                address,
            } => {
                let key = match end {
                    SocketEnd::Peer => "peer",
                    SocketEnd::Local => "addr",
                };
                write!(
                    f,
                    "{key}{}{}",
                    equals(*negated),
                    Quoted(&address.to_string())
                )
            }
            Self::Arg { arg, op, value } => write!(f, "arg{}{op}{value}", arg.get()),
            Self::Comm { of, negated, comm } => {
                let key = match of {
                    CommOf::Process => "comm",
                    CommOf::Thread => "thread",
                };
                f.write_str(key)?;
                f.write_str(equals(*negated))?;
                let text = comm.as_str();
                // Without quotes a wildcard is taken for a mistake.
                if text.contains(['*', '?']) {
                    quoted(f, text)
                } else {
                    Quoted(text).fmt(f)
                }
            }
            Self::Exe { negated, glob } => {
                write!(f, "exe{}{}", equals(*negated), Quoted(glob.as_str()))
            }
            Self::Uid { negated, uid } => write!(f, "uid{}{uid}", equals(*negated)),
        }
    }
}

impl Display for ArgValue {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(integer) => integer.fmt(f),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A value that is put in quotes where it would not be read back whole without them.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if parse::is_plain_value(self.0) {
            return f.write_str(self.0);
        }
        quoted(f, self.0)
    }
}

fn quoted(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            f.write_char('\\')?;
        }
        f.write_char(c)?;
    }
    f.write_char('"')
}

impl<S> Display for ChainStep<S> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(repeat) = &self.repeat {
            write!(f, "{}*", repeat.node)?;
        }
        joined(f, self.actions.iter().map(|action| &action.node), "+")
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Error(errno) => errno.fmt(f),
            Self::Ret(value) => write!(f, "ret:{}", value.get()),
            Self::Delay(delay) => write!(f, "delay:{delay}"),
            Self::Hold(None) => f.write_str("hold"),
            Self::Hold(Some(max)) => write!(f, "hold:{}", Plain(*max)),
            Self::Signal(signal) => write!(f, "signal:{signal}"),
            Self::Kill => f.write_str("kill"),
            Self::Stop => f.write_str("stop"),
            Self::Short(Short::Bytes(bytes)) => write!(f, "short:{bytes}"),
            Self::Short(Short::Percent(percent)) => write!(f, "short:{percent}"),
            Self::Corrupt(bits) => write!(f, "corrupt:{bits}"),
            Self::After(after) => write!(f, "after:{}", after.as_action()),
        }
    }
}

impl After {
    /// The action of the same spelling before the call.
    fn as_action(self) -> Action {
        match self {
            Self::Error(errno) => Action::Error(errno),
            Self::Ret(value) => Action::Ret(value),
            Self::Delay(delay) => Action::Delay(delay),
            Self::Hold(max) => Action::Hold(max),
            Self::Kill => Action::Kill,
            Self::Signal(signal) => Action::Signal(signal),
        }
    }
}

impl Display for Delay {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.min() == self.max() {
            return Plain(self.min()).fmt(f);
        }
        write!(f, "{}..{}", Plain(self.min()), Plain(self.max()))
    }
}

impl Display for Condition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Percent(percent) => percent.fmt(f),
            Self::Max(max) => write!(f, "max:{max}"),
            Self::Start(delay) => write!(f, "start:{}", Plain(*delay)),
            Self::For(span) => write!(f, "for:{}", Plain(*span)),
            Self::Per(scope) => write!(f, "per:{scope}"),
        }
    }
}

impl Display for Scope {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rule => "rule",
            Self::Process => "process",
            Self::Thread => "thread",
        })
    }
}
