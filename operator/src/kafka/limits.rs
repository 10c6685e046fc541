//! How large answers may be. Brokers are chosen by whoever writes a pool, so that one tenant's broker must not use up the
//! memory that the pools of all share.
//!
//! One hostile cluster holds at most one longest answer for each group that it coordinates, and what its question can
//! expect for each broker that it names; decoded, one answer takes at most [`LONGEST_DECODED_BYTES`].

use kafka_protocol::messages::{
    ApiVersionsRequest, DescribeGroupsRequest, FindCoordinatorRequest, ListOffsetsRequest, MetadataRequest,
    OffsetCommitRequest, OffsetFetchRequest, SaslAuthenticateRequest, SaslHandshakeRequest,
};

/// The longest answer to any question: [`super::cluster::TOPICS_PER_QUESTION`] topics of 10,000 partitions with three
/// replicas, 42 bytes each, are 3.4 MB.
pub(super) const LONGEST_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// The most memory that a decoded answer may take: the same topics are 13.3 MB.
pub(super) const LONGEST_DECODED_BYTES: usize = 16 * 1024 * 1024;

/// Partitions of one topic that are read: as many as a pool may have workers.
pub(super) const MOST_PARTITIONS: usize = 10_000;

/// Partitions of all topics of one cluster that are read: a thousand pools with two topics of a hundred.
pub(super) const MOST_PARTITIONS_IN_ALL: usize = 200_000;

/// What belongs to no partition, group or topic of an answer, and the answers that have none.
const REST_BYTES: usize = 64 * 1024;

/// A partition's offset, its commit with the metadata that brokers take by default (4,096 bytes), or its error.
const OFFSET_BYTES: usize = 64;
const COMMIT_BYTES: usize = 4_096 + 64;

/// A coordinator with its host name and an error text.
const COORDINATOR_BYTES: usize = 1_024;

/// How long the answer to a question may be.
pub(super) trait Expected {
    /// In bytes, without its length.
    fn longest_answer(&self) -> usize;
}

fn at_most(items: usize, bytes: usize) -> usize {
    (REST_BYTES + items.saturating_mul(bytes)).min(LONGEST_ANSWER_BYTES)
}

impl Expected for MetadataRequest {
    fn longest_answer(&self) -> usize {
        LONGEST_ANSWER_BYTES
    }
}

impl Expected for DescribeGroupsRequest {
    fn longest_answer(&self) -> usize {
        LONGEST_ANSWER_BYTES
    }
}

impl Expected for ListOffsetsRequest {
    fn longest_answer(&self) -> usize {
        let partitions = self.topics.iter().map(|topic| topic.partitions.len());
        at_most(partitions.sum(), OFFSET_BYTES)
    }
}

impl Expected for OffsetFetchRequest {
    fn longest_answer(&self) -> usize {
        let topics = self.groups.iter().flat_map(|group| group.topics.iter().flatten());
        at_most(
            topics.map(|topic| topic.partition_indexes.len()).sum(),
            COMMIT_BYTES,
        )
    }
}

impl Expected for OffsetCommitRequest {
    fn longest_answer(&self) -> usize {
        let partitions = self.topics.iter().map(|topic| topic.partitions.len());
        at_most(partitions.sum(), OFFSET_BYTES)
    }
}

impl Expected for FindCoordinatorRequest {
    fn longest_answer(&self) -> usize {
        at_most(self.coordinator_keys.len(), COORDINATOR_BYTES)
    }
}

macro_rules! short {
    ($($question:ty),*) => {
        $(impl Expected for $question {
            fn longest_answer(&self) -> usize {
                REST_BYTES
            }
        })*
    };
}

short!(ApiVersionsRequest, SaslHandshakeRequest, SaslAuthenticateRequest);
