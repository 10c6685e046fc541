//! `separation-worker uploader`: consumes results, uploads stems, calls webhooks.

use anyhow::Context as _;
use clap::Args;
use separation_contract::environment as env;

use super::failure::Failure;
use super::serve::ServeArguments;
use crate::outbound;
use crate::settings::{ConsumedRole, OutboundArguments, S3Arguments, StagingArguments, WebhookArguments};
use crate::storage::{Finals, S3, Staging};
use crate::uploader::Uploader;
use crate::webhook::{Signer, Webhook};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  S3_BUCKET_NAME=stems S3_ENDPOINT_URL=http://s3:9000 separation-worker uploader --bootstrap-servers kafka:9092
  WEBHOOK_SECRET=whsec_… separation-worker uploader     # receivers can verify webhooks
  OUTBOUND_ALLOW=hooks.internal,10.0.0.0/8 separation-worker uploader

SIGTERM finishes and commits the running upload and exits 0; a second one exits immediately and leaves the result for
another worker.")]
pub(super) struct UploaderArguments {
    #[command(flatten)]
    serve: ServeArguments,
    #[command(flatten)]
    staging: StagingArguments,
    #[command(flatten)]
    s3: S3Arguments,
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
    let serving = arguments.serve.begin(ConsumedRole::Uploader)?;
    tracing::info!(
        ?staging,
        ?s3,
        signatures_of_webhooks = signers.len(),
        "Settings of the uploader"
    );
    serving.run(async || {
        let store = S3::connect(&s3).await;
        let staging = Staging::open(&staging, Some(store.clone())).await?;
        let finals = Finals::new(store, &s3)?;
        let client = outbound::Client::new(&arguments.outbound.outbound_allow);
        Ok(Uploader::new(
            staging,
            finals,
            Webhook::new(client, signers.clone()),
        ))
    })
}
