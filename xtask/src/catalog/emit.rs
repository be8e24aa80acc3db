//! Writing a syscall table as Rust: one row a call, in the order of numbers.

use std::fmt::Write as _;

use super::facts::{Abi, Argument, Facts};

/// The text of `table_*.rs`.
pub(crate) fn table(facts: &Facts) -> String {
    let stem = facts.abi.file_stem();
    let mut out = format!(
        "//! Every call of the `{stem}` ABI by number. Written by `cargo xtask catalog`: change the\n\
         //! facts in `xtask/data/catalog/`, not this file.\n\n\
         use super::catalog::{{Row, arg, int, ptr, uint}};\n\n\
         #[rustfmt::skip]\n\
         pub(super) static TABLE: &[Row] = &[\n"
    );
    for (nr, call) in &facts.calls {
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "    Row {{ nr: {nr}, name: {:?}, entry: {:?}, compat: {:?}, args: ",
            call.name,
            call.entry.as_deref().unwrap_or(""),
            call.compat.as_deref().unwrap_or(""),
        );
        match &call.arguments {
            None => out.push_str("None"),
            Some(arguments) => {
                let list: Vec<String> = arguments.iter().map(|a| argument(a, facts.abi)).collect();
                let _ = write!(out, "Some(&[{}])", list.join(", "));
            }
        }
        out.push_str(" },\n");
    }
    out.push_str("];\n");
    out
}

fn argument(argument: &Argument, abi: Abi) -> String {
    let Argument { ctype, name } = argument;
    let kind = kind(ctype, abi);
    format!("arg({name:?}, {ctype:?}, {kind})")
}

/// Width and sign at which the kernel's stub takes an argument of this C type. Types from the
/// kernel's `include/linux/types.h` and `include/uapi/asm-generic/posix_types.h`.
fn kind(ctype: &str, abi: Abi) -> String {
    let word = match abi {
        Abi::X86_64 => 64,
        Abi::I386 => 32,
    };
    let bare = ctype.strip_prefix("const ").unwrap_or(ctype);
    if bare.ends_with('*') {
        return "ptr()".to_owned();
    }
    match bare {
        "cap_user_header_t" | "cap_user_data_t" => "ptr()".to_owned(),
        "int" | "pid_t" | "key_t" | "key_serial_t" | "mqd_t" | "timer_t" | "clockid_t"
        | "__s32" | "rwf_t" => "int(32)".to_owned(),
        "unsigned" | "unsigned int" | "u32" | "__u32" | "uid_t" | "gid_t" | "qid_t" => {
            "uint(32)".to_owned()
        }
        "umode_t" | "old_uid_t" | "old_gid_t" => "uint(16)".to_owned(),
        "long" | "off_t" => format!("int({word})"),
        "loff_t" | "s64" | "__s64" => "int(64)".to_owned(),
        "u64" | "__u64" => "uint(64)".to_owned(),
        "unsigned long" | "size_t" | "aio_context_t" => format!("uint({word})"),
        _ if bare.starts_with("enum ") => "uint(32)".to_owned(),
        // rwf_t and the like are spelled out above; a new one must be looked up, not guessed.
        other => format!("compile_error!(\"the width of {other} is not known to xtask catalog\")"),
    }
}
