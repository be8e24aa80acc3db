//! `cargo xtask ebpf`: builds the kernel object that finject carries. The object is committed, so
//! that building finject needs neither a second compiler nor a BPF linker; a record beside it says
//! what made it. It is the same, byte for byte, in whatever directory it is built: no path of a
//! machine goes into it, and its debug sections, of which the kernel reads none, are left out.
//! With `--check` nothing is written, and an object that is not what its sources make is an error.

mod atomics;
mod object;
mod record;
mod tools;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use self::{record::Record, tools::Tools};
use crate::{
    repo,
    setup::{self, Need},
};

/// Options of `cargo xtask ebpf`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Build into target/, compare with the committed object and write nothing else
    #[arg(long)]
    check: bool,
}

/// What `--check` found.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The sources make the committed bytes.
    Equal,
    /// Other tools made other bytes: the VM tests must pass with them.
    Fresh {
        /// The object, for `FINJECT_BPF_OBJECT`.
        object: PathBuf,
        /// How the tools differ from the recorded ones.
        tools: String,
    },
}

/// Builds or checks.
pub(crate) fn run(options: &Options) -> anyhow::Result<i32> {
    if options.check {
        match check()? {
            Verdict::Equal => println!("{} is what its sources make", shown(&object_path())),
            Verdict::Fresh { object, tools } => println!(
                "{} was made by other tools than there are here ({tools}), and theirs make other \
                 bytes.\nIt stands if the VM tests pass with the fresh object: \
                 FINJECT_BPF_OBJECT={} cargo xtask test",
                shown(&object_path()),
                object.display(),
            ),
        }
        return Ok(0);
    }
    let (bytes, tools) = build()?;
    let record = Record::new(&bytes, &tools, &repo::root())?;
    let path = object_path();
    fs::write(&path, &bytes).with_context(|| format!("writing {}", path.display()))?;
    record.write(&record_path())?;
    println!("{}: {} bytes", shown(&path), bytes.len());
    Ok(0)
}

/// Whether what builds the object is here; an error says what is missing.
pub(crate) fn tools() -> anyhow::Result<()> {
    Tools::find(None).map(drop)
}

/// Builds the object afresh into target/ and compares it with the committed one.
pub(crate) fn check() -> anyhow::Result<Verdict> {
    let (path, root) = (object_path(), repo::root());
    let committed = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let recorded = Record::read(&record_path())?;
    recorded.describes(&committed, &root)?;
    inspect(&committed).with_context(|| format!("the committed {}", shown(&path)))?;
    let (bytes, tools) = build()?;
    if bytes == committed {
        return Ok(Verdict::Equal);
    }
    let fresh = target_dir().join("finject.bpf.o");
    fs::write(&fresh, &bytes).with_context(|| format!("writing {}", fresh.display()))?;
    let differing = recorded.tools.difference(&tools.versions);
    if differing.is_empty() {
        bail!(
            "the recorded tools make {} of the sources, which is not the committed {}; run `cargo \
             xtask ebpf` and commit what it writes",
            fresh.display(),
            shown(&path),
        );
    }
    Ok(Verdict::Fresh {
        object: fresh,
        tools: differing.join("; "),
    })
}

/// Builds the object from the sources, strips it and looks at what came of it.
fn build() -> anyhow::Result<(Vec<u8>, Tools)> {
    let root = repo::root();
    // The recorded tools when they are here, otherwise any that can do it.
    let recorded = Record::read(&record_path()).ok();
    let wanted = recorded.as_ref().map(|record| &record.tools);
    let tools = match Tools::find(wanted) {
        Ok(tools) => tools,
        Err(missing) => {
            setup::ensure(&[Need::Ebpf])?;
            Tools::find(wanted).context(missing)?
        }
    };
    let built = tools.build(&root, &target_dir())?;
    let raw = fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    let bytes = object::strip(&raw)?;
    inspect(&bytes).context("the object just built")?;
    object::names_no_place(&bytes, &tools.places(&root))?;
    Ok((bytes, tools))
}

/// What must hold of every object, whoever built it.
fn inspect(bytes: &[u8]) -> anyhow::Result<()> {
    object::has_types(bytes)?;
    atomics::all_fetch(bytes)
}

/// Where the kernel half is built: a target directory of its own, since it has its own compiler.
fn target_dir() -> PathBuf {
    repo::root().join("target/ebpf")
}

fn object_path() -> PathBuf {
    repo::root().join("injector/bpf/finject.bpf.o")
}

fn record_path() -> PathBuf {
    object_path().with_extension("toml")
}

/// A path of the workspace as the workspace's reader knows it.
fn shown(path: &Path) -> String {
    path.strip_prefix(repo::root())
        .unwrap_or(path)
        .display()
        .to_string()
}
