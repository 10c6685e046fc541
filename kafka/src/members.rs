//! Groups as their coordinators describe them: state, members, and the partitions that members hold, in both rebalance
//! protocols.
//!
//! Kafka reports a group of the consumer protocol (KIP-848) to DescribeGroups as `Dead`, like a group that does not
//! exist. So groups that are `Dead` are requested by ConsumerGroupDescribe as well, and only those.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_describe_response as consumer_protocol;
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, GroupId,
};

use crate::assignment;
use crate::coordinators::CoordinatorError;
use crate::protocol::text;
use crate::{Cluster, Deadline, ReadError, ReadErrorKind};

/// Expected size of the description of a group: 100 members.
const EXPECTED_DESCRIPTION_BYTES: usize = 50_000;

/// The state that DescribeGroups reports for a group that does not exist, and for one of the consumer protocol.
const DEAD: &str = "Dead";

/// A group, as its coordinator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The group's state.
    pub state: GroupState,
    /// The group's state in Kafka's terms: `Stable`, `Empty`, `PreparingRebalance`, `Reconciling` …
    pub state_name: Arc<str>,
    /// The group's members.
    pub members: Vec<GroupMember>,
}

/// The state of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupState {
    /// No members, or the group never existed.
    Empty,
    /// A rebalance of the classic protocol is in progress.
    Rebalancing,
    /// Members of a group of the consumer protocol move to other partitions, each at its own time. A partition that a
    /// member has still to revoke is not reported as its own.
    Reconciling,
    /// Every member has its assignment.
    Stable,
    /// A state that this client does not know.
    Other(Arc<str>),
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Its Kafka client id.
    pub client_id: Arc<str>,
    /// The address it connects from, as the broker reports it: `/10.0.0.7`.
    pub host: Arc<str>,
    partitions: MemberPartitions,
}

/// Partitions of a member, as its group's protocol reports them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum MemberPartitions {
    /// The classic protocol: as the member encodes them.
    Classic { assignment: Bytes, subscription: Bytes },
    /// The consumer protocol. Members that use the classic one in such a group are reported in the same way.
    Consumer {
        current: PartitionsByTopic,
        target: PartitionsByTopic,
    },
}

type PartitionsByTopic = BTreeMap<Arc<str>, Vec<i32>>;

impl GroupMember {
    /// The partitions of a topic that are assigned to it, ascending; `None` if its assignment cannot be parsed.
    pub fn assigned_partitions(&self, topic: &str) -> Option<Vec<i32>> {
        match &self.partitions {
            MemberPartitions::Classic { assignment, .. } => assignment::partitions_of(assignment, topic),
            MemberPartitions::Consumer { current, .. } => {
                Some(current.get(topic).cloned().unwrap_or_default())
            }
        }
    }

    /// The partitions of a topic that it holds unless they are assigned to another member: those that it owned when it
    /// last joined, or those of its target assignment. Empty if its subscription cannot be parsed.
    fn expected_partitions(&self, topic: &str) -> Vec<i32> {
        match &self.partitions {
            MemberPartitions::Classic { subscription, .. } => {
                assignment::previously_owned(subscription, topic).unwrap_or_default()
            }
            MemberPartitions::Consumer { target, .. } => target.get(topic).cloned().unwrap_or_default(),
        }
    }
}

impl Group {
    /// The partitions of a topic that each member holds, ascending, in the order of the members; `None` if an
    /// assignment cannot be parsed.
    ///
    /// A partition that moves is assigned to no member until its owner revokes it. Until then it counts as held by that
    /// owner in the classic protocol, and by the next one in the consumer protocol, which does not report the owner.
    pub fn held_partitions(&self, topic: &str) -> Option<Vec<Vec<i32>>> {
        let assignments = self
            .members
            .iter()
            .map(|member| member.assigned_partitions(topic));
        let mut held = assignments.collect::<Option<Vec<_>>>()?;
        let assigned: BTreeSet<i32> = held.iter().flatten().copied().collect();
        for (member, partitions) in self.members.iter().zip(&mut held) {
            let expected = member.expected_partitions(topic).into_iter();
            partitions.extend(expected.filter(|partition| !assigned.contains(partition)));
            partitions.sort_unstable();
        }
        Some(held)
    }

    fn from_classic(described: &DescribedGroup) -> Self {
        let state = match described.group_state.as_str() {
            "Empty" | DEAD => GroupState::Empty,
            "PreparingRebalance" | "CompletingRebalance" => GroupState::Rebalancing,
            "Stable" => GroupState::Stable,
            other => GroupState::Other(other.into()),
        };
        let members = described.members.iter().map(|member| GroupMember {
            client_id: member.client_id.as_str().into(),
            host: member.client_host.as_str().into(),
            partitions: MemberPartitions::Classic {
                assignment: Bytes::copy_from_slice(&member.member_assignment),
                subscription: Bytes::copy_from_slice(&member.member_metadata),
            },
        });
        Self {
            state,
            state_name: described.group_state.as_str().into(),
            members: members.collect(),
        }
    }

    fn from_consumer(described: &consumer_protocol::DescribedGroup) -> Self {
        let state = match described.group_state.as_str() {
            "Empty" | DEAD => GroupState::Empty,
            "Assigning" | "Reconciling" => GroupState::Reconciling,
            "Stable" => GroupState::Stable,
            other => GroupState::Other(other.into()),
        };
        let members = described.members.iter().map(|member| GroupMember {
            client_id: member.client_id.as_str().into(),
            host: member.client_host.as_str().into(),
            partitions: MemberPartitions::Consumer {
                current: by_topic(&member.assignment),
                target: by_topic(&member.target_assignment),
            },
        });
        Self {
            state,
            state_name: described.group_state.as_str().into(),
            members: members.collect(),
        }
    }
}

fn by_topic(assignment: &consumer_protocol::Assignment) -> PartitionsByTopic {
    let mut by_topic = PartitionsByTopic::new();
    for topic in &assignment.topic_partitions {
        let partitions = by_topic.entry(topic.topic_name.0.as_str().into()).or_default();
        partitions.extend(&topic.partitions);
        partitions.sort_unstable();
    }
    by_topic
}

impl Cluster {
    /// Describes groups, in the order of `groups`. A group that never had a member is empty.
    pub async fn describe_groups(
        &self,
        groups: &[Arc<str>],
        deadline: &Deadline,
    ) -> Vec<Result<Group, ReadError>> {
        let mut described = self.describe_classic(groups, deadline).await;
        let is_dead =
            |group: &Result<Group, ReadError>| group.as_ref().is_ok_and(|group| &*group.state_name == DEAD);
        let dead: Vec<usize> = (0..described.len())
            .filter(|position| is_dead(&described[*position]))
            .collect();
        if dead.is_empty() {
            return described;
        }
        let names: Vec<_> = dead
            .iter()
            .map(|position| Arc::clone(&groups[*position]))
            .collect();
        let of_consumers = self.describe_consumers(&names, deadline).await;
        for (position, group) in dead.into_iter().zip(of_consumers) {
            // Without such a group it does not exist.
            if let Some(group) = group.transpose() {
                described[position] = group;
            }
        }
        described
    }

    async fn describe_classic(
        &self,
        groups: &[Arc<str>],
        deadline: &Deadline,
    ) -> Vec<Result<Group, ReadError>> {
        let request = |positions: &[usize]| {
            let requested = positions.iter().map(|position| GroupId(text(&groups[*position])));
            DescribeGroupsRequest::default().with_groups(requested.collect())
        };
        let read = |position: usize, response: &DescribeGroupsResponse| {
            let mut described = response.groups.iter();
            let described = described.find(|described| *described.group_id.0 == *groups[position]);
            let described = described.ok_or_else(CoordinatorError::group_omitted)?;
            match CoordinatorError::from_code(described.error_code) {
                None => Ok(Group::from_classic(described)),
                Some(error) => Err(error),
            }
        };
        let found = self
            .send_to_coordinators(groups, deadline, |_| EXPECTED_DESCRIPTION_BYTES, request, read)
            .await;
        found
            .into_iter()
            .map(|found| found.map_err(CoordinatorError::into_error))
            .collect()
    }

    /// Describes groups of the consumer protocol; `None` for a group of another protocol, or that does not exist.
    async fn describe_consumers(
        &self,
        groups: &[Arc<str>],
        deadline: &Deadline,
    ) -> Vec<Result<Option<Group>, ReadError>> {
        let request = |positions: &[usize]| {
            let requested = positions.iter().map(|position| GroupId(text(&groups[*position])));
            ConsumerGroupDescribeRequest::default().with_group_ids(requested.collect())
        };
        let read = |position: usize, response: &ConsumerGroupDescribeResponse| {
            let mut described = response.groups.iter();
            let described = described.find(|described| *described.group_id.0 == *groups[position]);
            let described = described.ok_or_else(CoordinatorError::group_omitted)?;
            match ResponseError::try_from_code(described.error_code) {
                None => Ok(Some(Group::from_consumer(described))),
                // Brokers that have the protocol disabled report an unsupported version for each group.
                Some(ResponseError::GroupIdNotFound | ResponseError::UnsupportedVersion) => Ok(None),
                Some(_) => CoordinatorError::from_code(described.error_code).map_or(Ok(None), Err),
            }
        };
        let found = self
            .send_to_coordinators(groups, deadline, |_| EXPECTED_DESCRIPTION_BYTES, request, read)
            .await;
        let each = found.into_iter().map(|found| {
            let error = match found {
                Ok(group) => return Ok(group),
                Err(error) => error.into_error(),
            };
            // The broker does not have the protocol.
            if error.kind == ReadErrorKind::Unsupported {
                return Ok(None);
            }
            let why = format!("members of the consumer protocol (KIP-848) are unknown: {error}");
            Err(ReadError::with_kind(why, error.kind))
        });
        each.collect()
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::TopicName;

    use super::consumer_protocol::{Assignment, Member, TopicPartitions};
    use super::*;

    fn assigned(partitions: &[i32]) -> Assignment {
        let of_topic = |topic: &str, partitions: &[i32]| {
            TopicPartitions::default()
                .with_topic_name(TopicName(text(topic)))
                .with_partitions(partitions.to_vec())
        };
        let topics = vec![of_topic("other", &[7]), of_topic("tasks", partitions)];
        Assignment::default().with_topic_partitions(topics)
    }

    /// A member with its type (0: classic, 1: consumer), and its current and target partitions.
    fn member(client_id: &str, member_type: i8, current: &[i32], target: &[i32]) -> Member {
        Member::default()
            .with_client_id(text(client_id))
            .with_client_host(text("/10.0.0.7"))
            .with_member_type(member_type)
            .with_assignment(assigned(current))
            .with_target_assignment(assigned(target))
    }

    fn described(state: &str, members: Vec<Member>) -> Group {
        let described = consumer_protocol::DescribedGroup::default()
            .with_group_state(text(state))
            .with_members(members);
        Group::from_consumer(&described)
    }

    #[test]
    fn members_of_both_types_hold_their_current_and_then_their_target_partitions() {
        let members = vec![
            member("worker", 0, &[1, 0], &[0]),
            // 1 is still the worker's, 3 is no longer of any member.
            member("foreign", 1, &[2], &[3, 1, 2]),
            member("joining", 1, &[], &[4]),
        ];
        let group = described("Reconciling", members);
        let names: Vec<_> = group.members.iter().map(|member| &*member.client_id).collect();
        assert_eq!(names, ["worker", "foreign", "joining"]);
        assert_eq!(group.members[0].assigned_partitions("tasks"), Some(vec![0, 1]));
        assert_eq!(
            group.held_partitions("tasks"),
            Some(vec![vec![0, 1], vec![2, 3], vec![4]])
        );
        assert_eq!(group.held_partitions("more"), Some(vec![vec![]; 3]));
    }

    #[test]
    fn states_of_the_consumer_protocol_are_known() {
        for (name, state) in [
            ("Empty", GroupState::Empty),
            ("Dead", GroupState::Empty),
            ("Assigning", GroupState::Reconciling),
            ("Reconciling", GroupState::Reconciling),
            ("Stable", GroupState::Stable),
            ("NotReady", GroupState::Other("NotReady".into())),
        ] {
            let group = described(name, Vec::new());
            assert_eq!((group.state, &*group.state_name), (state, name));
        }
    }
}
