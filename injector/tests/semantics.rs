//! The table of doc/semantics.md is what the code says: made from the same function that admits
//! plans. `INSTA_UPDATE=always cargo test` writes it anew.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write;
use std::path::PathBuf;

use injector::backend::choose::Choice;
use injector::backend::matrix::{PARTS, TARGETS, answer, reaches};

fn table() -> String {
    let mut table = String::from(
        "| part of a rule | `ebpf` | `notify` | `ptrace` |\n| --- | --- | --- | --- |\n",
    );
    let mut row = |part: &str, answer: &dyn Fn(Choice) -> &'static str| {
        let backends = [Choice::Ebpf, Choice::Notify, Choice::Ptrace];
        let [ebpf, notify, ptrace] = backends.map(answer);
        writeln!(table, "| {part} | {ebpf} | {notify} | {ptrace} |").unwrap();
    };
    for (kind, launched) in TARGETS {
        row(kind, &|backend| reaches(launched, backend));
    }
    for (part, rule) in PARTS {
        row(part, &|backend| answer(rule, backend));
    }
    table
}

#[test]
fn the_table_says_what_the_code_admits() {
    const MARKS: (&str, &str) = ("<!-- table -->\n", "<!-- end -->\n");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../doc/semantics.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(MARKS.0).unwrap();
    let (written, after) = rest.split_once(MARKS.1).unwrap();
    if std::env::var("INSTA_UPDATE").as_deref() == Ok("always") {
        let new = format!("{before}{}{}{}{after}", MARKS.0, table(), MARKS.1);
        std::fs::write(&path, new).unwrap();
        return;
    }
    assert_eq!(
        written,
        table(),
        "renew it by INSTA_UPDATE=always cargo test"
    );
}
