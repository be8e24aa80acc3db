//! Rule files: TOML with a description, variables, and named rules. Every key is known here; one
//! that is not is a mistake. Messages show the place in the file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    sync::Arc,
};

use miette::Diagnostic;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    ast::Span,
    error::{Source, render},
    near::did_you_mean,
    resolve::{RuleName, RuleText},
    warning::{RuleWarning, Warning},
};

/// A day of the Gregorian calendar; ordered by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// Takes a day; `None` where month or day cannot be.
    pub fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        ((1..=12).contains(&month) && (1..=31).contains(&day)).then_some(Self { year, month, day })
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// A rule file that has been read; its rules are resolved by [`compile`](super::compile).
#[derive(Clone, Debug)]
pub struct RuleFile {
    /// What the file is for.
    pub description: Option<String>,
    /// At least one.
    pub rules: Vec<FileRule>,
}

/// A rule of a file.
#[derive(Clone, Debug)]
pub struct FileRule {
    /// Its name.
    pub name: RuleName,
    /// Its text, with its place in the file.
    pub text: RuleText,
    /// The question it asks.
    pub purpose: Option<String>,
    /// The last day on which it is meant.
    pub expires: Option<Date>,
    /// Whether it is armed from the start.
    pub armed: bool,
    /// Rules of this file that its firing arms.
    pub arms: Vec<RuleName>,
    /// Rules of this file that its firing disarms.
    pub disarms: Vec<RuleName>,
    expires_at: Span,
    source: Source,
}

impl RuleFile {
    /// Reads a file. `name` is what messages call it; `overrides` are variables given outside of
    /// it (`--var`), which must be among its own.
    ///
    /// # Errors
    /// All mistakes of the file but those inside its rules.
    pub fn read(
        name: &str,
        text: &str,
        overrides: &BTreeMap<String, String>,
    ) -> Result<Self, FileErrors> {
        let source = Source {
            name: Some(name.to_owned()),
            text: text.to_owned(),
        };
        let mut reader = Reader {
            source: &source,
            errors: Vec::new(),
        };
        let file = reader.file(overrides);
        let Reader { mut errors, .. } = reader;
        errors.sort_by_key(FileError::start);
        match file {
            Some(file) if errors.is_empty() => Ok(file),
            _ => Err(FileErrors { source, errors }),
        }
    }

    /// A warning for each rule that is past its day.
    pub fn expired(&self, today: Date) -> Vec<RuleWarning> {
        let past = self
            .rules
            .iter()
            .filter_map(|rule| Some((rule, rule.expires?)));
        past.filter(|(_, expires)| *expires < today)
            .map(|(rule, expires)| RuleWarning {
                rule: rule.name.clone(),
                kind: Warning::Expired(rule.expires_at, expires.to_string()),
                source: rule.source.clone(),
            })
            .collect()
    }
}

/// A mistake of a rule file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Diagnostic)]
pub enum FileError {
    /// Not TOML.
    #[error("not TOML: {1}")]
    Toml(#[label("here")] Span, String),
    /// Nothing in it.
    #[error("the rule file is empty")]
    #[diagnostic(help("a rule file has at least one `[[rule]]` with a `name` and a `rule`"))]
    Empty,
    /// No rule in it.
    #[error("the rule file has no rule")]
    #[diagnostic(help("add a `[[rule]]` with a `name` and a `rule`"))]
    NoRules,
    /// A key that means nothing.
    #[error("unknown key `{1}`")]
    UnknownKey(
        #[label("means nothing here")] Span,
        String,
        #[help] Option<String>,
    ),
    /// A key that must be there.
    #[error("a rule needs a `{1}`")]
    MissingKey(#[label("in this rule")] Span, &'static str),
    /// A value of the wrong kind.
    #[error("`{1}` is {2}")]
    WrongType(#[label("{3}")] Span, String, &'static str, &'static str),
    /// Not a name.
    #[error("not a name of a rule")]
    #[diagnostic(help("a name has 1 to 64 letters, digits, `-`, `_` and `.`"))]
    BadName(#[label("cannot be a name")] Span),
    /// A name that another rule has.
    #[error("two rules are named `{2}`")]
    DuplicateName(#[label("again")] Span, #[label("first here")] Span, String),
    /// Not a name of a variable.
    #[error("not a name of a variable")]
    #[diagnostic(help("a name has letters, digits, `-` and `_`"))]
    BadVariable(#[label("cannot stand in `${{ }}`")] Span),
    /// `arms` of a rule that is not there.
    #[error("no rule of this file is named `{1}`")]
    UnknownRule(#[label("not here")] Span, String, #[help] Option<String>),
    /// Rules that arm each other.
    #[error("rules arm each other in a circle")]
    #[diagnostic(help("{1}"))]
    Cycle(#[label("closes the circle")] Span, String),
    /// A variable given from outside that the file has not.
    #[error("the rule file has no variable `{0}`")]
    UnknownOverride(String, #[help] Option<String>),
}

impl FileError {
    fn start(&self) -> usize {
        self.labels()
            .and_then(|mut labels| labels.next())
            .map_or(0, |label| label.offset())
    }
}

/// All mistakes of one rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileErrors {
    source: Source,
    errors: Vec<FileError>,
}

impl FileErrors {
    /// The mistakes, in the order of the file.
    pub fn errors(&self) -> &[FileError] {
        &self.errors
    }

    /// All mistakes as a person reads them, in colour or without.
    pub fn render(&self, colour: bool) -> String {
        let one = |error: &FileError| {
            let report = miette::Report::new(error.clone());
            render(
                report.with_source_code(self.source.clone()).as_ref(),
                colour,
            )
        };
        self.errors.iter().map(one).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for FileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.source.name.as_deref().unwrap_or("the rule file");
        write!(f, "{name} cannot be used as a rule file")
    }
}

impl std::error::Error for FileErrors {}

const FILE_KEYS: &[&str] = &["description", "vars", "rule"];
const RULE_KEYS: &[&str] = &[
    "name", "rule", "purpose", "expires", "armed", "arms", "disarms",
];

type Table<'a, 'i> = &'a DeTable<'i>;
type Value<'a, 'i> = &'a Spanned<DeValue<'i>>;

struct Reader<'s> {
    source: &'s Source,
    errors: Vec<FileError>,
}

fn span(range: Range<usize>) -> Span {
    (range.start, range.len()).into()
}

impl Reader<'_> {
    fn file(&mut self, overrides: &BTreeMap<String, String>) -> Option<RuleFile> {
        let text = &self.source.text;
        if text
            .lines()
            .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
        {
            self.errors.push(FileError::Empty);
            return None;
        }
        let (table, broken) = DeTable::parse_recoverable(text);
        if !broken.is_empty() {
            for error in broken {
                let at = error.span().map_or((0, 0).into(), span);
                self.errors
                    .push(FileError::Toml(at, error.message().to_owned()));
            }
            return None;
        }
        let table = table.get_ref();
        self.known_keys(table, FILE_KEYS);
        let description = table
            .get("description")
            .and_then(|v| self.text("description", v));
        let vars = Arc::new(self.vars(table, overrides));
        let mut rules = Vec::new();
        match table.get("rule") {
            None => self.errors.push(FileError::NoRules),
            Some(value) => match value.get_ref().as_array() {
                None => {
                    let at = span(value.span());
                    let found = value.get_ref().type_str();
                    let error =
                        FileError::WrongType(at, "rule".to_owned(), "a list of tables", found);
                    self.errors.push(error);
                }
                Some(list) => {
                    if list.is_empty() {
                        self.errors.push(FileError::NoRules);
                    }
                    rules = list
                        .iter()
                        .filter_map(|rule| self.rule(rule, &vars))
                        .collect();
                }
            },
        }
        self.names(&rules);
        self.cycles(&rules);
        let rules = rules.into_iter().map(|read| read.rule).collect();
        Some(RuleFile { description, rules })
    }

    fn known_keys(&mut self, table: Table<'_, '_>, known: &[&'static str]) {
        for key in table
            .keys()
            .filter(|key| !known.contains(&key.get_ref().as_ref()))
        {
            let name: &str = key.get_ref();
            let meant = match name {
                "rules" => Some("did you mean `[[rule]]`?".to_owned()),
                "variables" | "var" => Some("did you mean `[vars]`?".to_owned()),
                "enabled" | "active" => Some("did you mean `armed`?".to_owned()),
                "comment" | "doc" | "why" => Some("did you mean `purpose`?".to_owned()),
                name => did_you_mean(name, known.iter().copied()),
            };
            let help = meant.or_else(|| Some(format!("known here: {}", known.join(", "))));
            let error = FileError::UnknownKey(span(key.span()), name.to_owned(), help);
            self.errors.push(error);
        }
    }

    fn wrong(&mut self, key: &str, value: Value<'_, '_>, wanted: &'static str) {
        let found = value.get_ref().type_str();
        let error = FileError::WrongType(span(value.span()), key.to_owned(), wanted, found);
        self.errors.push(error);
    }

    fn text(&mut self, key: &str, value: Value<'_, '_>) -> Option<String> {
        let text = value.get_ref().as_str().map(str::to_owned);
        if text.is_none() {
            self.wrong(key, value, "a string");
        }
        text
    }

    fn vars(
        &mut self,
        table: Table<'_, '_>,
        overrides: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let mut vars = BTreeMap::new();
        if let Some(value) = table.get("vars") {
            match value.get_ref().as_table() {
                None => self.wrong("vars", value, "a table"),
                Some(table) => {
                    for (key, value) in table {
                        let name: &str = key.get_ref();
                        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
                        if name.is_empty() || !name.chars().all(plain) {
                            self.errors.push(FileError::BadVariable(span(key.span())));
                        }
                        let text = self.text(name, value);
                        vars.insert(name.to_owned(), text.unwrap_or_default());
                    }
                }
            }
        }
        for (name, text) in overrides {
            if let Some(value) = vars.get_mut(name) {
                value.clone_from(text);
            } else {
                let help = did_you_mean(name, vars.keys().map(String::as_str));
                self.errors
                    .push(FileError::UnknownOverride(name.clone(), help));
            }
        }
        vars
    }

    fn rule(&mut self, value: Value<'_, '_>, vars: &Arc<BTreeMap<String, String>>) -> Option<Read> {
        let at = span(value.span());
        let Some(table) = value.get_ref().as_table() else {
            self.wrong("rule", value, "a list of tables");
            return None;
        };
        self.known_keys(table, RULE_KEYS);
        let name = match table.get("name") {
            None => {
                self.errors.push(FileError::MissingKey(at, "name"));
                None
            }
            Some(value) => self
                .name("name", value)
                .map(|name| (name, span(value.span()))),
        };
        let purpose = table.get("purpose").and_then(|v| self.text("purpose", v));
        let expires = table
            .get("expires")
            .and_then(|v| self.date(v).map(|date| (date, span(v.span()))));
        let armed = match table.get("armed") {
            None => true,
            Some(value) => value.get_ref().as_bool().unwrap_or_else(|| {
                self.wrong("armed", value, "true or false");
                true
            }),
        };
        let arms = table
            .get("arms")
            .map_or_else(Vec::new, |v| self.list("arms", v));
        let disarms = table
            .get("disarms")
            .map_or_else(Vec::new, |v| self.list("disarms", v));
        let Some(value) = table.get("rule") else {
            self.errors.push(FileError::MissingKey(at, "rule"));
            return None;
        };
        let text = self.text("rule", value)?;
        let (name, name_at) = name?;
        let (source, offset) = self.place(&name, &text, value.span());
        let text = RuleText::in_file(name.clone(), text, source, offset, Arc::clone(vars));
        let plain = |list: &[(RuleName, Span)]| list.iter().map(|(name, _)| name.clone()).collect();
        let rule = FileRule {
            name,
            text,
            purpose,
            expires: expires.map(|(date, _)| date),
            armed,
            arms: plain(&arms),
            disarms: plain(&disarms),
            expires_at: expires.map_or(at, |(_, at)| at),
            source: self.source.clone(),
        };
        Some(Read {
            rule,
            name_at,
            arms,
            disarms,
        })
    }

    /// Where a rule's text stands. Written with escapes, its places cannot be shown in the file,
    /// and are shown in the text alone.
    fn place(&self, name: &RuleName, text: &str, range: Range<usize>) -> (Source, usize) {
        let written = self.source.text.get(range.clone()).unwrap_or_default();
        let quotes = written.len() - written.trim_start_matches(['\'', '"']).len();
        let quotes = if quotes >= 3 { 3 } else { 1 };
        // A line break right after three quotes is no part of the text.
        let inside = written.get(quotes..).unwrap_or_default();
        let skipped = if quotes == 3 {
            inside.len() - inside.trim_start_matches(['\r', '\n']).len()
        } else {
            0
        };
        let start = range.start + quotes + skipped;
        if self
            .source
            .text
            .get(start..)
            .is_some_and(|rest| rest.starts_with(text))
        {
            return (self.source.clone(), start);
        }
        let file = self.source.name.as_deref().unwrap_or("rules");
        (
            Source {
                name: Some(format!("{file}: {name}")),
                text: text.to_owned(),
            },
            0,
        )
    }

    fn name(&mut self, key: &str, value: Value<'_, '_>) -> Option<RuleName> {
        let text = self.text(key, value)?;
        let name = RuleName::new(text);
        if name.is_none() {
            self.errors.push(FileError::BadName(span(value.span())));
        }
        name
    }

    fn list(&mut self, key: &str, value: Value<'_, '_>) -> Vec<(RuleName, Span)> {
        let Some(list) = value.get_ref().as_array() else {
            self.wrong(key, value, "a list of names");
            return Vec::new();
        };
        list.iter()
            .filter_map(|value| Some((self.name(key, value)?, span(value.span()))))
            .collect()
    }

    fn date(&mut self, value: Value<'_, '_>) -> Option<Date> {
        let date = value
            .get_ref()
            .as_datetime()
            .filter(|datetime| datetime.time.is_none())
            .and_then(|datetime| datetime.date)
            .and_then(|date| Date::new(date.year, date.month, date.day));
        if date.is_none() {
            self.wrong("expires", value, "a date without quotes: 2027-06-30");
        }
        date
    }

    /// Names are unique, and those armed and disarmed exist.
    fn names(&mut self, rules: &[Read]) {
        for (i, read) in rules.iter().enumerate() {
            if let Some(first) = rules[..i]
                .iter()
                .find(|other| other.rule.name == read.rule.name)
            {
                let name = read.rule.name.to_string();
                self.errors
                    .push(FileError::DuplicateName(read.name_at, first.name_at, name));
            }
            for (name, at) in read.arms.iter().chain(&read.disarms) {
                if !rules.iter().any(|other| other.rule.name == *name) {
                    let names = rules.iter().map(|other| other.rule.name.as_str());
                    let help = did_you_mean(name.as_str(), names);
                    self.errors
                        .push(FileError::UnknownRule(*at, name.to_string(), help));
                }
            }
        }
    }

    /// Arming must end somewhere.
    fn cycles(&mut self, rules: &[Read]) {
        let mut done: BTreeSet<&RuleName> = BTreeSet::new();
        for read in rules {
            let mut path = Vec::new();
            if let Some(at) = circle(read, rules, &mut path, &mut done) {
                let names: Vec<_> = path.iter().map(|name| format!("`{name}`")).collect();
                let error =
                    FileError::Cycle(at, format!("{} arms the first again", names.join(" arms ")));
                self.errors.push(error);
            }
        }
    }
}

/// A rule with the places that checks between rules need.
struct Read {
    rule: FileRule,
    name_at: Span,
    arms: Vec<(RuleName, Span)>,
    disarms: Vec<(RuleName, Span)>,
}

/// Follows `arms`; `path` is left with the names of the circle, if there is one. Each rule is
/// looked at once.
fn circle<'r>(
    read: &'r Read,
    rules: &'r [Read],
    path: &mut Vec<&'r RuleName>,
    done: &mut BTreeSet<&'r RuleName>,
) -> Option<Span> {
    if !done.insert(&read.rule.name) {
        return None;
    }
    path.push(&read.rule.name);
    for (name, at) in &read.arms {
        if let Some(start) = path.iter().position(|on| *on == name) {
            path.drain(..start);
            return Some(*at);
        }
        if let Some(next) = rules.iter().find(|other| other.rule.name == *name)
            && let Some(at) = circle(next, rules, path, done)
        {
            return Some(at);
        }
    }
    path.pop();
    None
}

#[cfg(test)]
mod tests;
