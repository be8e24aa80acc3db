//! Debian's packages: installed without starting anything, or fetched without installing.

use crate::setup;
use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An `apt-get` that asks nothing, waits for another one, and speaks on standard error.
fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args([
            "-q",
            "-o",
            "DPkg::Lock::Timeout=300",
            "-o",
            "Dpkg::Use-Pty=0",
        ])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(std::io::stderr());
    command
}

/// Fetches the package lists.
fn update_lists() -> anyhow::Result<()> {
    eprintln!("xtask: fetching the lists of packages");
    let status = apt_get(&["update"])
        .status()
        .context("cannot run apt-get")?;
    anyhow::ensure!(status.success(), "`apt-get update` failed");
    Ok(())
}

/// Whether there are package lists.
fn has_lists() -> bool {
    std::fs::read_dir("/var/lib/apt/lists").is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
        })
    })
}

/// Installs packages; none of them starts a service.
///
/// # Errors
/// When apt fails, with fresh lists too.
pub(crate) fn install(packages: &[&str]) -> anyhow::Result<()> {
    eprintln!("xtask: installing {}", packages.join(" "));
    let fresh = !has_lists();
    if fresh {
        update_lists()?;
    }
    let _policy = NoServices::new(Path::new("/usr/sbin/policy-rc.d"))?;
    let install = || -> anyhow::Result<bool> {
        let arguments = [&["install", "-y", "--no-install-recommends"], packages].concat();
        Ok(apt_get(&arguments)
            .status()
            .context("cannot run apt-get")?
            .success())
    };
    if install()? {
        return Ok(());
    }
    // Lists from long ago name files that are no longer there.
    if !fresh {
        update_lists()?;
        if install()? {
            return Ok(());
        }
    }
    bail!("`apt-get install` failed (its messages are above)");
}

/// While it lives, no package starts a service: invoke-rc.d(8) asks policy-rc.d, which answers 101, forbidden.
#[derive(Debug)]
struct NoServices<'a> {
    policy: &'a Path,
    /// What was there before, if anything.
    saved: Option<PathBuf>,
    ours: bool,
}

impl<'a> NoServices<'a> {
    fn new(policy: &'a Path) -> anyhow::Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let forbids = |path: &Path| {
            Command::new(path)
                .args(["redis-server", "start"])
                .status()
                .is_ok_and(|status| status.code() == Some(101))
        };
        if policy.exists() && forbids(policy) {
            return Ok(Self {
                policy,
                saved: None,
                ours: false,
            });
        }
        let saved = if policy.exists() {
            let aside = policy.with_extension("d.before-finject-setup");
            std::fs::rename(policy, &aside)?;
            Some(aside)
        } else {
            None
        };
        let guard = Self {
            policy,
            saved,
            ours: true,
        };
        std::fs::write(policy, "#!/bin/sh\nexit 101\n").context("cannot write policy-rc.d")?;
        std::fs::set_permissions(policy, std::fs::Permissions::from_mode(0o755))?;
        Ok(guard)
    }
}

impl Drop for NoServices<'_> {
    fn drop(&mut self) {
        let restored = match &self.saved {
            _ if !self.ours => Ok(()),
            Some(saved) => std::fs::rename(saved, self.policy),
            None => std::fs::remove_file(self.policy),
        };
        if let Err(error) = restored {
            eprintln!("xtask: cannot restore {}: {error}", self.policy.display());
        }
    }
}

/// The version of a package that apt would install.
///
/// # Errors
/// When there is no apt, or it does not know the package.
pub(crate) fn candidate(package: &str) -> anyhow::Result<String> {
    anyhow::ensure!(
        setup::on_path("apt-get").is_some(),
        "{package} is a package of Debian, and there is no apt-get here"
    );
    if !has_lists() && setup::is_root() {
        update_lists()?;
    }
    let output = Command::new("apt-cache")
        .args(["show", "--no-all-versions", package])
        .output()
        .context("cannot run apt-cache")?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("Version: "))
        .map(str::to_owned)
        .with_context(|| format!("apt does not know {package} (sudo apt-get update?)"))
}

/// Fetches a package and unpacks its files, without installing it.
///
/// # Errors
/// When it cannot be fetched or unpacked.
pub(crate) fn fetch(package: &str, into: &Path) -> anyhow::Result<()> {
    let download = || -> anyhow::Result<bool> {
        let status = apt_get(&["-o", "APT::Sandbox::User=root", "download", package])
            .current_dir(into)
            .status()
            .context("cannot run apt-get")?;
        Ok(status.success())
    };
    if !download()? {
        anyhow::ensure!(
            setup::is_root(),
            "apt-get cannot fetch {package} (sudo apt-get update, if its lists are old)"
        );
        update_lists()?;
        anyhow::ensure!(download()?, "apt-get cannot fetch {package}");
    }
    let archive = std::fs::read_dir(into)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get left no package")?;
    quiet(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&archive)
            .arg(into),
    )?;
    std::fs::remove_file(archive)?;
    Ok(())
}

/// Fetches a source package of some version and unpacks it in `into`; where its files then are. It comes from where apt
/// has `binary`, a package that is built of it, with lists of its own: those of the machine may well name no sources.
///
/// # Errors
/// When apt does not know the package, or it cannot be fetched or unpacked.
pub(crate) fn source(
    binary: &str,
    source: &str,
    version: &str,
    into: &Path,
) -> anyhow::Result<PathBuf> {
    let output = Command::new("apt-cache")
        .args(["madison", binary])
        .output()
        .context("cannot run apt-cache")?;
    let origins = origins(&String::from_utf8_lossy(&output.stdout));
    anyhow::ensure!(
        !origins.is_empty(),
        "apt has {binary} from nowhere (sudo apt-get update?)"
    );
    let list = into.join("sources.list");
    std::fs::write(&list, origins.join("\n") + "\n").context("cannot write a list of sources")?;
    let lists = into.join("lists");
    std::fs::create_dir_all(lists.join("partial")).context("cannot make a directory")?;
    let settings = [
        format!("Dir::Etc::sourcelist={}", list.display()),
        "Dir::Etc::sourceparts=-".to_owned(),
        format!("Dir::State::lists={}", lists.display()),
        "Dir::Cache::pkgcache=".to_owned(),
        "Dir::Cache::srcpkgcache=".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
        "APT::Get::List-Cleanup=false".to_owned(),
    ];
    let options: Vec<&str> = settings.iter().flat_map(|it| ["-o", it.as_str()]).collect();
    eprintln!("xtask: fetching the source of {source} {version}");
    let wanted = format!("{source}={version}");
    for words in [&["update"][..], &["source", "--only-source", &wanted]] {
        let status = apt_get(&[&options, words].concat())
            .current_dir(into)
            .status()
            .context("cannot run apt-get")?;
        anyhow::ensure!(status.success(), "`apt-get {}` failed", words.join(" "));
    }
    std::fs::read_dir(into)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.join("debian").is_dir())
        .context("apt-get left no source")
}

/// The origins of a package's versions, as sources: from the lines of `apt-cache madison`, which are
/// `NAME | VERSION | URI SUITE/COMPONENT ARCHITECTURE Packages`.
fn origins(madison: &str) -> Vec<String> {
    let mut origins = Vec::new();
    for line in madison.lines() {
        let mut words = line
            .rsplit('|')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let place = (
            words.next(),
            words.next().and_then(|it| it.rsplit_once('/')),
        );
        if let (Some(uri), Some((suite, component))) = place {
            let origin = format!("deb-src {uri} {suite} {component}");
            if !origins.contains(&origin) {
                origins.push(origin);
            }
        }
    }
    origins
}

/// Runs a command whose output is of interest only when it fails.
///
/// # Errors
/// When it cannot be run, or fails; with its output.
pub(crate) fn quiet(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{} failed:\n{}{}",
            command.get_program().display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{NoServices, origins};
    use std::process::Command;

    #[test]
    fn a_package_s_sources_are_where_its_versions_come_from() {
        let madison = "\
            redis |  5:7.0-1 | http://a.example/debian-security stable-security/main amd64 Packages\n\
            redis |  5:6.9-1 | http://a.example/debian stable/main amd64 Packages\n\
            redis |  5:6.9-1 | http://a.example/debian stable/main amd64 Packages\n";
        assert_eq!(
            origins(madison),
            [
                "deb-src http://a.example/debian-security stable-security main",
                "deb-src http://a.example/debian stable main"
            ]
        );
        assert!(origins("").is_empty());
    }

    #[test]
    fn services_are_forbidden_for_a_while_and_the_policy_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy-rc.d");
        let answer = || Command::new("sh").arg(&policy).status().unwrap().code();
        {
            let _guard = NoServices::new(&policy).unwrap();
            assert_eq!(answer(), Some(101));
        }
        assert!(!policy.exists());
        std::fs::write(&policy, "#!/bin/sh\nexit 0\n").unwrap();
        {
            let _guard = NoServices::new(&policy).unwrap();
            assert_eq!(answer(), Some(101));
        }
        assert_eq!(answer(), Some(0));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
