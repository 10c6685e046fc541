//! Commits an offset with its metadata, and retries while a retry can succeed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use separation_contract::backoff::Backoff;
use separation_contract::offset_metadata::OffsetMetadata;

use super::admission::Accepted;
use super::client;
use super::consumer::Consumer;
use super::error::CommitError;
use super::message::Position;

/// Pauses before a failed commit is retried.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(100),
    longest: Duration::from_millis(1_600),
};

/// How long a topic may be unknown to the brokers before it counts as deleted: half of the metadata refresh interval.
const NO_TOPIC_LIMIT: Duration = Duration::from_secs(5);

/// Kinds of commit failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommitFailure {
    /// Another member owns the partition.
    Lost,
    /// The client cannot continue.
    Fatal,
    /// The brokers do not know the topic.
    NoTopic,
    /// The metadata is too long for these brokers.
    RecordTooLong,
    /// The brokers refuse this client.
    Refused,
    /// Transient: a rebalance is in progress, or the coordinator moves or is unreachable.
    Transient,
}

fn classify_failure(code: Option<RDKafkaErrorCode>) -> CommitFailure {
    match code {
        Some(
            RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::FencedInstanceId
            | RDKafkaErrorCode::AssignmentLost,
        ) => CommitFailure::Lost,
        Some(RDKafkaErrorCode::Fatal) => CommitFailure::Fatal,
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition,
        ) => CommitFailure::NoTopic,
        Some(RDKafkaErrorCode::OffsetMetadataTooLarge) => CommitFailure::RecordTooLong,
        Some(
            RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::SaslAuthenticationFailed,
        ) => CommitFailure::Refused,
        _ => CommitFailure::Transient,
    }
}

impl Consumer {
    /// Commits `position` as the next offset to read, with `record` as its metadata. Retries while that can succeed and
    /// this member owns the partition. The caller must keep polling in the meantime.
    ///
    /// # Errors
    /// When the partition is lost, the topic was deleted, or the client cannot continue.
    pub async fn commit(&self, position: Position, record: &OffsetMetadata) -> Result<(), CommitError> {
        let mut record = record.clone();
        let (mut failures, mut no_topic_since) = (0, None);
        loop {
            let requested_at = Instant::now();
            if !self.state().membership.owns_running() {
                return Err(CommitError::Lost);
            }
            let error = match self.commit_once(position, &record).await {
                Ok(()) => {
                    self.record_committed(position, record, requested_at);
                    return Ok(());
                }
                Err(error) => error,
            };
            self.inner.context().metrics.commit("refused");
            let failure = classify_failure(error.rdkafka_error_code());
            if failure != CommitFailure::NoTopic {
                no_topic_since = None;
            }
            match failure {
                CommitFailure::Lost => return Err(CommitError::Lost),
                CommitFailure::Fatal => return Err(CommitError::Fatal(error)),
                CommitFailure::NoTopic
                    if no_topic_since.get_or_insert(requested_at).elapsed() >= NO_TOPIC_LIMIT =>
                {
                    // If the topic is recreated before this client notices, its offsets belong to other messages.
                    if let Err(error) = self.read_again(position, Offset::Beginning) {
                        tracing::warn!(%error, %position, "Cannot read the partition from its beginning");
                    }
                    return Err(CommitError::NoTopic);
                }
                CommitFailure::RecordTooLong => record = shortened(&record),
                CommitFailure::Refused => self.record_error(&error),
                CommitFailure::NoTopic | CommitFailure::Transient => {}
            }
            if client::should_log(&format!("commit {:?}", error.rdkafka_error_code())) {
                tracing::warn!(%error, %position, "Commit failed; retrying");
            }
            failures += 1;
            tokio::time::sleep(BACKOFF.after(failures)).await;
        }
    }

    fn record_committed(&self, position: Position, record: OffsetMetadata, requested_at: Instant) {
        self.inner.context().metrics.commit("committed");
        self.inner.context().gate.accepted(Accepted::Topic);
        let mut state = self.state();
        state.membership.record_commit(position, record, Instant::now());
        let is_next = state
            .prefetched
            .as_ref()
            .is_some_and(|next| next.position == position);
        state.confirmed = is_next.then_some((position, requested_at));
    }

    async fn commit_once(&self, position: Position, record: &OffsetMetadata) -> KafkaResult<()> {
        let mut offsets = TopicPartitionList::new();
        let mut element = offsets.add_partition(&self.topic, position.partition);
        element.set_offset(Offset::Offset(position.offset))?;
        if *record != OffsetMetadata::default() {
            element.set_metadata(record.to_string());
        }
        let consumer = Arc::clone(&self.inner);
        // This binding reports the result of a commit only in synchronous mode.
        client::run_blocking(move || consumer.commit(&offsets, CommitMode::Sync)).await
    }
}

/// Shorter metadata for brokers whose `offset.metadata.max.bytes` is too small: the attempts only, then none.
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
    fn only_transient_failures_are_retried() {
        for (code, expected) in [
            (RDKafkaErrorCode::UnknownMemberId, CommitFailure::Lost),
            (RDKafkaErrorCode::AssignmentLost, CommitFailure::Lost),
            (RDKafkaErrorCode::Fatal, CommitFailure::Fatal),
            (RDKafkaErrorCode::UnknownTopicOrPartition, CommitFailure::NoTopic),
            (RDKafkaErrorCode::RebalanceInProgress, CommitFailure::Transient),
            (RDKafkaErrorCode::NotCoordinator, CommitFailure::Transient),
            (RDKafkaErrorCode::OperationTimedOut, CommitFailure::Transient),
            (RDKafkaErrorCode::GroupAuthorizationFailed, CommitFailure::Refused),
        ] {
            assert_eq!(classify_failure(Some(code)), expected, "{code:?}");
        }
    }

    #[test]
    fn a_record_is_shortened_until_it_is_empty() {
        let record = OffsetMetadata::parse("attempt=2;start=9");
        assert_eq!(shortened(&record), OffsetMetadata::attempt(2));
        assert_eq!(shortened(&shortened(&record)), OffsetMetadata::default());
    }
}
