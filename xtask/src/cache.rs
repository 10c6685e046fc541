//! The cache directory of downloads and installations, each complete or absent.
//!
//! Safe for concurrent processes: one installs while the others wait and reuse the result.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The file in an installed directory that identifies what was installed.
const STAMP: &str = ".installed";

/// The root directory of all installations.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

/// Chooses the cache directory from the three environment variables that can set it; an empty variable counts
/// as unset.
///
/// `separation/src/locations.rs` must choose the same for a worker that is started manually; programs started by
/// xtask get the path. It is written twice because otherwise xtask would have to build the worker first.
pub(crate) fn root(
    separation_cache_dir: Option<OsString>,
    xdg_cache_home: Option<OsString>,
    home: Option<OsString>,
) -> Option<PathBuf> {
    let set = |value: Option<OsString>| value.filter(|text| !text.is_empty()).map(PathBuf::from);
    set(separation_cache_dir)
        .or_else(|| set(xdg_cache_home).map(|dir| dir.join("separation")))
        .or_else(|| set(home).map(|dir| dir.join(".cache/separation")))
}

impl Cache {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A file or directory of the cache.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// Installs the directory `relative`, unless it exists with the same `stamp`; returns its path.
    ///
    /// `fill` gets an empty directory, which replaces `relative` once `fill` succeeds.
    pub(crate) fn install(
        &self,
        relative: &str,
        stamp: &str,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let destination = self.path(relative);
        if is_installed(&destination, stamp) {
            return Ok(destination);
        }
        let _lock = self.lock(relative)?;
        if is_installed(&destination, stamp) {
            return Ok(destination);
        }
        let filling = self.temporary_dir()?;
        fill(filling.path())?;
        fs::write(filling.path().join(STAMP), stamp).context("cannot write to the cache")?;
        replace_dir(filling.path(), &destination)
            .with_context(|| format!("cannot install {}", destination.display()))?;
        Ok(destination)
    }

    /// An empty directory on the cache's file system, removed when it is dropped.
    pub(crate) fn temporary_dir(&self) -> Result<tempfile::TempDir> {
        let parent = self.path("tmp");
        fs::create_dir_all(&parent)
            .and_then(|()| tempfile::tempdir_in(&parent))
            .with_context(|| {
                format!(
                    "cannot write to {}; fix: set SEPARATION_CACHE_DIR to a writable directory",
                    parent.display()
                )
            })
    }

    /// Waits until no other process is installing `relative`; dropping the returned file releases the lock.
    fn lock(&self, relative: &str) -> Result<File> {
        let path = self.path("locks").join(relative.replace('/', "-"));
        fs::create_dir_all(self.path("locks"))
            .and_then(|()| File::create(&path))
            .and_then(|file| file.lock().map(|()| file))
            .with_context(|| {
                format!(
                    "cannot lock {}; fix: set SEPARATION_CACHE_DIR to a writable directory",
                    path.display()
                )
            })
    }
}

fn is_installed(directory: &Path, stamp: &str) -> bool {
    fs::read_to_string(directory.join(STAMP)).is_ok_and(|found| found == stamp)
}

fn replace_dir(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::remove_dir_all(to) {
        Err(refused) if refused.kind() != io::ErrorKind::NotFound => return Err(refused),
        _ => {}
    }
    // Temporary directories are private; installed ones get the permissions of the umask.
    fs::create_dir(to)?;
    fs::set_permissions(from, fs::metadata(to)?.permissions())?;
    fs::rename(from, to)
}

/// The SHA-256 of a byte slice, in lower-case hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// The SHA-256 of a file, in lower-case hexadecimal digits.
pub(crate) fn sha256_file(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    File::open(path)
        .and_then(|mut file| io::copy(&mut file, &mut hasher))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hexadecimal(&hasher.finalize()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_root(variables: [&str; 3], expected: Option<&str>) {
        let [separation, xdg, home] = variables.map(|value| Some(OsString::from(value)));
        assert_eq!(root(separation, xdg, home), expected.map(PathBuf::from));
    }

    #[test]
    fn the_most_specific_variable_names_the_cache() {
        check_root(["/a", "/b", "/c"], Some("/a"));
        check_root(["", "/b", "/c"], Some("/b/separation"));
        check_root(["", "", "/c"], Some("/c/.cache/separation"));
        check_root(["", "", ""], None);
        assert_eq!(root(None, None, None), None);
    }

    #[test]
    fn sha256_is_the_published_one() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), expected);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("abc"), "abc").unwrap();
        assert_eq!(sha256_file(&dir.path().join("abc")).unwrap(), expected);
    }

    #[test]
    fn installing_twice_fills_once_and_a_new_stamp_fills_again() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("cache"));
        let mut fills = 0;
        for stamp in ["one", "one", "two"] {
            let installed = cache
                .install("a/b", stamp, |filling| {
                    fills += 1;
                    Ok(fs::write(filling.join(stamp), stamp)?)
                })
                .unwrap();
            assert_eq!(fs::read_to_string(installed.join(stamp)).unwrap(), stamp);
        }
        assert_eq!(fills, 2);
        assert!(!cache.path("a/b/one").exists());
    }

    #[test]
    fn a_failed_installation_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().to_path_buf());
        let failed = cache.install("a", "stamp", |filling| {
            fs::write(filling.join("half"), "")?;
            anyhow::bail!("the network failed")
        });
        assert!(failed.is_err());
        assert!(!cache.path("a").exists());
        assert_eq!(fs::read_dir(cache.path("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn of_two_concurrent_installations_one_runs() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().to_path_buf());
        let fills = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    cache.install("a", "stamp", |_| {
                        fills.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        Ok(())
                    })
                });
            }
        });
        assert_eq!(fills.into_inner(), 1);
    }
}
