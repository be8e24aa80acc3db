//! Any text is read or refused without a panic; what is read prints to a text that reads back the
//! same, and resolves with the same key. `cargo fuzz run rule`, or without cargo-fuzz:
//! `RUSTC_BOOTSTRAP=1 cargo build --manifest-path fuzz/Cargo.toml`.
#![no_main]

use injector::rule::{RuleText, compile, parse, split};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for part in split(text) {
        assert!(!part.is_empty());
    }
    let compiled = compile(&[RuleText::new(text)]);
    let rule = match parse(text) {
        Ok(rule) => rule,
        Err(errors) => {
            assert!(!errors.render(false).is_empty());
            assert!(compiled.is_err(), "refused and yet resolved");
            return;
        }
    };
    let printed = rule.to_string();
    match parse(&printed) {
        Ok(again) => {
            assert_eq!(again.to_string(), printed);
            assert_eq!(again.without_spans(), rule.without_spans());
        }
        Err(errors) => panic!("{}", errors.render(false)),
    }
    match (compiled, compile(&[RuleText::new(printed)])) {
        (Ok(first), Ok(second)) => assert_eq!(first.rules, second.rules),
        (Err(_), Err(_)) => {}
        (first, second) => panic!("{first:?}\n{second:?}"),
    }
});
