//! Topics, consumer groups and the names of objects, as the existing system has them.

use crate::message::TaskId;

/// Topic of tasks waiting to be separated.
pub const TASK_TOPIC: &str = "uvr_tasks";

/// Topic of results waiting to be uploaded.
pub const RESULT_TOPIC: &str = "uvr_results";

/// Consumer group of the processors.
pub const PROCESSOR_GROUP: &str = "uvr_processor_group";

/// Consumer group of the uploaders.
pub const UPLOADER_GROUP: &str = "uvr_uploader_group";

/// Content type of stems.
pub const STEM_CONTENT_TYPE: &str = "audio/wav";

/// Topic for messages of `topic` that nobody can work on.
pub fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}_dead_letters")
}

/// Name of a task's vocals, as file and as object key.
pub fn vocals_key(task: &TaskId) -> String {
    format!("{task}_vocals.wav")
}

/// Name of a task's instrumental, as file and as object key.
pub fn instrumental_key(task: &TaskId) -> String {
    format!("{task}_instrumental.wav")
}

/// Name of a task's manifest beside its stems.
pub fn manifest_key(task: &TaskId) -> String {
    format!("{task}.json")
}

/// Name of a task's song while it waits; it ends so whatever the real format is.
pub fn input_name(task: &TaskId) -> String {
    format!("{task}_input.wav")
}

/// Name of what the API keeps of a task beside its song, until the task is over.
pub fn record_name(task: &TaskId) -> String {
    format!("{task}_task.json")
}
