//! The compiler, LLVM and linker of the kernel half, and the command that they are run by. The BPF
//! target has no ready-made `core`, so that the compiler must come with its library's sources and
//! take unstable options; and the linker reads the compiler's bitcode, so that its LLVM must be no
//! older than the compiler's. Debian has such a pair; elsewhere rustup's nightly will do.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

/// The target: little-endian BPF.
const TARGET: &str = "bpfel-unknown-none";
const LINKER: &str = "bpf-linker";

/// What distinguishes one set of tools from another.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Versions {
    /// `rustc --version`.
    compiler: String,
    /// The compiler's LLVM.
    llvm: String,
    /// `bpf-linker --version`, and the LLVM that it is linked with.
    linker: String,
}

impl Versions {
    /// What of `other` is not as here, in words.
    pub(super) fn difference(&self, other: &Self) -> Vec<String> {
        [
            ("compiler", &self.compiler, &other.compiler),
            ("LLVM", &self.llvm, &other.llvm),
            ("linker", &self.linker, &other.linker),
        ]
        .into_iter()
        .filter(|(_, recorded, here)| recorded != here)
        .map(|(what, recorded, here)| format!("{what} {here}, recorded is {recorded}"))
        .collect()
    }
}

/// A set of tools that is here.
#[derive(Debug)]
pub(super) struct Tools {
    cargo: PathBuf,
    rustc: PathBuf,
    linker: PathBuf,
    /// The sources of the compiler's library.
    library: PathBuf,
    pub(super) versions: Versions,
}

impl Tools {
    /// The wanted ones where they are here, otherwise the first that can build; an error says what
    /// each lacks.
    pub(super) fn find(wanted: Option<&Versions>) -> anyhow::Result<Self> {
        let (mut found, mut lacking) = (Vec::new(), Vec::new());
        for (name, candidate) in [("Debian's", debian()), ("rustup's nightly", nightly())] {
            match candidate {
                Ok(tools) => found.push(tools),
                Err(error) => lacking.push(format!("{name}: {error:#}")),
            }
        }
        if let Some(index) = found
            .iter()
            .position(|tools| wanted.is_some_and(|wanted| tools.versions == *wanted))
        {
            return Ok(found.swap_remove(index));
        }
        if found.is_empty() {
            bail!(
                "no tools for the kernel half ({}). On Debian `cargo xtask setup` installs them; \
                 elsewhere: rustup toolchain install nightly --component rust-src, and \
                 {LINKER} 0.13 built with an LLVM no older than that toolchain's",
                lacking.join("; "),
            );
        }
        Ok(found.swap_remove(0))
    }

    fn new(cargo: PathBuf, rustc: PathBuf) -> anyhow::Result<Self> {
        ensure!(rustc.exists(), "no {}", rustc.display());
        ensure!(cargo.exists(), "no {}", cargo.display());
        let sysroot = output(Command::new(&rustc).args(["--print", "sysroot"]))?;
        let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
        ensure!(
            library.join("core/src/lib.rs").exists(),
            "no sources of the library in {}",
            library.display()
        );
        let verbose = output(Command::new(&rustc).arg("-vV"))?;
        let llvm = verbose
            .lines()
            .find_map(|line| line.strip_prefix("LLVM version: "))
            .context("the compiler has no LLVM")?
            .to_owned();
        let compiler = verbose.lines().next().unwrap_or_default().to_owned();
        let linker = find_linker().with_context(|| format!("no {LINKER}"))?;
        let versions = Versions {
            compiler,
            llvm,
            linker: describe_linker(&linker)?,
        };
        Ok(Self {
            cargo,
            rustc,
            linker,
            library,
            versions,
        })
    }

    /// Builds the kernel half of a workspace and returns the object, debug sections and all.
    pub(super) fn build(&self, root: &Path, target_dir: &Path) -> anyhow::Result<PathBuf> {
        let mut flags = vec![
            format!("-Clinker={}", self.linker.display()),
            "-Clink-arg=--btf".into(),
            "-Ctarget-cpu=v3".into(),
            "-Cdebuginfo=2".into(),
            "-Cpanic=abort".into(),
        ];
        let name =
            |path: &Path, name: &str| format!("--remap-path-prefix={}={name}", path.display());
        // The last that fits is taken.
        flags.push(name(root, "."));
        for dir in self.registries(root)? {
            flags.push(name(&dir, "registry"));
        }
        flags.push(name(&self.library, "library"));
        if let Ok(real) = self.library.canonicalize() {
            flags.push(name(&real, "library"));
        }
        let out = target_dir.join(TARGET).join("release");
        // Cargo does not see it when the linker is another one than the last time.
        unlink(&out.join("deps"), "finject-")?;
        let status = self
            .cargo(root)
            .args([
                "build",
                "--quiet",
                "--release",
                "--locked",
                "--target",
                TARGET,
            ])
            .args(["-Z", "build-std=core"])
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env("CARGO_TARGET_DIR", target_dir)
            .status()
            .with_context(|| format!("running {}", self.cargo.display()))?;
        ensure!(status.success(), "the kernel half does not build: {status}");
        Ok(out.join("finject"))
    }

    /// The directories that packages from outside of the workspace lie in.
    fn registries(&self, root: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
        #[derive(Deserialize)]
        struct Metadata {
            packages: Vec<Package>,
        }
        #[derive(Deserialize)]
        struct Package {
            source: Option<String>,
            manifest_path: PathBuf,
        }
        let text = output(
            self.cargo(root)
                .args(["metadata", "--format-version=1", "--locked"]),
        )?;
        let metadata: Metadata = serde_json::from_str(&text).context("in cargo's metadata")?;
        Ok(metadata
            .packages
            .iter()
            .filter(|package| package.source.is_some())
            .filter_map(|package| package.manifest_path.parent()?.parent())
            .map(Path::to_path_buf)
            .collect())
    }

    /// Cargo with these tools, and with nothing of the one that runs this task.
    fn cargo(&self, root: &Path) -> Command {
        let mut command = Command::new(&self.cargo);
        for (name, _) in env::vars_os() {
            let of_cargo = name.to_str().is_some_and(|name| {
                name.starts_with("CARGO_") && name != "CARGO_HOME"
                    || name.starts_with("RUSTC")
                    || name.starts_with("RUSTUP_TOOLCHAIN")
                    || name == "RUSTFLAGS"
            });
            if of_cargo {
                command.env_remove(name);
            }
        }
        command
            .current_dir(root.join("injector-ebpf"))
            .env("RUSTC", &self.rustc)
            .env("RUSTC_BOOTSTRAP", "1");
        command
    }

    /// The places of this machine that the object must not name.
    pub(super) fn places(&self, root: &Path) -> Vec<String> {
        [
            Some(root.to_path_buf()),
            cargo_home(),
            self.library.canonicalize().ok(),
        ]
        .into_iter()
        .flatten()
        .map(|path| path.display().to_string())
        .collect()
    }
}

/// The packages rustc-web, cargo-web and rust-web-src.
fn debian() -> anyhow::Result<Tools> {
    Tools::new("/usr/bin/cargo".into(), "/usr/bin/rustc".into())
}

/// The nightly toolchain with component rust-src.
fn nightly() -> anyhow::Result<Tools> {
    let which = |tool| {
        output(Command::new("rustup").args(["which", "--toolchain", "nightly", tool]))
            .map(|path| PathBuf::from(path.trim()))
    };
    Tools::new(which("cargo")?, which("rustc")?)
}

fn cargo_home() -> Option<PathBuf> {
    let home = || Some(Path::new(&env::var_os("HOME")?).join(".cargo"));
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home)
}

/// In `CARGO_HOME`, where `cargo install` puts it, or wherever PATH has it.
fn find_linker() -> Option<PathBuf> {
    let installed = cargo_home().map(|home| home.join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    installed
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|dir| dir.join(LINKER))
        .find(|path| path.is_file())
}

/// Its version, and the LLVM that the loader finds for it: an update of that changes what it makes.
fn describe_linker(linker: &Path) -> anyhow::Result<String> {
    let version = output(Command::new(linker).arg("--version"))?;
    let libraries = output(Command::new("ldd").arg(linker)).unwrap_or_default();
    let llvm = libraries
        .split_whitespace()
        .find(|word| word.starts_with('/') && file_name(Path::new(word)).starts_with("libLLVM"))
        .and_then(|path| Path::new(path).canonicalize().ok())
        .map_or_else(|| "LLVM linked in".to_owned(), |path| file_name(&path));
    Ok(format!("{}, {llvm}", version.trim()))
}

/// Removes the files of a directory whose names start so; no directory is none.
fn unlink(dir: &Path, start: &str) -> anyhow::Result<()> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        if file_name(&path).starts_with(start) {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// What a command prints.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let program: OsString = command.get_program().to_owned();
    let output = command
        .output()
        .with_context(|| format!("running {}", program.display()))?;
    ensure!(
        output.status.success(),
        "{} failed: {}",
        program.display(),
        String::from_utf8_lossy(&output.stderr).trim(),
    );
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} prints no text", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differing_versions_are_named() {
        let recorded = Versions {
            compiler: "rustc 1".into(),
            llvm: "22.1".into(),
            linker: "bpf-linker 1".into(),
        };
        assert!(recorded.difference(&recorded).is_empty());
        let here = Versions {
            llvm: "22.2".into(),
            ..recorded.clone()
        };
        assert_eq!(recorded.difference(&here), ["LLVM 22.2, recorded is 22.1"]);
    }
}
