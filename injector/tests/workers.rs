//! Programs in Go, Python and Rust under rules, on the kernel at hand, by every way that needs no kernel
//! with error injection. For two seconds each, and in `cargo xtask soak` for minutes.

use finject_tests::{
    conformance::Way,
    scale::scaled,
    test_name, unsupported,
    workers::{Language, works_as_without},
};

/// How long each works under each rule.
fn seconds(language: Language) -> u64 {
    let all = match language {
        // Its runtime sends itself signals.
        Language::Go => 120,
        Language::Python | Language::Rust => 10,
    };
    scaled(scaled(all)).max(2)
}

macro_rules! workers {
    ($($name:ident: $language:ident, $way:ident;)*) => {$(
        #[test]
        fn $name() {
            let language = Language::$language;
            let program = match language.program() {
                Ok(program) => program,
                Err(why) => unsupported!(test_name!(), "{why}"),
            };
            let finject = env!("CARGO_BIN_EXE_finject");
            works_as_without(Way::$way, finject, &program, seconds(language));
        }
    )*};
}

workers! {
    go_notified: Go, NotifyLaunch;
    go_launched_and_traced: Go, PtraceLaunch;
    go_traced: Go, PtraceAttach;
    python_notified: Python, NotifyLaunch;
    python_launched_and_traced: Python, PtraceLaunch;
    python_traced: Python, PtraceAttach;
    rust_notified: Rust, NotifyLaunch;
    rust_launched_and_traced: Rust, PtraceLaunch;
    rust_traced: Rust, PtraceAttach;
}
