//! A scripted cluster of one broker with valid responses, in the versions of the protocol that a test chooses.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::{Buf as _, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::consumer_group_describe_response as consumer_protocol;
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, BrokerId, ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse, ConsumerProtocolAssignment, DescribeGroupsRequest, DescribeGroupsResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, GroupId, ListOffsetsRequest, ListOffsetsResponse,
    MetadataRequest, MetadataResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest,
    OffsetFetchResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::reading::Reading;

pub(crate) const CLUSTER_ID: &str = "scripted";

/// Sixteen bytes of 7, as base64.
pub(crate) const TOPIC_ID: &str = "BwcHBwcHBwcHBwcHBwcHBw";

/// The supported requests, each with its lowest and highest version.
pub(crate) type Versions = Vec<(ApiKey, i16, i16)>;

/// Every topic and group of the cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents {
    /// Topics with the next end offsets of their partitions, whose first message is 0. The last one is repeated.
    pub(crate) topics: BTreeMap<&'static str, Vec<VecDeque<i64>>>,
    pub(crate) groups: BTreeMap<&'static str, ScriptedGroup>,
    /// Metadata that a group committed in a partition.
    pub(crate) metadata: BTreeMap<(&'static str, i32), String>,
    /// Timestamps of the messages of a topic's partition, in milliseconds since the Unix epoch. Without them, requests
    /// for offsets at a time are refused.
    pub(crate) timestamps: BTreeMap<(&'static str, i32), Vec<i64>>,
    /// Messages of an open transaction after the end of each partition.
    pub(crate) uncommitted: i64,
}

/// A group with one topic.
#[derive(Debug, Clone)]
pub(crate) struct ScriptedGroup {
    pub(crate) topic: &'static str,
    /// The next committed offsets of each partition. The last one is repeated.
    pub(crate) committed: Vec<VecDeque<Option<i64>>>,
    /// The client id of each member, and its partitions.
    pub(crate) members: Vec<(&'static str, Vec<i32>)>,
    pub(crate) protocol: GroupProtocol,
}

/// The rebalance protocol of a group, which decides the request that describes it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum GroupProtocol {
    Classic,
    /// The consumer protocol, with this state while the group has members.
    Consumer(&'static str),
    /// ConsumerGroupDescribe returns this error, and DescribeGroups does not know the group.
    Refused(ResponseError),
}

impl ScriptedGroup {
    fn state(&self, with_members: &'static str) -> &'static str {
        if self.members.is_empty() {
            "Empty"
        } else {
            with_members
        }
    }
}

/// It listens until it is dropped.
pub(crate) struct ScriptedCluster {
    address: SocketAddr,
    contents: Arc<Mutex<Contents>>,
    listening: JoinHandle<()>,
}

impl ScriptedCluster {
    /// A cluster with these topics and groups, whose brokers answer what a reading of lag requests, in any version.
    pub(crate) async fn for_lag(contents: Contents) -> Self {
        let keys = [
            ApiKey::ApiVersions,
            ApiKey::Metadata,
            ApiKey::ListOffsets,
            ApiKey::FindCoordinator,
            ApiKey::OffsetFetch,
        ];
        Self::start(keys.map(|key| (key, 0, 20)).to_vec(), contents).await
    }

    pub(crate) async fn start(versions: Versions, contents: Contents) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let contents = Arc::new(Mutex::new(contents));
        let served = Arc::clone(&contents);
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let broker = Broker {
                    versions: versions.clone(),
                    port: address.port().into(),
                    contents: Arc::clone(&served),
                };
                tokio::spawn(broker.serve(stream));
            }
        });
        Self {
            address,
            contents,
            listening,
        }
    }

    /// Changes topics and groups.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Contents)) {
        change(&mut self.contents.lock().expect("nothing panics"));
    }

    pub(crate) fn reading(&self) -> Reading {
        Reading::of(&self.address.to_string())
    }
}

impl Drop for ScriptedCluster {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

struct Broker {
    versions: Versions,
    port: i32,
    contents: Arc<Mutex<Contents>>,
}

impl Broker {
    /// Ends when the client disconnects, or sends a request or a version that the broker does not support.
    async fn serve(self, mut stream: TcpStream) -> Option<()> {
        loop {
            let length = stream.read_u32().await.ok()?;
            let mut request = vec![0; usize::try_from(length).ok()?];
            stream.read_exact(&mut request).await.ok()?;
            let mut request = Bytes::from(request);
            let (key, version) = (request.clone().get_i16(), request.slice(2..).get_i16());
            let (key, ..) = *self.versions.iter().find(|(name, lowest, highest)| {
                *name as i16 == key && (*lowest..=*highest).contains(&version)
            })?;
            let header = RequestHeader::decode(&mut request, key.request_header_version(version)).ok()?;
            let mut response = BytesMut::new();
            ResponseHeader::default()
                .with_correlation_id(header.correlation_id)
                .encode(&mut response, key.response_header_version(version))
                .ok()?;
            response.extend_from_slice(&self.respond(key, version, request)?);
            stream.write_u32(u32::try_from(response.len()).ok()?).await.ok()?;
            stream.write_all(&response).await.ok()?;
        }
    }

    fn respond(&self, key: ApiKey, version: i16, request: Bytes) -> Option<Bytes> {
        let mut contents = self.contents.lock().expect("nothing panics");
        let contents = &mut *contents;
        match key {
            ApiKey::ApiVersions => answer(version, request, |_: ApiVersionsRequest| self.api_versions()),
            ApiKey::Metadata => answer(version, request, |request| self.metadata(request, contents)),
            ApiKey::ListOffsets => answer(version, request, |request| list_offsets(request, contents)),
            ApiKey::FindCoordinator => answer(version, request, |request| self.find_coordinator(request)),
            ApiKey::OffsetFetch => answer(version, request, |request| offset_fetch(request, contents)),
            ApiKey::OffsetCommit => answer(version, request, |request| offset_commit(request, contents)),
            ApiKey::DescribeGroups => answer(version, request, |request| describe_groups(request, contents)),
            ApiKey::ConsumerGroupDescribe => {
                answer(version, request, |request| describe_consumers(request, contents))
            }
            _ => None,
        }
    }

    fn api_versions(&self) -> ApiVersionsResponse {
        let each = self.versions.iter().map(|(key, lowest, highest)| {
            ApiVersion::default()
                .with_api_key(*key as i16)
                .with_min_version(*lowest)
                .with_max_version(*highest)
        });
        ApiVersionsResponse::default().with_api_keys(each.collect())
    }

    fn metadata(&self, request: MetadataRequest, contents: &Contents) -> MetadataResponse {
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(1))
            .with_host(text("127.0.0.1"))
            .with_port(self.port);
        let topics = request.topics.into_iter().flatten().map(|topic| {
            let name = topic.name.expect("a name");
            let described = MetadataResponseTopic::default()
                .with_name(Some(name.clone()))
                .with_topic_id(Uuid::from_bytes([7; 16]));
            let Some(ends) = contents.topics.get(name.as_str()) else {
                return described.with_error_code(ResponseError::UnknownTopicOrPartition.code());
            };
            let partitions = numbered(ends).map(|(partition, _)| {
                MetadataResponsePartition::default()
                    .with_partition_index(partition)
                    .with_leader_id(BrokerId(1))
                    .with_replica_nodes(vec![BrokerId(1)])
                    .with_isr_nodes(vec![BrokerId(1)])
            });
            described.with_partitions(partitions.collect())
        });
        MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_cluster_id(Some(text(CLUSTER_ID)))
            .with_controller_id(BrokerId(1))
            .with_topics(topics.collect())
    }

    fn find_coordinator(&self, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
        if request.coordinator_keys.is_empty() {
            return FindCoordinatorResponse::default()
                .with_node_id(BrokerId(1))
                .with_host(text("127.0.0.1"))
                .with_port(self.port);
        }
        let each = request.coordinator_keys.into_iter().map(|key| {
            Coordinator::default()
                .with_key(key)
                .with_node_id(BrokerId(1))
                .with_host(text("127.0.0.1"))
                .with_port(self.port)
        });
        FindCoordinatorResponse::default().with_coordinators(each.collect())
    }
}

fn answer<Q: Decodable, A: Encodable>(
    version: i16,
    mut request: Bytes,
    respond: impl FnOnce(Q) -> A,
) -> Option<Bytes> {
    let response = respond(Q::decode(&mut request, version).ok()?);
    let mut bytes = BytesMut::new();
    response
        .encode(&mut bytes, version)
        .expect("a response in this version");
    Some(bytes.freeze())
}

fn list_offsets(request: ListOffsetsRequest, contents: &mut Contents) -> ListOffsetsResponse {
    let reads_uncommitted = request.isolation_level == 0;
    let Contents {
        topics,
        timestamps,
        uncommitted,
        ..
    } = contents;
    let uncommitted = if reads_uncommitted { *uncommitted } else { 0 };
    let topics = request.topics.into_iter().map(|topic| {
        let name = topic.name.as_str();
        let ends = topics.get_mut(name).expect("a topic");
        let partitions = topic.partitions.iter().map(|partition| {
            let number = partition.partition_index;
            let response = ListOffsetsPartitionResponse::default().with_partition_index(number);
            // Time -2 asks for the first offset, -1 for the next.
            match (partition.timestamp, timestamps.get(&(name, number))) {
                (-2, _) => response.with_offset(0),
                (-1, _) => response.with_offset(next(&mut ends[index(number)]) + uncommitted),
                (_, None) => response.with_error_code(ResponseError::UnsupportedForMessageFormat.code()),
                (time, Some(timestamps)) => {
                    let mut numbered = (0..).zip(timestamps);
                    let first = numbered.find(|(_, timestamp)| **timestamp >= time);
                    response.with_offset(first.map_or(-1, |(offset, _)| offset))
                }
            }
        });
        ListOffsetsTopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

fn offset_fetch(request: OffsetFetchRequest, contents: &mut Contents) -> OffsetFetchResponse {
    // In versions in which a request names one group.
    if request.groups.is_empty() {
        let topics = request.topics.into_iter().flatten().map(|topic| {
            let committed = committed(contents, &request.group_id, &topic.partition_indexes);
            let partitions = committed.into_iter().map(|(partition, offset, metadata)| {
                OffsetFetchResponsePartition::default()
                    .with_partition_index(partition)
                    .with_committed_offset(offset)
                    .with_metadata(metadata)
            });
            OffsetFetchResponseTopic::default()
                .with_name(topic.name)
                .with_partitions(partitions.collect())
        });
        return OffsetFetchResponse::default().with_topics(topics.collect());
    }
    let groups = request.groups.into_iter().map(|group| {
        let topics = group.topics.into_iter().flatten().map(|topic| {
            let committed = committed(contents, &group.group_id, &topic.partition_indexes);
            let partitions = committed.into_iter().map(|(partition, offset, metadata)| {
                OffsetFetchResponsePartitions::default()
                    .with_partition_index(partition)
                    .with_committed_offset(offset)
                    .with_metadata(metadata)
            });
            OffsetFetchResponseTopics::default()
                .with_name(topic.name)
                .with_partitions(partitions.collect())
        });
        OffsetFetchResponseGroup::default()
            .with_topics(topics.collect())
            .with_group_id(group.group_id)
    });
    OffsetFetchResponse::default().with_groups(groups.collect())
}

/// The partitions with their next committed offsets, -1 where the group never committed, and the metadata.
fn committed(
    contents: &mut Contents,
    name: &GroupId,
    partitions: &[i32],
) -> Vec<(i32, i64, Option<StrBytes>)> {
    let Contents { groups, metadata, .. } = contents;
    let group = groups.get_mut(name.as_str()).expect("a group");
    let offsets = partitions.iter().map(|partition| {
        let committed = next(&mut group.committed[index(*partition)]);
        let metadata = metadata.get(&(name.as_str(), *partition));
        let metadata = metadata.cloned().map(StrBytes::from_string);
        (*partition, committed.unwrap_or(-1), metadata)
    });
    offsets.collect()
}

fn offset_commit(request: OffsetCommitRequest, contents: &mut Contents) -> OffsetCommitResponse {
    let group = contents
        .groups
        .get_mut(request.group_id.as_str())
        .expect("a group");
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            group.committed[index(partition.partition_index)] = [Some(partition.committed_offset)].into();
            OffsetCommitResponsePartition::default().with_partition_index(partition.partition_index)
        });
        OffsetCommitResponseTopic::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// A group that does not exist, or is not of the classic protocol, is `Dead`.
fn describe_groups(request: DescribeGroupsRequest, contents: &Contents) -> DescribeGroupsResponse {
    let groups = request.groups.into_iter().map(|id| {
        let group = contents.groups.get(id.as_str());
        let described = DescribedGroup::default().with_group_id(id);
        let Some(group) = group.filter(|group| matches!(group.protocol, GroupProtocol::Classic)) else {
            return described.with_group_state(text("Dead"));
        };
        let members = group.members.iter().map(|(client_id, partitions)| {
            DescribedGroupMember::default()
                .with_client_id(text(client_id))
                .with_client_host(text("/10.0.0.7"))
                .with_member_assignment(encoded_assignment(group.topic, partitions))
        });
        described
            .with_group_state(text(group.state("Stable")))
            .with_members(members.collect())
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

/// A group that does not exist, or is of the classic protocol, is not found.
fn describe_consumers(
    request: ConsumerGroupDescribeRequest,
    contents: &Contents,
) -> ConsumerGroupDescribeResponse {
    let groups = request.group_ids.into_iter().map(|id| {
        let group = contents.groups.get(id.as_str());
        let described = consumer_protocol::DescribedGroup::default().with_group_id(id);
        let (group, state) = match group {
            Some(group) => match group.protocol {
                GroupProtocol::Consumer(state) => (group, state),
                GroupProtocol::Refused(error) => return described.with_error_code(error.code()),
                GroupProtocol::Classic => {
                    return described.with_error_code(ResponseError::GroupIdNotFound.code());
                }
            },
            None => return described.with_error_code(ResponseError::GroupIdNotFound.code()),
        };
        let members = group.members.iter().map(|(client_id, partitions)| {
            consumer_protocol::Member::default()
                .with_client_id(text(client_id))
                .with_client_host(text("/10.0.0.7"))
                .with_subscribed_topic_names(vec![TopicName(text(group.topic))])
                .with_assignment(reported_assignment(group.topic, partitions))
                .with_target_assignment(reported_assignment(group.topic, partitions))
        });
        described
            .with_group_state(text(group.state(state)))
            .with_members(members.collect())
    });
    ConsumerGroupDescribeResponse::default().with_groups(groups.collect())
}

fn reported_assignment(topic: &'static str, partitions: &[i32]) -> consumer_protocol::Assignment {
    let of_topic = consumer_protocol::TopicPartitions::default()
        .with_topic_id(Uuid::from_bytes([7; 16]))
        .with_topic_name(TopicName(text(topic)))
        .with_partitions(partitions.to_vec());
    consumer_protocol::Assignment::default().with_topic_partitions(vec![of_topic])
}

/// An assignment as a consumer of the classic protocol encodes it.
fn encoded_assignment(topic: &'static str, partitions: &[i32]) -> Bytes {
    let topic = TopicPartition::default()
        .with_topic(TopicName(text(topic)))
        .with_partitions(partitions.to_vec());
    // Version 1.
    let mut bytes = BytesMut::from([0, 1].as_slice());
    ConsumerProtocolAssignment::default()
        .with_assigned_partitions(vec![topic])
        .encode(&mut bytes, 1)
        .expect("an assignment");
    bytes.freeze()
}

/// The next value; the last one is repeated.
fn next<T: Copy>(values: &mut VecDeque<T>) -> T {
    let first = values[0];
    if values.len() > 1 {
        values.pop_front();
    }
    first
}

fn numbered<T>(partitions: &[T]) -> impl Iterator<Item = (i32, &T)> {
    (0..).zip(partitions)
}

fn index(partition: i32) -> usize {
    usize::try_from(partition).expect("a partition")
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}
