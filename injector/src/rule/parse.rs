//! Text to rule. A rule is first cut into pieces at its separators ([`outline`]), which always
//! succeeds; then each piece is read by itself. A piece that cannot be read leaves a mistake and
//! nothing else, so that all mistakes of a rule are found at once: every separator is a place to
//! go on from.
//!
//! ```text
//! rule    = calls [ "(" where ")" ] "=" chain [ "@" when ]
//! calls   = item { "," item }
//! item    = [ "!" ] ( name | "%" class | "/" regex "/" | "?" name | number ) [ "@" ( "32" | "64" ) ]
//! where   = pred { "," pred }
//! chain   = step { "->" step }
//! step    = [ N "*" ] action { "+" action }
//! when    = cond { "," cond }
//! ```

mod action;
mod calls;
mod foreign;
mod outline;
mod piece;
mod predicate;
mod value;
mod when;

pub(crate) use self::outline::{is_plain_value, parens_length, regex_length};
use self::{outline::outline, piece::Piece};
use super::{
    ast::Rule,
    error::{CallError, RuleError, RuleErrors, Source},
    vars::Vars,
};

/// Reads a duration as rules write it, `30s`, with what is wrong in one line.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    value::duration(text, (0, text.len()).into()).map_err(|error| {
        let help = miette::Diagnostic::help(&error).map(|help| format!(": {help}"));
        format!("{error}{}", help.unwrap_or_default())
    })
}

/// What could be read of a rule, with all that could not.
#[derive(Debug)]
pub(crate) struct Partial {
    /// The parts that could be read.
    pub(crate) rule: Rule,
    /// Which parts are whole, so that what is missing leads to no second mistake.
    pub(crate) whole: Whole,
    /// The mistakes.
    pub(crate) errors: Vec<RuleError>,
}

/// Which parts of a rule could be read without a mistake.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four independent parts, not a state"
)]
pub(crate) struct Whole {
    pub(crate) calls: bool,
    pub(crate) preds: bool,
    pub(crate) chain: bool,
    pub(crate) when: bool,
}

/// Reads one rule. Names of calls are not looked up here; that is done when it is resolved.
///
/// # Errors
/// All mistakes, with their places in `text`.
pub fn parse(text: &str) -> Result<Rule, RuleErrors> {
    let partial = parse_partial(text, 0, Vars::none());
    if partial.errors.is_empty() {
        return Ok(partial.rule);
    }
    let source = Source {
        name: None,
        text: text.to_owned(),
    };
    Err(RuleErrors::new(source, partial.errors))
}

/// Reads a rule that stands `base` bytes into its source, with variables put into its values.
pub(crate) fn parse_partial(text: &str, base: usize, vars: Vars<'_>) -> Partial {
    let whole = Piece::new(text, base);
    let mut errors = Vec::new();
    let mut rule = Rule {
        calls: Vec::new(),
        preds: Vec::new(),
        chain: Vec::new(),
        when: Vec::new(),
    };
    if let Some(error) = foreign::whole_rule(whole) {
        errors.push(error);
        let whole = Whole {
            calls: false,
            preds: false,
            chain: false,
            when: false,
        };
        return Partial {
            rule,
            whole,
            errors,
        };
    }
    let outline = outline(whole);
    let mut seen = 0;
    let mut clean = |errors: &Vec<RuleError>| {
        let clean = errors.len() == seen;
        seen = errors.len();
        clean
    };

    rule.calls = calls::items(&outline, whole, &mut errors);
    let calls = clean(&errors);
    rule.preds = predicate::predicates(&outline, vars, &mut errors);
    let preds = clean(&errors);
    if let Some(steps) = &outline.chain {
        rule.chain = action::chain(steps, whole, vars, &mut errors);
    } else if calls && preds {
        errors.push(foreign::no_equals(&outline, whole).into());
    }
    let chain = outline.chain.is_some() && clean(&errors);
    if let Some(conditions) = &outline.when {
        rule.when = when::conditions(conditions, &outline, vars, &mut errors);
    }
    let when = clean(&errors);
    if let Some(stray) = outline.stray
        && outline.chain.is_some()
    {
        errors.push(CallError::ExpectedEquals(stray.span(), None).into());
    }
    Partial {
        rule,
        whole: Whole {
            calls,
            preds,
            chain,
            when,
        },
        errors,
    }
}
