//! What `processor` and `uploader` share: settings, logs, the admin endpoint, and the service loop to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use separation_contract::environment as env;
use separation_daemon::Heartbeat;
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};
use tokio::sync::watch;

use super::Failure;
use super::parent::ParentArguments;
use crate::admin::Admin;
use crate::kafka::{Consumer, Producer, ensure_topics};
use crate::processor::ModelError;
use crate::service::{Activity, Exit, Service, Shutdown};
use crate::settings::{ConsumedRole, ConsumerArguments, ConsumerSettings, KafkaArguments, KafkaSettings};
use crate::storage::StorageError;
use crate::telemetry::{LogsArguments, Metrics};
use crate::work::{HoldableStep, Role, WorkError};

/// How long an orderly end waits for a model that is being loaded; large ones take ten seconds.
const LOADING_LIMIT: Duration = Duration::from_secs(30);

/// Pause before a start that a dependency did not allow is tried again.
const START_PAUSE: Duration = Duration::from_secs(2);

/// How long ending at once waits for a separation to notice.
const ABORT_LIMIT: Duration = Duration::from_secs(1);

/// Options of every role that takes messages.
#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    #[command(flatten)]
    kafka: KafkaArguments,
    #[command(flatten)]
    consumer: ConsumerArguments,
    /// Address of live, ready, metrics and drain; port 0 takes any free one
    #[arg(long, env = env::ADMIN_ADDR, default_value = "0.0.0.0:8081", value_name = "ADDRESS")]
    admin_addr: SocketAddr,
    #[command(flatten)]
    parent: ParentArguments,
    #[command(flatten)]
    logs: LogsArguments,
}

/// What a role is made from, besides its own options.
pub(super) struct Serving {
    kafka: KafkaSettings,
    consumer: ConsumerSettings,
    admin_addr: SocketAddr,
    parent: ParentArguments,
    runtime: Runtime,
    shutdown: Shutdown,
}

impl ServeArguments {
    /// Checks the options together, starts logging, and catches signals before the first line is logged.
    pub(super) fn begin(&self, role: ConsumedRole) -> Result<Serving, Failure> {
        let kafka = self
            .kafka
            .settings()
            .map_err(|error| Failure::Usage(error.into()))?;
        let consumer = self
            .consumer
            .settings(role)
            .map_err(|error| Failure::Usage(error.into()))?;
        self.logs
            .start()
            .context("LOG_LEVEL cannot be read")
            .map_err(Failure::Usage)?;
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot start a runtime")
            .map_err(Failure::Work)?;
        let shutdown = runtime
            .block_on(async { Shutdown::on_signals() })
            .context("cannot catch signals")
            .map_err(Failure::Work)?;
        // Once, and without secrets: these types show none.
        tracing::info!(?kafka, ?consumer, admin_addr = %self.admin_addr, "Settings");
        Ok(Serving {
            kafka,
            consumer,
            admin_addr: self.admin_addr,
            parent: self.parent,
            runtime,
            shutdown,
        })
    }
}

impl Serving {
    /// Makes the role and serves until a shutdown is asked for. A shutdown while the role is made ends it as well.
    pub(super) fn run<R: Role>(self, make: impl AsyncFn() -> anyhow::Result<R>) -> Result<(), Failure> {
        let heartbeat = Heartbeat::default();
        let served = heartbeat.during(self.serve(make, heartbeat.clone()));
        let exit = self.runtime.block_on(served).map_err(Failure::Work)?;
        // A process that ends while ONNX Runtime loads a model or runs it on a thread may crash on its way out.
        self.runtime.shutdown_timeout(match exit {
            Exit::Drained => LOADING_LIMIT,
            Exit::Aborted => ABORT_LIMIT,
        });
        match exit {
            Exit::Drained => {
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
        let listener = TcpListener::bind(self.admin_addr)
            .await
            .with_context(|| format!("cannot listen on ADMIN_ADDR {}", self.admin_addr))?;
        let admin = Admin {
            activity: watched,
            metrics: metrics.families(),
            holds: metrics.holds().clone(),
            heartbeat,
            shutdown: shutdown.clone(),
        };
        tokio::spawn(admin.serve(listener));
        let role = tokio::select! {
            role = available(&metrics, make) => role?,
            () = shutdown.drain.cancelled() => {
                activity.send_replace(Activity::Stopped);
                shutdown.wait_until_heard().await;
                return Ok(Exit::Drained);
            }
        };
        let consumer = &self.consumer;
        let producer = Producer::new(&self.kafka).context("cannot make a Kafka producer")?;
        let joined =
            Consumer::join(&self.kafka, consumer, metrics.clone()).context("cannot make a Kafka consumer")?;
        // Beside the work: with the brokers away, or without the right to create topics, messages can still be taken
        // later, and publishing says what is missing.
        let (kafka, settings) = (self.kafka.clone(), consumer.clone());
        tokio::spawn(async move {
            if let Err(error) = ensure_topics(&kafka, &settings).await {
                tracing::warn!(%error, "Could not make sure that the topics to publish to exist");
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
        shutdown.wait_until_heard().await;
        Ok(exit)
    }
}

/// Makes the role; as long as a dependency refuses or fails, again.
async fn available<R>(metrics: &Metrics, make: impl AsyncFn() -> anyhow::Result<R>) -> anyhow::Result<R> {
    let mut start = HoldableStep::new(metrics.holds(), "start");
    loop {
        let error = match make().await {
            Ok(role) => return Ok(role),
            Err(error) => error,
        };
        let storage = error
            .downcast_ref::<StorageError>()
            .and_then(StorageError::dependency);
        let model = || {
            error
                .downcast_ref::<ModelError>()
                .and_then(ModelError::dependency)
        };
        let Some(dependency) = storage.or_else(model) else {
            return Err(error);
        };
        start.failed(&WorkError::held(dependency, format!("{error:#}")), Instant::now());
        tokio::time::sleep(START_PAUSE).await;
    }
}
