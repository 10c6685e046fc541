//! The bucket of finished stems: stems under their final object keys, and the final manifests.

use std::time::Duration;

use separation_contract::message::TaskId;
use separation_contract::names;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::manifest::{MAX_BYTES, VERSION};
use super::{Deletions, ListedObject, PreparedObject, S3, StemSource, StorageError, public_url};
use crate::model::Provenance;
use crate::settings::{ObjectAddress, S3Settings, SettingError};

/// Minimum age of a manifest before it is deleted: longer than Kafka retains a task's messages, seven days by default. A
/// message that is read again, from an earlier offset, is then still recognized as completed.
const MANIFESTS_MIN_AGE: Duration = Duration::from_secs(8 * 24 * 60 * 60);

/// The bucket of finished stems.
#[derive(Debug, Clone)]
pub struct Finals {
    s3: S3,
    settings: S3Settings,
    bucket: String,
}

/// Times before which objects are past their retention, in Unix seconds.
#[derive(Debug, Clone, Copy)]
struct Expiry {
    stems: u64,
    /// Not after `stems`.
    manifests: u64,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinalStatus {
    /// Both stems are uploaded.
    Success,
    /// The task failed and has no stems.
    Failed,
}

/// Delivery of the webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookState {
    /// Not yet delivered.
    Pending,
    /// The receiver accepted it.
    Delivered,
    /// The delivery failed and is not retried.
    Failed,
    /// No webhook was requested.
    None,
}

/// The final manifest: how a task ended. Written after the stems are uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalManifest {
    version: u32,
    /// The task.
    pub task_uuid: TaskId,
    /// How it ended.
    pub status: FinalStatus,
    /// Of a success: link to the vocals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocals: Option<String>,
    /// Of a success: link to the instrumental.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instrumental: Option<String>,
    /// Of a success: license and origin of the model, if they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// Of a failure: the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// Delivery of the webhook.
    pub webhook: WebhookState,
    /// When it ended, Unix seconds.
    pub finished_at: u64,
    /// Of a failure: position of the message that failed, as `topic/partition@offset`, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_message: Option<String>,
}

impl FinalManifest {
    /// The manifest of a task with both stems.
    pub fn success(
        task: &TaskId,
        finals: &Finals,
        provenance: Option<Provenance>,
        webhook: WebhookState,
        finished_at: u64,
    ) -> Self {
        Self {
            provenance,
            vocals: Some(finals.link(&names::vocals_key(task))),
            instrumental: Some(finals.link(&names::instrumental_key(task))),
            ..Self::new(task, FinalStatus::Success, webhook, finished_at)
        }
    }

    /// The manifest of a task without stems.
    ///
    /// `failed_message` is the position of the message that failed.
    pub fn failed(
        task: &TaskId,
        error_message: &str,
        failed_message: Option<&str>,
        webhook: WebhookState,
        finished_at: u64,
    ) -> Self {
        Self {
            error_message: Some(error_message.to_owned()),
            failed_message: failed_message.map(str::to_owned),
            ..Self::new(task, FinalStatus::Failed, webhook, finished_at)
        }
    }

    fn new(task: &TaskId, status: FinalStatus, webhook: WebhookState, finished_at: u64) -> Self {
        Self {
            version: VERSION,
            task_uuid: task.clone(),
            status,
            vocals: None,
            instrumental: None,
            provenance: None,
            error_message: None,
            webhook,
            finished_at,
            failed_message: None,
        }
    }

    /// The same manifest with another webhook state.
    #[must_use]
    pub fn with_webhook_state(self, webhook: WebhookState) -> Self {
        Self { webhook, ..self }
    }
}

impl Finals {
    /// The bucket of `settings`.
    ///
    /// # Errors
    /// When no bucket is set.
    pub fn new(s3: S3, settings: &S3Settings) -> Result<Self, SettingError> {
        Ok(Self {
            s3,
            bucket: settings.bucket()?.to_owned(),
            settings: settings.clone(),
        })
    }

    /// The final manifest of a task; none if it does not exist or is not valid.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn manifest(&self, task: &TaskId) -> Result<Option<FinalManifest>, StorageError> {
        let bytes = match self
            .s3
            .read_small(&self.address(&names::manifest_key(task)), MAX_BYTES)
            .await
        {
            Err(StorageError::Missing { .. } | StorageError::TooLarge { .. }) => return Ok(None),
            read => read?,
        };
        let manifest: Option<FinalManifest> = serde_json::from_slice(&bytes)
            .map_err(|error| tracing::warn!(task_uuid = %task, %error, "Ignoring a final manifest that is not valid"))
            .ok();
        Ok(manifest.filter(|manifest| manifest.version == VERSION && manifest.task_uuid == *task))
    }

    /// Writes the final manifest of a task.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn write_manifest(&self, manifest: &FinalManifest) -> Result<(), StorageError> {
        let address = self.address(&names::manifest_key(&manifest.task_uuid));
        let json = serde_json::to_vec(manifest).expect("strings and numbers always serialize");
        self.s3
            .write_small(&address, json, Some("application/json"))
            .await
    }

    /// Sends a stem's data, up to the last request, which makes it visible under the object key `key`.
    ///
    /// # Errors
    /// When the stem does not exist or the store fails.
    pub async fn prepare_stem(&self, stem: &StemSource, key: &str) -> Result<PreparedObject, StorageError> {
        let address = self.address(key);
        stem.prepare(&self.s3, &address, names::STEM_CONTENT_TYPE).await
    }

    /// Whether both stems exist under their final object keys.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn has_stems(&self, task: &TaskId) -> Result<bool, StorageError> {
        for key in [names::vocals_key(task), names::instrumental_key(task)] {
            if self.s3.head(&self.address(&key)).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Deletes stems that are older than `retention` at `now`, in Unix seconds by the store's clock, and manifests that are
    /// also older than eight days; returns the number of objects. A stem is recognized by its task's ID, a UUID as the
    /// API assigns it, or by its manifest. Other objects stay. Continues after an object that cannot be deleted.
    ///
    /// # Errors
    /// When the store cannot list the objects; a later call continues.
    pub async fn remove_old(&self, now: u64, retention: Duration) -> Result<usize, StorageError> {
        let expiry = Expiry {
            stems: now.saturating_sub(retention.as_secs()),
            manifests: now.saturating_sub(retention.max(MANIFESTS_MIN_AGE).as_secs()),
        };
        let mut pages = self.s3.pages_without_directories(&self.address(""));
        let mut deletions = Deletions::default();
        while let Some(page) = pages.next_page().await? {
            for object in page.iter().filter(|object| object.modified_at < expiry.stems) {
                deletions.record(self.remove_with_stems(object, expiry).await);
            }
        }
        Ok(deletions.finish())
    }

    /// Deletes an object that is older than the retention of stems, and the stems that its manifest names; returns the
    /// number of deleted objects.
    async fn remove_with_stems(&self, object: &ListedObject, expiry: Expiry) -> Result<usize, StorageError> {
        let keys = self.removable(object, expiry).await?;
        for key in &keys {
            self.s3.delete(&self.address(key)).await?;
        }
        Ok(keys.len())
    }

    /// The object keys to delete, in order, when an object is older than the retention of stems.
    async fn removable(&self, object: &ListedObject, expiry: Expiry) -> Result<Vec<String>, StorageError> {
        let name = object.key.strip_prefix(&self.settings.stems_prefix);
        let name = name.unwrap_or_default();
        if is_stem_of_api(name) {
            return Ok(vec![name.to_owned()]);
        }
        let Some(Ok(task)) = name.strip_suffix(".json").map(TaskId::parse) else {
            return Ok(Vec::new());
        };
        let is_expired = object.modified_at < expiry.manifests;
        if has_assigned_id(&task) && !is_expired {
            return Ok(Vec::new());
        }
        // None if the object belongs to another program.
        let Some(manifest) = self.manifest(&task).await? else {
            return Ok(Vec::new());
        };
        let mut keys = Vec::new();
        if manifest.status == FinalStatus::Success && !has_assigned_id(&task) {
            // Without the manifest they would not be recognized.
            match self.old_stems(&task, expiry).await? {
                Some(stems) => keys.extend(stems),
                None => return Ok(Vec::new()),
            }
        }
        if is_expired {
            keys.push(names::manifest_key(&task));
        }
        Ok(keys)
    }

    /// The existing stems of a task. None if one is new: the task was posted again, and its manifest will be replaced.
    async fn old_stems(&self, task: &TaskId, expiry: Expiry) -> Result<Option<Vec<String>>, StorageError> {
        let mut stems = Vec::new();
        for key in [names::vocals_key(task), names::instrumental_key(task)] {
            let address = self.address(&key);
            let listed = self.s3.list(&address, 1).await?;
            match listed.first().filter(|stem| stem.key == address.key) {
                Some(stem) if stem.modified_at >= expiry.stems => return Ok(None),
                Some(_) => stems.push(key),
                None => {}
            }
        }
        Ok(Some(stems))
    }

    /// The public link to an object key.
    pub fn link(&self, key: &str) -> String {
        let ObjectAddress { bucket, key } = self.address(key);
        public_url(&self.settings, &bucket, &key)
    }

    fn address(&self, key: &str) -> ObjectAddress {
        ObjectAddress {
            bucket: self.bucket.clone(),
            key: format!("{}{key}", self.settings.stems_prefix),
        }
    }
}

/// Whether an object is a stem of a task with an assigned ID.
fn is_stem_of_api(name: &str) -> bool {
    let task = name.rsplit_once('_').map(|(task, _)| TaskId::parse(task));
    let Some(Ok(task)) = task else {
        return false;
    };
    has_assigned_id(&task) && (name == names::vocals_key(&task) || name == names::instrumental_key(&task))
}

/// Whether a task's ID is a UUID, as the API assigns it.
fn has_assigned_id(task: &TaskId) -> bool {
    Uuid::try_parse(task.as_str()).is_ok()
}
