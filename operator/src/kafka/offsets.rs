//! First and next offsets of partitions, asked of those who lead them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use kafka_protocol::messages::list_offsets_response::ListOffsetsResponse;
use kafka_protocol::messages::{BrokerId, TopicName};

use super::broker::Broker;
use super::protocol::text;
use super::{Cluster, Deadline, TopicPartition, Unread};

/// Partitions in one question: its answer has 60 kB, and a broker that fails loses no more of them at once.
const PARTITIONS_PER_QUESTION: usize = 2_000;

/// Offsets that only committed records count for.
const READ_COMMITTED: i8 = 1;

/// Which end of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The first offset that is still there.
    Start,
    /// The next offset, as readers of committed records see it.
    End,
}

type Offsets = BTreeMap<TopicPartition, Result<i64, Unread>>;

/// Partitions whose leader is not who we thought, or did not answer; with who was asked.
type Missed = BTreeMap<TopicPartition, Option<i32>>;

impl Cluster {
    /// First or next offsets of partitions, the latter as readers of committed records see them. Every partition is
    /// there, with its offset or why it could not be read.
    pub async fn offsets(
        &self,
        partitions: &[TopicPartition],
        which: Which,
        deadline: &Deadline,
    ) -> BTreeMap<TopicPartition, Result<i64, Unread>> {
        let due: BTreeSet<_> = partitions.iter().cloned().collect();
        let mut found = Offsets::new();
        let unknown: BTreeSet<_> = {
            let routes = self.routes();
            let topics = due.iter().map(|partition| &partition.topic);
            topics.filter(|topic| !routes.knows(topic)).cloned().collect()
        };
        self.describe_for(&unknown, &due, &mut found, deadline).await;
        let missed = self.ask_leaders(due, which, &mut found, deadline).await;
        if missed.is_empty() || deadline.left().is_zero() {
            return found;
        }
        // Once more, where somebody else leads now, or somebody answered that it leads no more.
        let moved: BTreeSet<_> = missed
            .keys()
            .map(|partition| Arc::clone(&partition.topic))
            .collect();
        let moved: Vec<_> = moved.into_iter().collect();
        self.topics(&moved, deadline).await;
        let again = {
            let routes = self.routes();
            let again = missed.into_iter().filter(|(partition, asked)| {
                let leads = routes.leader(partition);
                leads.is_ok_and(|leader| Some(leader) != *asked)
            });
            again.map(|(partition, _)| partition).collect()
        };
        self.ask_leaders(again, which, &mut found, deadline).await;
        found
    }

    /// Describes topics, and notes for partitions of those that could not be why not.
    async fn describe_for(
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

    /// Asks all leaders at the same time, and gives those partitions that are worth another question.
    async fn ask_leaders(
        &self,
        due: BTreeSet<TopicPartition>,
        which: Which,
        found: &mut Offsets,
        deadline: &Deadline,
    ) -> Missed {
        let mut missed = Missed::new();
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
                        // What its topic's description said is more telling.
                        found.entry(partition.clone()).or_insert(Err(why));
                        missed.insert(partition, None);
                    }
                }
            }
        }
        let mut asked = Vec::new();
        for (id, (broker, partitions)) in by_leader {
            for chunk in partitions.chunks(PARTITIONS_PER_QUESTION) {
                asked.push(ask(Arc::clone(&broker), id, chunk.to_vec(), which, *deadline));
            }
        }
        for (leader, partitions, answer) in join_all(asked).await {
            match answer {
                Ok(answer) => note(&partitions, &answer, found, &mut missed),
                Err(why) => {
                    for partition in partitions {
                        found.insert(partition.clone(), Err(why.clone()));
                        missed.insert(partition, Some(leader));
                    }
                }
            }
        }
        missed
    }
}

async fn ask(
    broker: Arc<Broker>,
    id: i32,
    partitions: Vec<TopicPartition>,
    which: Which,
    deadline: Deadline,
) -> (i32, Vec<TopicPartition>, Result<ListOffsetsResponse, Unread>) {
    let answer = broker.ask(&question(&partitions, which), &deadline).await;
    (id, partitions, answer)
}

fn question(partitions: &[TopicPartition], which: Which) -> ListOffsetsRequest {
    let at = match which {
        Which::Start => -2,
        Which::End => -1,
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
        // A client, not a replica.
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(READ_COMMITTED)
        .with_topics(topics.collect())
}

fn note(asked: &[TopicPartition], answer: &ListOffsetsResponse, found: &mut Offsets, missed: &mut Missed) {
    let mut offsets = HashMap::new();
    for topic in &answer.topics {
        for partition in &topic.partitions {
            let named = (topic.name.0.as_str(), partition.partition_index);
            offsets.insert(named, (partition.error_code, partition.offset));
        }
    }
    for partition in asked {
        let offset = match offsets.get(&(&*partition.topic, partition.partition)) {
            None => Err(Unread::new("the broker said nothing about it")),
            Some((0, offset)) if *offset < 0 => Err(Unread::new("the broker knows no offset")),
            Some((0, offset)) => Ok(*offset),
            Some((code, _)) => {
                if is_worth_asking_anew(*code) {
                    missed.insert(partition.clone(), None);
                }
                Err(Unread::said(*code))
            }
        };
        found.insert(partition.clone(), offset);
    }
}

fn is_worth_asking_anew(code: i16) -> bool {
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
