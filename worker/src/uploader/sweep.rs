//! Deletes files that are older than their retention: finished stems, staged songs, and what the area of the HTTP API v1
//! no longer needs.
//!
//! Each uploader tries every hour, and a claim for the hour lets one of those with the same settings sweep. Failures are
//! only logged: the next sweep continues.

use std::time::Duration;

use uuid::Uuid;

use crate::clock::unix_time;
use crate::settings::RetentionSettings;
use crate::storage::{AttemptId, Finals, Staging, StorageError};
use crate::task_store::{Retention, TaskStore};

const SECONDS_PER_HOUR: u64 = 3_600;

/// Begin of the claim's name.
const CLAIM: &str = "sweep";

/// Sweeps the storage of uploaders.
#[derive(Debug, Clone)]
pub struct Sweep {
    staging: Staging,
    finals: Finals,
    tasks: TaskStore,
    retention: RetentionSettings,
    /// Name of the claim.
    claim: String,
    /// Identifies this process in claims.
    holder: String,
}

impl Sweep {
    /// A sweep of this process, a member of the consumer group `group`.
    pub fn new(
        staging: Staging,
        finals: Finals,
        tasks: TaskStore,
        retention: RetentionSettings,
        group: &str,
    ) -> Self {
        Self {
            claim: claim(&staging, retention, group),
            staging,
            finals,
            tasks,
            retention,
            holder: AttemptId::new().to_string(),
        }
    }

    /// Sweeps immediately and then every hour, unless another process sweeps in that hour. Never ends.
    pub async fn run(self) {
        loop {
            self.sweep_in_turn(unix_time().as_secs()).await;
            tokio::time::sleep(Duration::from_secs(SECONDS_PER_HOUR)).await;
        }
    }

    /// Sweeps at `now`, in Unix seconds, unless another process has the claim for this hour. Returns whether it swept.
    pub async fn sweep_in_turn(&self, now: u64) -> bool {
        // A claim is valid for a minute: that of the hour's first minute stands for the hour.
        let hour = now - now % SECONDS_PER_HOUR;
        match self.tasks.claim(&self.claim, &self.holder, hour).await {
            Ok(true) => {
                self.sweep(now).await;
                true
            }
            Ok(false) => false,
            Err(error) => {
                let problem = crate::work::chain(&error);
                tracing::warn!(error = problem, "Cannot claim the sweep of old files");
                false
            }
        }
    }

    async fn sweep(&self, now: u64) {
        let before = |retention: Duration| now.saturating_sub(retention.as_secs());
        if let Some(retention) = self.retention.stems {
            report("finished stems", self.finals.remove_old(now, retention).await);
        }
        if let Some(time) = self.retention.inputs.map(before) {
            report("songs", self.staging.remove_inputs_before(time).await);
        }
        let retention = Retention {
            stems: self.retention.stems,
        };
        let removed = self.tasks.remove_old(now, retention).await;
        let removed = removed.map(|removed| removed.stems + removed.records + removed.leftovers);
        report("objects of the API v1", removed);
    }
}

/// Name of the claim: another one for each pool, which may share the bucket, but has its own songs and retention. The
/// directory of songs has the same path in all pools.
fn claim(staging: &Staging, retention: RetentionSettings, group: &str) -> String {
    let pool = format!("{retention:?} {group} {}", staging.location());
    let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, pool.as_bytes());
    format!("{CLAIM}-{}", hash.simple())
}

fn report(kind: &str, removed: Result<usize, StorageError>) {
    match removed {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, kind, "Deleted old files"),
        Err(error) => {
            let problem = crate::work::chain(&error);
            tracing::warn!(kind, error = problem, "Cannot delete all old files");
        }
    }
}
