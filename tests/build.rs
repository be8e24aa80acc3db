//! Builds the programs that the tests run: victims for both ABIs and in several languages, and a hammer of
//! map system calls. Their paths are in `finject_tests::programs`. Where a compiler is missing (for 32
//! bits, of Go) the path is empty, and the tests that need it say so.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

/// Where packages put compilers: what is missing may come.
const PROGRAMS: &str = "/usr/bin";

fn run(command: &mut Command) -> Result<String, String> {
    let result = command
        .output()
        .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if result.status.success() {
        Ok(String::from_utf8_lossy(&result.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&result.stderr).into_owned())
    }
}

fn source(name: &str) -> PathBuf {
    Path::new("programs").join(name)
}

/// The kernel's headers, which are not among another C library's.
const KERNEL_HEADERS: [&str; 4] = [
    "-idirafter",
    "/usr/include",
    "-idirafter",
    "/usr/include/x86_64-linux-gnu",
];

fn compile(name: &str, output: &Path, flags: &[&str]) -> Result<(), String> {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    compile_by(compiler, name, output, flags)
}

fn compile_by(
    compiler: impl AsRef<OsStr>,
    name: &str,
    output: &Path,
    flags: &[&str],
) -> Result<(), String> {
    let mut compiler = Command::new(compiler);
    compiler
        .args([
            "-std=gnu11",
            "-O1",
            "-g",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pthread",
        ])
        .args(flags)
        .arg("-o")
        .arg(output)
        .arg(source(name));
    run(&mut compiler).map(drop)
}

fn compile_rust(name: &str, output: &Path) -> Result<(), String> {
    let mut compiler = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    compiler
        .args(["--edition=2024", "-O", "-o"])
        .arg(output)
        .arg(source(name));
    run(&mut compiler).map(drop)
}

/// Whether there is a Go to compile it with; one that does not compile is a mistake.
fn compile_go(name: &str, output: &Path, cache: &Path) -> Result<bool, String> {
    if run(Command::new("go").arg("version")).is_err() {
        return Ok(false);
    }
    let mut compiler = Command::new("go");
    compiler
        .args(["build", "-trimpath", "-o"])
        .arg(output)
        .arg(source(name))
        .env("GOCACHE", cache)
        .env("CGO_ENABLED", "0")
        .env("GO111MODULE", "off")
        .env_remove("GOFLAGS");
    run(&mut compiler).map(|_| true)
}

/// The interpreter itself, behind whatever stands for it in the path; empty where there is none.
fn python() -> String {
    let asked = ["-c", "import sys; print(sys.executable)"];
    let found = run(Command::new("python3").args(asked));
    found.map_or(String::new(), |path| path.trim().to_owned())
}

fn tell(variable: &str, path: &str) {
    println!("cargo::rustc-env={variable}={path}");
    if path.is_empty() {
        println!("cargo::rerun-if-changed={PROGRAMS}");
    }
}

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed=programs");
    println!("cargo::rerun-if-env-changed=CC");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let text = |path: &Path, is_there: bool| {
        let path = path.display().to_string();
        if is_there { path } else { String::new() }
    };
    for (variable, source, name) in [
        ("VICTIM", "victim.c", "victim"),
        ("HAMMER", "hammer.c", "hammer"),
        ("WAITER", "waiter.c", "waiter"),
        ("TICKER", "ticker.c", "ticker"),
        ("STORM", "storm.c", "storm"),
        ("UNLISTENED", "unlistened.c", "unlistened"),
        ("MOVER", "mover.c", "mover"),
        ("FINDER", "finder.c", "finder"),
        ("CALLER", "caller.c", "caller"),
        ("URGENT", "urgent.c", "urgent"),
        ("SIBLINGS", "siblings.c", "siblings"),
        ("BEFALLEN", "befallen.c", "befallen"),
    ] {
        let program = out.join(name);
        compile(source, &program, &[])?;
        tell(variable, &text(&program, true));
    }
    let victim32 = out.join("victim32");
    let is_there = compile("victim.c", &victim32, &["-m32"]).is_ok();
    tell("VICTIM32", &text(&victim32, is_there));
    let mover32 = out.join("mover32");
    let is_there = compile("mover.c", &mover32, &["-m32"]).is_ok();
    tell("MOVER32", &text(&mover32, is_there));
    let finder32 = out.join("finder32");
    let is_there = compile("finder.c", &finder32, &["-m32"]).is_ok();
    tell("FINDER32", &text(&finder32, is_there));
    let waiter32 = out.join("waiter32");
    let is_there = compile("waiter.c", &waiter32, &["-m32"]).is_ok();
    tell("WAITER32", &text(&waiter32, is_there));
    let musl = out.join("victim-musl");
    let is_there = compile_by("musl-gcc", "victim.c", &musl, &KERNEL_HEADERS).is_ok();
    tell("VICTIM_MUSL", &text(&musl, is_there));
    let worker = out.join("worker");
    compile_rust("worker.rs", &worker)?;
    tell("RUST_WORKER", &text(&worker, true));
    let worker = out.join("worker-go");
    let is_there = compile_go("worker.go", &worker, &out.join("go-cache"))?;
    tell("GO_WORKER", &text(&worker, is_there));
    let urgent = out.join("urgent-go");
    let is_there = compile_go("urgent.go", &urgent, &out.join("go-cache"))?;
    tell("GO_URGENT", &text(&urgent, is_there));
    tell("PYTHON", &python());
    Ok(())
}
