//! The reports of workers in the metadata of committed offsets. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use separation_contract::offset_metadata::{Hold, OffsetMetadata};
use separation_kafka::{GroupCommits, ReadError, TopicPartition};

use crate::clock::WallClock;
use crate::decide::RunningTask;

/// A task whose completion a reading shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FinishedTask {
    /// The partition of its message.
    pub partition: i32,
    /// The committed offset, which is beyond its message.
    pub next: i64,
    /// How long it took.
    pub took: Duration,
}

/// Committed offsets by partition; `None` where the group never committed.
pub(super) type CommittedNext = BTreeMap<TopicPartition, Result<Option<i64>, ReadError>>;

/// The reports about one group's partitions of one topic.
#[derive(Debug, Default)]
pub(super) struct WorkerReports {
    holds: BTreeMap<i32, Hold>,
    started: BTreeMap<i32, StartedTask>,
    /// Tasks completed since the reading before.
    pub(super) finished: Vec<FinishedTask>,
}

#[derive(Debug, Clone, Copy)]
struct StartedTask {
    /// The message's offset.
    offset: i64,
    at: Timestamp,
    percent: Option<u8>,
}

/// Whether started tasks are needed: most pools do without, and there may be thousands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StartedTasks {
    Keep,
    Drop,
}

impl WorkerReports {
    /// The reports in a reading of commits; `before` are the offsets of the reading before, if there was one.
    pub(super) fn parse(
        commits: &GroupCommits,
        before: Option<&CommittedNext>,
        started: StartedTasks,
    ) -> Self {
        let mut reports = Self::default();
        for (partition, commit) in commits {
            let Ok(Some(commit)) = commit else { continue };
            let Some(metadata) = &commit.metadata else {
                continue;
            };
            let record = OffsetMetadata::parse(metadata);
            let (partition, before) = (partition.partition, before.and_then(|all| all.get(partition)));
            if let Some(took) = record.last
                && has_advanced(before, commit.next)
            {
                reports.finished.push(FinishedTask {
                    partition,
                    next: commit.next,
                    took,
                });
            }
            if let Some(hold) = record.held {
                reports.holds.insert(partition, hold);
            }
            if started == StartedTasks::Keep
                && let Some(at) = record.start.and_then(timestamp)
            {
                let task = StartedTask {
                    offset: commit.next,
                    at,
                    percent: record.percent,
                };
                reports.started.insert(partition, task);
            }
        }
        reports
    }

    /// The refusals reported for these partitions.
    pub(super) fn holds(&self, partitions: impl Iterator<Item = i32>) -> Vec<Hold> {
        partitions
            .filter_map(|partition| self.holds.get(&partition).cloned())
            .collect()
    }

    /// The task of a partition's message at `offset`, if a worker reported that it started.
    pub(super) fn running(&self, partition: i32, offset: i64, clock: WallClock) -> Option<RunningTask> {
        let task = self.started.get(&partition)?;
        (task.offset == offset).then(|| RunningTask {
            since: clock.moment(task.at),
            percent: task.percent,
        })
    }
}

/// Whether `next` is beyond the offset of the reading before. Without one, the commit may be old.
fn has_advanced(before: Option<&Result<Option<i64>, ReadError>>, next: i64) -> bool {
    matches!(before, Some(Ok(before)) if before.is_none_or(|before| before < next))
}

fn timestamp(unix_seconds: u64) -> Option<Timestamp> {
    Timestamp::from_second(i64::try_from(unix_seconds).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use separation_kafka::Commit;

    use super::*;
    use crate::decide::Moment;

    /// The reports of a partition that was read before with `before`, and now with this offset and metadata.
    fn parse(
        before: Option<Result<Option<i64>, ReadError>>,
        next: i64,
        metadata: &str,
        started: StartedTasks,
    ) -> WorkerReports {
        let partition = TopicPartition {
            topic: "tasks".into(),
            partition: 3,
        };
        let commit = Commit {
            metadata: Some(metadata.into()),
            ..Commit::new(3, next)
        };
        let before = before.map(|before| CommittedNext::from([(partition.clone(), before)]));
        let commits = GroupCommits::from([(partition, Ok(Some(commit)))]);
        WorkerReports::parse(&commits, before.as_ref(), started)
    }

    #[test]
    fn a_task_is_finished_where_the_committed_offset_has_advanced() {
        let unread = || Some(Err(ReadError::new("unreachable")));
        for (before, next, metadata, is_finished) in [
            (Some(Ok(Some(7))), 8, "last=2.5", true),
            (Some(Ok(Some(5))), 8, "attempt=1;start=5;last=2.5", true),
            (Some(Ok(None)), 8, "last=2.5", true),
            (Some(Ok(Some(7))), 8, "", false),
            (Some(Ok(Some(8))), 8, "attempt=1;start=5;last=2.5", false),
            // A user has rewound the group.
            (Some(Ok(Some(9))), 8, "last=2.5", false),
            // It may have been reported to an operator before this one.
            (None, 8, "last=2.5", false),
            (unread(), 8, "last=2.5", false),
        ] {
            let finished = parse(before.clone(), next, metadata, StartedTasks::Drop).finished;
            let task = FinishedTask {
                partition: 3,
                next: 8,
                took: Duration::from_millis(2_500),
            };
            let expected = if is_finished { vec![task] } else { vec![] };
            assert_eq!(finished, expected, "{before:?} {next} {metadata}");
        }
    }

    #[test]
    fn a_started_task_is_that_of_the_committed_offset_and_started_in_the_past() {
        let time = Timestamp::from_second(1_000).expect("a time");
        let clock = WallClock::new(Moment::from_millis(90_000), time);
        let running = |metadata, offset, started| parse(None, 8, metadata, started).running(3, offset, clock);
        let keep = StartedTasks::Keep;
        let task = |since, percent| {
            Some(RunningTask {
                since: Moment::from_millis(since),
                percent,
            })
        };
        assert_eq!(running("start=970;percent=40", 8, keep), task(60_000, Some(40)));
        assert_eq!(running("start=1005", 8, keep), task(90_000, None));
        assert_eq!(
            running("start=970", 9, keep),
            None,
            "messages up to 9 have expired"
        );
        assert_eq!(running("last=2.5", 8, keep), None);
        assert_eq!(running("start=970", 8, StartedTasks::Drop), None);
    }
}
