//! Where things lie: the workspace's root and the directory for what takes long to make.

use std::path::{Path, PathBuf};

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// The directory for what is built or fetched once (kernels): `$FINJECT_CACHE`, else `.cache` in the root.
pub(crate) fn cache() -> PathBuf {
    match std::env::var_os("FINJECT_CACHE") {
        Some(directory) if !directory.is_empty() => root().join(directory),
        _ => root().join(".cache"),
    }
}
