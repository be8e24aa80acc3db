//! The facts a syscall table is made from: numbers and entry points of the kernel's own tables,
//! completed by the numbers that crate `syscalls` knows beyond them, checked against the kernel
//! headers of the build machine; and argument names and types from tracefs.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use anyhow::{Context as _, bail, ensure};

/// An architecture's way of entering the kernel, with the sources of its facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abi {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86 under a 64-bit kernel.
    I386,
}

impl Abi {
    /// Stem of the fact file and the table.
    pub(crate) fn file_stem(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::I386 => "i386",
        }
    }

    fn header(self) -> &'static str {
        match self {
            Self::X86_64 => "unistd_64.h",
            Self::I386 => "unistd_32.h",
        }
    }

    /// Asked number by number: the crate's own iterator leaves out its last call.
    fn crate_numbers(self) -> Vec<(u16, &'static str)> {
        let name = |nr: u16| match self {
            Self::X86_64 => syscalls::x86_64::Sysno::new(nr.into()).map(|s| s.name()),
            Self::I386 => syscalls::x86::Sysno::new(nr.into()).map(|s| s.name()),
        };
        (0..1024).filter_map(|nr| Some((nr, name(nr)?))).collect()
    }
}

/// One argument: its C type and the kernel's name of it.
#[derive(Clone, Debug)]
pub(crate) struct Argument {
    pub(crate) ctype: String,
    pub(crate) name: String,
}

/// One call of a table.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// The kernel's function (`sys_read`), where it has one.
    pub(crate) entry: Option<String>,
    /// The function for 32-bit callers, where it is another.
    pub(crate) compat: Option<String>,
    /// `None` where tracefs does not know the call, or its 32-bit form differs.
    pub(crate) arguments: Option<Vec<Argument>>,
}

/// All calls of one ABI by number.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) abi: Abi,
    pub(crate) calls: BTreeMap<u16, Call>,
}

impl Facts {
    /// Reads the facts of `abi` in `data` and cross-checks them.
    pub(crate) fn read(abi: Abi, data: &Path) -> anyhow::Result<Self> {
        let known = arguments(&data.join("arguments.txt"))?;
        let path = data.join(format!("{}.txt", abi.file_stem()));
        let mut calls = BTreeMap::new();
        for line in lines(&path)? {
            let mut fields = line.split('\t').map(|f| (f != "-").then(|| f.to_owned()));
            let nr: u16 = fields
                .next()
                .flatten()
                .and_then(|n| n.parse().ok())
                .with_context(|| format!("{}: no number in {line:?}", path.display()))?;
            let name = fields
                .next()
                .flatten()
                .with_context(|| format!("{}: no name in {line:?}", path.display()))?;
            let entry = fields.next().flatten();
            let compat = fields.next().flatten();
            let arguments = arguments_of(entry.as_deref(), compat.as_deref(), abi, &known);
            let old = calls.insert(
                nr,
                Call {
                    name,
                    entry,
                    compat,
                    arguments,
                },
            );
            ensure!(old.is_none(), "{}: number {nr} twice", path.display());
        }
        let mut facts = Self { abi, calls };
        facts.complete()?;
        facts.check_headers()?;
        Ok(facts)
    }

    /// Adds what crate `syscalls` knows beyond the kernel's table; a conflict is an error.
    fn complete(&mut self) -> anyhow::Result<()> {
        let newest = self.calls.keys().next_back().copied().unwrap_or(0);
        for (nr, name) in self.abi.crate_numbers() {
            match self.calls.get(&nr) {
                Some(call) if call.name == name || same_call(&call.name, name) => {}
                Some(call) => bail!("number {nr}: {} or {name}?", call.name),
                None if nr > newest => {
                    let entry = Some(format!("sys_{name}"));
                    let name = name.to_owned();
                    self.calls.insert(
                        nr,
                        Call {
                            name,
                            entry,
                            compat: None,
                            arguments: None,
                        },
                    );
                }
                // Numbers that the kernel has taken back.
                None => {}
            }
        }
        Ok(())
    }

    /// The machine's kernel headers, where installed, must not contradict the table.
    fn check_headers(&self) -> anyhow::Result<()> {
        let places = ["/usr/include/x86_64-linux-gnu/asm", "/usr/include/asm"];
        let Some(text) = places
            .iter()
            .find_map(|dir| fs::read_to_string(Path::new(dir).join(self.abi.header())).ok())
        else {
            eprintln!(
                "note: no {} here; numbers not compared with it",
                self.abi.header()
            );
            return Ok(());
        };
        for line in text.lines() {
            let Some((name, nr)) = line
                .strip_prefix("#define __NR_")
                .and_then(|rest| rest.split_once(' '))
            else {
                continue;
            };
            let Ok(nr) = nr.trim().parse::<u16>() else {
                continue;
            };
            if let Some(call) = self.calls.get(&nr) {
                ensure!(
                    call.name == name,
                    "number {nr} is {} in the table, {name} in {}",
                    call.name,
                    self.abi.header()
                );
            }
        }
        Ok(())
    }
}

/// Names that the crate spells in its own way: raw identifiers, underscores.
fn same_call(kernel: &str, krate: &str) -> bool {
    let krate = krate.trim_start_matches("r#");
    kernel.trim_start_matches('_') == krate.trim_start_matches('_')
}

fn lines(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(text
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(str::to_owned)
        .collect())
}

fn arguments(path: &Path) -> anyhow::Result<HashMap<String, Vec<Argument>>> {
    let mut known = HashMap::new();
    for line in lines(path)? {
        let mut fields = line.split('\t');
        let name = fields.next().unwrap_or_default().to_owned();
        let arguments = fields
            .map(|field| {
                let (ctype, name) = field
                    .rsplit_once(' ')
                    .with_context(|| format!("{}: {field:?}", path.display()))?;
                Ok(Argument {
                    ctype: ctype.to_owned(),
                    name: name.to_owned(),
                })
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        known.insert(name, arguments);
    }
    Ok(known)
}

/// The arguments of an entry point. A 32-bit caller passes a 64-bit value in two registers, which
/// shifts what follows: such calls count as unknown on i386.
fn arguments_of(
    entry: Option<&str>,
    compat: Option<&str>,
    abi: Abi,
    known: &HashMap<String, Vec<Argument>>,
) -> Option<Vec<Argument>> {
    let entry = entry?.strip_prefix("sys_")?;
    if let Some(compat) = compat
        && compat.strip_prefix("compat_sys_") != Some(entry)
    {
        return None;
    }
    let arguments = known.get(entry)?;
    let wide = |a: &Argument| {
        matches!(
            a.ctype.as_str(),
            "loff_t" | "u64" | "__u64" | "s64" | "__s64"
        )
    };
    let split_in_compat = ["fanotify_mark"].contains(&entry);
    if abi == Abi::I386 && (split_in_compat || arguments.iter().any(wide)) {
        return None;
    }
    Some(arguments.clone())
}
