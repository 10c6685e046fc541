//! The status of a task, derived from its record, its manifests and the processors' offset. No I/O.

use separation_contract::api_task::ApiTask;
use separation_contract::message::TaskId;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::traits::QueueProgress;
use crate::kafka::Position;
use crate::storage::{FinalManifest, FinalStatus, WebhookState};

/// The stored record of a task, written before the task is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TaskRecord {
    /// Version of the format.
    pub(super) version: u32,
    /// When the song was posted, Unix seconds.
    pub(super) timestamp: u64,
    /// The partition of the published task, or the one that was chosen for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) partition: Option<i32>,
    /// The offset of the published task.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
}

impl TaskRecord {
    const VERSION: u32 = 1;

    pub(super) fn new(timestamp: u64, position: Option<Position>) -> Self {
        Self {
            version: Self::VERSION,
            timestamp,
            partition: position.map(|position| position.partition),
            offset: position.map(|position| position.offset),
        }
    }

    /// Of a task that is not published yet, with the partition that was chosen for it.
    pub(super) fn placed(timestamp: u64, partition: Option<i32>) -> Self {
        Self {
            partition,
            ..Self::new(timestamp, None)
        }
    }

    /// Partition and offset of the published task.
    pub(super) fn position(&self) -> Option<Position> {
        let (partition, offset) = self.partition.zip(self.offset)?;
        Some(Position { partition, offset })
    }

    /// Whether the processors' committed offset is past the task.
    pub(super) fn is_passed_by(&self, progress: Option<QueueProgress>) -> bool {
        let committed = progress.and_then(|progress| progress.committed);
        self.position()
            .zip(committed)
            .is_some_and(|(position, committed)| committed > position.offset)
    }

    pub(super) fn to_json(self) -> Vec<u8> {
        serde_json::to_vec(&self).expect("numbers always serialize")
    }

    /// The record of a task of the HTTP API v1. The uploader recognizes such a task by it if its processor is of another
    /// implementation, whose results lack `v1`.
    pub(super) fn to_json_of(self, v1: &ApiTask) -> Vec<u8> {
        #[derive(Serialize)]
        struct RecordOfV1<'a> {
            #[serde(flatten)]
            record: TaskRecord,
            v1: &'a ApiTask,
        }
        serde_json::to_vec(&RecordOfV1 { record: self, v1 }).expect("strings and numbers always serialize")
    }

    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// Whether a record is of a task of the HTTP API v1.
    pub(super) fn is_of_v1(json: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct RecordOfV1 {
            v1: Option<IgnoredAny>,
        }
        serde_json::from_slice::<RecordOfV1>(json).is_ok_and(|record| record.v1.is_some())
    }
}

/// Stage of a task
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    /// Waiting for a processor
    Queued,
    /// A processor has started it
    Processing,
    /// The processors' committed offset is past it, and there are neither stems nor a failure: its failure is being
    /// delivered, it is queued again for a retry, or it was skipped because it was posted before the consumer group's
    /// first offset
    Unknown,
    /// Its stems are staged and being uploaded
    Separated,
    /// Its stems can be downloaded
    Done,
    /// Failed, without stems
    Failed,
}

/// Status of a task
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct TaskStatus {
    /// UUID of the task
    #[schema(value_type = String, example = "0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cf")]
    task_uuid: TaskId,
    /// Stage of the task
    status: Stage,
    /// While queued: number of tasks before it in its partition, if known
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    /// When it was posted, Unix seconds
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<u64>,
    /// If done: link to the vocals
    #[serde(skip_serializing_if = "Option::is_none")]
    vocals: Option<String>,
    /// If done: link to the instrumental
    #[serde(skip_serializing_if = "Option::is_none")]
    instrumental: Option<String>,
    /// If failed: the reason
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
    /// If done or failed: delivery of the webhook (pending, delivered or failed); none if no webhook was requested
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    webhook: Option<WebhookState>,
    /// When it was done or failed, Unix seconds
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<u64>,
}

/// What was read about a task.
#[derive(Debug, Default)]
pub(super) struct TaskEvidence {
    pub(super) finished: Option<FinalManifest>,
    pub(super) separated: bool,
    pub(super) record: Option<TaskRecord>,
    pub(super) progress: Option<QueueProgress>,
}

/// The status of a task; none if there is no such task.
pub(super) fn decide(task_uuid: TaskId, evidence: TaskEvidence) -> Option<TaskStatus> {
    let timestamp = evidence.record.map(|record| record.timestamp);
    let at = |status, position| TaskStatus {
        task_uuid,
        status,
        position,
        timestamp,
        vocals: None,
        instrumental: None,
        error_message: None,
        webhook: None,
        finished_at: None,
    };
    if let Some(finished) = evidence.finished {
        let status = match finished.status {
            FinalStatus::Success => Stage::Done,
            FinalStatus::Failed => Stage::Failed,
        };
        return Some(TaskStatus {
            vocals: finished.vocals,
            instrumental: finished.instrumental,
            error_message: finished.error_message,
            webhook: Some(finished.webhook),
            finished_at: Some(finished.finished_at),
            ..at(status, None)
        });
    }
    if evidence.separated {
        return Some(at(Stage::Separated, None));
    }
    let (status, position) = queue_stage(evidence.record?.position(), evidence.progress);
    Some(at(status, position))
}

/// The stage of a task without stems, and the number of tasks before it.
fn queue_stage(position: Option<Position>, progress: Option<QueueProgress>) -> (Stage, Option<u64>) {
    let known = position.and_then(|position| {
        let progress = progress?;
        let ahead = position.offset.checked_sub(progress.committed?)?;
        Some((ahead, progress.begun))
    });
    match known {
        None => (Stage::Queued, None),
        Some((..0, _)) => (Stage::Unknown, None),
        Some((0, true)) => (Stage::Processing, None),
        Some((ahead, _)) => (Stage::Queued, u64::try_from(ahead).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSITION: Position = Position {
        partition: 3,
        offset: 10,
    };

    #[track_caller]
    #[allow(clippy::needless_pass_by_value, reason = "called with literals")]
    fn check(evidence: TaskEvidence, expected: serde_json::Value) {
        let id = TaskId::parse("abc").expect("a name");
        let status = serde_json::to_value(decide(id, evidence)).expect("JSON");
        assert_eq!(status, expected);
    }

    fn progress(committed: i64, begun: bool) -> Option<QueueProgress> {
        Some(QueueProgress {
            committed: Some(committed),
            begun,
            ..QueueProgress::default()
        })
    }

    fn queued(progress: Option<QueueProgress>) -> TaskEvidence {
        TaskEvidence {
            record: Some(TaskRecord::new(7, Some(POSITION))),
            progress,
            ..TaskEvidence::default()
        }
    }

    #[test]
    fn a_task_without_records_is_not_found() {
        check(TaskEvidence::default(), serde_json::Value::Null);
    }

    #[test]
    fn a_queued_task_has_the_number_of_tasks_before_it() {
        let at = |position: u64| serde_json::json!({"task_uuid": "abc", "status": "queued", "position": position, "timestamp": 7});
        check(queued(progress(4, true)), at(6));
        check(queued(progress(10, false)), at(0));
        let unknown = serde_json::json!({"task_uuid": "abc", "status": "queued", "timestamp": 7});
        check(queued(None), unknown.clone());
        check(queued(Some(QueueProgress::default())), unknown.clone());
        let unplaced = TaskEvidence {
            record: Some(TaskRecord::new(7, None)),
            progress: progress(4, false),
            ..TaskEvidence::default()
        };
        check(unplaced, unknown);
    }

    #[test]
    fn a_started_task_at_the_committed_offset_is_processing() {
        let processing = serde_json::json!({"task_uuid": "abc", "status": "processing", "timestamp": 7});
        check(queued(progress(10, true)), processing);
    }

    /// As with `latest` and a group that made its first commit after the task was posted.
    #[test]
    fn a_task_before_the_committed_offset_without_stems_is_unknown() {
        let unknown = serde_json::json!({"task_uuid": "abc", "status": "unknown", "timestamp": 7});
        check(queued(progress(11, false)), unknown.clone());
        check(queued(progress(25, true)), unknown);
    }

    #[test]
    fn an_offset_past_a_task_is_recognized() {
        let record = TaskRecord::new(7, Some(POSITION));
        let past = |committed| record.is_passed_by(progress(committed, true));
        assert_eq!([9, 10, 11].map(past), [false, false, true]);
        assert!(!record.is_passed_by(None));
        assert!(!TaskRecord::new(7, None).is_passed_by(progress(11, true)));
    }

    #[test]
    fn stems_and_manifests_take_precedence_over_the_queue() {
        let separated = TaskEvidence {
            separated: true,
            ..queued(progress(10, true))
        };
        check(
            separated,
            serde_json::json!({"task_uuid": "abc", "status": "separated", "timestamp": 7}),
        );
        let manifest = br#"{"version":1,"task_uuid":"abc","status":"success","vocals":"https://v","instrumental":"https://i",
            "error_message":null,"webhook":"delivered","finished_at":9}"#;
        let done = TaskEvidence {
            finished: serde_json::from_slice(manifest).ok(),
            separated: true,
            ..TaskEvidence::default()
        };
        check(
            done,
            serde_json::json!({"task_uuid": "abc", "status": "done", "vocals": "https://v", "instrumental": "https://i",
                "webhook": "delivered", "finished_at": 9}),
        );
        let manifest = br#"{"version":1,"task_uuid":"abc","status":"failed","error_message":"not audio","webhook":"none","finished_at":9}"#;
        let failed = TaskEvidence {
            finished: serde_json::from_slice(manifest).ok(),
            ..queued(None)
        };
        check(
            failed,
            serde_json::json!({"task_uuid": "abc", "status": "failed", "error_message": "not audio", "webhook": "none",
                "finished_at": 9, "timestamp": 7}),
        );
    }

    #[test]
    fn a_record_is_parsed_as_it_is_written() {
        let placed = TaskRecord::placed(7, Some(3));
        assert_eq!(placed.position(), None, "it is not published");
        for record in [
            TaskRecord::new(7, Some(POSITION)),
            placed,
            TaskRecord::new(7, None),
        ] {
            assert_eq!(TaskRecord::parse(&record.to_json()), Some(record));
            assert!(!TaskRecord::is_of_v1(&record.to_json()));
        }
        assert_eq!(TaskRecord::parse(b"{}"), None);
        let v1 = ApiTask {
            client: "acme".to_owned(),
            output: separation_contract::api_task::Output::default(),
        };
        let record = TaskRecord::new(7, Some(POSITION));
        let json = record.to_json_of(&v1);
        assert_eq!(TaskRecord::parse(&json), Some(record));
        assert!(TaskRecord::is_of_v1(&json));
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(json["v1"]["client"], "acme");
    }
}
