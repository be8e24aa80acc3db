//! The language as a whole: what is printed reads back, what is read prints the same, nothing
//! panics, and spaces do not matter.

use std::{num::NonZeroU32, time::Duration};

use proptest::prelude::*;

use super::{
    RuleText,
    ast::{Action, HOLD_DEFAULT},
    compile,
    generate::{glob, rule},
    key, parse, parse_duration as duration, split,
    warning::{RuleWarning, Warning},
};
use crate::syscall::Errno;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_printed_rule_reads_back_the_same(rule in rule()) {
        let text = rule.to_string();
        let read = parse(&text).map_err(|errors| {
            TestCaseError::fail(format!("{text}\n{}", errors.render(false)))
        })?;
        prop_assert_eq!(read.clone().without_spans(), rule, "{}", text);
        prop_assert_eq!(read.to_string(), text);
    }

    #[test]
    fn white_space_between_tokens_is_nothing(rule in rule()) {
        let text = rule.to_string();
        // Only where no value can be: around the parts of the chain and the conditions.
        if rule.preds.is_empty() && !text.contains('/') {
            let spaced = text.replace("->", " -> ").replace(',', " , ").replace('@', " @ ");
            let read = parse(&spaced).map_err(|e| TestCaseError::fail(e.render(false)))?;
            prop_assert_eq!(read.without_spans(), rule);
        }
    }

    #[test]
    fn a_value_reads_back_whatever_is_in_it(glob in glob()) {
        let text = format!("read(path={})=EIO", super::print::Quoted(glob.as_str()));
        let read = parse(&text).map_err(|e| TestCaseError::fail(e.render(false)))?;
        prop_assert_eq!(read.to_string(), text);
    }

    #[test]
    fn rules_joined_by_semicolons_come_apart(rules in prop::collection::vec(rule(), 1..4)) {
        let texts: Vec<String> = rules.iter().map(ToString::to_string).collect();
        let joined = texts.join(";");
        prop_assert_eq!(split(&joined), texts);
    }

    #[test]
    fn any_text_gets_an_answer(text in ".{0,60}") {
        answer(&text);
    }

    #[test]
    fn texts_of_rule_parts_get_an_answer(parts in prop::collection::vec(prop::sample::select(PARTS), 0..14)) {
        answer(&parts.concat());
    }
}

const PARTS: &[&str] = &[
    "fsync",
    "%write",
    "/sync$/",
    "?x",
    "!",
    "@",
    "32",
    ",",
    "(",
    ")",
    "path",
    "=",
    "!=",
    "*.db",
    "\"",
    "\\",
    "{a,b}",
    "[",
    "peer",
    "10.0.0.0/8",
    ":",
    "80",
    "arg3",
    ">=",
    "4k",
    "&",
    "O_SYNC",
    "EIO",
    "error",
    "ret",
    "delay",
    "20ms",
    "..",
    "hold",
    "signal",
    "SIGTERM",
    "kill",
    "short",
    "50%",
    "after",
    "off",
    "2*",
    "->",
    "+",
    "3",
    "max",
    "per",
    "thread",
    "for",
    "30s",
    " ",
    "ü",
    "→",
    "-",
    "return(5)",
    "${x}",
    ";",
    "0",
    "99999999999999999999",
    "comm",
    "unix",
    "close",
    "exit",
    "when=3",
    "inject=",
];

/// Whatever comes is read or refused, with places inside the text.
fn answer(text: &str) {
    if let Err(errors) = compile(&[RuleText::new(text)]) {
        for error in errors {
            assert!(!error.errors().is_empty());
            let shown = error.render(false);
            assert!(shown.starts_with("error: "), "{text:?}\n{shown}");
            for mistake in error.errors() {
                for label in miette::Diagnostic::labels(mistake).into_iter().flatten() {
                    let end = label.offset() + label.len();
                    assert!(end <= text.len(), "{text:?}: {mistake}");
                    assert!(text.is_char_boundary(label.offset()), "{text:?}: {mistake}");
                    assert!(text.is_char_boundary(end), "{text:?}: {mistake}");
                }
            }
        }
    }
}

#[test]
fn keys_hang_on_the_rule_alone() {
    let keys = |texts: &[&str]| -> Vec<u64> {
        let texts: Vec<_> = texts.iter().map(|text| RuleText::new(*text)).collect();
        compile(&texts)
            .unwrap()
            .rules
            .iter()
            .map(|rule| rule.key)
            .collect()
    };
    let alone = keys(&["fsync=EIO@10%"]);
    let among = keys(&["read=EIO@1", "fsync = EIO @ 10%", "fsync=EIO@10%"]);
    assert_eq!(alone[0], among[1], "spaces and other rules change nothing");
    assert_ne!(
        among[1], among[2],
        "the same text twice decides differently"
    );
}

#[test]
fn what_a_rule_leaves_open_is_filled_in() {
    let compiled = compile(&[RuleText::new(
        "fsync=EIO+hold->2*off->after:hold:1s+2*kill@3+",
    )]);
    assert!(
        compiled.is_err(),
        "a repeat stands before a step, not before an action"
    );
    let compiled = compile(&[RuleText::new("fsync=EIO+hold->2*off->3*after:hold:1s@3+")]).unwrap();
    let rule = &compiled.rules[0];
    assert_eq!(rule.name.as_str(), "r1");
    let steps: Vec<_> = rule
        .chain
        .iter()
        .map(|s| (s.repeat.map(NonZeroU32::get), s.actions.len()))
        .collect();
    assert_eq!(steps, [(Some(1), 2), (Some(2), 0), (Some(3), 1), (None, 0)]);
    let in_order = [
        Action::Hold(Some(HOLD_DEFAULT)),
        Action::Error(Errno::by_name("EIO").unwrap()),
    ];
    assert_eq!(rule.chain[0].actions, in_order);
    assert_eq!(
        (rule.when.count.first().get(), rule.when.count.last()),
        (3, None)
    );
    let ids: Vec<_> = rule.calls.iter().map(ToString::to_string).collect();
    assert_eq!(ids, ["fsync", "fsync@32"]);
}

/// The table of wrong spellings, `golden/wrong.txt`: each must be refused, and what is said is
/// kept in one snapshot. Renewed with `INSTA_UPDATE=always cargo test -p injector`.
#[test]
fn wrong_spellings_are_answered_with_the_right_one() {
    let mut out = String::new();
    let mut tried = 0;
    for line in include_str!("golden/wrong.txt").lines() {
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let Err(errors) = compile(&[RuleText::new(line)]) else {
            panic!("{line:?} was taken");
        };
        tried += 1;
        for error in errors {
            out.push_str(&error.render(false));
            out.push('\n');
        }
    }
    assert!(tried > 150, "{tried}");
    insta::assert_snapshot!(out);
}

/// What is taken with a warning.
#[test]
fn doubtful_rules_are_warned_of() {
    let mut out = String::new();
    for rules in [
        &["open=EIO"][..],
        &["fork=EAGAIN"],
        &["waitpid=EIO"],
        &["?nosuchcall,fsync=EIO"],
        &["%desc=EIO"],
        &["!futex=EINTR@1%"],
        &["%open,%accept,socket,dup=after:EIO"],
        &["fsync=3*off->EIO@1..2"],
        &["fsync=EIO->ENOSPC@3"],
        &["fsync=EIO->ENOSPC->kill@max:1"],
        &["fsync=off"],
        &["write=short:100%"],
        &["%desc=short:50%@3"],
        &["getpid(path=*.db)=EIO"],
        &["fsync(to=/a)=EIO"],
        &["clock_gettime=EIO"],
        &["fsync=EIO", "fsync=ENOSPC@3"],
    ] {
        let texts: Vec<_> = rules.iter().map(|text| RuleText::new(*text)).collect();
        let compiled = compile(&texts).unwrap();
        assert!(!compiled.warnings.is_empty(), "{rules:?}");
        for warning in compiled.warnings {
            out.push_str(&warning.render(false));
            out.push('\n');
        }
    }
    insta::assert_snapshot!(out);
}

/// Found by the properties above: an open bracket took the text behind its rule for its own, and
/// what stands in quotes was taken for a variable where there are none.
#[test]
fn values_that_need_quotes_are_printed_with_them() {
    for (text, printed) in [
        (r#"fsync(comm="[")=off"#, r#"fsync(comm="[")=off"#),
        (r#"fsync(comm="{a")=off"#, r#"fsync(comm="{a")=off"#),
        (r#"fsync(comm="${")=off"#, r#"fsync(comm="${")=off"#),
        (r#"fsync(comm="plain")=off"#, "fsync(comm=plain)=off"),
    ] {
        assert_eq!(parse(text).unwrap().to_string(), printed);
        let two = format!("{printed};{printed}");
        assert_eq!(split(&two), [printed, printed]);
    }
}

#[test]
fn the_sum_of_mistakes_is_one_line() {
    let said = |text: &str| compile(&[RuleText::new(text)]).unwrap_err()[0].to_string();
    assert_eq!(said("fsync=EOI"), "the rule `fsync=EOI` has a mistake");
    assert_eq!(said("fsycn=EOI"), "the rule `fsycn=EOI` has 2 mistakes");
}

#[test]
fn a_rule_is_shadowed_by_one_that_decides_every_call_of_its() {
    let warned = |earlier: &str, later: &str| {
        let compiled = compile(&[RuleText::new(earlier), RuleText::new(later)]).unwrap();
        let is_shadowed = |warning: &RuleWarning| matches!(warning.kind, Warning::Shadowed(..));
        compiled.warnings.iter().any(is_shadowed)
    };
    for earlier in [
        "fsync=EIO",
        "fsync=kill",
        "fsync=EIO@100%",
        "fsync=EIO@1+",
        "fsync=EIO@per:thread",
        "fsync,fdatasync=EIO",
    ] {
        assert!(warned(earlier, "fsync=ENOSPC"), "{earlier}");
    }
    for earlier in [
        "fsync=EIO@2+",
        "fsync=EIO@1..9",
        "fsync=EIO@50%",
        "fsync=EIO@max:3",
        "fsync=EIO@start:1s",
        "fsync=EIO@for:1s",
        "fsync(fd=3)=EIO",
        "fsync=2*EIO",
        "fsync=EIO->off",
        "fsync=signal:SIGKILL",
        "fsync=after:EIO",
        "fdatasync=EIO",
    ] {
        assert!(!warned(earlier, "fsync=ENOSPC"), "{earlier}");
    }
    // Not only results.
    assert!(!warned("fsync=EIO", "fsync=signal:SIGKILL"));
    assert!(!warned("fsync=EIO", "fsync=signal:SIGKILL+ENOSPC"));
    assert!(!warned("fsync=EIO", "fsync,fdatasync=ENOSPC"));
}

#[test]
fn rules_without_a_name_are_told_apart_by_text_and_occurrence() {
    let texts = ["fsync=EIO", "read=EIO", "fsync = EIO", "fsync=EIO"].map(RuleText::new);
    let keys: Vec<u64> = compile(&texts)
        .unwrap()
        .rules
        .iter()
        .map(|rule| rule.key)
        .collect();
    let of = key::of_text;
    let fsync = |occurrence| of("fsync=EIO", occurrence);
    assert_eq!(keys, [fsync(0), of("read=EIO", 0), fsync(1), fsync(2)]);
}

/// A part that cannot be read leads to no second mistake about what it would have said.
#[test]
fn one_mistake_is_one_mistake() {
    for text in [
        "!futex=EINTR@x",
        "!futex,fsync@16=EIO",
        "fsync@16",
        "fsync(fd=x)",
        "fsync(fd=x,arg4=3)=EIO",
        "fsycn(arg4=3)=EIO",
        "fsync=signal:SIGUSR1->EOI",
        "fsync=signal:SIGUSR1@x",
        "fsync=short:50%->EOI",
        "fsync,write@16(arg3=3)=EIO",
    ] {
        let errors = compile(&[RuleText::new(text)]).unwrap_err();
        assert_eq!(
            errors[0].errors().len(),
            1,
            "{text}: {}",
            errors[0].render(false)
        );
    }
}

#[test]
fn durations_of_options_are_read_as_those_of_rules() {
    assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
    assert_eq!(duration("1500us"), Ok(Duration::from_micros(1500)));
    let error = duration("30").unwrap_err();
    assert!(error.contains("30s"), "{error}");
}
