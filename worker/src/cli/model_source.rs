//! The model of a command: an installed one, a file, or one at an address, which is downloaded first.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use clap::Args;

use super::download_display::DownloadDisplay;
use super::failure::Failure;
use crate::engine::CancelToken;
use crate::locations::Locations;
use crate::model::{DEFAULT_MODEL, ModelChoice};
use crate::model_store::{ModelStore, ModelStoreError};
use crate::outbound;
use crate::settings::{
    AddressNames, ModelAddress, ModelDirectories, ModelLocation, ModelReference, OutboundArguments,
    S3ConnectionArguments,
};
use crate::storage::S3;

/// Interval at which a download checks whether it is canceled.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// Options for the model.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(super) struct ModelSourceArguments {
    /// Name of an installed model (`separation-worker models list`), a file, or an address (https://… or s3://bucket/key)
    #[arg(long, value_name = "NAME|FILE|ADDRESS", default_value = DEFAULT_MODEL)]
    model: PathBuf,

    /// SHA-256 of the file at an address
    #[arg(long, value_name = "SHA256")]
    model_sha256: Option<String>,

    /// The model's parameters: a sidecar or UVR's mdx_model_data.json [default: searched next to the model]
    #[arg(long, value_name = "FILE.json")]
    model_data: Option<PathBuf>,

    #[command(flatten)]
    directories: ModelDirectories,

    #[command(flatten)]
    outbound: OutboundArguments,

    #[command(flatten)]
    s3: S3ConnectionArguments,
}

impl ModelSourceArguments {
    pub(super) fn locations(&self) -> Locations {
        self.directories.locations()
    }

    /// The validated model.
    pub(super) fn reference(&self) -> Result<ModelReference, Failure> {
        let (sha256, data) = (self.model_sha256.as_deref(), self.model_data.clone());
        let names = AddressNames::COMMAND;
        let reference = ModelReference::parse(&self.model, sha256, data, &self.directories, names)?;
        if reference == ModelReference::Local(ModelChoice::Builtin) && self.model_data.is_some() {
            let error = anyhow!("--model-data needs a model file; fix: add --model FILE.onnx");
            return Err(Failure::Usage(error));
        }
        Ok(reference)
    }

    /// The model on this machine, downloaded if it is at an address.
    pub(super) fn obtain(
        &self,
        reference: &ModelReference,
        cancel: &CancelToken,
    ) -> Result<ModelChoice, Failure> {
        let (address, parameters) = match reference {
            ModelReference::Local(choice) => return Ok(choice.clone()),
            ModelReference::Address { address, parameters } => (address, parameters),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        let downloaded = runtime.block_on(async {
            tokio::select! {
                downloaded = self.download(address, parameters.as_deref()) => downloaded,
                () = canceled(cancel) => Err(Failure::Interrupted),
            }
        });
        runtime.shutdown_background();
        Ok(ModelChoice::File {
            model: downloaded?,
            parameters: parameters.clone(),
        })
    }

    async fn download(&self, address: &ModelAddress, parameters: Option<&Path>) -> Result<PathBuf, Failure> {
        let directory = self.locations().models_dir.ok_or_else(no_directory)?;
        let s3 = match &address.location {
            ModelLocation::Object(_) => Some(S3::connect(&self.s3.settings()?).await),
            ModelLocation::Http(_) => None,
        };
        let http = outbound::Client::through_proxies(&self.outbound.outbound_allow);
        let store = ModelStore::new(directory, http, s3);
        let display = std::sync::Mutex::new(DownloadDisplay::new(&address.location.to_string()));
        let shown = || display.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut report = |progress| shown().update(progress, Instant::now());
        let mut retrying = |error: &ModelStoreError, pause: Duration| {
            let error = crate::work::chain(error);
            shown().print(&format!("{error}; trying again in {} s", pause.as_secs()));
        };
        let obtained = store
            .obtain_with_retries(address, parameters, &mut report, &mut retrying)
            .await;
        display
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .finish();
        obtained.map_err(|error| {
            // Another address or checksum would help.
            let is_usage = !matches!(error, ModelStoreError::File { .. }) && !error.is_transient();
            match is_usage {
                true => Failure::Usage(error.into()),
                false => Failure::Work(error.into()),
            }
        })
    }
}

/// There is no directory to download into.
pub(super) fn no_directory() -> Failure {
    Failure::Usage(anyhow!(
        "there is no directory for models; fix: set HOME or MODEL_CACHE_DIR"
    ))
}

async fn canceled(cancel: &CancelToken) {
    while !cancel.is_canceled() {
        tokio::time::sleep(CANCEL_POLL).await;
    }
}
