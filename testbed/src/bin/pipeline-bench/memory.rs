//! Memory of an idle processor, before and after tasks.

use std::time::Duration;

use anyhow::{Context as _, Result};
use separation_testbed::{Worker, song};
use serde_json::{Value, json};

use crate::Bench;

/// Songs between the two measurements.
const TASKS: u64 = 10;

/// Time limit of each step.
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) async fn measure(bench: &Bench, model: &str) -> Result<Value> {
    let site = bench.site(1).await?;
    let worker = bench.role(&site, "processor").env("MODEL_NAME", model).start()?;
    worker.wait_for_log("Partitions assigned", LIMIT).await?;
    let before = status_bytes(&worker, "VmRSS")?;
    for number in 0..TASKS {
        site.submit(&song(20.0, number), "http://127.0.0.1:9/").await?;
    }
    bench.tasks_committed(&site, LIMIT).await;
    let after = status_bytes(&worker, "VmRSS")?;
    Ok(json!({ "tasks": TASKS, "before_bytes": before, "after_bytes": after }))
}

/// A field of a process's status that the kernel reports in kB: `VmRSS` is the resident memory, `VmHWM` its peak.
pub(crate) fn status_bytes(worker: &Worker, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid()))?;
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kilobytes = value
        .with_context(|| format!("no {field} in the process status"))?
        .trim()
        .trim_end_matches("kB")
        .trim();
    Ok(kilobytes.parse::<u64>()? * 1024)
}
