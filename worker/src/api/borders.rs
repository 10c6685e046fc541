//! What the API needs of Kafka and of the places where songs and stems lie: traits, so that it knows neither.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use separation_contract::message::{Task, TaskId};

use crate::kafka::Place;
use crate::storage::FinalManifest;
use crate::telemetry::TraceContext;
use crate::work::WorkError;

/// How far the processors are in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueProgress {
    /// The next offset to work on; none if nobody ever worked there.
    pub committed: Option<i64>,
    /// Whether somebody has begun to work on the message at that offset.
    pub begun: bool,
}

/// Why a task may not be queued.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The brokers do not have the task.
    #[error("the task is not queued")]
    NotQueued(#[source] WorkError),
    /// The brokers did not answer; they may have the task.
    #[error("whether the task is queued is unknown")]
    Unknown(#[source] WorkError),
}

/// Where tasks wait.
pub trait TaskQueue: Send + Sync + 'static {
    /// Whether a task could be queued now; takes two seconds at most.
    fn reachable(&self) -> BoxFuture<'_, bool>;

    /// Queues a task, and gives its place.
    ///
    /// # Errors
    /// When it is not queued, or that is unknown.
    fn publish<'a>(&'a self, task: &'a Task, trace: TraceContext)
    -> BoxFuture<'a, Result<Place, QueueError>>;

    /// How far the processors are in a partition, where that can be told within two seconds.
    fn progress(&self, partition: i32) -> BoxFuture<'_, Option<QueueProgress>>;

    /// Waits, at most for `limit`, until brokers have everything, and queues nothing more.
    fn close(&self, limit: Duration) -> BoxFuture<'_, ()>;
}

/// Where songs wait, and where what became of them can be seen.
pub trait TaskFiles: Send + Sync + 'static {
    /// Keeps a song of at most `limit_bytes` where processors find it, and gives its address as messages have it.
    ///
    /// # Errors
    /// When the song ends with an error or cannot be kept. Then nothing of it is left.
    fn put_input<'a>(
        &'a self,
        task: &'a TaskId,
        song: BoxStream<'a, io::Result<Bytes>>,
        limit_bytes: u64,
    ) -> BoxFuture<'a, Result<String, WorkError>>;

    /// Removes the song of `task` at `audio_path`.
    ///
    /// # Errors
    /// When it is still there.
    fn delete_input<'a>(
        &'a self,
        task: &'a TaskId,
        audio_path: &'a str,
    ) -> BoxFuture<'a, Result<(), WorkError>>;

    /// Keeps what is known of a task while it waits.
    ///
    /// # Errors
    /// When it is not kept.
    fn put_record<'a>(&'a self, task: &'a TaskId, record: Vec<u8>) -> BoxFuture<'a, Result<(), WorkError>>;

    /// What was kept of a task.
    ///
    /// # Errors
    /// When that cannot be told.
    fn record<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<Option<Vec<u8>>, WorkError>>;

    /// Removes what was kept of a task.
    ///
    /// # Errors
    /// When it is still there.
    fn delete_record<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<(), WorkError>>;

    /// Whether a task's stems are staged.
    ///
    /// # Errors
    /// When that cannot be told.
    fn is_separated<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<bool, WorkError>>;

    /// How a task ended, if it did.
    ///
    /// # Errors
    /// When that cannot be told.
    fn manifest<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<Option<FinalManifest>, WorkError>>;
}
