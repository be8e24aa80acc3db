//! The kernels to test on: those named by `FINJECT_TEST_KERNELS`, else the ready ones in a directory beside the
//! checkout, else those built or fetched into the cache.

use crate::kernel::{self, Variant};
use crate::repo;
use anyhow::{Context as _, bail};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The kernel that is booted when none is named.
pub(crate) const DEFAULT: &str = "6.12";

/// The name of Debian's stock kernel, as it comes out of its package.
pub(crate) const DEBIAN: &str = "debian";

/// A kernel to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestKernel {
    /// `6.1`, `6.12`, `6.12-no-override`, `debian`, or the file's own name.
    pub(crate) name: String,
    /// The image.
    pub(crate) path: PathBuf,
}

impl TestKernel {
    /// A kernel named after its file: what follows `bzImage-`, or the whole name.
    fn from_file(path: &Path) -> Self {
        let file = path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy();
        let name = if super::initrd::tree_of(path).is_some() {
            DEBIAN
        } else {
            file.strip_prefix("bzImage-").unwrap_or(&file)
        };
        Self {
            name: name.to_owned(),
            path: path.to_path_buf(),
        }
    }
}

/// The kernels at hand, in the order of their names' versions.
///
/// # Errors
/// When `FINJECT_TEST_KERNELS` names what is not there.
pub(crate) fn kernels() -> anyhow::Result<Vec<TestKernel>> {
    let named = std::env::var_os("FINJECT_TEST_KERNELS");
    kernels_in(
        named.as_deref(),
        &repo::root().join("../shared/vm"),
        &repo::cache(),
    )
}

fn kernels_in(
    named: Option<&OsStr>,
    beside: &Path,
    cache: &Path,
) -> anyhow::Result<Vec<TestKernel>> {
    let mut found = if let Some(named) = named.filter(|named| !named.is_empty()) {
        from_variable(&named.to_string_lossy())?
    } else {
        let ready = images_in(beside);
        if ready.is_empty() {
            images_in(&cache.join("kernels"))
        } else {
            ready
        }
    };
    found.extend(debian_in(cache));
    found.sort_by_key(|kernel| version_key(&kernel.name));
    found.dedup_by(|later, earlier| later.name == earlier.name);
    Ok(found)
}

/// The files of a list of files and directories, separated by colons or commas.
fn from_variable(value: &str) -> anyhow::Result<Vec<TestKernel>> {
    let mut found = Vec::new();
    for item in value.split([':', ',']).filter(|item| !item.is_empty()) {
        let path = repo::root().join(item);
        if path.is_dir() {
            let images = images_in(&path);
            if images.is_empty() {
                bail!("FINJECT_TEST_KERNELS names {item}, where no file bzImage-* is");
            }
            found.extend(images);
        } else if path.is_file() {
            found.push(TestKernel::from_file(&path));
        } else {
            bail!("FINJECT_TEST_KERNELS names {item}, which is not there");
        }
    }
    Ok(found)
}

/// The files `bzImage-*` of a directory; none when it is not there.
fn images_in(directory: &Path) -> Vec<TestKernel> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("bzImage-"))
        })
        .map(|path| TestKernel::from_file(&path))
        .collect()
}

/// Debian's kernel in the cache, the newest where several are.
fn debian_in(cache: &Path) -> Option<TestKernel> {
    let trees = std::fs::read_dir(cache.join("debian")).ok()?;
    let mut images: Vec<PathBuf> = trees
        .flatten()
        .filter_map(|tree| std::fs::read_dir(tree.path().join("boot")).ok())
        .flat_map(Iterator::flatten)
        .map(|file| file.path())
        .filter(|path| super::initrd::tree_of(path).is_some())
        .collect();
    images.sort_by_key(|path| version_key(&path.to_string_lossy()));
    Some(TestKernel {
        name: DEBIAN.to_owned(),
        path: images.pop()?,
    })
}

/// Sorts 6.1 before 6.12 and a name's variants after it.
fn version_key(name: &str) -> Vec<(u64, String)> {
    name.split(['.', '-', '/'])
        .map(|part| (part.parse().unwrap_or(u64::MAX), part.to_owned()))
        .collect()
}

/// The kernel with a name or a path; one that is not at hand is fetched or built.
///
/// # Errors
/// When there is no such kernel, and none of that name can be made.
pub(crate) fn obtain(kernel: &str) -> anyhow::Result<TestKernel> {
    let at_hand = kernels()?;
    if let Some(found) = at_hand.iter().find(|found| found.name == kernel) {
        return Ok(found.clone());
    }
    if kernel == DEBIAN {
        let path = super::debian::fetch()?;
        return Ok(TestKernel {
            name: DEBIAN.to_owned(),
            path,
        });
    }
    if let Some(variant) = Variant::from_name(kernel) {
        eprintln!(
            "xtask: no kernel {kernel} is at hand (FINJECT_TEST_KERNELS could name one): building it, once"
        );
        return Ok(TestKernel {
            name: kernel.to_owned(),
            path: kernel::build(variant)?,
        });
    }
    let path = Path::new(kernel);
    if path.is_file() {
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot read {kernel}"))?;
        return Ok(TestKernel::from_file(&path));
    }
    let names: Vec<&str> = at_hand.iter().map(|kernel| kernel.name.as_str()).collect();
    let names = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };
    bail!(
        "there is no kernel `{kernel}` at hand (there: {names}). 6.12, 6.1, 6.12-no-override and debian \
         can be made; FINJECT_TEST_KERNELS names files bzImage-NAME or a directory of them"
    )
}

#[cfg(test)]
mod tests {
    use super::{from_variable, kernels_in, version_key};
    use std::ffi::OsStr;
    use std::path::Path;

    fn touch(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }

    fn names(named: Option<&str>, beside: &Path, cache: &Path) -> Vec<String> {
        kernels_in(named.map(OsStr::new), beside, cache)
            .unwrap()
            .into_iter()
            .map(|kernel| kernel.name)
            .collect()
    }

    #[test]
    fn the_variable_comes_before_the_neighbour_and_the_neighbour_before_the_cache() {
        let top = tempfile::tempdir().unwrap();
        let (beside, cache) = (top.path().join("vm"), top.path().join("cache"));
        assert!(names(None, &beside, &cache).is_empty());
        touch(&cache.join("kernels/bzImage-6.12"));
        assert_eq!(names(None, &beside, &cache), ["6.12"]);
        for file in [
            "bzImage-6.12-no-override",
            "bzImage-6.12",
            "bzImage-6.1",
            "kernel.config",
        ] {
            touch(&beside.join(file));
        }
        assert_eq!(
            names(None, &beside, &cache),
            ["6.1", "6.12", "6.12-no-override"]
        );
        touch(&top.path().join("own"));
        let list = format!(
            "{},{}",
            top.path().join("own").display(),
            cache.join("kernels").display()
        );
        assert_eq!(names(Some(&list), &beside, &cache), ["6.12", "own"]);
        assert_eq!(
            names(Some(&list.replace(',', ":")), &beside, &cache),
            ["6.12", "own"]
        );
        assert_eq!(names(Some(""), &beside, &cache).len(), 3);
    }

    #[test]
    fn a_fetched_debian_kernel_is_always_listed() {
        let top = tempfile::tempdir().unwrap();
        let (beside, cache) = (top.path().join("vm"), top.path().join("cache"));
        for release in ["6.1.0-9-amd64", "6.1.0-40-amd64"] {
            let tree = cache.join("debian").join(release);
            touch(&tree.join("boot").join(format!("vmlinuz-{release}")));
            touch(&tree.join("boot").join(format!("config-{release}")));
            std::fs::create_dir_all(tree.join("lib/modules").join(release)).unwrap();
        }
        let found = kernels_in(None, &beside, &cache).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "debian");
        assert!(
            found[0].path.ends_with("boot/vmlinuz-6.1.0-40-amd64"),
            "{found:?}"
        );
    }

    #[test]
    fn a_kernel_that_is_not_there_is_said() {
        let error = from_variable("/nowhere/bzImage-6.12").unwrap_err();
        assert_eq!(
            error.to_string(),
            "FINJECT_TEST_KERNELS names /nowhere/bzImage-6.12, which is not there"
        );
    }

    #[test]
    fn versions_sort_as_numbers() {
        let mut names = ["6.12-no-override", "debian", "6.12", "6.1"];
        names.sort_by_key(|name| version_key(name));
        assert_eq!(names, ["6.1", "6.12", "6.12-no-override", "debian"]);
    }
}
