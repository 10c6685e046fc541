//! Cached metadata of a cluster: its brokers, partition leaders and group coordinators.
//!
//! All of it may be out of date; a caller that gets NOT_LEADER or NOT_COORDINATOR fetches it again. Entries that are
//! not refreshed expire.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::MetadataResponse;

use crate::address::Address;
use crate::broker::Broker;
use crate::connector::Connector;
use crate::limits::{MAX_PARTITIONS, MAX_TOTAL_PARTITIONS};
use crate::{ReadError, ReadErrorKind, Topic, TopicIdentity, TopicPartition};

/// Entries that were not refreshed for this long expire.
const EXPIRES_AFTER: Duration = Duration::from_secs(300);

/// The most brokers of one cluster that are recorded; the largest Kafka clusters have some hundreds.
const MAX_BROKERS: usize = 1_000;

#[derive(Default)]
pub(crate) struct Routes {
    by_address: HashMap<Address, Arc<Broker>>,
    brokers: BTreeMap<i32, Address>,
    topics: HashMap<Arc<str>, Leaders>,
    coordinators: HashMap<Arc<str>, Coordinator>,
    /// Number of calls of [`Self::brokers_in_order`].
    rotation: usize,
}

struct Leaders {
    /// The id of each partition's leader; negative without a leader.
    of_partition: BTreeMap<i32, i32>,
    learned_at: Instant,
}

struct Coordinator {
    address: Address,
    learned_at: Instant,
}

impl Routes {
    pub(crate) fn broker_at(&mut self, address: &Address, connector: &Arc<Connector>) -> Arc<Broker> {
        let slot = self
            .by_address
            .entry(address.clone())
            .or_insert_with(|| Arc::new(Broker::new(address.clone(), Arc::clone(connector))));
        Arc::clone(slot)
    }

    /// All brokers, in the order in which to try a request that any broker can answer: connected ones, unconnected
    /// ones, then those that seem unreachable. Calls rotate among the brokers.
    pub(crate) fn brokers_in_order(
        &mut self,
        bootstrap: &[Address],
        connector: &Arc<Connector>,
    ) -> Vec<Arc<Broker>> {
        let known: Vec<Address> = self.brokers.values().cloned().collect();
        self.rotation = self.rotation.wrapping_add(1);
        let mut first: Vec<_> = known
            .iter()
            .map(|address| self.broker_at(address, connector))
            .collect();
        if !first.is_empty() {
            let rotation = self.rotation % first.len();
            first.rotate_left(rotation);
        }
        let rank = |broker: &Arc<Broker>| match (broker.seems_unreachable(), broker.is_connected()) {
            (false, true) => 0,
            (false, false) => 1,
            (true, _) => 2,
        };
        first.sort_by_key(rank);
        let others = bootstrap.iter().filter(|address| !known.contains(address));
        let mut others: Vec<_> = others.map(|address| self.broker_at(address, connector)).collect();
        others.sort_by_key(rank);
        first.extend(others);
        first
    }

    /// Records brokers and leaders. Returns each topic of the response, or the reason why it cannot be read.
    pub(crate) fn record_metadata(
        &mut self,
        response: &MetadataResponse,
    ) -> Vec<(Arc<str>, Result<Topic, ReadError>)> {
        let now = Instant::now();
        let brokers = response.brokers.iter().take(MAX_BROKERS);
        self.brokers = brokers
            .filter_map(|broker| {
                let address = Address {
                    host: broker.host.to_string(),
                    port: u16::try_from(broker.port).ok()?,
                };
                Some((broker.node_id.0, address))
            })
            .collect();
        let cluster_id = response.cluster_id.as_ref().filter(|id| !id.is_empty());
        let cluster_id: Option<Arc<str>> = cluster_id.map(|id| Arc::from(id.as_str()));
        let mut described = Vec::with_capacity(response.topics.len());
        for topic in &response.topics {
            let Some(name) = &topic.name else { continue };
            let name: Arc<str> = Arc::from(name.0.as_str());
            if topic.error_code != 0 {
                self.topics.remove(&name);
                let why = if topic.error_code == ResponseError::UnknownTopicOrPartition.code() {
                    // A user who may not describe the topic gets the same error code.
                    ReadError::with_kind(
                        "it does not exist, or this user may not describe it; fix: create it with at least \
                         maxReplicas partitions, or allow this user to describe it",
                        ReadErrorKind::Refused(topic.error_code),
                    )
                } else {
                    ReadError::from_code(topic.error_code)
                };
                described.push((name, Err(why)));
                continue;
            }
            let leaders = topic.partitions.iter();
            let of_partition: BTreeMap<_, _> = leaders
                .map(|partition| (partition.partition_index, partition.leader_id.0))
                .collect();
            if of_partition.is_empty() {
                described.push((name, Err(ReadError::malformed("the topic has no partitions"))));
                continue;
            }
            if let Err(why) = self.check_limits(&name, of_partition.len()) {
                self.topics.remove(&name);
                described.push((name, Err(why)));
                continue;
            }
            let topic = Topic {
                identity: TopicIdentity {
                    cluster_id: cluster_id.clone(),
                    // Nil if the broker does not support topic ids.
                    topic_id: (!topic.topic_id.is_nil())
                        .then(|| URL_SAFE_NO_PAD.encode(topic.topic_id.as_bytes()).into()),
                },
                partitions: of_partition.keys().copied().collect(),
            };
            let leaders = Leaders {
                of_partition,
                learned_at: now,
            };
            self.topics.insert(Arc::clone(&name), leaders);
            described.push((name, Ok(topic)));
        }
        self.expire(now);
        described
    }

    /// Whether a topic with `partitions` partitions is within the limits.
    fn check_limits(&self, name: &str, partitions: usize) -> Result<(), ReadError> {
        if partitions > MAX_PARTITIONS {
            return Err(ReadError::new(format!(
                "the topic has {partitions} partitions, and at most {MAX_PARTITIONS} are read"
            )));
        }
        let others = self.topics.iter().filter(|(other, _)| ***other != *name);
        let others: usize = others.map(|(_, leaders)| leaders.of_partition.len()).sum();
        if others + partitions > MAX_TOTAL_PARTITIONS {
            return Err(ReadError::new(format!(
                "the topics of this Kafka cluster have more than {MAX_TOTAL_PARTITIONS} partitions; fix: use another \
                 Kafka user for some pools, so that the operator reads them separately"
            )));
        }
        Ok(())
    }

    /// The number of connected brokers.
    pub(crate) fn connected_count(&self) -> u64 {
        let connected = self.by_address.values().filter(|broker| broker.is_connected());
        connected.count() as u64
    }

    /// Drops expired entries, and connections to addresses that are no longer brokers.
    fn expire(&mut self, now: Instant) {
        let is_fresh = |learned_at: Instant| now.saturating_duration_since(learned_at) < EXPIRES_AFTER;
        self.topics.retain(|_, leaders| is_fresh(leaders.learned_at));
        self.coordinators
            .retain(|_, coordinator| is_fresh(coordinator.learned_at));
        let brokers: std::collections::HashSet<_> = self.brokers.values().collect();
        self.by_address.retain(|address, _| brokers.contains(address));
    }

    pub(crate) fn has_topic(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// The id of a partition's leader.
    ///
    /// # Errors
    /// When there is no such partition, or it has no leader.
    pub(crate) fn leader(&self, partition: &TopicPartition) -> Result<i32, ReadError> {
        let leaders = self.topics.get(&partition.topic);
        let leaders = leaders.ok_or_else(|| ReadError::new("the topic was not described"))?;
        match leaders.of_partition.get(&partition.partition) {
            None => Err(ReadError::new("the topic has no such partition")),
            Some(leader) if *leader < 0 => Err(ReadError::unreachable("the partition has no leader")),
            Some(leader) => Ok(*leader),
        }
    }

    /// The broker with an id.
    ///
    /// # Errors
    /// When the cluster's metadata does not list it: it is down.
    pub(crate) fn broker(&mut self, id: i32, connector: &Arc<Connector>) -> Result<Arc<Broker>, ReadError> {
        match self.brokers.get(&id).cloned() {
            Some(address) => Ok(self.broker_at(&address, connector)),
            None => Err(ReadError::unreachable(format!("broker {id} is unavailable"))),
        }
    }

    /// A group's coordinator, if it is cached.
    pub(crate) fn coordinator(&mut self, group: &str, connector: &Arc<Connector>) -> Option<Arc<Broker>> {
        let address = self.coordinators.get(group)?.address.clone();
        Some(self.broker_at(&address, connector))
    }

    pub(crate) fn record_coordinator(&mut self, group: &Arc<str>, address: Address) {
        let coordinator = Coordinator {
            address,
            learned_at: Instant::now(),
        };
        self.coordinators.insert(Arc::clone(group), coordinator);
    }

    pub(crate) fn forget_coordinator(&mut self, group: &str) {
        self.coordinators.remove(group);
    }
}
