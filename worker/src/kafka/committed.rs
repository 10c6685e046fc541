//! The committed offset of a partition, as it is read before a message is worked on.
//!
//! One answer is not believed where it contradicts what is known: a broker that has just become a group's coordinator
//! may answer for a moment, without an error, that the group never committed (decision 13). Taken at its word, a worker
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
use super::membership::{Doubt, Noted};
use super::message::{Message, Place};

/// How long one question about offsets may take.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);

/// How long a commit of ours tells what is committed: no topic is deleted, created and filled in less.
const NOTED_LIMIT: Duration = Duration::from_millis(100);

/// Grace period before a missing committed offset is believed: the operator's, five of its readings.
const DOUBTED: Duration = Duration::from_secs(10);

/// Messages younger than this are worked on although the group never committed in their partition: a coordinator that
/// is wrong about that gives messages from the beginning of the retention.
const RECENT: Duration = Duration::from_secs(60);

/// What is committed where a message is.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The message is next, and this is its record.
    Record(OffsetMetadata),
    /// The partition is read again, from another offset. The message is not to be worked on now.
    Moved,
    /// The answer is doubted: ask again after a pause.
    Doubted,
}

/// What follows from an answer about the committed offset.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    /// The message is next.
    Work,
    /// Ask again.
    AskAgain,
    /// The partition is not where the group is, unless the log does not have this offset.
    NotCommitted(i64),
    /// The group's offset is gone, with the topic unless the log is older.
    Gone,
}

fn judge(
    place: Place,
    noted: &Noted,
    committed: Option<i64>,
    doubt: Doubt,
    age: Option<Duration>,
    now: Instant,
) -> Judgement {
    let believed = doubt
        .missing_since
        .is_some_and(|since| now.saturating_duration_since(since) >= DOUBTED);
    match (committed, noted) {
        (Some(_), Noted::At(..)) => Judgement::Work,
        (Some(offset), Noted::Unknown) if offset == place.offset || doubt.moved => Judgement::Work,
        (Some(offset), Noted::Unknown) => Judgement::NotCommitted(offset),
        (None, Noted::At(..)) if believed => Judgement::Gone,
        (None, Noted::Unknown) if believed || age.is_some_and(|age| age < RECENT) => Judgement::Work,
        (None, _) => Judgement::AskAgain,
    }
}

/// Where to read a partition from, whose first message came from `place` although `committed` is next. `None` where the
/// message is the first that the log has, or the log ends before.
fn read_from(place: Place, committed: i64, (low, high): (i64, i64)) -> Option<i64> {
    let from = committed.max(low);
    (from != place.offset && from <= high).then_some(from)
}

impl Consumer {
    /// The record that is committed beside a message's own offset.
    ///
    /// # Errors
    /// When the brokers do not answer.
    pub async fn record(&self, message: &Message) -> KafkaResult<Found> {
        let place = message.place;
        let (noted, doubt) = {
            let state = self.state();
            let noted = state.membership.noted(place.partition).cloned();
            (
                noted.unwrap_or(Noted::Unknown),
                state.membership.doubt(place.partition),
            )
        };
        if let Noted::At(offset, record, at) = &noted
            && at.elapsed() < NOTED_LIMIT
        {
            return Ok(Found::Record(record_of(place, Some((*offset, record.clone())))));
        }
        let committed = self.committed(&[place.partition]).await?.remove(&place.partition);
        let doubt = match committed {
            Some(_) => doubt,
            None => self.missing(place.partition, doubt).await?,
        };
        let offset = committed.as_ref().map(|(offset, _)| *offset);
        match judge(place, &noted, offset, doubt, age(message), Instant::now()) {
            Judgement::Work => Ok(Found::Record(record_of(place, committed))),
            Judgement::AskAgain => Ok(Found::Doubted),
            Judgement::NotCommitted(offset) => {
                let from = read_from(place, offset, self.watermarks(place.partition).await?);
                match from {
                    Some(from) => self.read_again(place, Offset::Offset(from)),
                    None => Ok(Found::Record(OffsetMetadata::default())),
                }
            }
            Judgement::Gone => match self.watermarks(place.partition).await? {
                // A topic that was recreated begins at 0. librdkafka goes on at the offset that it had.
                (0, _) => self.read_again(place, Offset::Beginning),
                _ => Ok(Found::Record(OffsetMetadata::default())),
            },
        }
    }

    /// Reads the partition of a message again, from another offset.
    pub(super) fn read_again(&self, place: Place, from: Offset) -> KafkaResult<Found> {
        tracing::warn!(%place, ?from, "Reading the partition from another offset");
        self.inner
            .seek(&self.topic, place.partition, from, Duration::ZERO)?;
        self.state().moved(place.partition);
        Ok(Found::Moved)
    }

    /// A partition has no committed offset. Starts the grace period of all owned partitions without one.
    async fn missing(&self, partition: i32, doubt: Doubt) -> KafkaResult<Doubt> {
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
            state.membership.missing(*missing, now);
        }
        Ok(state.membership.doubt(partition))
    }

    /// The committed offsets of partitions that have one, with the records beside them.
    async fn committed(&self, partitions: &[i32]) -> KafkaResult<BTreeMap<i32, (i64, OffsetMetadata)>> {
        let (consumer, asked) = (Arc::clone(&self.inner), list(&self.topic, partitions));
        let answer = client::waited(move || consumer.committed_offsets(asked, QUESTION_LIMIT)).await;
        let answer = answer.inspect_err(|error| self.answered_with(error))?;
        let mut committed = BTreeMap::new();
        for element in answer.elements() {
            element.error().inspect_err(|error| self.answered_with(error))?;
            if let Offset::Offset(offset) = element.offset() {
                let record = OffsetMetadata::parse(element.metadata());
                committed.insert(element.partition(), (offset, record));
            }
        }
        Ok(committed)
    }

    /// The first offset of a partition's log and the one after its last.
    async fn watermarks(&self, partition: i32) -> KafkaResult<(i64, i64)> {
        let (consumer, topic) = (Arc::clone(&self.inner), self.topic.clone());
        client::waited(move || consumer.fetch_watermarks(&topic, partition, QUESTION_LIMIT)).await
    }
}

/// The record of the message at `place`: empty where another offset is committed.
fn record_of(place: Place, committed: Option<(i64, OffsetMetadata)>) -> OffsetMetadata {
    committed
        .filter(|(offset, _)| *offset == place.offset)
        .map(|(_, record)| record)
        .unwrap_or_default()
}

/// How long ago a message was published, where that is known.
fn age(message: &Message) -> Option<Duration> {
    let published = UNIX_EPOCH + Duration::from_millis(u64::try_from(message.timestamp_ms?).ok()?);
    // One from the future has a clock that is ahead.
    Some(SystemTime::now().duration_since(published).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        partition: 3,
        offset: 8,
    };

    #[track_caller]
    fn check(noted: Option<i64>, committed: Option<i64>, missing_s: Option<u64>, expected: &Judgement) {
        check_with(
            noted,
            committed,
            missing_s,
            false,
            Duration::from_secs(3_600),
            expected,
        );
    }

    #[track_caller]
    fn check_with(
        noted: Option<i64>,
        committed: Option<i64>,
        missing_s: Option<u64>,
        moved: bool,
        age: Duration,
        expected: &Judgement,
    ) {
        let start = Instant::now();
        let now = start + Duration::from_secs(60);
        let noted = noted.map_or(Noted::Unknown, |offset| {
            Noted::At(offset, OffsetMetadata::default(), start)
        });
        let doubt = Doubt {
            missing_since: missing_s.map(|seconds| now - Duration::from_secs(seconds)),
            moved,
        };
        assert_eq!(&judge(PLACE, &noted, committed, doubt, Some(age), now), expected);
    }

    #[test]
    fn an_answer_that_agrees_with_what_is_known_is_believed() {
        check(None, Some(8), None, &Judgement::Work);
        check(Some(8), Some(8), None, &Judgement::Work);
        // A gap: markers of transactions, or messages that expired.
        check(Some(7), Some(7), None, &Judgement::Work);
    }

    #[test]
    fn an_offset_that_this_member_committed_is_gone_only_after_the_grace_period() {
        check(Some(8), None, None, &Judgement::AskAgain);
        check(Some(8), None, Some(0), &Judgement::AskAgain);
        check(Some(8), None, Some(9), &Judgement::AskAgain);
        check(Some(8), None, Some(10), &Judgement::Gone);
    }

    #[test]
    fn old_messages_of_a_group_that_never_committed_wait_for_the_grace_period() {
        check(None, None, Some(0), &Judgement::AskAgain);
        check(None, None, Some(10), &Judgement::Work);
        let minute = Duration::from_secs(60);
        check_with(None, None, Some(0), false, minute, &Judgement::AskAgain);
        check_with(None, None, Some(0), false, minute / 2, &Judgement::Work);
    }

    #[test]
    fn a_partition_that_is_read_from_elsewhere_is_read_from_the_committed_offset_once() {
        check(None, Some(5), None, &Judgement::NotCommitted(5));
        check(None, Some(11), None, &Judgement::NotCommitted(11));
        let hour = Duration::from_secs(3_600);
        check_with(None, Some(5), None, true, hour, &Judgement::Work);
    }

    #[test]
    fn a_partition_is_read_from_an_offset_that_its_log_has() {
        assert_eq!(read_from(PLACE, 5, (0, 20)), Some(5));
        assert_eq!(read_from(PLACE, 11, (0, 20)), Some(11));
        assert_eq!(read_from(PLACE, 20, (0, 20)), Some(20), "nothing waits");
        assert_eq!(read_from(PLACE, 5, (6, 20)), Some(6), "the rest expired");
        assert_eq!(read_from(PLACE, 5, (8, 20)), None, "all before it expired");
        assert_eq!(read_from(PLACE, 30, (0, 20)), None, "the log is another one");
    }
}
