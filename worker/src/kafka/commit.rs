//! Commits an offset with its metadata, and retries while a retry can succeed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use separation_contract::backoff::Backoff;
use separation_contract::offset_metadata::OffsetMetadata;
use tokio::sync::OwnedMutexGuard;

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

/// Result of a commit that is not retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitTry {
    /// The brokers accepted it.
    Accepted,
    /// A later try may succeed.
    Failed,
    /// The record is too long for these brokers.
    RecordTooLong,
}

/// Kinds of commit failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommitFailure {
    /// Another member owns the partition.
    Lost,
    /// The client cannot continue.
    Fatal,
    /// A later try may succeed.
    Passing(PassingFailure),
}

/// Commit failures after which a later try may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PassingFailure {
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
    CommitFailure::Passing(match code {
        Some(
            RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::FencedInstanceId
            | RDKafkaErrorCode::AssignmentLost,
        ) => return CommitFailure::Lost,
        Some(RDKafkaErrorCode::Fatal) => return CommitFailure::Fatal,
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition,
        ) => PassingFailure::NoTopic,
        Some(RDKafkaErrorCode::OffsetMetadataTooLarge) => PassingFailure::RecordTooLong,
        Some(
            RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::SaslAuthenticationFailed,
        ) => PassingFailure::Refused,
        _ => PassingFailure::Transient,
    })
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
            let (failure, error) = match self.try_commit(position, &record).await? {
                None => return Ok(()),
                Some(failed) => failed,
            };
            if failure != PassingFailure::NoTopic {
                no_topic_since = None;
            }
            match failure {
                PassingFailure::NoTopic
                    if no_topic_since.get_or_insert(requested_at).elapsed() >= NO_TOPIC_LIMIT =>
                {
                    // If the topic is recreated before this client notices, its offsets belong to other messages.
                    if let Err(error) = self.read_again(position, Offset::Beginning) {
                        tracing::warn!(%error, %position, "Cannot read the partition from its beginning");
                    }
                    return Err(CommitError::NoTopic);
                }
                PassingFailure::RecordTooLong => record = shortened(&record),
                PassingFailure::NoTopic | PassingFailure::Refused | PassingFailure::Transient => {}
            }
            if client::should_log(&format!("commit {:?}", error.rdkafka_error_code())) {
                tracing::warn!(%error, %position, "Commit failed; retrying");
            }
            failures += 1;
            tokio::time::sleep(BACKOFF.after(failures)).await;
        }
    }

    /// As [`Self::commit`], in one try.
    ///
    /// # Errors
    /// When the partition is lost or the client cannot continue.
    pub async fn commit_once(
        &self,
        position: Position,
        record: &OffsetMetadata,
    ) -> Result<CommitTry, CommitError> {
        let Some((failure, error)) = self.try_commit(position, record).await? else {
            return Ok(CommitTry::Accepted);
        };
        tracing::debug!(%error, %position, "Commit failed; not retried");
        Ok(match failure {
            PassingFailure::RecordTooLong => CommitTry::RecordTooLong,
            PassingFailure::NoTopic | PassingFailure::Refused | PassingFailure::Transient => {
                CommitTry::Failed
            }
        })
    }

    /// One try. Returns the failure if a later try may succeed.
    async fn try_commit(
        &self,
        position: Position,
        record: &OffsetMetadata,
    ) -> Result<Option<(PassingFailure, KafkaError)>, CommitError> {
        let in_flight = Arc::clone(&self.commit_in_flight).lock_owned().await;
        let requested_at = Instant::now();
        if !self.state().membership.owns_running() {
            return Err(CommitError::Lost);
        }
        let error = match self.request_commit(position, record, in_flight).await {
            Ok(()) => {
                self.record_committed(position, record.clone(), requested_at);
                return Ok(None);
            }
            Err(error) => error,
        };
        self.inner.context().metrics.commit("refused");
        match classify_failure(error.rdkafka_error_code()) {
            CommitFailure::Lost => Err(CommitError::Lost),
            CommitFailure::Fatal => Err(CommitError::Fatal(error)),
            CommitFailure::Passing(failure) => {
                if failure == PassingFailure::Refused {
                    self.record_error(&error);
                }
                Ok(Some((failure, error)))
            }
        }
    }

    fn record_committed(&self, position: Position, record: OffsetMetadata, requested_at: Instant) {
        self.inner.context().metrics.commit("committed");
        self.inner.context().gate.accepted(Accepted::Topic);
        let mut state = self.state();
        state.membership.record_commit(position, record, Instant::now());
        let is_fetched = state.fetched.is_first(position);
        state.confirmed = is_fetched.then_some((position, requested_at));
    }

    async fn request_commit(
        &self,
        position: Position,
        record: &OffsetMetadata,
        in_flight: OwnedMutexGuard<()>,
    ) -> KafkaResult<()> {
        let mut offsets = TopicPartitionList::new();
        let mut element = offsets.add_partition(&self.topic, position.partition);
        element.set_offset(Offset::Offset(position.offset))?;
        if *record != OffsetMetadata::default() {
            element.set_metadata(record.to_string());
        }
        let consumer = Arc::clone(&self.inner);
        // This binding reports the result of a commit only in synchronous mode.
        let committed = client::run_blocking(move || {
            // Until the brokers respond, even if this future is dropped.
            let _in_flight = in_flight;
            consumer.commit(&offsets, CommitMode::Sync)
        });
        committed.await
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
        let passing = CommitFailure::Passing;
        for (code, expected) in [
            (RDKafkaErrorCode::UnknownMemberId, CommitFailure::Lost),
            (RDKafkaErrorCode::AssignmentLost, CommitFailure::Lost),
            (RDKafkaErrorCode::Fatal, CommitFailure::Fatal),
            (
                RDKafkaErrorCode::UnknownTopicOrPartition,
                passing(PassingFailure::NoTopic),
            ),
            (
                RDKafkaErrorCode::RebalanceInProgress,
                passing(PassingFailure::Transient),
            ),
            (
                RDKafkaErrorCode::NotCoordinator,
                passing(PassingFailure::Transient),
            ),
            (
                RDKafkaErrorCode::OperationTimedOut,
                passing(PassingFailure::Transient),
            ),
            (
                RDKafkaErrorCode::GroupAuthorizationFailed,
                passing(PassingFailure::Refused),
            ),
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
