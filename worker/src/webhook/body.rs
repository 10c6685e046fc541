//! What callers read.

use separation_contract::message::TaskId;
use serde::Serialize;

/// What a caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice<'a> {
    /// The task.
    pub task_uuid: &'a TaskId,
    /// When it ended, in seconds since 1970.
    pub timestamp: u64,
    /// How it ended.
    pub outcome: Outcome<'a>,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Outcome<'a> {
    /// There are stems.
    Success {
        /// Link to the vocals.
        vocals: &'a str,
        /// Link to the instrumental.
        instrumental: &'a str,
    },
    /// There are none.
    Failed {
        /// Why.
        error_message: &'a str,
    },
}

/// The body in the existing system's layout.
#[derive(Serialize)]
struct Body<'a> {
    task_uuid: &'a str,
    status: &'static str,
    timestamp: u64,
    #[serde(flatten)]
    outcome: Outcome<'a>,
}

impl Notice<'_> {
    /// The body of the request.
    pub(super) fn to_json(self) -> Vec<u8> {
        let body = Body {
            task_uuid: self.task_uuid.as_str(),
            status: match self.outcome {
                Outcome::Success { .. } => "success",
                Outcome::Failed { .. } => "failed",
            },
            timestamp: self.timestamp,
            outcome: self.outcome,
        };
        serde_json::to_vec(&body).expect("texts and numbers always become JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(outcome: Outcome<'_>, expected: &str) {
        let task_uuid = TaskId::parse("t1").unwrap();
        let notice = Notice {
            task_uuid: &task_uuid,
            timestamp: 1_763_683_200,
            outcome,
        };
        assert_eq!(String::from_utf8(notice.to_json()).unwrap(), expected);
    }

    #[test]
    fn bodies_are_those_of_the_existing_system() {
        check(
            Outcome::Success {
                vocals: "https://s/t1_vocals.wav",
                instrumental: "https://s/t1_instrumental.wav",
            },
            r#"{"task_uuid":"t1","status":"success","timestamp":1763683200,"vocals":"https://s/t1_vocals.wav","instrumental":"https://s/t1_instrumental.wav"}"#,
        );
        check(
            Outcome::Failed {
                error_message: "no \"audio\"",
            },
            r#"{"task_uuid":"t1","status":"failed","timestamp":1763683200,"error_message":"no \"audio\""}"#,
        );
    }
}
