//! Brokers that are away for a while.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use separation_testbed::{Kafka, KafkaOptions, eventually};
use serde_json::{Value, json};

use super::{Bench, PATIENCE, pool};

pub(super) async fn measure(bench: &Bench, away: Duration) -> Result<Value> {
    let other = Kafka::start(KafkaOptions::default()).await?;
    for (kafka, name) in [(&bench.kafka, "here"), (&other, "away")] {
        kafka.create_topic(&format!("tasks-{name}"), 50).await?;
        kafka.create_topic("results", 1).await?;
        let scaling = json!({"maxReplicas": 50, "scaleDownStabilizationSeconds": 0});
        bench.apply(&pool(name, &kafka.bootstrap(), &scaling)).await?;
    }
    let _operator = bench.start("operator")?;
    for name in ["here", "away"] {
        bench.until_adopted(name).await;
    }
    for partition in 0..5 {
        other.publish_to("tasks-away", partition, "key", "{}").await?;
    }
    until(bench, "away", 5).await;

    other.stop_broker(0).await?;
    let stopped = Instant::now();
    let mut healthy_milliseconds = Vec::new();
    let mut least = 5;
    for partition in 0.. {
        if stopped.elapsed() >= away {
            break;
        }
        let begun = Instant::now();
        bench
            .kafka
            .publish_to("tasks-here", partition, "key", "{}")
            .await?;
        until(bench, "here", partition + 1).await;
        healthy_milliseconds.push(begun.elapsed().as_secs_f64() * 1e3);
        least = least.min(bench.replicas("away").await?.unwrap_or(0));
        tokio::time::sleep(Duration::from_millis(1_300)).await;
    }
    ensure!(least == 5, "replicas were lowered to {least}");
    other.start_broker(0).await?;
    let back = Instant::now();
    other.publish_to("tasks-away", 5, "key", "{}").await?;
    until(bench, "away", 6).await;
    let reacted = back.elapsed();
    Ok(json!({
        "away_seconds": away.as_secs_f64(),
        "least_replicas": least,
        "reacted_seconds": reacted.as_secs_f64(),
        "healthy_milliseconds": healthy_milliseconds,
    }))
}

async fn until(bench: &Bench, pool: &str, replicas: i32) {
    eventually(&format!("{replicas} replicas of {pool}"), PATIENCE, async || {
        Ok::<_, anyhow::Error>(bench.replicas(pool).await? == Some(replicas))
    })
    .await;
}
