//! One dead letter: its printed fields, and the message that publishes it again. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use separation_contract::names;
use serde::Serialize;
use serde_json::Value;

use crate::kafka::{Position, StoredMessage};
use crate::telemetry::TraceContext;

/// A message of a dead-letter topic.
pub(super) struct DeadLetter(StoredMessage);

/// The printed fields of a dead letter.
#[derive(Debug, Serialize)]
pub(super) struct LetterReport {
    /// `partition@offset` in the dead-letter topic.
    pub(super) position: String,
    pub(super) time: Option<String>,
    pub(super) task_uuid: Option<String>,
    pub(super) reason: Option<String>,
    /// The topic that it was consumed from, and its `partition@offset` there.
    pub(super) topic: Option<String>,
    pub(super) topic_position: Option<String>,
}

/// Everything that a dead letter has.
#[derive(Debug, Serialize)]
pub(super) struct CompleteLetter {
    #[serde(flatten)]
    pub(super) report: LetterReport,
    pub(super) key: Option<String>,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) value: Option<String>,
}

/// A message to publish.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Replay<'l> {
    pub(super) topic: &'l str,
    pub(super) key: Option<&'l [u8]>,
    pub(super) value: &'l [u8],
    pub(super) trace: TraceContext,
}

/// The topics of a role.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoleTopics<'t> {
    /// The topic that it consumes, the only one that messages are published to.
    pub(super) consumed: &'t str,
    /// The topic that its dead letters are stored in.
    pub(super) dead_letters: &'t str,
}

/// Why a dead letter is not published again.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotReplayable {
    #[error(
        "it has no header {}, so it is not a dead letter of a worker",
        names::DEAD_LETTER_TOPIC
    )]
    NoTopic,
    #[error("its header {} names the dead-letter topic itself", names::DEAD_LETTER_TOPIC)]
    SameTopic,
    #[error(
        "its header {} names the topic {topic:?}, and the role consumes {consumed}; fix: if the header is correct, set \
         --task-topic, or --result-topic with --role uploader",
        names::DEAD_LETTER_TOPIC
    )]
    OtherTopic { topic: String, consumed: String },
    #[error(
        "only the first bytes of {size} are stored (header {}); fix: publish the complete message again",
        names::DEAD_LETTER_TRUNCATED_FROM
    )]
    Truncated { size: String },
}

impl DeadLetter {
    pub(super) fn new(message: StoredMessage) -> Self {
        Self(message)
    }

    pub(super) fn position(&self) -> Position {
        self.0.position
    }

    /// The task: the message key or, without one, the field of the value.
    pub(super) fn task(&self) -> Option<String> {
        if let Some(key) = &self.0.key {
            return Some(text(key));
        }
        let value: Value = serde_json::from_slice(self.0.value.as_deref()?).ok()?;
        value["task_uuid"].as_str().map(str::to_owned)
    }

    pub(super) fn report(&self) -> LetterReport {
        let message = &self.0;
        let header = |name| message.header(name).map(str::to_owned);
        let time = message.timestamp_ms.map(Timestamp::from_millisecond);
        let partition = header(names::DEAD_LETTER_PARTITION);
        let topic_position = partition.zip(header(names::DEAD_LETTER_OFFSET));
        LetterReport {
            position: message.position.to_string(),
            time: time.and_then(Result::ok).map(|time| format!("{time:.0}")),
            task_uuid: self.task(),
            reason: header(names::DEAD_LETTER_REASON),
            topic: header(names::DEAD_LETTER_TOPIC),
            topic_position: topic_position.map(|(partition, offset)| format!("{partition}@{offset}")),
        }
    }

    pub(super) fn complete(&self) -> CompleteLetter {
        let headers = self.0.headers.iter();
        CompleteLetter {
            report: self.report(),
            key: self.0.key.as_deref().map(text),
            headers: headers.map(|(name, value)| (name.clone(), text(value))).collect(),
            value: self.0.value.as_deref().map(text),
        }
    }

    /// The message that publishes it again. Programs that may write to the dead-letter topic choose its header: it must
    /// name the topic that the role consumes.
    pub(super) fn replay(&self, role: RoleTopics<'_>) -> Result<Replay<'_>, NotReplayable> {
        let message = &self.0;
        let topic = message
            .header(names::DEAD_LETTER_TOPIC)
            .ok_or(NotReplayable::NoTopic)?;
        if topic == role.dead_letters {
            return Err(NotReplayable::SameTopic);
        }
        if topic != role.consumed {
            let (topic, consumed) = (topic.to_owned(), role.consumed.to_owned());
            return Err(NotReplayable::OtherTopic { topic, consumed });
        }
        if let Some(size) = message.header(names::DEAD_LETTER_TRUNCATED_FROM) {
            let size = size.to_owned();
            return Err(NotReplayable::Truncated { size });
        }
        let trace = message.header(TraceContext::HEADER).map(str::as_bytes);
        Ok(Replay {
            topic,
            key: message.key.as_deref(),
            value: message.value.as_deref().unwrap_or_default(),
            trace: TraceContext::from_header(trace),
        })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASKS: RoleTopics<'_> = RoleTopics {
        consumed: "tasks",
        dead_letters: "letters",
    };

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn letter(key: Option<&str>, value: &str, headers: &[(&str, &str)]) -> DeadLetter {
        let bytes = |text: &str| text.as_bytes().to_vec();
        DeadLetter::new(StoredMessage {
            position: Position {
                partition: 0,
                offset: 17,
            },
            key: key.map(bytes),
            value: Some(bytes(value)),
            timestamp_ms: Some(1_763_683_200_999),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), bytes(value)))
                .collect(),
        })
    }

    #[test]
    fn the_report_has_the_origin_and_the_reason() {
        let headers = [
            (names::DEAD_LETTER_REASON, "the message is not JSON"),
            (names::DEAD_LETTER_TOPIC, "uvr_tasks"),
            (names::DEAD_LETTER_PARTITION, "3"),
            (names::DEAD_LETTER_OFFSET, "120"),
        ];
        let report = letter(Some("task-1"), "{", &headers).report();
        let expected = serde_json::json!({
            "position": "0@17", "time": "2025-11-21T00:00:00Z", "task_uuid": "task-1",
            "reason": "the message is not JSON", "topic": "uvr_tasks", "topic_position": "3@120"
        });
        assert_eq!(serde_json::to_value(report).unwrap(), expected);
    }

    #[test]
    fn the_task_of_a_message_without_a_key_is_in_its_value() {
        let task = |key, value| letter(key, value, &[]).task();
        assert_eq!(task(None, r#"{"task_uuid": "a"}"#).as_deref(), Some("a"));
        assert_eq!(task(Some("b"), r#"{"task_uuid": "a"}"#).as_deref(), Some("b"));
        assert_eq!(task(None, "{}"), None);
        assert_eq!(task(None, "no task"), None);
    }

    #[test]
    fn a_replay_has_the_key_the_value_and_the_trace_of_the_message() {
        let headers = [(names::DEAD_LETTER_TOPIC, "tasks"), ("traceparent", TRACE)];
        let letter = letter(Some("a"), "{}", &headers);
        let expected = Replay {
            topic: "tasks",
            key: Some(b"a"),
            value: b"{}",
            trace: TRACE.parse().unwrap(),
        };
        assert_eq!(letter.replay(TASKS), Ok(expected));
    }

    #[test]
    fn a_dead_letter_that_cannot_become_its_message_again_is_refused() {
        let refused = |headers: &[(&str, &str)]| letter(None, "", headers).replay(TASKS).err();
        let topic = (names::DEAD_LETTER_TOPIC, "tasks");
        assert_eq!(refused(&[]), Some(NotReplayable::NoTopic));
        let same = (names::DEAD_LETTER_TOPIC, "letters");
        assert_eq!(refused(&[same]), Some(NotReplayable::SameTopic));
        let other = (names::DEAD_LETTER_TOPIC, "results\n");
        let error = refused(&[other]).expect("of another role");
        assert!(error.to_string().contains(r#"the topic "results\n""#), "{error}");
        let cut = (names::DEAD_LETTER_TRUNCATED_FROM, "70000");
        let size = "70000".to_owned();
        assert_eq!(refused(&[topic, cut]), Some(NotReplayable::Truncated { size }));
    }
}
