//! From a stream of bytes to a queued task: the song is staged, then the task is published. A failure before that
//! removes the song.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use separation_contract::message::{Task, TaskId};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::ApiSettings;
use super::problem::Problem;
use super::slots::{Slot, Slots};
use super::status::TaskRecord;
use super::traits::{QueueError, TaskFiles, TaskQueue};
use crate::clock::unix_time;
use crate::error::ErrorClass;
use crate::telemetry::TraceContext;
use crate::work::WorkError;

/// Time limit for removing a song that is not queued; after it the song stays until the staging sweep.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);

/// Buffered pieces of a song: 4 times 8 to 64 KiB.
const BUFFERED_PIECES: usize = 4;

/// Stages songs and queues their tasks.
#[derive(Clone)]
pub(super) struct Intake {
    queue: Arc<dyn TaskQueue>,
    files: Arc<dyn TaskFiles>,
    slots: Slots,
    max_bytes: u64,
    unfinished: TaskTracker,
}

/// Why a song was not staged.
#[derive(Debug, thiserror::Error)]
pub(super) enum IntakeError {
    /// As many songs as allowed are being received, of all clients or of this one.
    #[error("too many songs are being received")]
    Busy,
    /// No task could be queued now.
    #[error("the task queue is unreachable")]
    QueueUnreachable,
    /// The song has no bytes.
    #[error("the audio is empty")]
    Empty,
    /// The song cannot be stored.
    #[error("the song cannot be stored")]
    Storage(#[source] WorkError),
    /// An error of this program.
    #[error("staging a song ended early")]
    Bug,
}

/// A song that is staged and not yet queued.
pub(super) struct StagedSong {
    task_uuid: TaskId,
    audio_path: String,
    intake: Intake,
    if_dropped: IfDropped,
    _slot: Slot,
}

/// Use of a staged song whose task is not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IfDropped {
    /// It is removed.
    Removed,
    /// It is kept: it may belong to a task.
    Kept,
}

impl Intake {
    /// `unfinished` tracks the work that has to end before the process does.
    pub(super) fn new(
        queue: Arc<dyn TaskQueue>,
        files: Arc<dyn TaskFiles>,
        settings: &ApiSettings,
        unfinished: TaskTracker,
    ) -> Self {
        Self {
            queue,
            files,
            slots: Slots::new(settings.max_concurrent_inputs, &settings.clients),
            max_bytes: settings.input.max_bytes,
            unfinished,
        }
    }

    /// Permission for a client to send a song.
    pub(super) fn slot(&self, client: &str) -> Result<Slot, IntakeError> {
        self.slots.try_acquire(client).ok_or(IntakeError::Busy)
    }

    /// Checks, before any of the song is read, that a slot is free and the queue is reachable.
    pub(super) async fn admit(&self, client: &str) -> Result<Slot, IntakeError> {
        let slot = self.slot(client)?;
        if !self.queue.reachable().await {
            tracing::warn!("Song refused: the task queue is unreachable");
            return Err(IntakeError::QueueUnreachable);
        }
        Ok(slot)
    }

    /// Stages the song of a task. Nothing is left of a song that does not arrive completely.
    pub(super) async fn stage<E>(
        &self,
        slot: Slot,
        task_uuid: TaskId,
        mut song: BoxStream<'_, Result<Bytes, E>>,
        if_dropped: IfDropped,
    ) -> Result<StagedSong, E>
    where
        E: From<IntakeError> + Send,
    {
        let first_piece = first_piece(&mut song).await?;
        let (sender, receiver) = mpsc::channel(BUFFERED_PIECES);
        // Spawned, so that it always sees the end of the song or a broken stream, even if this future is dropped.
        let stored = self
            .unfinished
            .spawn(self.clone().store(slot, task_uuid, receiver, if_dropped));
        let mut pieces = stream::once(async { Ok(first_piece) }).chain(song).boxed();
        while let Some(piece) = pieces.next().await {
            // The send fails once staging has failed and dropped the receiver.
            if sender.send(Piece::Next(piece?)).await.is_err() {
                break;
            }
        }
        let _ = sender.send(Piece::End).await;
        match stored.await {
            Ok(stored) => stored.map_err(|error| IntakeError::Storage(error).into()),
            Err(error) => {
                tracing::error!(%error, "Staging a song ended early");
                Err(IntakeError::Bug.into())
            }
        }
    }

    async fn store(
        self,
        slot: Slot,
        task_uuid: TaskId,
        receiver: mpsc::Receiver<Piece>,
        if_dropped: IfDropped,
    ) -> Result<StagedSong, WorkError> {
        let pieces = stream::unfold(Some(receiver), |receiver| async {
            let mut receiver = receiver?;
            match receiver.recv().await {
                Some(Piece::Next(piece)) => Some((Ok(piece), Some(receiver))),
                Some(Piece::End) => None,
                None => Some((Err(io::Error::other("the song ended early")), None)),
            }
        });
        let audio_path = self
            .files
            .put_input(&task_uuid, pieces.boxed(), self.max_bytes)
            .await?;
        Ok(StagedSong {
            task_uuid,
            audio_path,
            intake: self,
            if_dropped,
            _slot: slot,
        })
    }
}

enum Piece {
    Next(Bytes),
    /// The song is complete.
    End,
}

impl StagedSong {
    /// Removes the song.
    pub(super) async fn remove(mut self) {
        self.if_dropped = IfDropped::Kept;
        let audio_path = std::mem::take(&mut self.audio_path);
        remove(Arc::clone(&self.intake.files), self.task_uuid.clone(), audio_path).await;
    }

    /// Queues the song's task. Runs to its end even if the client disconnects.
    pub(super) async fn queue(
        self,
        hook_url: Option<String>,
        trace: TraceContext,
    ) -> Result<TaskId, Problem> {
        let unfinished = self.intake.unfinished.clone();
        let queued = unfinished.spawn(self.queue_to_end(hook_url, trace)).await;
        queued.unwrap_or_else(|error| {
            tracing::error!(%error, "Queueing a task ended early");
            Err(internal())
        })
    }

    async fn queue_to_end(
        mut self,
        hook_url: Option<String>,
        trace: TraceContext,
    ) -> Result<TaskId, Problem> {
        let now = unix_time().as_secs();
        let (task_uuid, files) = (self.task_uuid.clone(), Arc::clone(&self.intake.files));
        // Stored before the task is published, so that every queued task has a status.
        if let Err(error) = files
            .put_record(&task_uuid, TaskRecord::new(now, None).to_json())
            .await
        {
            return Err(storage_problem(&error));
        }
        let task = Task::new(task_uuid.clone(), self.audio_path.clone(), hook_url, now);
        let partition = self.intake.queue.place().await;
        let queue = &self.intake.queue;
        let mut published = queue.publish(&task, partition, trace).await;
        if matches!(published, Err(QueueError::NoPartition(_))) {
            published = queue.publish(&task, None, trace).await;
        }
        let position = match published {
            Ok(position) => position,
            Err(error) => {
                // A processor may already have the task: keep its song and its record.
                if matches!(error, QueueError::Unknown(_)) {
                    self.if_dropped = IfDropped::Kept;
                }
                return Err(queue_problem(&task_uuid, &error));
            }
        };
        self.if_dropped = IfDropped::Kept;
        tracing::info!(
            %task_uuid,
            partition = position.partition,
            offset = position.offset,
            trace_id = trace.trace_id(),
            "Task queued"
        );
        let record = TaskRecord::new(now, Some(position)).to_json();
        if let Err(error) = files.put_record(&task_uuid, record).await {
            tracing::warn!(%task_uuid, %error, "Cannot store the task's partition and offset; its position is not reported");
        }
        Ok(task_uuid)
    }
}

impl Drop for StagedSong {
    fn drop(&mut self) {
        if self.if_dropped == IfDropped::Kept {
            return;
        }
        let (task_uuid, files) = (self.task_uuid.clone(), Arc::clone(&self.intake.files));
        let audio_path = std::mem::take(&mut self.audio_path);
        self.intake.unfinished.spawn(remove(files, task_uuid, audio_path));
    }
}

/// Removes a song and its record.
async fn remove(files: Arc<dyn TaskFiles>, task_uuid: TaskId, audio_path: String) {
    let removal = async {
        files.delete_input(&task_uuid, &audio_path).await?;
        files.delete_record(&task_uuid).await
    };
    match tokio::time::timeout(REMOVAL_LIMIT, removal).await {
        Ok(Ok(())) => tracing::info!(%task_uuid, "Removed a song that was not queued"),
        Ok(Err(error)) => tracing::warn!(%task_uuid, %error, "Cannot remove a song that was not queued"),
        Err(_) => tracing::warn!(%task_uuid, "Removing a song that was not queued timed out"),
    }
}

/// The first piece that is not empty; an empty song is an error.
async fn first_piece<E: From<IntakeError>>(song: &mut BoxStream<'_, Result<Bytes, E>>) -> Result<Bytes, E> {
    while let Some(piece) = song.next().await {
        let piece = piece?;
        if !piece.is_empty() {
            return Ok(piece);
        }
    }
    Err(IntakeError::Empty.into())
}

impl From<IntakeError> for Problem {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Busy => Self::unavailable("Too many songs are being received; retry later"),
            IntakeError::QueueUnreachable => Self::unavailable("The task queue is unreachable; retry later"),
            IntakeError::Empty => Self::bad_request("The audio is empty"),
            IntakeError::Storage(error) => storage_problem(&error),
            IntakeError::Bug => internal(),
        }
    }
}

fn internal() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
}

fn storage_problem(error: &WorkError) -> Problem {
    tracing::error!(%error, "Cannot store the song");
    let unavailable = "The song cannot be stored now; retry later";
    problem_of(error, unavailable, "The song cannot be stored")
}

fn queue_problem(task_uuid: &TaskId, error: &QueueError) -> Problem {
    match error {
        QueueError::NotQueued(cause) | QueueError::NoPartition(cause) => {
            tracing::error!(%task_uuid, error = %cause, "Task not queued");
            let unavailable = "The task queue is unreachable; retry later";
            problem_of(cause, unavailable, "Failed to queue the task")
        }
        QueueError::Unknown(cause) => {
            tracing::error!(%task_uuid, error = %cause, "The brokers did not confirm the task; its song stays staged");
            Problem::unavailable("The brokers did not confirm the task in time")
                .with_details("it may be queued; read its status before posting the song again")
                .with_task(task_uuid.clone())
        }
    }
}

/// 503 if a retry may succeed, else 500.
fn problem_of(error: &WorkError, unavailable: &'static str, failed: &'static str) -> Problem {
    match error.class() {
        ErrorClass::Transient | ErrorClass::Dependency | ErrorClass::TimedOut | ErrorClass::Interrupted => {
            Problem::unavailable(unavailable)
        }
        ErrorClass::Permanent | ErrorClass::Bug => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, failed),
    }
}
