//! The bucket of finished stems: stems under their final object keys, and the final manifests.

use separation_contract::message::TaskId;
use separation_contract::names;
use serde::{Deserialize, Serialize};

use super::manifest::{MAX_BYTES, VERSION};
use super::{PreparedObject, S3, StemSource, StorageError, public_url};
use crate::settings::{ObjectAddress, S3Settings, SettingError};

/// The bucket of finished stems.
#[derive(Debug, Clone)]
pub struct Finals {
    s3: S3,
    settings: S3Settings,
    bucket: String,
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
    pub fn success(task: &TaskId, finals: &Finals, webhook: WebhookState, finished_at: u64) -> Self {
        Self {
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
        let (address, content_type) = (self.address(key), names::STEM_CONTENT_TYPE);
        match stem {
            StemSource::File { file, .. } => {
                let prepared = self.s3.prepare_upload(&file.path(), &address, content_type).await;
                prepared.map_err(|error| error.at(file.resolved()))
            }
            StemSource::Object {
                address: source,
                size,
            } => self.s3.prepare_copy(source, *size, &address, content_type).await,
        }
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
