//! Files that appear whole or not at all.

use std::path::{Path, PathBuf};

use tempfile::TempPath;

use super::AudioError;

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
    /// Samples (of either channel) that were outside full scale and were cut to it; always 0 for float output.
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
            .map_err(|refused| AudioError::Read {
                path: self.destination.clone(),
                source: refused.error,
            })?;
        Ok(self.report)
    }
}
