//! The interface of a place that stages songs and stems. Reads no path that a message names.

use std::fmt;
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use separation_contract::message::TaskId;

use crate::storage::{AttemptId, StagedStem, StorageError};

/// A file that all attempts of a task share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StagedFile {
    /// The song, as the API stores it.
    Input,
    /// The API's record, next to the song.
    Record,
    /// The manifest, next to the stems.
    Manifest,
}

/// The content of a file to store.
pub(super) type Content<'c> = BoxStream<'c, Result<Bytes, StorageError>>;

/// A place that stages songs and stems. Deleting what does not exist is no error.
#[async_trait]
pub(super) trait Store: fmt::Debug + Send + Sync {
    /// The path or address of a file, for messages.
    fn location(&self, task: &TaskId, file: StagedFile) -> Result<String, StorageError>;

    /// Replaces a file; visible only once complete. The caller ends `content` with an error after `limit_bytes`.
    async fn put(
        &self,
        task: &TaskId,
        file: StagedFile,
        content: Content<'_>,
        limit_bytes: u64,
    ) -> Result<(), StorageError>;

    /// A file's content; none if it does not exist or is larger than the limit of manifests.
    async fn read(&self, task: &TaskId, file: StagedFile) -> Result<Option<Vec<u8>>, StorageError>;

    /// Deletes a file.
    async fn delete(&self, task: &TaskId, file: StagedFile) -> Result<(), StorageError>;

    /// Stores the file `stem` as the stem `name` of an attempt. May be retried.
    async fn store_stem(
        &self,
        task: &TaskId,
        attempt: AttemptId,
        name: &str,
        stem: &Path,
    ) -> Result<StagedStem, StorageError>;

    /// Removes the stems of an attempt.
    async fn discard_attempt(&self, task: &TaskId, attempt: AttemptId) -> Result<(), StorageError>;

    /// Removes a task's manifest, then the stems of all its attempts.
    async fn remove_stems(&self, task: &TaskId) -> Result<(), StorageError>;

    /// Deletes songs of ended tasks that were stored before `time`, in Unix seconds; returns their number.
    async fn remove_inputs_before(&self, time: u64) -> Result<usize, StorageError>;
}
