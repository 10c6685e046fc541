//! Messages: tasks, and the results of tasks.
//!
//! Parsers trust no input. The error for a malformed message gives the reason, and the task and webhook URL if these
//! can be parsed.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api_task::{ApiTask, FailureCode};

/// The largest message that is parsed; tasks have hundreds of bytes.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// The longest task id; it is part of file names, which are limited to 255 bytes.
const MAX_TASK_ID_BYTES: usize = 128;

/// The longest error message in a result.
const MAX_ERROR_BYTES: usize = 2_000;

/// The field of tasks and results that holds an [`ApiTask`].
const V1: &str = "v1";

/// A task id: letters, digits, `-`, `_` and `.`, so that it can be part of file names and object keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskId(String);

/// Why a text is not a valid task id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TaskIdError {
    /// It is empty or too long.
    #[error("task_uuid must have 1 to {MAX_TASK_ID_BYTES} characters")]
    Length,
    /// It has characters that are not allowed in file names or object keys, or that could form another path.
    #[error(
        "task_uuid may only have letters, digits, `-`, `_` and `.`, and must begin with a letter or digit"
    )]
    Characters,
}

impl TaskId {
    /// Parses a task id.
    ///
    /// # Errors
    /// When the text is not safe as part of a file name.
    pub fn parse(text: &str) -> Result<Self, TaskIdError> {
        if text.is_empty() || text.len() > MAX_TASK_ID_BYTES {
            return Err(TaskIdError::Length);
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !text.chars().all(plain) || !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(TaskIdError::Characters);
        }
        Ok(Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for TaskId {
    type Error = TaskIdError;

    fn try_from(text: String) -> Result<Self, TaskIdError> {
        Self::parse(&text)
    }
}

impl From<TaskId> for String {
    fn from(id: TaskId) -> Self {
        id.0
    }
}

/// A song to separate.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The task's id.
    pub task_uuid: TaskId,
    /// Location of the song: a path on the shared volume, or `s3://bucket/key`.
    pub audio_path: String,
    /// URL of its webhook, if any.
    pub hook_url: Option<String>,
    /// How often it was requeued after a failure.
    pub retry_count: u32,
    /// Its client and output if it was posted to the HTTP API v1.
    pub v1: Option<ApiTask>,
    /// All fields of the message, unknown ones included.
    fields: Map<String, Value>,
}

/// The result of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskResult {
    /// The task's id.
    pub task_uuid: TaskId,
    /// URL of its webhook, if any.
    pub hook_url: Option<String>,
    /// Stems, or the error.
    pub outcome: Outcome,
    /// Position of the task's message, as `topic/partition@offset`. A task that is posted again has a different one,
    /// which distinguishes its result from a duplicate. Results of other implementations have none.
    pub task_message: Option<String>,
    /// When the task's last attempt began, in Unix seconds, if known. Results of other implementations have none.
    pub started_at: Option<u64>,
    /// The task's client and output if it was posted to the HTTP API v1. Results of other implementations have none.
    pub v1: Option<ApiTask>,
}

/// Stems, or the error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Both stems are staged.
    Success {
        /// Path or `s3://` address of the vocals.
        vocals_path: String,
        /// Path or `s3://` address of the instrumental.
        instrumental_path: String,
    },
    /// The task failed.
    Failure {
        /// The reason, as the webhook reports it.
        error_message: String,
        /// The reason's code. Results of other implementations have none.
        error_code: Option<FailureCode>,
    },
}

/// The error for a malformed message, with its task if that can be parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Malformed {
    /// The problem.
    pub error: MalformedError,
    /// The task and the URL of its webhook, if they could be parsed.
    pub known: Option<(TaskId, Option<String>)>,
}

/// Why a message is malformed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MalformedError {
    /// It has no value.
    #[error("the message is empty")]
    Empty,
    /// It is larger than [`MAX_MESSAGE_BYTES`].
    #[error("the message has {bytes} bytes, more than {MAX_MESSAGE_BYTES}")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
    },
    /// It is not JSON.
    #[error("the message is not JSON: {0}")]
    NotJson(String),
    /// It is JSON, but not an object.
    #[error("the message is not a JSON object")]
    NotAnObject,
    /// A field is missing.
    #[error("the field `{0}` is missing")]
    Missing(&'static str),
    /// A field has the wrong type.
    #[error("the field `{field}` is not {expected}")]
    WrongType {
        /// The field's name.
        field: &'static str,
        /// The expected type.
        expected: &'static str,
    },
    /// The task id is invalid.
    #[error(transparent)]
    TaskId(#[from] TaskIdError),
}

impl Task {
    /// A new task.
    pub fn new(task_uuid: TaskId, audio_path: String, hook_url: Option<String>, timestamp: u64) -> Self {
        let mut fields = Map::new();
        fields.insert("task_uuid".into(), task_uuid.as_str().into());
        fields.insert("audio_path".into(), audio_path.as_str().into());
        if let Some(hook_url) = &hook_url {
            fields.insert("hook_url".into(), hook_url.as_str().into());
        }
        fields.insert("timestamp".into(), timestamp.into());
        Self {
            task_uuid,
            audio_path,
            hook_url,
            retry_count: 0,
            v1: None,
            fields,
        }
    }

    /// This task as one of the HTTP API v1.
    #[must_use]
    pub fn with_v1(mut self, v1: ApiTask) -> Self {
        self.fields.insert(V1.into(), api_task_value(&v1));
        self.v1 = Some(v1);
        self
    }

    /// Parses a message's value.
    ///
    /// # Errors
    /// When it is not a valid task.
    pub fn parse(value: Option<&[u8]>) -> Result<Self, Malformed> {
        let (fields, task_uuid, hook_url) = common(value)?;
        let known = |error| Malformed {
            error,
            known: Some((task_uuid.clone(), hook_url.clone())),
        };
        let audio_path = text(&fields, "audio_path").map_err(known)?;
        let retry_count = match fields.get("retry_count") {
            None | Some(Value::Null) => 0,
            Some(count) => count
                .as_u64()
                .and_then(|count| u32::try_from(count).ok())
                .ok_or_else(|| {
                    known(MalformedError::WrongType {
                        field: "retry_count",
                        expected: "a non-negative integer",
                    })
                })?,
        };
        Ok(Self {
            task_uuid,
            audio_path,
            hook_url,
            retry_count,
            v1: parse_api_task(&fields),
            fields,
        })
    }

    /// When it was posted, in Unix seconds, if the message has this field.
    pub fn timestamp(&self) -> Option<f64> {
        self.fields.get("timestamp")?.as_f64()
    }

    /// The value of the message.
    pub fn to_json(&self) -> String {
        Value::Object(self.fields.clone()).to_string()
    }
}

impl TaskResult {
    /// A failure; the error message is cut to 2,000 bytes.
    pub fn failure(task_uuid: TaskId, hook_url: Option<String>, error_message: &str) -> Self {
        let end = error_message.floor_char_boundary(MAX_ERROR_BYTES);
        Self {
            task_uuid,
            hook_url,
            outcome: Outcome::Failure {
                error_message: error_message[..end].to_owned(),
                error_code: None,
            },
            task_message: None,
            started_at: None,
            v1: None,
        }
    }

    /// This failure with the code of its reason; a success is unchanged.
    #[must_use]
    pub fn with_error_code(mut self, code: FailureCode) -> Self {
        if let Outcome::Failure { error_code, .. } = &mut self.outcome {
            *error_code = Some(code);
        }
        self
    }

    /// Parses a message's value.
    ///
    /// # Errors
    /// When it is not a valid result.
    pub fn parse(value: Option<&[u8]>) -> Result<Self, Malformed> {
        let (fields, task_uuid, hook_url) = common(value)?;
        let outcome = parse_outcome(&fields).map_err(|error| Malformed {
            error,
            known: Some((task_uuid.clone(), hook_url.clone())),
        })?;
        let task_message = fields.get("task_message").and_then(Value::as_str);
        Ok(Self {
            task_uuid,
            hook_url,
            outcome,
            task_message: task_message.map(str::to_owned),
            started_at: fields.get("started_at").and_then(Value::as_u64),
            v1: parse_api_task(&fields),
        })
    }

    /// The value of the message.
    pub fn to_json(&self) -> String {
        let mut fields = Map::new();
        fields.insert("task_uuid".into(), self.task_uuid.as_str().into());
        match &self.outcome {
            Outcome::Success {
                vocals_path,
                instrumental_path,
            } => {
                fields.insert("success".into(), true.into());
                fields.insert("vocals_path".into(), vocals_path.as_str().into());
                fields.insert("instrumental_path".into(), instrumental_path.as_str().into());
            }
            Outcome::Failure {
                error_message,
                error_code,
            } => {
                fields.insert("success".into(), false.into());
                fields.insert("error_message".into(), error_message.as_str().into());
                if let Some(code) = error_code {
                    fields.insert("error_code".into(), code.as_str().into());
                }
            }
        }
        fields.insert("hook_url".into(), self.hook_url.as_deref().into());
        if let Some(task_message) = &self.task_message {
            fields.insert("task_message".into(), task_message.as_str().into());
        }
        if let Some(started_at) = self.started_at {
            fields.insert("started_at".into(), started_at.into());
        }
        if let Some(v1) = &self.v1 {
            fields.insert(V1.into(), api_task_value(v1));
        }
        Value::Object(fields).to_string()
    }
}

/// The value of a requeued message: the same fields, unknown ones included, and `retry_count` one higher.
///
/// Returns it with the new count; `None` if the value is not a JSON object.
pub fn requeue_value(value: &[u8]) -> Option<(u32, String)> {
    let mut fields: Map<String, Value> = serde_json::from_slice(value).ok()?;
    let before = fields.get("retry_count").and_then(Value::as_u64).unwrap_or(0);
    let count = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
    fields.insert("retry_count".into(), count.into());
    Some((count, Value::Object(fields).to_string()))
}

/// All fields, the task id, and the URL of the webhook.
type Common = (Map<String, Value>, TaskId, Option<String>);

/// Parses what both kinds of messages have.
fn common(value: Option<&[u8]>) -> Result<Common, Malformed> {
    let without_task = |error| Malformed { error, known: None };
    let bytes = value
        .filter(|bytes| !bytes.is_empty())
        .ok_or(without_task(MalformedError::Empty))?;
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(without_task(MalformedError::TooLarge { bytes: bytes.len() }));
    }
    let json: Value = serde_json::from_slice(bytes)
        .map_err(|error| without_task(MalformedError::NotJson(error.to_string())))?;
    let Value::Object(fields) = json else {
        return Err(without_task(MalformedError::NotAnObject));
    };
    let name = text(&fields, "task_uuid").map_err(without_task)?;
    let task_uuid = TaskId::parse(&name).map_err(|error| without_task(error.into()))?;
    let hook_url = match fields.get("hook_url") {
        None | Some(Value::Null) => None,
        Some(Value::String(url)) => Some(url.clone()).filter(|url| !url.is_empty()),
        Some(_) => {
            return Err(Malformed {
                error: MalformedError::WrongType {
                    field: "hook_url",
                    expected: "a string",
                },
                known: Some((task_uuid, None)),
            });
        }
    };
    Ok((fields, task_uuid, hook_url))
}

fn parse_outcome(fields: &Map<String, Value>) -> Result<Outcome, MalformedError> {
    let success = match fields.get("success") {
        None => return Err(MalformedError::Missing("success")),
        Some(Value::Bool(success)) => *success,
        Some(_) => {
            return Err(MalformedError::WrongType {
                field: "success",
                expected: "true or false",
            });
        }
    };
    if success {
        Ok(Outcome::Success {
            vocals_path: text(fields, "vocals_path")?,
            instrumental_path: text(fields, "instrumental_path")?,
        })
    } else {
        Ok(Outcome::Failure {
            error_message: match fields.get("error_message") {
                Some(Value::String(message)) => message.clone(),
                _ => "unknown error".to_owned(),
            },
            error_code: fields
                .get("error_code")
                .and_then(Value::as_str)
                .map(FailureCode::parse),
        })
    }
}

/// The field `v1`. One that is not valid counts as absent, so the task is processed without it.
fn parse_api_task(fields: &Map<String, Value>) -> Option<ApiTask> {
    ApiTask::deserialize(fields.get(V1)?).ok()
}

fn api_task_value(v1: &ApiTask) -> Value {
    serde_json::to_value(v1).expect("all its keys are strings")
}

fn text(fields: &Map<String, Value>, field: &'static str) -> Result<String, MalformedError> {
    match fields.get(field) {
        None | Some(Value::Null) => Err(MalformedError::Missing(field)),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(MalformedError::WrongType {
            field,
            expected: "a string",
        }),
    }
}

#[cfg(test)]
mod tests;
