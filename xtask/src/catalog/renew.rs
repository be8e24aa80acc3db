//! Renewing the committed facts from a kernel: `syscall_*.tbl` of its source, and the `format`
//! files of its tracefs. Only facts are kept: numbers, names, entry points, types.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, ensure};

/// Reads the joined `format` files and writes `arguments.txt`.
pub(crate) fn arguments(formats: &Path, data: &Path) -> anyhow::Result<()> {
    let text = fs::read(formats).with_context(|| format!("reading {}", formats.display()))?;
    let text = String::from_utf8_lossy(&text);
    let mut calls: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("name: sys_enter_") {
            current = Some(name.trim());
            calls.insert(name.trim(), Vec::new());
        } else if let Some(field) = line.trim_start().strip_prefix("field:")
            && let Some(call) = current.and_then(|name| calls.get_mut(name))
        {
            let field = field.split(';').next().unwrap_or(field).trim();
            let name = field.rsplit(' ').next().unwrap_or(field);
            if !name.starts_with("common_") && name != "__syscall_nr" {
                call.push(field);
            }
        }
    }
    ensure!(
        calls.len() > 300,
        "{} holds only {} calls",
        formats.display(),
        calls.len()
    );
    let mut out = String::from(
        "# Arguments of the calls as the kernel names and types them, in order, after the name of the entry point\n\
         # without its `sys_`. Taken from events/syscalls/sys_enter_*/format of tracefs;\n\
         # renewed by `cargo xtask catalog --formats FILE`.\n",
    );
    for (name, fields) in calls {
        out.push_str(name);
        for field in fields {
            write!(out, "\t{field}")?;
        }
        out.push('\n');
    }
    write(&data.join("arguments.txt"), &out)
}

/// Reads the kernel's tables and writes `x86_64.txt` and `i386.txt`.
pub(crate) fn numbers(tables: &Path, data: &Path) -> anyhow::Result<()> {
    let sources: [(&str, &[&str], &str, bool); 2] = [
        ("syscall_64.tbl", &["common", "64"], "x86_64.txt", false),
        ("syscall_32.tbl", &["i386"], "i386.txt", true),
    ];
    for (source, abis, target, with_compat) in sources {
        let path = tables.join(source);
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let mut calls = BTreeMap::new();
        for line in text.lines() {
            let fields: Vec<&str> = line
                .split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            let [nr, abi, name, rest @ ..] = fields.as_slice() else {
                continue;
            };
            if abis.contains(abi) {
                let nr: u16 = nr.parse().with_context(|| format!("{source}: {line:?}"))?;
                calls.insert(nr, (*name, entry(rest.first()), entry(rest.get(1))));
            }
        }
        let compat = if with_compat {
            ", compat entry point"
        } else {
            ""
        };
        let mut out = format!(
            "# Number, name, entry point{compat} of each call, from the kernel's own syscall table\n\
             # (arch/x86/entry/syscalls/{source}); a dash where there is none.\n\
             # Renewed by `cargo xtask catalog --tables DIR`.\n"
        );
        for (nr, (name, entry, compat)) in calls {
            write!(out, "{nr}\t{name}\t{entry}")?;
            if with_compat {
                write!(out, "\t{compat}")?;
            }
            out.push('\n');
        }
        write(&data.join(target), &out)?;
    }
    Ok(())
}

fn entry<'a>(field: Option<&&'a str>) -> &'a str {
    field
        .copied()
        .filter(|f| *f != "-" && !f.contains("sys_ni_syscall"))
        .unwrap_or("-")
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
