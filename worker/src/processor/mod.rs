//! The processor: reads a task, stages its stems and returns a result.
//!
//! Stage in, separate, store, publish the manifest. Imports nothing from `kafka`. The model is loaded once and used for
//! one song at a time.

mod separation;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use separation_contract::message::{Malformed, Outcome, Task, TaskId, TaskResult};

pub use separation::{ModelError, Separation};

use crate::error::ErrorClass;
use crate::settings::DeleteInput;
use crate::storage::{
    AttemptId, FinalStatus, Finals, Scratch, Staging, StagingManifest, StemFiles, StorageError,
};
use crate::work::{FailureReport, Finished, Role, WorkContext, WorkError, retry_transient, retry_while_held};

/// Time limit for reading the final manifest. The read only avoids repeated work.
const FINALS_LIMIT: Duration = Duration::from_secs(2);

/// The processor role.
pub struct Processor {
    /// The loaded model.
    pub separation: Separation,
    /// Staging of songs and stems.
    pub staging: Staging,
    /// Bucket of finished stems, if configured.
    pub finals: Option<Finals>,
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

    async fn find_completed(&self, task: &Task) -> Result<Option<Finished>, WorkError> {
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
        let scratch = retry_transient(context, "scratch", || async {
            Ok(self.scratch.begin(attempt).await?)
        })
        .await?;
        let input = retry_transient(context, "stage_in", || async {
            match self.staging.stage_in(&task.audio_path, &scratch).await {
                Err(error) if error.is_full_scratch() && scratch.fills_its_disk(0).await? => {
                    Err(WorkError::new(ErrorClass::Permanent, error))
                }
                staged => Ok(staged?),
            }
        })
        .await?;
        context.point("staged_in").await?;
        let separated = retry_while_held(context, "separate", || {
            context.stage("separate", self.separation.run(&input, &scratch, context))
        })
        .await?;
        context.point("separated").await?;
        let stored = retry_transient(context, "store", || async {
            let stems = StemFiles {
                vocals: &separated.vocals,
                instrumental: &separated.instrumental,
            };
            let model = self.separation.model();
            Ok(self
                .staging
                .store(&task.task_uuid, attempt, stems, &input.identity, model)
                .await?)
        })
        .await;
        // Once sent, the manifest may be published whatever the response is, and another worker may have published a
        // result that names these stems.
        let manifest_sent = AtomicBool::new(false);
        let published = match stored {
            Err(error) => Err(error),
            Ok(stored) => {
                let published = retry_transient(context, "show", || async {
                    context.point("stored").await?;
                    context.confirm().await?;
                    manifest_sent.store(true, Ordering::Relaxed);
                    Ok(self.staging.publish_manifest(&stored).await?)
                });
                published.await.map(|()| stored)
            }
        };
        match published {
            Ok(stored) => {
                tracing::info!(task_uuid = %task.task_uuid, "Stems stored");
                context.point("manifest_published").await?;
                Ok(finished(task, stored.manifest()))
            }
            Err(error) if manifest_sent.load(Ordering::Relaxed) => {
                tracing::info!(
                    task_uuid = %task.task_uuid,
                    %attempt,
                    "The stems are kept: their manifest may be published; the uploader removes them with the task"
                );
                Err(error)
            }
            Err(error) => {
                if let Err(left) = self.staging.discard_attempt(&task.task_uuid, attempt).await {
                    tracing::warn!(task_uuid = %task.task_uuid, error = %left, "Cannot remove the stems of a failed attempt");
                }
                Err(error)
            }
        }
    }

    async fn report_failure(
        &self,
        failure: FailureReport<'_>,
        _context: &WorkContext,
    ) -> Result<Finished, WorkError> {
        let hook_url = failure.hook_url.map(str::to_owned);
        let result = TaskResult::failure(failure.task_uuid.clone(), hook_url, failure.reason);
        Ok(Finished {
            publish: Some(result),
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

impl Processor {
    /// Whether the task succeeded: an uploader that finished before this task's commit has removed the stems from the
    /// staging. If the final manifest cannot be read the task counts as unfinished and is separated again.
    async fn has_succeeded(&self, task: &TaskId) -> bool {
        let Some(finals) = &self.finals else {
            return false;
        };
        match tokio::time::timeout(FINALS_LIMIT, finals.manifest(task)).await {
            Ok(Ok(manifest)) => manifest.is_some_and(|manifest| manifest.status == FinalStatus::Success),
            Ok(Err(error)) => {
                tracing::warn!(task_uuid = %task, %error, "Cannot read the task's final manifest");
                false
            }
            Err(_) => {
                tracing::warn!(task_uuid = %task, "Cannot read the task's final manifest: timed out");
                false
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
            // The service loop sets it.
            task_message: None,
        }),
        success: true,
    }
}
