//! `separation-operator run`: what it is made of, from the first signal to the last write.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use kube::Config;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::health::{Health, Heartbeat, Readiness};
use crate::lease::{elector, fenced_client, lease_client};
use crate::metrics::Metrics;
use crate::reconcile::{CLUSTER, Operator};
use crate::settings::{LeaseArguments, WorkerArguments};
use crate::watch::world::Scope;

/// How long one request to the API server may take.
const READ_TIMEOUT: Duration = Duration::from_secs(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  separation-operator run --worker-image registry.example/separation-worker:1.0
  separation-operator run --worker-image w:1 --watch-namespaces media,lab --lease-namespace media")]
pub(super) struct RunArguments {
    /// Namespaces whose pools are looked after, comma separated; all of them when empty
    #[arg(
        long,
        env = "WATCH_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAMESPACES"
    )]
    watch_namespaces: Vec<String>,
    /// Where /healthz, /readyz and /metrics are answered
    #[arg(
        long,
        env = "HEALTH_ADDR",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8080"
    )]
    health_addr: SocketAddr,
    /// After how many seconds the offsets of a group without workers are committed again, so that brokers do not forget
    /// them (offsets.retention.minutes, a week by default)
    #[arg(
        long,
        env = "KEEP_OFFSETS_SECONDS",
        value_name = "SECONDS",
        default_value = "21600",
        value_parser = clap::value_parser!(u64).range(1..=604_800)
    )]
    keep_offsets_seconds: u64,
    #[command(flatten)]
    workers: WorkerArguments,
    #[command(flatten)]
    lease: LeaseArguments,
}

/// Runs until a signal.
pub(super) fn run(arguments: &RunArguments) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,kube=warn".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(operate(arguments))
}

async fn operate(arguments: &RunArguments) -> anyhow::Result<()> {
    let lease = arguments.lease.settings()?;
    let mut config = Config::infer()
        .await
        .context("no cluster: neither a kubeconfig nor a service account is there")?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    let (leadership, elector) = elector(
        lease_client(&config).context("cannot use the cluster's configuration")?,
        lease.clone(),
    );
    let client =
        fenced_client(&config, leadership.clone()).context("cannot use the cluster's configuration")?;
    let listener = TcpListener::bind(arguments.health_addr)
        .await
        .with_context(|| format!("--health-addr: cannot listen on {}", arguments.health_addr))?;
    let health = Health {
        heartbeat: Heartbeat::default(),
        readiness: Readiness::waits_for(&[CLUSTER]),
        metrics: Metrics::new(),
    };
    let operator = Operator {
        client,
        leadership,
        scopes: scopes(&arguments.watch_namespaces)?,
        workers: arguments.workers.settings(),
        keep_offsets_after: Duration::from_secs(arguments.keep_offsets_seconds),
        metrics: health.metrics.clone(),
        heartbeat: health.heartbeat.clone(),
        readiness: health.readiness.clone(),
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        identity = lease.identity,
        namespaces = ?arguments.watch_namespaces,
        worker_image = operator.workers.image,
        "The operator starts"
    );
    // First the work ends, then the lease is given back, then nobody is told anything any more.
    let (stop, stopping) = watch::channel(Stage::Working);
    let elector = tokio::spawn(elector.run(reached(stopping.clone(), Stage::WorkEnded)));
    let health = tokio::spawn(health.serve(listener, reached(stopping.clone(), Stage::LeaseGivenBack)));
    let signals = tokio::spawn(signalled());
    operator
        .run(async {
            // A task that panicked is a signal too: nothing would end this process in order any more.
            let _ = signals.await;
        })
        .await;
    let _ = stop.send(Stage::WorkEnded);
    elector.await.context("the task that keeps the lease failed")?;
    let _ = stop.send(Stage::LeaseGivenBack);
    health
        .await
        .context("the health endpoint failed")?
        .context("the health endpoint failed")?;
    tracing::info!("The operator ended");
    Ok(())
}

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Working,
    WorkEnded,
    LeaseGivenBack,
}

async fn reached(mut stages: watch::Receiver<Stage>, stage: Stage) {
    // A sender that is gone means the end too.
    let _ = stages.wait_for(|now| *now >= stage).await;
}

/// What is watched.
fn scopes(namespaces: &[String]) -> anyhow::Result<Vec<Scope>> {
    let named: BTreeSet<&str> = namespaces
        .iter()
        .map(|name| name.trim())
        .filter(|name| !name.is_empty())
        .collect();
    if named.is_empty() {
        return Ok(vec![None]);
    }
    let is_name = |name: &&str| {
        name.len() <= 63
            && name
                .chars()
                .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
    };
    if let Some(wrong) = named.iter().find(|name| !is_name(name)) {
        bail!("--watch-namespaces: {wrong:?} is no namespace; fix: list names, comma separated");
    }
    Ok(named.into_iter().map(|name| Some(name.into())).collect())
}

/// Waits for SIGTERM or SIGINT; a second one ends the process at once.
async fn signalled() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let first = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(
        signal = first,
        "Told to end: writes that were begun end, then the lease is given back"
    );
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("Told to end again: at once");
        std::process::exit(130);
    });
    Ok(())
}
