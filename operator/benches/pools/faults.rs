//! Brokers that are unreachable for a while.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use separation_testbed::{Kafka, KafkaOptions, eventually};
use serde_json::{Value, json};

use super::{Bench, TIMEOUT, pool};

pub(super) async fn measure(bench: &Bench, outage: Duration) -> Result<Value> {
    let other = Kafka::start(KafkaOptions::default()).await?;
    for (kafka, name) in [(&bench.kafka, "healthy"), (&other, "unreachable")] {
        kafka.create_topic(&format!("tasks-{name}"), 50).await?;
        kafka.create_topic("results", 1).await?;
        let scaling = json!({"maxReplicas": 50, "scaleDown": {"stabilizationWindowSeconds": 0}});
        bench.apply(&pool(name, &kafka.bootstrap(), &scaling)).await?;
    }
    let _operator = bench.start("operator")?;
    for name in ["healthy", "unreachable"] {
        bench.until_adopted(name).await;
    }
    for partition in 0..5 {
        other
            .publish_to("tasks-unreachable", partition, "key", "{}")
            .await?;
    }
    until(bench, "unreachable", 5).await;

    other.stop_broker(0).await?;
    let stopped = Instant::now();
    let mut healthy_milliseconds = Vec::new();
    let mut fewest = 5;
    for partition in 0.. {
        if stopped.elapsed() >= outage {
            break;
        }
        let start = Instant::now();
        bench
            .kafka
            .publish_to("tasks-healthy", partition, "key", "{}")
            .await?;
        until(bench, "healthy", partition + 1).await;
        healthy_milliseconds.push(start.elapsed().as_secs_f64() * 1e3);
        fewest = fewest.min(bench.replicas("unreachable").await?.unwrap_or(0));
        tokio::time::sleep(Duration::from_millis(1_300)).await;
    }
    ensure!(fewest == 5, "replicas were lowered to {fewest}");
    other.start_broker(0).await?;
    let restarted = Instant::now();
    other.publish_to("tasks-unreachable", 5, "key", "{}").await?;
    until(bench, "unreachable", 6).await;
    let reacted = restarted.elapsed();
    Ok(json!({
        "away_seconds": outage.as_secs_f64(),
        "least_replicas": fewest,
        "reacted_seconds": reacted.as_secs_f64(),
        "healthy_milliseconds": healthy_milliseconds,
    }))
}

async fn until(bench: &Bench, pool: &str, replicas: i32) {
    eventually(&format!("{replicas} replicas of {pool}"), TIMEOUT, async || {
        Ok::<_, anyhow::Error>(bench.replicas(pool).await? == Some(replicas))
    })
    .await;
}
