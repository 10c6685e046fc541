//! The end of a task: its stems under their final keys, and the manifest that says how it ended.

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
    /// Both stems are there.
    Success,
    /// There are none.
    Failed,
}

/// Whether the caller knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookState {
    /// Not yet.
    Pending,
    /// The caller said so.
    Delivered,
    /// The caller could not be told, and is not tried again.
    Failed,
    /// There is nobody to tell.
    None,
}

/// Says how a task ended. Written when the stems are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalManifest {
    version: u32,
    /// The task.
    pub task_uuid: TaskId,
    /// How it ended.
    pub status: FinalStatus,
    /// Link to the vocals, of a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocals: Option<String>,
    /// Link to the instrumental, of a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instrumental: Option<String>,
    /// Why there are no stems, of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// Whether the caller knows.
    pub webhook: WebhookState,
    /// When it ended, in seconds since 1970.
    pub finished_at: u64,
    /// Of a failure: position of the message that failed, as `topic/partition@offset`, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_message: Option<String>,
}

impl FinalManifest {
    /// The manifest of a task with both stems.
    pub fn success(task: &TaskId, finals: &Finals, webhook: WebhookState, finished_at: u64) -> Self {
        Self {
            version: VERSION,
            task_uuid: task.clone(),
            status: FinalStatus::Success,
            vocals: Some(finals.link(&names::vocals_key(task))),
            instrumental: Some(finals.link(&names::instrumental_key(task))),
            error_message: None,
            webhook,
            finished_at,
            failed_message: None,
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
            version: VERSION,
            task_uuid: task.clone(),
            status: FinalStatus::Failed,
            vocals: None,
            instrumental: None,
            error_message: Some(error_message.to_owned()),
            webhook,
            finished_at,
            failed_message: failed_message.map(str::to_owned),
        }
    }

    /// The same, with what became of the webhook.
    #[must_use]
    pub fn told(self, webhook: WebhookState) -> Self {
        Self { webhook, ..self }
    }
}

impl Finals {
    /// The bucket that `settings` name.
    ///
    /// # Errors
    /// When they name none.
    pub fn new(s3: S3, settings: &S3Settings) -> Result<Self, SettingError> {
        Ok(Self {
            s3,
            bucket: settings.bucket()?.to_owned(),
            settings: settings.clone(),
        })
    }

    /// How a task ended, if it did. A manifest that cannot be read counts as none.
    ///
    /// # Errors
    /// When the store cannot be asked.
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
            .map_err(|error| tracing::warn!(task_uuid = %task, %error, "A final manifest cannot be read and is ignored"))
            .ok();
        Ok(manifest.filter(|manifest| manifest.version == VERSION && manifest.task_uuid == *task))
    }

    /// Says how a task ended.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn write_manifest(&self, manifest: &FinalManifest) -> Result<(), StorageError> {
        let address = self.address(&names::manifest_key(&manifest.task_uuid));
        let json = serde_json::to_vec(manifest).expect("texts and numbers always become JSON");
        self.s3
            .write_small(&address, json, Some("application/json"))
            .await
    }

    /// Sends a stem up to the request that shows it under `key`.
    ///
    /// # Errors
    /// When it is not there or the store fails.
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

    /// Whether both stems are there under their final keys.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn has_stems(&self, task: &TaskId) -> Result<bool, StorageError> {
        for key in [names::vocals_key(task), names::instrumental_key(task)] {
            if self.s3.head(&self.address(&key)).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The public link to a key.
    pub fn link(&self, key: &str) -> String {
        public_url(&self.settings, &self.bucket, key)
    }

    fn address(&self, key: &str) -> ObjectAddress {
        ObjectAddress {
            bucket: self.bucket.clone(),
            key: key.to_owned(),
        }
    }
}
