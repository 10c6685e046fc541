//! Temporary folders that vanish with the process that made them, also when it is killed.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// Waits until its standard input closes, which it does with the process at the other end, then removes the folder.
/// What was started by that process may live a moment longer and write, so it tries for some seconds.
const JANITOR: &str = r#"
cat >/dev/null 2>&1
tries=0
until rm -rf "$1" 2>/dev/null || [ "$tries" -ge 50 ]; do tries=$((tries + 1)); sleep 0.1; done
"#;

/// A folder that is removed when this is dropped, or when the process ends in any other way.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    janitor: Child,
}

impl Folder {
    /// Makes an empty one among the system's temporary files.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self> {
        let path = tempfile::Builder::new()
            .prefix("separation-testbed-")
            .tempdir()
            .context("cannot make a temporary folder")?
            .keep();
        let janitor = Command::new("sh")
            .args(["-c", JANITOR, "separation-testbed-janitor"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What a terminal sends to our group must not stop it from tidying up.
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        Ok(Self { path, janitor })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a folder in it and gives its path.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn subfolder(&self, name: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        // It ends by itself, in seconds at most; there is nobody to tell of an error.
        let _ = self.janitor.wait();
    }
}
