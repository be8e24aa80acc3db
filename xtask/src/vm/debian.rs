//! Debian's stock kernel, out of its package and never installed: a kernel without error injection, as people have it.

use crate::{apt, repo, setup};
use anyhow::Context as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

/// The package that depends on the current kernel.
const META: &str = "linux-image-amd64";

/// Fetches the package that `linux-image-amd64` depends on into the cache, and returns the kernel's image, which lies
/// beside its modules.
///
/// # Errors
/// When this is no Debian, or the package cannot be fetched.
pub(crate) fn fetch() -> anyhow::Result<PathBuf> {
    apt::candidate(META)?;
    let output = Command::new("apt-cache")
        .args(["depends", "--important", META])
        .output()
        .context("cannot run apt-cache")?;
    let package = concrete(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("{META} depends on no kernel"))?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    let cache = repo::cache().join("debian");
    let tree = cache.join(&release);
    let image = tree.join("boot").join(format!("vmlinuz-{release}"));
    if !image.is_file() {
        eprintln!("xtask vm: fetching {package}");
        std::fs::create_dir_all(&cache)
            .with_context(|| format!("cannot make {}", cache.display()))?;
        let fresh = tempfile::Builder::new()
            .prefix(".fetch-")
            .tempdir_in(&cache)?;
        apt::fetch(&package, fresh.path())?;
        // What modprobe(8) needs in the guest; the guest's own start reads the modules themselves.
        if let Some(depmod) = setup::on_path("depmod") {
            apt::quiet(
                Command::new(depmod)
                    .arg("-b")
                    .arg(fresh.path())
                    .arg(&release),
            )?;
        }
        std::fs::set_permissions(fresh.path(), std::fs::Permissions::from_mode(0o755))?;
        std::fs::rename(fresh.keep(), &tree)?;
    }
    Ok(image)
}

/// The kernel among the dependencies as `apt-cache depends` prints them.
fn concrete(depends: &str) -> Option<String> {
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::concrete;

    #[test]
    fn the_concrete_package_is_what_the_meta_package_depends_on() {
        let depends = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n";
        assert_eq!(
            concrete(depends).as_deref(),
            Some("linux-image-6.1.0-56-amd64")
        );
        assert_eq!(concrete("linux-image-amd64\n"), None);
    }
}
