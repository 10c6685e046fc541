//! Reads a consumer group without joining it: its members, and the messages of each partition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use separation_contract::offset_metadata::OffsetMetadata;
use separation_kafka::{Cluster, Commit, Deadline, GroupState, OffsetKind, ReadError, TopicPartition};

use super::group_reading::{GroupReading, PartitionOffsets};

/// Longest time for which the partitions of the topic and their first offsets are not read again.
const MAX_TOPIC_AGE: Duration = Duration::from_secs(10);

/// Where readings of a group come from: brokers, or a test.
pub(super) trait ReadGroup: Send {
    /// Reads the group at `now_s`, in Unix seconds. A partition that cannot be read is omitted.
    ///
    /// # Errors
    /// When the group or the topic cannot be described, or no partition can be read.
    fn read<'a>(
        &'a mut self,
        now_s: u64,
        deadline: &'a Deadline,
    ) -> BoxFuture<'a, Result<GroupReading, ReadError>>;
}

/// Reads one group in one topic.
pub(super) struct Reader {
    cluster: Arc<Cluster>,
    group: Arc<str>,
    topic: Arc<str>,
    partitions: Option<Partitions>,
    /// The end offset of each partition in the first reading without a committed offset: messages before it are not
    /// counted, because where a group without a commit begins is a setting of its members.
    first_ends: BTreeMap<i32, i64>,
}

/// The partitions of the topic.
struct Partitions {
    read_at: Instant,
    all: Vec<TopicPartition>,
    /// The first offset of each: a committed one before it is of messages that were deleted.
    starts: BTreeMap<TopicPartition, Result<i64, ReadError>>,
}

impl Reader {
    pub(super) fn new(cluster: Arc<Cluster>, group: Arc<str>, topic: Arc<str>) -> Self {
        Self {
            cluster,
            group,
            topic,
            partitions: None,
            first_ends: BTreeMap::new(),
        }
    }

    async fn read_group(&mut self, now_s: u64, deadline: &Deadline) -> Result<GroupReading, ReadError> {
        let partitions = self
            .partitions
            .take()
            .filter(|partitions| partitions.read_at.elapsed() < MAX_TOPIC_AGE);
        let partitions = match partitions {
            Some(partitions) => partitions,
            None => self.read_partitions(deadline).await?,
        };
        let partitions = self.partitions.insert(partitions);
        let names = [Arc::clone(&self.group)];
        let groups = [(Arc::clone(&self.group), partitions.all.clone())];
        let (described, commits, mut ends) = tokio::join!(
            self.cluster.describe_groups(&names, deadline),
            self.cluster.committed_offsets(&groups, deadline),
            self.cluster.offsets(&partitions.all, OffsetKind::End, deadline),
        );
        let described = described.into_iter().next().transpose()?;
        let described = described.ok_or_else(|| ReadError::new("the group is not described"))?;
        let members = match described.state {
            // Then the coordinator of a group of the classic protocol reports no assignment.
            GroupState::Rebalancing => None,
            _ => {
                let held = described.held_partitions(&self.topic);
                Some(held.ok_or_else(|| ReadError::new("an assignment of the group is malformed"))?)
            }
        };
        let mut commits = commits.into_iter().next().unwrap_or_default();
        let (mut offsets, mut unread) = (Vec::with_capacity(partitions.all.len()), None);
        for partition in &partitions.all {
            match (ends.remove(partition), commits.remove(partition)) {
                (Some(Ok(end)), Some(Ok(commit))) => {
                    let start = partitions.starts.get(partition);
                    let start = start.and_then(|start| start.as_ref().ok()).copied();
                    let committed = match &commit {
                        Some(commit) => {
                            self.first_ends.remove(&partition.partition);
                            commit.next
                        }
                        None => *self.first_ends.entry(partition.partition).or_insert(end),
                    };
                    offsets.push(PartitionOffsets {
                        partition: partition.partition,
                        next: committed.max(start.unwrap_or_default()),
                        end,
                        record: record(commit),
                    });
                }
                (Some(Err(error)), _) | (_, Some(Err(error))) => unread = Some(error),
                _ => {}
            }
        }
        match unread {
            Some(error) if offsets.is_empty() => Err(error),
            _ => Ok(GroupReading::new(&offsets, members, now_s)),
        }
    }

    async fn read_partitions(&self, deadline: &Deadline) -> Result<Partitions, ReadError> {
        let read_at = Instant::now();
        let topics = self.cluster.topics(&[Arc::clone(&self.topic)], deadline).await;
        let topic = topics.into_values().next().transpose()?;
        let topic = topic.ok_or_else(|| ReadError::new("the topic is not described"))?;
        let partitions = topic.partitions.into_iter().map(|partition| TopicPartition {
            topic: Arc::clone(&self.topic),
            partition,
        });
        let all: Vec<TopicPartition> = partitions.collect();
        let starts = self.cluster.offsets(&all, OffsetKind::Start, deadline).await;
        Ok(Partitions { read_at, all, starts })
    }
}

impl ReadGroup for Reader {
    fn read<'a>(
        &'a mut self,
        now_s: u64,
        deadline: &'a Deadline,
    ) -> BoxFuture<'a, Result<GroupReading, ReadError>> {
        Box::pin(self.read_group(now_s, deadline))
    }
}

fn record(commit: Option<Commit>) -> OffsetMetadata {
    let metadata = commit.and_then(|commit| commit.metadata);
    OffsetMetadata::parse(metadata.as_deref().unwrap_or_default())
}
