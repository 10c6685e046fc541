//! The loops that every replica of the API runs: takes up tasks that are not queued yet, makes due attempts to deliver
//! webhooks, and ends overdue tasks. The work itself is spawned, and a loop whose listing fails stops no other.

use std::time::Duration;

use separation_contract::backoff::Backoff;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::overdue;
use super::state::V1;
use crate::clock::unix_time;
use crate::storage::StorageError;
use crate::task_store::IncomingCursor;

/// Pauses between two rounds: longer while there is nothing to do, because a round lists objects.
const PAUSES: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(5),
};

/// The pauses of one loop.
struct Pauses {
    /// What the loop lists.
    listed: &'static str,
    idle_rounds: u32,
}

impl Pauses {
    fn new(listed: &'static str) -> Self {
        Self {
            listed,
            idle_rounds: 0,
        }
    }

    /// Waits after a round, which started so much work.
    async fn wait(&mut self, started: Result<usize, StorageError>) {
        match started {
            Ok(0) => self.idle_rounds += 1,
            Ok(_) => self.idle_rounds = 1,
            Err(error) => {
                self.idle_rounds += 1;
                tracing::warn!(listed = self.listed, %error, "Cannot list work in the store; retrying");
            }
        }
        tokio::time::sleep(PAUSES.after(self.idle_rounds)).await;
    }
}

/// Takes up work until `stop`, then interrupts what can be repeated by another replica.
pub(in crate::api) async fn run(v1: &V1, unfinished: &TaskTracker, stop: CancellationToken) {
    let working = async { tokio::join!(take_up(v1), deliver(v1, unfinished), end_overdue(v1)) };
    tokio::select! {
        _ = working => {}
        () = stop.cancelled() => {}
    }
    v1.queuer.stop();
}

/// Takes up tasks that are not queued yet: 1,000 in each round.
async fn take_up(v1: &V1) {
    // Logs a warning if the store lacks them.
    if let Err(error) = v1.has_conditional_writes().await {
        tracing::warn!(%error, "Cannot check the store of tasks for conditional writes yet");
    }
    let mut pauses = Pauses::new("accepted tasks");
    let mut cursor = IncomingCursor::default();
    loop {
        let listed = v1.store.incoming(&mut cursor).await;
        pauses.wait(listed.map(|listed| v1.queuer.take_up(listed))).await;
    }
}

/// Starts due attempts to deliver webhooks.
async fn deliver(v1: &V1, unfinished: &TaskTracker) {
    let mut pauses = Pauses::new("webhooks");
    loop {
        let started = v1.deliverer.start_due(unfinished).await;
        pauses.wait(started.map(|attempts| attempts.len())).await;
    }
}

async fn end_overdue(v1: &V1) {
    loop {
        if let Err(error) = v1.overdue.end_next(unix_time().as_secs()).await {
            tracing::warn!(%error, "Cannot list old tasks; retrying later");
        }
        tokio::time::sleep(overdue::INTERVAL).await;
    }
}
