//! `separation-worker processor`: consumes tasks, separates songs, publishes results.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use separation_contract::environment as env;
use tokio::sync::OnceCell;

use super::failure::Failure;
use super::processor_model::ProcessorModel;
use super::serve::ServeArguments;
use crate::processor::Processor;
use crate::settings::{
    ConsumedRole, ModelArguments, OutboundArguments, S3Arguments, ScratchArguments, StagingArguments,
};
use crate::storage::{Finals, S3, Scratch, Staging};
use crate::task_store::TaskStore;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  separation-worker processor --bootstrap-servers kafka:9092
  TEMP_DIR=/shared/songs OUTPUT_DIR=/shared/stems separation-worker processor
  S3_STAGING=s3://media/staging/ S3_ENDPOINT_URL=http://s3:9000 separation-worker processor --provider cuda
  MODEL_URI=s3://media/models/a.onnx MODEL_SHA256=… separation-worker processor

SIGTERM finishes and commits the running task and exits 0; a task that takes longer than --drain-seconds is left for
another worker. A second signal exits immediately and leaves the task for another worker.")]
pub(super) struct ProcessorArguments {
    #[command(flatten)]
    serve: ServeArguments,
    /// Longest time in seconds that a running task may take after a shutdown request; one that needs longer is left to
    /// another worker immediately [default: KAFKA_MAX_POLL_INTERVAL_MS]
    #[arg(long, env = env::DRAIN_SECONDS, value_name = "SECONDS", help_heading = "Messages",
          value_parser = clap::value_parser!(u64).range(1..))]
    drain_seconds: Option<u64>,
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    staging: StagingArguments,
    #[command(flatten)]
    scratch: ScratchArguments,
    #[command(flatten)]
    s3: S3Arguments,
    #[command(flatten)]
    outbound: OutboundArguments,
    /// The longest song of a task of the HTTP API v1, in seconds
    #[arg(long, env = env::MAX_INPUT_SECONDS, default_value = "14400", value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..))]
    max_input_seconds: u64,
}

pub(super) fn run(arguments: &ProcessorArguments) -> Result<(), Failure> {
    let staging = arguments.staging.settings();
    let s3 = arguments.s3.settings()?;
    let model = ProcessorModel::new(&arguments.model, &s3, &arguments.outbound)?;
    let drain = arguments.drain_seconds.map(Duration::from_secs);
    let serving = arguments.serve.begin(ConsumedRole::Processor, drain)?;
    tracing::info!(?staging, "Settings of the processor");
    model.log();
    // Loading a model takes seconds: keep it when another step of the start is retried.
    let loaded = OnceCell::new();
    let progress = serving.progress();
    serving.run(async || {
        crate::faults::point("loading").await;
        let separation = loaded.get_or_try_init(|| model.load(&progress)).await?.clone();
        let store = match staging.uses_s3() || s3.bucket.is_some() {
            true => Some(S3::connect(&s3).await),
            false => None,
        };
        let (finals, tasks) = match (&store, &s3.bucket) {
            (Some(store), Some(_)) => (
                Some(Finals::new(store.clone(), &s3)?),
                Some(TaskStore::new(store.clone(), &s3)?),
            ),
            _ => (None, None),
        };
        let scratch = arguments.scratch.clone();
        let scratch = tokio::task::spawn_blocking(move || {
            Scratch::open(scratch.scratch_dir.as_deref(), scratch.scratch_limit_bytes)
        });
        let scratch = scratch.await.context("opening the scratch space panicked")??;
        Ok(Processor {
            separation,
            delete_input: staging.delete_input,
            staging: Staging::open(&staging, store).await?,
            finals,
            tasks,
            max_input_seconds: arguments.max_input_seconds,
            scratch,
        })
    })
}
