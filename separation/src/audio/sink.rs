//! Files that appear whole or not at all.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use super::AudioError;

/// Bytes gathered before they are written: 256 KiB, a second and a half of 16-bit stereo.
const BUFFER_BYTES: usize = 262_144;

/// Less the umask, as for any new file.
const NEW_FILE_MODE: u32 = 0o666;

/// A completely encoded file that nobody sees yet: publishing renames it to its final name.
#[derive(Debug)]
pub struct UnpublishedFile {
    temporary: TempPath,
    destination: PathBuf,
    report: SinkReport,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkReport {
    /// Frames written.
    pub frames: u64,
    /// Samples (of either channel) that were outside full scale and are cut to it: here for integers, by the player
    /// for MP3. Always 0 for float output.
    pub clipped_samples: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
}

impl UnpublishedFile {
    /// What was written.
    pub fn report(&self) -> SinkReport {
        self.report
    }

    /// The name that the file will have.
    pub fn destination(&self) -> &Path {
        &self.destination
    }

    /// Gives the file its final name, replacing what was there.
    ///
    /// # Errors
    /// When the file system refuses the rename; the temporary file is then removed.
    pub fn publish(self) -> Result<SinkReport, AudioError> {
        self.temporary
            .persist(&self.destination)
            .map_err(|refused| AudioError::Write {
                path: self.destination.clone(),
                source: refused.error,
            })?;
        Ok(self.report)
    }
}

/// The directory that a file of this name lies in; the current one for a bare name.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A file under a temporary name beside its destination, removed unless it is completed and published.
#[derive(Debug)]
pub(super) struct PartFile {
    file: BufWriter<File>,
    temporary: TempPath,
    destination: PathBuf,
}

impl PartFile {
    /// Makes the temporary file, unless something at `destination` already forbids a file of that name.
    pub(super) fn create(destination: &Path) -> Result<Self, AudioError> {
        let unwritable = |source| AudioError::Write {
            path: destination.to_owned(),
            source,
        };
        let name = destination
            .file_name()
            .ok_or_else(|| unwritable(io::ErrorKind::InvalidFilename.into()))?;
        // What publishing would fail for is found before the work, not after it.
        match destination.symlink_metadata() {
            Ok(found) if found.is_dir() => return Err(unwritable(io::ErrorKind::IsADirectory.into())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unwritable(error)),
        }
        let directory = directory_of(destination);
        // A short part of the name, so that a name of full length still leaves room for the rest.
        let short: String = name.to_string_lossy().chars().take(40).collect();
        let (file, temporary) = tempfile::Builder::new()
            .prefix(&format!(".{short}-"))
            .suffix(".part")
            .permissions(Permissions::from_mode(NEW_FILE_MODE))
            .tempfile_in(directory)
            .map_err(unwritable)?
            .into_parts();
        Ok(Self {
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            temporary,
            destination: destination.to_owned(),
        })
    }

    pub(super) fn destination(&self) -> &Path {
        &self.destination
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), AudioError> {
        self.file.write_all(bytes).map_err(|source| AudioError::Write {
            path: self.destination.clone(),
            source,
        })
    }

    /// Overwrites the first bytes with the final header, flushes everything to disk and closes the file.
    pub(super) fn complete(
        self,
        header: &[u8],
        frames: u64,
        clipped_samples: u64,
    ) -> Result<UnpublishedFile, AudioError> {
        let Self {
            file,
            temporary,
            destination,
        } = self;
        match settle(file, header) {
            Ok(bytes) => {
                let report = SinkReport {
                    frames,
                    clipped_samples,
                    bytes,
                };
                Ok(UnpublishedFile {
                    temporary,
                    destination,
                    report,
                })
            }
            Err(source) => Err(AudioError::Write {
                path: destination,
                source,
            }),
        }
    }
}

fn settle(file: BufWriter<File>, header: &[u8]) -> io::Result<u64> {
    let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(header)?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
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
