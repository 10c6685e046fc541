//! Ends old tasks that no worker will end: their staged files are gone, their messages were skipped, or an uploader of
//! another implementation ended them as tasks of the drop-in API.
//!
//! One replica looks at 1,000 records every ten minutes, so that each is looked at once a day or more rarely.

use std::sync::Arc;
use std::time::Duration;

use separation_contract::api_task::FailureCode;
use separation_contract::message::TaskId;

use super::super::status::{TaskEvidence, TaskRecord};
use super::super::traits::{TaskFiles, TaskQueue};
use super::ending::{end, failed, remove_staged};
use crate::task_store::{Incoming, StoredTask, TaskStore};
use crate::work::WorkError;

/// Time between two looks.
pub(super) const INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Age in seconds of a record before its task is looked at: longer than a retry, or a result, usually waits.
const MIN_AGE: u64 = 24 * 60 * 60;

/// Name of the claim on the looks of an interval.
const CLAIM: &str = "overdue";

/// Ends tasks that no worker will end.
#[derive(Clone)]
pub(in crate::api) struct Overdue {
    pub(in crate::api) store: TaskStore,
    pub(in crate::api) queue: Arc<dyn TaskQueue>,
    pub(in crate::api) files: Arc<dyn TaskFiles>,
    /// Name of this process in claims.
    pub(in crate::api) replica: String,
}

impl Overdue {
    /// Looks at the next records at `now`, in Unix seconds, unless another replica does in this interval.
    pub(super) async fn end_next(&self, now: u64) -> Result<(), WorkError> {
        // A claim is valid for a minute: that of the interval's first minute stands for the interval.
        let interval = now - now % INTERVAL.as_secs();
        if !self.store.claim(CLAIM, &self.replica, interval).await? {
            return Ok(());
        }
        let tasks = self.store.next_overdue(now.saturating_sub(MIN_AGE)).await?;
        for task in tasks {
            if let Err(error) = self.end_if_overdue(&task).await {
                tracing::warn!(task_uuid = %task.id, %error, "Cannot check whether an old task is overdue");
            }
        }
        Ok(())
    }

    async fn end_if_overdue(&self, task: &StoredTask) -> Result<(), WorkError> {
        if self.store.is_incoming(&Incoming::of(task)).await? {
            return Ok(());
        }
        let Some(reason) = reason(&self.evidence(&task.id).await?) else {
            return Ok(());
        };
        tracing::warn!(task_uuid = %task.id, reason, "Ending a task that no worker will end");
        let outcome = failed(task, FailureCode::NotProcessed, reason.to_owned());
        end(&self.store, task, outcome).await?;
        remove_staged(&*self.files, &task.id).await
    }

    /// Stems are looked up last: a worker stores them before it commits the offset.
    async fn evidence(&self, id: &TaskId) -> Result<TaskEvidence, WorkError> {
        let record = self.files.record(id).await?;
        let record = record.as_deref().and_then(TaskRecord::parse);
        let position = record.and_then(|record| record.position());
        let progress = match position {
            Some(position) => self.queue.progress(position.partition).await,
            None => None,
        };
        Ok(TaskEvidence {
            record,
            progress,
            separated: self.files.is_separated(id).await?,
            finished: self.files.manifest(id).await?,
        })
    }
}

/// Why no worker will end an old task that has no outcome and is not on its way to the queue; none if one may.
fn reason(evidence: &TaskEvidence) -> Option<&'static str> {
    if evidence.finished.is_some() {
        return Some(
            "an uploader of another implementation ended the task and stored no stems of it here; post the song again",
        );
    }
    if evidence.separated {
        return None;
    }
    match evidence.record {
        None => Some("the staged song was deleted before a worker processed the task; post the song again"),
        Some(record) if record.is_passed_by(evidence.progress) => {
            Some("no worker processed the task: its message was skipped; post the song again")
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::traits::QueueProgress;
    use super::*;
    use crate::kafka::Position;

    fn queued(committed: Option<i64>) -> TaskEvidence {
        let position = Position {
            partition: 0,
            offset: 10,
        };
        TaskEvidence {
            record: Some(TaskRecord::new(7, Some(position))),
            progress: Some(QueueProgress {
                committed,
                ..QueueProgress::default()
            }),
            ..TaskEvidence::default()
        }
    }

    #[test]
    fn a_task_that_a_worker_may_still_process_is_not_ended() {
        for committed in [None, Some(9), Some(10)] {
            assert_eq!(reason(&queued(committed)), None, "{committed:?}");
        }
        let separated = TaskEvidence {
            separated: true,
            ..queued(Some(11))
        };
        assert_eq!(reason(&separated), None);
        let without_position = TaskEvidence {
            record: Some(TaskRecord::new(7, None)),
            ..queued(Some(11))
        };
        assert_eq!(reason(&without_position), None);
    }

    #[test]
    fn a_task_that_no_worker_will_process_is_ended_with_the_reason() {
        #[track_caller]
        fn check(evidence: &TaskEvidence, expected: &str) {
            let reason = reason(evidence).expect("a reason");
            assert!(reason.contains(expected), "{reason}");
        }
        check(&queued(Some(11)), "was skipped");
        check(&TaskEvidence::default(), "was deleted");
        let manifest =
            br#"{"version":1,"task_uuid":"abc","status":"failed","webhook":"none","finished_at":9}"#;
        let finished = TaskEvidence {
            finished: serde_json::from_slice(manifest).ok(),
            separated: true,
            ..queued(Some(11))
        };
        check(&finished, "another implementation");
    }
}
