//! `cargo xtask test`: everything that can be found out about the workspace in at most 25 minutes.
//! Nothing is skipped silently: what did not run is listed with what it needs, and the run then
//! ends with status 3. Someone who is not root gets all that needs no privilege.

mod demands;
pub(crate) mod host;
mod libtest;
pub(crate) mod report;
pub(crate) mod suite;

use std::{collections::BTreeSet, ffi::OsString, path::PathBuf, process::Command};

use anyhow::Context as _;

use self::{
    demands::Demands,
    host::HOST,
    report::{Done, End, Report},
    suite::{KERNELS, Settings, Suite},
};
use crate::{
    ebpf, repo,
    setup::{self, is_root},
    vm::{self, TestKernel},
};

/// The part of the large counts that `cargo xtask test` runs.
const SCALE: f64 = 0.1;
/// Makes a kernel that is not at hand a failure.
const REQUIRE_ALL: &str = "FINJECT_REQUIRE_ALL_KERNELS";

/// Options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run only the tests in virtual machines whose `TARGET::NAME` contains this (repeatable)
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
    /// Boot only this kernel (repeatable)
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
}

/// Runs everything, or what was chosen.
pub(crate) fn run(options: &Options) -> i32 {
    let mut report = Report::default();
    let chosen = !options.only.is_empty() || !options.kernel.is_empty();
    let mut settings = Settings {
        scale: SCALE,
        only: options.only.clone(),
        kernels: options.kernel.clone(),
        fresh_object: None,
    };
    if chosen {
        report.not_run("everything else", "a run without --only and --kernel");
    } else {
        if is_root() {
            report.step("setup", |_| {
                setup::ensure(setup::FOR_TESTS)?;
                Ok(End::Passed.into())
            });
        }
        on_host(&mut report);
        settings.fresh_object = object(&mut report);
    }
    machines(&mut report, &settings, !chosen);
    report.finish()
}

/// The steps that need no virtual machine.
fn on_host(report: &mut Report) {
    report.step("format", |_| {
        command(&mut cargo_with(&["fmt", "--all", "--check"]))
    });
    // The tests of virtual machines are built, and looked at, only with their feature.
    report.step("lints", |_| {
        command(&mut cargo_with(&[
            "clippy",
            "--all-targets",
            "--features",
            "finject-tests/vm",
            "--",
            "--deny=warnings",
        ]))
    });
    report.step("catalogue", |_| {
        let itself = std::env::current_exe().context("cannot find this program")?;
        command(Command::new(itself).args(["catalog", "--check"]))
    });
    report.step("tests", |report| host::run(report, SCALE));
    report.step("documentation", |_| {
        command(cargo_with(&["doc", "--no-deps"]).env("RUSTDOCFLAGS", "--deny=warnings"))
    });
    report.step("fuzz targets", |_| {
        let manifest = "--manifest-path=fuzz/Cargo.toml";
        command(cargo_with(&["build", manifest]).env("RUSTC_BOOTSTRAP", "1"))
    });
}

/// Checks the kernel object; returns the fresh one where that has to be tried.
fn object(report: &mut Report) -> Option<PathBuf> {
    let name = "kernel object";
    if !is_root()
        && let Err(missing) = ebpf::tools()
    {
        report.not_run(name, &format!("{missing:#}"));
        return None;
    }
    let mut fresh = None;
    report.step(name, |_| {
        match ebpf::check()? {
            ebpf::Verdict::Equal => println!("the sources make the committed bytes"),
            ebpf::Verdict::Fresh { object, tools } => {
                println!(
                    "made by other tools than there are here ({tools}), and theirs make other \
                     bytes: virtual machines are booted once more, with {}",
                    object.display()
                );
                fresh = Some(object);
            }
        }
        Ok(End::Passed.into())
    });
    fresh
}

/// The virtual machines, and what must have run in them.
pub(crate) fn machines(report: &mut Report, settings: &Settings, complete: bool) {
    if !is_root() {
        report.not_run(
            "virtual machines",
            "root: the guest is shown all of this machine's files",
        );
        return;
    }
    let demands = Demands::read(&repo::root().join("tests/must-hold.toml"));
    let demands = match demands {
        Ok(demands) => demands,
        Err(error) => {
            report.step("must hold", |_| Err(error));
            return;
        }
    };
    let mut suite = None;
    report.step("tests for virtual machines", |report| {
        let kernels = if settings.kernels.is_empty() {
            kernels(report)?
        } else {
            let obtain = |name: &String| vm::obtain(name);
            settings
                .kernels
                .iter()
                .map(obtain)
                .collect::<anyhow::Result<_>>()?
        };
        suite = Some(Suite::prepare(settings, kernels, &demands)?);
        Ok(End::Passed.into())
    });
    let Some(suite) = suite else {
        return;
    };
    suite.run(report);
    if complete {
        report.step("must hold", |report| {
            let require_all = std::env::var_os(REQUIRE_ALL).is_some_and(|value| value == "1");
            let existing: BTreeSet<_> = suite.names().collect();
            // Without them the run is incomplete by itself.
            let with_host = report.has_any_at(HOST);
            let at_hand = |kernel: &str| match kernel {
                HOST => with_host,
                kernel => require_all || suite.has_kernel(kernel),
            };
            let unkept = demands.unkept(report, &existing, &at_hand);
            for line in &unkept {
                println!("{line}");
            }
            Ok(match unkept.len() {
                0 => End::Passed,
                count => End::Failed(format!("{count} demands of tests/must-hold.toml")),
            }
            .into())
        });
    }
}

/// The kernels at hand; where there is none, the usual one is built.
fn kernels(report: &mut Report) -> anyhow::Result<Vec<TestKernel>> {
    let mut kernels = vm::kernels()?;
    let mut get = |name: &str| -> anyhow::Result<()> {
        if !kernels.iter().any(|kernel| kernel.name == name) {
            kernels.push(vm::obtain(name)?);
        }
        Ok(())
    };
    // Only the distribution's kernel and this one can be had without being asked for: others take
    // minutes each to build.
    let stock = get("debian");
    if kernels.iter().all(|kernel| kernel.name == "debian") {
        kernels.push(vm::obtain("6.12")?);
    }
    if let Err(error) = stock {
        println!("the distribution's kernel: {error:#}");
    }
    for name in KERNELS {
        if !kernels.iter().any(|kernel| kernel.name == *name) {
            report.not_at_hand(format!(
                "kernel {name}: cargo xtask kernel {name}, or FINJECT_TEST_KERNELS naming it"
            ));
        }
    }
    Ok(kernels)
}

/// Cargo as this task was started by.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn cargo_with(arguments: &[&str]) -> Command {
    let mut command = Command::new(cargo());
    command.current_dir(repo::root()).args(arguments);
    command
}

/// A step that is a command, whose output passes through.
pub(crate) fn command(command: &mut Command) -> anyhow::Result<Done> {
    let program = command.get_program().to_owned();
    let status = command
        .status()
        .with_context(|| format!("running {}", program.display()))?;
    Ok(ended(status).into())
}

fn ended(status: std::process::ExitStatus) -> End {
    if status.success() {
        End::Passed
    } else {
        End::Failed(status.to_string())
    }
}
