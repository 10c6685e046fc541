//! From messages to replicas.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use kube::runtime::watcher;
use serde_json::{Value, json};

use super::{Bench, TIMEOUT, pool};
use separation_testbed::eventually;

const PARTITIONS: i32 = 24;

pub(super) async fn measure(bench: &Bench, rounds: usize, poll_seconds: u32) -> Result<Value> {
    bench.kafka.create_topic("tasks-vocals", PARTITIONS).await?;
    bench.kafka.create_topic("results", 1).await?;
    let scaling = json!({
        "maxReplicas": 100,
        "lagCheckPeriodSeconds": poll_seconds,
        // Only the scale-up is measured.
        "scaleDown": {"stabilizationWindowSeconds": 0},
    });
    let period = f64::from(poll_seconds);
    bench
        .apply(&pool("vocals", &bench.kafka.bootstrap(), &scaling))
        .await?;
    let operator = bench.start("operator")?;
    bench.until_adopted("vocals").await;
    let mut milliseconds = Vec::new();
    let mut numbers_written = Vec::new();
    // The first round opens our own connections.
    measure_once(bench).await?;
    commit_all(bench).await?;
    for round in 0..rounds {
        // Rounds begin anywhere between two readings: steps of the golden ratio of the interval.
        let phase = (round as f64 * 0.618_034).fract() * period;
        // Outside the cooldown after the last change.
        tokio::time::sleep(Duration::from_secs_f64(period + phase)).await;
        let (took, written) = measure_once(bench).await?;
        milliseconds.push(took.as_secs_f64() * 1e3);
        numbers_written.push(written);
        commit_all(bench).await?;
    }
    drop(operator);
    Ok(
        json!({"poll_seconds": poll_seconds, "milliseconds": milliseconds, "numbers_written": numbers_written}),
    )
}

/// Publishes one message to each partition. Returns the time until all replicas are written, and each number that was
/// written meanwhile.
async fn measure_once(bench: &Bench) -> Result<(Duration, Vec<i32>)> {
    let events = watcher(
        bench.deployments(),
        watcher::Config::default().fields("metadata.name=vocals-processor"),
    );
    let mut events = Box::pin(events);
    // The watch has started, so that no change is missed.
    while !matches!(events.try_next().await?, Some(watcher::Event::InitDone)) {}
    let start = Instant::now();
    let publishing = stream::iter(0..PARTITIONS)
        .map(|partition| bench.kafka.publish_to("tasks-vocals", partition, "key", "{}"))
        .buffer_unordered(PARTITIONS as usize)
        .try_collect::<Vec<_>>();
    let watching = async {
        let mut written = Vec::new();
        while let Some(event) = events.try_next().await? {
            let watcher::Event::Apply(deployment) = event else {
                continue;
            };
            let replicas = deployment.spec.replicas.unwrap_or(0);
            if written.last() != Some(&replicas) {
                written.push(replicas);
            }
            if replicas == PARTITIONS {
                break;
            }
        }
        anyhow::Ok((start.elapsed(), written))
    };
    let (published, watched) = tokio::join!(publishing, tokio::time::timeout(TIMEOUT, watching));
    published?;
    watched?
}

/// Commits all messages, as workers would.
async fn commit_all(bench: &Bench) -> Result<()> {
    let lag = bench.kafka.lag("processors-vocals", "tasks-vocals").await?;
    let ends: Vec<i64> = lag.iter().map(|partition| partition.end).collect();
    bench
        .kafka
        .commit("processors-vocals", "tasks-vocals", &ends)
        .await?;
    eventually("no replicas", TIMEOUT, async || {
        Ok::<_, anyhow::Error>(bench.replicas("vocals").await? == Some(0))
    })
    .await;
    Ok(())
}
