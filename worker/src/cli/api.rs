//! `separation-worker api`: the HTTP API.

use anyhow::Context as _;
use clap::Args;

use super::Failure;
use crate::api::{ApiArguments, ApiPlan};
use crate::service::Shutdown;
use crate::telemetry::Metrics;

const EXAMPLES: &str = "\
Examples:
  separation-worker api                                # for this machine alone, on 127.0.0.1:8000
  BASIC_AUTH_PASSWORD=… separation-worker api          # for everybody who knows it, on 0.0.0.0:8000
  separation-worker api --s3-staging s3://stems/staging --s3-bucket-name stems
  OUTBOUND_ALLOW=minio.media.svc,10.2.0.0/16 separation-worker api

  curl -u admin -F audio=@song.mp3 http://localhost:8000/tasks
  curl http://localhost:8000/openapi.json

Exit codes: 0 ended by a signal and in order, 1 it could not start, 2 the arguments cannot be met. The first signal lets
running requests end (30 s at most), a second one ends the program at once.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ApiCommand {
    #[command(flatten)]
    api: ApiArguments,
}

pub(super) fn run(command: &ApiCommand) -> Result<(), Failure> {
    command
        .api
        .logs
        .start()
        .context("--log-level")
        .map_err(Failure::Usage)?;
    let plan = ApiPlan::new(&command.api).map_err(|error| Failure::Usage(error.into()))?;
    let runtime = tokio::runtime::Runtime::new()
        .context("cannot start a runtime")
        .map_err(Failure::Work)?;
    let served = runtime.block_on(async {
        let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
        crate::api::run(plan, Metrics::new(), shutdown).await
    });
    // A thread of a client that waits for an answer is not waited for.
    runtime.shutdown_background();
    served.map_err(Failure::Work)
}
