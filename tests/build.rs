//! Builds the programs that the tests run: victims for both ABIs, and a hammer of map system calls.
//! Their paths are in `finject_tests::programs`. Where the compiler cannot build for 32 bits the path is
//! empty, and the tests that need it say so.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

fn compile(source: &str, output: &Path, flags: &[&str]) -> Result<(), String> {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let result = Command::new(&compiler)
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
        .arg(Path::new("programs").join(source))
        .output()
        .map_err(|error| format!("{}: {error}", compiler.display()))?;
    if result.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&result.stderr).into_owned())
    }
}

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed=programs");
    println!("cargo::rerun-if-env-changed=CC");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    for (variable, source, name) in [
        ("VICTIM", "victim.c", "victim"),
        ("HAMMER", "hammer.c", "hammer"),
        ("WAITER", "waiter.c", "waiter"),
        ("TICKER", "ticker.c", "ticker"),
    ] {
        let program = out.join(name);
        compile(source, &program, &[])?;
        println!("cargo::rustc-env={variable}={}", program.display());
    }
    let victim32 = out.join("victim32");
    let path = match compile("victim.c", &victim32, &["-m32"]) {
        Ok(()) => victim32.display().to_string(),
        Err(_) => String::new(),
    };
    println!("cargo::rustc-env=VICTIM32={path}");
    Ok(())
}
