//! Time per message: from one result to the next, with songs of a tenth of a second and a model that takes
//! almost no time. The same is measured for uvr5-api's processor, which copies the song.

use std::time::Duration;

use anyhow::Result;
use separation_testbed::{Site, Uvr5Program, WorkerOptions, tiny_song};
use serde_json::{Value, json};

use crate::{Bench, progress};

/// Time limit for all messages of one processor.
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) async fn measure(bench: &Bench, tasks: usize) -> Result<Value> {
    let worker_site = bench.site(1).await?;
    let worker_ms = run(bench, &worker_site, tasks, bench.role(&worker_site, "processor")).await?;
    let uvr5_site = bench.site(1).await?;
    let uvr5_ms = run(
        bench,
        &uvr5_site,
        tasks,
        uvr5_site.uvr5_program(Uvr5Program::Processor)?,
    )
    .await?;
    Ok(json!({ "tasks": tasks, "worker_ms": worker_ms, "peer_ms": uvr5_ms }))
}

/// Milliseconds between consecutive results, by the broker's timestamps.
async fn run(bench: &Bench, site: &Site<'_>, tasks: usize, processor: WorkerOptions) -> Result<Vec<i64>> {
    progress(&format!("publishing {tasks} tasks"));
    for number in 0..tasks {
        site.submit(&tiny_song(number as u64), "http://127.0.0.1:9/")
            .await?;
    }
    let processor = processor.start()?;
    bench.tasks_committed(site, LIMIT).await;
    processor.sigterm()?;
    let results = bench.kafka.consume_all(&site.result_topic).await?;
    let mut stamps: Vec<i64> = results.iter().filter_map(|record| record.timestamp_ms).collect();
    stamps.sort_unstable();
    Ok(stamps.windows(2).map(|pair| pair[1] - pair[0]).collect())
}
