//! Results of tasks of the HTTP API v1: stores the requested stems in the area of v1, then the task's outcome.
//!
//! The outcome that is stored first decides how a task ended. Whatever finds another one removes the stems that it
//! stored. A task ends in this order: webhook scheduled, outcome stored, open task closed.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use separation_contract::api_task::{ApiTask, AudioFormat, FailureCode, Output, StemKind};
use separation_contract::message::{Outcome, TaskId, TaskResult};
use serde::Deserialize;

use super::preview::{make_preview, peaks_json};
use crate::audio::Waveform;
use crate::clock::unix_time;
use crate::engine::Control;
use crate::error::ErrorClass;
use crate::storage::{Created, Scratch, Staging, StemSource};
use crate::task_store::{
    Delivery, EndState, StoredError, StoredOutcome, StoredStem, StoredTask, TaskStore, VERSION,
};
use crate::work::{FailureReport, Finished, WorkContext, WorkError, retry_transient};

/// File name of the peaks of a task's stems.
const PEAKS_FILE: &str = "peaks.json";

/// Processes results of tasks of the HTTP API v1.
#[derive(Debug, Clone)]
pub(super) struct V1Results {
    staging: Staging,
    tasks: TaskStore,
    /// For previews; none if there is no scratch space.
    scratch: Option<Scratch>,
}

/// A task of the HTTP API v1.
#[derive(Debug, Clone)]
pub(super) struct V1Task {
    id: TaskId,
    /// Name of its client; none if only the task's outcome is left.
    client: Option<String>,
    output: Output,
}

/// How a task ends.
struct Ending {
    stems: Vec<StoredStem>,
    error: Option<StoredError>,
    /// When its last attempt began, Unix seconds, if known.
    started_at: Option<u64>,
}

/// The API's record of a task in the staging; other fields are ignored.
#[derive(Debug, Deserialize)]
struct StagedRecord {
    v1: Option<ApiTask>,
}

impl V1Results {
    pub(super) fn new(staging: Staging, tasks: TaskStore, scratch: Option<Scratch>) -> Self {
        Self {
            staging,
            tasks,
            scratch,
        }
    }

    /// The task of a result; none if it was not posted to the HTTP API v1.
    pub(super) async fn task_of(&self, message: &TaskResult) -> Result<Option<V1Task>, WorkError> {
        let (id, hook_url) = (&message.task_uuid, message.hook_url.as_deref());
        self.find_task(id, message.v1.as_ref(), hook_url).await
    }

    /// The task of a result that is given up; none if it was not posted to the HTTP API v1.
    pub(super) async fn task_of_failure(
        &self,
        failure: &FailureReport<'_>,
    ) -> Result<Option<V1Task>, WorkError> {
        self.find_task(failure.task_uuid, failure.v1, failure.hook_url)
            .await
    }

    /// The task that a message names. The field `v1` is missing if another implementation or an earlier version processed
    /// the task, or the task was malformed.
    async fn find_task(
        &self,
        id: &TaskId,
        v1: Option<&ApiTask>,
        hook_url: Option<&str>,
    ) -> Result<Option<V1Task>, WorkError> {
        match v1 {
            Some(task) => Ok(Some(V1Task::new(id, task))),
            // Messages of v1 have no URL: the API calls its webhooks.
            None if hook_url.is_some() => Ok(None),
            None => self.recorded_task(id).await,
        }
    }

    /// Finds a task that a message does not describe: in its record until it ends, by its outcome afterwards.
    async fn recorded_task(&self, id: &TaskId) -> Result<Option<V1Task>, WorkError> {
        let record = self.staging.record(id).await?;
        if let Some(record) = record.and_then(|json| serde_json::from_slice::<StagedRecord>(&json).ok()) {
            return Ok(record.v1.map(|task| V1Task::of_another_implementation(id, task)));
        }
        let has_ended = match self.tasks.outcome(id).await {
            Ok(outcome) => outcome.is_some(),
            // The credentials are those of a pool without v1.
            Err(error) if error.is_access_denied() => {
                tracing::debug!(task_uuid = %id, %error, "Taking the task for one that was not posted to v1");
                false
            }
            Err(error) => return Err(error.into()),
        };
        Ok(has_ended.then(|| V1Task {
            id: id.clone(),
            client: None,
            output: Output::default(),
        }))
    }

    /// The result of an earlier attempt that stored all stems, if any. Closes the open task, because that attempt may
    /// have ended before it did.
    pub(super) async fn find_completed(&self, task: &V1Task) -> Result<Option<Finished>, WorkError> {
        match self.tasks.outcome(&task.id).await? {
            Some(outcome) if outcome.state == EndState::Succeeded => {
                self.close(task).await?;
                Ok(Some(Finished::unpublished(true)))
            }
            // `work` removes stems that other attempts may have stored.
            _ => Ok(None),
        }
    }

    pub(super) async fn work(
        &self,
        task: &V1Task,
        message: &TaskResult,
        context: &WorkContext,
    ) -> Result<Finished, WorkError> {
        let record = match self.open_task(task, context).await? {
            Ok(record) => record,
            Err(ended) => return self.settle(task, ended, context).await,
        };
        let ending = match &message.outcome {
            Outcome::Success {
                vocals_path,
                instrumental_path,
            } => {
                let staged = [
                    (StemKind::Vocals, vocals_path.as_str()),
                    (StemKind::Instrumental, instrumental_path.as_str()),
                ];
                let stems = match self.store_stems(task, staged, context).await {
                    Ok(stems) => stems,
                    Err(error) if error.class() == ErrorClass::Interrupted => return Err(error),
                    // An erasure or a cancellation may have removed the staged stems meanwhile.
                    Err(error) => match self.open_task(task, context).await? {
                        Ok(_) => return Err(error),
                        Err(ended) => return self.settle(task, ended, context).await,
                    },
                };
                Ending {
                    stems,
                    error: None,
                    started_at: message.started_at,
                }
            }
            Outcome::Failure {
                error_message,
                error_code,
            } => {
                let error = StoredError {
                    code: error_code.unwrap_or(FailureCode::Internal),
                    message: error_message.clone(),
                };
                Ending::failure(error, message.started_at)
            }
        };
        self.end(task, &record, ending, context).await
    }

    /// Ends the task of a result that is given up.
    pub(super) async fn report_failure(
        &self,
        task: &V1Task,
        failure: &FailureReport<'_>,
        context: &WorkContext,
    ) -> Result<Finished, WorkError> {
        let record = match self.open_task(task, context).await? {
            Ok(record) => record,
            Err(ended) => return self.settle(task, ended, context).await,
        };
        let error = StoredError {
            code: failure.code,
            message: failure.reason.to_owned(),
        };
        self.end(task, &record, Ending::failure(error, None), context)
            .await
    }
}

/// The stages of processing a result, in order.
impl V1Results {
    /// The record of a task that has not ended, or else how it ended. A task without a record was erased.
    async fn open_task(
        &self,
        task: &V1Task,
        context: &WorkContext,
    ) -> Result<Result<StoredTask, EndState>, WorkError> {
        retry_transient(context, "read_task", || async {
            if let Some(outcome) = self.tasks.outcome(&task.id).await? {
                return Ok(Err(outcome.state));
            }
            let record = match &task.client {
                Some(client) => self.tasks.task(client, &task.id).await?,
                None => None,
            };
            Ok(record.ok_or(EndState::Erased))
        })
        .await
    }

    /// Stores the requested stems, then their previews.
    async fn store_stems(
        &self,
        task: &V1Task,
        staged: [(StemKind, &str); 2],
        context: &WorkContext,
    ) -> Result<Vec<StoredStem>, WorkError> {
        let format = task.output.format;
        let (mut sources, mut stored) = (Vec::new(), Vec::new());
        for (name, path) in staged {
            if !task.output.stems.contains(&name) {
                continue;
            }
            let stem = retry_transient(context, "find_stems", || async {
                Ok(self.staging.stem(path).await?)
            })
            .await?;
            let file = format!("{name}.{}", format.extension());
            self.upload(task, (file.as_str(), format), &stem, context).await?;
            context.point("stem_uploaded").await?;
            stored.push(StoredStem {
                name,
                file,
                content_type: format.content_type().to_owned(),
                size_bytes: stem.size(),
            });
            sources.push((name, stem));
        }
        context.point("uploaded").await?;
        self.store_previews(task, &sources, context).await?;
        context.point("previews_stored").await?;
        Ok(stored)
    }

    async fn upload(
        &self,
        task: &V1Task,
        (file, format): (&str, AudioFormat),
        stem: &StemSource,
        context: &WorkContext,
    ) -> Result<(), WorkError> {
        let upload = || self.upload_once(task, (file, format), stem, context);
        retry_transient(context, "upload", upload).await
    }

    async fn upload_once(
        &self,
        task: &V1Task,
        (file, format): (&str, AudioFormat),
        stem: &StemSource,
        context: &WorkContext,
    ) -> Result<(), WorkError> {
        let content_type = format.content_type();
        let prepared = self
            .tasks
            .prepare_stem(&task.id, file, content_type, stem)
            .await?;
        context.confirm().await?;
        Ok(prepared.publish().await?)
    }

    /// Stores a preview of each stem and the peaks of all, within half of the time that is left. Failures are only logged,
    /// because the task has its stems.
    async fn store_previews(
        &self,
        task: &V1Task,
        stems: &[(StemKind, StemSource)],
        context: &WorkContext,
    ) -> Result<(), WorkError> {
        let Some(scratch) = &self.scratch else {
            return Ok(());
        };
        let ends_at = Instant::now() + context.deadline().saturating_duration_since(Instant::now()) / 2;
        let mut waveforms = BTreeMap::new();
        for (name, stem) in stems {
            let storing = self.store_preview(task, (*name, stem), scratch, ends_at, context);
            let stored = context.stage("preview", run_until(ends_at, storing)).await;
            if let Some(waveform) = unless_failed(task, stored)? {
                waveforms.insert(*name, waveform);
            }
        }
        if waveforms.is_empty() {
            return Ok(());
        }
        let peaks = Bytes::from(peaks_json(&waveforms));
        let storing = run_until(ends_at, async {
            context.confirm().await?;
            let stored = self
                .tasks
                .put_file(&task.id, PEAKS_FILE, "application/json", peaks);
            Ok(stored.await?)
        });
        unless_failed(task, context.stage("peaks", storing).await).map(drop)
    }

    /// Makes and stores the preview of a stem in one try; returns the stem's waveform.
    async fn store_preview(
        &self,
        task: &V1Task,
        (name, stem): (StemKind, &StemSource),
        scratch: &Scratch,
        ends_at: Instant,
        context: &WorkContext,
    ) -> Result<Waveform, WorkError> {
        let control = Control {
            deadline: Some(ends_at),
            ..context.control()
        };
        let preview = make_preview(&self.staging, stem, scratch, control).await?;
        let file = format!("preview_{name}.flac");
        self.upload_once(task, (file.as_str(), AudioFormat::Flac), &preview.audio, context)
            .await?;
        Ok(preview.waveform)
    }

    /// Schedules the webhook and stores the outcome, unless the task has ended meanwhile.
    async fn end(
        &self,
        task: &V1Task,
        record: &StoredTask,
        ending: Ending,
        context: &WorkContext,
    ) -> Result<Finished, WorkError> {
        let now = unix_time().as_secs();
        let outcome = StoredOutcome {
            version: VERSION,
            id: task.id.clone(),
            state: ending.state(),
            finished_at: now,
            started_at: ending.started_at,
            stems: ending.stems,
            error: ending.error,
        };
        // The uploads may have taken minutes.
        if let Err(ended) = self.open_task(task, context).await? {
            return self.settle(task, ended, context).await;
        }
        if let Some(url) = &record.webhook_url {
            self.schedule_webhook(record, url, now, context).await?;
            context.point("webhook_scheduled").await?;
        }
        let created = retry_transient(context, "write_outcome", || async {
            context.confirm().await?;
            Ok(self.tasks.create_outcome(&outcome).await?)
        })
        .await?;
        context.point("outcome_written").await?;
        let state = match created {
            Created::New => outcome.state,
            Created::Exists => {
                let found = retry_transient(context, "read_outcome", || async {
                    Ok(self.tasks.outcome(&task.id).await?)
                })
                .await?;
                found.map_or(EndState::Erased, |found| found.state)
            }
        };
        if state == EndState::Erased && record.webhook_url.is_some() {
            retry_transient(context, "remove_webhook", || async {
                Ok(self.tasks.remove_delivery(now, &task.id).await?)
            })
            .await?;
        }
        self.settle(task, state, context).await
    }

    /// Schedules the webhook for `now`, which its deliverer delays until the outcome is stored.
    async fn schedule_webhook(
        &self,
        record: &StoredTask,
        url: &str,
        now: u64,
        context: &WorkContext,
    ) -> Result<(), WorkError> {
        let delivery = Delivery {
            id: record.id.clone(),
            client: record.client.clone(),
            url: url.to_owned(),
            attempts: 0,
            scheduled_at: now,
        };
        retry_transient(context, "schedule_webhook", || async {
            context.confirm().await?;
            Ok(self.tasks.schedule_delivery(now, &delivery).await?)
        })
        .await
    }

    /// Completes a task that ended in this state: one that did not succeed has no stems.
    async fn settle(
        &self,
        task: &V1Task,
        state: EndState,
        context: &WorkContext,
    ) -> Result<Finished, WorkError> {
        if state != EndState::Succeeded {
            retry_transient(context, "remove_stems", || async {
                Ok(self.tasks.remove_stems(&task.id).await?)
            })
            .await?;
        }
        retry_transient(context, "close_task", || self.close(task)).await?;
        tracing::info!(task_uuid = %task.id, ?state, "Task ended");
        // The staged stems of a failure are kept: they may be its only copy.
        Ok(Finished::unpublished(state != EndState::Failed))
    }

    async fn close(&self, task: &V1Task) -> Result<(), WorkError> {
        match &task.client {
            Some(client) => Ok(self.tasks.close_open(client, &task.id).await?),
            None => Ok(()),
        }
    }
}

impl V1Task {
    fn new(id: &TaskId, task: &ApiTask) -> Self {
        Self {
            id: id.clone(),
            client: Some(task.client.clone()),
            output: task.output.clone(),
        }
    }

    /// Other implementations write WAV, whatever was requested.
    fn of_another_implementation(id: &TaskId, task: ApiTask) -> Self {
        Self {
            id: id.clone(),
            client: Some(task.client),
            output: Output {
                stems: task.output.stems,
                ..Output::default()
            },
        }
    }
}

impl Ending {
    fn failure(error: StoredError, started_at: Option<u64>) -> Self {
        Self {
            stems: Vec::new(),
            error: Some(error),
            started_at,
        }
    }

    fn state(&self) -> EndState {
        match self.error {
            None => EndState::Succeeded,
            Some(_) => EndState::Failed,
        }
    }
}

/// Runs a step until `ends_at`.
async fn run_until<T>(
    ends_at: Instant,
    step: impl Future<Output = Result<T, WorkError>>,
) -> Result<T, WorkError> {
    let done = tokio::time::timeout_at(ends_at.into(), step).await;
    done.unwrap_or_else(|elapsed| Err(WorkError::new(ErrorClass::TimedOut, elapsed)))
}

/// The result of a step that may fail without failing the task, unless this worker has lost the task.
fn unless_failed<T>(task: &V1Task, done: Result<T, WorkError>) -> Result<Option<T>, WorkError> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.class() == ErrorClass::Interrupted => Err(error),
        Err(error) => {
            tracing::warn!(task_uuid = %task.id, %error, "Cannot store a preview of the stems");
            Ok(None)
        }
    }
}
