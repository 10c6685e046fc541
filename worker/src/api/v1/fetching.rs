//! Fetches the song of a task from its link or its upload, checks it, and stages it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use separation_contract::message::TaskId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::traits::TaskFiles;
use super::audio_check::{self, UnacceptableSong};
use crate::outbound::{Client, DownloadLimits, OutboundError};
use crate::storage::StorageError;
use crate::task_store::{InputSource, StoredTask, TaskStore};
use crate::work::WorkError;

/// Fetches and stages songs.
pub(in crate::api) struct Fetcher {
    pub(in crate::api) store: TaskStore,
    pub(in crate::api) files: Arc<dyn TaskFiles>,
    pub(in crate::api) outbound: Client,
    /// Limits of one song.
    pub(in crate::api) limits: DownloadLimits,
    /// The longest song, in seconds.
    pub(in crate::api) max_input_seconds: u64,
}

/// Why a song was not staged.
#[derive(Debug, thiserror::Error)]
pub(super) enum SongError {
    #[error("the song cannot be fetched")]
    Link(#[from] OutboundError),
    #[error("the upload does not exist")]
    NoUpload,
    #[error("the upload is larger than {0} bytes")]
    LargeUpload(u64),
    #[error("the upload cannot be read")]
    Upload(#[source] StorageError),
    #[error(transparent)]
    Unacceptable(#[from] UnacceptableSong),
    #[error("the song cannot be staged")]
    Staging(#[source] WorkError),
    #[error("the task ended, or this process is shutting down")]
    Stopped,
}

impl SongError {
    fn of_upload(error: StorageError) -> Self {
        match error {
            StorageError::Missing { .. } => Self::NoUpload,
            StorageError::TooLarge { limit_bytes, .. } => Self::LargeUpload(limit_bytes),
            other => Self::Upload(other),
        }
    }
}

impl Fetcher {
    /// Stages the song of a task, until `stop`. A link is fetched until `deadline`.
    pub(super) async fn stage(
        &self,
        task: &StoredTask,
        deadline: Instant,
        stop: &CancellationToken,
    ) -> Result<(), SongError> {
        let song: BoxStream<'_, Result<Bytes, SongError>> = match &task.input.source {
            // Staged before the record was stored.
            InputSource::File => return Ok(()),
            InputSource::Url(url) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let limits = DownloadLimits {
                    total: left.max(self.limits.idle),
                    ..self.limits
                };
                let download = tokio::select! {
                    download = self.outbound.get(url, limits) => download?,
                    () = stop.cancelled() => return Err(SongError::Stopped),
                };
                download.into_stream().map_err(SongError::Link).boxed()
            }
            InputSource::Upload => {
                let max_bytes = self.limits.max_bytes;
                let song = self.store.open_upload(&task.client, &task.id, max_bytes).await;
                let song = song.map_err(SongError::of_upload)?;
                song.map_err(SongError::of_upload).boxed()
            }
        };
        let song = until_stopped(song, stop);
        let checked = audio_check::check(song, self.max_input_seconds).await?;
        self.store_song(&task.id, checked.song).await
    }

    async fn store_song(
        &self,
        id: &TaskId,
        song: BoxStream<'_, Result<Bytes, SongError>>,
    ) -> Result<(), SongError> {
        // The storage reports an error of the stream as its own: the stream keeps it.
        let failure = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&failure);
        let pieces = song.map_err(move |error| {
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            io::Error::other("the song ended early")
        });
        let max_bytes = self.limits.max_bytes;
        let stored = self.files.put_input(id, pieces.boxed(), max_bytes).await;
        stored.map(drop).map_err(|error| {
            let failure = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
            failure.unwrap_or(SongError::Staging(error))
        })
    }
}

/// The song; ends with an error at `stop`. The store then discards what it has of it.
fn until_stopped<'s>(
    song: BoxStream<'s, Result<Bytes, SongError>>,
    stop: &'s CancellationToken,
) -> BoxStream<'s, Result<Bytes, SongError>> {
    let pieces = stream::unfold(Some(song), move |song| async move {
        let mut song = song?;
        tokio::select! {
            piece = song.next() => piece.map(|piece| (piece, Some(song))),
            () = stop.cancelled() => Some((Err(SongError::Stopped), None)),
        }
    });
    pieces.boxed()
}
