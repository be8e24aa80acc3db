//! What a test in a virtual machine is told by `cargo xtask test`, as the README of this crate
//! describes it. Outside of one, every function here panics: such a test must not look as if it
//! had run.

use std::{env, path::PathBuf};

/// A variable that the machine's boot sets.
#[expect(clippy::panic, reason = "a test's way to fail")]
fn variable(name: &str) -> String {
    match env::var(name) {
        Ok(value) => value,
        Err(error) => panic!("{name}: {error}; run this test by `cargo xtask test`"),
    }
}

/// The finject under test.
///
/// # Panics
///
/// Outside of a virtual machine.
pub fn finject() -> PathBuf {
    variable("FINJECT_BIN").into()
}

/// The name of the kernel: `6.1`, `6.12`, `6.12-no-override` or `debian`.
///
/// # Panics
///
/// Outside of a virtual machine.
pub fn kernel() -> String {
    variable("FINJECT_KERNEL")
}

/// Ends a test that does not apply to the kernel it runs on: `unsupported!("NAME", "reason")`, with
/// the test's own name as the harness prints it. Such a test is listed, and fails where
/// tests/must-hold.toml demands it.
#[macro_export]
macro_rules! unsupported {
    ($name:expr, $($reason:tt)+) => {{
        println!("UNSUPPORTED {}: {}", $name, format_args!($($reason)+));
        return;
    }};
}

/// Whether the kernel lets results of calls be overridden, as finject needs it.
///
/// # Panics
///
/// Outside of a virtual machine.
pub fn overrides() -> bool {
    matches!(kernel().as_str(), "6.1" | "6.12")
}

/// Ends the test that it stands in when the kernel lets nothing be overridden.
#[macro_export]
macro_rules! needs_override {
    () => {
        if !$crate::guest::overrides() {
            $crate::unsupported!($crate::test_name!(), "a kernel without override");
        }
    };
}

/// Ends the test that it stands in when the kernel lets calls be overridden.
#[macro_export]
macro_rules! needs_no_override {
    () => {
        if $crate::guest::overrides() {
            $crate::unsupported!($crate::test_name!(), "a kernel with override");
        }
    };
}

/// The name of the test that it stands in, as the harness prints it.
#[macro_export]
macro_rules! test_name {
    () => {{
        fn here() {}
        let path = std::any::type_name_of_val(&here);
        let path = path.strip_suffix("::here").unwrap_or(path);
        path.split_once("::").map_or(path, |(_, name)| name)
    }};
}
