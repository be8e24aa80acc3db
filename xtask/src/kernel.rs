//! `cargo xtask kernel`: the kernel that the tests run on, from Debian's source package and the fragment of
//! configuration in xtask/kernel/. It is kept in the cache with a note of what it was made from, and made again when
//! that is no longer so.

use crate::setup::{self, Need};
use crate::{apt, repo, vm};
use anyhow::{Context as _, bail};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The configuration beyond `make tinyconfig`.
const FRAGMENT: &str = include_str!("../kernel/finject.config");

/// Builds a kernel for the tests from Debian's source package (some eight minutes on two processors).
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Which
    #[arg(value_enum, default_value = vm::kernel_list::DEFAULT)]
    kernel: Variant,
}

/// A kernel that can be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Variant {
    /// Debian's long-term kernel, and the default of `cargo xtask vm`.
    #[value(name = "6.12")]
    V6_12,
    /// Debian 12's own, where the kernel does not count missed probes yet.
    #[value(name = "6.1")]
    V6_1,
    /// Without the override of return values, as some distributions have it.
    #[value(name = "6.12-no-override")]
    V6_12NoOverride,
}

impl Variant {
    /// The variant with a name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        <Self as clap::ValueEnum>::from_str(name, false).ok()
    }

    /// The name, as [`vm::TestKernel`] has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V6_12 => "6.12",
            Self::V6_1 => "6.1",
            Self::V6_12NoOverride => "6.12-no-override",
        }
    }

    /// Debian's package of its source.
    fn package(self) -> &'static str {
        match self {
            Self::V6_12 | Self::V6_12NoOverride => "linux-source-6.12",
            Self::V6_1 => "linux-source-6.1",
        }
    }

    fn fragment(self) -> String {
        match self {
            Self::V6_12 | Self::V6_1 => FRAGMENT.to_owned(),
            Self::V6_12NoOverride => FRAGMENT.replace(
                "CONFIG_BPF_KPROBE_OVERRIDE=y",
                "# CONFIG_BPF_KPROBE_OVERRIDE is not set",
            ),
        }
    }
}

/// Runs the subcommand.
pub(crate) fn run(options: &Options) -> anyhow::Result<i32> {
    println!("{}", build(options.kernel)?.display());
    Ok(0)
}

/// The kernel's image in the cache, built if it is not there or was made from something else.
///
/// # Errors
/// When its source cannot be had, its configuration does not take, or it does not build.
pub(crate) fn build(variant: Variant) -> anyhow::Result<PathBuf> {
    let directory = repo::cache().join("kernels");
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let image = directory.join(format!("bzImage-{}", variant.name()));
    let note = directory.join(format!("{}.made-from", variant.name()));
    let fragment = variant.fragment();
    let source = Source::find(variant.package())?;
    let made_from = format!("{} {}\n{fragment}", variant.package(), source.version());
    if image.is_file() && std::fs::read_to_string(&note).is_ok_and(|note| note == made_from) {
        return Ok(image);
    }
    setup::ensure(&[Need::Kernel])?;
    let started = Instant::now();
    // Beside the cache, not in /tmp, which may be small: the build takes about 3 GB.
    let tree = tempfile::Builder::new()
        .prefix("kernel-build-")
        .tempdir_in(repo::cache())?;
    source.unpack(variant.package(), tree.path())?;
    configure(tree.path(), &fragment)?;
    compile(tree.path(), variant.name(), started)?;
    // The note goes first and comes back last: a half-written image is never taken for a whole one.
    if note.exists() {
        std::fs::remove_file(&note)?;
    }
    let fresh = directory.join(format!(".{}.{}", variant.name(), std::process::id()));
    std::fs::copy(tree.path().join("arch/x86/boot/bzImage"), &fresh)
        .context("the build made no image")?;
    std::fs::rename(&fresh, &image)?;
    std::fs::write(&note, made_from)?;
    progress(variant.name(), started, "done");
    Ok(image)
}

fn progress(name: &str, started: Instant, what: &str) {
    let seconds = started.elapsed().as_secs();
    eprintln!(
        "xtask kernel {name}: {:>2}:{:02} {what}",
        seconds / 60,
        seconds % 60
    );
}

/// Where a kernel's source comes from.
#[derive(Debug)]
enum Source {
    /// An installed package: the archive, the package's version.
    Installed(PathBuf, String),
    /// A package to be fetched: its version.
    Archive(String),
}

impl Source {
    fn find(package: &str) -> anyhow::Result<Self> {
        let installed = PathBuf::from(format!("/usr/src/{package}.tar.xz"));
        if installed.is_file() {
            let output = Command::new("dpkg-query")
                .args(["--show", "--showformat", "${Version}", package])
                .output()
                .context("cannot run dpkg-query")?;
            let version = String::from_utf8_lossy(&output.stdout).into_owned();
            return Ok(Self::Installed(installed, version));
        }
        let version = apt::candidate(package)
            .context("a ready kernel can be named in FINJECT_TEST_KERNELS")?;
        Ok(Self::Archive(version))
    }

    fn version(&self) -> &str {
        match self {
            Self::Installed(_, version) | Self::Archive(version) => version,
        }
    }

    fn unpack(&self, package: &str, into: &Path) -> anyhow::Result<()> {
        eprintln!("xtask kernel: unpacking {package} {}", self.version());
        let fetched = tempfile::tempdir_in(repo::cache())?;
        let archive = match self {
            Self::Installed(archive, _) => archive.clone(),
            Self::Archive(version) => {
                apt::fetch(&format!("{package}={version}"), fetched.path())?;
                fetched.path().join(format!("usr/src/{package}.tar.xz"))
            }
        };
        apt::quiet(
            Command::new("tar")
                .args(["--extract", "--strip-components=1", "--file"])
                .arg(archive)
                .arg("--directory")
                .arg(into),
        )
    }
}

fn make(tree: &Path) -> Command {
    let mut command = Command::new("make");
    command.current_dir(tree).stdin(Stdio::null());
    // A make or a cargo that runs us has its own.
    for name in [
        "MAKEFLAGS",
        "MFLAGS",
        "MAKELEVEL",
        "ARCH",
        "CROSS_COMPILE",
        "RUSTFLAGS",
        "RUSTC",
    ] {
        command.env_remove(name);
    }
    command
}

fn configure(tree: &Path, fragment: &str) -> anyhow::Result<()> {
    std::fs::write(tree.join("finject.config"), fragment)?;
    apt::quiet(make(tree).args(["--silent", "tinyconfig"]))?;
    apt::quiet(
        Command::new("scripts/kconfig/merge_config.sh")
            .args(["-m", ".config", "finject.config"])
            .current_dir(tree),
    )?;
    apt::quiet(make(tree).args(["--silent", "olddefconfig"]))?;
    let config = std::fs::read_to_string(tree.join(".config"))?;
    let refused = not_taken(fragment, &config);
    anyhow::ensure!(
        refused.is_empty(),
        "the kernel's configuration does not take these lines of xtask/kernel/finject.config:\n{}",
        refused.join("\n")
    );
    Ok(())
}

/// The lines of a fragment that a configuration does not have; `# X is not set` holds where X is absent, too.
fn not_taken<'a>(fragment: &'a str, config: &str) -> Vec<&'a str> {
    let lines: std::collections::HashSet<&str> = config.lines().collect();
    let set: std::collections::HashSet<&str> = lines
        .iter()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name)
        .collect();
    fragment
        .lines()
        .filter(|line| {
            if let Some(rest) = line.strip_prefix("# CONFIG_") {
                rest.strip_suffix(" is not set")
                    .is_some_and(|name| set.contains(format!("CONFIG_{name}").as_str()))
            } else {
                line.starts_with("CONFIG_") && !lines.contains(line)
            }
        })
        .collect()
}

/// Runs the build, telling every so often how far it is.
fn compile(tree: &Path, name: &str, started: Instant) -> anyhow::Result<()> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let log = tree.join("finject-build.log");
    let mut child = make(tree)
        .args([&format!("-j{jobs}"), "bzImage"])
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log)?)
        .spawn()
        .context("cannot run make")?;
    progress(name, started, "compiling");
    let (mut steps, mut told) = (0_u32, Instant::now());
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            steps += 1;
            if told.elapsed() > Duration::from_secs(20) {
                told = Instant::now();
                progress(name, started, &format!("{steps} steps, at {}", line.trim()));
            }
        }
    }
    if !child.wait()?.success() {
        let errors = std::fs::read_to_string(&log)?;
        let from = errors.lines().count().saturating_sub(40);
        bail!(
            "the kernel does not build:\n{}",
            errors.lines().skip(from).collect::<Vec<_>>().join("\n")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{FRAGMENT, Variant, not_taken};
    use clap::ValueEnum as _;
    use std::collections::BTreeSet;

    #[test]
    fn a_line_that_did_not_take_is_found() {
        let config = "CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_E=y\nCONFIG_LONGER=y\n";
        let fragment = "# A comment, which is not one that is not set\nCONFIG_A=y\nCONFIG_B=y\n\
                        CONFIG_C=y\nCONFIG_D=y\n# CONFIG_E is not set\n# CONFIG_C is not set\n\
                        # CONFIG_ABSENT is not set\n# CONFIG_LONG is not set\n\n";
        assert_eq!(
            not_taken(fragment, config),
            [
                "CONFIG_B=y",
                "CONFIG_C=y",
                "CONFIG_D=y",
                "# CONFIG_E is not set"
            ]
        );
    }

    #[test]
    fn the_fragment_has_each_symbol_once_and_what_fault_injection_needs() {
        let symbols: Vec<&str> = FRAGMENT
            .lines()
            .filter_map(|line| line.trim_start_matches("# ").strip_prefix("CONFIG_"))
            .filter_map(|rest| rest.split(['=', ' ']).next())
            .collect();
        let distinct: BTreeSet<&&str> = symbols.iter().collect();
        assert_eq!(symbols.len(), distinct.len());
        for needed in [
            "BPF_KPROBE_OVERRIDE",
            "9P_FS",
            "OVERLAY_FS",
            "VIRTIO_CONSOLE",
            "MAGIC_SYSRQ",
        ] {
            assert!(
                FRAGMENT.contains(&format!("CONFIG_{needed}=y\n")),
                "{needed}"
            );
        }
    }

    #[test]
    fn every_variant_has_its_name_and_only_one_lacks_the_override() {
        for variant in Variant::value_variants() {
            assert_eq!(Variant::from_name(variant.name()), Some(*variant));
            assert_eq!(
                variant.fragment().contains("CONFIG_BPF_KPROBE_OVERRIDE=y"),
                *variant != Variant::V6_12NoOverride
            );
        }
    }
}
