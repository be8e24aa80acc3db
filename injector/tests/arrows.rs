//! The arrows between the modules: each may use those that are listed for it, and no others, so that
//! what decides knows nothing of how it is shown, and what is written down knows nothing of who
//! carries it out.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// What each module may use of this crate. The order is that of the arrows: `cli` is first, and uses
/// the rest.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "backend", "control", "history", "plan", "rule", "session", "sys", "target", "text",
        ],
    ),
    (
        "session",
        &[
            "backend", "control", "history", "plan", "rule", "sys", "syscall", "text",
        ],
    ),
    ("control", &["sys"]),
    (
        "backend",
        &["plan", "rule", "sys", "syscall", "target", "text"],
    ),
    ("plan", &["rule", "syscall", "target", "text"]),
    ("history", &[]),
    ("rule", &["syscall"]),
    ("target", &[]),
    ("syscall", &[]),
    ("sys", &[]),
    ("text", &[]),
];

/// Crates that only some modules may use.
const CRATES: &[(&str, &[&str])] = &[
    ("clap", &["cli"]),
    ("miette", &["rule"]),
    ("winnow", &["rule"]),
    ("aya", &["backend"]),
    ("aya_obj", &["backend", "sys"]),
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// A text without comments and strings, as far as names of modules and crates can stand in them.
fn code(text: &str) -> String {
    let line = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        let outside_of_strings = code.split('"').step_by(2);
        outside_of_strings.collect::<Vec<_>>().join("\"\"") + "\n"
    };
    text.lines().map(line).collect()
}

/// The names that follow `prefix` in a text: `crate::a`, and each of `crate::{a, b::c}`.
fn named(text: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    for (at, _) in text.match_indices(prefix) {
        if text[..at].ends_with(|letter| is_name(letter) || letter == ':') {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        let mut depth = 0;
        let mut name = String::new();
        let mut is_first = true;
        for letter in rest.chars() {
            if is_name(letter) {
                if is_first {
                    name.push(letter);
                }
                continue;
            }
            if !name.is_empty() {
                names.insert(std::mem::take(&mut name));
            }
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                // What follows a path's first part within the braces is no module of ours.
                ':' => is_first = false,
                ',' if depth <= 1 => is_first = true,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        if depth == 0 && !name.is_empty() {
            names.insert(name);
        }
    }
    names
}

fn module_of(path: &Path, root: &Path) -> String {
    let path = path.strip_prefix(root).unwrap();
    let first = path.iter().next().unwrap().to_str().unwrap();
    first.strip_suffix(".rs").unwrap_or(first).to_owned()
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let arrows: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    for path in &paths {
        let module = module_of(path, &root);
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let Some(allowed) = arrows.get(module.as_str()) else {
            wrong.push(format!(
                "{}: the module {module} has no arrows",
                path.display()
            ));
            continue;
        };
        let text = code(&fs::read_to_string(path).unwrap());
        for name in named(&text, "crate::") {
            if name == module || !arrows.contains_key(name.as_str()) {
                continue;
            }
            if !allowed.contains(&name.as_str()) {
                wrong.push(format!("{}: {module} -> {name}", path.display()));
            }
            used.insert((module.clone(), name));
        }
        for (name, users) in CRATES {
            let is_used = [format!("use {name}::"), format!("{name}::")]
                .iter()
                .any(|prefix| !named(&text, prefix).is_empty());
            if is_used && !users.contains(&module.as_str()) {
                wrong.push(format!(
                    "{}: {module} uses the crate {name}",
                    path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // An arrow that nobody goes any more would let somebody go it unseen.
    for (module, allowed) in ARROWS {
        for name in *allowed {
            let arrow = ((*module).to_owned(), (*name).to_owned());
            assert!(
                used.contains(&arrow),
                "{module} -> {name} is listed and not used"
            );
        }
    }
}

#[test]
fn arrows_go_down() {
    let order: Vec<_> = ARROWS.iter().map(|(module, _)| *module).collect();
    let place = |name: &str| order.iter().position(|module| *module == name).unwrap();
    for (module, allowed) in ARROWS {
        for name in *allowed {
            assert!(place(module) < place(name), "{module} -> {name} goes up");
        }
    }
}

#[test]
fn names_are_found_in_every_form() {
    let text = code(
        "use crate::one::Thing;\nuse crate::{\n    two::{A, B},\n    three,\n};\nlet x = crate::four::f();\n\
         // crate::five\nlet s = \"crate::six\"; use mycrate::seven; pub(crate) fn eight() {}\n",
    );
    let names: Vec<_> = named(&text, "crate::").into_iter().collect();
    assert_eq!(names, ["four", "one", "three", "two"]);
}
