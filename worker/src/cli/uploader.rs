//! `separation-worker uploader`: consumes results, uploads stems, calls webhooks, deletes old files.

use anyhow::Context as _;
use clap::Args;
use separation_contract::environment as env;

use super::failure::Failure;
use super::serve::ServeArguments;
use crate::outbound;
use crate::settings::{
    ConsumedRole, OutboundArguments, RetentionArguments, S3Arguments, ScratchArguments, StagingArguments,
    WebhookArguments,
};
use crate::storage::{Finals, S3, Scratch, Staging, StorageError};
use crate::task_store::TaskStore;
use crate::uploader::{Sweep, Uploader};
use crate::webhook::{Signer, Webhook};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  S3_BUCKET_NAME=stems S3_ENDPOINT_URL=http://s3:9000 separation-worker uploader --bootstrap-servers kafka:9092
  WEBHOOK_SECRET=whsec_… separation-worker uploader     # receivers can verify webhooks
  OUTBOUND_ALLOW=hooks.internal,10.0.0.0/8 separation-worker uploader
  STEMS_RETENTION_DAYS=30 INPUTS_RETENTION_DAYS=7 separation-worker uploader     # deletes old files, once an hour

SIGTERM finishes and commits the running upload and exits 0. A second signal exits immediately and leaves the result
for another worker.")]
pub(super) struct UploaderArguments {
    #[command(flatten)]
    serve: ServeArguments,
    #[command(flatten)]
    staging: StagingArguments,
    #[command(flatten)]
    scratch: ScratchArguments,
    #[command(flatten)]
    s3: S3Arguments,
    #[command(flatten)]
    retention: RetentionArguments,
    #[command(flatten)]
    outbound: OutboundArguments,
    #[command(flatten)]
    webhook: WebhookArguments,
}

pub(super) fn run(arguments: &UploaderArguments) -> Result<(), Failure> {
    let staging = arguments.staging.settings();
    let s3 = arguments.s3.settings()?;
    s3.bucket()?;
    let WebhookArguments {
        webhook_secret,
        webhook_previous_secret,
    } = &arguments.webhook;
    let mut signers = Vec::new();
    for (name, secret) in [
        (env::WEBHOOK_SECRET, webhook_secret),
        (env::WEBHOOK_PREVIOUS_SECRET, webhook_previous_secret),
    ] {
        let signer = secret.as_ref().map(Signer::new).transpose();
        signers.extend(signer.context(name).map_err(Failure::Usage)?);
    }
    let retention = arguments.retention.settings();
    let serving = arguments.serve.begin(ConsumedRole::Uploader, None)?;
    tracing::info!(
        ?staging,
        ?s3,
        ?retention,
        signatures_of_webhooks = signers.len(),
        "Settings of the uploader"
    );
    let group = serving.group().to_owned();
    serving.run(async || {
        let store = S3::connect(&s3).await;
        let staging = Staging::open(&staging, Some(store.clone())).await?;
        let finals = Finals::new(store.clone(), &s3)?;
        let tasks = TaskStore::new(store, &s3)?;
        let scratch = arguments.scratch.clone();
        let scratch = tokio::task::spawn_blocking(move || {
            Scratch::open(scratch.scratch_dir.as_deref(), scratch.scratch_limit_bytes)
        });
        let scratch = scratch.await.context("opening the scratch space panicked")?;
        let report = |error: StorageError| {
            let problem = crate::work::chain(&error);
            tracing::warn!(
                error = problem,
                "Cannot use the scratch directory: no previews of stems are made; fix: set SCRATCH_DIR to a writable \
                 directory"
            );
        };
        let scratch = scratch.map_err(report).ok();
        let client = outbound::Client::new(&arguments.outbound.outbound_allow);
        let webhook = Webhook::new(client, signers.clone());
        let sweep = Sweep::new(staging.clone(), finals.clone(), tasks.clone(), retention, &group);
        tokio::spawn(sweep.run());
        Ok(Uploader::new(staging, finals, webhook, tasks, scratch))
    })
}
