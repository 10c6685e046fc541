//! `separation-worker api`: the HTTP API.

use std::net::SocketAddr;

use anyhow::Context as _;
use clap::Args;
use separation_daemon::Heartbeat;
use tokio::sync::{oneshot, watch};

use super::failure::Failure;
use super::parent::ParentArguments;
use crate::admin::Admin;
use crate::api::{ApiArguments, ApiPlan};
use crate::service::{Activity, Shutdown};
use crate::telemetry::ApiMetrics;

const EXAMPLES: &str = "\
Examples:
  separation-worker api                                # without authentication, on 127.0.0.1:8000
  BASIC_AUTH_PASSWORD=… separation-worker api          # with authentication, on 0.0.0.0:8000
  separation-worker api --s3-staging s3://stems/staging --s3-bucket-name stems
  OUTBOUND_ALLOW=minio.media.svc,10.2.0.0/16 separation-worker api

  curl -u admin -F audio=@song.mp3 http://localhost:8000/tasks
  curl http://localhost:8000/openapi.json

Exit codes: 0 graceful shutdown after a signal, 1 runtime error, 2 invalid arguments, 130 aborted by a second signal.
The first signal lets running requests finish (at most 30 s), a second one ends the program immediately.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ApiCommand {
    #[command(flatten)]
    api: ApiArguments,
    #[command(flatten)]
    parent: ParentArguments,
}

pub(super) fn run(command: &ApiCommand) -> Result<(), Failure> {
    let logs = command.api.logs.settings().context("--log-level");
    logs.map_err(Failure::Usage)?.start();
    let plan = ApiPlan::new(&command.api)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start a runtime")?;
    let heartbeat = Heartbeat::default();
    let serving = serve(plan, command.api.admin_addr, command.parent, heartbeat.clone());
    let served = runtime.block_on(heartbeat.during(serving));
    // Does not wait for blocking threads of Kafka clients.
    runtime.shutdown_background();
    let shutdown = served?;
    if shutdown.abort.is_cancelled() {
        return Err(Failure::Interrupted);
    }
    Ok(())
}

/// Serves until a shutdown is requested, and returns it.
async fn serve(
    plan: ApiPlan,
    admin_addr: SocketAddr,
    parent: ParentArguments,
    heartbeat: Heartbeat,
) -> anyhow::Result<Shutdown> {
    let shutdown = Shutdown::on_signals().context("cannot catch signals")?;
    parent.follow(&shutdown);
    let metrics = ApiMetrics::new();
    let (activity, watched) = watch::channel(Activity::Starting);
    let admin = Admin {
        activity: watched,
        metrics: metrics.families(),
        holds: metrics.holds().clone(),
        heartbeat,
        shutdown: shutdown.clone(),
    };
    admin.start(admin_addr).await?;
    let drained = shutdown.drain.clone();
    let (ready, started) = oneshot::channel();
    tokio::spawn(async move {
        if started.await.is_ok() {
            activity.send_replace(Activity::Idle);
        }
        drained.cancelled().await;
        activity.send_replace(Activity::Draining { task: None });
    });
    crate::api::run(plan, metrics, shutdown.clone(), ready).await?;
    Ok(shutdown)
}
