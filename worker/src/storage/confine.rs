//! Restricts file access to the configured directories.
//!
//! Symbolic links are resolved before a path is checked, and the file that was checked is the one that is used: it is
//! opened directory by directory without following links, so that a link swapped in after the check is not followed.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};

use super::StorageError;

/// Maximum number of other files in a directory that are opened to distinguish an unreadable file from an unreadable
/// volume.
const NEIGHBORS: usize = 16;

/// A directory that paths must be below.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    /// The environment variable that sets it.
    name: &'static str,
    /// Absolute, with symbolic links unresolved, so that paths below it are valid in every process that mounts it here.
    path: PathBuf,
    missing_root: MissingRoot,
}

/// The meaning of a root that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MissingRoot {
    /// Its volume is not mounted: an error.
    Error,
    /// This worker does not use it: paths below it are refused.
    Unused,
}

/// An open regular file below a root: the file that was checked, even if its path changes.
#[derive(Debug, Clone)]
pub struct OpenFile {
    file: Arc<File>,
    resolved: PathBuf,
}

impl OpenFile {
    /// Opens a file that this process created, wherever it is. Blocks.
    pub(crate) fn own(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: Arc::new(File::open(path)?),
            resolved: path.to_owned(),
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Its path when it was opened, without symbolic links. For messages.
    pub fn resolved(&self) -> &Path {
        &self.resolved
    }

    /// A path that opens the same file again in this process and its children.
    pub fn path(&self) -> PathBuf {
        if cfg!(target_os = "linux") {
            format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
        } else {
            self.resolved.clone()
        }
    }
}

/// Compares the resolved paths.
impl PartialEq for OpenFile {
    fn eq(&self, other: &Self) -> bool {
        self.resolved == other.resolved
    }
}

impl Eq for OpenFile {}

impl Root {
    pub(crate) fn new(
        name: &'static str,
        path: &Path,
        missing_root: MissingRoot,
    ) -> Result<Self, StorageError> {
        let path = std::path::absolute(path).map_err(StorageError::file("find", path))?;
        Ok(Self {
            name,
            path,
            missing_root,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the regular file at `path`. Blocks.
    ///
    /// # Errors
    /// `Missing` when it does not exist, `Refused` when it is not below the root, is not a regular file, or is
    /// unreadable while other files of its directory are readable.
    pub(crate) fn open(&self, path: &Path) -> Result<OpenFile, StorageError> {
        let root = self.resolve()?.ok_or_else(|| self.refused(path))?;
        let resolved = self.resolve_below(&root, path)?;
        let opened = open_below(&root, &resolved).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(|error| self.classify(&resolved, path, error))?;
        if !metadata.is_file() {
            return Err(StorageError::refused(
                &path.display(),
                "it must be a regular file",
            ));
        }
        Ok(OpenFile {
            file: Arc::new(file),
            resolved,
        })
    }

    /// Deletes the regular file at `path`, or the symbolic link to one. Blocks.
    ///
    /// # Errors
    /// When it may not be used or cannot be deleted. A missing file is no error.
    pub(crate) fn delete(&self, path: &Path) -> Result<(), StorageError> {
        match self.open(path) {
            Err(error) if error.is_missing() => return Ok(()),
            checked => checked?,
        };
        let (Some(directory), Some(name), Some(root)) = (path.parent(), path.file_name(), self.resolve()?)
        else {
            return Err(self.refused(path));
        };
        let resolved = self.resolve_below(&root, directory)?;
        let failed = StorageError::file("delete", path);
        let directory = directory_below(&root, &resolved).map_err(StorageError::file("open", directory))?;
        match unlinkat(&directory, name, AtFlags::empty()) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            deleted => deleted.map_err(|error| failed(error.into())),
        }
    }

    /// The root without symbolic links; none if it is missing and not used. Resolved on each call, because the volume
    /// may have been mounted or remounted since the start.
    fn resolve(&self) -> Result<Option<PathBuf>, StorageError> {
        match self.path.canonicalize() {
            Ok(root) => Ok(Some(root)),
            Err(error) if is_not_found(&error) => match self.missing_root {
                MissingRoot::Unused => Ok(None),
                MissingRoot::Error => Err(StorageError::MissingDirectory {
                    location: self.path.display().to_string(),
                }),
            },
            Err(error) => Err(StorageError::file("find", &self.path)(error)),
        }
    }

    /// `path` without symbolic links, if it is below `root`.
    fn resolve_below(&self, root: &Path, path: &Path) -> Result<PathBuf, StorageError> {
        let resolved = match path.canonicalize() {
            Ok(resolved) => resolved,
            // A path outside the root is refused whether it exists or not.
            Err(error) if is_not_found(&error) => {
                return Err(if is_plainly_below(path, &[&self.path, root]) {
                    StorageError::missing(&path.display())
                } else {
                    self.refused(path)
                });
            }
            // Not a valid path, for example with a NUL byte.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(self.refused(path)),
            Err(error) => return Err(self.classify(path, path, error)),
        };
        if resolved.starts_with(root) {
            Ok(resolved)
        } else {
            Err(self.refused(path))
        }
    }

    /// Distinguishes an unreadable file from an unreadable volume.
    fn classify(&self, at: &Path, path: &Path, error: io::Error) -> StorageError {
        // Only this file is unreadable if another one in its directory is readable.
        let own = error.kind() == io::ErrorKind::PermissionDenied
            && at
                .parent()
                .is_some_and(|directory| has_readable_file(directory, at));
        if own {
            let rule = "the worker's user must have permission to read it";
            return StorageError::refused(&path.display(), rule);
        }
        StorageError::file("open", path)(error)
    }

    fn refused(&self, path: &Path) -> StorageError {
        let rule = format!("it must be below {} ({})", self.path.display(), self.name);
        StorageError::refused(&path.display(), rule)
    }
}

/// Opens a file whose path has no symbolic links; a link added since the check is an error.
fn open_below(root: &Path, resolved: &Path) -> io::Result<File> {
    let (Some(directory), Some(name)) = (resolved.parent(), resolved.file_name()) else {
        return Err(io::ErrorKind::IsADirectory.into());
    };
    if resolved == root {
        return File::open(root);
    }
    let directory = directory_below(root, directory)?;
    // NONBLOCK: do not wait for the writer of a FIFO.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    Ok(step(&directory, name, flags)?.into())
}

/// Opens a directory whose path has no symbolic links; a link added since the check is an error.
fn directory_below(root: &Path, resolved: &Path) -> io::Result<OwnedFd> {
    let below = resolved.strip_prefix(root).map_err(io::Error::other)?;
    let mut directory: OwnedFd = File::open(root)?.into();
    for name in below {
        directory = step(&directory, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
    }
    Ok(directory)
}

fn step(directory: &OwnedFd, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory, name, flags, Mode::empty())?)
}

/// Whether a file of `directory` other than `except` is readable.
fn has_readable_file(directory: &Path, except: &Path) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let mut others = files.map(|entry| entry.path()).filter(|path| path != except);
    others
        .by_ref()
        .take(NEIGHBORS)
        .any(|path| File::open(path).is_ok())
}

fn is_not_found(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Whether a path that cannot be resolved is below one of `roots`, judged by its text alone.
fn is_plainly_below(path: &Path, roots: &[&Path]) -> bool {
    let Ok(path) = std::path::absolute(path) else {
        return false;
    };
    let climbs = path.components().any(|part| part == Component::ParentDir);
    !climbs && roots.iter().any(|root| path.starts_with(root))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_path_opens_a_file_below_the_root_or_none(
            parts in prop::collection::vec(prop::sample::select(vec!["..", ".", "temp", "sub", "up", "down", "a", "/"]), 0..8),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let at = |name: &str| directory.path().join(name);
            std::fs::create_dir_all(at("temp/sub")).unwrap();
            std::fs::create_dir(at("sub")).unwrap();
            for file in ["temp/a", "temp/sub/a", "a", "sub/a"] {
                std::fs::write(at(file), file).unwrap();
            }
            symlink("..", at("temp/up")).unwrap();
            symlink("sub", at("temp/down")).unwrap();
            let root = Root::new("TEMP_DIR", &at("temp"), MissingRoot::Error).unwrap();
            let path = parts.iter().fold(at("temp"), |path, part| path.join(part));
            if let Ok(allowed) = root.open(&path) {
                prop_assert!(std::fs::read_to_string(allowed.path()).unwrap().starts_with("temp/"), "{}", path.display());
            }
        }
    }

    fn class(result: &Result<OpenFile, StorageError>) -> &'static str {
        match result {
            Ok(_) => "allowed",
            Err(StorageError::Missing { .. }) => "missing",
            Err(StorageError::Refused { .. }) => "refused",
            Err(_) => "failed",
        }
    }

    #[test]
    fn only_regular_files_below_the_root_are_allowed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(at("temp/sub")).unwrap();
        std::fs::write(at("temp/sub/a.wav"), b"a").unwrap();
        std::fs::write(at("secret"), b"s").unwrap();
        std::fs::create_dir(at("temporary")).unwrap();
        std::fs::write(at("temporary/b.wav"), b"b").unwrap();
        symlink(at("secret"), at("temp/out")).unwrap();
        symlink(at("temp/sub/a.wav"), at("temp/in")).unwrap();
        symlink(at("temp"), at("alias")).unwrap();
        symlink("loop", at("temp/loop")).unwrap();
        let check = |root: &str, path: &str, expected: &str| {
            let root = Root::new("TEMP_DIR", &at(root), MissingRoot::Error).unwrap();
            assert_eq!(class(&root.open(&at(path))), expected, "{path}");
        };
        check("temp", "temp/sub/a.wav", "allowed");
        check("temp", "temp/sub/../sub/a.wav", "allowed");
        check("temp", "temp/in", "allowed");
        check("temp", "alias/sub/a.wav", "allowed");
        check("alias", "temp/sub/a.wav", "allowed");
        check("temp", "temp/none.wav", "missing");
        check("alias", "temp/none.wav", "missing");
        check("temp", "temp", "refused");
        check("temp", "temp/sub", "refused");
        check("temp", "temp/out", "refused");
        check("temp", "secret", "refused");
        check("temp", "nowhere", "refused");
        check("temp", "temp/../secret", "refused");
        check("temp", "temp/../nowhere", "refused");
        check("temp", "temporary/b.wav", "refused");
        check("temp", "temp/a\0b", "refused");
        check("temp", "temp/loop", "failed");
        check("unmounted", "unmounted/a.wav", "failed");
        let unused = Root::new("TEMP_DIR", &at("unmounted"), MissingRoot::Unused).unwrap();
        assert_eq!(class(&unused.open(&at("unmounted/a.wav"))), "refused");
        check("temp", &format!("temp/{}", "x".repeat(300)), "failed");
    }

    #[test]
    fn a_link_swapped_in_after_the_check_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(at("temp/sub")).unwrap();
        std::fs::create_dir(at("other")).unwrap();
        std::fs::write(at("temp/sub/a.wav"), b"song").unwrap();
        std::fs::write(at("other/a.wav"), b"secret").unwrap();
        let root = Root::new("TEMP_DIR", &at("temp"), MissingRoot::Error).unwrap();
        let opened = root.open(&at("temp/sub/a.wav")).unwrap();
        std::fs::rename(at("temp/sub"), at("temp/before")).unwrap();
        symlink(at("other"), at("temp/sub")).unwrap();
        assert_eq!(std::fs::read(opened.path()).unwrap(), b"song");
        // A swap between resolving a path and opening it.
        let resolved = at("temp").canonicalize().unwrap();
        open_below(&resolved, &resolved.join("sub/a.wav")).expect_err("a link is not followed");
        root.delete(&at("temp/sub/a.wav"))
            .expect_err("it is outside the root");
        assert!(at("other/a.wav").exists());
    }

    #[test]
    fn an_unreadable_file_is_distinguished_from_an_unreadable_volume() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("a"), b"a").unwrap();
        let root = Root::new("TEMP_DIR", directory.path(), MissingRoot::Error).unwrap();
        let denied = || io::Error::from_raw_os_error(13);
        let only = root.classify(&at("a"), &at("a"), denied());
        assert_eq!(
            only.dependency().map(|it| it.name).as_deref(),
            Some("volume:EACCES")
        );
        std::fs::write(at("b"), b"b").unwrap();
        let one = root.classify(&at("a"), &at("a"), denied());
        assert!(matches!(one, StorageError::Refused { .. }), "{one}");
        let full = root.classify(&at("a"), &at("a"), io::Error::from_raw_os_error(116));
        assert_eq!(
            full.dependency().map(|it| it.name).as_deref(),
            Some("volume:ESTALE")
        );
    }
}
