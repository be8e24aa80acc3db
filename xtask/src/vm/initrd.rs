//! The initial RAM disk of the test VM: busybox, two scripts, the job, and what drivers a modular kernel needs.

use super::cpio::Archive;
use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

const INIT: &[u8] = include_bytes!("init.sh");
const GUEST: &[u8] = include_bytes!("guest.sh");

/// The drivers for the console ports, the host's root and the overlay, as modules are called.
const DRIVERS: &[&str] = &[
    "virtio_pci",
    "virtio_console",
    "9pnet_virtio",
    "9p",
    "overlay",
];

/// What the guest is to do.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// The directory to run in.
    pub(crate) directory: &'a Path,
    /// Variables set beyond those that come from the host.
    pub(crate) environment: &'a [(String, String)],
    /// The program and its arguments.
    pub(crate) command: &'a [OsString],
    /// Whether a writable directory is shared.
    pub(crate) share_out: bool,
    /// The unpacked package of a modular kernel (see [`tree_of`]).
    pub(crate) kernel_tree: Option<&'a Path>,
    /// The bytes that end a stream.
    pub(crate) mark: &'a [u8],
}

/// Makes the disk's bytes.
///
/// # Errors
/// When busybox or a module cannot be read.
pub(crate) fn make(job: &Job<'_>) -> anyhow::Result<Vec<u8>> {
    let mut archive = Archive::default();
    for path in [
        "bin", "dev", "job", "lower", "merged", "modules", "proc", "sys", "upper",
    ] {
        archive.directory(path);
    }
    archive.device("dev/console", 5, 1);
    let busybox = busybox().context(
        "no static busybox is here: apt-get install busybox-static, or `cargo xtask setup`",
    )?;
    archive.file("bin/busybox", &std::fs::read(&busybox)?);
    archive.file("init", INIT);
    archive.file("job/guest.sh", GUEST);
    archive.file("job/job.sh", &script(job));
    archive.file("job/settings", &settings(job));
    archive.file("job/end", job.mark);
    if let Some(tree) = job.kernel_tree {
        for (position, module) in modules(tree, DRIVERS)?.iter().enumerate() {
            let name = module.file_name().unwrap_or_default().to_string_lossy();
            archive.file(
                &format!("modules/{position:02}-{name}"),
                &std::fs::read(module)?,
            );
        }
    }
    Ok(archive.finish())
}

/// The busybox on this machine that needs no library.
pub(crate) fn busybox() -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .chain(["/bin".into(), "/usr/bin".into()])
        .map(|directory| directory.join("busybox"))
        .find(|path| std::fs::read(path).is_ok_and(|bytes| is_static(&bytes)))
}

/// Whether an ELF file names no interpreter: the text of `PT_INTERP` is a path to the dynamic loader.
fn is_static(elf: &[u8]) -> bool {
    let head = &elf[..elf.len().min(4096)];
    elf.starts_with(b"\x7fELF") && !head.windows(8).any(|window| window == b"ld-linux")
}

/// The script that becomes the job: variables, directory, command.
fn script(job: &Job<'_>) -> Vec<u8> {
    let mut script = Vec::new();
    let mut export = |name: &str, value: &OsStr| {
        script.extend_from_slice(b"export ");
        script.extend_from_slice(name.as_bytes());
        script.push(b'=');
        script.extend(quoted(value));
        script.push(b'\n');
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = [
        path.as_os_str(),
        OsStr::new("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ]
    .join(OsStr::new(":"));
    export("PATH", &path);
    export(
        "HOME",
        &std::env::var_os("HOME").unwrap_or_else(|| "/root".into()),
    );
    for name in [
        "CARGO_HOME",
        "RUSTUP_HOME",
        "FINJECT_BPF_OBJECT",
        "RUST_BACKTRACE",
    ] {
        if let Some(value) = std::env::var_os(name) {
            export(name, &value);
        }
    }
    export("USER", OsStr::new("root"));
    export("LANG", OsStr::new("C.UTF-8"));
    export("FINJECT_VM", OsStr::new("1"));
    if job.share_out {
        export("FINJECT_VM_OUT", OsStr::new("/run/finject-vm/out"));
    }
    for (name, value) in job.environment {
        export(name, OsStr::new(value));
    }
    script.extend_from_slice(b"cd ");
    script.extend(quoted(job.directory.as_os_str()));
    script.extend_from_slice(b" || exit 126\n");
    let program = job
        .command
        .first()
        .map_or(OsStr::new(""), OsString::as_os_str);
    // By its path: busybox's shell would take a program of its own for a bare name.
    let Some(found) = program_path(program, &path) else {
        script.extend_from_slice(b"printf '%s: command not found\\n' ");
        script.extend(quoted(program));
        script.extend_from_slice(b" >&2\nexit 127\n");
        return script;
    };
    // The shell that waits for it has it ignore what ends a command from a terminal.
    script.extend_from_slice(b"exec /usr/bin/env --default-signal=INT,QUIT ");
    script.extend(quoted(found.as_os_str()));
    for word in job.command.iter().skip(1) {
        script.push(b' ');
        script.extend(quoted(word));
    }
    script.push(b'\n');
    script
}

/// The program that a word names: itself where it has a slash, else the first executable file of that name in `path`.
fn program_path(word: &OsStr, path: &OsStr) -> Option<PathBuf> {
    if word.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(word));
    }
    std::env::split_paths(path)
        .map(|directory| directory.join(word))
        .find(|file| {
            file.metadata().is_ok_and(|metadata| {
                metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
            })
        })
}

fn settings(job: &Job<'_>) -> Vec<u8> {
    let mut settings = b"kernel_tree=".to_vec();
    settings.extend(quoted(job.kernel_tree.unwrap_or(Path::new("")).as_os_str()));
    settings.extend_from_slice(b"\nshare_out=");
    settings.extend_from_slice(if job.share_out { b"1\n" } else { b"\n" });
    settings
}

/// A word as the shell reads it back, byte for byte.
fn quoted(word: &OsStr) -> Vec<u8> {
    let mut out = vec![b'\''];
    for &byte in word.as_bytes() {
        if byte == b'\'' {
            out.extend_from_slice(br"'\''");
        } else {
            out.push(byte);
        }
    }
    out.push(b'\'');
    out
}

/// The root of the unpacked package that a kernel lies in, `TREE/boot/vmlinuz-RELEASE` with
/// `TREE/lib/modules/RELEASE`, or none for a kernel that stands alone.
pub(crate) fn tree_of(kernel: &Path) -> Option<PathBuf> {
    let release = kernel.file_name()?.to_str()?.strip_prefix("vmlinuz-")?;
    let tree = kernel.parent()?.parent()?;
    (tree != Path::new("/") && tree.join("lib/modules").join(release).is_dir())
        .then(|| tree.to_path_buf())
}

/// The files of some modules and of all they depend on, each after its dependencies.
fn modules(tree: &Path, wanted: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = BTreeMap::new();
    find_modules(&tree.join("lib/modules"), &mut files)?;
    let mut order = Vec::new();
    for name in wanted {
        add_module(name, &files, &mut order, 0)?;
    }
    Ok(order)
}

fn add_module(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    order: &mut Vec<PathBuf>,
    depth: u32,
) -> anyhow::Result<()> {
    // A wanted driver that is no file is built in; a dependency that is none is a broken tree.
    let Some(path) = files.get(name) else {
        anyhow::ensure!(depth == 0, "the kernel's package lacks the module {name}");
        return Ok(());
    };
    if order.contains(path) {
        return Ok(());
    }
    if depth > 16 {
        bail!("the modules of the kernel's package depend on each other in a circle, at {name}");
    }
    let content = std::fs::read(path)?;
    for dependency in dependencies(&content) {
        add_module(&dependency, files, order, depth + 1)?;
    }
    order.push(path.clone());
    Ok(())
}

/// The names a module's `.modinfo` section lists as `depends=a,b` (include/linux/module.h).
fn dependencies(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|window| window == key) else {
        return Vec::new();
    };
    let value = &module[at + key.len()..];
    let value = &value[..value
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(value.len())];
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(module_name)
        .collect()
}

/// The kernel writes a module's dashes as underscores.
fn module_name(name: &str) -> String {
    name.replace('-', "_")
}

fn find_modules(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(directory)
        .with_context(|| format!("cannot read {}", directory.display()))?
    {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            find_modules(&path, files)?;
        } else if path.extension() == Some(OsStr::new("ko"))
            && let Some(stem) = path.file_stem().and_then(OsStr::to_str)
        {
            files.insert(module_name(stem), path.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{dependencies, is_static, modules, program_path, quoted, tree_of};
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn the_shell_reads_a_quoted_word_back_byte_for_byte() {
        for word in [
            &b"plain"[..],
            b"",
            b"a b",
            b"it's",
            b"$HOME `x` \\ \" \n",
            b"\xff\xfe",
            b"'''",
        ] {
            let mut script = b"printf %s ".to_vec();
            script.extend(quoted(OsStr::from_bytes(word)));
            let output = std::process::Command::new("sh")
                .arg("-c")
                .arg(OsStr::from_bytes(&script))
                .output()
                .unwrap();
            assert_eq!(output.stdout, word);
        }
    }

    #[test]
    fn a_bare_word_is_a_program_in_the_path_and_a_path_is_itself() {
        let path = OsStr::new("/nowhere:/usr/bin:/bin");
        assert!(program_path(OsStr::new("sh"), path).unwrap().is_absolute());
        assert_eq!(program_path(OsStr::new("no-such-program"), path), None);
        assert_eq!(program_path(OsStr::new(""), path), None);
        assert_eq!(program_path(OsStr::new("a/b"), path), Some("a/b".into()));
    }

    #[test]
    fn a_module_comes_after_what_it_depends_on() {
        let tree = tempfile::tempdir().unwrap();
        let directory = tree.path().join("lib/modules/1.0/kernel/net");
        std::fs::create_dir_all(&directory).unwrap();
        for (file, depends) in [
            ("9p.ko", "9pnet,netfs"),
            ("9pnet.ko", ""),
            ("netfs.ko", "fs-cache"),
            ("fs-cache.ko", ""),
            ("unused.ko", "missing"),
        ] {
            let content = format!("\x7fELF...\0license=GPL\0depends={depends}\0retpoline=Y\0");
            std::fs::write(directory.join(file), content).unwrap();
        }
        let names: Vec<String> = modules(tree.path(), &["9p", "built_in"])
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["9pnet.ko", "fs-cache.ko", "netfs.ko", "9p.ko"]);
        let error = modules(tree.path(), &["unused"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the kernel's package lacks the module missing"
        );
    }

    #[test]
    fn dependencies_are_read_from_the_module_itself() {
        assert_eq!(dependencies(b"x\0depends=a,b-c\0name=x\0"), ["a", "b_c"]);
        assert!(dependencies(b"x\0depends=\0").is_empty());
        assert!(dependencies(b"x").is_empty());
    }

    #[test]
    fn a_kernel_in_a_package_tree_has_modules_and_one_alone_has_none() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tree.path().join("lib/modules/6.1.0-1-amd64")).unwrap();
        std::fs::create_dir_all(tree.path().join("boot")).unwrap();
        let boot = tree.path().join("boot");
        assert_eq!(
            tree_of(&boot.join("vmlinuz-6.1.0-1-amd64")).as_deref(),
            Some(tree.path())
        );
        assert_eq!(tree_of(&boot.join("vmlinuz-9.9")), None);
        assert_eq!(tree_of(&boot.join("bzImage-6.12")), None);
    }

    #[test]
    fn a_program_that_names_a_loader_is_not_static() {
        assert!(is_static(b"\x7fELF...."));
        assert!(!is_static(b"\x7fELF..../lib64/ld-linux-x86-64.so.2\0"));
        assert!(!is_static(b"#!/bin/sh"));
    }
}
