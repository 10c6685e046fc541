//! Committed offsets of consumer groups, and commits for groups without members.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{GroupId, OffsetCommitResponse, OffsetFetchResponse, TopicName};

use crate::coordinators::CoordinatorError;
use crate::protocol::text;
use crate::{Cluster, Deadline, ReadError, ReadErrorKind, TopicPartition};

/// Expected size of a partition's commit in a response: an offset and a worker's metadata.
const EXPECTED_COMMIT_BYTES: usize = 128;

/// The wait before a commit is retried.
const COMMIT_RETRY_DELAY: Duration = Duration::from_millis(200);

/// Retention time of the offsets that this client commits: 365 days. Without its own retention time, an offset expires
/// when the group has had no member for `offsets.retention.minutes`, however recently it was committed (KIP-211). A
/// worker's next commit replaces the offset together with this time.
const OFFSET_RETENTION: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Commits of a group by partition; `None` where it never committed.
pub type GroupCommits = BTreeMap<TopicPartition, Result<Option<Commit>, ReadError>>;

/// A committed offset of one partition, or one to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The partition's number.
    pub partition: i32,
    /// The offset of the next message to read.
    pub next: i64,
    /// The commit's metadata.
    pub metadata: Option<Arc<str>>,
}

impl Commit {
    /// An offset without metadata.
    pub fn new(partition: i32, next: i64) -> Self {
        Self {
            partition,
            next,
            metadata: None,
        }
    }
}

impl Cluster {
    /// Committed offsets with their metadata, in the order of `groups`.
    pub async fn committed_offsets(
        &self,
        groups: &[(Arc<str>, Vec<TopicPartition>)],
        deadline: &Deadline,
    ) -> Vec<GroupCommits> {
        let names: Vec<_> = groups.iter().map(|(group, _)| Arc::clone(group)).collect();
        let commit_bytes = |position: usize| groups[position].1.len() * EXPECTED_COMMIT_BYTES;
        let request = |positions: &[usize]| {
            let requested = positions
                .iter()
                .map(|position| fetch_request(&groups[*position].0, &groups[*position].1));
            OffsetFetchRequest::default().with_groups(requested.collect())
        };
        let read = |position: usize, response: &OffsetFetchResponse| {
            read_commits(response, &groups[position].0, &groups[position].1)
        };
        let found = self
            .send_to_coordinators(&names, deadline, commit_bytes, request, read)
            .await;
        let each = found.into_iter().zip(groups).map(|(found, (_, partitions))| {
            found.unwrap_or_else(|error| {
                let why = error.into_error();
                let unread = partitions
                    .iter()
                    .map(|partition| (partition.clone(), Err(why.clone())));
                unread.collect()
            })
        });
        each.collect()
    }

    /// Commits the current offsets of a group without members again, metadata included, so that they do not expire.
    /// They are read immediately before, because a user may have moved them since the last reading.
    ///
    /// # Errors
    /// When the group has members, or Kafka refuses or does not answer. Nothing is committed if an offset could not be
    /// read.
    pub async fn commit_again(
        &self,
        group: &str,
        topic: &str,
        partitions: &[i32],
        deadline: &Deadline,
    ) -> Result<(), ReadError> {
        let topic_name: Arc<str> = topic.into();
        let requested = partitions.iter().map(|partition| TopicPartition {
            topic: Arc::clone(&topic_name),
            partition: *partition,
        });
        let found = self
            .committed_offsets(&[(group.into(), requested.collect())], deadline)
            .await;
        let commits: Result<Vec<_>, _> = found
            .into_iter()
            .flat_map(BTreeMap::into_values)
            .filter_map(Result::transpose)
            .collect();
        self.commit(group, topic, &commits?, deadline).await
    }

    /// Commits offsets for a group without members. Retries until the deadline.
    ///
    /// # Errors
    /// When the group has members, or Kafka refuses or does not answer.
    pub async fn commit(
        &self,
        group: &str,
        topic: &str,
        commits: &[Commit],
        deadline: &Deadline,
    ) -> Result<(), ReadError> {
        if commits.is_empty() {
            return Ok(());
        }
        let groups = [Arc::from(group)];
        let request = |_: &[usize]| commit_request(group, topic, commits);
        let read = |_: usize, response: &OffsetCommitResponse| check_committed(response, topic, commits);
        loop {
            let mut found = self
                .send_to_coordinators(&groups, deadline, |_| 0, request, read)
                .await;
            let error = match found.pop() {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => error,
                None => CoordinatorError::group_omitted(),
            };
            if matches!(error, CoordinatorError::Final(_)) || deadline.remaining() <= COMMIT_RETRY_DELAY {
                let error = error.into_error();
                let why = format!("cannot commit for {group}: {error}");
                return Err(ReadError::with_kind(why, error.kind));
            }
            tokio::time::sleep(COMMIT_RETRY_DELAY).await;
        }
    }
}

fn fetch_request(group: &Arc<str>, partitions: &[TopicPartition]) -> OffsetFetchRequestGroup {
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        by_topic
            .entry(&partition.topic)
            .or_default()
            .push(partition.partition);
    }
    let topics = by_topic.into_iter().map(|(topic, partitions)| {
        OffsetFetchRequestTopics::default()
            .with_name(TopicName(text(topic)))
            .with_partition_indexes(partitions)
    });
    OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(text(group)))
        .with_topics(Some(topics.collect()))
}

/// A request may contain the same group twice, with different topics.
fn read_commits(
    response: &OffsetFetchResponse,
    group: &str,
    partitions: &[TopicPartition],
) -> Result<GroupCommits, CoordinatorError> {
    let mut offsets = HashMap::new();
    let mut found_group = false;
    for group_response in response
        .groups
        .iter()
        .filter(|group_response| *group_response.group_id.0 == *group)
    {
        found_group = true;
        if let Some(error) = CoordinatorError::from_code(group_response.error_code) {
            return Err(error);
        }
        for topic in &group_response.topics {
            for partition in &topic.partitions {
                let key = (topic.name.0.as_str(), partition.partition_index);
                offsets.insert(key, partition);
            }
        }
    }
    if !found_group {
        return Err(CoordinatorError::group_omitted());
    }
    let each = partitions.iter().map(|partition| {
        let commit = match offsets.get(&(&*partition.topic, partition.partition)) {
            None => Err(ReadError::malformed(
                "the coordinator's response omits the partition",
            )),
            Some(found) if found.error_code != 0 => Err(ReadError::from_code(found.error_code)),
            // -1 if the group never committed.
            Some(found) => Ok((found.committed_offset >= 0).then(|| Commit {
                partition: partition.partition,
                next: found.committed_offset,
                metadata: found.metadata.as_ref().map(|text| Arc::from(text.as_str())),
            })),
        };
        (partition.clone(), commit)
    });
    Ok(each.collect())
}

fn commit_request(group: &str, topic: &str, commits: &[Commit]) -> OffsetCommitRequest {
    let partitions = commits.iter().map(|commit| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(commit.partition)
            .with_committed_offset(commit.next)
            .with_committed_metadata(Some(text(commit.metadata.as_deref().unwrap_or_default())))
    });
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(text(topic)))
        .with_partitions(partitions.collect());
    // Without generation and member, the coordinator accepts the commit only for a group without members.
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_retention_time_ms(i64::try_from(OFFSET_RETENTION.as_millis()).unwrap_or(i64::MAX))
        .with_topics(vec![topic])
}

fn check_committed(
    response: &OffsetCommitResponse,
    topic: &str,
    commits: &[Commit],
) -> Result<(), CoordinatorError> {
    let topics = response.topics.iter().filter(|found| *found.name.0 == *topic);
    let code_by_partition: HashMap<i32, i16> = topics
        .flat_map(|found| &found.partitions)
        .map(|partition| (partition.partition_index, partition.error_code))
        .collect();
    for commit in commits {
        let code = code_by_partition
            .get(&commit.partition)
            .ok_or_else(CoordinatorError::group_omitted)?;
        match ResponseError::try_from_code(*code) {
            None => {}
            Some(
                ResponseError::UnknownMemberId
                | ResponseError::IllegalGeneration
                | ResponseError::RebalanceInProgress
                | ResponseError::StaleMemberEpoch,
            ) => {
                return Err(CoordinatorError::Final(ReadError::with_kind(
                    "the group has members; fix: stop them first, or let them commit",
                    ReadErrorKind::Refused(*code),
                )));
            }
            Some(_) => return CoordinatorError::from_code(*code).map_or(Ok(()), Err),
        }
    }
    Ok(())
}
