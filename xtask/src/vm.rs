//! `cargo xtask vm -- CMD`: a command in a virtual machine that shows it this machine's files.
//!
//! The guest sees the host's root read-only, under an overlay that is forgotten; it runs the command in the checkout as
//! root. Output and exit status pass through, byte for byte. What the kernel prints goes to a console of its own, which
//! is watched for the kernel's failures and shown when the boot fails.

pub(crate) mod cpio;
pub(crate) mod debian;
pub(crate) mod initrd;
pub(crate) mod kernel_list;
pub(crate) mod qemu;
pub(crate) mod self_test;
pub(crate) mod session;
pub(crate) mod stream;
pub(crate) mod watchdog;

use crate::repo;
use crate::setup::{self, Need};
use anyhow::Context as _;
use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use kernel_list::TestKernel;

/// The exit status when the command ran out of time. Apart from every status of finject's own and of
/// a shell's.
pub(crate) const TIMED_OUT: i32 = 251;
/// The exit status when the machine itself failed.
pub(crate) const FAILED: i32 = 252;

/// Boots a kernel under emulation and runs a command in it, on this machine's files.
#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
pub(crate) struct Options {
    /// 6.12, 6.1, 6.12-no-override, debian (the distribution's stock kernel), or an image's path
    #[arg(long, value_name = "NAME|PATH", default_value = kernel_list::DEFAULT)]
    kernel: String,
    /// Words for the kernel's command line, such as `preempt=full`
    #[arg(
        long,
        value_name = "WORDS",
        default_value = "",
        allow_hyphen_values = true
    )]
    append: String,
    /// Processors
    #[arg(long, value_name = "N", default_value_t = 2)]
    smp: u32,
    /// Memory
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    memory: u32,
    /// Time after which the machine is stopped
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// One processor whose clock is its count of instructions, so that counts repeat
    #[arg(long)]
    icount: bool,
    /// A directory that the guest can write to, as $`FINJECT_VM_OUT`
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A variable for the command
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    environment: Vec<(String, String)>,
    /// Do not build the release binary first
    #[arg(long)]
    no_build: bool,
    /// Show the kernel's console on standard error
    #[arg(long)]
    console: bool,
    /// List the kernels at hand and boot none
    #[arg(long, exclusive = true)]
    list: bool,
    /// Show that every way in which a guest can fail is seen
    #[arg(long)]
    self_test: bool,
    /// The command; one with a slash is looked up from the checkout's root
    #[arg(last = true, required_unless_present_any = ["list", "self_test"], value_name = "CMD")]
    command: Vec<OsString>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value))
            if !name.is_empty()
                && !name.starts_with(|first: char| first.is_ascii_digit())
                && name
                    .chars()
                    .all(|letter| letter.is_ascii_alphanumeric() || letter == '_') =>
        {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

/// One boot: which machine, and what to do in it.
#[derive(Debug, Clone)]
pub(crate) struct Boot {
    /// The kernel's image.
    pub(crate) kernel: PathBuf,
    /// Words for the kernel's command line.
    pub(crate) append: String,
    /// Processors; one where `icount` is set.
    pub(crate) smp: u32,
    /// Memory in MiB.
    pub(crate) memory_mb: u32,
    /// Time from power-on to the command's end.
    pub(crate) timeout: Duration,
    /// Whether the clock is the count of instructions.
    pub(crate) icount: bool,
    /// A host directory that the guest can write to, as `$FINJECT_VM_OUT`.
    pub(crate) out: Option<PathBuf>,
    /// Variables for the command.
    pub(crate) env: Vec<(String, String)>,
    /// Whether the output is kept for the caller, in place of being passed through.
    pub(crate) capture: bool,
    /// Whether the kernel's console is shown on standard error.
    pub(crate) console: bool,
    /// The program and its arguments; it runs in the workspace's root.
    pub(crate) command: Vec<OsString>,
}

impl Boot {
    /// An ordinary machine: two processors, 2 GiB, ten minutes.
    pub(crate) fn new<W: Into<OsString>>(
        kernel: impl Into<PathBuf>,
        command: impl IntoIterator<Item = W>,
    ) -> Self {
        Self {
            kernel: kernel.into(),
            append: String::new(),
            smp: 2,
            memory_mb: 2048,
            timeout: Duration::from_mins(10),
            icount: false,
            out: None,
            env: Vec::new(),
            capture: false,
            console: false,
            command: command.into_iter().map(Into::into).collect(),
        }
    }
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The exit status, 128+N where signal N ended it.
    pub(crate) status: i32,
    /// Standard output and standard error as they came, when captured.
    pub(crate) output: Vec<u8>,
    /// Standard output alone, when captured.
    pub(crate) stdout: Vec<u8>,
}

/// How a machine fails. Each has the console's text, and the output as far as it was captured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// The kernel reported its own failure.
    #[error("the guest's kernel failed (\"{marker}\" on its console)")]
    Panic {
        /// The words found.
        marker: &'static str,
        /// What the kernel said.
        console: String,
        /// What the command had said.
        output: Vec<u8>,
    },
    /// The command had not ended in time.
    #[error("{stage} after {} s, and was stopped (--timeout sets the time)", after.as_secs())]
    Hang {
        /// How far it came.
        stage: &'static str,
        /// The time it had.
        after: Duration,
        /// What the kernel said, and the processes that were there.
        console: String,
        /// What the command had said.
        output: Vec<u8>,
    },
    /// The machine went off without an exit status.
    #[error(
        "the machine went off before the command had ended{}",
        detail(emulator)
    )]
    Off {
        /// What the emulator said.
        emulator: String,
        /// What the kernel said.
        console: String,
        /// What the command had said.
        output: Vec<u8>,
    },
}

fn detail(emulator: &str) -> String {
    if emulator.trim().is_empty() {
        String::new()
    } else {
        format!(": {}", emulator.trim())
    }
}

impl BootError {
    /// The exit status that says it.
    pub(crate) fn status(&self) -> i32 {
        match self {
            Self::Hang { .. } => TIMED_OUT,
            Self::Panic { .. } | Self::Off { .. } => FAILED,
        }
    }

    /// What there is to say of it to a person: the console, and the command's output where it was captured.
    pub(crate) fn report(&self) -> String {
        let (Self::Panic {
            console, output, ..
        }
        | Self::Hang {
            console, output, ..
        }
        | Self::Off {
            console, output, ..
        }) = self;
        let mut report = String::from("--- the guest's console:\n");
        report.push_str(console.trim_end());
        if !output.is_empty() {
            report.push_str("\n--- the command's output:\n");
            report.push_str(String::from_utf8_lossy(output).trim_end());
        }
        report + "\n---"
    }
}

/// The kernels at hand.
///
/// # Errors
/// When `FINJECT_TEST_KERNELS` names what is not there.
pub(crate) fn kernels() -> anyhow::Result<Vec<TestKernel>> {
    kernel_list::kernels()
}

/// The kernel with a name or a path; one that is not at hand is fetched or built.
///
/// # Errors
/// When there is no such kernel, and none of that name can be made.
pub(crate) fn obtain(kernel: &str) -> anyhow::Result<TestKernel> {
    kernel_list::obtain(kernel)
}

/// Runs the subcommand and returns the exit status: the command's, [`TIMED_OUT`] or [`FAILED`].
pub(crate) fn run(options: Options) -> anyhow::Result<i32> {
    if options.list {
        for kernel in kernels()? {
            println!("{}\t{}", kernel.name, kernel.path.display());
        }
        return Ok(0);
    }
    setup::ensure(needs(&options.command))?;
    let kernel = obtain(&options.kernel)?;
    if options.self_test {
        self_test::run(&kernel.path)?;
        return Ok(0);
    }
    if !options.no_build {
        build()?;
    }
    let boot = Boot {
        append: options.append,
        smp: options.smp,
        memory_mb: options.memory,
        timeout: Duration::from_secs(options.timeout),
        icount: options.icount,
        out: options.out,
        env: options.environment,
        console: options.console,
        ..Boot::new(kernel.path, options.command)
    };
    match self::boot(&boot) {
        Ok(outcome) => Ok(outcome.status),
        Err(error) => match error.downcast_ref::<BootError>() {
            Some(failure) => {
                if !boot.console {
                    eprintln!("{}", failure.report());
                }
                eprintln!("xtask vm: {failure}");
                Ok(failure.status())
            }
            None => Err(error),
        },
    }
}

/// What a command needs on the host, whose files it runs on.
fn needs(command: &[OsString]) -> &'static [Need] {
    let root = repo::root();
    let program = root.join(command.first().map_or(OsStr::new(""), OsString::as_os_str));
    if program.starts_with(root.join("tests/apps")) {
        &[Need::Vm, Need::Apps]
    } else {
        &[Need::Vm]
    }
}

/// Builds the release binary, so that a command that uses it works on a clean clone.
pub(crate) fn build() -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    if !repo::root().join("target/release/finject").exists() {
        eprintln!("xtask: building target/release/finject; this takes a few minutes");
    }
    let status = std::process::Command::new(cargo)
        .current_dir(repo::root())
        .args(["build", "--quiet", "--release", "--package", "injector"])
        .status()
        .context("cannot run cargo")?;
    anyhow::ensure!(status.success(), "the release binary does not build");
    Ok(())
}

/// Boots a machine and runs its command to the end.
///
/// # Errors
/// [`BootError`] for a machine that failed; anything else for one that could not be set up.
pub(crate) fn boot(boot: &Boot) -> anyhow::Result<Outcome> {
    match boot_once(boot) {
        Err(error) if is_the_emulators(&error) => {
            eprintln!(
                "xtask: the emulator ran an old translation of code that the kernel had patched \
                 (int3 at the entry of a system call); booting once more"
            );
            boot_once(boot)
        }
        outcome => outcome,
    }
}

/// Whether a guest died of its emulator. With a thread for each processor, QEMU 7.2 may let one
/// processor meet the breakpoint under whose cover another patches a function's entry, after the
/// patching is over; the kernel then knows of no breakpoint there. A real processor cannot.
fn is_the_emulators(error: &anyhow::Error) -> bool {
    let Some(BootError::Panic { console, .. }) = error.downcast_ref() else {
        return false;
    };
    let at_an_entry =
        |line: &str| line.contains("RIP:") && (line.contains("__x64_") || line.contains("__ia32_"));
    console.contains("int3: 0000") && console.lines().any(at_an_entry)
}

fn boot_once(boot: &Boot) -> anyhow::Result<Outcome> {
    let boot = prepared(boot)?;
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let mark = end_mark()?;
    let disk = initrd::make(&initrd::Job {
        directory: &repo::root(),
        environment: &boot.env,
        command: &boot.command,
        share_out: boot.out.is_some(),
        kernel_tree: initrd::tree_of(&boot.kernel).as_deref(),
        mark: &mark,
    })?;
    let initrd = directory.path().join("initrd");
    std::fs::write(&initrd, disk).context("cannot write the initial RAM disk")?;
    let machine = qemu::start(&boot, &initrd, directory.path())?;
    session::follow(&boot, machine, &mark, directory)
}

/// The boot with its paths absolute and its shared directory made.
fn prepared(boot: &Boot) -> anyhow::Result<Boot> {
    let mut boot = boot.clone();
    if let Some(out) = &mut boot.out {
        std::fs::create_dir_all(&*out).with_context(|| format!("cannot make {}", out.display()))?;
        *out = out.canonicalize()?;
    }
    boot.kernel = boot
        .kernel
        .canonicalize()
        .with_context(|| format!("there is no kernel {}", boot.kernel.display()))?;
    Ok(boot)
}

/// The bytes that end a stream: drawn for each boot, so that no output can hold them by chance or on purpose.
fn end_mark() -> anyhow::Result<Vec<u8>> {
    let mut random = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let digits = format!("{:032x}", u128::from_be_bytes(random));
    Ok(format!("\0end {digits}\n").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::{BootError, is_the_emulators, needs, variable};
    use crate::setup::Need;

    #[test]
    fn only_a_breakpoint_at_a_calls_entry_is_the_emulators_fault() {
        let panic = |console: &str| {
            anyhow::Error::from(BootError::Panic {
                marker: "Oops",
                console: console.to_owned(),
                output: Vec::new(),
            })
        };
        let entry = "RIP: 0010:__x64_sys_fsync+0x5/0x20";
        let elsewhere = "[3.1] Oops: int3: 0000 [#1]\nRIP: 0010:vfs_read+0x1/0x2";
        for (console, expected) in [
            (format!("[3.1] Oops: int3: 0000 [#1] SMP\n{entry}"), true),
            (format!("[3.1] Oops: 0000 [#1] SMP\n{entry}"), false),
            (elsewhere.to_owned(), false),
        ] {
            assert_eq!(is_the_emulators(&panic(&console)), expected, "{console}");
        }
    }

    #[test]
    fn a_script_for_an_application_needs_the_applications() {
        assert_eq!(needs(&["tests/apps/redis".into()]), [Need::Vm, Need::Apps]);
        assert_eq!(
            needs(&["target/release/finject".into(), "tests/apps/x".into()]),
            [Need::Vm]
        );
    }

    #[test]
    fn a_variable_is_a_name_and_a_value() {
        assert_eq!(
            variable("A_1=b=c"),
            Ok(("A_1".to_owned(), "b=c".to_owned()))
        );
        assert_eq!(variable("A="), Ok(("A".to_owned(), String::new())));
        for wrong in ["A", "=b", "1A=b", "A B=c", "A;x=b", ""] {
            assert!(variable(wrong).is_err(), "{wrong}");
        }
    }
}
