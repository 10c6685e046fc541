//! The committed offset of a partition, read before a message is processed.
//!
//! A response that contradicts known state is not believed: a broker that has just become the group's coordinator may
//! respond for a moment, without an error, that the group never committed (decision 13). A worker that believed it
//! would read the partition from its beginning and commit that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::Offset;
use separation_contract::offset_metadata::OffsetMetadata;

use super::client;
use super::consumer::{Consumer, list};
use super::membership::{Doubt, KnownCommit};
use super::message::{Message, Position};

/// Timeout of one offset request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long our own last commit is used instead of a request: a topic cannot be deleted, recreated and filled faster.
const KNOWN_COMMIT_LIMIT: Duration = Duration::from_millis(100);

/// Grace period before a missing committed offset is believed: the operator's, which is five of its readings.
const GRACE_PERIOD: Duration = Duration::from_secs(10);

/// Messages younger than this are processed although the group never committed in their partition: if the coordinator
/// wrongly reports no commit, the messages come from the start of the log and are old.
const RECENT: Duration = Duration::from_secs(60);

/// The committed state at a message's offset.
#[derive(Debug, PartialEq, Eq)]
pub enum CommittedState {
    /// The message is next, with this metadata.
    Record(OffsetMetadata),
    /// The partition is now read from another offset; skip the message.
    Moved,
    /// The response is not believed: ask again after a pause.
    NotBelieved,
}

/// Decision about a response with a committed offset.
#[derive(Debug, PartialEq, Eq)]
enum CommitDecision {
    /// Process the message.
    Process,
    AskAgain,
    /// The group committed this other offset: seek to it, unless the log does not contain it.
    OtherOffset(i64),
    /// The group's offset is gone. If the log starts at 0, the topic was recreated.
    Gone,
}

fn decide(
    position: Position,
    known_commit: &KnownCommit,
    committed: Option<i64>,
    doubt: Doubt,
    age: Option<Duration>,
    now: Instant,
) -> CommitDecision {
    let believed = doubt
        .missing_since
        .is_some_and(|since| now.saturating_duration_since(since) >= GRACE_PERIOD);
    match (committed, known_commit) {
        (Some(_), KnownCommit::At(..)) => CommitDecision::Process,
        (Some(offset), KnownCommit::Unknown) if offset == position.offset || doubt.moved => {
            CommitDecision::Process
        }
        (Some(offset), KnownCommit::Unknown) => CommitDecision::OtherOffset(offset),
        (None, KnownCommit::At(..)) if believed => CommitDecision::Gone,
        (None, KnownCommit::Unknown) if believed || age.is_some_and(|age| age < RECENT) => {
            CommitDecision::Process
        }
        (None, _) => CommitDecision::AskAgain,
    }
}

/// The offset to seek to when the first message of a partition came from `position` although `committed` is next.
/// `None` if the message is the first in the log, or the log ends before `committed`.
fn read_from(position: Position, committed: i64, (low, high): (i64, i64)) -> Option<i64> {
    let from = committed.max(low);
    (from != position.offset && from <= high).then_some(from)
}

impl Consumer {
    /// Reads the metadata committed with a message's own offset.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn record(&self, message: &Message) -> KafkaResult<CommittedState> {
        let position = message.position;
        let (known_commit, doubt) = {
            let state = self.state();
            let known_commit = state.membership.known_commit(position.partition).cloned();
            (
                known_commit.unwrap_or(KnownCommit::Unknown),
                state.membership.doubt(position.partition),
            )
        };
        if let KnownCommit::At(offset, record, at) = &known_commit
            && at.elapsed() < KNOWN_COMMIT_LIMIT
        {
            return Ok(CommittedState::Record(record_of(
                position,
                Some((*offset, record.clone())),
            )));
        }
        let committed = self
            .committed(&[position.partition])
            .await?
            .remove(&position.partition);
        let doubt = match committed {
            Some(_) => doubt,
            None => self.record_missing(position.partition, doubt).await?,
        };
        let offset = committed.as_ref().map(|(offset, _)| *offset);
        match decide(
            position,
            &known_commit,
            offset,
            doubt,
            age(message),
            Instant::now(),
        ) {
            CommitDecision::Process => Ok(CommittedState::Record(record_of(position, committed))),
            CommitDecision::AskAgain => Ok(CommittedState::NotBelieved),
            CommitDecision::OtherOffset(offset) => {
                let from = read_from(position, offset, self.watermarks(position.partition).await?);
                match from {
                    Some(from) => self.read_again(position, Offset::Offset(from)),
                    None => Ok(CommittedState::Record(OffsetMetadata::default())),
                }
            }
            CommitDecision::Gone => match self.watermarks(position.partition).await? {
                // A recreated topic starts at 0. librdkafka would continue at its old offset.
                (0, _) => self.read_again(position, Offset::Beginning),
                _ => Ok(CommittedState::Record(OffsetMetadata::default())),
            },
        }
    }

    /// Seeks the partition of a message to another offset.
    pub(super) fn read_again(&self, position: Position, from: Offset) -> KafkaResult<CommittedState> {
        tracing::warn!(%position, ?from, "Reading the partition from another offset");
        self.inner
            .seek(&self.topic, position.partition, from, Duration::ZERO)?;
        self.state().moved(position.partition);
        Ok(CommittedState::Moved)
    }

    /// Handles a partition without a committed offset: starts the grace period of all owned partitions that have none.
    async fn record_missing(&self, partition: i32, doubt: Doubt) -> KafkaResult<Doubt> {
        if doubt.missing_since.is_some() {
            return Ok(doubt);
        }
        let now = Instant::now();
        let owned: Vec<_> = self.state().membership.owned().collect();
        let committed = self.committed(&owned).await?;
        let mut state = self.state();
        for missing in owned
            .iter()
            .filter(|partition| !committed.contains_key(partition))
        {
            state.membership.record_missing(*missing, now);
        }
        Ok(state.membership.doubt(partition))
    }

    /// The committed offsets of partitions that have one, with their metadata.
    async fn committed(&self, partitions: &[i32]) -> KafkaResult<BTreeMap<i32, (i64, OffsetMetadata)>> {
        let (consumer, requested) = (Arc::clone(&self.inner), list(&self.topic, partitions));
        let answer =
            client::run_blocking(move || consumer.committed_offsets(requested, REQUEST_TIMEOUT)).await;
        let answer = answer.inspect_err(|error| self.record_error(error))?;
        let mut committed = BTreeMap::new();
        for element in answer.elements() {
            element.error().inspect_err(|error| self.record_error(error))?;
            if let Offset::Offset(offset) = element.offset() {
                let record = OffsetMetadata::parse(element.metadata());
                committed.insert(element.partition(), (offset, record));
            }
        }
        Ok(committed)
    }

    /// First offset of a partition's log, and the offset after its last message.
    async fn watermarks(&self, partition: i32) -> KafkaResult<(i64, i64)> {
        let (consumer, topic) = (Arc::clone(&self.inner), self.topic.clone());
        client::run_blocking(move || consumer.fetch_watermarks(&topic, partition, REQUEST_TIMEOUT)).await
    }
}

/// The metadata of the message at `position`: empty if another offset is committed.
fn record_of(position: Position, committed: Option<(i64, OffsetMetadata)>) -> OffsetMetadata {
    committed
        .filter(|(offset, _)| *offset == position.offset)
        .map(|(_, record)| record)
        .unwrap_or_default()
}

/// Time since a message was published, if known.
fn age(message: &Message) -> Option<Duration> {
    let published = UNIX_EPOCH + Duration::from_millis(u64::try_from(message.timestamp_ms?).ok()?);
    // A timestamp in the future means that the producer's clock is ahead.
    Some(SystemTime::now().duration_since(published).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSITION: Position = Position {
        partition: 3,
        offset: 8,
    };

    #[track_caller]
    fn check(
        known_commit: Option<i64>,
        committed: Option<i64>,
        missing_s: Option<u64>,
        expected: &CommitDecision,
    ) {
        check_with(
            known_commit,
            committed,
            missing_s,
            false,
            Duration::from_secs(3_600),
            expected,
        );
    }

    #[track_caller]
    fn check_with(
        known_commit: Option<i64>,
        committed: Option<i64>,
        missing_s: Option<u64>,
        moved: bool,
        age: Duration,
        expected: &CommitDecision,
    ) {
        let start = Instant::now();
        let now = start + Duration::from_secs(60);
        let known_commit = known_commit.map_or(KnownCommit::Unknown, |offset| {
            KnownCommit::At(offset, OffsetMetadata::default(), start)
        });
        let doubt = Doubt {
            missing_since: missing_s.map(|seconds| now - Duration::from_secs(seconds)),
            moved,
        };
        assert_eq!(
            &decide(POSITION, &known_commit, committed, doubt, Some(age), now),
            expected
        );
    }

    #[test]
    fn a_response_that_matches_known_commits_is_believed() {
        check(None, Some(8), None, &CommitDecision::Process);
        check(Some(8), Some(8), None, &CommitDecision::Process);
        // A gap: transaction markers or expired messages.
        check(Some(7), Some(7), None, &CommitDecision::Process);
    }

    #[test]
    fn an_offset_that_this_member_committed_is_gone_only_after_the_grace_period() {
        check(Some(8), None, None, &CommitDecision::AskAgain);
        check(Some(8), None, Some(0), &CommitDecision::AskAgain);
        check(Some(8), None, Some(9), &CommitDecision::AskAgain);
        check(Some(8), None, Some(10), &CommitDecision::Gone);
    }

    #[test]
    fn old_messages_of_a_group_without_commits_wait_for_the_grace_period() {
        check(None, None, Some(0), &CommitDecision::AskAgain);
        check(None, None, Some(10), &CommitDecision::Process);
        let minute = Duration::from_secs(60);
        check_with(None, None, Some(0), false, minute, &CommitDecision::AskAgain);
        check_with(None, None, Some(0), false, minute / 2, &CommitDecision::Process);
    }

    #[test]
    fn a_partition_read_from_another_offset_seeks_to_the_committed_one_once() {
        check(None, Some(5), None, &CommitDecision::OtherOffset(5));
        check(None, Some(11), None, &CommitDecision::OtherOffset(11));
        let hour = Duration::from_secs(3_600);
        check_with(None, Some(5), None, true, hour, &CommitDecision::Process);
    }

    #[test]
    fn a_partition_is_read_from_an_offset_in_its_log() {
        assert_eq!(read_from(POSITION, 5, (0, 20)), Some(5));
        assert_eq!(read_from(POSITION, 11, (0, 20)), Some(11));
        assert_eq!(
            read_from(POSITION, 20, (0, 20)),
            Some(20),
            "the partition is empty"
        );
        assert_eq!(read_from(POSITION, 5, (6, 20)), Some(6), "the rest expired");
        assert_eq!(
            read_from(POSITION, 5, (8, 20)),
            None,
            "all earlier messages expired"
        );
        assert_eq!(read_from(POSITION, 30, (0, 20)), None, "the topic was recreated");
    }
}
