//! The processor: reads a task, stages its stems and returns a result.
//!
//! Stage in, separate, store, publish the manifest. Imports nothing from `kafka`. The model is loaded once and used for
//! one song at a time.

mod ended;
mod failure_code;
mod output;
mod separation;
mod stages;

use separation_contract::api_task::ApiTask;
use separation_contract::message::{Malformed, Outcome, Task, TaskId, TaskResult};

pub use separation::{ModelError, Separation};

use crate::settings::DeleteInput;
use crate::storage::{AttemptId, Finals, Scratch, Staging, StagingManifest, StorageError};
use crate::task_store::TaskStore;
use crate::work::{FailureReport, Finished, Role, WorkContext, WorkError};

/// The processor role.
pub struct Processor {
    /// The loaded model.
    pub separation: Separation,
    /// Staging of songs and stems.
    pub staging: Staging,
    /// Bucket of finished stems, if configured.
    pub finals: Option<Finals>,
    /// Tasks of the HTTP API v1, in the same bucket.
    pub tasks: Option<TaskStore>,
    /// The longest song of a task of the HTTP API v1, in seconds.
    pub max_input_seconds: u64,
    /// Scratch space of this worker.
    pub scratch: Scratch,
    /// When a task's song is deleted.
    pub delete_input: DeleteInput,
}

impl Role for Processor {
    type Message = Task;

    const RECEIVED: &'static str = "Received task";
    const NAME: &'static str = "Processor";
    // A failed task publishes a failure result, and its song is kept.
    const DEAD_LETTERS_FAILURES: bool = false;

    fn parse(&self, value: Option<&[u8]>) -> Result<Task, Malformed> {
        Task::parse(value)
    }

    fn task<'m>(&self, task: &'m Task) -> (&'m TaskId, Option<&'m str>) {
        (&task.task_uuid, task.hook_url.as_deref())
    }

    fn api_task<'m>(&self, task: &'m Task) -> Option<&'m ApiTask> {
        task.v1.as_ref()
    }

    async fn find_completed(&self, task: &Task) -> Result<Option<Finished>, WorkError> {
        if let Some(state) = self.end_state(task).await {
            return self.finish_ended(task, state).await.map(Some);
        }
        let input = match self.staging.input(&task.audio_path).await {
            Ok(input) => input,
            // A path that may not be used fails in `work`, with the same message.
            Err(StorageError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let found = self.staging.find(&task.task_uuid).await?;
        let staged = found
            .filter(|manifest| manifest.matches(input.as_ref(), self.separation.model()))
            .map(|manifest| finished(task, &manifest));
        if staged.is_none() && self.has_succeeded(&task.task_uuid).await {
            // An uploader already has the result.
            return Ok(Some(Finished::unpublished(true)));
        }
        Ok(staged)
    }

    async fn work(&self, task: &Task, context: &WorkContext) -> Result<Finished, WorkError> {
        let attempt = AttemptId::new();
        let storing = async {
            let song = self.separate(task, attempt, context).await?;
            context.point("separated").await?;
            self.store(task, attempt, &song, context).await
        };
        let stored = tokio::select! {
            stored = storing => stored?,
            state = self.wait_for_end(task) => return self.stop(task, state, context).await,
        };
        if let Some(state) = self.end_state(task).await {
            return self.stop(task, state, context).await;
        }
        self.publish(task, attempt, &stored, context).await
    }

    async fn report_failure(
        &self,
        failure: FailureReport<'_>,
        _context: &WorkContext,
    ) -> Result<Finished, WorkError> {
        let hook_url = failure.hook_url.map(str::to_owned);
        let result = TaskResult::failure(failure.task_uuid.clone(), hook_url, failure.reason);
        Ok(Finished {
            publish: Some(TaskResult {
                v1: failure.v1.cloned(),
                ..result.with_error_code(failure.code)
            }),
            success: false,
        })
    }

    async fn clean_up(&self, task: &Task, finished: &Finished) {
        let delete = match self.delete_input {
            DeleteInput::AfterSuccess => finished.success,
            DeleteInput::Always => true,
            DeleteInput::Never => false,
        };
        if !delete {
            return;
        }
        match self.staging.delete_input(&task.task_uuid, &task.audio_path).await {
            Ok(true) => tracing::debug!(task_uuid = %task.task_uuid, "Deleted the task's song"),
            Ok(false) => tracing::debug!(
                task_uuid = %task.task_uuid,
                "The song is kept: its name is not that of this task's input, so other tasks may use it"
            ),
            Err(error) => {
                tracing::warn!(task_uuid = %task.task_uuid, %error, "Could not delete the task's song");
            }
        }
    }
}

/// The success result, with the paths of the stems.
fn finished(task: &Task, manifest: &StagingManifest) -> Finished {
    Finished {
        publish: Some(TaskResult {
            task_uuid: task.task_uuid.clone(),
            hook_url: task.hook_url.clone(),
            outcome: Outcome::Success {
                vocals_path: manifest.vocals.path.clone(),
                instrumental_path: manifest.instrumental.path.clone(),
            },
            // The service loop sets both.
            task_message: None,
            started_at: None,
            v1: task.v1.clone(),
        }),
        success: true,
    }
}
