//! Songs and stems as the staging reads and returns them.

use std::path::{Path, PathBuf};

use crate::settings::ObjectAddress;
use crate::storage::confine::OpenFile;
use crate::storage::{InputIdentity, PreparedObject, S3, StagingManifest, StorageError};

/// A song that can be read as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedInput {
    /// Path to open: the shared file, or the object's copy in scratch space.
    pub path: PathBuf,
    /// Identity of the song.
    pub identity: InputIdentity,
    /// The shared file; `path` is valid while this is held.
    pub shared: Option<OpenFile>,
}

/// Files of a processor's stems.
#[derive(Debug, Clone, Copy)]
pub struct StemFiles<'a> {
    /// The vocals.
    pub vocals: &'a Path,
    /// The instrumental.
    pub instrumental: &'a Path,
}

/// Stored stems whose manifest is not yet published.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the stems are invisible until their manifest is published"]
pub struct StoredStems {
    pub(super) manifest: StagingManifest,
}

/// A stem that a result names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StemSource {
    /// A file below the directory of stems.
    File {
        /// The open file.
        file: OpenFile,
        /// Size in bytes.
        size: u64,
    },
    /// An object in an allowed bucket.
    Object {
        /// Bucket and object key.
        address: ObjectAddress,
        /// Size in bytes.
        size: u64,
    },
}

impl StoredStems {
    /// The manifest to publish; its paths go into the result.
    pub fn manifest(&self) -> &StagingManifest {
        &self.manifest
    }
}

impl StemSource {
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::File { size, .. } | Self::Object { size, .. } => *size,
        }
    }

    /// Sends the stem's data, up to the last request, which makes it visible at `to`.
    ///
    /// # Errors
    /// When the stem does not exist or the store fails.
    pub(crate) async fn prepare(
        &self,
        s3: &S3,
        to: &ObjectAddress,
        content_type: &str,
    ) -> Result<PreparedObject, StorageError> {
        match self {
            Self::File { file, .. } => {
                let prepared = s3.prepare_upload(&file.path(), to, content_type).await;
                prepared.map_err(|error| error.at(file.resolved()))
            }
            Self::Object { address, size } => s3.prepare_copy(address, *size, to, content_type).await,
        }
    }
}
