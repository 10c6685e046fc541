//! Whether the pool's credentials suffice for its topics and groups, and whether other clients are members of the groups.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use separation_contract::check::{CheckResult, Finding};
use separation_kafka::{Cluster, Deadline, NeededTopic, Operation, ReadError, ReadErrorKind, check_access};
use separation_operator::decide::Moment;
use separation_operator::names::{POOL_LABEL, ROLE_LABEL};
use separation_operator::observe::{WorkloadTokens, cluster_settings, read_groups};
use separation_operator::plan::{PoolPlan, Role, SecretKey};
use separation_operator::reconcile::{WorkerIds, foreign_members};
use separation_operator::watch::cache::RoleKey;

use super::secrets::SecretTexts;

/// Time limit of the requests about one pool.
const LIMIT: Duration = Duration::from_secs(15);

/// Where brokers are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// From this process only.
    ThisProcess,
    /// From pods of the cluster as well, so that brokers need not be reachable from here.
    Cluster,
}

/// Checks the connection, topics, rights and members of a pool's enabled roles.
pub(super) async fn check(
    client: &Client,
    plan: &PoolPlan,
    uid: &str,
    secrets: &SecretTexts,
    reach: Reach,
) -> Vec<Finding> {
    let cluster = match connection(plan, secrets) {
        Ok(cluster) => cluster,
        Err(finding) => return vec![finding],
    };
    let deadline = Deadline::after(LIMIT);
    let servers = &plan.kafka.bootstrap_servers;
    let topics = needed_topics(plan);
    let topics: Vec<_> = topics.iter().map(Needed::topic).collect();
    let roles = enabled_roles(plan);
    let groups: Vec<Arc<str>> = roles
        .iter()
        .map(|role| plan.role(*role).group.as_str().into())
        .collect();
    let mut findings = match check_access(&cluster, servers, &topics, &groups, &deadline).await {
        Ok(findings) => findings,
        Err(why) => return vec![no_connection(servers, &why, reach)],
    };
    for role in roles {
        findings.extend(members(client, &cluster, plan, uid, role, &deadline).await);
    }
    findings
}

/// Brokers that do not answer may still be reachable from pods.
fn no_connection(servers: &str, why: &ReadError, reach: Reach) -> Finding {
    let text = format!("{servers}: {why}");
    let unreachable = matches!(why.kind, ReadErrorKind::Unreachable | ReadErrorKind::TimedOut);
    match reach {
        Reach::Cluster if unreachable => Finding::warning("kafka", text),
        Reach::ThisProcess if unreachable => {
            let hint = "; if only pods of the cluster can reach the brokers, use --in-cluster";
            Finding::problem("kafka", text + hint)
        }
        _ => Finding::problem("kafka", text),
    }
}

/// A connection with the pool's credentials; without one, the finding that explains it.
fn connection(plan: &PoolPlan, secrets: &SecretTexts) -> Result<Cluster, Finding> {
    if !secrets.contain(&plan.kafka.secret_keys()) {
        let text = "not checked, because its credentials are not readable: see the findings of secrets";
        return Err(Finding::warning("kafka", text));
    }
    let secret = |key: &SecretKey| secrets.get(key);
    let settings =
        cluster_settings(&plan.kafka, &plan.id, secret, &WorkloadTokens::None).map_err(|_| {
            let text = "not checked from here, because the workers authenticate with the identity of their pods; fix: use \
                        --in-cluster";
            Finding::warning("kafka", text)
        })?;
    Cluster::new(&settings).map_err(|why| Finding::problem("kafka", why.to_string()))
}

fn enabled_roles(plan: &PoolPlan) -> Vec<Role> {
    let roles = Role::ALL.into_iter();
    roles.filter(|role| plan.role(*role).enabled).collect()
}

/// The use of a topic by the workers and the API of a pool.
#[derive(Debug, PartialEq, Eq)]
struct Needed<'a> {
    name: &'a str,
    operations: Vec<Operation>,
    consumers: usize,
    if_missing: CheckResult,
}

impl Needed<'_> {
    fn topic(&self) -> NeededTopic<'_> {
        NeededTopic {
            name: self.name,
            operations: &self.operations,
            consumers: self.consumers,
            if_missing: self.if_missing,
        }
    }
}

fn needed_topics(plan: &PoolPlan) -> Vec<Needed<'_>> {
    let mut consumed = BTreeMap::new();
    let mut dead_letters = Vec::new();
    for role in enabled_roles(plan) {
        let role_plan = plan.role(role);
        let mut operations = vec![Operation::Read];
        // Workers publish a task again that failed with a transient error.
        if role_plan.max_retries > 0 {
            operations.push(Operation::Write);
        }
        let consumers = usize::try_from(role_plan.policy.limits.max()).unwrap_or(usize::MAX);
        consumed.insert(role_plan.topic.as_str(), (operations, consumers));
        dead_letters.push(Needed {
            name: &role_plan.dead_letter_topic,
            operations: vec![Operation::Write],
            consumers: 0,
            // Workers create it if they may.
            if_missing: CheckResult::Warning,
        });
    }
    let published = [
        (plan.processor.enabled, &plan.uploader.topic),
        (plan.api.is_some(), &plan.processor.topic),
    ];
    for (_, topic) in published.into_iter().filter(|(is_used, _)| *is_used) {
        let (operations, _) = consumed.entry(topic.as_str()).or_default();
        if !operations.contains(&Operation::Write) {
            operations.push(Operation::Write);
        }
    }
    let consumed = consumed
        .into_iter()
        .map(|(name, (operations, consumers))| Needed {
            name,
            operations,
            consumers,
            if_missing: CheckResult::Problem,
        });
    consumed.chain(dead_letters).collect()
}

/// Members of a role's group that are not its workers.
async fn members(
    client: &Client,
    cluster: &Cluster,
    plan: &PoolPlan,
    uid: &str,
    role: Role,
    deadline: &Deadline,
) -> Option<Finding> {
    let role_plan = plan.role(role);
    let group = (role_plan.group.as_str().into(), role_plan.topic.as_str().into());
    let readings = read_groups(cluster, &[group], Moment::default(), deadline).await;
    let key = RoleKey {
        pool: Arc::new(plan.id.clone()),
        role,
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &plan.id.namespace);
    let name = &plan.id.name;
    let selector = ListParams::default().labels(&format!("{POOL_LABEL}={name},{ROLE_LABEL}={role}"));
    // Without the right to list pods, workers are recognized by the pool's tag in their client ids.
    let pods = pods
        .list(&selector)
        .await
        .map(|pods| pods.items)
        .unwrap_or_default();
    let names: HashSet<&str> = pods
        .iter()
        .filter_map(|pod| pod.metadata.name.as_deref())
        .collect();
    let ids = WorkerIds::new(&key, uid);
    let foreign = foreign_members(plan, role, readings.first(), &ids, &names)?;
    Some(Finding::problem("members", foreign))
}

#[cfg(test)]
mod tests {
    use separation_operator::crd::from_yaml;

    use super::*;

    fn plan(more: &str) -> PoolPlan {
        let pool = format!(
            "
apiVersion: separation.dev/v1beta1
kind: SeparationPool
metadata: {{name: vocals, namespace: media}}
spec:
  kafka: {{bootstrapServers: 'k:1'}}
  storage: {{stems: {{bucket: stems}}, staging: {{s3: {{}}}}}}
{more}
"
        );
        PoolPlan::from_pool(&from_yaml(&pool).unwrap()).unwrap()
    }

    /// The operations of each topic.
    fn operations(plan: &PoolPlan) -> Vec<(&str, Vec<Operation>, usize)> {
        let topics = needed_topics(plan).into_iter();
        topics
            .map(|topic| (topic.name, topic.operations, topic.consumers))
            .collect()
    }

    #[test]
    fn topics_need_the_operations_of_all_roles_and_a_partition_for_each_replica() {
        let found = plan(
            "
  processor: {scaling: {maxReplicas: 5}}
  uploader: {scaling: {maxReplicas: 2}}
",
        );
        let (read, write) = (Operation::Read, Operation::Write);
        for (name, operations, consumers) in operations(&found) {
            match name {
                "uvr_tasks" => assert!(operations == [read] && consumers == 5),
                "uvr_results" => assert!(operations == [read, write] && consumers == 2),
                _ => assert!(name.ends_with("_dead_letters") && operations == [write] && consumers == 0),
            }
        }
        let alone = plan("  uploader: {enabled: false}");
        let alone = operations(&alone);
        // The processor publishes results even if another program consumes them.
        assert!(alone.contains(&("uvr_results", vec![write], 0)), "{alone:?}");
    }
}
