//! Claims: which replica of the API works on something. A claim is held for windows of a minute, or until the work ends.

use std::time::Duration;

use separation_contract::message::TaskId;
use uuid::Uuid;

use crate::clock::unix_time;
use crate::storage::StorageError;
use crate::task_store::TaskStore;

/// Length of a window.
const WINDOW_SECONDS: u64 = 60;

/// Seconds before the end of a window in which the next one is claimed: longer than one attempt at a webhook.
const RENEWAL_SECONDS: u64 = 20;

/// Pause before a renewal that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Claims `name` for `holder`, for at least [`RENEWAL_SECONDS`] from `now`. Returns whether the claim is held.
pub(super) async fn claim(
    store: &TaskStore,
    name: &str,
    holder: &str,
    now: u64,
) -> Result<bool, StorageError> {
    if !store.claim(name, holder, now).await? {
        return Ok(false);
    }
    if seconds_to_renewal(now) > 0 {
        return Ok(true);
    }
    store.renew(name, holder, now).await
}

/// Name of the claim on taking a task to the queue.
pub(super) fn of_incoming(id: &TaskId) -> String {
    format!("incoming-{id}")
}

/// Name of the claim on creating the task with an ID that several requests may have.
pub(super) fn of_request(id: &TaskId) -> String {
    format!("key-{id}")
}

/// Runs `work` under the claim `name`, then releases it. Returns none if something else has the claim, of this process
/// or of another one, or has it from now on: then `work` is dropped.
pub(super) async fn while_claimed<T>(
    store: &TaskStore,
    name: &str,
    replica: &str,
    work: impl Future<Output = T>,
) -> Result<Option<T>, StorageError> {
    let holder = format!("{replica}/{}", Uuid::new_v4());
    let now = unix_time().as_secs();
    if !claim(store, name, &holder, now).await? {
        if seconds_to_renewal(now) == 0 {
            // It may have this window, and not the next one.
            release(store, name, &holder).await;
        }
        return Ok(None);
    }
    let done = tokio::select! {
        done = work => Some(done),
        () = renew_until_lost(store, name, &holder, now) => None,
    };
    release(store, name, &holder).await;
    Ok(done)
}

async fn release(store: &TaskStore, name: &str, holder: &str) {
    if let Err(error) = store.release(name, holder, unix_time().as_secs()).await {
        tracing::warn!(claim = name, %error, "Cannot release a claim; it ends within two minutes");
    }
}

/// Renews a claim in each window; completes when another replica holds it, or the store failed until it ended.
async fn renew_until_lost(store: &TaskStore, name: &str, holder: &str, claimed_at: u64) {
    // The first window that is not claimed yet.
    let mut next = claimed_at / WINDOW_SECONDS + 1 + u64::from(seconds_to_renewal(claimed_at) == 0);
    loop {
        let now = unix_time().as_secs();
        let renewal_at = next * WINDOW_SECONDS - RENEWAL_SECONDS;
        if now < renewal_at {
            tokio::time::sleep(Duration::from_secs(renewal_at - now)).await;
            continue;
        }
        if now >= next * WINDOW_SECONDS {
            tracing::warn!(claim = name, "A claim ended before it could be renewed");
            return;
        }
        match store.renew(name, holder, now).await {
            Ok(true) => next += 1,
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(claim = name, %error, "Cannot renew a claim; retrying");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Seconds until the next window is claimed; 0 in the last seconds of a window.
fn seconds_to_renewal(now: u64) -> u64 {
    (WINDOW_SECONDS - RENEWAL_SECONDS).saturating_sub(now % WINDOW_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_renewed_in_the_last_seconds_of_its_window() {
        let renewal = [0, 39, 40, 59, 60].map(seconds_to_renewal);
        assert_eq!(renewal, [40, 1, 0, 0, 40]);
    }
}
