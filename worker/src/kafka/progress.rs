//! How far a group is in one partition, asked by one who is no member.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use separation_contract::offset_metadata::OffsetMetadata;

use super::client::{self, Logging};
use crate::settings::KafkaSettings;

/// Asks how far a group is in a topic; joins no group. Cheap to clone.
#[derive(Clone)]
pub struct GroupProgress {
    consumer: Arc<BaseConsumer<Logging>>,
    topic: Arc<str>,
}

/// How far a group is in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionProgress {
    /// The next offset to work on.
    pub committed: i64,
    /// The record of the message there.
    pub record: OffsetMetadata,
}

impl GroupProgress {
    /// Of `group` in `topic`. Connects when first used.
    ///
    /// # Errors
    /// When the settings are refused.
    pub fn new(kafka: &KafkaSettings, group: &str, topic: &str) -> KafkaResult<Self> {
        let mut config = client::config(kafka, vec![("group.id", group.to_owned())]);
        config.set("enable.auto.commit", "false");
        Ok(Self {
            consumer: Arc::new(config.create_with_context(Logging::default())?),
            topic: topic.into(),
        })
    }

    /// How far the group is in `partition`; none if it never committed there.
    ///
    /// # Errors
    /// When the brokers cannot tell within `limit`.
    pub async fn of(&self, partition: i32, limit: Duration) -> KafkaResult<Option<PartitionProgress>> {
        let (consumer, topic) = (Arc::clone(&self.consumer), Arc::clone(&self.topic));
        client::waited(move || {
            let mut asked = TopicPartitionList::new();
            asked.add_partition(&topic, partition);
            let answer = consumer.committed_offsets(asked, limit)?;
            let Some(element) = answer.find_partition(&topic, partition) else {
                return Ok(None);
            };
            element.error()?;
            let Offset::Offset(committed) = element.offset() else {
                return Ok(None);
            };
            Ok(Some(PartitionProgress {
                committed,
                record: OffsetMetadata::parse(element.metadata()),
            }))
        })
        .await
    }
}
