//! Which files and buckets may be used: those below folders and in buckets that the settings name.
//!
//! Symbolic links are resolved before a path is judged.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::StorageError;

/// A folder that paths must lie below.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    /// The variable that names it.
    name: &'static str,
    /// Absolute, and as its users write it: not resolved, so that others who mount it alike understand its paths.
    path: PathBuf,
    when_gone: WhenGone,
}

/// What it means that a root is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenGone {
    /// It was there, so its volume will be back.
    MayReturn,
    /// This worker works without it.
    NotUsed,
}

impl Root {
    pub(crate) fn new(name: &'static str, path: &Path, when_gone: WhenGone) -> Result<Self, StorageError> {
        let path = std::path::absolute(path).map_err(StorageError::file("find", path))?;
        Ok(Self {
            name,
            path,
            when_gone,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The regular file that `path` names, resolved. Blocks.
    ///
    /// # Errors
    /// `Missing` when there is none, `Refused` when it lies elsewhere or is no regular file.
    pub(crate) fn file(&self, path: &Path) -> Result<PathBuf, StorageError> {
        // Resolved each time: the volume may have been mounted, or mounted again, since the start.
        let root = match self.path.canonicalize() {
            Err(error) if is_gone(&error) && self.when_gone == WhenGone::NotUsed => {
                return Err(self.refused(path));
            }
            root => root.map_err(StorageError::file("find", &self.path))?,
        };
        let resolved = match path.canonicalize() {
            Ok(resolved) => resolved,
            // What lies elsewhere is refused whether it exists or not.
            Err(error) if is_gone(&error) => {
                return Err(if is_plainly_below(path, &[&self.path, &root]) {
                    StorageError::missing(&path.display())
                } else {
                    self.refused(path)
                });
            }
            // A text that is no path at all, such as one with a NUL or a name of 300 characters.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(self.refused(path)),
            Err(error) => return Err(StorageError::file("find", path)(error)),
        };
        if !resolved.starts_with(&root) {
            return Err(self.refused(path));
        }
        let metadata = resolved
            .metadata()
            .map_err(StorageError::file("look up", &resolved))?;
        if !metadata.is_file() {
            return Err(StorageError::Refused {
                place: path.display().to_string(),
                rule: "it must be a regular file".into(),
            });
        }
        Ok(resolved)
    }

    fn refused(&self, path: &Path) -> StorageError {
        StorageError::Refused {
            place: path.display().to_string(),
            rule: format!("it must lie below {} ({})", self.path.display(), self.name),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Whether a path that cannot be resolved would lie below one of `roots`, as far as its text tells.
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
        fn whatever_a_path_says_it_leads_below_the_root_or_nowhere(
            parts in prop::collection::vec(prop::sample::select(vec!["..", ".", "temp", "sub", "up", "down", "a", "/"]), 0..8),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            std::fs::create_dir_all(at("temp/sub")).unwrap();
            std::fs::create_dir(at("sub")).unwrap();
            for file in ["temp/a", "temp/sub/a", "a", "sub/a"] {
                std::fs::write(at(file), file).unwrap();
            }
            symlink("..", at("temp/up")).unwrap();
            symlink("sub", at("temp/down")).unwrap();
            let root = Root::new("TEMP_DIR", &at("temp"), WhenGone::MayReturn).unwrap();
            let path = parts.iter().fold(at("temp"), |path, part| path.join(part));
            if let Ok(allowed) = root.file(&path) {
                prop_assert!(std::fs::read_to_string(allowed).unwrap().starts_with("temp/"), "{}", path.display());
            }
        }
    }

    fn class(result: &Result<PathBuf, StorageError>) -> &'static str {
        match result {
            Ok(_) => "allowed",
            Err(StorageError::Missing { .. }) => "missing",
            Err(StorageError::Refused { .. }) => "refused",
            Err(_) => "failed",
        }
    }

    #[test]
    fn only_regular_files_below_the_root_are_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
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
            let root = Root::new("TEMP_DIR", &at(root), WhenGone::MayReturn).unwrap();
            assert_eq!(class(&root.file(&at(path))), expected, "{path}");
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
        let unused = Root::new("TEMP_DIR", &at("unmounted"), WhenGone::NotUsed).unwrap();
        assert_eq!(class(&unused.file(&at("unmounted/a.wav"))), "refused");
        check("temp", &format!("temp/{}", "x".repeat(300)), "failed");
    }
}
