//! Kubernetes events.

use serde_json::Value;

/// An event about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Kind and name, such as `Pod/name`.
    pub object: String,
    /// The reason, in one word.
    pub reason: String,
    /// The message.
    pub message: String,
    /// Whether its type is `Warning`.
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
