//! What became of a task, decided from what can be seen of it.

use separation_contract::message::TaskId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::borders::QueueProgress;
use crate::kafka::Place;
use crate::storage::{FinalManifest, FinalStatus, WebhookState};

/// What is kept of a task from the moment it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TaskRecord {
    /// Version of this form.
    pub(super) version: u32,
    /// When it was taken, in seconds since 1970.
    pub(super) timestamp: u64,
    /// Where it is in the queue, once it is there.
    #[serde(flatten)]
    pub(super) place: Option<RecordedPlace>,
}

/// A place in the queue, as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RecordedPlace {
    partition: i32,
    offset: i64,
}

impl TaskRecord {
    /// The version that is written.
    const VERSION: u32 = 1;

    pub(super) fn new(timestamp: u64, place: Option<Place>) -> Self {
        Self {
            version: Self::VERSION,
            timestamp,
            place: place.map(|Place { partition, offset }| RecordedPlace { partition, offset }),
        }
    }

    pub(super) fn place(&self) -> Option<Place> {
        self.place
            .map(|RecordedPlace { partition, offset }| Place { partition, offset })
    }

    /// Whether processors are past the task.
    pub(super) fn is_behind(&self, progress: Option<QueueProgress>) -> bool {
        let committed = progress.and_then(|progress| progress.committed);
        self.place()
            .zip(committed)
            .is_some_and(|(place, committed)| committed > place.offset)
    }

    pub(super) fn to_json(self) -> Vec<u8> {
        serde_json::to_vec(&self).expect("numbers become JSON")
    }

    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }
}

/// How far a task is
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    /// It waits for a processor
    Queued,
    /// A processor has begun with it
    Processing,
    /// Processors are past it, and it left neither stems nor a failure: its failure is being delivered, it is queued again to be
    /// retried, or it was skipped because it was posted before the consumer group's first offset
    Unknown,
    /// Its stems are made and being uploaded
    Separated,
    /// Its stems can be fetched
    Done,
    /// There will be no stems
    Failed,
}

/// What became of a task
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct TaskStatus {
    /// The task
    #[schema(value_type = String, example = "0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cf")]
    task_uuid: TaskId,
    /// How far it is
    status: Stage,
    /// While queued: how many tasks come before it in its partition, where that is known
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    /// When it was posted, in seconds since 1970
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<u64>,
    /// When done: link to the vocals
    #[serde(skip_serializing_if = "Option::is_none")]
    vocals: Option<String>,
    /// When done: link to the instrumental
    #[serde(skip_serializing_if = "Option::is_none")]
    instrumental: Option<String>,
    /// When failed: why
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
    /// When done or failed: pending, delivered or failed; none if nobody asked to be told
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    webhook: Option<WebhookState>,
    /// When it was done or failed, in seconds since 1970
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<u64>,
}

/// All that can be seen of a task.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) finished: Option<FinalManifest>,
    pub(super) separated: bool,
    pub(super) record: Option<TaskRecord>,
    pub(super) progress: Option<QueueProgress>,
}

/// What became of a task; none if there is no such task.
pub(super) fn decide(task_uuid: TaskId, seen: Seen) -> Option<TaskStatus> {
    let timestamp = seen.record.map(|record| record.timestamp);
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
    if let Some(finished) = seen.finished {
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
    if seen.separated {
        return Some(at(Stage::Separated, None));
    }
    let (status, position) = waiting(seen.record?.place(), seen.progress);
    Some(at(status, position))
}

/// How far a task is that has no stems yet, and how many come before it.
fn waiting(place: Option<Place>, progress: Option<QueueProgress>) -> (Stage, Option<u64>) {
    let known = place.and_then(|place| {
        let progress = progress?;
        let ahead = place.offset.checked_sub(progress.committed?)?;
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

    const PLACE: Place = Place {
        partition: 3,
        offset: 10,
    };

    #[track_caller]
    #[allow(clippy::needless_pass_by_value, reason = "called with literals")]
    fn check(seen: Seen, expected: serde_json::Value) {
        let id = TaskId::parse("abc").expect("a name");
        let status = serde_json::to_value(decide(id, seen)).expect("JSON");
        assert_eq!(status, expected);
    }

    fn progress(committed: i64, begun: bool) -> Option<QueueProgress> {
        Some(QueueProgress {
            committed: Some(committed),
            begun,
        })
    }

    fn queued(progress: Option<QueueProgress>) -> Seen {
        Seen {
            record: Some(TaskRecord::new(7, Some(PLACE))),
            progress,
            ..Seen::default()
        }
    }

    #[test]
    fn a_task_that_left_no_trace_is_unknown() {
        check(Seen::default(), serde_json::Value::Null);
    }

    #[test]
    fn a_waiting_task_tells_how_many_come_before_it() {
        let at = |position: u64| serde_json::json!({"task_uuid": "abc", "status": "queued", "position": position, "timestamp": 7});
        check(queued(progress(4, true)), at(6));
        check(queued(progress(10, false)), at(0));
        let unknown = serde_json::json!({"task_uuid": "abc", "status": "queued", "timestamp": 7});
        check(queued(None), unknown.clone());
        check(queued(Some(QueueProgress::default())), unknown.clone());
        let unplaced = Seen {
            record: Some(TaskRecord::new(7, None)),
            progress: progress(4, false),
            ..Seen::default()
        };
        check(unplaced, unknown);
    }

    #[test]
    fn a_task_whose_turn_has_come_is_being_worked_on() {
        let processing = serde_json::json!({"task_uuid": "abc", "status": "processing", "timestamp": 7});
        check(queued(progress(10, true)), processing);
    }

    /// As with `latest` and a group that made its first commit after the task was posted.
    #[test]
    fn a_task_that_processors_are_past_without_a_trace_is_unknown() {
        let unknown = serde_json::json!({"task_uuid": "abc", "status": "unknown", "timestamp": 7});
        check(queued(progress(11, false)), unknown.clone());
        check(queued(progress(25, true)), unknown);
    }

    #[test]
    fn progress_past_a_task_is_recognized() {
        let record = TaskRecord::new(7, Some(PLACE));
        let past = |committed| record.is_behind(progress(committed, true));
        assert_eq!([9, 10, 11].map(past), [false, false, true]);
        assert!(!record.is_behind(None));
        assert!(!TaskRecord::new(7, None).is_behind(progress(11, true)));
    }

    #[test]
    fn stems_and_manifests_say_more_than_the_queue() {
        let separated = Seen {
            separated: true,
            ..queued(progress(10, true))
        };
        check(
            separated,
            serde_json::json!({"task_uuid": "abc", "status": "separated", "timestamp": 7}),
        );
        let manifest = br#"{"version":1,"task_uuid":"abc","status":"success","vocals":"https://v","instrumental":"https://i",
            "error_message":null,"webhook":"delivered","finished_at":9}"#;
        let done = Seen {
            finished: serde_json::from_slice(manifest).ok(),
            separated: true,
            ..Seen::default()
        };
        check(
            done,
            serde_json::json!({"task_uuid": "abc", "status": "done", "vocals": "https://v", "instrumental": "https://i",
                "webhook": "delivered", "finished_at": 9}),
        );
        let manifest = br#"{"version":1,"task_uuid":"abc","status":"failed","error_message":"not audio","webhook":"none","finished_at":9}"#;
        let failed = Seen {
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
    fn a_record_is_read_as_it_is_written() {
        for record in [TaskRecord::new(7, Some(PLACE)), TaskRecord::new(7, None)] {
            assert_eq!(TaskRecord::parse(&record.to_json()), Some(record));
        }
        assert_eq!(TaskRecord::parse(b"{}"), None);
    }
}
