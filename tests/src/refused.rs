//! Refusals: finject ends with a status and words that name the remedy, and the kernel is as before.
#![expect(
    clippy::missing_panics_doc,
    reason = "a helper of tests: to panic is how it fails"
)]

use crate::{child::Ended, finject::Finject, kernel::Traces};

/// `EX_USAGE` of sysexits.h: what the user wrote cannot be meant.
pub const USAGE: i32 = 64;
/// `EX_UNAVAILABLE` of sysexits.h: this machine cannot do it.
pub const UNAVAILABLE: i32 = 69;

/// What must be said.
pub fn says(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code(), Some(code), "{ended}");
    let text = ended.err();
    for word in words {
        assert!(text.contains(word), "no {word:?} in {ended}");
    }
    assert!(ended.stdout.is_empty(), "{ended}");
}

/// Runs a finject that must refuse, and touch nothing.
pub fn refuses(finject: Finject, code: i32, words: &[&str]) {
    let before = Traces::now();
    let ended = finject.run();
    says(&ended, code, words);
    assert_eq!(Traces::now(), before, "{ended}");
}
