//! Files that appear complete or not at all.
//!
//! A file has a temporary name and a lock while it is written. The operating system releases the lock when
//! the process ends for any reason, which distinguishes abandoned files from files still being written.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::audio::AudioError;

/// Bytes buffered before they are written: 256 KiB, a second and a half of 16-bit stereo.
const BUFFER_BYTES: usize = 262_144;

/// Mode of new files, before the umask.
const NEW_FILE_MODE: u32 = 0o666;

/// Name suffix of incomplete files, used by no other program.
const PART_SUFFIX: &str = ".separation.part";

/// Characters of the final name in the temporary one: 40 of up to 4 bytes each fit in 255 bytes with the
/// rest.
const SHORT_NAME_CHARS: usize = 40;

/// Names tried if a file is removed between its creation and its lock.
const MAX_TRIES: usize = 16;

/// A completely encoded file under a temporary name: publishing renames it to its final name.
#[derive(Debug)]
pub struct UnpublishedFile {
    /// Keeps the lock.
    _locked: File,
    temporary: TempPath,
    destination: PathBuf,
    report: SinkReport,
}

/// Result of writing a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkReport {
    /// Frames written.
    pub frames: u64,
    /// Samples (of either channel) outside full scale. They are clipped here for integers, and by the player
    /// for MP3. Always 0 for float output.
    pub clipped_samples: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
}

impl UnpublishedFile {
    /// The result of writing.
    pub fn report(&self) -> SinkReport {
        self.report
    }

    /// The final name.
    pub fn destination(&self) -> &Path {
        &self.destination
    }

    /// Renames the file to its final name, replacing an existing file.
    ///
    /// # Errors
    /// If the rename fails; the temporary file is then removed.
    pub fn publish(self) -> Result<SinkReport, AudioError> {
        self.temporary
            .persist(&self.destination)
            .map_err(|refused| AudioError::write(&self.destination)(refused.error))?;
        Ok(self.report)
    }
}

/// The parent directory of a path; the current directory for a bare name.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Creates a file in `directory`, to be renamed to `name`; it has a temporary name and is locked until
/// closed.
///
/// # Errors
/// If it cannot be created.
pub fn part_file(directory: &Path, name: &str) -> io::Result<(File, TempPath)> {
    let short: String = name.chars().take(SHORT_NAME_CHARS).collect();
    for _ in 0..MAX_TRIES {
        let part = tempfile::Builder::new()
            .prefix(&format!(".{short}-"))
            .suffix(PART_SUFFIX)
            .permissions(Permissions::from_mode(NEW_FILE_MODE))
            .tempfile_in(directory)?;
        let (file, path) = part.into_parts();
        // On a file system without locks, abandoned files are not removed either.
        let _ = file.try_lock();
        if is_same_file(&file, &path) {
            return Ok((file, path));
        }
    }
    Err(io::Error::other("another program removes the new files"))
}

/// Whether a path still refers to an open file.
fn is_same_file(file: &File, path: &Path) -> bool {
    let same = |(open, found): (std::fs::Metadata, std::fs::Metadata)| {
        (open.dev(), open.ino()) == (found.dev(), found.ino())
    };
    file.metadata()
        .ok()
        .zip(path.symlink_metadata().ok())
        .is_some_and(same)
}

/// Removes incomplete files of killed processes from `directory` and returns their number. Files that a
/// running process writes are locked and stay.
pub fn remove_abandoned(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let abandoned = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_part = name.starts_with('.') && name.ends_with(PART_SUFFIX);
        is_part && entry.file_type().is_ok_and(|kind| kind.is_file()) && is_unlocked(&entry.path())
    });
    abandoned
        .filter(|entry| std::fs::remove_file(entry.path()).is_ok())
        .count()
}

/// Opens for writing because network file systems lock only writable files.
fn is_unlocked(path: &Path) -> bool {
    let file = File::options().write(true).open(path);
    file.is_ok_and(|file| file.try_lock().is_ok())
}

/// A file under a temporary name next to its destination, removed unless it is completed and published.
#[derive(Debug)]
pub(super) struct PartFile {
    file: BufWriter<File>,
    temporary: TempPath,
    destination: PathBuf,
}

impl PartFile {
    /// Creates the temporary file, unless publishing to `destination` is already known to fail.
    pub(super) fn create(destination: &Path) -> Result<Self, AudioError> {
        let unwritable = AudioError::write(destination);
        let name = destination
            .file_name()
            .ok_or_else(|| unwritable(io::ErrorKind::InvalidFilename.into()))?;
        // Errors of publishing are found before the work, not after it.
        match destination.symlink_metadata() {
            Ok(found) if found.is_dir() => return Err(unwritable(io::ErrorKind::IsADirectory.into())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unwritable(error)),
        }
        let (file, temporary) =
            part_file(directory_of(destination), &name.to_string_lossy()).map_err(unwritable)?;
        Ok(Self {
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            temporary,
            destination: destination.to_owned(),
        })
    }

    pub(super) fn destination(&self) -> &Path {
        &self.destination
    }

    /// The temporary name, for a program that writes the file itself.
    pub(super) fn temporary(&self) -> &Path {
        &self.temporary
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), AudioError> {
        let written = self.file.write_all(bytes);
        written.map_err(AudioError::write(&self.destination))
    }

    /// Overwrites the first bytes with the final header, flushes everything to disk and closes the file.
    pub(super) fn complete(
        self,
        header: &[u8],
        frames: u64,
        clipped_samples: u64,
    ) -> Result<UnpublishedFile, AudioError> {
        let finished = finish_file(self.file, header);
        let (file, bytes) = finished.map_err(AudioError::write(&self.destination))?;
        Ok(UnpublishedFile {
            _locked: file,
            temporary: self.temporary,
            destination: self.destination,
            report: SinkReport {
                frames,
                clipped_samples,
                bytes,
            },
        })
    }
}

fn finish_file(file: BufWriter<File>, header: &[u8]) -> io::Result<(File, u64)> {
    let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(header)?;
    file.sync_all()?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorClass;

    #[test]
    fn a_dropped_file_leaves_nothing_and_a_published_one_has_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let destination = directory.path().join("stem.wav");
        let names = || -> Vec<_> {
            std::fs::read_dir(directory.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect()
        };
        let part = PartFile::create(&destination).unwrap();
        let hidden = names().remove(0).into_string().unwrap();
        assert!(hidden.starts_with('.') && hidden.ends_with(".part"), "{hidden}");
        drop(part);
        assert!(names().is_empty());
        let mut part = PartFile::create(&destination).unwrap();
        part.write(b"????content").unwrap();
        let report = part.complete(b"head", 1, 0).unwrap().publish().unwrap();
        assert_eq!((report.bytes, names()), (11, vec!["stem.wav".into()]));
        assert_eq!(std::fs::read(&destination).unwrap(), b"headcontent");
    }

    #[test]
    fn files_of_a_killed_process_are_removed_and_files_being_written_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let written = PartFile::create(&directory.path().join("stem.wav")).unwrap();
        let complete = PartFile::create(&directory.path().join("other.wav")).unwrap();
        let complete = complete.complete(b"head", 1, 0).unwrap();
        // Closed without being removed, as by a killed process.
        let (file, path) = part_file(directory.path(), "stem.wav").unwrap();
        let left = path.keep().unwrap();
        drop(file);
        let foreign = directory.path().join(".download.part");
        std::fs::write(&foreign, "of another program").unwrap();
        assert_eq!(remove_abandoned(directory.path()), 1);
        assert!(!left.exists() && foreign.exists());
        assert_eq!(complete.publish().unwrap().bytes, 4);
        assert!(written.complete(b"head", 1, 0).unwrap().publish().is_ok());
        assert_eq!(remove_abandoned(&directory.path().join("none")), 0);
    }

    #[test]
    fn a_destination_that_cannot_be_published_is_refused_before_the_work() {
        let directory = tempfile::tempdir().unwrap();
        let check = |destination: PathBuf, expected: io::ErrorKind| {
            let error = PartFile::create(&destination).unwrap_err();
            assert_eq!(error.class(), ErrorClass::Permanent);
            let AudioError::Write { path, source } = error else {
                panic!("{error}");
            };
            assert_eq!((path, source.kind()), (destination, expected));
        };
        let occupied = directory.path().join("stem.wav");
        std::fs::create_dir(&occupied).unwrap();
        check(occupied, io::ErrorKind::IsADirectory);
        check(
            directory.path().join("long".repeat(100)),
            io::ErrorKind::InvalidFilename,
        );
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
