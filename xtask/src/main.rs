//! Build and test tasks.

mod apt;
mod bench;
mod catalog;
mod compat;
mod demo;
mod ebpf;
mod kernel;
mod repo;
mod setup;
mod soak;
mod test;
mod vm;

use clap::Parser;
use std::process::ExitCode;

/// Build and test tasks of finject.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Measure finject against other tools
    #[command(subcommand)]
    Bench(bench::Options),
    /// Write the syscall tables from their facts
    Catalog(catalog::Args),
    /// Run other projects' test suites bare and under a rule that never fires, and compare
    Compat(compat::Options),
    /// Build the kernel object that finject carries, or check that it is what its sources make
    Ebpf(ebpf::Options),
    /// Show finject on a real server, in a virtual machine
    Demo(demo::Options),
    /// The tests that take long: all counts in full, and mutants
    Soak(soak::Options),
    /// Find out everything that can be found out about the workspace
    Test(test::Options),
    /// Install what building and testing need, or print the commands that do
    Setup(setup::Options),
    /// Build a kernel for the tests from Debian's source package
    Kernel(kernel::Options),
    /// Run a command in a virtual machine that has this machine's files
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Bench(options) => bench::run(options),
        Command::Catalog(options) => catalog::run(&options).map(|()| 0),
        Command::Compat(options) => compat::run(&options),
        Command::Ebpf(options) => ebpf::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Soak(options) => Ok(soak::run(&options)),
        Command::Test(options) => Ok(test::run(&options)),
        Command::Setup(options) => setup::run(&options),
        Command::Kernel(options) => kernel::run(&options),
        Command::Vm(options) => vm::run(options),
    };
    match result {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            let incomplete = error.is::<setup::Incomplete>();
            ExitCode::from(if incomplete { setup::INCOMPLETE } else { 125 })
        }
    }
}
