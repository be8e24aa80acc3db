//! `cargo xtask demo`: finject on a real server, in a virtual machine, so that it can be seen
//! without a kernel that allows it and without harm to anything. tests/apps/demo.sh is what runs.

use std::time::Duration;

use anyhow::Context as _;

use crate::{
    repo,
    setup::{self, Need},
    vm::{self, Boot, BootError},
};

/// Options of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The kernel to show it on
    #[arg(long, value_name = "NAME|PATH", default_value = "6.12")]
    kernel: String,
}

/// Boots and shows; the status is the script's, which fails when what it shows did not happen.
pub(crate) fn run(options: &Options) -> anyhow::Result<i32> {
    setup::ensure(&[Need::Vm, Need::Apps])?;
    let kernel = vm::obtain(&options.kernel)?;
    vm::build()?;
    let script = repo::root().join("tests/apps/demo.sh");
    let mut boot = Boot::new(kernel.path, [script]);
    boot.timeout = Duration::from_mins(5);
    match vm::boot(&boot) {
        Ok(outcome) => Ok(outcome.status),
        Err(error) => {
            let report = error.downcast_ref::<BootError>().map(BootError::report);
            eprintln!("{}", report.unwrap_or_default());
            Err(error).context("the virtual machine")
        }
    }
}
