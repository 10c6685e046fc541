//! Time that the task of a killed worker is stalled, until another worker starts it.

use std::time::{Duration, Instant};

use anyhow::Result;
use separation_testbed::song;
use serde_json::{Value, json};

use crate::{Bench, progress};

/// Long enough to kill the worker during the task: the built-in model takes two seconds.
const SONG_SECONDS: f32 = 400.0;

/// Time limit of each step.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn measure(bench: &Bench, rounds: usize) -> Result<Value> {
    let mut seconds = Vec::new();
    for round in 0..rounds {
        progress(&format!("round {} of {rounds}", round + 1));
        let site = bench.site(1).await?;
        let processor = || {
            bench
                .role(&site, "processor")
                .env("MODEL_NAME", "builtin")
                .start()
        };
        let killed = processor()?;
        killed.wait_for_log("Partitions assigned", LIMIT).await?;
        let next = processor()?;
        next.wait_for_log("Processor started", LIMIT).await?;
        site.submit(&song(SONG_SECONDS, round as u64), "http://127.0.0.1:9/")
            .await?;
        killed.wait_for_log("Received task", LIMIT).await?;
        killed.kill_9().await?;
        let begin = Instant::now();
        next.wait_for_log("Received task", LIMIT).await?;
        seconds.push(begin.elapsed().as_secs_f64());
    }
    Ok(json!({ "session_timeout_seconds": 6, "seconds": seconds }))
}
