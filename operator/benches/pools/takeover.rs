//! A leader that is killed, and its standby.

use std::time::{Duration, Instant};

use anyhow::Result;
use separation_testbed::eventually;
use serde_json::{Value, json};

use super::{Bench, Operator, TIMEOUT, pool};

pub(super) async fn measure(bench: &Bench, rounds: usize) -> Result<Value> {
    bench.kafka.create_topic("tasks-vocals", 100).await?;
    bench.kafka.create_topic("results", 1).await?;
    let scaling = json!({"maxReplicas": 100, "scaleDown": {"stabilizationWindowSeconds": 3600}});
    bench
        .apply(&pool("vocals", &bench.kafka.bootstrap(), &scaling))
        .await?;
    let mut leader = bench.start("operator")?;
    bench.until_adopted("vocals").await;
    let mut seconds = Vec::new();
    for round in 0..rounds {
        let standby = standby(bench).await?;
        leader.process.kill_9().await?;
        let killed = Instant::now();
        let partition = i32::try_from(round)?;
        bench
            .kafka
            .publish_to("tasks-vocals", partition, "key", "{}")
            .await?;
        eventually("write of the standby", TIMEOUT, async || {
            Ok::<_, anyhow::Error>(bench.replicas("vocals").await? == Some(partition + 1))
        })
        .await;
        seconds.push(killed.elapsed().as_secs_f64());
        leader = standby;
    }
    Ok(json!({"seconds": seconds}))
}

/// A second operator that has listed the cluster and is a standby.
async fn standby(bench: &Bench) -> Result<Operator> {
    let standby = bench.start("operator")?;
    // It lists all objects when it starts, and reads the lease every two seconds.
    tokio::time::sleep(Duration::from_secs(5)).await;
    Ok(standby)
}
