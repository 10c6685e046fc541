//! Tasks that have ended already: their client canceled or erased them, or another attempt completed them.
//!
//! A task whose outcome cannot be read counts as not ended: processing it once more harms less than not processing it.

use std::time::Duration;

use separation_contract::message::{Task, TaskId};

use super::Processor;
use crate::storage::{FinalStatus, StorageError};
use crate::task_store::EndState;
use crate::work::{Finished, WorkContext, WorkError, retry_transient};

/// Time limit for reading how a task ended. The read only avoids unnecessary work.
const READ_LIMIT: Duration = Duration::from_secs(2);

/// Time between two reads while a task is separated. With the time limit of a read, less than the 10 s within which
/// canceled work stops.
const READ_INTERVAL: Duration = Duration::from_secs(5);

impl Processor {
    /// How a task of the HTTP API v1 ended; `None` if it did not, or this is not known.
    pub(super) async fn end_state(&self, task: &Task) -> Option<EndState> {
        let store = self.tasks.as_ref().filter(|_| task.v1.is_some())?;
        let outcome = read(&task.task_uuid, "outcome", store.outcome(&task.task_uuid)).await;
        outcome.map(|outcome| outcome.state)
    }

    /// Waits until a task of the HTTP API v1 has ended; forever for any other.
    pub(super) async fn wait_for_end(&self, task: &Task) -> EndState {
        if self.tasks.is_none() || task.v1.is_none() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(READ_INTERVAL).await;
            if let Some(state) = self.end_state(task).await {
                return state;
            }
        }
    }

    /// Stops the work on a task that has ended.
    pub(super) async fn stop(
        &self,
        task: &Task,
        state: EndState,
        context: &WorkContext,
    ) -> Result<Finished, WorkError> {
        // The model may run on its thread; it stops after the current chunk.
        context.control().cancel.cancel();
        retry_transient(context, "remove_staged", || self.finish_ended(task, state)).await
    }

    /// Removes what is staged of a task that has ended. The song is deleted after the commit.
    pub(super) async fn finish_ended(&self, task: &Task, state: EndState) -> Result<Finished, WorkError> {
        tracing::info!(task_uuid = %task.task_uuid, ?state, "The task has ended; removing its staged files");
        self.staging.remove(&task.task_uuid).await?;
        Ok(Finished::unpublished(state != EndState::Failed))
    }

    /// Whether a task has stems in the bucket: an uploader that finished before this task's commit has removed the staged
    /// ones.
    pub(super) async fn has_succeeded(&self, task: &TaskId) -> bool {
        let Some(finals) = &self.finals else {
            return false;
        };
        let manifest = read(task, "final manifest", finals.manifest(task)).await;
        manifest.is_some_and(|manifest| manifest.status == FinalStatus::Success)
    }
}

/// Reads how a task ended; a failure counts as none.
async fn read<T>(
    task: &TaskId,
    object: &'static str,
    reading: impl Future<Output = Result<Option<T>, StorageError>>,
) -> Option<T> {
    match tokio::time::timeout(READ_LIMIT, reading).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::warn!(task_uuid = %task, object, %error, "Cannot read how the task ended");
            None
        }
        Err(_) => {
            tracing::warn!(task_uuid = %task, object, "Cannot read how the task ended: timed out");
            None
        }
    }
}
