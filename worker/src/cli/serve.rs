//! Shared by `processor` and `uploader`: settings, logs, the admin endpoint and the service loop.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use futures_util::future::join;
use separation_contract::backoff::Backoff;
use separation_contract::environment as env;
use separation_daemon::{Heartbeat, LogArguments};
use tokio::runtime::{self, Runtime};
use tokio::sync::watch;

use super::failure::Failure;
use super::parent::ParentArguments;
use crate::admin::Admin;
use crate::kafka::{Consumer, Producer, ensure_topics, start_tokens_of_service};
use crate::model_store::ModelStoreError;
use crate::processor::ModelError;
use crate::service::{Activity, Exit, Service, Shutdown};
use crate::settings::{ConsumedRole, ConsumerArguments, ConsumerSettings, KafkaArguments, KafkaSettings};
use crate::storage::StorageError;
use crate::telemetry::Metrics;
use crate::work::{Dependency, HoldableStep, Role, WorkError};

/// Time that a graceful shutdown waits for a model that is loading; large models take ten seconds.
const LOADING_LIMIT: Duration = Duration::from_secs(30);

/// Pauses before a start that a dependency prevented is retried.
const START_BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(10),
};

/// Time that a shutdown waits for the separation of a task that it left to another worker: 3.5 s with the limits of the
/// service, 1 s to leave the group and 1 s to close the producer.
const AFTER_RELEASE_LIMIT: Duration = Duration::from_millis(1_500);

/// Time that an abort waits for a separation to stop.
const ABORT_LIMIT: Duration = Duration::from_secs(1);

/// Options of every role that consumes messages.
#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    #[command(flatten)]
    kafka: KafkaArguments,
    #[command(flatten)]
    consumer: ConsumerArguments,
    /// Address of the admin endpoint (live, ready, metrics, drain); port 0 selects any free port
    #[arg(long, env = env::ADMIN_ADDR, default_value = "0.0.0.0:8081", value_name = "ADDRESS")]
    admin_addr: SocketAddr,
    #[command(flatten)]
    parent: ParentArguments,
    #[command(flatten)]
    logs: LogArguments,
}

/// Validated settings and the runtime, ready to serve a role.
pub(super) struct Serving {
    kafka: KafkaSettings,
    consumer: ConsumerSettings,
    admin_addr: SocketAddr,
    parent: ParentArguments,
    runtime: Runtime,
    shutdown: Shutdown,
    progress: watch::Sender<()>,
}

impl ServeArguments {
    /// Validates the options, starts logging, and installs signal handlers before the first line is logged. `drain` is
    /// the longest time that a running task may take after a shutdown request, if it is limited.
    pub(super) fn begin(&self, role: ConsumedRole, drain: Option<Duration>) -> Result<Serving, Failure> {
        let kafka = self.kafka.settings()?;
        let mut consumer = self.consumer.settings(role)?;
        if let Some(drain) = drain {
            consumer = consumer.with_drain(drain)?;
        }
        let logs = self.logs.settings().context("LOG_LEVEL is invalid");
        logs.map_err(Failure::Usage)?.start();
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        let shutdown = runtime.block_on(async { Shutdown::on_signals() });
        let shutdown = shutdown.context("cannot catch signals")?;
        // The Debug output of these types contains no secrets.
        tracing::info!(?kafka, ?consumer, admin_addr = %self.admin_addr, "Settings");
        Ok(Serving {
            kafka,
            consumer,
            admin_addr: self.admin_addr,
            parent: self.parent,
            runtime,
            shutdown,
            progress: watch::Sender::new(()),
        })
    }
}

impl Serving {
    /// The consumer group.
    pub(super) fn group(&self) -> &str {
        &self.consumer.group
    }

    /// Where the creation of the role sends when a dependency responds, before it is complete: a hold ends then.
    pub(super) fn progress(&self) -> watch::Sender<()> {
        self.progress.clone()
    }

    /// Creates the role and serves until a shutdown is requested, which may also happen while the role is created.
    pub(super) fn run<R: Role>(self, make: impl AsyncFn() -> anyhow::Result<R>) -> Result<(), Failure> {
        let heartbeat = Heartbeat::default();
        let served = heartbeat.during(self.serve(make, heartbeat.clone()));
        let exit = self.runtime.block_on(served)?;
        // A process that exits while ONNX Runtime loads or runs a model on a thread may crash.
        self.runtime.shutdown_timeout(match exit {
            Exit::Drained => LOADING_LIMIT,
            Exit::Released => AFTER_RELEASE_LIMIT,
            Exit::Aborted => ABORT_LIMIT,
        });
        match exit {
            Exit::Drained | Exit::Released => {
                tracing::info!("{} shutdown complete", R::NAME);
                Ok(())
            }
            Exit::Aborted => Err(Failure::Interrupted),
        }
    }

    async fn serve<R: Role>(
        &self,
        make: impl AsyncFn() -> anyhow::Result<R>,
        heartbeat: Heartbeat,
    ) -> anyhow::Result<Exit> {
        let shutdown = &self.shutdown;
        self.parent.follow(shutdown);
        let metrics = Metrics::new();
        let (activity, watched) = watch::channel(Activity::Starting);
        let admin = Admin {
            activity: watched,
            metrics: metrics.families(),
            holds: metrics.holds().clone(),
            heartbeat,
            shutdown: shutdown.clone(),
        };
        admin.start(self.admin_addr).await?;
        let role = tokio::select! {
            (role, ()) = join(
                create_role(&metrics, &self.progress, make),
                start_tokens_of_service(&self.kafka),
            ) => role?,
            () = shutdown.drain.cancelled() => {
                activity.send_replace(Activity::Stopped);
                shutdown.wait_for_drain_client().await;
                return Ok(Exit::Drained);
            }
        };
        let consumer = &self.consumer;
        let producer = Producer::new(&self.kafka).context("cannot create a Kafka producer")?;
        let joined = Consumer::join(&self.kafka, consumer, metrics.clone())
            .context("cannot create a Kafka consumer")?;
        // In the background: with unreachable brokers or without the permission to create topics, messages can still
        // be consumed later, and publishing reports a missing topic.
        let (kafka, settings) = (self.kafka.clone(), consumer.clone());
        tokio::spawn(async move {
            if let Err(error) = ensure_topics(&kafka, &settings).await {
                tracing::warn!(%error, "Cannot check or create the topics to publish to");
            }
        });
        tracing::info!(
            group = consumer.group,
            topic = consumer.topic,
            "{} started",
            R::NAME
        );
        let service = Service {
            role: Arc::new(role),
            consumer: joined,
            producer,
            settings: self.consumer.clone(),
            metrics,
            activity,
        };
        let exit = service.run(shutdown).await?;
        shutdown.wait_for_drain_client().await;
        Ok(exit)
    }
}

/// Creates the role; retries while a dependency refuses or fails.
async fn create_role<R>(
    metrics: &Metrics,
    progress: &watch::Sender<()>,
    make: impl AsyncFn() -> anyhow::Result<R>,
) -> anyhow::Result<R> {
    let mut start = HoldableStep::new(metrics.holds(), "start");
    let mut failures = 0;
    loop {
        // Of this attempt only.
        let mut progressed = progress.subscribe();
        let mut making = pin!(make());
        let made = loop {
            tokio::select! {
                made = &mut making => break made,
                Ok(()) = progressed.changed() => start.progressed(),
            }
        };
        let error = match made {
            Ok(role) => return Ok(role),
            Err(error) => error,
        };
        let Some(dependency) = dependency_of(&error) else {
            return Err(error);
        };
        start.failed(&WorkError::held(dependency, format!("{error:#}")), Instant::now());
        failures += 1;
        tokio::time::sleep(START_BACKOFF.after(failures)).await;
    }
}

/// The dependency that refused or failed while a role was created, if one is the cause.
pub(super) fn dependency_of(error: &anyhow::Error) -> Option<Dependency> {
    let storage = error.downcast_ref().and_then(StorageError::dependency);
    let model = || error.downcast_ref().and_then(ModelError::dependency);
    let download = || error.downcast_ref().and_then(ModelStoreError::dependency);
    storage.or_else(model).or_else(download)
}
