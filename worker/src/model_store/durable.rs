//! Files that appear complete, and that are there after a crash of the machine; and the removal of what killed
//! processes left.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, absolute};

use tempfile::{NamedTempFile, TempDir};

/// Beginning of the names of temporary files and directories.
const TEMPORARY: &str = ".new-";

/// Permissions of installed files: an image's user is not the one that builds it.
const READABLE: u32 = 0o644;

/// A file that becomes one of `directory`.
pub(super) fn temporary_file(directory: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(Permissions::from_mode(READABLE))
        .tempfile_in(directory)
}

/// A directory in `directory` for this process alone, with an absolute path.
pub(super) fn temporary_directory(directory: &Path) -> io::Result<TempDir> {
    let directory = absolute(directory)?;
    tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(directory)
}

/// Gives a complete temporary file its name; replaces another file of this name.
pub(super) fn persist(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_directory_of(path)
}

/// Writes a small file.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = temporary_file(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(content)?;
    persist(file, path)
}

/// Makes the renaming of a file to `path` durable.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Removes the temporary files and directories that killed processes left in `directory`. Call it only with the lock
/// without which no process creates them. Blocks.
pub(super) fn remove_abandoned(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            continue;
        }
        let path = entry.path();
        let removed = match path.is_dir() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        if let Err(error) = removed {
            tracing::debug!(path = %path.display(), %error, "Cannot remove an abandoned temporary file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_replaces_another_one_and_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        fs::write(&path, "old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_temporary_files_and_directories_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let kept = directory.path().join("a.onnx");
        fs::write(&kept, "").unwrap();
        temporary_file(directory.path()).unwrap().keep().unwrap();
        let abandoned = temporary_directory(directory.path()).unwrap().keep();
        fs::write(abandoned.join("wheel"), "").unwrap();
        remove_abandoned(directory.path());
        let left = fs::read_dir(directory.path()).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [kept]);
    }
}
