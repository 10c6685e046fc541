//! Access to the paths in messages: files below the shared directories and objects in allowed buckets.

use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use super::files::{StagedInput, StemSource};
use crate::error::ErrorClass;
use crate::settings::{ObjectAddress, StagingSettings};
use crate::storage::blocking::blocking;
use crate::storage::classify::is_refusal;
use crate::storage::confine::{OpenFile, Root};
use crate::storage::{AttemptScratch, InputIdentity, ObjectHead, S3, StorageError};

/// File name of a downloaded song in scratch space.
const INPUT_FILE: &str = "input";

/// File name of a downloaded stem in scratch space.
const STEM_FILE: &str = "stem";

/// The directories and buckets that messages may name.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    inputs: Root,
    stems: Root,
    buckets: Vec<String>,
    /// The staging prefix, if staging is in an object store.
    staging_prefix: Option<ObjectAddress>,
    s3: Option<S3>,
}

impl Sources {
    pub(super) fn new(inputs: Root, stems: Root, settings: &StagingSettings, s3: Option<S3>) -> Self {
        Self {
            inputs,
            stems,
            buckets: settings.input_buckets.clone(),
            staging_prefix: settings.s3_staging.clone(),
            s3,
        }
    }

    pub(super) async fn input(&self, audio_path: &str) -> Result<InputIdentity, StorageError> {
        if ObjectAddress::is_address(audio_path) {
            let (s3, address) = self.object(audio_path)?;
            let head = self.head(s3, &address).await?;
            return Ok(head.into());
        }
        let (_, identity) = file_below(&self.inputs, audio_path).await?;
        Ok(identity)
    }

    pub(super) async fn stage_in(
        &self,
        audio_path: &str,
        scratch: &AttemptScratch,
    ) -> Result<StagedInput, StorageError> {
        if !ObjectAddress::is_address(audio_path) {
            let (file, identity) = file_below(&self.inputs, audio_path).await?;
            return Ok(StagedInput {
                path: file.path(),
                identity,
                shared: Some(file),
            });
        }
        let (s3, address) = self.object(audio_path)?;
        let path = scratch.path().join(INPUT_FILE);
        let room = scratch.remaining_bytes().await?;
        let head = match s3.download(&address, &path, room).await {
            Err(error) => return Err(self.classify(s3, &address, error).await),
            Ok(head) => head,
        };
        Ok(StagedInput {
            path,
            identity: head.into(),
            shared: None,
        })
    }

    pub(super) async fn stem(&self, path: &str) -> Result<StemSource, StorageError> {
        if ObjectAddress::is_address(path) {
            let (s3, address) = self.object(path)?;
            let head = self.head(s3, &address).await?;
            return Ok(StemSource::Object {
                address,
                size: head.size,
            });
        }
        let (file, identity) = file_below(&self.stems, path).await?;
        Ok(StemSource::File {
            file,
            size: identity.size,
        })
    }

    pub(super) async fn stem_file(
        &self,
        stem: &StemSource,
        scratch: &AttemptScratch,
    ) -> Result<PathBuf, StorageError> {
        match stem {
            StemSource::File { file, .. } => Ok(file.path()),
            StemSource::Object { address, .. } => {
                let s3 = self.s3.as_ref().ok_or_else(|| StorageError::NoObjectStore {
                    location: address.to_string(),
                })?;
                let path = scratch.path().join(STEM_FILE);
                let room = scratch.remaining_bytes().await?;
                s3.download(address, &path, room).await?;
                Ok(path)
            }
        }
    }

    pub(super) async fn delete_input_file(&self, path: &str) -> Result<(), StorageError> {
        delete_below(&self.inputs, path).await
    }

    pub(super) async fn delete_stem_file(&self, path: &str) -> Result<(), StorageError> {
        delete_below(&self.stems, path).await
    }

    async fn head(&self, s3: &S3, address: &ObjectAddress) -> Result<ObjectHead, StorageError> {
        match s3.head(address).await {
            Ok(head) => head.ok_or_else(|| StorageError::missing(address)),
            Err(error) => Err(self.classify(s3, address, error).await),
        }
    }

    /// Distinguishes a failure of the one object that a message names from a failure of the store, by reading below the
    /// staging prefix, or else in the object's bucket.
    async fn classify(&self, s3: &S3, address: &ObjectAddress, error: StorageError) -> StorageError {
        let (StorageError::Objects { code, problem, .. }, ErrorClass::Dependency) = (&error, error.class())
        else {
            return error;
        };
        let staging_prefix = self.staging_prefix.clone().unwrap_or_else(|| ObjectAddress {
            bucket: address.bucket.clone(),
            key: String::new(),
        });
        let accessible = match s3.check_access(&staging_prefix).await {
            Ok(()) => true,
            // The store accepts the credentials but refuses this bucket, which is not the worker's staging bucket.
            Err(StorageError::Objects { code, .. }) => {
                self.staging_prefix.is_none() && code == "AccessDenied"
            }
            Err(_) => false,
        };
        if !accessible {
            return error;
        }
        if is_refusal(code) {
            let rule = format!("the worker's credentials must have permission to read it, but {problem}");
            return StorageError::refused(address, rule);
        }
        error.into_transient()
    }

    /// Parses an `s3://` address and checks that its bucket is allowed.
    fn object(&self, text: &str) -> Result<(&S3, ObjectAddress), StorageError> {
        let refused = |rule: &str| StorageError::refused(&text, rule);
        let address: ObjectAddress = text
            .parse()
            .map_err(|_| refused("it must have the form s3://bucket/key"))?;
        if address.key.is_empty() || address.key.ends_with('/') {
            return Err(refused("its object key must not be empty or end with /"));
        }
        if !self.buckets.contains(&address.bucket) {
            return Err(refused(&format!(
                "its bucket must be that of S3_STAGING or one of S3_INPUT_BUCKETS ({})",
                self.buckets.join(", ")
            )));
        }
        let s3 = self.s3.as_ref().ok_or_else(|| StorageError::NoObjectStore {
            location: text.to_owned(),
        })?;
        Ok((s3, address))
    }
}

impl From<ObjectHead> for InputIdentity {
    fn from(head: ObjectHead) -> Self {
        Self {
            size: head.size,
            tag: head.etag,
        }
    }
}

/// Opens the regular file at `path` below `root` and returns its identity.
async fn file_below(root: &Root, path: &str) -> Result<(OpenFile, InputIdentity), StorageError> {
    let (root, path) = (root.clone(), PathBuf::from(path));
    blocking(move || {
        let file = root.open(&path)?;
        let identity = identity_of(&file)?;
        Ok((file, identity))
    })
    .await
}

/// A file's size and modification time, which changes when the file is replaced.
fn identity_of(file: &OpenFile) -> Result<InputIdentity, StorageError> {
    let failed = |error| StorageError::file("look up", file.resolved())(error);
    let metadata = file.file().metadata().map_err(failed)?;
    let changed = metadata.modified().map_err(failed)?;
    // Times before 1970 count as 0.
    let nanoseconds = changed
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    let size = metadata.len();
    Ok(InputIdentity {
        size,
        tag: format!("{nanoseconds}-{size}"),
    })
}

/// Deletes the file at `path` below `root`, or the symbolic link.
async fn delete_below(root: &Root, path: &str) -> Result<(), StorageError> {
    let (root, path) = (root.clone(), PathBuf::from(path));
    blocking(move || root.delete(&path)).await
}
