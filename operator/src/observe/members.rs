//! Readings of groups' members, for decisions.

use std::sync::Arc;

use separation_kafka::{Cluster, Deadline, Group, GroupState};

use crate::decide::{GroupReading, Member, MemberWork, Moment};

/// Reads the members of groups, each group with a topic whose partitions are reported.
pub async fn read_groups(
    cluster: &Cluster,
    groups: &[(Arc<str>, Arc<str>)],
    at: Moment,
    deadline: &Deadline,
) -> Vec<GroupReading> {
    let names: Vec<_> = groups.iter().map(|(group, _)| Arc::clone(group)).collect();
    let described = cluster.describe_groups(&names, deadline).await;
    let readings = described
        .into_iter()
        .zip(groups)
        .map(|(described, (_, topic))| match described {
            Ok(group) => reading(&group, topic, at),
            Err(error) => GroupReading::Unknown { at, why: error.why },
        });
    readings.collect()
}

fn reading(group: &Group, topic: &str, at: Moment) -> GroupReading {
    let unknown = |why: &str| GroupReading::Unknown { at, why: why.into() };
    match &group.state {
        GroupState::Empty => GroupReading::Stable {
            at,
            members: Vec::new(),
        },
        GroupState::Rebalancing => GroupReading::Rebalancing { at },
        GroupState::Other(state) => unknown(&format!("the group is in an unknown state: {state}")),
        GroupState::Stable => {
            let Some(held) = group.held_partitions(topic) else {
                return unknown("a member's assignment is not in the format of Kafka consumers");
            };
            let members = group.members.iter().zip(held).map(|(member, held)| Member {
                pod: (&*member.client_id).into(),
                work: MemberWork::Partitions(held),
            });
            GroupReading::Stable {
                at,
                members: members.collect(),
            }
        }
    }
}
