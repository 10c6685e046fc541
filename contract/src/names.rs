//! Names of topics, consumer groups and objects, compatible with uvr5-api.

use crate::message::TaskId;

/// Default topic of tasks.
pub const TASK_TOPIC: &str = "uvr_tasks";

/// Default topic of results.
pub const RESULT_TOPIC: &str = "uvr_results";

/// Default consumer group of the processors.
pub const PROCESSOR_GROUP: &str = "uvr_processor_group";

/// Default consumer group of the uploaders.
pub const UPLOADER_GROUP: &str = "uvr_uploader_group";

/// The separation model of workers whose settings name none.
pub const DEFAULT_MODEL: &str = "spleeter";

/// Content type of stems.
pub const STEM_CONTENT_TYPE: &str = "audio/wav";

/// Header of a dead letter: why it is one.
pub const DEAD_LETTER_REASON: &str = "dead-letter-reason";

/// Header of a dead letter: the topic that it was consumed from.
pub const DEAD_LETTER_TOPIC: &str = "dead-letter-topic";

/// Header of a dead letter: its partition in that topic.
pub const DEAD_LETTER_PARTITION: &str = "dead-letter-partition";

/// Header of a dead letter: its offset in that partition.
pub const DEAD_LETTER_OFFSET: &str = "dead-letter-offset";

/// Header of a dead letter whose value was cut: the size of the complete value, in bytes.
pub const DEAD_LETTER_TRUNCATED_FROM: &str = "dead-letter-truncated-from";

/// Default dead-letter topic of `topic`.
pub fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}_dead_letters")
}

/// File name and object key of a task's vocals.
pub fn vocals_key(task: &TaskId) -> String {
    format!("{task}_vocals.wav")
}

/// File name and object key of a task's instrumental.
pub fn instrumental_key(task: &TaskId) -> String {
    format!("{task}_instrumental.wav")
}

/// Object key of a task's manifest, next to its stems.
pub fn manifest_key(task: &TaskId) -> String {
    format!("{task}.json")
}

/// File name of a task's input; it ends in `.wav` regardless of the actual format.
pub fn input_name(task: &TaskId) -> String {
    format!("{task}_input.wav")
}

/// File name of the API's record of a task, stored next to its input until the task is finished.
pub fn record_name(task: &TaskId) -> String {
    format!("{task}_task.json")
}
