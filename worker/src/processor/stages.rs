//! The stages of one attempt at a task, in order: separate, store, publish.

use std::sync::atomic::{AtomicBool, Ordering};

use separation_contract::api_task::FailureCode;
use separation_contract::message::Task;

use super::output::{DEFAULT_FORMAT, stem_format};
use super::separation::{Separated, SongOptions};
use super::{Processor, finished};
use crate::error::ErrorClass;
use crate::storage::{AttemptId, AttemptScratch, StagedInput, StemFiles, StoredStems};
use crate::work::{Finished, WorkContext, WorkError, retry_transient, retry_while_held};

/// A separated song; its files exist as long as this value.
pub(super) struct SeparatedSong {
    input: StagedInput,
    stems: Separated,
    _scratch: AttemptScratch,
}

impl Processor {
    /// Separates the task's song into scratch space.
    pub(super) async fn separate(
        &self,
        task: &Task,
        attempt: AttemptId,
        context: &WorkContext,
    ) -> Result<SeparatedSong, WorkError> {
        let options = self.song_options(task)?;
        let scratch = retry_transient(context, "scratch", || async {
            Ok(self.scratch.begin(attempt).await?)
        })
        .await?;
        let input = retry_transient(context, "fetch", || async {
            match self.staging.stage_in(&task.audio_path, &scratch).await {
                Err(error) if error.is_full_scratch() && scratch.fills_its_disk(0).await? => {
                    Err(WorkError::new(ErrorClass::Permanent, error))
                }
                Err(error) if error.is_missing() => {
                    Err(WorkError::from(error).with_code(FailureCode::InputMissing))
                }
                staged => Ok(staged?),
            }
        })
        .await?;
        context.point("staged_in").await?;
        let stems = retry_while_held(context, "separate", || {
            context.stage(
                "separate",
                self.separation.run(&input, &scratch, options, context),
            )
        })
        .await?;
        Ok(SeparatedSong {
            input,
            stems,
            _scratch: scratch,
        })
    }

    fn song_options(&self, task: &Task) -> Result<SongOptions, WorkError> {
        let Some(v1) = &task.v1 else {
            return Ok(SongOptions {
                format: DEFAULT_FORMAT,
                max_seconds: None,
            });
        };
        let output = &v1.output;
        let format = stem_format(output).ok_or_else(|| {
            let (format, bit_depth) = (output.format.extension(), output.bit_depth.unwrap_or(0));
            let problem =
                format!("{format} cannot have {bit_depth} bits; fix: post the task with another bit_depth");
            WorkError::new(ErrorClass::Permanent, problem)
        })?;
        Ok(SongOptions {
            format,
            max_seconds: Some(self.max_input_seconds),
        })
    }

    /// Stores the stems, invisible until their manifest is published.
    pub(super) async fn store(
        &self,
        task: &Task,
        attempt: AttemptId,
        song: &SeparatedSong,
        context: &WorkContext,
    ) -> Result<StoredStems, WorkError> {
        let stored = retry_transient(context, "store", || async {
            let stems = StemFiles {
                vocals: &song.stems.vocals,
                instrumental: &song.stems.instrumental,
            };
            let input = &song.input.identity;
            let model = (self.separation.model(), self.separation.provenance());
            Ok(self
                .staging
                .store(&task.task_uuid, attempt, stems, input, model)
                .await?)
        })
        .await;
        if stored.is_err() {
            self.discard(task, attempt).await;
        }
        stored
    }

    /// Publishes the manifest of stored stems, and returns the result of the task.
    pub(super) async fn publish(
        &self,
        task: &Task,
        attempt: AttemptId,
        stored: &StoredStems,
        context: &WorkContext,
    ) -> Result<Finished, WorkError> {
        // Once sent, the manifest may be published whatever the response is, and another worker may have published a
        // result that names these stems.
        let manifest_sent = AtomicBool::new(false);
        let published = retry_transient(context, "publish_manifest", || async {
            context.point("stored").await?;
            context.confirm().await?;
            manifest_sent.store(true, Ordering::Relaxed);
            Ok(self.staging.publish_manifest(stored).await?)
        })
        .await;
        match published {
            Ok(()) => {
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
                self.discard(task, attempt).await;
                Err(error)
            }
        }
    }

    async fn discard(&self, task: &Task, attempt: AttemptId) {
        if let Err(left) = self.staging.discard_attempt(&task.task_uuid, attempt).await {
            tracing::warn!(task_uuid = %task.task_uuid, error = %left, "Cannot remove the stems of a failed attempt");
        }
    }
}
