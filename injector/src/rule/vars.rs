//! Variables of a rule file: `${name}` in a value stands for a text.

use std::collections::BTreeMap;

/// The variables that a rule may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vars<'a>(Option<&'a BTreeMap<String, String>>);

impl<'a> Vars<'a> {
    /// For a rule that stands in no file.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(crate) fn of(vars: &'a BTreeMap<String, String>) -> Self {
        Self(Some(vars))
    }

    pub(crate) fn is_none(self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn get(self, name: &str) -> Option<&'a str> {
        self.0?.get(name).map(String::as_str)
    }

    pub(crate) fn names(self) -> impl Iterator<Item = &'a str> {
        self.0
            .into_iter()
            .flat_map(|vars| vars.keys().map(String::as_str))
    }
}
