//! Traits for the task queue and for the storage of songs and stems; the API depends on these, not on Kafka or S3.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use separation_contract::message::{Task, TaskId};

use crate::kafka::Position;
use crate::storage::FinalManifest;
use crate::telemetry::TraceContext;
use crate::work::WorkError;

/// Progress of the processors' consumer group in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueProgress {
    /// Committed offset; none if the group has never committed one.
    pub committed: Option<i64>,
    /// Whether a processor has started the message at that offset.
    pub begun: bool,
    /// When it started, in Unix seconds, if known.
    pub start: Option<u64>,
    /// Progress of the separation, 0 to 100, if known.
    pub percent: Option<u8>,
}

/// Why publishing a task failed.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The brokers did not store the task.
    #[error("the task was not queued")]
    NotQueued(#[source] WorkError),
    /// The topic has no such partition, or is missing; the brokers did not store the task.
    #[error("the task was not queued: its topic has no such partition")]
    NoPartition(#[source] WorkError),
    /// The brokers did not respond; they may have stored the task.
    #[error("the task may or may not be queued: the brokers did not confirm it")]
    Unknown(#[source] WorkError),
}

/// The queue of tasks.
pub trait TaskQueue: Send + Sync + 'static {
    /// Whether a task could be published now; takes at most two seconds.
    fn reachable(&self) -> BoxFuture<'_, bool>;

    /// Chooses the partition of a new task, within 250 ms; none: that of its message key's hash.
    fn place(&self) -> BoxFuture<'_, Option<i32>>;

    /// Publishes a task, to `partition` if there is one, and returns its partition and offset.
    ///
    /// # Errors
    /// When it was not stored, or that is unknown.
    fn publish<'a>(
        &'a self,
        task: &'a Task,
        partition: Option<i32>,
        trace: TraceContext,
    ) -> BoxFuture<'a, Result<Position, QueueError>>;

    /// Progress of the processors in a partition; none if it cannot be read within two seconds.
    fn progress(&self, partition: i32) -> BoxFuture<'_, Option<QueueProgress>>;

    /// Flushes unconfirmed messages for at most `limit`, then publishes nothing more.
    fn close(&self, limit: Duration) -> BoxFuture<'_, ()>;
}

/// Storage of staged songs, task records and manifests.
pub trait TaskFiles: Send + Sync + 'static {
    /// Stages a song of at most `limit_bytes` and returns its `audio_path`.
    ///
    /// # Errors
    /// When the stream fails or the song cannot be stored. Then nothing of it is left.
    fn put_input<'a>(
        &'a self,
        task: &'a TaskId,
        song: BoxStream<'a, io::Result<Bytes>>,
        limit_bytes: u64,
    ) -> BoxFuture<'a, Result<String, WorkError>>;

    /// The `audio_path` at which [`Self::put_input`] stages the song of `task`.
    ///
    /// # Errors
    /// When it cannot be written as text.
    fn input_path(&self, task: &TaskId) -> Result<String, WorkError>;

    /// Deletes the song of `task` at `audio_path`.
    ///
    /// # Errors
    /// When the deletion fails.
    fn delete_input<'a>(
        &'a self,
        task: &'a TaskId,
        audio_path: &'a str,
    ) -> BoxFuture<'a, Result<(), WorkError>>;

    /// Stores the record of a queued task.
    ///
    /// # Errors
    /// When it was not stored.
    fn put_record<'a>(&'a self, task: &'a TaskId, record: Vec<u8>) -> BoxFuture<'a, Result<(), WorkError>>;

    /// Reads the record of a task; none if there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn record<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<Option<Vec<u8>>, WorkError>>;

    /// Deletes the record of a task.
    ///
    /// # Errors
    /// When the deletion fails.
    fn delete_record<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<(), WorkError>>;

    /// Whether a task's stems are staged.
    ///
    /// # Errors
    /// When that cannot be read.
    fn is_separated<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<bool, WorkError>>;

    /// The final manifest of a task; none before the task has ended.
    ///
    /// # Errors
    /// When it cannot be read.
    fn manifest<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<Option<FinalManifest>, WorkError>>;

    /// Removes the song, the staged stems and the record of `task`.
    ///
    /// # Errors
    /// When something may be left; a retry continues.
    fn erase<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<(), WorkError>>;
}
