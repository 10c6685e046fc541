//! The committed offset of a group in one partition, for callers that are not members of the group.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use separation_contract::offset_metadata::OffsetMetadata;

use super::client::{self, Logging};
use crate::settings::KafkaSettings;

/// Reads committed offsets of a group without joining it. Cheap to clone.
#[derive(Clone)]
pub struct GroupProgress {
    consumer: Arc<BaseConsumer<Logging>>,
    topic: Arc<str>,
}

/// Progress of a group in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionProgress {
    /// The committed offset: the next to process.
    pub committed: i64,
    /// The metadata committed with it.
    pub record: OffsetMetadata,
}

impl GroupProgress {
    /// For `group` in `topic`. Connects when first used.
    ///
    /// # Errors
    /// When librdkafka rejects the settings.
    pub fn new(kafka: &KafkaSettings, group: &str, topic: &str) -> KafkaResult<Self> {
        let mut config = client::config(kafka, vec![("group.id", group.to_owned())]);
        config.set("enable.auto.commit", "false");
        Ok(Self {
            consumer: Arc::new(config.create_with_context(Logging::default())?),
            topic: topic.into(),
        })
    }

    /// Progress of the group in `partition`; none if it never committed there.
    ///
    /// # Errors
    /// When the request fails or takes longer than `limit`.
    pub async fn partition(&self, partition: i32, limit: Duration) -> KafkaResult<Option<PartitionProgress>> {
        let (consumer, topic) = (Arc::clone(&self.consumer), Arc::clone(&self.topic));
        client::run_blocking(move || {
            let mut requested = TopicPartitionList::new();
            requested.add_partition(&topic, partition);
            let answer = consumer.committed_offsets(requested, limit)?;
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
