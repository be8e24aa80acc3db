//! Every mistake a rule may hold, one variant each, with its place, what is wrong, and where it
//! can be known what was meant. [`RuleErrors`] is all that is wrong with one rule.

mod action;
mod calls;
mod predicate;
mod value;
mod when;

use std::fmt;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, Severity, SourceCode, ThemeCharacters,
    ThemeStyles,
};

pub use self::{
    action::ActionError, calls::CallError, predicate::PredicateError, value::ValueError,
    when::WhenError,
};
use super::ast::Span;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Diagnostic)]
pub enum RuleError {
    /// In the set of calls, or in the rule as a whole.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Call(#[from] CallError),
    /// In `( )`.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Predicate(#[from] PredicateError),
    /// In the chain of actions.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Action(#[from] ActionError),
    /// After `@`.
    #[error(transparent)]
    #[diagnostic(transparent)]
    When(#[from] WhenError),
    /// In a number, duration, size or share.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Value(#[from] ValueError),
}

impl RuleError {
    /// Where the mistake begins, in bytes.
    fn start(&self) -> usize {
        self.labels()
            .and_then(|mut labels| labels.next())
            .map_or(0, |label| label.offset())
    }
}

/// A text that was read, with a name where it has one (a file).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Name of the file; `None` for the command line and the environment.
    pub name: Option<String>,
    /// The whole text that spans count in.
    pub text: String,
}

impl SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &Span,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn miette::SpanContents<'a> + 'a>, miette::MietteError> {
        let contents = self.text.read_span(span, before, after)?;
        let Some(name) = &self.name else {
            return Ok(contents);
        };
        Ok(Box::new(miette::MietteSpanContents::new_named(
            name.clone(),
            contents.data(),
            *contents.span(),
            contents.line(),
            contents.column(),
            contents.line_count(),
        )))
    }
}

/// All mistakes of one rule, in the order of the text; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleErrors {
    source: Source,
    errors: Vec<RuleError>,
}

impl RuleErrors {
    /// `errors` must not be empty.
    pub(crate) fn new(source: Source, mut errors: Vec<RuleError>) -> Self {
        debug_assert!(!errors.is_empty(), "mistakes without a mistake");
        errors.sort_by_key(RuleError::start);
        errors.dedup();
        Self { source, errors }
    }

    /// The mistakes.
    pub fn errors(&self) -> &[RuleError] {
        &self.errors
    }

    /// The text they are in.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Each mistake as a report that carries the text.
    pub fn reports(&self) -> impl Iterator<Item = miette::Report> {
        self.errors
            .iter()
            .map(|error| miette::Report::new(error.clone()).with_source_code(self.source.clone()))
    }

    /// All mistakes as a person reads them, in colour or without.
    pub fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        for (i, report) in self.reports().enumerate() {
            if i > 0 {
                out.push('\n');
            }
            out.push_str(&render(report.as_ref(), colour));
        }
        out
    }
}

impl fmt::Display for RuleErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Source { name, text } = &self.source;
        match (name, self.errors.as_slice()) {
            (Some(name), _) => write!(f, "a rule of {name} cannot be read"),
            (None, [_]) => write!(f, "the rule `{text}` has a mistake"),
            (None, errors) => write!(f, "the rule `{text}` has {} mistakes", errors.len()),
        }
    }
}

impl std::error::Error for RuleErrors {}

/// Renders one diagnostic the way finject shows it: `error:` or `warning:`, the place in the text,
/// the help.
pub fn render(diagnostic: &dyn Diagnostic, colour: bool) -> String {
    let characters = ThemeCharacters {
        error: "error:".to_owned(),
        warning: "warning:".to_owned(),
        advice: "note:".to_owned(),
        ..ThemeCharacters::unicode()
    };
    let styles = if colour {
        ThemeStyles::ansi()
    } else {
        ThemeStyles::none()
    };
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme { characters, styles })
        .with_width(100)
        .with_links(false);
    let mut out = String::new();
    // Writing to a String cannot fail; a span outside the text would, and then the bare message
    // is still right.
    if handler.render_report(&mut out, diagnostic).is_err() {
        let severity = diagnostic.severity().unwrap_or(Severity::Error);
        return format!("{severity:?}: {diagnostic}\n").to_lowercase();
    }
    // The handler indents its first line for its own one-character marks.
    let mut text = String::new();
    for line in out.trim_start().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
