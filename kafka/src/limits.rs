//! Limits on the size of responses. Any user who writes a pool chooses its brokers, so one tenant's broker must not
//! exhaust the memory that all pools share.
//!
//! One hostile cluster can occupy at most one largest response for each group that it coordinates, and the response
//! limit of the request for each broker that it names; the decoded response to a request takes at most
//! [`MAX_DECODED_BYTES`], also if it arrives in several parts.

use kafka_protocol::messages::{
    ApiVersionsRequest, ConsumerGroupDescribeRequest, CreateTopicsRequest, DescribeGroupsRequest,
    FindCoordinatorRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest,
    SaslAuthenticateRequest, SaslHandshakeRequest,
};

/// The largest response to any request: [`crate::cluster::TOPICS_PER_REQUEST`] topics of 10,000 partitions with three
/// replicas, 42 bytes each, are 3.4 MB.
pub(crate) const MAX_RESPONSE_BYTES: usize = 4 * 1024 * 1024;

/// The most memory that a decoded response may take: the same topics are 13.3 MB.
pub(crate) const MAX_DECODED_BYTES: usize = 16 * 1024 * 1024;

/// The most partitions of one topic that are read: as many as a pool may have workers.
pub(crate) const MAX_PARTITIONS: usize = 10_000;

/// The most partitions of one cluster that are read: a thousand pools with two topics of a hundred partitions.
pub(crate) const MAX_TOTAL_PARTITIONS: usize = 200_000;

/// The part of a response outside its partitions, groups and topics, and responses that have none of them.
const BASE_BYTES: usize = 64 * 1024;

/// A partition's offset or error code; a commit with the most metadata that brokers accept by default (4,096 bytes).
const OFFSET_BYTES: usize = 64;
const COMMIT_BYTES: usize = 4_096 + 64;

/// A coordinator with its host name and an error text.
const COORDINATOR_BYTES: usize = 1_024;

/// The size limit of a request's response.
pub(crate) trait ResponseLimit {
    /// In bytes, without the length prefix.
    fn max_response_bytes(&self) -> usize;
}

fn limited(items: usize, bytes: usize) -> usize {
    (BASE_BYTES + items.saturating_mul(bytes)).min(MAX_RESPONSE_BYTES)
}

impl ResponseLimit for MetadataRequest {
    fn max_response_bytes(&self) -> usize {
        MAX_RESPONSE_BYTES
    }
}

impl ResponseLimit for DescribeGroupsRequest {
    fn max_response_bytes(&self) -> usize {
        MAX_RESPONSE_BYTES
    }
}

impl ResponseLimit for ConsumerGroupDescribeRequest {
    fn max_response_bytes(&self) -> usize {
        MAX_RESPONSE_BYTES
    }
}

impl ResponseLimit for ListOffsetsRequest {
    fn max_response_bytes(&self) -> usize {
        let partitions = self.topics.iter().map(|topic| topic.partitions.len());
        limited(partitions.sum(), OFFSET_BYTES)
    }
}

impl ResponseLimit for OffsetFetchRequest {
    fn max_response_bytes(&self) -> usize {
        let of_groups = self.groups.iter().flat_map(|group| group.topics.iter().flatten());
        let of_groups: usize = of_groups.map(|topic| topic.partition_indexes.len()).sum();
        // In versions in which a request names one group.
        let of_group = self.topics.iter().flatten();
        let of_group: usize = of_group.map(|topic| topic.partition_indexes.len()).sum();
        limited(of_groups + of_group, COMMIT_BYTES)
    }
}

impl ResponseLimit for OffsetCommitRequest {
    fn max_response_bytes(&self) -> usize {
        let partitions = self.topics.iter().map(|topic| topic.partitions.len());
        limited(partitions.sum(), OFFSET_BYTES)
    }
}

impl ResponseLimit for FindCoordinatorRequest {
    fn max_response_bytes(&self) -> usize {
        limited(self.coordinator_keys.len().max(1), COORDINATOR_BYTES)
    }
}

macro_rules! small_responses {
    ($($request:ty),*) => {
        $(impl ResponseLimit for $request {
            fn max_response_bytes(&self) -> usize {
                BASE_BYTES
            }
        })*
    };
}

small_responses!(
    ApiVersionsRequest,
    CreateTopicsRequest,
    SaslHandshakeRequest,
    SaslAuthenticateRequest
);
