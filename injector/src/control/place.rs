//! Where sessions have their sockets: in a directory of each user's own, one socket a session.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::ControlError;
use crate::sys::process::effective_uid;

/// What a socket's name ends with.
const ENDING: &str = ".sock";

/// This user's directories, the best first. They may not be there.
pub fn directories() -> Vec<PathBuf> {
    directories_of(
        effective_uid(),
        std::env::var_os("XDG_RUNTIME_DIR").as_deref(),
    )
}

/// A user's: in /run where that is root, in the user's runtime directory, and in /tmp, for those to whom these
/// are closed, as they are in many a container.
fn directories_of(uid: u32, runtime: Option<&OsStr>) -> Vec<PathBuf> {
    let runtime = runtime
        .map(Path::new)
        .filter(|runtime| runtime.is_absolute());
    let mut directories: Vec<PathBuf> = if uid == 0 {
        vec!["/run/finject".into()]
    } else {
        // Not everybody of the user's has the variable.
        let usual = format!("/run/user/{uid}/finject");
        let named = runtime.map(|runtime| runtime.join("finject"));
        named.into_iter().chain([usual.into()]).collect()
    };
    directories.push(format!("/tmp/finject-{uid}").into());
    directories.dedup();
    directories
}

/// Makes the directory where it is not there, for this user alone. Where somebody else has made it, who
/// could put sockets of theirs there, it is refused.
pub fn prepare(directory: &Path) -> Result<(), ControlError> {
    let failed = |source: io::Error| ControlError::Io {
        path: directory.into(),
        source,
    };
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    if is_own(directory).map_err(failed)? {
        Ok(())
    } else {
        Err(ControlError::NotOwn {
            path: directory.into(),
        })
    }
}

/// Whether a directory is this user's, and nobody else can put sockets there.
fn is_own(directory: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(directory)?;
    Ok(found.is_dir() && found.uid() == effective_uid() && found.mode() & 0o022 == 0)
}

/// A session's socket.
pub fn socket(directory: &Path, session: &str) -> PathBuf {
    directory.join(format!("{session}{ENDING}"))
}

/// All sessions that have a socket there, in the order of their names; some may have ended. None of a directory
/// in which others could have put them.
pub fn sessions(directory: &Path) -> Vec<String> {
    if !is_own(directory).unwrap_or(false) {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let names = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        let name = name.to_str()?.strip_suffix(ENDING)?;
        (!name.is_empty() && !name.starts_with('.')).then(|| name.to_owned())
    });
    let mut names: Vec<String> = names.collect();
    names.sort_by_key(|name| (name.len(), name.clone()));
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_user_has_directories() {
        let os = OsStr::new;
        let root = ["/run/finject", "/tmp/finject-0"];
        let usual = ["/run/user/7/finject", "/tmp/finject-7"];
        let named = ["/x/finject", "/run/user/7/finject", "/tmp/finject-7"];
        for (uid, runtime, expected) in [
            (0, None, &root[..]),
            (0, Some(os("/run/user/7")), &root),
            (7, Some(os("/run/user/7")), &usual),
            (7, Some(os("/x")), &named),
            (7, None, &usual),
            (7, Some(os("")), &usual),
            (7, Some(os("run")), &usual),
        ] {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(directories_of(uid, runtime), expected);
        }
    }

    #[test]
    fn sessions_are_found_by_their_sockets() {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("own");
        assert_eq!(sessions(&own), [""; 0]);
        prepare(&own).unwrap();
        prepare(&own).unwrap();
        for session in ["70", "9", "x"] {
            fs::write(socket(&own, session), "").unwrap();
        }
        fs::write(own.join("note"), "").unwrap();
        assert_eq!(sessions(&own), ["9", "x", "70"]);
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("own");
        fs::create_dir(&own).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(prepare(&own), Err(ControlError::NotOwn { .. })));
        fs::write(socket(&own, "7"), "").unwrap();
        assert_eq!(sessions(&own), [""; 0]);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/", &link).unwrap();
        assert!(matches!(prepare(&link), Err(ControlError::NotOwn { .. })));
    }
}
