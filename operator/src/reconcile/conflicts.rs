//! Other users of a role's group: other pools, and members that are not pods of the role. Pure.
//!
//! If several pools share a group, one continues and the others are held: a copy that was made by mistake must not stop
//! a working pool. Groups are compared per Kafka cluster, by the cluster's id, because one cluster has many addresses.
//! A pool holds others only if its use of the group is proven: its own credentials were accepted there, or its workers
//! have been members, if the operator reads the group with an identity that other pools have too. So no pool can hold
//! another by merely naming its servers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::apply::deployment_name;
use crate::decide::{GroupReading, Member, PodName, Workload};
use crate::names::{pod_and_tag, pool_tag};
use crate::plan::{PoolId, PoolPlan, Role};
use crate::watch::cache::{PoolSnapshot, RoleKey};
use separation_contract::kafka::Assignor;

/// The most foreign members that are named.
const MAX_NAMED: usize = 3;

/// Where credentials were accepted for a pool's group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupUse {
    /// The Kafka cluster's id.
    pub(super) cluster_id: Arc<str>,
    /// Whether the pool has initialized the group's offsets there.
    pub(super) is_adopted: bool,
    /// Whether the credentials were the pool's own, or its workers have been members of the group there.
    pub(super) is_proven: bool,
}

/// The use of each role, in the order of [`Role::ALL`]; `None` until credentials were accepted.
pub(super) type GroupUses = [Option<GroupUse>; 2];

/// A role that uses a group. The order decides which one continues: one whose use is proven first, then one that has
/// initialized the group's offsets, then the older one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct GroupUser<'a> {
    is_unproven: bool,
    is_new: bool,
    created: Option<&'a Timestamp>,
    key: RoleKey,
}

/// The roles that are held because another pool uses their group, with the reason of each.
pub(super) fn shared_groups<'a>(
    pools: impl IntoIterator<Item = (&'a Arc<PoolId>, &'a PoolSnapshot, GroupUses)>,
) -> HashMap<RoleKey, Arc<str>> {
    let mut users: HashMap<(Arc<str>, &str), Vec<GroupUser<'_>>> = HashMap::new();
    for (id, pool, uses) in pools {
        let Ok(plan) = &pool.plan else { continue };
        for (role, group_use) in Role::ALL.into_iter().zip(uses) {
            let role_plan = plan.role(role);
            if let (true, Some(group_use)) = (role_plan.enabled, group_use) {
                let key = RoleKey {
                    pool: Arc::clone(id),
                    role,
                };
                users
                    .entry((group_use.cluster_id, role_plan.group.as_str()))
                    .or_default()
                    .push(GroupUser {
                        is_unproven: !group_use.is_proven,
                        is_new: !group_use.is_adopted,
                        created: pool.created.as_ref().map(|time| &time.0),
                        key,
                    });
            }
        }
    }
    let mut held = HashMap::new();
    for ((_, group), mut users) in users {
        users.sort_unstable();
        let mut users = users.into_iter();
        let Some(first) = users.next().filter(|first| !first.is_unproven) else {
            continue;
        };
        for user in users {
            let RoleKey { pool, role } = &first.key;
            let why = format!(
                "group {group} is already used by the {role} of SeparationPool {pool}; fix: delete one of the pools, and \
                 create another pool with its own group and topic for the {} (both are immutable)",
                user.key.role
            );
            held.insert(user.key, why.into());
        }
    }
    held
}

/// Identifies the workers of a role among the members of its group.
#[derive(Debug, Clone)]
pub struct WorkerIds {
    prefix: String,
    tag: String,
}

impl WorkerIds {
    /// For a role of the pool with this uid.
    pub fn new(key: &RoleKey, pool_uid: &str) -> Self {
        Self {
            prefix: format!("{}-", deployment_name(&key.pool, key.role)),
            tag: pool_tag(pool_uid),
        }
    }

    /// The pod of a member that is a worker of the role: one with the pool's tag or, for workers that were started by
    /// an earlier version or before the pool was recreated, one with the name of a known pod.
    fn pod<'a>(&self, client_id: &'a str, is_pod: impl Fn(&str) -> bool) -> Option<&'a str> {
        let (pod, tag) = pod_and_tag(client_id);
        // The member of a deleted pod remains until its session times out.
        let has_our_tag = tag == Some(&*self.tag) && pod.starts_with(&self.prefix);
        (has_our_tag || is_pod(pod)).then_some(pod)
    }

    /// Whether members of the group are workers of the role, by their tags.
    pub(super) fn include_members(&self, group: Option<&GroupReading>) -> bool {
        let Some(GroupReading::Stable { members, .. }) = group else {
            return false;
        };
        let mut members = members.iter();
        members.any(|member| self.pod(member.pod.as_str(), |_| false).is_some())
    }

    /// The group with only the workers of the role, under their pods' names.
    pub(super) fn workers(&self, group: &GroupReading, workload: &Workload) -> GroupReading {
        let GroupReading::Stable { at, members } = group else {
            return group.clone();
        };
        let pods = names(workload);
        let members = members.iter().filter_map(|member| {
            Some(Member {
                pod: self.pod(member.pod.as_str(), |name| pods.contains(name))?.into(),
                work: member.work.clone(),
            })
        });
        GroupReading::Stable {
            at: *at,
            members: members.collect(),
        }
    }
}

/// The names of the pods of a role.
pub(super) fn names(workload: &Workload) -> HashSet<&str> {
    workload.pods.iter().map(|pod| pod.name.as_str()).collect()
}

/// The message about members that are not workers of a role. With the `range` assignor they are expected: it serves the
/// migration from another implementation, one member at a time. `pods` are the names of the role's pods.
pub fn foreign_members(
    plan: &PoolPlan,
    role: Role,
    group: Option<&GroupReading>,
    ids: &WorkerIds,
    pods: &HashSet<&str>,
) -> Option<Arc<str>> {
    let role_plan = plan.role(role);
    let Some(GroupReading::Stable { members, .. }) = group else {
        return None;
    };
    if role_plan.assignor == Assignor::Range {
        return None;
    }
    let ours = |name: &PodName| ids.pod(name.as_str(), |name| pods.contains(name)).is_some();
    let mut foreign: BTreeMap<&PodName, usize> = BTreeMap::new();
    for member in members.iter().filter(|member| !ours(&member.pod)) {
        *foreign.entry(&member.pod).or_default() += 1;
    }
    if foreign.is_empty() {
        return None;
    }
    let mut names: Vec<String> = foreign
        .keys()
        .take(MAX_NAMED)
        .map(|name| format!("{name:?}", name = name.as_str()))
        .collect();
    if foreign.len() > MAX_NAMED {
        names.push(format!("{} more", foreign.len() - MAX_NAMED));
    }
    Some(
        format!(
            "group {} has members that are not pods of this pool (client ids {}); fix: stop them, or create another pool \
             with its own group and delete this one (the group is immutable), or set {role}.assignor to range while \
             migrating",
            role_plan.group,
            names.join(", ")
        )
        .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::from_yaml;
    use crate::decide::{CostAnnotation, MemberWork, Moment, Pod, PodState};
    use crate::names::client_id;
    use crate::watch::pool_snapshot;
    use kube::core::DeserializeGuard;

    fn pool(namespace: &str, created: &str, servers: &str, group: &str) -> (Arc<PoolId>, PoolSnapshot) {
        let yaml = format!(
            "
apiVersion: separation.dev/v1beta1
kind: SeparationPool
metadata: {{name: vocals, namespace: {namespace}, uid: {namespace}, creationTimestamp: '{created}'}}
spec:
  kafka: {{bootstrapServers: '{servers}'}}
  storage: {{stems: {{bucket: stems}}, staging: {{s3: {{}}}}}}
  processor: {{consumerGroup: {group}}}
  uploader: {{consumerGroup: '{namespace}-uploaders'}}
"
        );
        pool_snapshot(&DeserializeGuard(Ok(from_yaml(&yaml).unwrap())))
    }

    /// A pool that uses its groups in a cluster.
    type TestUser = (Arc<PoolId>, PoolSnapshot, Option<GroupUse>);

    fn used((id, pool): (Arc<PoolId>, PoolSnapshot), cluster_id: &str) -> TestUser {
        let group_use = GroupUse {
            cluster_id: cluster_id.into(),
            is_adopted: false,
            is_proven: true,
        };
        (id, pool, Some(group_use))
    }

    fn unproven((id, pool, group_use): TestUser) -> TestUser {
        let group_use = group_use.map(|group_use| GroupUse {
            is_proven: false,
            ..group_use
        });
        (id, pool, group_use)
    }

    fn adopted((id, pool, group_use): TestUser) -> TestUser {
        let group_use = group_use.map(|group_use| GroupUse {
            is_adopted: true,
            ..group_use
        });
        (id, pool, group_use)
    }

    fn held(pools: &[&TestUser]) -> HashMap<RoleKey, Arc<str>> {
        shared_groups(
            pools
                .iter()
                .map(|(id, pool, group_use)| (id, pool, [group_use.clone(), group_use.clone()])),
        )
    }

    #[track_caller]
    fn check(pools: &[&TestUser], expected: &[&str]) {
        let mut names: Vec<String> = held(pools).keys().map(ToString::to_string).collect();
        names.sort();
        assert_eq!(names, expected);
    }

    #[test]
    fn of_pools_that_share_a_group_the_older_one_continues_even_with_other_addresses() {
        let old = used(
            pool("z-old", "2026-01-01T00:00:00Z", "b:1, a:1", "separators"),
            "one",
        );
        let copy = used(
            pool("a-copy", "2026-02-01T00:00:00Z", "a:1,c:1", "separators"),
            "one",
        );
        check(&[&old, &copy], &["a-copy/vocals processor"]);
        let reasons = held(&[&old, &copy]);
        let reason = reasons.values().next().unwrap();
        assert!(
            reason.starts_with(
                "group separators is already used by the processor of SeparationPool z-old/vocals"
            ),
            "{reason}"
        );
        // A pool's group and topic are immutable: the fix must be possible.
        assert!(reason.contains("create another pool"), "{reason}");
    }

    #[test]
    fn other_groups_and_other_clusters_do_not_conflict() {
        let one = used(pool("one", "2026-01-01T00:00:00Z", "a:1", "separators"), "one");
        let other_group = used(pool("two", "2026-02-01T00:00:00Z", "a:1", "others"), "one");
        check(&[&one, &other_group], &[]);
        // The same address in two networks is not the same cluster.
        let other_cluster = used(pool("three", "2026-02-01T00:00:00Z", "a:1", "separators"), "two");
        check(&[&one, &other_cluster], &[]);
    }

    #[test]
    fn a_pool_whose_credentials_were_never_accepted_does_not_hold_another() {
        let (id, seen) = pool("old", "2026-01-01T00:00:00Z", "a:1", "separators");
        let refused = (id.clone(), seen.clone(), None);
        let victim = used(pool("victim", "2026-02-01T00:00:00Z", "a:1", "separators"), "one");
        check(&[&refused, &victim], &[]);
        // Its credentials are accepted later: the working pool continues.
        let accepted = used((id, seen), "one");
        check(&[&accepted, &adopted(victim)], &["old/vocals processor"]);
    }

    #[test]
    fn a_pool_without_proof_holds_no_other_and_is_held_by_one_with_proof() {
        let used =
            |namespace: &str, created: &str| used(pool(namespace, created, "a:1", "separators"), "one");
        // Older, and it has initialized the group's offsets, with the operator's own identity.
        let older = unproven(adopted(used("older", "2026-01-01T00:00:00Z")));
        let victim = used("victim", "2026-02-01T00:00:00Z");
        check(&[&older, &victim], &["older/vocals processor"]);
        check(&[&older, &unproven(victim)], &[]);
    }

    #[test]
    fn foreign_members_are_named_unless_the_assignor_is_range() {
        let (_, seen) = pool("one", "2026-01-01T00:00:00Z", "a:1", "separators");
        let mut plan = PoolPlan::clone(seen.plan.as_ref().unwrap());
        let group = |names: &[&str]| GroupReading::Stable {
            at: Moment::default(),
            members: names
                .iter()
                .map(|name| Member {
                    pod: (*name).into(),
                    work: MemberWork::Partitions(vec![]),
                })
                .collect(),
        };
        let key = RoleKey {
            pool: Arc::new(plan.id.clone()),
            role: Role::Processor,
        };
        let ids = WorkerIds::new(&key, "our-uid");
        let workload = Workload {
            pods: vec![Pod {
                name: "vocals-processor-5c7-old".into(),
                state: PodState::Ready,
                cost_annotation: CostAnnotation::Absent,
                replica_set: "vocals-processor-5c7".into(),
                created: None,
            }],
            ..Workload::default()
        };
        let found = |plan: &PoolPlan, group: GroupReading| {
            foreign_members(plan, Role::Processor, Some(&group), &ids, &names(&workload))
        };
        let tagged = |pod: &str, uid: &str| client_id(pod, &pool_tag(uid));
        // One whose pod is deleted; one of an earlier version, whose pod is known; one of this pool before it was
        // recreated.
        let deleted = tagged("vocals-processor-5c7-x2x", "our-uid");
        let recreated = tagged("vocals-processor-5c7-old", "its-uid-before");
        let ours = group(&[&deleted, "vocals-processor-5c7-old", &recreated]);
        assert_eq!(found(&plan, ours.clone()), None);
        let GroupReading::Stable { members, .. } = ids.workers(&ours, &workload) else {
            panic!("it is stable")
        };
        let pods: Vec<_> = members.iter().map(|member| member.pod.as_str()).collect();
        let expected = [
            "vocals-processor-5c7-x2x",
            "vocals-processor-5c7-old",
            "vocals-processor-5c7-old",
        ];
        assert_eq!(pods, expected);
        assert_eq!(found(&plan, GroupReading::NotRead), None);
        assert!(ids.include_members(Some(&ours)));
        // A member without a tag may be the worker of a pool that was recreated, or another client.
        assert!(!ids.include_members(Some(&group(&["vocals-processor-5c7-old"]))));
        // A pool of this name in another cluster; one whose name begins like this role's Deployment; another role of
        // this pool in the wrong group; an unknown pod of an earlier version.
        for other in [
            &*tagged("vocals-processor-5c7-x2x", "other-cluster"),
            &*tagged("vocals-processor-processor-5c7-x2x", "another-pool"),
            &*tagged("vocals-uploader-5c7-x2x", "our-uid"),
            "vocals-processor-5c7-new",
        ] {
            let foreign = group(&[other]);
            assert!(found(&plan, foreign.clone()).is_some(), "{other}");
            assert!(!ids.include_members(Some(&foreign)), "{other}");
            let no_members = group(&[]);
            assert_eq!(ids.workers(&foreign, &workload), no_members);
        }
        let foreign = group(&["rdkafka", "rdkafka", &deleted, "b", "c", "d"]);
        let message = found(&plan, foreign.clone()).unwrap();
        assert!(
            message.contains(r#"(client ids "b", "c", "d", 1 more)"#),
            "{message}"
        );
        assert!(message.contains("create another pool"), "{message}");
        plan.processor.assignor = Assignor::Range;
        assert_eq!(found(&plan, foreign), None);
    }
}
