//! Runs the API: connects its dependencies, listens, serves, drains.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use separation_contract::environment as env;
use separation_daemon::Limits;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::traits::TaskQueue;
use super::{ApiArguments, ApiSettings, App, KafkaQueue, StagedFiles};
use crate::kafka::start_tokens_of_service;
use crate::outbound::Client;
use crate::service::Shutdown;
use crate::settings::{KafkaSettings, S3Settings, SettingError, StagingSettings};
use crate::storage::{Finals, S3, Staging};
use crate::task_store::TaskStore;
use crate::telemetry::ApiMetrics;

/// Time limit for running requests after a shutdown signal.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// Time limit for work that outlives its request: queueing a task (30 s in the Kafka client), an attempt to deliver a
/// webhook (15 s), removing a song (10 s).
const FINISH_LIMIT: Duration = Duration::from_secs(35);

/// Time limit for flushing messages that brokers have not confirmed.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// All validated settings of the API.
#[derive(Debug, Clone)]
pub struct ApiPlan {
    api: ApiSettings,
    kafka: KafkaSettings,
    staging: StagingSettings,
    s3: S3Settings,
    outbound: Client,
}

impl ApiPlan {
    /// Validates all options.
    ///
    /// # Errors
    /// When an option is invalid or contradicts another one.
    pub fn new(arguments: &ApiArguments) -> Result<Self, SettingError> {
        Ok(Self {
            api: arguments.settings()?,
            kafka: arguments.kafka.settings()?,
            staging: arguments.staging.settings(),
            s3: arguments.s3.settings()?,
            outbound: Client::new(&arguments.outbound.outbound_allow),
        })
    }
}

/// Runs the API until `shutdown`. Sends on `listens` once the API accepts connections.
///
/// # Errors
/// When it cannot start, or Kafka accepted it once and has since refused it for too long.
pub async fn run(
    plan: ApiPlan,
    metrics: ApiMetrics,
    shutdown: Shutdown,
    listens: oneshot::Sender<()>,
) -> anyhow::Result<()> {
    start_tokens_of_service(&plan.kafka).await;
    let queue = KafkaQueue::new(&plan.kafka, &plan.api, metrics.clone());
    let queue = Arc::new(queue.context("cannot create a Kafka client")?);
    let needs_s3 = plan.s3.bucket.is_some() || plan.staging.s3_staging.is_some();
    let s3 = if needs_s3 {
        Some(S3::connect(&plan.s3).await)
    } else {
        None
    };
    let (finals, tasks) = match (&s3, &plan.s3.bucket) {
        (Some(s3), Some(_)) => {
            let finals = Finals::new(s3.clone(), &plan.s3)?;
            (Some(finals), Some(TaskStore::new(s3.clone(), &plan.s3)?))
        }
        _ => {
            tracing::warn!(
                "{} is not set: no task is ever reported as done, and the HTTP API v1 is unavailable",
                env::S3_BUCKET_NAME
            );
            (None, None)
        }
    };
    let staging = Staging::open(&plan.staging, s3)
        .await
        .context("cannot open the staging")?;
    let files = StagedFiles::new(staging, finals);
    let address = plan.api.address;
    let app = App::new(
        plan.api,
        plan.outbound,
        Arc::clone(&queue) as Arc<dyn TaskQueue>,
        Arc::new(files),
        metrics,
    );
    let app = match tasks {
        Some(tasks) => app.with_v1(tasks),
        None => app,
    };
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    // The receiver may be dropped.
    let _ = listens.send(());
    let mut serving = pin!(serve_until(app, listener, shutdown.clone()));
    tokio::select! {
        () = &mut serving => Ok(()),
        refusal = queue.refused_too_long() => {
            tracing::error!(%refusal, "Shutting down after the running requests: Kafka refuses this process");
            shutdown.drain.cancel();
            serving.await;
            Err(refusal.into())
        }
    }
}

/// Serves `app` until it is drained, then finishes in this order: running requests, their unfinished work, the
/// producer. An abort skips the waiting.
pub async fn serve_until(app: App, listener: TcpListener, shutdown: Shutdown) {
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "API listens");
    }
    let ending = async {
        let router = app.router();
        let background = app.run_background(shutdown.drain.clone());
        let serving = separation_daemon::serve(listener, router, Limits::API, shutdown.drain, DRAIN_LIMIT);
        let (is_drained, ()) = tokio::join!(serving, background);
        if !is_drained {
            tracing::warn!(
                limit_s = DRAIN_LIMIT.as_secs(),
                "Requests were still running and were aborted"
            );
        }
        if tokio::time::timeout(FINISH_LIMIT, app.finish()).await.is_err() {
            tracing::warn!("Songs that were not queued may still be staged, and webhooks may be sent again");
        }
        app.close_queue(FLUSH_LIMIT).await;
        tracing::info!("API shutdown complete");
    };
    tokio::select! {
        () = ending => {}
        () = shutdown.abort.cancelled() => {}
    }
}
