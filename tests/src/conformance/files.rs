//! The cases of rules that are about files: the same file by whatever name it is reached, and no other.

use std::{fs, os::unix::fs::symlink, path::Path};

use super::Rig;
use crate::programs;

/// A directory with files, by a path without links.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let base = fs::canonicalize(std::env::temp_dir()).unwrap();
        let tree = Self(tempfile::tempdir_in(base).unwrap());
        let at = tree.path();
        for directory in ["wal/sub", "other", "walrus", "mnt", "jail/wal"] {
            fs::create_dir_all(at.join(directory)).unwrap();
        }
        for file in [
            "wal/a",
            "wal/x.db",
            "wal/sub/b",
            "other/a",
            "walrus/a",
            "jail/wal/a",
        ] {
            fs::write(at.join(file), "x").unwrap();
        }
        symlink("wal", at.join("link")).unwrap();
        symlink(at.join("wal"), at.join("far")).unwrap();
        symlink("../wal/a", at.join("other/a-link")).unwrap();
        symlink("loop", at.join("loop")).unwrap();
        symlink("/wal/a", at.join("jail/inside")).unwrap();
        fs::hard_link(at.join("wal/a"), at.join("hard")).unwrap();
        tree
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// With `T` for the directory.
    fn filled(&self, text: &str) -> String {
        text.replace("T/", &format!("{}/", self.path().display()))
    }
}

/// That error is the rule's.
const INJECTED: &str = "93";

/// Which of the ways a rule makes fail, by a program for that many bits; a way that is no call is left out.
fn failed(rig: &Rig, program: &str, tree: &Tree, rule: &str, ways: &[&str]) -> Vec<(String, bool)> {
    assert!(!program.is_empty(), "the compiler could not build it");
    let rule = format!("{}=EPROTONOSUPPORT", tree.filled(rule));
    let directory = tree.path().display().to_string();
    let ways: Vec<String> = ways.iter().map(|way| tree.filled(way)).collect();
    let arguments: Vec<&str> = [directory.as_str()]
        .into_iter()
        .chain(ways.iter().map(String::as_str))
        .collect();
    ways_under(rig, program, &rule, &arguments)
}

/// Which of the ways of a program a rule makes fail; a way that is no call is left out.
pub(super) fn ways_under(
    rig: &Rig,
    program: &str,
    rule: &str,
    arguments: &[&str],
) -> Vec<(String, bool)> {
    let mut running = rig.start(&["--rule", rule], program, arguments);
    running.victim.go();
    running.victim.done();
    let (ended, summary, _) = running.finish();
    assert_eq!(ended.code(), Some(0), "{rig:?} {rule}: {ended}");
    let went = |line: &String| {
        let (way, errno) = line.strip_prefix("way=")?.rsplit_once(" errno=")?;
        Some((way.to_owned(), errno == INJECTED))
    };
    let seen: Vec<_> = ended.stdout.iter().filter_map(went).collect();
    let fired = seen.iter().filter(|(_, failed)| *failed).count();
    assert_eq!(summary["rules"][0]["fired"], fired, "{summary}");
    assert_eq!(summary["rules"][0]["unseen"], 0, "{summary}");
    seen
}

/// A rule, and of each way whether it fails.
fn expect(rig: &Rig, program: &str, rule: &str, ways: &[(&str, bool)]) {
    let tree = Tree::new();
    let names: Vec<&str> = ways.iter().map(|(way, _)| *way).collect();
    let seen = failed(rig, program, &tree, rule, &names);
    let wanted: Vec<_> = ways
        .iter()
        .filter(|(way, _)| !STEPS.iter().any(|step| way.starts_with(step)))
        .map(|(way, fails)| (tree.filled(way), *fails))
        .collect();
    assert_eq!(seen, wanted, "{rig:?} {rule}");
}

const STEPS: &[&str] = &["chroot:", "bind:", "have:", "lose:", "swap:"];

pub(super) fn a_file_is_hit_by_whatever_name(rig: &Rig) {
    let calls = "fsync,openat,mkdir,unlink,newfstatat,rename,link,truncate";
    expect(
        rig,
        programs::FINDER,
        &format!("{calls}(path=T/wal/**)"),
        &[
            ("fsync:wal/a", true),
            ("fsync:T/wal/a", true),
            ("fsync:link/a", true),
            ("fsync:wal/sub/b", true),
            ("fsync:other/a", false),
            ("fsync:walrus/a", false),
            ("fsync:wal", false),
            ("fsync:hard", false),
            ("dup:wal/a", true),
            ("proc:wal/a", true),
            ("proc:other/a", false),
            ("deleted:wal/gone", true),
            ("deleted:other/gone", false),
            ("moved:other/m:wal/m", true),
            ("moved:wal/m:other/m", false),
            ("pipe", false),
            ("socket", false),
            ("memfd", false),
            ("open:wal/a", true),
            ("open:./wal//a", true),
            ("open:T/wal/a", true),
            ("open:link/a", true),
            ("open:far/a", true),
            ("open:other/../wal/a", true),
            ("open:link/../other/a", false),
            ("open:other/a-link", true),
            ("open:other/a", false),
            ("open:wal/new", true),
            ("open:walrus/new", false),
            ("open:loop", false),
            ("open:other/a/not-a-directory", false),
            ("openat:wal:a", true),
            ("openat:wal:../other/a", false),
            ("openat:other:../wal/a", true),
            ("openat:other:T/wal/a", true),
            ("null", false),
            ("far", true),
            ("create:wal/new", true),
            ("create:other/new", false),
            ("stat:other/a-link", true),
            ("lstat:other/a-link", false),
            ("lstat:wal/sub", true),
            ("lstat:link", false),
            ("empty:wal/a", true),
            ("empty:other/a", false),
            ("truncate:link/a", true),
            ("mkdir:wal/new", true),
            ("mkdir:link/new/", true),
            ("mkdir:new", false),
            ("unlink:far/a", true),
            ("unlink:other/a", false),
            ("rename:other/a:wal/new", true),
            ("rename:wal/a:other/new", true),
            ("rename:other/a:other/new", false),
            ("link:other/a:wal/new", true),
        ],
    );
}

pub(super) fn other_files_are_hit_where_a_rule_says_not(rig: &Rig) {
    expect(
        rig,
        programs::FINDER,
        "fsync,openat(path!=T/wal/**)",
        &[
            ("fsync:other/a", true),
            ("fsync:wal/a", false),
            ("fsync:hard", true),
            ("open:new", true),
            ("open:link/a", false),
            // There is no file.
            ("pipe", false),
            ("socket", false),
            ("null", false),
            ("open:loop", false),
        ],
    );
}

pub(super) fn a_pattern_may_begin_anywhere(rig: &Rig) {
    const WAYS: [&str; 14] = [
        "fsync:wal/a",
        "fsync:link/x.db",
        "fsync:wal/sub/b",
        "fsync:other/a",
        "dup:wal/x.db",
        "deleted:wal/gone.db",
        "moved:wal/m.db:other/m",
        "moved:other/m:wal/m",
        "fsync:hard",
        "fsync:wal",
        "fsync:/",
        "pipe",
        "socket",
        "memfd",
    ];
    for (predicates, failing) in [
        (
            "path=*.db",
            &["fsync:link/x.db", "dup:wal/x.db", "deleted:wal/gone.db"][..],
        ),
        (
            "path=wal/*",
            &[
                "fsync:wal/a",
                "fsync:link/x.db",
                "dup:wal/x.db",
                "deleted:wal/gone.db",
                "moved:other/m:wal/m",
            ],
        ),
        (
            "path=wal/**,path!=*.db",
            &["fsync:wal/a", "fsync:wal/sub/b", "moved:other/m:wal/m"],
        ),
        ("path={wal,other}/a", &["fsync:wal/a", "fsync:other/a"]),
        (
            "path=[o-w]*/[!x]",
            &[
                "fsync:wal/a",
                "fsync:wal/sub/b",
                "fsync:other/a",
                "moved:wal/m.db:other/m",
                "moved:other/m:wal/m",
            ],
        ),
        ("path=*a*r*", &["fsync:hard"]),
        ("path=**/wal/**/b", &["fsync:wal/sub/b"]),
        ("path=**", &WAYS[..10]),
        ("path!=**", &["fsync:/"]),
    ] {
        let ways = WAYS.map(|way| (way, failing.contains(&way)));
        let rule = format!("fsync({predicates})");
        expect(rig, programs::FINDER, &rule, &ways);
    }
}

pub(super) fn names_are_matched_where_they_end(rig: &Rig) {
    for (glob, failing) in [
        ("*.db", &["open:link/x.db", "open:new.db"][..]),
        ("wal/*", &["open:wal/a", "open:link/x.db", "create:wal/new"]),
        ("**/wal/new", &["create:wal/new"]),
    ] {
        let ways = [
            "open:wal/a",
            "open:link/x.db",
            "open:wal/sub/b",
            "open:new.db",
            "create:wal/new",
        ];
        let ways = ways.map(|way| (way, failing.contains(&way)));
        expect(
            rig,
            programs::FINDER,
            &format!("openat(path={glob})"),
            &ways,
        );
    }
}

pub(super) fn roots_end_what_is_seen_of_a_path(rig: &Rig) {
    for (predicate, fails) in [
        ("path=jail/**", false),
        ("path=**/jail/wal/a", false),
        ("path=wal/a", true),
    ] {
        expect(
            rig,
            programs::FINDER,
            &format!("fsync({predicate})"),
            &[
                ("fsync:other/a", false),
                ("chroot:jail", false),
                ("fsync:wal/a", fails),
            ],
        );
    }
    // A name goes on above the place where another file system, or a part of one, is mounted.
    expect(
        rig,
        programs::FINDER,
        "fsync(path=mnt/**)",
        &[
            ("fsync:wal/sub/b", false),
            ("bind:wal:mnt", false),
            ("fsync:mnt/sub/b", true),
            ("fsync:wal/sub/b", false),
        ],
    );
}

pub(super) fn a_plain_name_is_a_file_by_all_its_names(rig: &Rig) {
    for (glob, ways) in [
        (
            "T/wal/a",
            &[
                ("fsync:wal/a", true),
                ("fsync:hard", true),
                ("open:hard", true),
                ("open:other/a-link", true),
                ("fsync:wal/x.db", false),
                ("fsync:other/a", false),
            ][..],
        ),
        (
            "T/link/a",
            &[
                ("fsync:wal/a", true),
                ("fsync:hard", true),
                ("open:wal/x.db", false),
            ],
        ),
        // The directory of a pattern is taken by what it is, too.
        (
            "T/link/*",
            &[
                ("fsync:wal/a", true),
                ("open:wal/new", true),
                ("fsync:hard", false),
                ("fsync:wal/sub/b", false),
                ("fsync:other/a", false),
            ],
        ),
        (
            "T/link/new",
            &[("create:wal/new", true), ("create:wal/newer", false)],
        ),
        (
            "T/far/sub/**",
            &[("fsync:wal/sub/b", true), ("fsync:wal/a", false)],
        ),
    ] {
        expect(
            rig,
            programs::FINDER,
            &format!("fsync,openat(path={glob})"),
            ways,
        );
    }
}

pub(super) fn a_directory_may_come_and_go(rig: &Rig) {
    for (glob, ways) in [
        (
            "T/late/**",
            &[
                ("create:late/x", true),
                ("have:late", false),
                ("create:late/x", true),
                ("create:other/x", false),
                ("lose:late", false),
                ("have:other/late", false),
                ("swap:other/late:late", false),
                ("moved:late/m:late/n", true),
                ("swap:late:early", false),
                ("moved:early/m:early/n", false),
            ][..],
        ),
        // By another name.
        (
            "T/link/**",
            &[
                ("fsync:wal/a", true),
                ("swap:wal:old", false),
                ("fsync:old/a", false),
                ("have:wal", false),
                ("moved:wal/m:wal/n", true),
                ("fsync:old/a", false),
                ("lose:wal", false),
                ("swap:old:wal", false),
                ("fsync:wal/a", true),
            ],
        ),
    ] {
        expect(
            rig,
            programs::FINDER,
            &format!("fsync,openat(path={glob})"),
            ways,
        );
    }
}

pub(super) fn names_have_sides(rig: &Rig) {
    let calls = "rename,link,symlink";
    expect(
        rig,
        programs::FINDER,
        &format!("{calls}(from=T/wal/*)"),
        &[
            ("rename:wal/a:other/new", true),
            ("rename:other/a:wal/new", false),
            ("link:link/a:other/new", true),
            ("link:other/a:wal/new", false),
            // Where the link lies, there its text begins.
            ("symlink:../wal/a:other/new", true),
            ("symlink:wal/a:other/new", false),
            ("symlink:T/wal/none:other/new", true),
        ],
    );
    expect(
        rig,
        programs::FINDER,
        &format!("{calls}(to=T/wal/*,from!=*.db)"),
        &[
            ("rename:other/a:wal/new", true),
            ("rename:wal/x.db:wal/new", false),
            ("rename:wal/a:other/new", false),
            ("link:other/a:link/new", true),
            ("symlink:a:wal/new", true),
            ("symlink:x.db:wal/new", false),
        ],
    );
}

pub(super) fn paths_are_those_that_the_program_sees(rig: &Rig) {
    for (glob, fails) in [("/wal/a", true), ("T/jail/wal/a", false), ("/wal/**", true)] {
        expect(
            rig,
            programs::FINDER,
            &format!("fsync,openat(path={glob})"),
            &[
                ("chroot:jail", false),
                ("fsync:wal/a", fails),
                ("open:/wal/a", fails),
                ("open:/../wal/../../wal/a", fails),
                ("open:inside", fails),
            ],
        );
    }
    for glob in ["T/wal/**", "T/wal/a"] {
        expect(
            rig,
            programs::FINDER,
            &format!("fsync,openat(path={glob})"),
            &[
                ("fsync:other/a", false),
                ("bind:wal:mnt", false),
                ("fsync:mnt/a", true),
                ("open:mnt/a", true),
                ("open:mnt/../other/a", false),
            ],
        );
    }
}

pub(super) fn the_program_is_asked_for(rig: &Rig) {
    let finder = programs::FINDER;
    for (exe, fails) in [
        (format!("exe={finder}"), true),
        ("exe=*/finder".to_owned(), true),
        ("exe!=*/finder".to_owned(), false),
        ("exe=*/find".to_owned(), false),
    ] {
        let rule = format!("fsync({exe},path=T/wal/a)");
        let ways = [("fsync:wal/a", fails), ("fsync:other/a", false)];
        expect(rig, finder, &rule, &ways);
    }
}

pub(super) fn a_32_bit_callers_files_are_told_apart(rig: &Rig) {
    expect(
        rig,
        programs::FINDER32,
        "fsync,openat(path=T/wal/**)",
        &[
            ("fsync:wal/a", true),
            ("fsync:other/a", false),
            ("open:link/a", true),
            ("openat:other:../wal/a", true),
            ("openat:wal:../other/a", false),
            ("far", true),
            ("null", false),
        ],
    );
}

pub(super) fn a_32_bit_callers_descriptors_are_told_apart(rig: &Rig) {
    expect(
        rig,
        programs::FINDER32,
        "fsync(path=wal/*.db)",
        &[
            ("fsync:wal/a", false),
            ("fsync:link/x.db", true),
            ("dup:wal/x.db", true),
            ("pipe", false),
        ],
    );
}
