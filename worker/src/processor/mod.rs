//! The processor: a task in, stems in the staging and a result out.
//!
//! Stage in, separate, store, show. Knows no Kafka; the model is loaded once and used for one song at a time.

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
use crate::work::{Claim, Finished, Refusal, Role, WorkError, holding, retrying};

/// How long the bucket of finished stems may take to say that a task is over. It only saves work.
const FINALS_LIMIT: Duration = Duration::from_secs(2);

/// The processor.
pub struct Processor {
    /// The loaded model.
    pub separation: Separation,
    /// Where songs and stems wait.
    pub staging: Staging,
    /// Where finished stems are, if this worker was told.
    pub finals: Option<Finals>,
    /// Where this worker's own files are.
    pub scratch: Scratch,
    /// When a task's song is deleted.
    pub delete_input: DeleteInput,
}

impl Role for Processor {
    type Message = Task;

    const RECEIVED: &'static str = "Received task";
    const NAME: &'static str = "Processor";
    // A failed task is a failure result, and its song is kept.
    const KEEPS_FAILURES: bool = false;

    fn parse(&self, value: Option<&[u8]>) -> Result<Task, Malformed> {
        Task::parse(value)
    }

    fn task<'m>(&self, task: &'m Task) -> (&'m TaskId, Option<&'m str>) {
        (&task.task_uuid, task.hook_url.as_deref())
    }

    async fn recognise(&self, task: &Task) -> Result<Option<Finished>, WorkError> {
        let input = match self.staging.input(&task.audio_path).await {
            Ok(input) => input,
            // A path that may not be used fails the work itself, with the same words.
            Err(StorageError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let found = self.staging.find(&task.task_uuid).await?;
        let staged = found
            .filter(|manifest| manifest.fits(input.as_ref(), self.separation.model()))
            .map(|manifest| finished(task, &manifest));
        if staged.is_none() && self.is_over(&task.task_uuid).await {
            // An uploader has the result already, or would have nothing to tell this.
            return Ok(Some(Finished {
                publish: None,
                success: true,
            }));
        }
        Ok(staged)
    }

    async fn work(&self, task: &Task, claim: &Claim) -> Result<Finished, WorkError> {
        let attempt = AttemptId::new();
        let scratch = retrying(claim, "scratch", || async {
            Ok(self.scratch.begin(attempt).await?)
        })
        .await?;
        let input = retrying(claim, "stage_in", || async {
            match self.staging.stage_in(&task.audio_path, &scratch).await {
                Err(error) if error.is_full_scratch() && scratch.fills_its_disk(0).await? => {
                    Err(WorkError::new(ErrorClass::Permanent, error))
                }
                staged => Ok(staged?),
            }
        })
        .await?;
        claim.point("staged_in").await?;
        let separated = holding(claim, "separate", || {
            claim.stage("separate", self.separation.run(&input, &scratch, claim))
        })
        .await?;
        claim.point("separated").await?;
        let stored = retrying(claim, "store", || async {
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
        // Once it was sent, the manifest may be visible whatever the answer is, and another worker may have published
        // a result that names these stems.
        let manifest_sent = AtomicBool::new(false);
        let shown = match stored {
            Err(error) => Err(error),
            Ok(stored) => {
                let shown = retrying(claim, "show", || async {
                    claim.point("stored").await?;
                    claim.confirm().await?;
                    manifest_sent.store(true, Ordering::Relaxed);
                    Ok(self.staging.show(&stored).await?)
                });
                shown.await.map(|()| stored)
            }
        };
        match shown {
            Ok(stored) => {
                tracing::info!(task_uuid = %task.task_uuid, "Stems stored");
                claim.point("shown").await?;
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
                    tracing::warn!(task_uuid = %task.task_uuid, error = %left, "Stems that nobody sees are left behind");
                }
                Err(error)
            }
        }
    }

    async fn refuse(&self, refusal: Refusal<'_>, _claim: &Claim) -> Result<Finished, WorkError> {
        let hook_url = refusal.hook_url.map(str::to_owned);
        let result = TaskResult::failure(refusal.task_uuid.clone(), hook_url, refusal.reason);
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
    /// Whether the stems are under their final keys: an uploader that was quicker than this task's commit has removed
    /// them from the staging. What cannot be told counts as no, and is made again.
    async fn is_over(&self, task: &TaskId) -> bool {
        let Some(finals) = &self.finals else {
            return false;
        };
        match tokio::time::timeout(FINALS_LIMIT, finals.manifest(task)).await {
            Ok(Ok(manifest)) => manifest.is_some_and(|manifest| manifest.status == FinalStatus::Success),
            Ok(Err(error)) => {
                tracing::warn!(task_uuid = %task, %error, "Cannot tell whether the task's stems are finished");
                false
            }
            Err(_) => {
                tracing::warn!(task_uuid = %task, "Cannot tell whether the task's stems are finished: no answer");
                false
            }
        }
    }
}

/// The result that says where the stems are.
fn finished(task: &Task, manifest: &StagingManifest) -> Finished {
    Finished {
        publish: Some(TaskResult {
            task_uuid: task.task_uuid.clone(),
            hook_url: task.hook_url.clone(),
            outcome: Outcome::Success {
                vocals_path: manifest.vocals.path.clone(),
                instrumental_path: manifest.instrumental.path.clone(),
            },
            // The service loop knows it.
            task_message: None,
        }),
        success: true,
    }
}
