//! The uploader: stems to their final keys, the manifest, the caller's webhook, the manifest again.
//!
//! A step that an earlier try finished is not done again: the final manifest says how far it came. Must never call a
//! webhook before the manifest says what it will tell, and never remove stems that are not under their final keys.

mod rest;

use separation_contract::message::{Malformed, Outcome, TaskId, TaskResult};
use separation_contract::names;

use self::rest::{Ending, Rest, rest};
use crate::clock::unix_time;
use crate::error::ErrorClass;
use crate::storage::{FinalManifest, FinalStatus, Finals, Staging, StemSource, StorageError, WebhookState};
use crate::webhook::{self, Notice, Webhook};
use crate::work::{Claim, Finished, Refusal, Role, WorkError, retrying};

/// Uploads stems and tells callers.
#[derive(Debug, Clone)]
pub struct Uploader {
    staging: Staging,
    finals: Finals,
    webhook: Webhook,
}

/// A result's work, done.
const DONE: Finished = Finished {
    publish: None,
    success: true,
};

impl Uploader {
    /// An uploader of what lies in `staging` to `finals`.
    pub fn new(staging: Staging, finals: Finals, webhook: Webhook) -> Self {
        Self {
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
    const KEEPS_FAILURES: bool = true;

    fn parse(&self, value: Option<&[u8]>) -> Result<TaskResult, Malformed> {
        TaskResult::parse(value)
    }

    fn task<'m>(&self, message: &'m TaskResult) -> (&'m TaskId, Option<&'m str>) {
        (&message.task_uuid, message.hook_url.as_deref())
    }

    async fn recognise(&self, message: &TaskResult) -> Result<Option<Finished>, WorkError> {
        let manifest = self.manifest(&message.task_uuid).await?;
        Ok(match rest(manifest, ending_of(message)) {
            Rest::Nothing => Some(DONE),
            Rest::Webhook(_) | Rest::Everything => None,
        })
    }

    async fn work(&self, message: &TaskResult, claim: &Claim) -> Result<Finished, WorkError> {
        let task = &message.task_uuid;
        let found = retrying(claim, "read_manifest", || self.manifest(task)).await?;
        let manifest = match rest(found, ending_of(message)) {
            Rest::Nothing => return Ok(DONE),
            Rest::Webhook(manifest) => manifest,
            Rest::Everything => {
                let manifest = self.conclude(message, claim).await?;
                self.write_manifest(&manifest, claim).await?;
                tracing::info!(task_uuid = %task, status = ?manifest.status, "Stems uploaded");
                claim.point("concluded").await?;
                manifest
            }
        };
        if let Some(told) = self.tell(manifest, message.hook_url.as_deref(), claim).await? {
            claim.point("told").await?;
            self.write_manifest(&told, claim).await?;
        }
        Ok(DONE)
    }

    async fn refuse(&self, refusal: Refusal<'_>, claim: &Claim) -> Result<Finished, WorkError> {
        let found = retrying(claim, "read_manifest", || self.manifest(refusal.task_uuid)).await?;
        let message = Some(refusal.message);
        let manifest = match rest(found, Ending::Failure { message }) {
            Rest::Nothing => return Ok(refused(None)),
            // What is known to have succeeded is not told to have failed.
            Rest::Webhook(manifest) => manifest,
            Rest::Everything => {
                let state = first_state(refusal.hook_url);
                let (task, now) = (refusal.task_uuid, unix_time().as_secs());
                let manifest = FinalManifest::failed(task, refusal.reason, message, state, now);
                self.write_manifest(&manifest, claim).await?;
                manifest
            }
        };
        let status = manifest.status;
        if let Some(told) = self.tell(manifest, refusal.hook_url, claim).await? {
            self.write_manifest(&told, claim).await?;
        }
        Ok(refused(Some(status)))
    }

    async fn clean_up(&self, message: &TaskResult, finished: &Finished) {
        let task = &message.task_uuid;
        let report = |removed: Result<(), StorageError>| {
            if let Err(error) = removed {
                let problem = crate::work::chain(&error);
                tracing::warn!(task_uuid = %task, error = problem, "What was staged could not be removed");
            }
        };
        match &message.outcome {
            Outcome::Success {
                vocals_path,
                instrumental_path,
            } if finished.success => {
                report(self.staging.remove(task).await);
                for path in [vocals_path, instrumental_path] {
                    report(self.staging.remove_foreign_stem(task, path).await);
                }
            }
            // The stems are all there is of the work that was done.
            Outcome::Success { .. } => {}
            // A failure stored no stems; what lies there may be of a try that succeeded. The final manifest tells of the
            // task from now on.
            Outcome::Failure { .. } => report(self.staging.delete_record(task).await),
        }
    }
}

/// The stages of a result's work, in their order.
impl Uploader {
    /// What the manifest will say: of a success only once both stems are under their final keys.
    async fn conclude(&self, message: &TaskResult, claim: &Claim) -> Result<FinalManifest, WorkError> {
        let (task, state) = (&message.task_uuid, first_state(message.hook_url.as_deref()));
        match &message.outcome {
            Outcome::Success {
                vocals_path,
                instrumental_path,
            } => {
                if let Some([vocals, instrumental]) = self
                    .find_stems(task, [vocals_path, instrumental_path], claim)
                    .await?
                {
                    self.upload(&vocals, &names::vocals_key(task), claim).await?;
                    claim.point("vocals_uploaded").await?;
                    self.upload(&instrumental, &names::instrumental_key(task), claim)
                        .await?;
                    claim.point("uploaded").await?;
                }
                Ok(FinalManifest::success(
                    task,
                    &self.finals,
                    state,
                    unix_time().as_secs(),
                ))
            }
            Outcome::Failure { error_message } => {
                let failed = message.task_message.as_deref();
                let now = unix_time().as_secs();
                Ok(FinalManifest::failed(task, error_message, failed, state, now))
            }
        }
    }

    /// Both stems where the result says they are, or nothing if they are under their final keys already: another make
    /// of uploader, which writes no manifest, may have come that far.
    async fn find_stems(
        &self,
        task: &TaskId,
        paths: [&str; 2],
        claim: &Claim,
    ) -> Result<Option<[StemSource; 2]>, WorkError> {
        retrying(claim, "find_stems", || async {
            match self.stems(paths).await {
                Err(StorageError::Missing { .. }) if self.finals.has_stems(task).await? => Ok(None),
                Err(StorageError::Missing { place }) => Err(WorkError::new(
                    ErrorClass::Permanent,
                    format!(
                        "there is no {place}, and the task's stems are not under their final keys either"
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

    /// Puts a stem under its final key.
    async fn upload(&self, stem: &StemSource, key: &str, claim: &Claim) -> Result<(), WorkError> {
        retrying(claim, "upload", || async {
            let prepared = self.finals.prepare_stem(stem, key).await?;
            claim.confirm().await?;
            Ok(prepared.publish().await?)
        })
        .await
    }

    /// Tells the caller, if that is still to be done, and gives what the manifest says then. A caller that cannot be
    /// told is not waited for.
    async fn tell(
        &self,
        manifest: FinalManifest,
        hook_url: Option<&str>,
        claim: &Claim,
    ) -> Result<Option<FinalManifest>, WorkError> {
        if manifest.webhook != WebhookState::Pending {
            return Ok(None);
        }
        let Some(hook_url) = hook_url else {
            return Ok(Some(manifest.told(WebhookState::None)));
        };
        claim.confirm().await?;
        let notice = notice_of(&manifest);
        let rung = claim
            .stage("webhook", async {
                Ok(self.webhook.ring(hook_url, &notice, claim.trace).await)
            })
            .await?;
        let webhook = match rung {
            Ok(()) => WebhookState::Delivered,
            Err(error) => {
                let problem = crate::work::chain(&error);
                tracing::error!(task_uuid = %manifest.task_uuid, error = problem, "The webhook failed for good");
                WebhookState::Failed
            }
        };
        Ok(Some(manifest.told(webhook)))
    }

    async fn manifest(&self, task: &TaskId) -> Result<Option<FinalManifest>, WorkError> {
        Ok(self.finals.manifest(task).await?)
    }

    async fn write_manifest(&self, manifest: &FinalManifest, claim: &Claim) -> Result<(), WorkError> {
        retrying(claim, "write_manifest", || async {
            claim.confirm().await?;
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

/// What a new manifest says about the webhook.
fn first_state(hook_url: Option<&str>) -> WebhookState {
    hook_url.map_or(WebhookState::None, |_| WebhookState::Pending)
}

/// What the caller is told: what the manifest says, so that a repeated webhook says the same.
fn notice_of(manifest: &FinalManifest) -> Notice<'_> {
    let outcome = match (&manifest.vocals, &manifest.instrumental) {
        (Some(vocals), Some(instrumental)) => webhook::Outcome::Success { vocals, instrumental },
        _ => webhook::Outcome::Failed {
            error_message: manifest.error_message.as_deref().unwrap_or("unknown error"),
        },
    };
    Notice {
        task_uuid: &manifest.task_uuid,
        timestamp: manifest.finished_at,
        outcome,
    }
}

/// What a refused message comes to: its work may have been done after all.
fn refused(status: Option<FinalStatus>) -> Finished {
    Finished {
        publish: None,
        success: status == Some(FinalStatus::Success),
    }
}
