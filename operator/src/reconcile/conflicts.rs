//! Who else takes from a role's group: other pools, and members that are no pods of ours. Pure.
//!
//! Of two pools that share a group the older one goes on, and the others are held: a copy that was made by mistake must not
//! stop a pool that works.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::apply::deployment_name;
use crate::decide::{GroupReading, PodName};
use crate::plan::{PoolId, PoolPlan, Role};
use crate::watch::world::{PoolSeen, RoleKey};
use separation_contract::kafka::Assignor;

/// How many foreign members are named.
const NAMED: usize = 3;

/// The roles that are held because an older pool has their group, and what is said about each.
pub(super) fn shared_groups<'a>(
    pools: impl IntoIterator<Item = (&'a Arc<PoolId>, &'a PoolSeen)>,
) -> HashMap<RoleKey, Arc<str>> {
    // By servers and group: who uses it, and since when.
    let mut users: HashMap<_, Vec<(Option<&Time>, RoleKey)>> = HashMap::new();
    for (id, pool) in pools {
        let Ok(plan) = &pool.plan else { continue };
        for role in Role::ALL {
            let of_role = plan.role(role);
            if of_role.enabled {
                let key = RoleKey {
                    pool: Arc::clone(id),
                    role,
                };
                users
                    .entry((servers(plan), of_role.group.as_str()))
                    .or_default()
                    .push((pool.created.as_ref(), key));
            }
        }
    }
    let mut held = HashMap::new();
    for ((_, group), mut users) in users {
        users.sort_unstable_by(|a, b| (a.0.map(|time| time.0), &a.1).cmp(&(b.0.map(|time| time.0), &b.1)));
        let mut users = users.into_iter().map(|(_, key)| key);
        let Some(first) = users.next() else { continue };
        for key in users {
            let why = format!(
                "group {group} belongs to SeparationPool {}, its {}, which is older; fix: delete one of the pools, and \
                 create another pool with a group and a topic of its own for its {}: both are immutable",
                first.pool, first.role, key.role
            );
            held.insert(key, why.into());
        }
    }
    held
}

/// The servers of a plan, in one order.
fn servers(plan: &PoolPlan) -> Vec<&str> {
    let mut servers: Vec<&str> = plan.kafka.bootstrap_servers.split(',').map(str::trim).collect();
    servers.sort_unstable();
    servers
}

/// What is said about members that are no pods of a role. With the `range` assignor they are expected: it is there for
/// moving over from another system, one member at a time.
pub(super) fn foreign_members(
    plan: &PoolPlan,
    role: Role,
    group: Option<&GroupReading>,
    is_pod: impl Fn(&PodName) -> bool,
) -> Option<Arc<str>> {
    let of_role = plan.role(role);
    let Some(GroupReading::Stable { members, .. }) = group else {
        return None;
    };
    if of_role.assignor == Assignor::Range {
        return None;
    }
    // A pod that is gone stays a member until its session ends.
    let prefix = format!("{}-", deployment_name(&plan.id, role));
    let ours = |name: &PodName| is_pod(name) || name.as_str().starts_with(&prefix);
    let mut foreign: BTreeMap<&PodName, usize> = BTreeMap::new();
    for member in members.iter().filter(|member| !ours(&member.pod)) {
        *foreign.entry(&member.pod).or_default() += 1;
    }
    if foreign.is_empty() {
        return None;
    }
    let mut names: Vec<String> = foreign
        .keys()
        .take(NAMED)
        .map(|name| format!("{name:?}", name = name.as_str()))
        .collect();
    if foreign.len() > NAMED {
        names.push(format!("{} more", foreign.len() - NAMED));
    }
    Some(
        format!(
            "group {} has members that are no pods of this pool (client ids {}); fix: stop them, create another pool with a \
             group of its own (the group is immutable) and delete this one, or set {role}.assignor to range while migrating",
            of_role.group,
            names.join(", ")
        )
        .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::from_yaml;
    use crate::decide::{Holds, Member, Moment};
    use crate::watch::pool_seen;
    use kube::core::DeserializeGuard;

    fn pool(namespace: &str, created: &str, servers: &str, group: &str) -> (Arc<PoolId>, PoolSeen) {
        let yaml = format!(
            "
apiVersion: separation.dev/v1alpha1
kind: SeparationPool
metadata: {{name: vocals, namespace: {namespace}, uid: {namespace}, creationTimestamp: '{created}'}}
spec:
  kafka: {{bootstrapServers: '{servers}'}}
  storage: {{s3: {{bucket: stems}}, work: {{s3Prefix: staging/}}}}
  processor: {{group: {group}}}
  uploader: {{group: '{namespace}-uploaders'}}
"
        );
        pool_seen(&DeserializeGuard(Ok(from_yaml(&yaml).unwrap())))
    }

    #[track_caller]
    fn check(pools: &[(Arc<PoolId>, PoolSeen)], held: &[&str]) {
        let found = shared_groups(pools.iter().map(|(id, pool)| (id, pool)));
        let mut names: Vec<String> = found.keys().map(ToString::to_string).collect();
        names.sort();
        assert_eq!(names, held);
    }

    #[test]
    fn of_pools_that_share_a_group_the_older_one_goes_on() {
        let old = pool("z-old", "2026-01-01T00:00:00Z", "b:1, a:1", "separators");
        let copy = pool("a-copy", "2026-02-01T00:00:00Z", "a:1,b:1", "separators");
        check(&[old.clone(), copy.clone()], &["a-copy/vocals processor"]);
        let found = shared_groups([(&old.0, &old.1), (&copy.0, &copy.1)]);
        let said = found.values().next().unwrap();
        assert!(said.starts_with("group separators belongs to SeparationPool z-old/vocals, its processor"));
        // A pool's group and topic are immutable: the fix must be possible.
        assert!(said.contains("create another pool"), "{said}");
    }

    #[test]
    fn other_groups_and_other_clusters_do_not_conflict() {
        let one = pool("one", "2026-01-01T00:00:00Z", "a:1", "separators");
        check(
            &[one.clone(), pool("two", "2026-02-01T00:00:00Z", "a:1", "others")],
            &[],
        );
        check(
            &[
                one,
                pool("three", "2026-02-01T00:00:00Z", "elsewhere:1", "separators"),
            ],
            &[],
        );
    }

    #[test]
    fn members_that_are_no_pods_are_named_unless_the_pool_is_moving_over() {
        let (_, seen) = pool("one", "2026-01-01T00:00:00Z", "a:1", "separators");
        let mut plan = PoolPlan::clone(seen.plan.as_ref().unwrap());
        let group = |names: &[&str]| GroupReading::Stable {
            at: Moment::default(),
            members: names
                .iter()
                .map(|name| Member {
                    pod: (*name).into(),
                    holds: Holds::Partitions(vec![]),
                })
                .collect(),
        };
        let found = |plan: &PoolPlan, group: GroupReading| {
            foreign_members(plan, Role::Processor, Some(&group), |name| {
                name.as_str() == "renamed"
            })
        };
        assert_eq!(
            found(&plan, group(&["vocals-processor-5c7-x2x", "renamed"])),
            None
        );
        assert_eq!(found(&plan, GroupReading::NotRead), None);
        let foreign = group(&["rdkafka", "rdkafka", "vocals-processor-1", "b", "c", "d"]);
        let said = found(&plan, foreign.clone()).unwrap();
        assert!(said.contains(r#"(client ids "b", "c", "d", 1 more)"#), "{said}");
        assert!(said.contains("create another pool"), "{said}");
        plan.processor.assignor = Assignor::Range;
        assert_eq!(found(&plan, foreign), None);
    }
}
