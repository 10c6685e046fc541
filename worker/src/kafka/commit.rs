//! Committing an offset with the record of the message there, again and again as long as that may help.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use separation_contract::offset_metadata::OffsetMetadata;

use super::admission::Accepted;
use super::client;
use super::consumer::Consumer;
use super::error::CommitError;
use super::message::Place;

/// Pause before a commit that was refused for a passing reason is tried again, at first.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause, after doubling it each time.
const LONGEST_PAUSE: Duration = Duration::from_millis(1_600);

/// How long a topic may be unknown to the brokers: half of the time after which librdkafka looks for its topics again.
const NO_TOPIC_LIMIT: Duration = Duration::from_secs(5);

/// What follows from a commit that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    /// The partition is another member's.
    Lost,
    /// The client cannot go on.
    Fatal,
    /// The brokers do not know the topic.
    NoTopic,
    /// The record is too long for these brokers.
    RecordTooLong,
    /// The brokers refuse this client.
    Refused,
    /// A rebalance is under way, or a coordinator moves or is unreachable.
    Passing,
}

fn failed(code: Option<RDKafkaErrorCode>) -> Failed {
    match code {
        Some(
            RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::FencedInstanceId
            | RDKafkaErrorCode::AssignmentLost,
        ) => Failed::Lost,
        Some(RDKafkaErrorCode::Fatal) => Failed::Fatal,
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition,
        ) => Failed::NoTopic,
        Some(RDKafkaErrorCode::OffsetMetadataTooLarge) => Failed::RecordTooLong,
        Some(
            RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::SaslAuthenticationFailed,
        ) => Failed::Refused,
        _ => Failed::Passing,
    }
}

impl Consumer {
    /// Commits that `place` is the next to read, with the record of the message there. Tries again as long as that
    /// may help and the partition is ours. Polling has to go on meanwhile.
    ///
    /// # Errors
    /// When the partition is lost, the topic does not exist any more, or the client cannot go on.
    pub async fn commit(&self, place: Place, record: &OffsetMetadata) -> Result<(), CommitError> {
        let mut record = record.clone();
        let (mut pause, mut no_topic_since) = (PAUSE, None);
        loop {
            let asked_at = Instant::now();
            if !self.state().membership.holds_work() {
                return Err(CommitError::Lost);
            }
            let error = match self.commit_once(place, &record).await {
                Ok(()) => {
                    self.committed_at(place, record, asked_at);
                    return Ok(());
                }
                Err(error) => error,
            };
            self.inner.context().metrics.commit("refused");
            let failed = failed(error.rdkafka_error_code());
            if failed != Failed::NoTopic {
                no_topic_since = None;
            }
            match failed {
                Failed::Lost => return Err(CommitError::Lost),
                Failed::Fatal => return Err(CommitError::Fatal(error)),
                Failed::NoTopic if no_topic_since.get_or_insert(asked_at).elapsed() >= NO_TOPIC_LIMIT => {
                    // Should it be created again before this client notices, it begins with other messages.
                    if let Err(error) = self.read_again(place, Offset::Beginning) {
                        tracing::warn!(%error, %place, "Cannot read the partition from its beginning");
                    }
                    return Err(CommitError::NoTopic);
                }
                Failed::RecordTooLong => record = shortened(&record),
                Failed::Refused => self.answered_with(&error),
                Failed::NoTopic | Failed::Passing => {}
            }
            if client::is_news(&format!("commit {:?}", error.rdkafka_error_code())) {
                tracing::warn!(%error, %place, "Committing again");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn committed_at(&self, place: Place, record: OffsetMetadata, asked_at: Instant) {
        self.inner.context().metrics.commit("committed");
        self.inner.context().gate.accepted(Accepted::Topic);
        let mut state = self.state();
        state.membership.note(place, record, Instant::now());
        let is_next = state.next.as_ref().is_some_and(|next| next.place == place);
        state.confirmed = is_next.then_some((place, asked_at));
    }

    async fn commit_once(&self, place: Place, record: &OffsetMetadata) -> KafkaResult<()> {
        let mut offsets = TopicPartitionList::new();
        let mut element = offsets.add_partition(&self.topic, place.partition);
        element.set_offset(Offset::Offset(place.offset))?;
        if *record != OffsetMetadata::default() {
            element.set_metadata(record.to_string());
        }
        let consumer = Arc::clone(&self.inner);
        // librdkafka answers commits in no other way through this binding.
        client::waited(move || consumer.commit(&offsets, CommitMode::Sync)).await
    }
}

/// A record for brokers whose `offset.metadata.max.bytes` is too small: the attempts, then nothing.
fn shortened(record: &OffsetMetadata) -> OffsetMetadata {
    let attempts = OffsetMetadata::attempt(record.attempt);
    if *record == attempts {
        OffsetMetadata::default()
    } else {
        attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_that_may_pass_are_tried_again() {
        for (code, expected) in [
            (RDKafkaErrorCode::UnknownMemberId, Failed::Lost),
            (RDKafkaErrorCode::AssignmentLost, Failed::Lost),
            (RDKafkaErrorCode::Fatal, Failed::Fatal),
            (RDKafkaErrorCode::UnknownTopicOrPartition, Failed::NoTopic),
            (RDKafkaErrorCode::RebalanceInProgress, Failed::Passing),
            (RDKafkaErrorCode::NotCoordinator, Failed::Passing),
            (RDKafkaErrorCode::OperationTimedOut, Failed::Passing),
            (RDKafkaErrorCode::GroupAuthorizationFailed, Failed::Refused),
        ] {
            assert_eq!(failed(Some(code)), expected, "{code:?}");
        }
    }

    #[test]
    fn a_record_is_shortened_until_nothing_is_left() {
        let record = OffsetMetadata::parse("attempt=2;start=9");
        assert_eq!(shortened(&record), OffsetMetadata::attempt(2));
        assert_eq!(shortened(&shortened(&record)), OffsetMetadata::default());
    }
}
