//! Files of a control plane.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Writes a file into a directory and returns its path.
pub(super) fn write(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
