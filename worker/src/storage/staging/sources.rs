//! What messages may name: files below the shared folders and objects in allowed buckets.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::{StagedInput, StemSource};
use crate::settings::ObjectAddress;
use crate::storage::confine::Root;
use crate::storage::{AttemptScratch, InputIdentity, S3, StorageError};

/// The name of a downloaded song in scratch space.
const INPUT_FILE: &str = "input";

/// What messages may name.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    inputs: Root,
    stems: Root,
    buckets: Vec<String>,
    s3: Option<S3>,
}

impl Sources {
    pub(super) fn new(inputs: Root, stems: Root, buckets: Vec<String>, s3: Option<S3>) -> Self {
        Self {
            inputs,
            stems,
            buckets,
            s3,
        }
    }

    pub(super) async fn input(&self, audio_path: &str) -> Result<InputIdentity, StorageError> {
        if ObjectAddress::is_one(audio_path) {
            let (s3, address) = self.object(audio_path)?;
            let head = s3
                .head(&address)
                .await?
                .ok_or_else(|| StorageError::missing(&address))?;
            return Ok(InputIdentity {
                size: head.size,
                tag: head.etag,
            });
        }
        Ok(file_below(&self.inputs, audio_path).await?.identity)
    }

    pub(super) async fn stage_in(
        &self,
        audio_path: &str,
        scratch: &AttemptScratch,
    ) -> Result<StagedInput, StorageError> {
        if !ObjectAddress::is_one(audio_path) {
            return file_below(&self.inputs, audio_path).await;
        }
        let (s3, address) = self.object(audio_path)?;
        let path = scratch.path().join(INPUT_FILE);
        let head = s3.download(&address, &path, scratch.remaining_bytes()?).await?;
        Ok(StagedInput {
            path,
            identity: InputIdentity {
                size: head.size,
                tag: head.etag,
            },
        })
    }

    pub(super) async fn stem(&self, path: &str) -> Result<StemSource, StorageError> {
        if ObjectAddress::is_one(path) {
            let (s3, address) = self.object(path)?;
            let head = s3
                .head(&address)
                .await?
                .ok_or_else(|| StorageError::missing(&address))?;
            return Ok(StemSource::Object {
                address,
                size: head.size,
            });
        }
        let file = file_below(&self.stems, path).await?;
        Ok(StemSource::File {
            path: file.path,
            size: file.identity.size,
        })
    }

    pub(super) async fn delete_input_file(&self, path: &str) -> Result<(), StorageError> {
        delete_below(&self.inputs, path).await
    }

    pub(super) async fn delete_stem_file(&self, path: &str) -> Result<(), StorageError> {
        delete_below(&self.stems, path).await
    }

    /// The object that a text names, if it may be read.
    fn object(&self, text: &str) -> Result<(&S3, ObjectAddress), StorageError> {
        let refused = |rule: String| StorageError::Refused {
            place: text.to_owned(),
            rule,
        };
        let address: ObjectAddress = text
            .parse()
            .map_err(|_| refused("it must be of the form s3://bucket/key".into()))?;
        if address.key.is_empty() || address.key.ends_with('/') {
            return Err(refused("it must name an object".into()));
        }
        if !self.buckets.contains(&address.bucket) {
            return Err(refused(format!(
                "its bucket must be one of those of S3_STAGING and S3_INPUT_BUCKETS ({})",
                self.buckets.join(", ")
            )));
        }
        let s3 = self.s3.as_ref().ok_or_else(|| StorageError::NoObjectStore {
            place: text.to_owned(),
        })?;
        Ok((s3, address))
    }
}

/// The regular file below `root` that `path` names, and which it is.
async fn file_below(root: &Root, path: &str) -> Result<StagedInput, StorageError> {
    let (root, path) = (root.clone(), PathBuf::from(path));
    blocking(move || {
        let path = root.file(&path)?;
        let identity = identity_of(&path)?;
        Ok(StagedInput { path, identity })
    })
    .await
}

/// A file's size and time of change; whoever replaces it changes the latter.
fn identity_of(path: &Path) -> Result<InputIdentity, StorageError> {
    let failed = |error| StorageError::file("look up", path)(error);
    let metadata = path.metadata().map_err(failed)?;
    let changed = metadata.modified().map_err(failed)?;
    // A clock set before 1970 makes tags that do not compare well, which only repeats work.
    let nanoseconds = changed
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    let size = metadata.len();
    Ok(InputIdentity {
        size,
        tag: format!("{nanoseconds}-{size}"),
    })
}

/// Deletes the file that `path` names below `root`; of a symbolic link, the link.
async fn delete_below(root: &Root, path: &str) -> Result<(), StorageError> {
    let (root, path) = (root.clone(), PathBuf::from(path));
    blocking(move || {
        match root.file(&path) {
            Err(error) if error.is_missing() => return Ok(()),
            checked => checked?,
        };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StorageError::file("delete", &path)(error))
            }
            _ => Ok(()),
        }
    })
    .await
}

/// Runs file system calls where they may block.
pub(super) async fn blocking<T: Send + 'static>(
    calls: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    match tokio::task::spawn_blocking(calls).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that ends cancels such a task.
            Err(error) => Err(StorageError::File {
                action: "use",
                place: "the file system".into(),
                source: std::io::Error::other(error),
            }),
        },
    }
}
