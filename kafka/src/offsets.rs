//! Start and end offsets of partitions, and offsets at a time, requested from their leaders.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use kafka_protocol::messages::list_offsets_response::ListOffsetsResponse;
use kafka_protocol::messages::{BrokerId, TopicName};

use crate::broker::Broker;
use crate::protocol::text;
use crate::{Cluster, Deadline, ReadError, TopicPartition};

/// Partitions in one request: the response has 60 kB, and a failed request leaves no more of them unread.
const PARTITIONS_PER_REQUEST: usize = 2_000;

/// The isolation level at which all records count.
const READ_UNCOMMITTED: i8 = 0;

/// The isolation level at which only committed records count.
const READ_COMMITTED: i8 = 1;

/// Which offset of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetKind {
    /// The first retained offset.
    Start,
    /// The end offset as `read_committed` consumers see it: the last stable offset.
    End,
    /// The first offset whose message has this timestamp or a later one, in milliseconds since the Unix epoch;
    /// [`i64::MAX`] if all messages are older.
    At(i64),
    /// The end offset as `read_uncommitted` consumers see it. It is greater while a transaction is open.
    HighWatermark,
}

type Offsets = BTreeMap<TopicPartition, Result<i64, ReadError>>;

/// Partitions whose leader has changed or did not answer, with the broker that was asked.
type ToRetry = BTreeMap<TopicPartition, Option<i32>>;

impl Cluster {
    /// Offsets of one kind. The map has an entry for every partition: its offset, or the reason why it could not be
    /// read.
    pub async fn offsets(
        &self,
        partitions: &[TopicPartition],
        kind: OffsetKind,
        deadline: &Deadline,
    ) -> BTreeMap<TopicPartition, Result<i64, ReadError>> {
        let due: BTreeSet<_> = partitions.iter().cloned().collect();
        let mut found = Offsets::new();
        let unknown: BTreeSet<_> = {
            let routes = self.routes();
            let topics = due.iter().map(|partition| &partition.topic);
            topics.filter(|topic| !routes.has_topic(topic)).cloned().collect()
        };
        self.describe_topics(&unknown, &due, &mut found, deadline).await;
        let to_retry = self.request_from_leaders(due, kind, &mut found, deadline).await;
        if to_retry.is_empty() || deadline.remaining().is_zero() {
            return found;
        }
        // Once more, for partitions with a new leader, and those whose broker answered that it is not the leader.
        let moved: BTreeSet<_> = to_retry
            .keys()
            .map(|partition| Arc::clone(&partition.topic))
            .collect();
        let moved: Vec<_> = moved.into_iter().collect();
        self.topics(&moved, deadline).await;
        let again = {
            let routes = self.routes();
            let again = to_retry.into_iter().filter(|(partition, requested)| {
                let leads = routes.leader(partition);
                leads.is_ok_and(|leader| Some(leader) != *requested)
            });
            again.map(|(partition, _)| partition).collect()
        };
        self.request_from_leaders(again, kind, &mut found, deadline).await;
        found
    }

    /// Describes topics, and records the error for the partitions of those that cannot be described.
    async fn describe_topics(
        &self,
        topics: &BTreeSet<Arc<str>>,
        partitions: &BTreeSet<TopicPartition>,
        found: &mut Offsets,
        deadline: &Deadline,
    ) {
        if topics.is_empty() {
            return;
        }
        let names: Vec<_> = topics.iter().cloned().collect();
        let described = self.topics(&names, deadline).await;
        for partition in partitions {
            if let Some(Err(why)) = described.get(&partition.topic) {
                found.insert(partition.clone(), Err(why.clone()));
            }
        }
    }

    /// Asks all leaders concurrently, and returns the partitions that are worth a second request.
    async fn request_from_leaders(
        &self,
        due: BTreeSet<TopicPartition>,
        kind: OffsetKind,
        found: &mut Offsets,
        deadline: &Deadline,
    ) -> ToRetry {
        let mut to_retry = ToRetry::new();
        let mut by_leader: HashMap<i32, (Arc<Broker>, Vec<TopicPartition>)> = HashMap::new();
        {
            let mut routes = self.routes();
            for partition in due {
                let leader = routes.leader(&partition);
                let broker = leader.and_then(|id| Ok((id, routes.broker(id, &self.connector)?)));
                match broker {
                    Ok((id, broker)) => {
                        let (_, partitions) = by_leader.entry(id).or_insert_with(|| (broker, Vec::new()));
                        partitions.push(partition);
                    }
                    Err(why) => {
                        // An error from describing the topic explains more.
                        found.entry(partition.clone()).or_insert(Err(why));
                        to_retry.insert(partition, None);
                    }
                }
            }
        }
        let mut requested = Vec::new();
        for (id, (broker, partitions)) in by_leader {
            for chunk in partitions.chunks(PARTITIONS_PER_REQUEST) {
                requested.push(send(Arc::clone(&broker), id, chunk.to_vec(), kind, *deadline));
            }
        }
        for (leader, partitions, response) in join_all(requested).await {
            match response {
                Ok(response) => record_response(&partitions, kind, &response, found, &mut to_retry),
                Err(why) => {
                    for partition in partitions {
                        found.insert(partition.clone(), Err(why.clone()));
                        to_retry.insert(partition, Some(leader));
                    }
                }
            }
        }
        to_retry
    }
}

async fn send(
    broker: Arc<Broker>,
    id: i32,
    partitions: Vec<TopicPartition>,
    kind: OffsetKind,
    deadline: Deadline,
) -> (i32, Vec<TopicPartition>, Result<ListOffsetsResponse, ReadError>) {
    let response = broker.send(&offsets_request(&partitions, kind), &deadline).await;
    (id, partitions, response)
}

fn offsets_request(partitions: &[TopicPartition], kind: OffsetKind) -> ListOffsetsRequest {
    let (at, isolation_level) = match kind {
        OffsetKind::Start => (-2, READ_COMMITTED),
        OffsetKind::End => (-1, READ_COMMITTED),
        OffsetKind::HighWatermark => (-1, READ_UNCOMMITTED),
        OffsetKind::At(timestamp) => (timestamp.max(0), READ_COMMITTED),
    };
    let of_topics = partitions.chunk_by(|one, next| one.topic == next.topic);
    let topics = of_topics.map(|partitions| {
        let listed = partitions.iter().map(|partition| {
            ListOffsetsPartition::default()
                .with_partition_index(partition.partition)
                .with_current_leader_epoch(-1)
                .with_timestamp(at)
        });
        ListOffsetsTopic::default()
            .with_name(TopicName(text(&partitions[0].topic)))
            .with_partitions(listed.collect())
    });
    ListOffsetsRequest::default()
        // -1: a consumer, not a replica.
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(isolation_level)
        .with_topics(topics.collect())
}

fn record_response(
    requested: &[TopicPartition],
    kind: OffsetKind,
    response: &ListOffsetsResponse,
    found: &mut Offsets,
    to_retry: &mut ToRetry,
) {
    let mut offsets = HashMap::new();
    for topic in &response.topics {
        for partition in &topic.partitions {
            let named = (topic.name.0.as_str(), partition.partition_index);
            offsets.insert(named, (partition.error_code, partition.offset));
        }
    }
    for partition in requested {
        let offset = match offsets.get(&(&*partition.topic, partition.partition)) {
            None => Err(ReadError::malformed("the broker's response omits the partition")),
            Some((0, offset)) if *offset < 0 => match kind {
                OffsetKind::At(_) => Ok(i64::MAX),
                OffsetKind::Start | OffsetKind::End | OffsetKind::HighWatermark => {
                    Err(ReadError::malformed("the broker returned no offset"))
                }
            },
            Some((0, offset)) => Ok(*offset),
            Some((code, _)) => {
                if is_retriable(*code) {
                    to_retry.insert(partition.clone(), None);
                }
                Err(ReadError::from_code(*code))
            }
        };
        found.insert(partition.clone(), offset);
    }
}

fn is_retriable(code: i16) -> bool {
    matches!(
        ResponseError::try_from_code(code),
        Some(
            ResponseError::NotLeaderOrFollower
                | ResponseError::LeaderNotAvailable
                | ResponseError::FencedLeaderEpoch
                | ResponseError::UnknownLeaderEpoch
                | ResponseError::UnknownTopicOrPartition
                | ResponseError::ReplicaNotAvailable
                | ResponseError::KafkaStorageError
        )
    )
}
