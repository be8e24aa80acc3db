//! `cargo xtask setup`: what building and testing need, installed where Debian's or Ubuntu's packages are and we are
//! root, otherwise said as commands to type.

use crate::apt;
use crate::vm::initrd;
use anyhow::Context as _;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The exit status when something is missing that we may not install.
pub(crate) const INCOMPLETE: u8 = 3;

/// Installs what building and testing need, or prints the commands that do.
#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches of a command line"
)]
pub(crate) struct Options {
    /// Also what `cargo xtask kernel` needs
    #[arg(long)]
    kernel: bool,
    /// Also what `cargo xtask soak` needs
    #[arg(long)]
    soak: bool,
    /// Also what `cargo xtask compat` needs
    #[arg(long)]
    compat: bool,
    /// Also what `cargo xtask bench backends` needs
    #[arg(long)]
    bench: bool,
    /// Print the commands and install nothing
    #[arg(long)]
    print: bool,
}

/// A purpose that needs things installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The C programs of the tests, 32-bit ones among them.
    Compiler,
    /// The programs of the tests in other languages.
    Languages,
    /// The emulator and the guest's first programs.
    Vm,
    /// What the tests inject faults into, and measure against.
    Apps,
    /// The compiler, LLVM and linker of the kernel half.
    Ebpf,
    /// Building a kernel.
    Kernel,
    /// The long tests.
    Soak,
    /// Other projects' test suites.
    Compat,
    /// What `cargo xtask bench backends` measures and measures against.
    Bench,
}

/// What `cargo xtask test` needs.
pub(crate) const FOR_TESTS: &[Need] = &[
    Need::Compiler,
    Need::Languages,
    Need::Vm,
    Need::Apps,
    Need::Ebpf,
];

/// A package, and how its presence is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Package {
    /// A program that may come from elsewhere: the package's name, the program's.
    Program(&'static str, &'static str),
    /// The busybox that needs no library.
    StaticBusybox,
    /// Files of the package itself.
    Files(&'static str),
    /// The tests of Debian's Python, which are packaged by its version.
    PythonTests,
}

impl Package {
    fn name(self) -> &'static str {
        match self {
            Self::Program(name, _) | Self::Files(name) => name,
            Self::StaticBusybox => "busybox-static",
            Self::PythonTests => python_tests(),
        }
    }

    /// Whether its presence is seen in the package database alone.
    fn is_in_database(self) -> bool {
        matches!(self, Self::Files(_) | Self::PythonTests)
    }
}

/// The package of Python's tests for the version that is Debian's default here, or will be once it is installed.
fn python_tests() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let installed = std::fs::read_link("/usr/bin/python3").ok();
        let installed = installed.and_then(|it| it.file_name()?.to_str().map(str::to_owned));
        let version = installed
            .or_else(|| apt::candidate("python3").ok())
            .unwrap_or_default();
        python_tests_of(&version)
    })
}

/// The same for an interpreter's file name or version, `python3.11` or `3.11.2-1`.
fn python_tests_of(version: &str) -> String {
    let version = version.trim_start_matches("python");
    let short: Vec<&str> = version.split(['.', '-']).take(2).collect();
    format!("libpython{}-testsuite", short.join("."))
}

use Package::{Files, Program, PythonTests, StaticBusybox};

/// A tool that cargo builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tool {
    program: &'static str,
    version: &'static str,
    features: &'static [&'static str],
    /// Where its LLVM lies.
    llvm: Option<&'static str>,
}

/// The linker of the kernel half, built against the LLVM whose bitcode Debian's rustc-web writes.
const BPF_LINKER: Tool = Tool {
    program: "bpf-linker",
    version: "0.13.0",
    features: &["--no-default-features", "--features", "llvm-22"],
    llvm: Some("/usr/lib/llvm-22"),
};

const CARGO_MUTANTS: Tool = Tool {
    program: "cargo-mutants",
    version: "27.1.0",
    features: &[],
    llvm: None,
};

/// Runs the tests of a mutant until the first that notices it.
const CARGO_NEXTEST: Tool = Tool {
    program: "cargo-nextest",
    version: "0.9.143",
    features: &["--locked"],
    llvm: None,
};

impl Need {
    fn packages(self) -> &'static [Package] {
        match self {
            Self::Compiler => &[
                Program("gcc", "gcc"),
                Files("gcc-multilib"),
                Files("libc6-dev"),
                Program("musl-tools", "musl-gcc"),
            ],
            Self::Languages => &[Program("golang-go", "go"), Program("python3", "python3")],
            Self::Vm => &[
                Program("qemu-system-x86", "qemu-system-x86_64"),
                StaticBusybox,
            ],
            Self::Apps => &[
                Program("redis-server", "redis-server"),
                Files("postgresql-15"),
                Program("bpftrace", "bpftrace"),
                Program("strace", "strace"),
                // Docker's seccomp profile, and what puts a process under it.
                Files("golang-github-docker-docker-dev"),
                Files("python3-seccomp"),
                Files("python3"),
            ],
            Self::Ebpf => &[
                Files("rustc-web"),
                Files("cargo-web"),
                Files("rust-web-src"),
                Files("llvm-22-dev"),
                Files("libpolly-22-dev"),
                Files("zlib1g-dev"),
                Files("libzstd-dev"),
                Files("libxml2-dev"),
            ],
            Self::Kernel => &[
                Program("gcc", "gcc"),
                Files("libc6-dev"),
                Program("make", "make"),
                Program("flex", "flex"),
                Program("bison", "bison"),
                Program("bc", "bc"),
                Files("libelf-dev"),
                Files("libssl-dev"),
                Program("dwarves", "pahole"),
                Program("cpio", "cpio"),
                Program("xz-utils", "xz"),
            ],
            Self::Soak => &[],
            Self::Compat => &[
                Files("python3"),
                PythonTests,
                Program("redis-server", "redis-server"),
                Program("redis-tools", "redis-cli"),
                Program("tcl", "tclsh"),
                Files("dpkg-dev"),
            ],
            Self::Bench => &[
                Program("strace", "strace"),
                Program("sqlite3", "sqlite3"),
                Program("make", "make"),
                Program("util-linux", "taskset"),
            ],
        }
    }

    fn tools(self) -> &'static [Tool] {
        match self {
            Self::Ebpf => &[BPF_LINKER],
            Self::Soak => &[CARGO_MUTANTS, CARGO_NEXTEST],
            _ => &[],
        }
    }
}

/// What of the needs is not here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Missing {
    packages: Vec<&'static str>,
    tools: Vec<Tool>,
}

impl Missing {
    fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.tools.is_empty()
    }

    /// The commands that install it, to be typed by a person.
    fn commands(&self) -> Vec<String> {
        let mut commands = Vec::new();
        if !self.packages.is_empty() {
            commands.push("sudo apt-get update".to_owned());
            commands.push(format!(
                "sudo apt-get install --no-install-recommends {}",
                self.packages.join(" ")
            ));
        }
        for tool in &self.tools {
            let environment = tool.llvm.map_or(String::new(), |llvm| {
                format!("PATH={llvm}/bin:$PATH RUSTFLAGS='-L {llvm}/lib' ")
            });
            commands.push(format!("{environment}cargo {}", tool.arguments().join(" ")));
        }
        commands
    }
}

impl Tool {
    fn arguments(&self) -> Vec<&'static str> {
        let mut arguments = vec![
            "install",
            self.program,
            "--version",
            self.version,
            "--locked",
        ];
        arguments.extend(self.features);
        arguments
    }
}

/// Something is missing, and it is not ours to install.
#[derive(Debug, thiserror::Error)]
#[error(
    "{reason}, and something is missing; it takes:\n{}",
    indented(commands)
)]
pub(crate) struct Incomplete {
    reason: &'static str,
    commands: Vec<String>,
}

fn indented(lines: &[String]) -> String {
    lines
        .iter()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Runs the subcommand.
pub(crate) fn run(options: &Options) -> anyhow::Result<i32> {
    let mut needs = FOR_TESTS.to_vec();
    needs.extend(options.kernel.then_some(Need::Kernel));
    needs.extend(options.soak.then_some(Need::Soak));
    needs.extend(options.compat.then_some(Need::Compat));
    needs.extend(options.bench.then_some(Need::Bench));
    if options.print {
        let commands = missing(&needs)?.commands();
        for command in &commands {
            println!("{command}");
        }
        return Ok(if commands.is_empty() {
            0
        } else {
            INCOMPLETE.into()
        });
    }
    ensure(&needs)?;
    println!("everything is there");
    Ok(0)
}

/// Installs what is needed and missing. What is there already costs a look at the package database at most.
///
/// # Errors
/// [`Incomplete`] when something is missing and we are not root or not on Debian or Ubuntu; otherwise what the package
/// manager or cargo failed with.
pub(crate) fn ensure(what: &[Need]) -> anyhow::Result<()> {
    let absent = missing(what)?;
    if absent.is_empty() {
        return Ok(());
    }
    let refuse = |reason| {
        Err(Incomplete {
            reason,
            commands: absent.commands(),
        }
        .into())
    };
    if !is_root() {
        return refuse("only root installs");
    }
    if !absent.packages.is_empty() {
        if on_path("apt-get").is_none() {
            return refuse("this is no Debian or Ubuntu");
        }
        apt::install(&absent.packages)?;
    }
    for tool in &absent.tools {
        install_tool(tool)?;
    }
    let left = missing(what)?;
    anyhow::ensure!(
        left.is_empty(),
        "after their installation these are still missing:\n{}",
        indented(&left.commands())
    );
    Ok(())
}

/// Whether we may install packages.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn missing(needs: &[Need]) -> anyhow::Result<Missing> {
    let packages: Vec<Package> = needs
        .iter()
        .flat_map(|need| need.packages())
        .copied()
        .collect();
    let unseen: Vec<Package> = packages
        .into_iter()
        .filter(|package| match package {
            Program(_, program) => on_path(program).is_none(),
            StaticBusybox => initrd::busybox().is_none(),
            Files(_) | PythonTests => true,
        })
        .collect();
    let names: BTreeSet<&str> = unseen
        .iter()
        .filter(|package| package.is_in_database())
        .map(|package| package.name())
        .collect();
    let installed = if names.is_empty() {
        BTreeSet::new()
    } else {
        installed(&names)?
    };
    let mut missing = Missing::default();
    for package in unseen {
        let name = package.name();
        let present = package.is_in_database() && installed.contains(name);
        if !present && !missing.packages.contains(&name) {
            missing.packages.push(name);
        }
    }
    missing.tools = needs
        .iter()
        .flat_map(|need| need.tools())
        .filter(|tool| on_path(tool.program).is_none() && !cargo_bin(tool.program).is_file())
        .copied()
        .collect();
    Ok(missing)
}

/// Which of some packages are installed.
fn installed(names: &BTreeSet<&str>) -> anyhow::Result<BTreeSet<String>> {
    if on_path("dpkg-query").is_none() {
        return Ok(BTreeSet::new());
    }
    // It fails when one of them is unknown, and lists the others all the same.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(names)
        .output()
        .context("cannot run dpkg-query")?;
    Ok(parse_installed(&String::from_utf8_lossy(&output.stdout)))
}

fn parse_installed(lines: &str) -> BTreeSet<String> {
    lines
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .map(|name| name.split(':').next().unwrap_or(name).to_owned())
        .collect()
}

/// The program's path, by `PATH` and the directories of the system.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// Where cargo installs a program.
fn cargo_bin(program: &str) -> PathBuf {
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    home.join("bin").join(program)
}

fn install_tool(tool: &Tool) -> anyhow::Result<()> {
    eprintln!(
        "xtask: building {} {} (about a minute and a half)",
        tool.program, tool.version
    );
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // What cargo set for us is not meant for this build.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_")
            || [
                "CARGO_ENCODED_RUSTFLAGS",
                "CARGO_TARGET_DIR",
                "CARGO_MANIFEST_DIR",
                "RUSTC",
            ]
            .contains(&text.as_ref())
        {
            command.env_remove(&name);
        }
    }
    command
        .args(tool.arguments())
        .current_dir("/")
        .stdout(std::io::stderr());
    if let Some(llvm) = tool.llvm {
        let mut path = OsString::from(format!("{llvm}/bin:"));
        path.push(std::env::var_os("PATH").unwrap_or_default());
        command
            .env("PATH", path)
            .env("RUSTFLAGS", format!("-L {llvm}/lib"));
    }
    let status = command.status().context("cannot run cargo")?;
    anyhow::ensure!(status.success(), "`cargo install {}` failed", tool.program);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{BPF_LINKER, Incomplete, Missing, parse_installed, python_tests_of};

    #[test]
    fn the_package_database_is_read_by_state() {
        let listed = parse_installed(
            "gcc installed\nlibc6-dev:amd64 installed\nold config-files\nhalf half-installed\n",
        );
        assert_eq!(listed.into_iter().collect::<Vec<_>>(), ["gcc", "libc6-dev"]);
    }

    #[test]
    fn the_tests_of_python_are_those_of_its_version() {
        assert_eq!(python_tests_of("python3.11"), "libpython3.11-testsuite");
        assert_eq!(python_tests_of("3.13.5-1"), "libpython3.13-testsuite");
    }

    #[test]
    fn what_is_missing_is_said_as_commands() {
        let missing = Missing {
            packages: vec!["gcc", "strace"],
            tools: vec![BPF_LINKER],
        };
        let error = Incomplete {
            reason: "only root installs",
            commands: missing.commands(),
        };
        assert_eq!(
            error.to_string(),
            "only root installs, and something is missing; it takes:\n    \
             sudo apt-get update\n    \
             sudo apt-get install --no-install-recommends gcc strace\n    \
             PATH=/usr/lib/llvm-22/bin:$PATH RUSTFLAGS='-L /usr/lib/llvm-22/lib' cargo install \
             bpf-linker --version 0.13.0 --locked --no-default-features --features llvm-22"
        );
        assert!(Missing::default().commands().is_empty());
    }
}
