//! Lag and partition owners of a group, as `kafka-consumer-groups --describe` shows them.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{self, Logging};
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

/// Reads the lag of `group` in `topic`. Blocks; each request takes at most `limit`.
///
/// # Errors
/// When a request fails or the topic does not exist.
pub fn read_group_lag(
    kafka: &KafkaSettings,
    group: &str,
    topic: &str,
    limit: Duration,
) -> KafkaResult<GroupLag> {
    let mut config = client::config(kafka, vec![("group.id", group.to_owned())]);
    config.set("isolation.level", "read_committed");
    config.set("enable.auto.commit", "false");
    let consumer: BaseConsumer<Logging> = config.create_with_context(Logging::default())?;
    let metadata = consumer.fetch_metadata(Some(topic), limit)?;
    let mut requested = TopicPartitionList::new();
    for known in metadata.topics() {
        if let Some(error) = known.error() {
            return Err(KafkaError::MetadataFetch(error.into()));
        }
        for partition in known.partitions() {
            requested.add_partition(topic, partition.id());
        }
    }
    let committed = consumer.committed_offsets(requested, limit)?;
    let (state, owners) = read_members(&consumer, group, topic, limit)?;
    let mut partitions = Vec::with_capacity(committed.count());
    for element in committed.elements() {
        element.error()?;
        let partition = element.partition();
        let (start, end) = consumer.fetch_watermarks(topic, partition, limit)?;
        let committed = match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        partitions.push(PartitionLag {
            partition,
            committed,
            start,
            end,
            lag: committed.map(|committed| end.saturating_sub(committed.max(start)).max(0)),
            owner: owners.get(&partition).cloned(),
        });
    }
    partitions.sort_by_key(|row| row.partition);
    Ok(GroupLag {
        group: group.to_owned(),
        state,
        topic: topic.to_owned(),
        partitions,
    })
}

fn read_members(
    consumer: &BaseConsumer<Logging>,
    group: &str,
    topic: &str,
    limit: Duration,
) -> KafkaResult<(String, HashMap<i32, PartitionOwner>)> {
    let groups = consumer.fetch_group_list(Some(group), limit)?;
    let Some(found) = groups.groups().iter().find(|found| found.name() == group) else {
        return Ok(("Unknown".to_owned(), HashMap::new()));
    };
    let mut owners = HashMap::new();
    for member in found.members() {
        let owner = PartitionOwner {
            client_id: member.client_id().to_owned(),
            host: member.client_host().trim_start_matches('/').to_owned(),
        };
        for partition in assigned(member.assignment().unwrap_or_default(), topic) {
            owners.insert(partition, owner.clone());
        }
    }
    Ok((found.state().to_owned(), owners))
}

/// Partitions of `topic` in a member's assignment: Kafka's `ConsumerProtocolAssignment`, big-endian: version (16 bits),
/// count of topics (32), and for each its name (16-bit length) and partitions (32-bit count, 32 bits each).
fn assigned(bytes: &[u8], topic: &str) -> Vec<i32> {
    read_assignment(bytes, topic).unwrap_or_default()
}

fn read_assignment(bytes: &[u8], wanted: &str) -> Option<Vec<i32>> {
    let mut rest = bytes;
    let mut take = |count: usize| {
        let (taken, left) = rest.split_at_checked(count)?;
        rest = left;
        Some(taken)
    };
    let short = |bytes: &[u8]| Some(usize::from(u16::from_be_bytes(bytes.try_into().ok()?)));
    let long = |bytes: &[u8]| Some(i32::from_be_bytes(bytes.try_into().ok()?));
    take(2)?;
    let mut found = Vec::new();
    for _ in 0..long(take(4)?)? {
        let length = short(take(2)?)?;
        let is_wanted = take(length)? == wanted.as_bytes();
        for _ in 0..long(take(4)?)? {
            let partition = long(take(4)?)?;
            if is_wanted {
                found.push(partition);
            }
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_assignment_is_read_as_kafka_writes_it() {
        let mut bytes = vec![0, 3, 0, 0, 0, 2];
        bytes.extend([0, 1, b'a', 0, 0, 0, 1, 0, 0, 0, 9]);
        bytes.extend([0, 2, b'b', b'c', 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 1, 0]);
        bytes.extend([0xff; 4]);
        assert_eq!(assigned(&bytes, "bc"), [1, 256]);
        assert_eq!(assigned(&bytes, "a"), [9]);
        assert_eq!(assigned(&bytes, "x"), [0; 0]);
        assert_eq!(assigned(&bytes[..20], "bc"), [0; 0]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            assigned(&bytes, "a");
        }
    }
}
