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
        GroupState::Empty => stable(at, group, []),
        GroupState::Rebalancing => GroupReading::Rebalancing { at },
        GroupState::Other(state) => unknown(&format!("the group is in an unknown state: {state}")),
        // A partition that a member has still to revoke is not reported as its own, so any member may hold a task.
        GroupState::Reconciling => stable(at, group, group.members.iter().map(|_| MemberWork::Task)),
        GroupState::Stable => match group.held_partitions(topic) {
            Some(held) => stable(at, group, held.into_iter().map(MemberWork::Partitions)),
            None => unknown("a member's assignment is not in the format of Kafka consumers"),
        },
    }
}

/// The members of a group, each with its work.
fn stable(at: Moment, group: &Group, work: impl IntoIterator<Item = MemberWork>) -> GroupReading {
    let members = group.members.iter().zip(work).map(|(member, work)| Member {
        pod: (&*member.client_id).into(),
        work,
    });
    GroupReading::Stable {
        at,
        members: members.collect(),
    }
}
