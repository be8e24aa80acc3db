//! A command to be launched: found as execvp(3) finds it, before anything is started.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Its file.
    pub path: PathBuf,
    /// The name that it was called by, and its arguments.
    pub args: Vec<OsString>,
}

/// A command that cannot be launched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// Its name is empty.
    #[error("the command is empty")]
    Empty,
    /// There is no such file, or none in PATH.
    #[error("{0}: command not found")]
    NotFound(String),
    /// There is one, and it cannot be executed.
    #[error("{path}: {why}")]
    NotExecutable {
        /// The file.
        path: String,
        /// Why not.
        why: &'static str,
    },
}

impl LaunchError {
    /// The status that shells and env(1) end with.
    pub fn status(&self) -> u8 {
        match self {
            Self::Empty | Self::NotFound(_) => 127,
            Self::NotExecutable { .. } => 126,
        }
    }

    /// What to do instead.
    pub fn help(&self) -> String {
        match self {
            Self::Empty => {
                "name a program after --, as in: finject --rule fsync=EIO@3 -- sync FILE"
            }
            Self::NotFound(_) => "name a file by its path, or a program in a directory of PATH",
            Self::NotExecutable { .. } => "name a file that may be executed (chmod +x FILE)",
        }
        .into()
    }
}

/// What execvp(3) searches where PATH is not set.
const DEFAULT_PATH: &str = "/usr/local/bin:/bin:/usr/bin";

fn check(path: &Path) -> Result<(), Option<&'static str>> {
    let metadata = path.metadata().map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => Some("permission denied"),
        _ => None,
    })?;
    if metadata.is_dir() {
        return Err(Some("it is a directory"));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(Some("it is not executable"));
    }
    Ok(())
}

impl Launch {
    /// Finds the command's file. `search` is the environment's PATH.
    pub fn find(command: &[OsString], search: Option<&OsStr>) -> Result<Self, LaunchError> {
        let name = command.first().filter(|name| !name.is_empty());
        let name = name.ok_or(LaunchError::Empty)?;
        let launch = |path: PathBuf| Self {
            path,
            args: command.to_vec(),
        };
        let refused = |path: &Path, why| LaunchError::NotExecutable {
            path: path.display().to_string(),
            why,
        };
        let not_found = || LaunchError::NotFound(name.to_string_lossy().into_owned());
        if name.as_encoded_bytes().contains(&b'/') {
            let path = PathBuf::from(name);
            return match check(&path) {
                Ok(()) => Ok(launch(path)),
                Err(Some(why)) => Err(refused(&path, why)),
                Err(None) => Err(not_found()),
            };
        }
        let mut first_refusal = None;
        for directory in std::env::split_paths(search.unwrap_or(OsStr::new(DEFAULT_PATH))) {
            let path = Path::new(".").join(directory).join(name);
            match check(&path) {
                Ok(()) => return Ok(launch(path)),
                Err(Some(why)) => drop(first_refusal.get_or_insert(refused(&path, why))),
                Err(None) => {}
            }
        }
        Err(first_refusal.unwrap_or_else(not_found))
    }

    /// The command as a person would type it, cut where it is long.
    pub fn title(&self) -> String {
        let words: Vec<_> = self.args.iter().map(|arg| arg.to_string_lossy()).collect();
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(command: &[&str], search: &str) -> Result<PathBuf, LaunchError> {
        let command: Vec<OsString> = command.iter().map(OsString::from).collect();
        Launch::find(&command, Some(OsStr::new(search))).map(|launch| launch.path)
    }

    #[test]
    fn commands_are_found_as_a_shell_finds_them() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (name, mode) in [("a/tool", 0o644), ("b/tool", 0o755), ("b/plain", 0o644)] {
            std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            std::fs::write(at(name), "").unwrap();
            std::fs::set_permissions(at(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        std::fs::create_dir_all(at("b/folder")).unwrap();
        let search = format!("{}:{}", at("a").display(), at("b").display());
        // The first that can be executed, not the first of that name.
        assert_eq!(find(&["tool"], &search), Ok(at("b/tool")));
        let path = at("b/tool").display().to_string();
        assert_eq!(find(&[&path], ""), Ok(at("b/tool")));
        for (command, status) in [
            ("plain", 126),
            ("folder", 126),
            ("absent", 127),
            ("", 127),
            ("/absent/tool", 127),
            (&*at("a/tool").display().to_string(), 126),
            (&*at("b").display().to_string(), 126),
        ] {
            let error = find(&[command], &search).unwrap_err();
            assert_eq!(error.status(), status, "{command}: {error}");
        }
        assert_eq!(find(&[], &search), Err(LaunchError::Empty));
    }
}
