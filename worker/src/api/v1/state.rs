//! State of the HTTP API v1 that its handlers and its background work share.

use std::sync::Arc;
use std::time::Duration;

use separation_contract::api_task::AudioFormat;
use tokio::sync::OnceCell;

use super::deliveries::Deliverer;
use super::identity::new_id;
use super::overdue::Overdue;
use super::queueing::Queuer;
use super::settings::V1Settings;
use crate::audio::{Mp3Bitrate, OutputFormat, check_encoder};
use crate::storage::StorageError;
use crate::task_store::TaskStore;

/// State of the HTTP API v1; cheap to clone.
#[derive(Clone)]
pub(in crate::api) struct V1 {
    pub(in crate::api) store: TaskStore,
    pub(in crate::api) settings: Arc<V1Settings>,
    /// Name of this process in claims.
    pub(in crate::api) replica: String,
    pub(in crate::api) queuer: Queuer,
    pub(in crate::api) deliverer: Deliverer,
    pub(in crate::api) overdue: Overdue,
    conditional_writes: Arc<OnceCell<bool>>,
    formats: Arc<OnceCell<Vec<AudioFormat>>>,
    link_origin: Arc<OnceCell<Option<String>>>,
}

impl V1 {
    pub(in crate::api) fn new(
        store: TaskStore,
        settings: Arc<V1Settings>,
        replica: String,
        queuer: Queuer,
        deliverer: Deliverer,
        overdue: Overdue,
    ) -> Self {
        Self {
            store,
            settings,
            replica,
            queuer,
            deliverer,
            overdue,
            conditional_writes: Arc::default(),
            formats: Arc::default(),
            link_origin: Arc::default(),
        }
    }

    /// Whether the store of tasks can create an object only if it does not exist, which an Idempotency-Key needs. The
    /// first call asks the store.
    ///
    /// # Errors
    /// When the store fails.
    pub(in crate::api) async fn has_conditional_writes(&self) -> Result<bool, StorageError> {
        let probe = || async {
            let has = self.store.has_conditional_writes().await?;
            if !has {
                tracing::warn!(
                    "The object store has no conditional writes (If-None-Match): requests with an Idempotency-Key are \
                     refused, and a cancellation and a success of one task may both be reported"
                );
            }
            Ok(has)
        };
        self.conditional_writes.get_or_try_init(probe).await.copied()
    }

    /// The formats that stems can have: mp3 only if this machine can encode it, as the workers' machines then can too.
    pub(in crate::api) async fn formats(&self) -> &[AudioFormat] {
        let probe = || async {
            let mp3 = OutputFormat::Mp3(Mp3Bitrate::Variable);
            // It runs a program.
            let checked = tokio::task::spawn_blocking(move || check_encoder(mp3)).await;
            match checked {
                Ok(Ok(())) => vec![AudioFormat::Wav, AudioFormat::Flac, AudioFormat::Mp3],
                _ => vec![AudioFormat::Wav, AudioFormat::Flac],
            }
        };
        self.formats.get_or_init(probe).await
    }

    /// Origin of the links to which requests for stems are redirected; none if the API sends the stems. The first call
    /// signs a link, because the host may contain the bucket.
    ///
    /// # Errors
    /// When the credentials of the store cannot be loaded.
    pub(in crate::api) async fn link_origin(&self) -> Result<Option<&str>, StorageError> {
        let sign = || async {
            let file = "vocals.wav";
            let link = self
                .store
                .presigned_file(&new_id(), file, file, Duration::from_secs(1))
                .await?;
            Ok(link.map(|link| link.origin().ascii_serialization()))
        };
        self.link_origin.get_or_try_init(sign).await.map(Option::as_deref)
    }
}
