//! A recording of `kubectl get seppool --watch` while a pool scales up for many songs, and back to zero.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use separation_testbed::{Components, Process, TempDirectory, eventually};
use serde_json::json;

use crate::{Outcome, Pool, PoolOptions, STEP_TIMEOUT, System};

/// Songs, partitions, and processors at most.
const SONGS: u32 = 24;

const SONG_SECONDS: f32 = 60.0;

/// Result of [`record_scale_up`]; times count from the first message.
#[derive(Debug)]
pub struct Recording {
    /// The output of kubectl.
    pub watch: String,
    /// Until the Deployment has a replica for each song.
    pub replicas: Duration,
    /// Until the webhook of the last song arrived.
    pub webhooks: Duration,
    /// Until no pod is left.
    pub no_pods: Duration,
}

/// Publishes 24 songs of a minute at zero pods, for the default model, and waits until the pool is back at zero.
///
/// # Errors
/// If a server does not respond, or a song was lost or separated again.
pub async fn record_scale_up(system: &System) -> Result<Recording> {
    let options = PoolOptions {
        partitions: i32::try_from(SONGS)?,
        processors: SONGS,
        stabilization_seconds: 15,
        change: json!({"processor": {"model": null}}),
        ..PoolOptions::default()
    };
    let pool = Pool::create(system, "media", options).await?;
    let pods = system.cluster.watch_pods(&pool.namespace);
    let mut tasks = Vec::new();
    for number in 0..SONGS {
        tasks.push(pool.stage(SONG_SECONDS, number.into()).await?);
    }
    let directory = TempDirectory::new()?;
    let (output, log) = (directory.join("output"), directory.join("log"));
    let kubectl = Process::start("kubectl", &watch_pools(system, &pool)?, &output, &log)?;
    let watched = || fs::read_to_string(&output).context("cannot read the output of kubectl");
    eventually("the first row", STEP_TIMEOUT, async || {
        ensure!(watched()?.lines().count() >= 2, "{}", kubectl.log_end());
        anyhow::Ok(true)
    })
    .await;

    let published = Instant::now();
    for (number, task) in (0..).zip(&tasks) {
        pool.publish(task, number).await?;
    }
    let deployment = format!(
        "/apis/apps/v1/namespaces/{}/deployments/vocals-processor",
        pool.namespace
    );
    let replicas = eventually("a replica for each song", STEP_TIMEOUT, async || {
        let replicas = system.cluster.get(&deployment).await?["spec"]["replicas"].take();
        ensure!(replicas == SONGS, "there are {replicas}");
        anyhow::Ok(Some(published.elapsed()))
    })
    .await;
    let tasks = BTreeSet::from_iter(tasks);
    pool.wait_for_all_webhooks(&tasks).await;
    let webhooks = published.elapsed();
    pool.wait_until_no_pods(&pods).await;
    let no_pods = published.elapsed();
    let outcome = Outcome::read(&pool, &tasks, &pods).await?;
    let is_good = outcome.lost.is_empty() && outcome.repeated.is_empty();
    ensure!(is_good, "{outcome:?}\n{}", pool.log_text());
    Ok(Recording {
        watch: watched()?,
        replicas,
        webhooks,
        no_pods,
    })
}

/// The documented command.
fn watch_pools(system: &System, pool: &Pool<'_>) -> Result<Command> {
    let mut kubectl = Command::new(Components::kubectl()?);
    kubectl
        .arg("--kubeconfig")
        .arg(system.cluster.kubeconfig())
        .args(["-n", &pool.namespace, "get", "seppool", "--watch"]);
    Ok(kubectl)
}
