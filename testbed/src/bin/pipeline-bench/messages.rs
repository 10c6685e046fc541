//! Time per message: from one result to the next, with songs of a tenth of a second and a model that takes no time;
//! the existing system's processor, which copies the song, does the same beside it.

use std::time::Duration;

use anyhow::Result;
use separation_testbed::{Peer, Site, WorkerOptions, tiny_song};
use serde_json::{Value, json};

use crate::{Bench, progress};

/// What one processor may take for all of its messages.
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) async fn measure(bench: &Bench, tasks: usize) -> Result<Value> {
    let ours_at = bench.site(1).await?;
    let ours = run(bench, &ours_at, tasks, bench.role(&ours_at, "processor")).await?;
    let theirs_at = bench.site(1).await?;
    let theirs = run(bench, &theirs_at, tasks, theirs_at.peer(Peer::Processor)?).await?;
    Ok(json!({ "tasks": tasks, "worker_ms": ours, "peer_ms": theirs }))
}

/// Milliseconds between one result and the next, as the broker stamped them.
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
