//! Rules from the command line, from files and from the environment, read together, so that all
//! mistakes of all of them are reported at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{colour, complain, print_err};
use crate::plan::Arming;
use crate::rule::file::{Date, FileRule, RuleFile};
use crate::rule::{Compiled, ResolvedRule, RuleName, RuleText, RuleWarning, compile, split};

/// The environment's rules, separated by semicolons.
pub const VARIABLE: &str = "FINJECT_RULES";

/// Where rules come from.
#[derive(clap::Args, Debug)]
#[group(skip)]
pub struct Options {
    /// A rule, such as 'fsync=EIO@3' (see: finject help rules); may be repeated
    #[arg(long = "rule", short = 'r', value_name = "RULE")]
    rules: Vec<String>,

    /// A file of rules (TOML); may be repeated
    #[arg(long = "rules", value_name = "FILE")]
    files: Vec<PathBuf>,

    /// A variable of rule files, such as dir=/data; may be repeated
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = variable)]
    vars: Vec<(String, String)>,

    /// Take warnings about rules for errors
    #[arg(long)]
    strict: bool,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a variable is NAME=VALUE, such as dir=/data".to_owned()),
    }
}

/// Rules that cannot be used; everything has been said.
#[derive(Clone, Copy, Debug)]
pub struct Complained;

/// All rules of a run.
#[derive(Debug)]
pub struct Rules {
    /// Resolved, in order: command line, environment, files.
    pub rules: Vec<ResolvedRule>,
    /// Of each, when it is in force.
    pub arming: Vec<Arming>,
}

/// Today, in UTC. The calendar's arithmetic: days from 1 March of year 0, in eras of 400 years.
fn today() -> Option<Date> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    date_of(seconds / 86_400)
}

/// The date that is so many days after 1 January 1970.
fn date_of(days: u64) -> Option<Date> {
    const DAYS_OF_ERA: u64 = 146_097;
    // From 1 March of year 0 to 1 January 1970.
    let days = days + 719_468;
    let (era, day) = (days / DAYS_OF_ERA, days % DAYS_OF_ERA);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    Date::new(
        u16::try_from(year).ok()?,
        u8::try_from(month).ok()?,
        u8::try_from(day).ok()?,
    )
}

/// When a rule of a file is in force, the first of which has this index.
fn arming_of(rule: &FileRule, file: &[FileRule], first: usize) -> Arming {
    let bits = |names: &[RuleName]| {
        let named = file
            .iter()
            .zip(first..)
            .filter(|(rule, _)| names.contains(&rule.name));
        // More than can be are refused as such.
        named.fold(0, |bits, (_, index)| {
            bits | 1_u64.checked_shl(index as u32).unwrap_or(0)
        })
    };
    Arming {
        armed: rule.armed,
        arms: bits(&rule.arms),
        disarms: bits(&rule.disarms),
    }
}

impl Options {
    fn read_file(&self, path: &Path) -> Result<RuleFile, Complained> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            complain(
                &format!("--rules {}: {error}", path.display()),
                &["name a file of rules that can be read".to_owned()],
            );
            Complained
        })?;
        let vars: BTreeMap<String, String> = self.vars.iter().cloned().collect();
        RuleFile::read(&path.display().to_string(), &text, &vars).map_err(|errors| {
            print_err(&errors.render(colour()));
            Complained
        })
    }

    /// Reads all rules. What is wrong is printed, all of it.
    pub fn read(&self) -> Result<Rules, Complained> {
        let mut texts: Vec<RuleText> = self.rules.iter().map(RuleText::new).collect();
        if let Ok(environment) = std::env::var(VARIABLE) {
            texts.extend(split(&environment).into_iter().map(RuleText::new));
        }
        if texts.is_empty() && self.files.is_empty() {
            complain(
                "no rule: nothing would fail",
                &[format!(
                    "--rule 'fsync=EIO@3', --rules FILE, or {VARIABLE} in the environment"
                )],
            );
            return Err(Complained);
        }
        let files: Vec<_> = self.files.iter().map(|path| self.read_file(path)).collect();
        let mut wrong = files.iter().any(Result::is_err);
        let mut warnings: Vec<RuleWarning> = Vec::new();
        let mut arming = vec![Arming::default(); texts.len()];
        for file in files.into_iter().flatten() {
            warnings.extend(today().map(|today| file.expired(today)).unwrap_or_default());
            let first = arming.len();
            arming.extend(
                file.rules
                    .iter()
                    .map(|rule| arming_of(rule, &file.rules, first)),
            );
            texts.extend(file.rules.into_iter().map(|rule| rule.text));
        }
        let compiled = compile(&texts).unwrap_or_else(|errors| {
            wrong = true;
            for error in &errors {
                print_err(&error.render(colour()));
            }
            Compiled {
                rules: Vec::new(),
                warnings: Vec::new(),
            }
        });
        if wrong {
            return Err(Complained);
        }
        warnings.extend(compiled.warnings);
        for warning in &warnings {
            print_err(&warning.render(colour()));
        }
        if self.strict && warnings.iter().any(|warning| !warning.is_note()) {
            complain(
                "--strict takes warnings for errors",
                &["mend the rule, or leave --strict out".into()],
            );
            return Err(Complained);
        }
        Ok(Rules {
            rules: compiled.rules,
            arming,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (days, want) in [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_778, "2026-11-21"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(date_of(days).unwrap().to_string(), want, "{days}");
        }
    }
}
