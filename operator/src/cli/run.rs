//! `separation-operator run`: what it is made of, from the first signal to the last write.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use kube::Config;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::events::event_writer;
use crate::health::{Health, Heartbeat, Readiness};
use crate::lease::{elector, lease_client};
use crate::metrics::Metrics;
use crate::reconcile::{CLUSTER, Operator};
use crate::settings::{Namespaces, RunArguments, RunSettings};
use crate::watch::LONGEST_WATCH;
use crate::watch::world::Scope;

/// How long a connection to the API server may bring nothing before it is given up: a list or a watch that hangs is
/// noticed within this. Watches end by themselves before it.
const READ_TIMEOUT: Duration = LONGEST_WATCH.saturating_add(Duration::from_secs(15));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long events that wait may take at the end.
const LAST_EVENTS: Duration = Duration::from_secs(2);

/// Runs until a signal.
pub(super) fn run(arguments: &RunArguments) -> anyhow::Result<()> {
    let (settings, logs) = arguments.settings()?;
    logs.start();
    settings.log();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(operate(settings))
}

async fn operate(settings: RunSettings) -> anyhow::Result<()> {
    let identity = settings.lease.identity.clone();
    let mut config = Config::infer()
        .await
        .context("no cluster: neither a kubeconfig nor a service account is there")?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    let (leadership, elector) = elector(
        lease_client(&config).context("cannot use the cluster's configuration")?,
        settings.lease,
    );
    let listener = TcpListener::bind(settings.health_address)
        .await
        .with_context(|| format!("--health-address: cannot listen on {}", settings.health_address))?;
    let health = Health {
        heartbeat: Heartbeat::default(),
        readiness: Readiness::waits_for(&[CLUSTER]),
        metrics: Metrics::new(),
    };
    let client = api::client(&config, leadership.clone(), &health.metrics)
        .context("cannot use the cluster's configuration")?;
    let (events, write_events) = event_writer(client.clone(), identity, &health.metrics);
    let operator = Operator {
        client,
        leadership,
        scopes: scopes(&settings.namespaces),
        workers: settings.workers,
        last_writes: settings.shutdown,
        keep_offsets_after: settings.keep_offsets_after,
        refresh: settings.refresh,
        events,
        metrics: health.metrics.clone(),
        heartbeat: health.heartbeat.clone(),
        readiness: health.readiness.clone(),
    };
    let mut events = tokio::spawn(write_events.run());
    // First the work ends, then the lease is given back, then health is no longer answered.
    let (work_ended, health_ends) = (CancellationToken::new(), CancellationToken::new());
    let elector = tokio::spawn(elector.run(work_ended.clone().cancelled_owned()));
    let mut health = tokio::spawn(health.serve(listener, health_ends.clone()));
    let mut signals = tokio::spawn(signalled());
    // A task that ends before its time ends the process: without it the operator would only seem to work.
    let mut early = Ok(());
    let worked = operator
        .run(async {
            early = tokio::select! {
                signal = &mut signals => signal.context("the task that waits for signals failed").and_then(|signal| signal),
                _ = &mut events => Err(anyhow!("the task that writes events ended")),
                _ = &mut health => Err(anyhow!("the task that answers health checks ended")),
            };
        })
        .await;
    if !events.is_finished() {
        // Queued events are written while this replica still leads, if that is soon.
        let _ = tokio::time::timeout(LAST_EVENTS, events).await;
    }
    work_ended.cancel();
    elector.await.context("the task that keeps the lease failed")?;
    health_ends.cancel();
    worked?;
    early?;
    health.await.context("the health endpoint failed")?;
    tracing::info!("The operator ended");
    Ok(())
}

/// What is watched.
fn scopes(namespaces: &Namespaces) -> Vec<Scope> {
    match namespaces {
        Namespaces::All => vec![None],
        Namespaces::These(names) => names.iter().map(|name| Some(name.as_str().into())).collect(),
    }
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
