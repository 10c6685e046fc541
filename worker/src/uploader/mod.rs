//! The uploader: uploads stems to their final object keys, writes the manifest, calls the webhook and records its
//! delivery in the manifest. Results of tasks of the HTTP API v1 are stored in an area of their own instead.
//!
//! The final manifest records which steps are complete, so a repeated result skips them. Must never call a webhook
//! before the manifest contains what it reports, and never remove staged stems that are not under their final object
//! keys.

mod preview;
mod remaining;
mod sweep;
mod v1;

use separation_contract::api_task::ApiTask;
use separation_contract::message::{Malformed, Outcome, TaskId, TaskResult};
use separation_contract::names;

pub use self::sweep::Sweep;

use self::remaining::{Ending, RemainingSteps, remaining_steps};
use self::v1::V1Results;
use crate::clock::unix_time;
use crate::error::ErrorClass;
use crate::storage::{
    FinalManifest, FinalStatus, Finals, Scratch, Staging, StemSource, StorageError, WebhookState,
};
use crate::task_store::TaskStore;
use crate::webhook::{Webhook, WebhookContent, WebhookOutcome};
use crate::work::{FailureReport, Finished, Role, WorkContext, WorkError, retry_transient};

/// Uploads stems and calls webhooks.
#[derive(Debug, Clone)]
pub struct Uploader {
    staging: Staging,
    finals: Finals,
    webhook: Webhook,
    v1: V1Results,
}

/// A result that was uploaded and reported.
const DONE: Finished = Finished::unpublished(true);

impl Uploader {
    /// Uploads from `staging` to `finals`, and stems of the HTTP API v1 to `tasks`. Makes previews in `scratch`; without,
    /// it makes none.
    pub fn new(
        staging: Staging,
        finals: Finals,
        webhook: Webhook,
        tasks: TaskStore,
        scratch: Option<Scratch>,
    ) -> Self {
        Self {
            v1: V1Results::new(staging.clone(), tasks, scratch),
            staging,
            finals,
            webhook,
        }
    }
}

impl Role for Uploader {
    type Message = TaskResult;

    const RECEIVED: &'static str = "Received result";
    const NAME: &'static str = "Uploader";
    const DEAD_LETTERS_FAILURES: bool = true;

    fn parse(&self, value: Option<&[u8]>) -> Result<TaskResult, Malformed> {
        TaskResult::parse(value)
    }

    fn task<'m>(&self, message: &'m TaskResult) -> (&'m TaskId, Option<&'m str>) {
        (&message.task_uuid, message.hook_url.as_deref())
    }

    fn api_task<'m>(&self, message: &'m TaskResult) -> Option<&'m ApiTask> {
        message.v1.as_ref()
    }

    async fn find_completed(&self, message: &TaskResult) -> Result<Option<Finished>, WorkError> {
        if let Some(task) = self.v1.task_of(message).await? {
            return self.v1.find_completed(&task).await;
        }
        let manifest = self.manifest(&message.task_uuid).await?;
        Ok(match remaining_steps(manifest, ending_of(message)) {
            RemainingSteps::Nothing => Some(DONE),
            RemainingSteps::Webhook(_) | RemainingSteps::Everything => None,
        })
    }

    async fn work(&self, message: &TaskResult, context: &WorkContext) -> Result<Finished, WorkError> {
        let v1 = retry_transient(context, "read_record", || self.v1.task_of(message)).await?;
        if let Some(task) = v1 {
            return self.v1.work(&task, message, context).await;
        }
        let task = &message.task_uuid;
        let found = retry_transient(context, "read_manifest", || self.manifest(task)).await?;
        let manifest = match remaining_steps(found, ending_of(message)) {
            RemainingSteps::Nothing => return Ok(DONE),
            RemainingSteps::Webhook(manifest) => manifest,
            RemainingSteps::Everything => {
                let manifest = self.upload_stems(message, context).await?;
                self.write_manifest(&manifest, context).await?;
                tracing::info!(task_uuid = %task, status = ?manifest.status, "Stems uploaded");
                context.point("final_manifest_written").await?;
                manifest
            }
        };
        if let Some(manifest) = self
            .deliver_webhook(manifest, message.hook_url.as_deref(), context)
            .await?
        {
            context.point("webhook_delivered").await?;
            self.write_manifest(&manifest, context).await?;
        }
        Ok(DONE)
    }

    async fn report_failure(
        &self,
        failure: FailureReport<'_>,
        context: &WorkContext,
    ) -> Result<Finished, WorkError> {
        let v1 = retry_transient(context, "read_record", || self.v1.task_of_failure(&failure)).await?;
        if let Some(task) = v1 {
            return self.v1.report_failure(&task, &failure, context).await;
        }
        let found = retry_transient(context, "read_manifest", || self.manifest(failure.task_uuid)).await?;
        let message = Some(failure.message);
        let manifest = match remaining_steps(found, Ending::Failure { message }) {
            RemainingSteps::Nothing => return Ok(reported(None)),
            // A task that succeeded is not reported as failed.
            RemainingSteps::Webhook(manifest) => manifest,
            RemainingSteps::Everything => {
                let state = first_state(failure.hook_url);
                let (task, now) = (failure.task_uuid, unix_time().as_secs());
                let manifest = FinalManifest::failed(task, failure.reason, message, state, now);
                self.write_manifest(&manifest, context).await?;
                manifest
            }
        };
        let status = manifest.status;
        if let Some(manifest) = self.deliver_webhook(manifest, failure.hook_url, context).await? {
            self.write_manifest(&manifest, context).await?;
        }
        Ok(reported(Some(status)))
    }

    async fn clean_up(&self, message: &TaskResult, finished: &Finished) {
        let task = &message.task_uuid;
        let report = |removed: Result<(), StorageError>| {
            if let Err(error) = removed {
                let problem = crate::work::chain(&error);
                tracing::warn!(task_uuid = %task, error = problem, "Cannot remove a task's staged files");
            }
        };
        match &message.outcome {
            Outcome::Success {
                vocals_path,
                instrumental_path,
            } if finished.success => {
                report(self.staging.remove(task).await);
                for path in [vocals_path, instrumental_path] {
                    report(self.staging.remove_uvr5_stem(task, path).await);
                }
            }
            // The staged stems are the only copy.
            Outcome::Success { .. } => {}
            // A failure stored no stems; staged ones may belong to an attempt that succeeded. The final manifest now
            // holds the task's status.
            Outcome::Failure { .. } => report(self.staging.delete_record(task).await),
        }
    }
}

/// The stages of processing a result, in order.
impl Uploader {
    /// Uploads the stems of a success, then returns the manifest to write.
    async fn upload_stems(
        &self,
        message: &TaskResult,
        context: &WorkContext,
    ) -> Result<FinalManifest, WorkError> {
        let (task, state) = (&message.task_uuid, first_state(message.hook_url.as_deref()));
        match &message.outcome {
            Outcome::Success {
                vocals_path,
                instrumental_path,
            } => {
                if let Some([vocals, instrumental]) = self
                    .find_stems(task, [vocals_path, instrumental_path], context)
                    .await?
                {
                    self.upload(&vocals, &names::vocals_key(task), context).await?;
                    context.point("vocals_uploaded").await?;
                    self.upload(&instrumental, &names::instrumental_key(task), context)
                        .await?;
                    context.point("uploaded").await?;
                }
                let provenance = retry_transient(context, "read_staging_manifest", || async {
                    Ok(self.staging.provenance(task, vocals_path).await?)
                });
                let (provenance, now) = (provenance.await?, unix_time().as_secs());
                Ok(FinalManifest::success(task, &self.finals, provenance, state, now))
            }
            Outcome::Failure { error_message, .. } => {
                let failed = message.task_message.as_deref();
                let now = unix_time().as_secs();
                Ok(FinalManifest::failed(task, error_message, failed, state, now))
            }
        }
    }

    /// Both staged stems; none if they are already under their final object keys, which uvr5-api's uploader may have
    /// done without a manifest.
    async fn find_stems(
        &self,
        task: &TaskId,
        paths: [&str; 2],
        context: &WorkContext,
    ) -> Result<Option<[StemSource; 2]>, WorkError> {
        retry_transient(context, "find_stems", || async {
            match self.stems(paths).await {
                Err(StorageError::Missing { .. }) if self.finals.has_stems(task).await? => Ok(None),
                Err(StorageError::Missing { location }) => Err(WorkError::new(
                    ErrorClass::Permanent,
                    format!(
                        "{location} does not exist, and the task's stems are not under their final object keys either"
                    ),
                )),
                found => Ok(Some(found?)),
            }
        })
        .await
    }

    async fn stems(&self, [vocals, instrumental]: [&str; 2]) -> Result<[StemSource; 2], StorageError> {
        Ok([
            self.staging.stem(vocals).await?,
            self.staging.stem(instrumental).await?,
        ])
    }

    /// Uploads a stem to its final object key.
    async fn upload(&self, stem: &StemSource, key: &str, context: &WorkContext) -> Result<(), WorkError> {
        retry_transient(context, "upload", || async {
            let prepared = self.finals.prepare_stem(stem, key).await?;
            context.confirm().await?;
            Ok(prepared.publish().await?)
        })
        .await
    }

    /// Calls the webhook if it is pending, and returns the manifest with the delivery's state. A delivery that fails is
    /// recorded and does not fail the result.
    async fn deliver_webhook(
        &self,
        manifest: FinalManifest,
        hook_url: Option<&str>,
        context: &WorkContext,
    ) -> Result<Option<FinalManifest>, WorkError> {
        if manifest.webhook != WebhookState::Pending {
            return Ok(None);
        }
        let Some(hook_url) = hook_url else {
            return Ok(Some(manifest.with_webhook_state(WebhookState::None)));
        };
        context.confirm().await?;
        let content = webhook_content(&manifest);
        let delivered = context
            .stage("webhook", async {
                Ok(self.webhook.deliver(hook_url, &content, context.trace).await)
            })
            .await?;
        let (webhook, outcome) = match delivered {
            Ok(()) => (WebhookState::Delivered, "delivered"),
            Err(error) => {
                let problem = crate::work::chain(&error);
                tracing::error!(task_uuid = %manifest.task_uuid, error = problem, "The webhook failed; not retried");
                (WebhookState::Failed, "failed")
            }
        };
        context.metrics().webhook(outcome);
        Ok(Some(manifest.with_webhook_state(webhook)))
    }

    async fn manifest(&self, task: &TaskId) -> Result<Option<FinalManifest>, WorkError> {
        Ok(self.finals.manifest(task).await?)
    }

    async fn write_manifest(&self, manifest: &FinalManifest, context: &WorkContext) -> Result<(), WorkError> {
        retry_transient(context, "write_manifest", || async {
            context.confirm().await?;
            Ok(self.finals.write_manifest(manifest).await?)
        })
        .await
    }
}

/// How the task of a result ended.
fn ending_of(message: &TaskResult) -> Ending<'_> {
    match message.outcome {
        Outcome::Success { .. } => Ending::Success,
        Outcome::Failure { .. } => Ending::Failure {
            message: message.task_message.as_deref(),
        },
    }
}

/// The webhook's state in a new manifest.
fn first_state(hook_url: Option<&str>) -> WebhookState {
    hook_url.map_or(WebhookState::None, |_| WebhookState::Pending)
}

/// The webhook's content, from the manifest alone, so that a repeated webhook has the same content.
fn webhook_content(manifest: &FinalManifest) -> WebhookContent<'_> {
    let outcome = match (&manifest.vocals, &manifest.instrumental) {
        (Some(vocals), Some(instrumental)) => WebhookOutcome::Success { vocals, instrumental },
        _ => WebhookOutcome::Failed {
            error_message: manifest.error_message.as_deref().unwrap_or("unknown error"),
        },
    };
    WebhookContent {
        task_uuid: &manifest.task_uuid,
        timestamp: manifest.finished_at,
        outcome,
    }
}

/// The outcome of a refused message: a success if an earlier attempt succeeded.
fn reported(status: Option<FinalStatus>) -> Finished {
    Finished::unpublished(status == Some(FinalStatus::Success))
}
