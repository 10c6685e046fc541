//! Events, as Kubernetes keeps them.

use serde_json::Value;

/// What was said of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Kind and name, such as `Pod/name`.
    pub object: String,
    /// In one word.
    pub reason: String,
    /// In a sentence.
    pub message: String,
    /// Whether something is wrong.
    pub is_warning: bool,
}

impl Event {
    pub(super) fn read(event: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let about = &event["involvedObject"];
        Self {
            object: format!("{}/{}", text(&about["kind"]), text(&about["name"])),
            reason: text(&event["reason"]),
            message: text(&event["message"]),
            is_warning: event["type"] == "Warning",
        }
    }
}
