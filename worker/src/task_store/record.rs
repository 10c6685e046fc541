//! Records: the tasks as clients posted them.

use std::collections::BTreeMap;

use separation_contract::api_task::Output;
use separation_contract::message::TaskId;
use serde::{Deserialize, Serialize};

/// A task as its client posted it. Never changed once it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredTask {
    /// Version of the format: [`VERSION`](super::VERSION).
    #[serde(deserialize_with = "super::version::known")]
    pub version: u32,
    /// The task.
    pub id: TaskId,
    /// Name of the client, which alone sees the task.
    pub client: String,
    /// SHA-256 of the request, to recognize a repeated one.
    pub fingerprint: String,
    /// When it was accepted, Unix seconds.
    pub created_at: u64,
    /// The song.
    pub input: StoredInput,
    /// The requested stems.
    pub output: Output,
    /// Address for the webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_url: Option<String>,
    /// The client's own data.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// W3C trace context of the request.
    pub traceparent: String,
}

/// The song of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredInput {
    /// Origin of the song.
    pub source: InputSource,
    /// Its name at the client, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// Its length, if known when the record is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<f64>,
}

/// Origin of a song.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "url", rename_all = "snake_case")]
pub enum InputSource {
    /// A part of the request.
    File,
    /// A link.
    Url(String),
    /// An upload that has the ID of the task.
    Upload,
}
