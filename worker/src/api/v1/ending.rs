//! Ends tasks that no worker ends: canceled ones, those whose song cannot be fetched, and overdue ones.

use separation_contract::api_task::FailureCode;
use separation_contract::message::TaskId;

use super::super::traits::TaskFiles;
use crate::clock::unix_time;
use crate::faults;
use crate::storage::StorageError;
use crate::task_store::{
    Created, Delivery, EndState, StoredError, StoredOutcome, StoredTask, TaskStore, VERSION,
};
use crate::work::WorkError;

/// The outcome of a task that ends now because its client cancels it.
pub(super) fn canceled(task: &StoredTask) -> StoredOutcome {
    outcome(task, EndState::Cancelled, None)
}

/// The outcome of a task that fails now.
pub(super) fn failed(task: &StoredTask, code: FailureCode, message: String) -> StoredOutcome {
    outcome(task, EndState::Failed, Some(StoredError { code, message }))
}

fn outcome(task: &StoredTask, state: EndState, error: Option<StoredError>) -> StoredOutcome {
    StoredOutcome {
        version: VERSION,
        id: task.id.clone(),
        state,
        finished_at: unix_time().as_secs(),
        started_at: None,
        stems: Vec::new(),
        error,
    }
}

/// Stores the outcome of a task, unless it has one; returns the one that counts. The delivery of its webhook is
/// scheduled first, so that a process that is killed in between loses no webhook; one for a task that has none yet is put
/// off.
pub(super) async fn end(
    store: &TaskStore,
    task: &StoredTask,
    outcome: StoredOutcome,
) -> Result<StoredOutcome, StorageError> {
    if let Some(url) = &task.webhook_url {
        let delivery = Delivery {
            id: task.id.clone(),
            client: task.client.clone(),
            url: url.clone(),
            attempts: 0,
            scheduled_at: outcome.finished_at,
        };
        store.schedule_delivery(outcome.finished_at, &delivery).await?;
    }
    faults::point("delivery_scheduled").await;
    let stored = match store.create_outcome(&outcome).await? {
        Created::New => None,
        Created::Exists => store.outcome(&task.id).await?,
    };
    faults::point("outcome_created").await;
    store.close_open(&task.client, &task.id).await?;
    Ok(stored.unwrap_or(outcome))
}

/// Removes the song of an ended task and its staged record. A worker that has the task removes what else is staged.
pub(super) async fn remove_staged(files: &dyn TaskFiles, id: &TaskId) -> Result<(), WorkError> {
    let audio_path = files.input_path(id)?;
    files.delete_input(id, &audio_path).await?;
    files.delete_record(id).await
}
