//! What is known of a cluster: its brokers, who leads which partition, and who coordinates which group.
//!
//! All of it may be out of date; whoever is answered "not me" asks anew. What nobody asked about for a while is forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::MetadataResponse;

use super::broker::{Address, Broker, Connector};
use super::limits::{MOST_PARTITIONS, MOST_PARTITIONS_IN_ALL};
use super::{Topic, TopicIdentity, TopicPartition, Unread};

/// What was not learnt again for so long is forgotten.
const KEPT: Duration = Duration::from_secs(300);

/// Brokers of one cluster that we believe; Kafka's largest clusters have some hundreds.
const MOST_BROKERS: usize = 1_000;

#[derive(Default)]
pub(super) struct Routes {
    slots: HashMap<Address, Arc<Broker>>,
    brokers: BTreeMap<i32, Address>,
    topics: HashMap<Arc<str>, Leaders>,
    coordinators: HashMap<Arc<str>, Coordinator>,
    turn: usize,
}

struct Leaders {
    of_partition: BTreeMap<i32, i32>,
    learnt: Instant,
}

struct Coordinator {
    address: Address,
    learnt: Instant,
}

impl Routes {
    /// The broker at an address.
    pub(super) fn at(&mut self, address: &Address, connector: &Arc<Connector>) -> Arc<Broker> {
        let slot = self
            .slots
            .entry(address.clone())
            .or_insert_with(|| Arc::new(Broker::new(address.clone(), Arc::clone(connector))));
        Arc::clone(slot)
    }

    /// All brokers, in the order in which a question that any can answer should be put: those that are connected, then
    /// those that may be there, then those that seem away. Each call begins with another one.
    pub(super) fn any(&mut self, bootstrap: &[Address], connector: &Arc<Connector>) -> Vec<Arc<Broker>> {
        let known: Vec<Address> = self.brokers.values().cloned().collect();
        self.turn = self.turn.wrapping_add(1);
        let mut first: Vec<_> = known.iter().map(|address| self.at(address, connector)).collect();
        if !first.is_empty() {
            let turn = self.turn % first.len();
            first.rotate_left(turn);
        }
        let rank = |broker: &Arc<Broker>| match (broker.seems_away(), broker.is_connected()) {
            (false, true) => 0,
            (false, false) => 1,
            (true, _) => 2,
        };
        first.sort_by_key(rank);
        let others = bootstrap.iter().filter(|address| !known.contains(address));
        let mut others: Vec<_> = others.map(|address| self.at(address, connector)).collect();
        others.sort_by_key(rank);
        first.extend(others);
        first
    }

    /// Takes note of brokers and leaders. Each topic of the answer is described, or why not.
    pub(super) fn learn(&mut self, answer: &MetadataResponse) -> Vec<(Arc<str>, Result<Topic, Unread>)> {
        let now = Instant::now();
        let brokers = answer.brokers.iter().take(MOST_BROKERS);
        self.brokers = brokers
            .filter_map(|broker| {
                let address = Address {
                    host: broker.host.to_string(),
                    port: u16::try_from(broker.port).ok()?,
                };
                Some((broker.node_id.0, address))
            })
            .collect();
        let cluster_id = answer.cluster_id.as_ref().filter(|id| !id.is_empty());
        let cluster_id: Option<Arc<str>> = cluster_id.map(|id| Arc::from(id.as_str()));
        let mut described = Vec::with_capacity(answer.topics.len());
        for topic in &answer.topics {
            let Some(name) = &topic.name else { continue };
            let name: Arc<str> = Arc::from(name.0.as_str());
            if topic.error_code != 0 {
                self.topics.remove(&name);
                let why = if topic.error_code == ResponseError::UnknownTopicOrPartition.code() {
                    // A user who may not describe it is told the same.
                    Unread::new(
                        "the brokers know no such topic; fix: make it, with a partition for each worker that there may \
                         be, or let this user describe it",
                    )
                } else {
                    Unread::said(topic.error_code)
                };
                described.push((name, Err(why)));
                continue;
            }
            let leaders = topic.partitions.iter();
            let of_partition: BTreeMap<_, _> = leaders
                .map(|partition| (partition.partition_index, partition.leader_id.0))
                .collect();
            if of_partition.is_empty() {
                described.push((name, Err(Unread::new("the topic has no partitions"))));
                continue;
            }
            if let Err(why) = self.has_room_for(&name, of_partition.len()) {
                self.topics.remove(&name);
                described.push((name, Err(why)));
                continue;
            }
            let topic = Topic {
                identity: TopicIdentity {
                    cluster_id: cluster_id.clone(),
                    // All zeros where the broker has no ids.
                    topic_id: (!topic.topic_id.is_nil())
                        .then(|| URL_SAFE_NO_PAD.encode(topic.topic_id.as_bytes()).into()),
                },
                partitions: of_partition.keys().copied().collect(),
            };
            let leaders = Leaders {
                of_partition,
                learnt: now,
            };
            self.topics.insert(Arc::clone(&name), leaders);
            described.push((name, Ok(topic)));
        }
        self.forget(now);
        described
    }

    /// Whether a topic with so many partitions is read.
    fn has_room_for(&self, name: &str, partitions: usize) -> Result<(), Unread> {
        if partitions > MOST_PARTITIONS {
            return Err(Unread::new(format!(
                "the topic has {partitions} partitions, and at most {MOST_PARTITIONS} are read"
            )));
        }
        let others = self.topics.iter().filter(|(other, _)| ***other != *name);
        let others: usize = others.map(|(_, leaders)| leaders.of_partition.len()).sum();
        if others + partitions > MOST_PARTITIONS_IN_ALL {
            return Err(Unread::new(format!(
                "the topics of this Kafka cluster have more than {MOST_PARTITIONS_IN_ALL} partitions; fix: use another \
                 user for some pools, so that they are read apart"
            )));
        }
        Ok(())
    }

    /// How many brokers are connected.
    pub(super) fn connected(&self) -> u64 {
        let connected = self.slots.values().filter(|broker| broker.is_connected());
        connected.count() as u64
    }

    /// Drops what is old, and connections to who is no broker any more.
    fn forget(&mut self, now: Instant) {
        let is_fresh = |learnt: Instant| now.saturating_duration_since(learnt) < KEPT;
        self.topics.retain(|_, leaders| is_fresh(leaders.learnt));
        self.coordinators
            .retain(|_, coordinator| is_fresh(coordinator.learnt));
        let brokers: std::collections::HashSet<_> = self.brokers.values().collect();
        self.slots.retain(|address, _| brokers.contains(address));
    }

    /// Whether a topic's leaders are known.
    pub(super) fn knows(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// The id of a partition's leader.
    ///
    /// # Errors
    /// When there is no such partition, or nobody leads it.
    pub(super) fn leader(&self, partition: &TopicPartition) -> Result<i32, Unread> {
        let leaders = self.topics.get(&partition.topic);
        let leaders = leaders.ok_or_else(|| Unread::new("the topic was not described"))?;
        match leaders.of_partition.get(&partition.partition) {
            None => Err(Unread::new("the topic has no such partition")),
            Some(leader) if *leader < 0 => Err(Unread::unreachable("no broker leads the partition now")),
            Some(leader) => Ok(*leader),
        }
    }

    /// The broker of an id.
    ///
    /// # Errors
    /// When the cluster does not name it: it is away.
    pub(super) fn broker(&mut self, id: i32, connector: &Arc<Connector>) -> Result<Arc<Broker>, Unread> {
        match self.brokers.get(&id).cloned() {
            Some(address) => Ok(self.at(&address, connector)),
            None => Err(Unread::unreachable(format!("broker {id} is unavailable"))),
        }
    }

    /// A group's coordinator, where it is known.
    pub(super) fn coordinator(&mut self, group: &str, connector: &Arc<Connector>) -> Option<Arc<Broker>> {
        let address = self.coordinators.get(group)?.address.clone();
        Some(self.at(&address, connector))
    }

    pub(super) fn learn_coordinator(&mut self, group: &Arc<str>, address: Address) {
        let coordinator = Coordinator {
            address,
            learnt: Instant::now(),
        };
        self.coordinators.insert(Arc::clone(group), coordinator);
    }

    pub(super) fn forget_coordinator(&mut self, group: &str) {
        self.coordinators.remove(group);
    }
}
