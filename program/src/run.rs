//! `separation-operator run`: starts and stops the operator's tasks.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use kube::Config;
use separation_operator::api;
use separation_operator::events::event_writer;
use separation_operator::health::{Health, Heartbeat, Readiness};
use separation_operator::lease::{elector, lease_client};
use separation_operator::metrics::Metrics;
use separation_operator::reconcile::{Operator, WATCHED_KINDS};
use separation_operator::settings::{Namespaces, RunArguments, RunSettings};
use separation_operator::watch::WATCH_TIMEOUT;
use separation_operator::watch::cache::Scope;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Time without data after which a connection to the API server is closed: detects a list or a watch that hangs.
/// Watches end by themselves before it.
const READ_TIMEOUT: Duration = WATCH_TIMEOUT.saturating_add(Duration::from_secs(15));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time to write queued events on shutdown.
const EVENT_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

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
        .context("no Kubernetes cluster is configured: no kubeconfig and no service account found")?;
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
        readiness: Readiness::requires(&[WATCHED_KINDS]),
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
        identity: settings.identity,
        events,
        metrics: health.metrics.clone(),
        heartbeat: health.heartbeat.clone(),
        readiness: health.readiness.clone(),
    };
    let mut events = tokio::spawn(write_events.run());
    // Shutdown order: the reconciler, then the lease is released, then the health endpoint.
    let (stop_elector, stop_health) = (CancellationToken::new(), CancellationToken::new());
    let elector = tokio::spawn(elector.run(stop_elector.clone().cancelled_owned()));
    let mut health = tokio::spawn(health.serve(listener, stop_health.clone()));
    let mut signals = tokio::spawn(first_signal());
    // A task that ends unexpectedly ends the process: without it the operator would appear to work and not do so.
    let mut early_end = Ok(());
    let result = operator
        .run(async {
            early_end = tokio::select! {
                signal = &mut signals => signal.context("the task that waits for signals failed").and_then(|signal| signal),
                _ = &mut events => Err(anyhow!("the task that writes events ended")),
                _ = &mut health => Err(anyhow!("the task that serves the health endpoint ended")),
            };
        })
        .await;
    if !events.is_finished() {
        // Queued events are written while this replica still leads, within the limit.
        let _ = tokio::time::timeout(EVENT_FLUSH_TIMEOUT, events).await;
    }
    stop_elector.cancel();
    elector.await.context("the task that renews the lease failed")?;
    stop_health.cancel();
    result?;
    early_end?;
    health.await.context("the health endpoint failed")?;
    tracing::info!("The operator ended");
    Ok(())
}

fn scopes(namespaces: &Namespaces) -> Vec<Scope> {
    match namespaces {
        Namespaces::All => vec![None],
        Namespaces::These(names) => names.iter().map(|name| Some(name.as_str().into())).collect(),
    }
}

/// Waits for SIGTERM or SIGINT; a second one ends the process immediately.
async fn first_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let first = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(
        signal = first,
        "Shutting down: finishing writes, then releasing the lease"
    );
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("Second signal: exiting immediately");
        std::process::exit(130);
    });
    Ok(())
}
