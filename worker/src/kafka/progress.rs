//! The committed offset of a group in one partition, for callers that are not members of the group.

use std::sync::Arc;
use std::time::Duration;

use separation_contract::offset_metadata::OffsetMetadata;
use separation_kafka::{Cluster, Deadline, ReadError, TopicPartition};

use super::client;
use crate::settings::KafkaSettings;

/// Reads committed offsets of a group without joining it.
///
/// Not with librdkafka: its clients renew their tokens only while they are polled, and nothing polls this one.
pub struct GroupProgress {
    pub(super) cluster: Arc<Cluster>,
    pub(super) group: Arc<str>,
    pub(super) topic: Arc<str>,
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
    /// When a file of the settings cannot be read, or the settings are invalid.
    pub fn new(kafka: &KafkaSettings, group: &str, topic: &str) -> Result<Self, ReadError> {
        Ok(Self {
            cluster: Arc::new(client::cluster(kafka)?),
            group: group.into(),
            topic: topic.into(),
        })
    }

    /// Progress of the group in `partition`; none if it never committed there.
    ///
    /// # Errors
    /// When the request fails or takes longer than `limit`.
    pub async fn partition(
        &self,
        partition: i32,
        limit: Duration,
    ) -> Result<Option<PartitionProgress>, ReadError> {
        let topic = Arc::clone(&self.topic);
        let requested = TopicPartition { topic, partition };
        let groups = [(Arc::clone(&self.group), vec![requested.clone()])];
        let deadline = Deadline::after(limit);
        let commits = self.cluster.committed_offsets(&groups, &deadline).await;
        let found = commits
            .into_iter()
            .find_map(|mut of_group| of_group.remove(&requested));
        let commit = found.transpose()?.flatten();
        Ok(commit.map(|commit| PartitionProgress {
            committed: commit.next,
            record: OffsetMetadata::parse(commit.metadata.as_deref().unwrap_or_default()),
        }))
    }
}
