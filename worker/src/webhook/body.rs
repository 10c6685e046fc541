//! The webhook's JSON body.

use separation_contract::message::TaskId;
use serde::Serialize;

/// The content of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebhookContent<'a> {
    /// UUID of the task.
    pub task_uuid: &'a TaskId,
    /// When the task ended, Unix seconds.
    pub timestamp: u64,
    /// How the task ended.
    pub outcome: WebhookOutcome<'a>,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum WebhookOutcome<'a> {
    /// Both stems are uploaded.
    Success {
        /// Link to the vocals.
        vocals: &'a str,
        /// Link to the instrumental.
        instrumental: &'a str,
    },
    /// The task failed.
    Failed {
        /// The reason.
        error_message: &'a str,
    },
}

/// The body, in uvr5-api's layout.
#[derive(Serialize)]
struct Body<'a> {
    task_uuid: &'a str,
    status: &'static str,
    timestamp: u64,
    #[serde(flatten)]
    outcome: WebhookOutcome<'a>,
}

impl WebhookContent<'_> {
    pub(super) fn to_json(self) -> Vec<u8> {
        let body = Body {
            task_uuid: self.task_uuid.as_str(),
            status: match self.outcome {
                WebhookOutcome::Success { .. } => "success",
                WebhookOutcome::Failed { .. } => "failed",
            },
            timestamp: self.timestamp,
            outcome: self.outcome,
        };
        serde_json::to_vec(&body).expect("strings and numbers always serialize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(outcome: WebhookOutcome<'_>, expected: &str) {
        let task_uuid = TaskId::parse("t1").unwrap();
        let content = WebhookContent {
            task_uuid: &task_uuid,
            timestamp: 1_763_683_200,
            outcome,
        };
        assert_eq!(String::from_utf8(content.to_json()).unwrap(), expected);
    }

    #[test]
    fn bodies_have_the_layout_of_uvr5_api() {
        check(
            WebhookOutcome::Success {
                vocals: "https://s/t1_vocals.wav",
                instrumental: "https://s/t1_instrumental.wav",
            },
            r#"{"task_uuid":"t1","status":"success","timestamp":1763683200,"vocals":"https://s/t1_vocals.wav","instrumental":"https://s/t1_instrumental.wav"}"#,
        );
        check(
            WebhookOutcome::Failed {
                error_message: "no \"audio\"",
            },
            r#"{"task_uuid":"t1","status":"failed","timestamp":1763683200,"error_message":"no \"audio\""}"#,
        );
    }
}
