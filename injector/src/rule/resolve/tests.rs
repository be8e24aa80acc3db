//! What is said of rules whose parts do not agree, and that nothing is said of those whose parts do.

use crate::rule::{
    Compiled, RuleErrors, RuleName, RuleText, RuleWarning, compile, compile_after,
    warning::Warning::{
        self, Dropped, Leaks, LibraryName, Missing, NeverActs, OtherAbiOnly, PartlyEdited,
        Shadowed, Unreachable, Vdso,
    },
};

/// The warnings of a rule: what each is, and the part of the rule that it points at.
fn warned(rule: &str) -> Vec<String> {
    let compiled = match compile(&[RuleText::new(rule)]) {
        Ok(compiled) => compiled,
        Err(errors) => panic!("{}", errors[0].render(false)),
    };
    let said = |warning: &Warning| {
        let (word, span) = match warning {
            LibraryName(span, ..) => ("library", span),
            OtherAbiOnly(span, ..) => ("other-abi", span),
            Missing(span, ..) => ("missing", span),
            Dropped(span, ..) => ("dropped", span),
            Leaks(span, ..) => ("leaks", span),
            Unreachable(span, ..) => ("unreachable", span),
            NeverActs(span, ..) => ("never", span),
            Shadowed(span, ..) => ("shadowed", span),
            PartlyEdited(span, ..) => ("partly", span),
            Vdso(span, ..) => ("vdso", span),
            Warning::Expired(span, ..) => ("expired", span),
        };
        let part = &rule[span.offset()..span.offset() + span.len()];
        format!("{word} {part}")
    };
    compiled
        .warnings
        .iter()
        .map(|warning| said(&warning.kind))
        .collect()
}

/// The label of a rule's only mistake.
fn mistake(rule: &str) -> String {
    let errors = compile(&[RuleText::new(rule)]).unwrap_err();
    assert_eq!(errors[0].errors().len(), 1, "{}", errors[0].render(false));
    errors[0].render(false)
}

fn check(table: &[(&str, &[&str])]) {
    for (rule, wanted) in table {
        assert_eq!(warned(rule), *wanted, "{rule}");
    }
}

#[test]
fn steps_that_no_call_reaches() {
    check(&[
        ("fsync=EIO->ENOSPC", &[]),
        ("fsync=EIO->ENOSPC@1..2", &[]),
        ("fsync=EIO->ENOSPC@1", &["unreachable ENOSPC"]),
        ("fsync=2*EIO->ENOSPC@1..3", &[]),
        ("fsync=2*EIO->ENOSPC@1..2", &["unreachable ENOSPC"]),
        ("fsync=2*EIO->ENOSPC@5+", &[]),
        // A last `off` only says what would happen anyway.
        ("fsync=2*EIO->off@1..2", &[]),
        (
            "fsync=2*EIO->off->ENOSPC@1..2",
            &["unreachable off", "unreachable ENOSPC"],
        ),
        ("fsync=EIO->ENOSPC@max:1", &["unreachable ENOSPC"]),
        ("fsync=EIO->ENOSPC@max:2", &[]),
        ("fsync=EIO->off@max:1", &[]),
        ("fsync=EIO->off->ENOSPC@max:1", &["unreachable ENOSPC"]),
        // Calls that pass use nothing up.
        ("fsync=EIO->2*off->ENOSPC@max:2", &[]),
        ("fsync=2*off->EIO->ENOSPC@max:1", &["unreachable ENOSPC"]),
    ]);
}

#[test]
fn rules_that_can_never_act() {
    check(&[
        ("fsync=off", &["never off"]),
        ("fsync=off->EIO", &[]),
        ("fsync=2*off->EIO@1..2", &["unreachable EIO", "never off"]),
        ("write=short:100%", &["never short:100%"]),
        ("write=short:50%", &[]),
        ("write=short:100%+delay:1s", &[]),
        ("write=short:100%->EIO", &[]),
        ("write=short:10", &[]),
        ("getpid(path=*.db)=EIO", &["never path=*.db"]),
        ("read(path=*.db)=EIO", &[]),
        ("openat(path=*.db)=EIO", &[]),
        ("fsync(from=/a)=EIO", &["never from=/a"]),
        ("fsync(to=/a)=EIO", &["never to=/a"]),
        ("rename(from=/a,to=/b)=EIO", &[]),
        ("getpid(fd=3)=EIO", &["never fd=3"]),
        ("fsync(fd=3)=EIO", &[]),
        ("getpid(peer=127.0.0.1)=EIO", &["never peer=127.0.0.1"]),
        ("sendto(peer=127.0.0.1)=EIO", &[]),
        ("read(peer=127.0.0.1)=EIO", &[]),
        ("getpid(comm=a)=EIO", &[]),
    ]);
}

#[test]
fn signals_that_could_make_a_call_go_round_for_ever() {
    for rule in [
        "fsync=signal:SIGUSR1@3",
        "fsync=signal:SIGUSR1@1..3",
        "fsync=signal:SIGUSR1@max:2",
        "fsync=signal:SIGUSR1->off",
        "fsync=2*signal:SIGUSR1",
        "fsync=signal:SIGKILL",
        "fsync=after:signal:SIGUSR1",
    ] {
        assert_eq!(warned(rule), [""; 0], "{rule}");
    }
    for rule in [
        "fsync=signal:SIGUSR1",
        "fsync=signal:SIGUSR1@3+",
        "fsync=signal:SIGUSR1@50%",
        "fsync=EIO->signal:SIGUSR1",
        "fsync=off->signal:SIGUSR1@3+5",
    ] {
        assert!(mistake(rule).contains("SIGUSR1"), "{rule}");
    }
}

#[test]
fn actions_that_only_some_calls_can_bear() {
    check(&[
        ("write=short:50%", &[]),
        ("write,fsync=short:50%->corrupt:1", &["partly short:50%"]),
        ("write,fsync=EIO", &[]),
        ("fsync=after:EIO", &[]),
        ("socket=EIO", &[]),
        ("socket=after:delay:1s", &[]),
        ("socket=after:EIO->after:ENOSPC", &["leaks after:EIO"]),
        ("socket=after:ret:7", &["leaks after:ret:7"]),
    ]);
    assert!(mistake("fsync=short:50%").contains("short"));
}

#[test]
fn at_most_four_names_are_told_in_full() {
    let told = |rule: &str| {
        let compiled = compile(&[RuleText::new(rule)]).unwrap();
        compiled.warnings[0].kind.to_string()
    };
    assert_eq!(
        told("socket,dup,pipe2,dup2=after:EIO"),
        "what dup, dup2, pipe2, socket created stays, and the program does not know of it"
    );
    assert_eq!(
        told("socket,dup,pipe2,dup2,dup3=after:EIO"),
        "what dup, dup2, dup3 and 2 more created stays, and the program does not know of it"
    );
}

#[test]
fn arguments_that_no_call_has() {
    for (rule, label) in [
        ("getpid(arg1=1)=EIO", "getpid takes no argument"),
        ("fsync(arg2=1)=EIO", "fsync takes 1 argument"),
        ("fsync,renameat2(arg6=1)=EIO", "renameat2 takes 5 arguments"),
        ("read,fsync(arg4=1)=EIO", "read takes 3 arguments"),
        ("read,write(arg4=1)=EIO", "read takes 3 arguments"),
    ] {
        let said = mistake(rule);
        assert!(said.contains(label), "{rule}: {said}");
    }
    check(&[("read(arg3=5)=EIO", &[]), ("fsync,read(arg3=5)=EIO", &[])]);
}

#[test]
fn names_that_mean_less_than_they_seem_to() {
    check(&[
        ("fsync=EIO", &[]),
        ("fork=EIO", &["library fork"]),
        ("!fork=EIO@3", &["dropped !fork"]),
        ("waitpid=EIO", &["other-abi waitpid"]),
        ("waitpid@32=EIO", &["library waitpid@32"]),
        ("clock_gettime=EIO", &["vdso clock_gettime"]),
        ("clock_gettime@64=EIO", &["vdso clock_gettime@64"]),
        ("clock_gettime@32=EIO", &[]),
        ("%clock=EIO", &["vdso %clock"]),
        ("%file,!%clock=EIO", &["dropped %file"]),
        ("?nosuchcall,fsync=EIO", &["missing ?nosuchcall"]),
        ("?fsync=EIO", &[]),
    ]);
}

#[test]
fn what_looks_like_a_mistake_and_is_none() {
    check(&[
        ("0=EIO", &[]),
        ("74=EIO", &[]),
        ("fsync(path=a and path)=EIO", &[]),
        ("connect(peer=[::1])=EIO", &[]),
        ("fsync=EIO@3..3", &[]),
        ("fsync=EIO@3..3+2", &[]),
        ("fsync=EIO@for:0.00000000025h", &[]),
        ("fsync(path=a and x=3)=EIO", &[]),
        ("/^fsync\\/*$/=EIO", &[]),
    ]);
}

#[test]
fn sets_leave_out_what_cannot_be_replaced() {
    check(&[
        ("/^(exit|fsync)$/=EIO", &["dropped /^(exit|fsync)$/"]),
        ("/^(exit|fsync)$/=delay:1s", &[]),
        ("/^(exit|fsync)$/,!exit=EIO", &[]),
    ]);
    for rule in ["exit=EIO", "/^exit$/=EIO"] {
        assert!(mistake(rule).contains("exit"), "{rule}");
    }
}

#[test]
fn a_number_that_no_argument_can_be_is_warned_of() {
    let told = |rule: &str| {
        let compiled = compile(&[RuleText::new(rule)]).unwrap();
        let warnings = compiled.warnings.into_iter();
        let never = warnings.filter_map(|warning| match warning.kind {
            NeverActs(_, why) => Some(why),
            _ => None,
        });
        never.collect::<Vec<_>>()
    };
    assert_eq!(
        told("lseek(arg3=4294967296)=EIO"),
        ["arg3 has 32 bits, and 4294967296 needs more"]
    );
    for rule in [
        "lseek(arg3=4294967295)=EIO",
        "lseek(arg2=4294967296)=EIO",
        "lseek(arg3!=4294967296)=EIO",
    ] {
        assert_eq!(told(rule), [""; 0], "{rule}");
    }
}

/// The rules of a run, and one that joins it.
fn joined(run: &[&str], joins: RuleText) -> Result<Compiled, Vec<RuleErrors>> {
    let texts: Vec<_> = run.iter().map(|rule| RuleText::new(*rule)).collect();
    compile_after(&compile(&texts).unwrap().rules, &[joins])
}

fn name(name: &str) -> RuleName {
    RuleName::new(name).unwrap()
}

#[test]
fn a_rule_that_joins_is_numbered_on_or_keeps_its_name() {
    let name_of = |run: &[&str], joins: RuleText| {
        let joined = joined(run, joins).unwrap().rules;
        assert_eq!(joined.len(), 1);
        joined[0].name.to_string()
    };
    let fresh = || RuleText::new("read=EIO");
    assert_eq!(name_of(&[], fresh()), "r1");
    assert_eq!(name_of(&["fsync=EIO", "write=EIO"], fresh()), "r3");
    let named = fresh().named(name("sick"));
    assert_eq!(named.name(), Some(&name("sick")));
    assert_eq!(fresh().name(), None);
    assert_eq!(name_of(&["fsync=EIO"], named), "sick");

    // A number that somebody has given as a name is passed over.
    let taken = compile(&[RuleText::new("fsync=EIO").named(name("r2"))]).unwrap();
    let joins = compile_after(&taken.rules, &[fresh()]).unwrap();
    assert_eq!(joins.rules[0].name, name("r3"));
    let twice = compile_after(&taken.rules, &[fresh().named(name("r2"))]);
    assert_eq!(twice.unwrap_err().len(), 1);
}

#[test]
fn a_rule_that_joins_draws_as_it_would_have_from_the_start() {
    let whole = ["write=EIO@1%", "write=EIO@1%", "fsync=EIO"];
    let texts: Vec<_> = whole.iter().map(|rule| RuleText::new(*rule)).collect();
    let whole = compile(&texts).unwrap().rules;
    let second = joined(&["write=EIO@1%"], RuleText::new("write=EIO@1%")).unwrap();
    assert_eq!(second.rules[0].key, whole[1].key);
    let other = joined(&["write=EIO@1%"], RuleText::new("fsync=EIO")).unwrap();
    assert_eq!(other.rules[0].key, whole[2].key);
}

#[test]
fn a_rule_that_joins_one_that_always_decides_is_warned_of() {
    let shadowed = joined(&["fsync=EIO"], RuleText::new("fsync=EPERM")).unwrap();
    let by = |compiled: &Compiled| {
        let mut warnings = compiled.warnings.iter();
        let by = warnings.find_map(RuleWarning::shadowed_by);
        by.map(str::to_owned)
    };
    assert_eq!(by(&shadowed).as_deref(), Some("r1"));
    let leaks = compile(&[RuleText::new("openat=after:EIO")]).unwrap();
    assert!(!leaks.warnings.is_empty());
    assert_eq!(by(&leaks), None);
}
