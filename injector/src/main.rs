//! The `finject` binary: everything is in the library.

fn main() -> std::process::ExitCode {
    injector::cli::main()
}
