//! Temporary directories that are removed with the process that made them, even if it is killed.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// Waits until its standard input closes, which happens when our process ends, then removes the directory.
/// Processes started by ours may still write for a moment, so it retries for some seconds.
const JANITOR: &str = r#"
cat >/dev/null 2>&1
tries=0
until rm -rf "$1" 2>/dev/null || [ "$tries" -ge 50 ]; do tries=$((tries + 1)); sleep 0.1; done
"#;

/// A directory that is removed when this is dropped or our process ends.
#[derive(Debug)]
pub struct TempDirectory {
    path: PathBuf,
    janitor: Child,
}

impl TempDirectory {
    /// Creates an empty directory in the system's temporary directory.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn new() -> Result<Self> {
        let path = tempfile::Builder::new()
            .prefix("separation-testbed-")
            .tempdir()
            .context("cannot create a temporary directory")?
            .keep();
        let janitor = Command::new("sh")
            .args(["-c", JANITOR, "separation-testbed-janitor"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Signals that a terminal sends to our process group must not stop the cleanup.
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        Ok(Self { path, janitor })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in the directory.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Creates a subdirectory and returns its path.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn subdirectory(&self, name: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for TempDirectory {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        // It exits by itself within seconds; an error cannot be reported here.
        let _ = self.janitor.wait();
    }
}
