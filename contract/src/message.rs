//! Messages: tasks, and the results of tasks.
//!
//! Nothing here trusts what it reads: a message that is not one says why, and whom to tell if that much can be read.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The largest message that is read; tasks are hundreds of bytes.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// The longest name of a task; it becomes part of file names, which end at 255 bytes.
const MAX_TASK_ID_BYTES: usize = 128;

/// The longest text of an error in a result.
const MAX_ERROR_BYTES: usize = 2_000;

/// The name of a task: letters, digits, `-`, `_` and `.`, so that it can be part of a file's name and of an object's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskId(String);

/// Why a text is no task's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TaskIdError {
    /// It is empty or too long.
    #[error("task_uuid must have 1 to {MAX_TASK_ID_BYTES} characters")]
    Length,
    /// It has characters that file names or object keys cannot hold, or that lead elsewhere.
    #[error(
        "task_uuid may only have letters, digits, `-`, `_` and `.`, and must begin with a letter or digit"
    )]
    Characters,
}

impl TaskId {
    /// A task's name from text.
    ///
    /// # Errors
    /// When the text could not be part of a file's name.
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

    /// The name as text.
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
    /// The task's name.
    pub task_uuid: TaskId,
    /// Where the song is: a path on the shared volume, or `s3://bucket/key`.
    pub audio_path: String,
    /// Who is told when it is done, if anybody.
    pub hook_url: Option<String>,
    /// How often it was put back after a failure.
    pub retry_count: u32,
    /// The message as it came, unknown fields included.
    fields: Map<String, Value>,
}

/// What became of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskResult {
    /// The task's name.
    pub task_uuid: TaskId,
    /// Who is told, if anybody.
    pub hook_url: Option<String>,
    /// Stems, or the error.
    pub outcome: Outcome,
    /// Position of the task's message, as `topic/partition@offset`. A task that is posted again has another, so that
    /// its result is told from a repeated one. Results of other implementations have none.
    pub task_message: Option<String>,
}

/// Stems, or why there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Both stems lie where other workers can read them.
    Success {
        /// Path or `s3://` address of the vocals.
        vocals_path: String,
        /// Path or `s3://` address of the instrumental.
        instrumental_path: String,
    },
    /// There are none.
    Failure {
        /// Why, for the caller.
        error_message: String,
    },
}

/// Why a message is no task or no result, and whom to tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Malformed {
    /// What is wrong with the message.
    pub error: MalformedError,
    /// The task and its caller, where that much could be read.
    pub known: Option<(TaskId, Option<String>)>,
}

/// What is wrong with a message.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MalformedError {
    /// There is no value.
    #[error("the message is empty")]
    Empty,
    /// It is larger than any task.
    #[error("the message has {bytes} bytes, more than {MAX_MESSAGE_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It is not JSON.
    #[error("the message is not JSON: {0}")]
    NotJson(String),
    /// It is JSON, and not an object.
    #[error("the message is not a JSON object")]
    NotAnObject,
    /// A field is not there.
    #[error("the field `{0}` is missing")]
    Missing(&'static str),
    /// A field is of another type.
    #[error("the field `{field}` is not {expected}")]
    WrongType {
        /// Its name.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A task's name that cannot be used.
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
            fields,
        }
    }

    /// Reads a message's value.
    ///
    /// # Errors
    /// When it is no task.
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
                        expected: "a count",
                    })
                })?,
        };
        Ok(Self {
            task_uuid,
            audio_path,
            hook_url,
            retry_count,
            fields,
        })
    }

    /// When it was posted, in seconds since 1970, where the message says so.
    pub fn timestamp(&self) -> Option<f64> {
        self.fields.get("timestamp")?.as_f64()
    }

    /// The value of the message.
    pub fn to_json(&self) -> String {
        Value::Object(self.fields.clone()).to_string()
    }
}

impl TaskResult {
    /// A failure, with a text short enough for any message.
    pub fn failure(task_uuid: TaskId, hook_url: Option<String>, error_message: &str) -> Self {
        let end = error_message.floor_char_boundary(MAX_ERROR_BYTES);
        Self {
            task_uuid,
            hook_url,
            outcome: Outcome::Failure {
                error_message: error_message[..end].to_owned(),
            },
            task_message: None,
        }
    }

    /// Reads a message's value.
    ///
    /// # Errors
    /// When it is no result.
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
            Outcome::Failure { error_message } => {
                fields.insert("success".into(), false.into());
                fields.insert("error_message".into(), error_message.as_str().into());
            }
        }
        fields.insert("hook_url".into(), self.hook_url.as_deref().into());
        if let Some(task_message) = &self.task_message {
            fields.insert("task_message".into(), task_message.as_str().into());
        }
        Value::Object(fields).to_string()
    }
}

/// The value of a message that is put back: the same fields, unknown ones included, and `retry_count` one higher.
///
/// Gives the new count with it, or nothing for a value that is no JSON object.
pub fn put_back(value: &[u8]) -> Option<(u32, String)> {
    let mut fields: Map<String, Value> = serde_json::from_slice(value).ok()?;
    let before = fields.get("retry_count").and_then(Value::as_u64).unwrap_or(0);
    let count = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
    fields.insert("retry_count".into(), count.into());
    Some((count, Value::Object(fields).to_string()))
}

/// Fields, task and caller.
type Common = (Map<String, Value>, TaskId, Option<String>);

/// What both kinds of messages have: an object, a task's name, a caller.
fn common(value: Option<&[u8]>) -> Result<Common, Malformed> {
    let nobody = |error| Malformed { error, known: None };
    let bytes = value
        .filter(|bytes| !bytes.is_empty())
        .ok_or(nobody(MalformedError::Empty))?;
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(nobody(MalformedError::TooLarge { bytes: bytes.len() }));
    }
    let json: Value =
        serde_json::from_slice(bytes).map_err(|error| nobody(MalformedError::NotJson(error.to_string())))?;
    let Value::Object(fields) = json else {
        return Err(nobody(MalformedError::NotAnObject));
    };
    let name = text(&fields, "task_uuid").map_err(nobody)?;
    let task_uuid = TaskId::parse(&name).map_err(|error| nobody(error.into()))?;
    let hook_url = match fields.get("hook_url") {
        None | Some(Value::Null) => None,
        Some(Value::String(url)) => Some(url.clone()).filter(|url| !url.is_empty()),
        Some(_) => {
            return Err(Malformed {
                error: MalformedError::WrongType {
                    field: "hook_url",
                    expected: "a text",
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
        })
    }
}

fn text(fields: &Map<String, Value>, field: &'static str) -> Result<String, MalformedError> {
    match fields.get(field) {
        None | Some(Value::Null) => Err(MalformedError::Missing(field)),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(MalformedError::WrongType {
            field,
            expected: "a text",
        }),
    }
}

#[cfg(test)]
mod tests;
