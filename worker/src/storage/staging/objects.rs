//! Staging in an object store: `prefix/<task>/<attempt>/<stem>`, `prefix/<task>/manifest.json`, `prefix/inputs/<song>`.
//!
//! A task's ID may be `inputs`: its objects are distinguished from songs by their complete form, never by the prefix
//! alone.

use std::error::Error;

use bytes::Bytes;
use futures_util::Stream;
use separation_contract::message::TaskId;
use separation_contract::names;

use super::files::StemFiles;
use crate::settings::ObjectAddress;
use crate::storage::manifest::{MAX_BYTES, StagedStem, StagingManifest};
use crate::storage::{AttemptId, S3, StorageError};

/// Maximum number of objects listed when a task is removed: the two stems of 2,500 attempts.
const MAX_OBJECTS: usize = 5_000;

/// Prefix of songs' names.
const INPUTS: &str = "inputs";

/// The same for every song, because a song's format is detected from its bytes.
const INPUT_CONTENT_TYPE: &str = "application/octet-stream";

#[derive(Debug, Clone)]
pub(super) struct ObjectStore {
    s3: S3,
    prefix: ObjectAddress,
}

impl ObjectStore {
    pub(super) fn new(s3: S3, prefix: ObjectAddress) -> Self {
        Self { s3, prefix }
    }

    pub(super) async fn put_input<E>(
        &self,
        task: &TaskId,
        stream: impl Stream<Item = Result<Bytes, E>> + Send,
        limit_bytes: u64,
    ) -> Result<String, StorageError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let address = self.input_address(task);
        self.s3
            .put_stream(stream, limit_bytes, &address, INPUT_CONTENT_TYPE)
            .await?;
        Ok(address.to_string())
    }

    pub(super) async fn put_record(&self, task: &TaskId, record: &[u8]) -> Result<(), StorageError> {
        self.s3
            .write_small(
                &self.record_address(task),
                record.to_vec(),
                Some("application/json"),
            )
            .await
    }

    pub(super) async fn record(&self, task: &TaskId) -> Result<Option<Vec<u8>>, StorageError> {
        self.read_small(&self.record_address(task)).await
    }

    pub(super) async fn delete_record(&self, task: &TaskId) -> Result<(), StorageError> {
        self.s3.delete(&self.record_address(task)).await
    }

    fn record_address(&self, task: &TaskId) -> ObjectAddress {
        self.prefix
            .join(&format!("{INPUTS}/{}", names::record_name(task)))
    }

    /// Whether `address` is where the API stores the input of `task`.
    pub(super) fn is_input_of(&self, task: &TaskId, address: &ObjectAddress) -> bool {
        *address == self.input_address(task)
    }

    fn input_address(&self, task: &TaskId) -> ObjectAddress {
        self.prefix.join(&format!("{INPUTS}/{}", names::input_name(task)))
    }

    pub(super) async fn delete(&self, address: &ObjectAddress) -> Result<(), StorageError> {
        self.s3.delete(address).await
    }

    pub(super) async fn store(
        &self,
        task: &TaskId,
        attempt: AttemptId,
        stems: StemFiles<'_>,
    ) -> Result<[StagedStem; 2], StorageError> {
        let [vocals, instrumental] = self.stem_addresses(task, attempt);
        // Concurrently: the processor and its GPU wait for both.
        let (vocals, instrumental) = tokio::try_join!(
            self.store_file(stems.vocals, &vocals),
            self.store_file(stems.instrumental, &instrumental)
        )?;
        Ok([vocals, instrumental])
    }

    async fn store_file(
        &self,
        stem: &std::path::Path,
        address: &ObjectAddress,
    ) -> Result<StagedStem, StorageError> {
        let prepared = self
            .s3
            .prepare_upload(stem, address, names::STEM_CONTENT_TYPE)
            .await?;
        prepared.publish().await?;
        let head = self
            .s3
            .head(address)
            .await?
            .ok_or_else(|| StorageError::missing(address))?;
        Ok(StagedStem {
            path: address.to_string(),
            size: head.size,
        })
    }

    pub(super) async fn publish_manifest(&self, manifest: &StagingManifest) -> Result<(), StorageError> {
        let address = self.manifest_address(&manifest.task_uuid);
        self.s3
            .write_small(&address, manifest.to_json(), Some("application/json"))
            .await
    }

    /// The manifest's bytes; none if it does not exist or is larger than [`MAX_BYTES`].
    pub(super) async fn manifest(&self, task: &TaskId) -> Result<Option<Vec<u8>>, StorageError> {
        self.read_small(&self.manifest_address(task)).await
    }

    async fn read_small(&self, address: &ObjectAddress) -> Result<Option<Vec<u8>>, StorageError> {
        match self.s3.read_small(address, MAX_BYTES).await {
            Err(StorageError::Missing { .. } | StorageError::TooLarge { .. }) => Ok(None),
            read => Ok(Some(read?.into())),
        }
    }

    pub(super) async fn discard_attempt(
        &self,
        task: &TaskId,
        attempt: AttemptId,
    ) -> Result<(), StorageError> {
        for address in self.stem_addresses(task, attempt) {
            self.s3.delete(&address).await?;
        }
        Ok(())
    }

    pub(super) async fn remove(&self, task: &TaskId) -> Result<(), StorageError> {
        self.s3.delete(&self.manifest_address(task)).await?;
        let task_prefix = self.prefix.join(&format!("{task}/"));
        for object in self.s3.list(&task_prefix, MAX_OBJECTS).await? {
            if object
                .key
                .strip_prefix(&task_prefix.key)
                .is_some_and(is_stem_of_an_attempt)
            {
                let address = ObjectAddress {
                    bucket: task_prefix.bucket.clone(),
                    key: object.key,
                };
                self.s3.delete(&address).await?;
            }
        }
        Ok(())
    }

    fn stem_addresses(&self, task: &TaskId, attempt: AttemptId) -> [ObjectAddress; 2] {
        let attempt_prefix = self.prefix.join(&format!("{task}/{attempt}/"));
        [names::vocals_key(task), names::instrumental_key(task)].map(|name| attempt_prefix.join(&name))
    }

    fn manifest_address(&self, task: &TaskId) -> ObjectAddress {
        self.prefix.join(&format!("{task}/manifest.json"))
    }
}

/// Whether an object key below a task's prefix has the form `<attempt>/<name>`.
fn is_stem_of_an_attempt(key: &str) -> bool {
    key.split_once('/')
        .is_some_and(|(attempt, name)| AttemptId::is_valid(attempt) && !name.contains('/'))
}
