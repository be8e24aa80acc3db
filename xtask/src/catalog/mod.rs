//! `cargo xtask catalog`: writes the syscall tables of the injector from the facts in
//! `xtask/data/catalog/`, and renews those facts from a kernel's own files. With `--check`
//! nothing is written, and a table that differs from its facts is an error.

mod emit;
mod facts;
mod renew;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use self::facts::{Abi, Facts};

/// Options of `cargo xtask catalog`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Compare with the committed tables and write nothing
    #[arg(long, conflicts_with_all = ["formats", "tables"])]
    check: bool,
    /// Renew argument names and types first, from the joined `events/syscalls/sys_enter_*/format`
    /// files of a kernel's tracefs (`cargo xtask vm -- sh -c 'cat .../sys_enter_*/format'`)
    #[arg(long, value_name = "FILE")]
    formats: Option<PathBuf>,
    /// Renew numbers and entry points first, from the `syscall_64.tbl` and `syscall_32.tbl` of a
    /// kernel source tree (`arch/x86/entry/syscalls`)
    #[arg(long, value_name = "DIR")]
    tables: Option<PathBuf>,
}

/// Renews facts where asked, cross-checks the sources, and writes or checks the tables.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let data = root.join("data/catalog");
    if let Some(file) = &args.formats {
        renew::arguments(file, &data)?;
    }
    if let Some(dir) = &args.tables {
        renew::numbers(dir, &data)?;
    }
    let out = root.join("../injector/src/syscall");
    for abi in [Abi::X86_64, Abi::I386] {
        let facts = Facts::read(abi, &data)?;
        let text = emit::table(&facts);
        let path = out.join(format!("table_{}.rs", abi.file_stem()));
        if args.check {
            let committed =
                fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            if committed != text {
                let line = committed
                    .lines()
                    .zip(text.lines())
                    .take_while(|(a, b)| a == b)
                    .count();
                bail!(
                    "{} differs from its facts, first in line {}; run `cargo xtask catalog`",
                    path.display(),
                    line + 1
                );
            }
        } else {
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        println!("{}: {} calls", abi.file_stem(), facts.calls.len());
    }
    Ok(())
}
