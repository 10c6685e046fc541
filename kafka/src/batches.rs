//! Requests about several groups, for brokers that answer about one group per request: one request for each group, and
//! their responses as one.

use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, OffsetFetchRequest, OffsetFetchResponse,
};

pub(crate) fn split_lookup(request: &FindCoordinatorRequest) -> Vec<FindCoordinatorRequest> {
    let keys = request.coordinator_keys.iter();
    keys.map(|key| FindCoordinatorRequest::default().with_key(key.clone()))
        .collect()
}

/// `responses` are in the order of the request's keys.
pub(crate) fn join_lookups(
    request: &FindCoordinatorRequest,
    responses: Vec<FindCoordinatorResponse>,
) -> FindCoordinatorResponse {
    let found = request
        .coordinator_keys
        .iter()
        .zip(responses)
        .map(|(key, response)| {
            Coordinator::default()
                .with_key(key.clone())
                .with_node_id(response.node_id)
                .with_host(response.host)
                .with_port(response.port)
                .with_error_code(response.error_code)
                .with_error_message(response.error_message)
        });
    FindCoordinatorResponse::default().with_coordinators(found.collect())
}

pub(crate) fn split_fetch(request: &OffsetFetchRequest) -> Vec<OffsetFetchRequest> {
    let each = request.groups.iter().map(|group| {
        let topics = group.topics.iter().flatten().map(|topic| {
            OffsetFetchRequestTopic::default()
                .with_name(topic.name.clone())
                .with_partition_indexes(topic.partition_indexes.clone())
        });
        OffsetFetchRequest::default()
            .with_group_id(group.group_id.clone())
            .with_topics(Some(topics.collect()))
    });
    each.collect()
}

/// `responses` are in the order of the request's groups.
pub(crate) fn join_fetches(
    request: &OffsetFetchRequest,
    responses: Vec<OffsetFetchResponse>,
) -> OffsetFetchResponse {
    let groups = request.groups.iter().zip(responses).map(|(group, response)| {
        OffsetFetchResponseGroup::default()
            .with_group_id(group.group_id.clone())
            .with_error_code(response.error_code)
            .with_topics(response.topics.into_iter().map(topic_of_group).collect())
    });
    OffsetFetchResponse::default().with_groups(groups.collect())
}

fn topic_of_group(topic: OffsetFetchResponseTopic) -> OffsetFetchResponseTopics {
    let partitions = topic.partitions.into_iter().map(partition_of_group);
    OffsetFetchResponseTopics::default()
        .with_name(topic.name)
        .with_partitions(partitions.collect())
}

fn partition_of_group(partition: OffsetFetchResponsePartition) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions::default()
        .with_partition_index(partition.partition_index)
        .with_committed_offset(partition.committed_offset)
        .with_committed_leader_epoch(partition.committed_leader_epoch)
        .with_metadata(partition.metadata)
        .with_error_code(partition.error_code)
}
