//! Consumer groups: what they committed, who is in them, and commits for those without members.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    DescribeGroupsRequest, GroupId, OffsetCommitResponse, OffsetFetchResponse, TopicName,
};

use super::assignment;
use super::coordinators::Refusal;
use super::protocol::text;
use super::{Cluster, Deadline, TopicPartition, Unread};
use crate::decide::{GroupReading, Holds, Member, Moment};

/// The wait before a commit is tried again.
const COMMIT_AGAIN: Duration = Duration::from_millis(200);

/// How long brokers keep an offset that we commit: 365 days. Without a retention time of its own, an offset expires when the
/// group has had no member for `offsets.retention.minutes`, however recently it was committed (KIP-211). A worker's next
/// commit replaces the offset together with this time.
const RETAINED_FOR: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Commits of a group, by partition; none where it never committed.
pub type GroupCommits = BTreeMap<TopicPartition, Result<Option<Commit>, Unread>>;

/// An offset of one partition, committed or to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The partition's number.
    pub partition: i32,
    /// The next offset to read.
    pub next: i64,
    /// The metadata beside it.
    pub metadata: Option<Arc<str>>,
}

impl Commit {
    /// An offset without metadata.
    pub fn of(partition: i32, next: i64) -> Self {
        Self {
            partition,
            next,
            metadata: None,
        }
    }
}

/// A group, as its coordinator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What it is doing.
    pub state: GroupState,
    /// Who is in it.
    pub members: Vec<GroupMember>,
}

/// What a group is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupState {
    /// Nobody is in it, or nobody ever was.
    Empty,
    /// Partitions are being shared out.
    Rebalancing,
    /// Everybody knows what is theirs.
    Stable,
    /// Something that this operator does not know.
    Other(Arc<str>),
}

/// A member of a group, ours or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// What it calls itself; our workers take their pod's name.
    pub client_id: Arc<str>,
    /// Where it connects from, as the broker writes it: `/10.0.0.7`.
    pub host: Arc<str>,
    assignment: Bytes,
    subscription: Bytes,
}

impl GroupMember {
    /// The partitions of a topic that it owned when it last joined, and has since been asked to give up, perhaps, for
    /// somebody who is to get them later. None are known where its subscription is of another kind.
    fn owned_before(&self, topic: &str) -> Vec<i32> {
        assignment::owned_before(&self.subscription, topic).unwrap_or_default()
    }

    /// The partitions of a topic that it owns, ascending; none where its assignment is of another kind.
    pub fn owns(&self, topic: &str) -> Option<Vec<i32>> {
        assignment::partitions_of(&self.assignment, topic)
    }
}

impl Group {
    /// What a decision needs of it: who owns what of `topic`.
    pub fn reading(&self, topic: &str, at: Moment) -> GroupReading {
        let unknown = |why: String| GroupReading::Unknown { at, why: why.into() };
        let nobody = GroupReading::Stable {
            at,
            members: Vec::new(),
        };
        match &self.state {
            GroupState::Empty => nobody,
            GroupState::Rebalancing => GroupReading::Rebalancing { at },
            GroupState::Other(state) => unknown(format!("the group is in the unknown state {state}")),
            GroupState::Stable => {
                let owned: Option<Vec<_>> = self.members.iter().map(|member| member.owns(topic)).collect();
                let Some(owned) = owned else {
                    return unknown("a member has an assignment of another kind".to_owned());
                };
                // What is to move belongs to nobody until its owner has let go, which a worker does after its task.
                let given: BTreeSet<i32> = owned.iter().flatten().copied().collect();
                let members = self.members.iter().zip(owned).map(|(member, mut partitions)| {
                    let kept = member.owned_before(topic).into_iter();
                    partitions.extend(kept.filter(|partition| !given.contains(partition)));
                    partitions.sort_unstable();
                    Member {
                        pod: (&*member.client_id).into(),
                        holds: Holds::Partitions(partitions),
                    }
                });
                GroupReading::Stable {
                    at,
                    members: members.collect(),
                }
            }
        }
    }

    fn of(described: &DescribedGroup) -> Self {
        let state = match described.group_state.as_str() {
            "Empty" | "Dead" => GroupState::Empty,
            "PreparingRebalance" | "CompletingRebalance" => GroupState::Rebalancing,
            "Stable" => GroupState::Stable,
            other => GroupState::Other(other.into()),
        };
        let members = described.members.iter().map(|member| GroupMember {
            client_id: member.client_id.as_str().into(),
            host: member.client_host.as_str().into(),
            assignment: Bytes::copy_from_slice(&member.member_assignment),
            subscription: Bytes::copy_from_slice(&member.member_metadata),
        });
        Self {
            state,
            members: members.collect(),
        }
    }
}

impl Cluster {
    /// What groups committed, metadata included: per group, by partition; none where it never committed.
    pub async fn commits_of(
        &self,
        groups: &[(Arc<str>, Vec<TopicPartition>)],
        deadline: &Deadline,
    ) -> Vec<GroupCommits> {
        let names: Vec<_> = groups.iter().map(|(group, _)| Arc::clone(group)).collect();
        let question = |positions: &[usize]| {
            let asked = positions
                .iter()
                .map(|position| fetch_of(&groups[*position].0, &groups[*position].1));
            OffsetFetchRequest::default().with_groups(asked.collect())
        };
        let read = |position: usize, answer: &OffsetFetchResponse| {
            committed_in(answer, &groups[position].0, &groups[position].1)
        };
        let found = self.ask_coordinators(&names, deadline, question, read).await;
        let each = found.into_iter().zip(groups).map(|(found, (_, partitions))| {
            found.unwrap_or_else(|refusal| {
                let why = refusal.why();
                let unread = partitions
                    .iter()
                    .map(|partition| (partition.clone(), Err(why.clone())));
                unread.collect()
            })
        });
        each.collect()
    }

    /// Describes groups. One that nobody ever joined is empty.
    pub async fn describe_groups(
        &self,
        groups: &[Arc<str>],
        deadline: &Deadline,
    ) -> Vec<Result<Group, Unread>> {
        let question = |positions: &[usize]| {
            let asked = positions.iter().map(|position| GroupId(text(&groups[*position])));
            DescribeGroupsRequest::default().with_groups(asked.collect())
        };
        let read = |position: usize, answer: &kafka_protocol::messages::DescribeGroupsResponse| {
            let mut described = answer.groups.iter();
            let described = described.find(|described| *described.group_id.0 == *groups[position]);
            let described = described.ok_or_else(silent_about_the_group)?;
            match Refusal::of(described.error_code) {
                None => Ok(Group::of(described)),
                Some(refusal) => Err(refusal),
            }
        };
        let found = self.ask_coordinators(groups, deadline, question, read).await;
        found
            .into_iter()
            .map(|found| found.map_err(Refusal::why))
            .collect()
    }

    /// Members of groups, and what they own of a topic.
    pub async fn groups(
        &self,
        groups: &[(Arc<str>, Arc<str>)],
        at: Moment,
        deadline: &Deadline,
    ) -> Vec<GroupReading> {
        let names: Vec<_> = groups.iter().map(|(group, _)| Arc::clone(group)).collect();
        let described = self.describe_groups(&names, deadline).await;
        let readings = described
            .into_iter()
            .zip(groups)
            .map(|(described, (_, topic))| match described {
                Ok(group) => group.reading(topic, at),
                Err(Unread(why, _)) => GroupReading::Unknown { at, why },
            });
        readings.collect()
    }

    /// Commits once more what a group without members has committed, metadata included, so that it does not expire. It is
    /// read right before, because a user may have moved the offsets since the last reading.
    ///
    /// # Errors
    /// When the group has members, or Kafka refuses or does not answer; nothing is committed where an offset could not be
    /// read.
    pub async fn commit_again(
        &self,
        group: &str,
        topic: &str,
        partitions: &[i32],
        deadline: &Deadline,
    ) -> Result<(), Unread> {
        let topic_name: Arc<str> = topic.into();
        let asked = partitions.iter().map(|partition| TopicPartition {
            topic: Arc::clone(&topic_name),
            partition: *partition,
        });
        let found = self
            .commits_of(&[(group.into(), asked.collect())], deadline)
            .await;
        let commits: Result<Vec<_>, _> = found
            .into_iter()
            .flat_map(BTreeMap::into_values)
            .filter_map(Result::transpose)
            .collect();
        self.commit(group, topic, &commits?, deadline).await
    }

    /// Commits offsets for a group without members: for each partition, the next offset to read. It is tried until the
    /// deadline.
    ///
    /// # Errors
    /// When the group has members, or Kafka refuses or does not answer.
    pub async fn commit(
        &self,
        group: &str,
        topic: &str,
        commits: &[Commit],
        deadline: &Deadline,
    ) -> Result<(), Unread> {
        if commits.is_empty() {
            return Ok(());
        }
        let groups = [Arc::from(group)];
        let question = |_: &[usize]| commit_of(group, topic, commits);
        let read = |_: usize, answer: &OffsetCommitResponse| all_committed(answer, topic, commits);
        loop {
            let mut found = self.ask_coordinators(&groups, deadline, question, read).await;
            let refusal = match found.pop() {
                Some(Ok(())) => return Ok(()),
                Some(Err(refusal)) => refusal,
                None => Refusal::Final(silent_about_the_group().why()),
            };
            if matches!(refusal, Refusal::Final(_)) || deadline.left() <= COMMIT_AGAIN {
                return Err(Unread::new(format!(
                    "cannot commit for {group}: {}",
                    refusal.why()
                )));
            }
            tokio::time::sleep(COMMIT_AGAIN).await;
        }
    }
}

fn silent_about_the_group() -> Refusal {
    Refusal::Final(Unread::new("the broker said nothing about the group"))
}

fn fetch_of(group: &Arc<str>, partitions: &[TopicPartition]) -> OffsetFetchRequestGroup {
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

/// The same group may have been asked about twice in one question, with other topics.
fn committed_in(
    answer: &OffsetFetchResponse,
    group: &str,
    partitions: &[TopicPartition],
) -> Result<GroupCommits, Refusal> {
    let mut offsets = HashMap::new();
    let mut named = false;
    for answered in answer
        .groups
        .iter()
        .filter(|answered| *answered.group_id.0 == *group)
    {
        named = true;
        if let Some(refusal) = Refusal::of(answered.error_code) {
            return Err(refusal);
        }
        for topic in &answered.topics {
            for partition in &topic.partitions {
                let key = (topic.name.0.as_str(), partition.partition_index);
                offsets.insert(key, partition);
            }
        }
    }
    if !named {
        return Err(silent_about_the_group());
    }
    let each = partitions.iter().map(|partition| {
        let commit = match offsets.get(&(&*partition.topic, partition.partition)) {
            None => Err(Unread::new("the coordinator said nothing about it")),
            Some(found) if found.error_code != 0 => Err(Unread::said(found.error_code)),
            // Below 0 where the group never committed.
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

fn commit_of(group: &str, topic: &str, commits: &[Commit]) -> OffsetCommitRequest {
    let partitions = commits.iter().map(|commit| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(commit.partition)
            .with_committed_offset(commit.next)
            .with_committed_metadata(Some(text(commit.metadata.as_deref().unwrap_or_default())))
    });
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(text(topic)))
        .with_partitions(partitions.collect());
    // No generation and no member: the coordinator takes it from a group without members, and from no other.
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_retention_time_ms(i64::try_from(RETAINED_FOR.as_millis()).unwrap_or(i64::MAX))
        .with_topics(vec![topic])
}

fn all_committed(answer: &OffsetCommitResponse, topic: &str, commits: &[Commit]) -> Result<(), Refusal> {
    let answered = answer.topics.iter().filter(|answered| *answered.name.0 == *topic);
    let answered: HashMap<i32, i16> = answered
        .flat_map(|answered| &answered.partitions)
        .map(|partition| (partition.partition_index, partition.error_code))
        .collect();
    for commit in commits {
        let code = answered
            .get(&commit.partition)
            .ok_or_else(silent_about_the_group)?;
        match ResponseError::try_from_code(*code) {
            None => {}
            Some(
                ResponseError::UnknownMemberId
                | ResponseError::IllegalGeneration
                | ResponseError::RebalanceInProgress
                | ResponseError::StaleMemberEpoch,
            ) => {
                return Err(Refusal::Final(Unread::new(
                    "the group has members; fix: stop them first, or let them commit",
                )));
            }
            Some(_) => return Refusal::of(*code).map_or(Ok(()), Err),
        }
    }
    Ok(())
}
