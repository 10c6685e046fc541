//! The model of a processor: loaded from this machine, or downloaded first.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::watch;

use super::download_display::text;
use super::failure::Failure;
use super::model_source::no_directory;
use crate::locations::Locations;
use crate::model::ModelChoice;
use crate::model_store::{DownloadProgress, ModelStore, ModelStoreError};
use crate::onnx::RuntimeOptions;
use crate::outbound;
use crate::processor::{ModelError, Separation};
use crate::settings::{
    ModelAddress, ModelArguments, ModelLocation, ModelReference, OutboundArguments, S3Settings,
};
use crate::storage::S3;

/// Interval between log lines about a download.
const PROGRESS_PERIOD: Duration = Duration::from_secs(10);

/// The model to load, and everything that this needs.
pub(super) struct ProcessorModel<'a> {
    source: Source,
    locations: Locations,
    runtime: RuntimeOptions,
    s3: &'a S3Settings,
    outbound: &'a OutboundArguments,
}

#[derive(Debug)]
enum Source {
    Local(ModelChoice),
    Address {
        address: ModelAddress,
        parameters: Option<PathBuf>,
        cache: PathBuf,
    },
}

impl<'a> ProcessorModel<'a> {
    /// Validates the options.
    pub(super) fn new(
        arguments: &ModelArguments,
        s3: &'a S3Settings,
        outbound: &'a OutboundArguments,
    ) -> Result<Self, Failure> {
        let locations = arguments.directories().locations();
        let source = match arguments.reference()? {
            ModelReference::Local(choice) => Source::Local(choice),
            ModelReference::Address { address, parameters } => Source::Address {
                address,
                parameters,
                cache: locations.models_dir.clone().ok_or_else(no_directory)?,
            },
        };
        Ok(Self {
            source,
            locations,
            runtime: arguments.runtime(),
            s3,
            outbound,
        })
    }

    /// Logs the settings.
    pub(super) fn log(&self) {
        let (model, runtime) = (&self.source, self.runtime);
        tracing::info!(?model, ?runtime, "Settings of the model");
    }

    /// Loads the model. Sends to `progress` when the server of its address begins to send it.
    pub(super) async fn load(&self, progress: &watch::Sender<()>) -> anyhow::Result<Separation> {
        let choice = match &self.source {
            Source::Local(choice) => choice.clone(),
            Source::Address {
                address,
                parameters,
                cache,
            } => ModelChoice::File {
                model: self
                    .download(address, parameters.as_deref(), cache, progress)
                    .await?,
                parameters: parameters.clone(),
            },
        };
        let (runtime, locations) = (self.runtime, self.locations.clone());
        let loading = {
            let choice = choice.clone();
            tokio::task::spawn_blocking(move || Separation::load(&choice, runtime, &locations))
        };
        let loaded = loading.await.context("loading the model panicked")?;
        let separation = loaded.map_err(|error| self.explain(error))?;
        let model = separation.provenance();
        tracing::info!(
            name = model.name.as_deref().unwrap_or("unknown"),
            license = model.license.as_deref().unwrap_or("unknown"),
            author = model.source.as_deref().unwrap_or("unknown"),
            sha256 = model.sha256,
            "Model loaded"
        );
        if let Some(memory) = separation.memory() {
            let (bytes, chunk_frames, batch) = (memory.bytes, memory.chunk_frames, memory.batch);
            tracing::info!(bytes, chunk_frames, batch, "Memory of separations is limited");
        }
        if let Some(warning) = choice.warning(&model.sha256) {
            tracing::warn!("{warning}");
        }
        Ok(separation)
    }

    /// The parameters of a model at an address are missing there, not in the cache.
    fn explain(&self, error: ModelError) -> anyhow::Error {
        let missing = match (&error, &self.source) {
            (ModelError::Load(error), Source::Address { address, .. }) => {
                ModelStoreError::no_parameters(&address.location, error, "store them there")
            }
            _ => None,
        };
        missing.map_or_else(|| error.into(), Into::into)
    }

    async fn download(
        &self,
        address: &ModelAddress,
        parameters: Option<&Path>,
        cache: &Path,
        progress: &watch::Sender<()>,
    ) -> Result<PathBuf, ModelStoreError> {
        let s3 = match &address.location {
            ModelLocation::Object(_) => Some(S3::connect(self.s3).await),
            ModelLocation::Http(_) => None,
        };
        let http = outbound::Client::through_proxies(&self.outbound.outbound_allow);
        let (mut logged_at, mut begins_at, mut is_received) = (None, None, false);
        let mut report = |reported: DownloadProgress| {
            if let DownloadProgress::Receiving { done_bytes, .. } = reported
                && !is_received
                && done_bytes > *begins_at.get_or_insert(done_bytes)
            {
                is_received = true;
                progress.send_replace(());
            }
            let now = Instant::now();
            let is_due = |last: Instant| now.duration_since(last) >= PROGRESS_PERIOD;
            if reported == DownloadProgress::Waiting || logged_at.is_none_or(is_due) {
                logged_at = Some(now);
                tracing::info!(location = %address.location, progress = text(reported), "Downloading the model");
            }
        };
        let store = ModelStore::new(cache.to_owned(), http, s3);
        store.obtain(address, parameters, &mut report).await
    }
}
