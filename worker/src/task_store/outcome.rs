//! Outcomes: how tasks ended.

use separation_contract::api_task::{FailureCode, StemKind};
use separation_contract::message::TaskId;
use serde::{Deserialize, Serialize};

/// How a task ended. The first outcome that is stored decides; only an erasure replaces it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredOutcome {
    /// Version of the format: [`VERSION`](super::VERSION).
    #[serde(deserialize_with = "super::version::known")]
    pub version: u32,
    /// The task.
    pub id: TaskId,
    /// How it ended.
    pub state: EndState,
    /// When it ended, Unix seconds.
    pub finished_at: u64,
    /// When its last attempt began, Unix seconds; none if no attempt is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<u64>,
    /// The finished stems; empty unless it succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stems: Vec<StoredStem>,
    /// The reason of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StoredError>,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndState {
    /// All requested stems are stored.
    Succeeded,
    /// It has no stems.
    Failed,
    /// Its client canceled it.
    Cancelled,
    /// Its client deleted it.
    Erased,
}

/// A finished stem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredStem {
    /// The stem.
    pub name: StemKind,
    /// Its file name in the store, such as `vocals.flac`.
    pub file: String,
    /// The MIME type.
    pub content_type: String,
    /// Size in bytes.
    pub size_bytes: u64,
}

/// The reason of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredError {
    /// For programs.
    pub code: FailureCode,
    /// For people.
    pub message: String,
}
