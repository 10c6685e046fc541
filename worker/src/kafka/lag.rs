//! Lag and partition owners of a group, as `kafka-consumer-groups --describe` shows them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use separation_kafka::{Deadline, Group, OffsetKind, ReadError, TopicPartition};

use super::client;
use crate::settings::KafkaSettings;

/// Lag of a group in a topic.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct GroupLag {
    /// The group.
    pub group: String,
    /// Its state in Kafka's terms: `Stable`, `Empty`, `PreparingRebalance` …
    pub state: String,
    /// The topic.
    pub topic: String,
    /// One row per partition.
    pub partitions: Vec<PartitionLag>,
}

/// Lag of a group in a partition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PartitionLag {
    /// The partition.
    pub partition: i32,
    /// Committed offset, the next to read; none if the group never committed here.
    pub committed: Option<i64>,
    /// First offset of the log.
    pub start: i64,
    /// Offset after the last message that `read_committed` consumers see.
    pub end: i64,
    /// Messages after the committed offset, the running one included; none if the group never committed here.
    pub lag: Option<i64>,
    /// The member that it is assigned to.
    pub owner: Option<PartitionOwner>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PartitionOwner {
    /// Its `client.id`.
    pub client_id: String,
    /// The address it connects from.
    pub host: String,
}

impl GroupLag {
    /// Sum over all partitions whose lag is known.
    pub fn total(&self) -> i64 {
        self.partitions.iter().filter_map(|row| row.lag).sum()
    }
}

/// Reads the lag of `group` in `topic` within `limit`.
///
/// # Errors
/// When a request fails or the topic does not exist.
pub async fn read_group_lag(
    kafka: &KafkaSettings,
    group: &str,
    topic: &str,
    limit: Duration,
) -> Result<GroupLag, ReadError> {
    let cluster = client::cluster(kafka)?;
    let deadline = Deadline::after(limit);
    let (group_name, topic_name): (Arc<str>, Arc<str>) = (group.into(), topic.into());
    let described = cluster.topics(&[Arc::clone(&topic_name)], &deadline).await;
    let mut requested = Vec::new();
    for described in described.into_values() {
        requested.extend(described?.partitions.into_iter().map(|partition| TopicPartition {
            topic: Arc::clone(&topic_name),
            partition,
        }));
    }
    let groups = [(Arc::clone(&group_name), requested.clone())];
    // Ends after commits, because a worker may commit meanwhile.
    let committed = cluster.committed_offsets(&groups, &deadline).await;
    let starts = cluster.offsets(&requested, OffsetKind::Start, &deadline).await;
    let ends = cluster.offsets(&requested, OffsetKind::End, &deadline).await;
    let members = cluster.describe_groups(&[group_name], &deadline).await;
    let members = members.into_iter().next().transpose()?;
    let owners = members
        .as_ref()
        .map(|group| owners(group, topic))
        .unwrap_or_default();
    let mut partitions = Vec::with_capacity(requested.len());
    for partition in &requested {
        let (start, end) = (starts[partition].clone()?, ends[partition].clone()?);
        let committed = committed.iter().find_map(|commits| commits.get(partition));
        let committed = committed
            .cloned()
            .transpose()?
            .flatten()
            .map(|commit| commit.next);
        partitions.push(PartitionLag {
            partition: partition.partition,
            committed,
            start,
            end,
            lag: committed.map(|committed| end.saturating_sub(committed.max(start)).max(0)),
            owner: owners.get(&partition.partition).cloned(),
        });
    }
    // Brokers report `Dead` for a group that does not exist.
    let state = members
        .map(|group| group.state_name)
        .filter(|state| **state != *"Dead");
    Ok(GroupLag {
        group: group.to_owned(),
        state: state.map_or_else(|| "Unknown".to_owned(), |state| state.to_string()),
        topic: topic.to_owned(),
        partitions,
    })
}

/// The owners of a topic's partitions.
fn owners(group: &Group, topic: &str) -> HashMap<i32, PartitionOwner> {
    let mut owners = HashMap::new();
    for member in &group.members {
        let owner = PartitionOwner {
            client_id: member.client_id.to_string(),
            host: member.host.trim_start_matches('/').to_owned(),
        };
        for partition in member.assigned_partitions(topic).unwrap_or_default() {
            owners.insert(partition, owner.clone());
        }
    }
    owners
}
