//! Rule files: what they may hold, and what is said of mistakes in them.

use super::*;
use crate::rule::compile;

fn read(text: &str) -> Result<RuleFile, FileErrors> {
    RuleFile::read("disk-full.toml", text, &BTreeMap::new())
}

const GOOD: &str = r#"
description = "The disk fills up"
[vars]
dir = "/var/lib/{x},)=EIO@1"

[[rule]]
name    = "wal-enospc"
rule    = '%write(path=${dir}/**/pg_wal/*)=ENOSPC@100+'
purpose = "does the server stop cleanly?"
expires = 2027-06-30
arms    = ["slow"]

[[rule]]
name  = "slow"
rule  = "fdatasync(path=\"${dir}/a b\")=delay:20ms"
armed = false
"#;

#[test]
fn variables_cannot_change_a_rule() {
    let file = read(GOOD).unwrap();
    let texts: Vec<_> = file.rules.iter().map(|rule| rule.text.clone()).collect();
    let compiled = compile(&texts).unwrap();
    assert_eq!(
        compiled.rules[0].text,
        r#"%write(path="/var/lib/\\{x\\},)=EIO@1/**/pg_wal/*")=ENOSPC@100+"#
    );
    assert_eq!(compiled.rules[0].preds.len(), 1);
    assert_eq!(
        compiled.rules[1].text,
        r#"fdatasync(path="/var/lib/\\{x\\},)=EIO@1/a b")=delay:20ms"#
    );
    assert_eq!((file.rules[0].armed, file.rules[1].armed), (true, false));
    assert_eq!(file.rules[0].arms[0].as_str(), "slow");
}

#[test]
fn a_variable_may_be_given_from_outside() {
    let over = BTreeMap::from([("dir".to_owned(), "/data".to_owned())]);
    let file = RuleFile::read("f", GOOD, &over).unwrap();
    let compiled = compile(&[file.rules[0].text.clone()]).unwrap();
    assert_eq!(
        compiled.rules[0].text,
        "%write(path=/data/**/pg_wal/*)=ENOSPC@100+"
    );
    let over = BTreeMap::from([("dri".to_owned(), "/data".to_owned())]);
    let errors = RuleFile::read("f", GOOD, &over).unwrap_err();
    assert!(
        errors.render(false).contains("did you mean `dir`?"),
        "{}",
        errors.render(false)
    );
}

#[test]
fn a_misspelt_variable_gets_an_answer() {
    let file = read(&GOOD.replace("path=${dir}", "path=${dri}")).unwrap();
    let errors = compile(&[file.rules[0].text.clone()]).unwrap_err();
    let shown = errors[0].render(false);
    assert!(shown.contains("unknown variable `dri`"), "{shown}");
    assert!(shown.contains("did you mean `dir`?"), "{shown}");
}

#[test]
fn what_to_write_instead_is_told_of_rules_in_files_too() {
    for (rule, meant) in [
        ("fsync=EIO:3", "`fsync=EIO@3`"),
        ("read(fd=3):EIO", "`read(fd=3)=EIO`"),
        ("fsync@3=EIO", "`fsync=EIO@3`"),
    ] {
        let file = read(&format!("[[rule]]\nname = 'x'\nrule = '{rule}'\n")).unwrap();
        let errors = compile(&[file.rules[0].text.clone()]).unwrap_err();
        let shown = errors[0].render(false);
        assert!(shown.contains(meant), "{shown}");
    }
}

#[test]
fn a_rule_past_its_day_is_warned_of() {
    let file = read(GOOD).unwrap();
    assert!(file.expired(Date::new(2027, 6, 30).unwrap()).is_empty());
    let late = file.expired(Date::new(2027, 7, 1).unwrap());
    assert_eq!(late.len(), 1);
    assert!(late[0].to_string().contains("2027-06-30"), "{}", late[0]);
}

#[test]
fn mistakes_inside_a_rule_are_shown_in_the_file() {
    let file = read("[[rule]]\nname = 'x'\nrule = 'fsync=EOI@${n}'\n").unwrap();
    let errors = compile(&[file.rules[0].text.clone()]).unwrap_err();
    let shown = errors[0].render(false);
    assert!(shown.contains("disk-full.toml:3:15"), "{shown}");
    assert!(shown.contains("rule = 'fsync=EOI"), "{shown}");
}

#[test]
fn a_rule_is_found_in_the_file_however_it_is_quoted() {
    for (rule, place, line) in [
        ("'fsync=EOI'", "3:15", "rule = 'fsync=EOI"),
        ("\"fsync=EOI\"", "3:15", "rule = \"fsync=EOI"),
        ("'''fsync=EOI'''", "3:17", "rule = '''fsync=EOI"),
        ("'''\nfsync=EOI'''", "4:7", "fsync=EOI"),
        ("\"\"\"\r\nfsync=EOI\"\"\"", "4:7", "fsync=EOI"),
        // With an escape it does not stand there as it reads.
        ("\"fsync\\u003DEOI\"", "disk-full.toml: x:1:7", "fsync=EOI"),
    ] {
        let file = read(&format!("[[rule]]\nname = 'x'\nrule = {rule}\n")).unwrap();
        let errors = compile(&[file.rules[0].text.clone()]).unwrap_err();
        let shown = errors[0].render(false);
        assert!(shown.contains(&format!("{place}]")), "{rule}: {shown}");
        assert!(shown.contains(line), "{rule}: {shown}");
    }
}

#[test]
fn a_file_with_mistakes_says_which() {
    let errors = read("").unwrap_err();
    assert_eq!(
        errors.to_string(),
        "disk-full.toml cannot be used as a rule file"
    );
}

/// Renewed with `INSTA_UPDATE=always cargo test -p injector`.
#[test]
fn mistakes_of_files() {
    let mut out = String::new();
    for text in [
        "",
        "# nothing\n",
        "description = 'x'\n",
        "[[rule]\n",
        "[[rules]]\nname = 'x'\n",
        "[[rule]]\nnmae = 'x'\nrule = 'fsync=EIO'\n",
        "[[rule]]\nname = 'x y'\nrule = 5\narmed = 'no'\nexpires = '2027-01-01'\narms = 'y'\n",
        "[[rule]]\nname = 'x'\nrule = 'fsync=EIO'\n[[rule]]\nname = 'x'\nrule = 'fsync=EIO'\n",
        "[[rule]]\nname = 'x'\nrule = 'fsync=EIO'\narms = ['xx']\n",
        "[[rule]]\nname = 'a'\nrule = 'fsync=EIO'\narms = ['b']\n[[rule]]\nname = 'b'\nrule = 'fsync=EIO'\narms = ['c']\n[[rule]]\nname = 'c'\nrule = 'fsync=EIO'\narms = ['b']\n",
        "[[rule]]\nname = 'a'\nrule = 'fsync=EIO'\narms = ['a']\n",
        "[vars]\n'a b' = 'x'\nc = 3\n[[rule]]\nname = 'a'\nrule = 'fsync=EIO'\n",
        "rule = 'fsync=EIO'\n",
    ] {
        let errors = read(text).unwrap_err();
        assert!(!errors.errors().is_empty(), "{text}");
        out.extend(["----\n", text, "----\n", &errors.render(false), "\n"]);
    }
    insta::assert_snapshot!(out);
}
