//! The record beside the committed object: what made it, and of what.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::tools::{Tools, Versions};

/// The sources of the object besides the packages of Cargo.lock.
const SOURCES: &[&str] = &["injector-common", "injector-ebpf"];
/// The package from the registry that those build with: Cargo.lock's part of the inputs.
const PACKAGE: &str = "aya-ebpf";

/// What injector/bpf/finject.bpf.toml holds.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// SHA-256 of the object.
    object: String,
    /// SHA-256 of what it was made of, by name.
    inputs: BTreeMap<String, String>,
    /// What made it.
    pub(super) tools: Versions,
}

impl Record {
    /// Of an object just built.
    pub(super) fn new(object: &[u8], tools: &Tools, root: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            object: digest(object),
            inputs: inputs(root)?,
            tools: tools.versions.clone(),
        })
    }

    /// The committed one.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("in {}", path.display()))
    }

    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = "# What made finject.bpf.o; written by `cargo xtask ebpf`.\n".to_owned();
        text += &toml::to_string(self)?;
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// The record is of this object and of the sources as they are.
    pub(super) fn describes(&self, object: &[u8], root: &Path) -> anyhow::Result<()> {
        let mut wrong = Vec::new();
        if digest(object) != self.object {
            wrong.push("the object is not the recorded one".to_owned());
        }
        let inputs = inputs(root)?;
        let names: BTreeSet<_> = self.inputs.keys().chain(inputs.keys()).collect();
        for name in names {
            match (self.inputs.get(name), inputs.get(name)) {
                (Some(then), Some(now)) if then == now => {}
                (Some(_), Some(_)) => wrong.push(format!("{name} has changed")),
                (Some(_), None) => wrong.push(format!("{name} is gone")),
                (None, _) => wrong.push(format!("{name} is new")),
            }
        }
        if !wrong.is_empty() {
            bail!(
                "the committed object is older than its sources: {}. Run `cargo xtask ebpf` and \
                 commit what it writes",
                wrong.join(", "),
            );
        }
        Ok(())
    }
}

/// SHA-256 in hexadecimal digits.
fn digest(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}"); // Into a string: cannot fail.
    }
    text
}

/// The digest of each source file, and one of the packages that Cargo.lock pins for it.
fn inputs(root: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut inputs = BTreeMap::new();
    for package in SOURCES {
        for path in files(&root.join(package))? {
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let name = path.strip_prefix(root).unwrap_or(&path);
            inputs.insert(name.display().to_string(), digest(&bytes));
        }
    }
    let path = root.join("Cargo.lock");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let pinned = pinned(&text, PACKAGE)?.join("\n");
    inputs.insert("Cargo.lock".to_owned(), digest(pinned.as_bytes()));
    Ok(inputs)
}

/// A package's Cargo.toml and the files of its src/ that are compiled into the object.
fn files(package: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = vec![package.join("Cargo.toml")];
    let mut pending = VecDeque::from([package.join("src")]);
    while let Some(dir) = pending.pop_front() {
        for entry in fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push_back(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Name, version and checksum of every package from the registry that a package is built with.
fn pinned(lock: &str, package: &str) -> anyhow::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: String,
        checksum: Option<String>,
        #[serde(default)]
        dependencies: Vec<String>,
    }
    let lock: Lock = toml::from_str(lock).context("in Cargo.lock")?;
    let mut seen = BTreeSet::new();
    let mut pending = vec![package];
    while let Some(wanted) = pending.pop() {
        // "name", or "name version" where there are several of the name.
        let (name, version) = match wanted.split_once(' ') {
            Some((name, version)) => (name, Some(version)),
            None => (wanted, None),
        };
        let found = lock
            .package
            .iter()
            .find(|package| {
                package.name == name && version.is_none_or(|version| package.version == version)
            })
            .with_context(|| format!("Cargo.lock has no {wanted}"))?;
        let checksum = found.checksum.as_deref().unwrap_or("here");
        if seen.insert(format!("{} {} {checksum}", found.name, found.version)) {
            pending.extend(found.dependencies.iter().map(String::as_str));
        }
    }
    Ok(seen.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"
version = 4
[[package]]
name = "ours"
version = "0.1.0"
dependencies = ["a", "b 2.0.0"]
[[package]]
name = "a"
version = "1.0.0"
checksum = "aa"
dependencies = ["b 1.0.0"]
[[package]]
name = "b"
version = "1.0.0"
checksum = "b1"
[[package]]
name = "b"
version = "2.0.0"
checksum = "b2"
[[package]]
name = "other"
version = "9.0.0"
checksum = "99"
"#;

    #[test]
    fn the_lock_counts_as_far_as_the_package_reaches() {
        assert_eq!(
            pinned(LOCK, "ours").unwrap(),
            ["a 1.0.0 aa", "b 1.0.0 b1", "b 2.0.0 b2", "ours 0.1.0 here"]
        );
        assert!(pinned(LOCK, "absent").is_err());
    }

    #[test]
    fn sha256_is_sha256() {
        assert_eq!(
            digest(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
