//! Staging in an object store: `prefix/<task>/<attempt>/<stem>`, `prefix/<task>/manifest.json`, `prefix/inputs/<song>`.
//!
//! A task's ID may be `inputs`: its objects are distinguished from songs by their complete form, never by the prefix
//! alone.

use std::path::Path;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use separation_contract::message::TaskId;
use separation_contract::names;

use super::file_names::{MANIFEST, task_of_input};
use super::store::{Content, StagedFile, Store};
use crate::settings::ObjectAddress;
use crate::storage::manifest::{MAX_BYTES, StagedStem};
use crate::storage::{AttemptId, Deletions, ListedObject, S3, StorageError};

/// Maximum number of objects listed when a task is removed: the two stems of 2,500 attempts.
const MAX_OBJECTS: usize = 5_000;

/// Songs that are looked up and deleted simultaneously.
const DELETIONS_IN_FLIGHT: usize = 8;

/// Prefix of songs' names.
const INPUTS: &str = "inputs";

/// The same for every song, because a song's format is detected from its bytes.
const INPUT_CONTENT_TYPE: &str = "application/octet-stream";

#[derive(Debug)]
pub(super) struct ObjectStore {
    s3: S3,
    prefix: ObjectAddress,
}

impl ObjectStore {
    pub(super) fn new(s3: S3, prefix: ObjectAddress) -> Self {
        Self { s3, prefix }
    }

    fn address(&self, task: &TaskId, file: StagedFile) -> ObjectAddress {
        self.prefix.join(&match file {
            StagedFile::Input => format!("{INPUTS}/{}", names::input_name(task)),
            StagedFile::Record => format!("{INPUTS}/{}", names::record_name(task)),
            StagedFile::Manifest => format!("{task}/{MANIFEST}"),
        })
    }

    /// Deletes the song of a task unless its record exists: the task has not ended then. Returns the number of deleted
    /// objects.
    async fn remove_ended_input(&self, task: TaskId) -> Result<usize, StorageError> {
        let record = self.address(&task, StagedFile::Record);
        if self.s3.head(&record).await?.is_some() {
            return Ok(0);
        }
        self.delete(&task, StagedFile::Input).await.map(|()| 1)
    }

    fn stem_address(&self, task: &TaskId, attempt: AttemptId, name: &str) -> ObjectAddress {
        self.prefix.join(&format!("{task}/{attempt}/{name}"))
    }
}

#[async_trait]
impl Store for ObjectStore {
    fn location(&self, task: &TaskId, file: StagedFile) -> Result<String, StorageError> {
        Ok(self.address(task, file).to_string())
    }

    async fn put(
        &self,
        task: &TaskId,
        file: StagedFile,
        content: Content<'_>,
        limit_bytes: u64,
    ) -> Result<(), StorageError> {
        let content_type = match file {
            StagedFile::Input => INPUT_CONTENT_TYPE,
            StagedFile::Record | StagedFile::Manifest => "application/json",
        };
        let address = self.address(task, file);
        self.s3
            .put_stream(content, limit_bytes, &address, content_type)
            .await
    }

    async fn read(&self, task: &TaskId, file: StagedFile) -> Result<Option<Vec<u8>>, StorageError> {
        match self.s3.read_small(&self.address(task, file), MAX_BYTES).await {
            Err(StorageError::Missing { .. } | StorageError::TooLarge { .. }) => Ok(None),
            read => Ok(Some(read?.into())),
        }
    }

    async fn delete(&self, task: &TaskId, file: StagedFile) -> Result<(), StorageError> {
        self.s3.delete(&self.address(task, file)).await
    }

    async fn store_stem(
        &self,
        task: &TaskId,
        attempt: AttemptId,
        name: &str,
        stem: &Path,
    ) -> Result<StagedStem, StorageError> {
        let address = self.stem_address(task, attempt, name);
        let upload = self.s3.prepare_upload(stem, &address, names::STEM_CONTENT_TYPE);
        upload.await?.publish().await?;
        let head = self.s3.head(&address).await?;
        Ok(StagedStem {
            path: address.to_string(),
            size: head.ok_or_else(|| StorageError::missing(&address))?.size,
        })
    }

    async fn discard_attempt(&self, task: &TaskId, attempt: AttemptId) -> Result<(), StorageError> {
        for name in [names::vocals_key(task), names::instrumental_key(task)] {
            self.s3.delete(&self.stem_address(task, attempt, &name)).await?;
        }
        Ok(())
    }

    async fn remove_stems(&self, task: &TaskId) -> Result<(), StorageError> {
        self.delete(task, StagedFile::Manifest).await?;
        let task_prefix = self.prefix.join(&format!("{task}/"));
        for object in self.s3.list(&task_prefix, MAX_OBJECTS).await? {
            let below = object.key.strip_prefix(&task_prefix.key);
            if below.is_some_and(is_stem_of_an_attempt) {
                let address = ObjectAddress {
                    bucket: task_prefix.bucket.clone(),
                    key: object.key,
                };
                self.s3.delete(&address).await?;
            }
        }
        Ok(())
    }

    async fn remove_inputs_before(&self, time: u64) -> Result<usize, StorageError> {
        let songs = self.prefix.join(&format!("{INPUTS}/"));
        let task_of_old = |object: ListedObject| {
            let name = object.key.strip_prefix(&songs.key)?;
            task_of_input(name).filter(|_| object.modified_at < time)
        };
        let (mut pages, mut deletions) = (self.s3.pages(&songs), Deletions::default());
        while let Some(page) = pages.next_page().await? {
            let tasks = page.into_iter().filter_map(task_of_old);
            let removals = stream::iter(tasks.map(|task| self.remove_ended_input(task)));
            let mut removals = removals.buffer_unordered(DELETIONS_IN_FLIGHT);
            while let Some(removed) = removals.next().await {
                deletions.record(removed);
            }
        }
        Ok(deletions.finish())
    }
}

/// Whether an object key below a task's prefix has the form `<attempt>/<name>`.
fn is_stem_of_an_attempt(key: &str) -> bool {
    key.split_once('/')
        .is_some_and(|(attempt, name)| AttemptId::is_valid(attempt) && !name.contains('/'))
}
