//! From a stream of bytes to a queued task: the song is kept first, then the task is queued, and what fails on the way
//! leaves nothing behind.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use separation_contract::message::{Task, TaskId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::ApiSettings;
use super::borders::{QueueError, TaskFiles, TaskQueue};
use super::problem::Problem;
use super::status::TaskRecord;
use crate::clock::unix_time;
use crate::error::ErrorClass;
use crate::telemetry::TraceContext;
use crate::work::WorkError;

/// How long removing a song may take that will not be queued; what is left then stays until somebody sweeps.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);

/// Pieces of a song that wait to be kept: a few times 8 to 64 KiB.
const PIECES_WAITING: usize = 4;

/// Takes songs and queues tasks.
#[derive(Clone)]
pub(super) struct Intake {
    queue: Arc<dyn TaskQueue>,
    files: Arc<dyn TaskFiles>,
    slots: Arc<Semaphore>,
    max_bytes: u64,
    unfinished: TaskTracker,
}

/// A song that is kept and not yet queued. Dropped, it is removed.
pub(super) struct StagedSong {
    task_uuid: TaskId,
    audio_path: String,
    intake: Intake,
    removed_when_dropped: bool,
    _slot: OwnedSemaphorePermit,
}

impl Intake {
    /// `unfinished` is told of everything that has to end before the process does.
    pub(super) fn new(
        queue: Arc<dyn TaskQueue>,
        files: Arc<dyn TaskFiles>,
        settings: &ApiSettings,
        unfinished: TaskTracker,
    ) -> Self {
        Self {
            queue,
            files,
            slots: Arc::new(Semaphore::new(settings.max_concurrent_inputs)),
            max_bytes: settings.input.max_bytes,
            unfinished,
        }
    }

    /// Makes sure that a song could be queued now, before anything of it is read.
    pub(super) async fn admit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let slot = Arc::clone(&self.slots)
            .try_acquire_owned()
            .map_err(|_| Problem::come_back("Too many songs are being received; try again later"))?;
        if !self.queue.reachable().await {
            tracing::warn!("Song refused, for it could not be queued");
            return Err(Problem::come_back(
                "The task queue cannot be reached; try again later",
            ));
        }
        Ok(slot)
    }

    /// Keeps a song. If the caller goes away meanwhile, nothing of it stays.
    pub(super) async fn stage(
        &self,
        slot: OwnedSemaphorePermit,
        mut song: BoxStream<'_, Result<Bytes, Problem>>,
    ) -> Result<StagedSong, Problem> {
        let begin = begin(&mut song).await?;
        let (sender, receiver) = mpsc::channel(PIECES_WAITING);
        // Keeping goes on by itself: it sees the end of the song, or that the song breaks off, and in no case is it
        // left in the middle.
        let kept = self.unfinished.spawn(self.clone().keep(slot, receiver));
        let mut pieces = stream::once(async { Ok(begin) }).chain(song).boxed();
        while let Some(piece) = pieces.next().await {
            // Keeping may have failed, and then nobody takes a piece any more.
            if sender.send(Piece::Next(piece?)).await.is_err() {
                break;
            }
        }
        let _ = sender.send(Piece::End).await;
        match kept.await {
            Ok(kept) => kept.map_err(|error| storage_problem(&error)),
            Err(error) => {
                tracing::error!(%error, "Keeping a song ended early");
                Err(internal())
            }
        }
    }

    async fn keep(
        self,
        slot: OwnedSemaphorePermit,
        receiver: mpsc::Receiver<Piece>,
    ) -> Result<StagedSong, WorkError> {
        let id = Uuid::new_v4().to_string();
        let task_uuid = TaskId::parse(&id).expect("a UUID is a task's name");
        let pieces = stream::unfold(Some(receiver), |receiver| async {
            let mut receiver = receiver?;
            match receiver.recv().await {
                Some(Piece::Next(piece)) => Some((Ok(piece), Some(receiver))),
                Some(Piece::End) => None,
                None => Some((Err(io::Error::other("the song broke off")), None)),
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
            removed_when_dropped: true,
            _slot: slot,
        })
    }
}

/// What keeping a song is told.
enum Piece {
    /// There is more.
    Next(Bytes),
    /// That was all.
    End,
}

impl StagedSong {
    /// Queues the song's task. Once begun this is brought to its end, even if the caller goes away.
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
        // Kept before it is queued, so that a task that is queued is never unknown.
        if let Err(error) = files
            .put_record(&task_uuid, TaskRecord::new(now, None).to_json())
            .await
        {
            return Err(storage_problem(&error));
        }
        let task = Task::new(task_uuid.clone(), self.audio_path.clone(), hook_url, now);
        let place = match self.intake.queue.publish(&task, trace).await {
            Ok(place) => place,
            Err(error) => {
                // A processor may have the task already: its song has to stay, and so has the record of it.
                self.removed_when_dropped = matches!(error, QueueError::NotQueued(_));
                return Err(queue_problem(&task_uuid, &error));
            }
        };
        self.removed_when_dropped = false;
        tracing::info!(
            %task_uuid,
            partition = place.partition,
            offset = place.offset,
            trace_id = trace.trace_id(),
            "Task queued"
        );
        let record = TaskRecord::new(now, Some(place)).to_json();
        if let Err(error) = files.put_record(&task_uuid, record).await {
            tracing::warn!(%task_uuid, %error, "The task's place in the queue is not kept");
        }
        Ok(task_uuid)
    }
}

impl Drop for StagedSong {
    fn drop(&mut self) {
        if !self.removed_when_dropped {
            return;
        }
        let (task_uuid, files) = (self.task_uuid.clone(), Arc::clone(&self.intake.files));
        let audio_path = std::mem::take(&mut self.audio_path);
        self.intake.unfinished.spawn(async move {
            let removal = async {
                files.delete_input(&task_uuid, &audio_path).await?;
                files.delete_record(&task_uuid).await
            };
            match tokio::time::timeout(REMOVAL_LIMIT, removal).await {
                Ok(Ok(())) => tracing::info!(%task_uuid, "Song removed that was not queued"),
                Ok(Err(error)) => {
                    tracing::warn!(%task_uuid, %error, "A song that was not queued is still there");
                }
                Err(_) => tracing::warn!(%task_uuid, "A song that was not queued may still be there"),
            }
        });
    }
}

/// The first piece of a song that has one.
async fn begin(song: &mut BoxStream<'_, Result<Bytes, Problem>>) -> Result<Bytes, Problem> {
    while let Some(piece) = song.next().await {
        let piece = piece?;
        if !piece.is_empty() {
            return Ok(piece);
        }
    }
    Err(Problem::new(StatusCode::BAD_REQUEST, "The audio is empty"))
}

fn internal() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
}

fn storage_problem(error: &WorkError) -> Problem {
    tracing::error!(%error, "Song not kept");
    match error.class() {
        ErrorClass::Transient | ErrorClass::Dependency | ErrorClass::TimedOut | ErrorClass::Interrupted => {
            Problem::come_back("The song cannot be stored now; try again later")
        }
        ErrorClass::Permanent | ErrorClass::Bug => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "The song cannot be stored")
        }
    }
}

fn queue_problem(task_uuid: &TaskId, error: &QueueError) -> Problem {
    let cause = match error {
        QueueError::NotQueued(cause) => {
            tracing::error!(%task_uuid, error = %cause, "Task not queued");
            cause
        }
        QueueError::Unknown(cause) => {
            tracing::error!(%task_uuid, error = %cause, "The brokers did not confirm the task; its song is kept");
            return Problem::come_back("The brokers did not confirm the task in time")
                .because("it may be queued; look up its status before posting the song again")
                .of_task(task_uuid.clone());
        }
    };
    match cause.class() {
        ErrorClass::Transient | ErrorClass::Dependency | ErrorClass::TimedOut | ErrorClass::Interrupted => {
            Problem::come_back("The task queue cannot be reached; try again later")
        }
        ErrorClass::Permanent | ErrorClass::Bug => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "Failed to queue the task")
        }
    }
}
