//! The parts of Deployments and pods that decisions and reports use; small, so that thousands fit in memory. Pure.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use separation_contract::environment::{KAFKA_ASSIGNOR, KAFKA_BOOTSTRAP_SERVERS};

use super::template::{staging, variable};
use crate::clock::WallClock;
use crate::decide::{self, CostAnnotation, PodState, PodStatus, Workload};
use crate::names::{
    CANDIDATE_COST, DELETION_COST, FIELD_MANAGER, MANIFEST_HASH, POD_TEMPLATE_HASH, POOL_LABEL, ROLE_LABEL,
    SECRETS_HASH,
};
use crate::plan::Staging;

/// The longest message from Kubernetes that is kept, in characters.
const MAX_MESSAGE_CHARS: usize = 300;

/// Time after the end of its grace period at which a pod's deletion is overdue: a kubelet takes seconds, and clocks
/// differ.
const DELETION_MARGIN: SignedDuration = SignedDuration::from_secs(60);

/// A role's Deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentSnapshot {
    /// Its resourceVersion.
    pub resource_version: Arc<str>,
    /// A hash of the set of fields that the operator owns: it changes when another field manager takes one of them.
    /// (The generation also changes with annotations that Kubernetes writes, and with fields that others add.)
    pub our_fields: Option<u64>,
    /// Uid of the pool that owns it.
    pub owner: Option<Arc<str>>,
    /// `spec.replicas`.
    pub replicas: u32,
    /// Its manifest-hash annotation, if it has one.
    pub manifest_hash: Option<Arc<str>>,
    /// The hash of the Secrets' contents in its pod template.
    pub secrets_hash: Option<Arc<str>>,
    /// Whether another field manager owns parts of its spec.
    pub is_edited: bool,
    /// The Kafka assignor in its pods' environment.
    pub assignor: Option<Arc<str>>,
    /// The bootstrap servers in its pods' environment.
    pub servers: Option<Arc<str>>,
    /// Where its pods stage songs and stems.
    pub staging: Option<Staging>,
    /// Whether a `Recreate` rollout is in progress, with old pods left.
    pub is_replacing_all: bool,
    /// Pod counts from its status; `None` before its controller first acted, when it has no pods.
    pub status: Option<PodStatus>,
    /// Why Kubernetes cannot create its pods.
    pub problem: Option<WorkloadProblem>,
}

/// A pod of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSnapshot {
    /// Its resourceVersion.
    pub resource_version: Arc<str>,
    /// The pod for decisions; `None` if it has terminated, or if no ReplicaSet of the role's Deployment controls it.
    pub pod: Option<decide::Pod>,
    /// Where it stages songs and stems.
    pub staging: Option<Staging>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// The end of its grace period, if it is being deleted.
    pub delete_by: Option<Timestamp>,
    /// Why it cannot run.
    pub problem: Option<WorkloadProblem>,
}

/// A problem that a user must fix, mostly in the words of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkloadProblem {
    /// A reason in CamelCase, such as `ImagePullBackOff`.
    pub reason: Arc<str>,
    /// The details.
    pub message: Arc<str>,
}

impl DeploymentSnapshot {
    /// Extracts the parts that are used from a Deployment.
    pub fn from_deployment(deployment: &Deployment) -> Self {
        let metadata = &deployment.metadata;
        let annotations = metadata.annotations.as_ref();
        let hash = annotations.and_then(|annotations| annotations.get(MANIFEST_HASH));
        let pod = deployment.spec.template.spec.as_ref();
        let variable = |name: &str| -> Option<Arc<str>> { Some(variable(pod?, name)?.into()) };
        Self {
            resource_version: resource_version(metadata),
            our_fields: our_fields(metadata),
            owner: controller_uid(metadata).map(Into::into),
            // The API server defaults to 1.
            replicas: u32::try_from(deployment.spec.replicas.unwrap_or(1)).unwrap_or(0),
            manifest_hash: hash.map(|hash| hash.as_str().into()),
            secrets_hash: secrets_hash(deployment).map(Into::into),
            is_edited: metadata.managed_fields.iter().flatten().any(owns_spec_fields),
            assignor: variable(KAFKA_ASSIGNOR),
            servers: variable(KAFKA_BOOTSTRAP_SERVERS),
            staging: pod.and_then(staging),
            is_replacing_all: is_replacing_all(deployment),
            status: pod_status(deployment),
            problem: deployment_problem(deployment),
        }
    }
}

impl PodSnapshot {
    /// Extracts the parts that are used from a pod; `None` without a name.
    pub fn from_pod(pod: &Pod) -> Option<(decide::PodName, Self)> {
        let name: decide::PodName = pod.metadata.name.as_deref()?.into();
        let replica_set = replica_set(&pod.metadata);
        let state = state(pod).filter(|_| replica_set.is_some());
        let snapshot = state.zip(replica_set).map(|(state, replica_set)| decide::Pod {
            name: name.clone(),
            state,
            cost_annotation: cost_annotation(pod),
            replica_set: replica_set.into(),
            // Known with the time of the decision.
            created: None,
        });
        let created = pod.metadata.creation_timestamp.as_ref();
        let deleted = pod.metadata.deletion_timestamp.as_ref();
        let snapshot = Self {
            resource_version: resource_version(&pod.metadata),
            pod: snapshot,
            staging: pod.spec.as_ref().and_then(staging),
            created: created.map(|time| time.0),
            delete_by: deleted.map(|time| time.0),
            problem: state
                .filter(|state| state.is_live())
                .and_then(|_| pod_problem(pod)),
        };
        Some((name, snapshot))
    }

    fn is_overdue(&self, now: Timestamp) -> bool {
        let overdue = |by: Timestamp| now.duration_since(by) > DELETION_MARGIN;
        self.pod.is_some() && self.delete_by.is_some_and(overdue)
    }

    /// The pod for a decision now.
    fn at(&self, now: WallClock) -> Option<decide::Pod> {
        let mut pod = self.pod.clone()?;
        if self.is_overdue(now.time()) {
            pod.state = PodState::Overdue;
        }
        pod.created = self.created.map(|created| now.moment(created));
        Some(pod)
    }
}

/// A role's workload: its Deployment, if there is one, and the pods of its ReplicaSets.
pub fn workload<'a>(
    deployment: Option<&DeploymentSnapshot>,
    pods: impl IntoIterator<Item = &'a PodSnapshot>,
    now: WallClock,
) -> Workload {
    Workload {
        replicas: deployment.map_or(0, |deployment| deployment.replicas),
        pods: pods.into_iter().filter_map(|pod| pod.at(now)).collect(),
        status: deployment.and_then(|deployment| deployment.status),
    }
}

/// The name of the ReplicaSet that controls a pod; `None` if it does not belong to the role's Deployment. A ReplicaSet
/// is named after its Deployment and the hash of the pod template, which each of its pods carries as a label.
fn replica_set(metadata: &ObjectMeta) -> Option<&str> {
    let labels = metadata.labels.as_ref()?;
    let (pool, role) = (labels.get(POOL_LABEL)?, labels.get(ROLE_LABEL)?);
    let hash = labels.get(POD_TEMPLATE_HASH)?;
    let mut owners = metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true) && owner.kind == "ReplicaSet")?;
    (owner.name == format!("{pool}-{role}-{hash}")).then_some(&owner.name)
}

fn pod_status(deployment: &Deployment) -> Option<PodStatus> {
    let status = deployment.status.as_ref()?;
    let observed = status.observed_generation?;
    let count = |count: Option<i32>| u32::try_from(count.unwrap_or(0)).unwrap_or(0);
    Some(PodStatus {
        observed: Some(observed) >= deployment.metadata.generation,
        replicas: count(status.replicas),
        updated: count(status.updated_replicas),
    })
}

/// Uid of an object's controller owner: for a worker Deployment, its pool.
pub fn controller_uid(metadata: &ObjectMeta) -> Option<&str> {
    Some(&controller(metadata)?.uid)
}

/// The controller owner of an object.
pub(super) fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true))
}

pub(super) fn resource_version(metadata: &ObjectMeta) -> Arc<str> {
    metadata.resource_version.as_deref().unwrap_or_default().into()
}

pub(super) fn our_fields(metadata: &ObjectMeta) -> Option<u64> {
    let entry = metadata
        .managed_fields
        .iter()
        .flatten()
        .find(|entry| is_ours(entry))?;
    let mut hasher = DefaultHasher::new();
    entry.fields_v1.as_ref()?.0.to_string().hash(&mut hasher);
    Some(hasher.finish())
}

fn is_ours(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
}

/// Whether another field manager owns fields of the spec.
pub(super) fn owns_spec_fields(entry: &ManagedFieldsEntry) -> bool {
    let fields = entry.fields_v1.as_ref();
    !is_ours(entry) && fields.is_some_and(|fields| fields.0.get("f:spec").is_some())
}

fn secrets_hash(deployment: &Deployment) -> Option<&str> {
    let metadata = deployment.spec.template.metadata.as_ref()?;
    Some(metadata.annotations.as_ref()?.get(SECRETS_HASH)?)
}

fn is_replacing_all(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref();
    let recreates = strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate"));
    let Some(status) = &deployment.status else {
        return recreates;
    };
    let unobserved = status.observed_generation < deployment.metadata.generation;
    let old = status.replicas.unwrap_or(0) > status.updated_replicas.unwrap_or(0);
    recreates && (unobserved || old || status.terminating_replicas.unwrap_or(0) > 0)
}

fn deployment_problem(deployment: &Deployment) -> Option<WorkloadProblem> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failing = conditions.iter().find(|condition| {
        let status = condition.status.as_deref();
        match condition.type_.as_deref() {
            // For example, a quota or admission policy rejects its pods.
            Some("ReplicaFailure") => status == Some("True"),
            Some("Progressing") => status == Some("False"),
            _ => false,
        }
    })?;
    let reason = failing.reason.as_deref().unwrap_or("Failing");
    Some(WorkloadProblem::new(reason, failing.message.as_deref()))
}

/// The state of a pod; `None` if it has terminated.
fn state(pod: &Pod) -> Option<PodState> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(PodState::Draining);
    }
    if unschedulable(pod).is_some() {
        return Some(PodState::Unschedulable);
    }
    let ready = condition(pod, "Ready").is_some_and(|condition| condition.status == "True");
    Some(if ready {
        PodState::Ready
    } else {
        PodState::NotReady
    })
}

fn unschedulable(pod: &Pod) -> Option<&PodCondition> {
    condition(pod, "PodScheduled").filter(|condition| {
        condition.status == "False" && condition.reason.as_deref() == Some("Unschedulable")
    })
}

fn cost_annotation(pod: &Pod) -> CostAnnotation {
    let annotations = pod.metadata.annotations.as_ref();
    let cost = annotations.and_then(|annotations| annotations.get(DELETION_COST));
    if cost.is_some_and(|cost| cost == CANDIDATE_COST) {
        CostAnnotation::Present
    } else {
        CostAnnotation::Absent
    }
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

fn pod_problem(pod: &Pod) -> Option<WorkloadProblem> {
    if let Some(condition) = unschedulable(pod) {
        return Some(WorkloadProblem::new(
            "Unschedulable",
            condition.message.as_deref(),
        ));
    }
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().flatten();
    containers
        .chain(status.container_statuses.iter().flatten())
        .find_map(container_problem)
}

/// Why a container is waiting, unless it is starting normally.
fn container_problem(container: &ContainerStatus) -> Option<WorkloadProblem> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    (!matches!(reason, "ContainerCreating" | "PodInitializing"))
        .then(|| WorkloadProblem::new(reason, waiting.message.as_deref()))
}

impl WorkloadProblem {
    /// Truncates the message to 300 characters.
    pub fn new(reason: &str, message: Option<&str>) -> Self {
        let message: String = message
            .unwrap_or_default()
            .chars()
            .take(MAX_MESSAGE_CHARS)
            .collect();
        Self {
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// The problem to report for pods whose deletion is overdue.
pub fn stuck_terminating(workload: &Workload) -> Option<WorkloadProblem> {
    let pods = workload.pods.iter().filter(|pod| pod.state == PodState::Overdue);
    let names: Vec<&str> = pods.map(|pod| pod.name.as_str()).collect();
    let first = names.first()?;
    let message = format!(
        "{} pods are terminating past their grace period, for example {first}: their node may be down; fix: check the \
         node, and delete the pod with --force only once the node is known to be off",
        names.len()
    );
    Some(WorkloadProblem::new("PodsStuckTerminating", Some(&message)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::decide::Moment;

    /// A pod of a Deployment's ReplicaSet, with changes.
    fn pod(change: &Value) -> Pod {
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true, "uid": "1",
                           "name": "vocals-processor-5c7"});
        let labels = json!({"separation.dev/pool": "vocals", "separation.dev/role": "processor",
                            "pod-template-hash": "5c7"});
        let mut pod = json!({"metadata": {"name": "p", "labels": labels, "ownerReferences": [owner]},
                             "spec": {"containers": []}});
        for part in ["metadata", "status"] {
            for (name, value) in change[part].as_object().into_iter().flatten() {
                pod[part][name] = value.clone();
            }
        }
        serde_json::from_value(pod).expect("a pod")
    }

    fn timestamp(time: &str) -> Timestamp {
        time.parse().expect("a time")
    }

    fn at(time: &str) -> WallClock {
        WallClock::new(Moment::from_millis(60_000), timestamp(time))
    }

    #[test]
    fn only_pods_of_a_replica_set_of_the_roles_deployment_count() {
        let snapshot = |change: Value| {
            let (_, snapshot) = PodSnapshot::from_pod(&pod(&change)).expect("a name");
            workload(None, [&snapshot], at("2026-01-01T00:00:00Z")).pods
        };
        let of_ours = snapshot(json!({}));
        assert_eq!(&*of_ours[0].replica_set, "vocals-processor-5c7");
        let owner = |kind: &str, name: &str, controls: bool| {
            json!({"metadata": {"ownerReferences": [
                {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "1", "controller": controls}
            ]}})
        };
        for stray in [
            json!({"metadata": {"ownerReferences": null}}),
            json!({"metadata": {"labels": {"separation.dev/pool": "vocals", "separation.dev/role": "processor"}}}),
            owner("ReplicaSet", "other-5c7", true),
            owner("ReplicaSet", "vocals-processor-5c7", false),
            owner("Job", "vocals-processor-5c7", true),
        ] {
            assert_eq!(snapshot(stray), []);
        }
    }

    #[test]
    fn a_pod_is_overdue_a_minute_after_the_end_of_its_grace_period() {
        let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:10:00Z"}});
        let (_, snapshot) = PodSnapshot::from_pod(&pod(&deleted)).expect("a name");
        let state = |time: &str| workload(None, [&snapshot], at(time)).pods[0].state;
        assert_eq!(state("2026-01-01T00:00:00Z"), PodState::Draining);
        assert_eq!(state("2026-01-01T00:11:00Z"), PodState::Draining);
        assert_eq!(state("2026-01-01T00:11:01Z"), PodState::Overdue);
        let (_, live) = PodSnapshot::from_pod(&pod(&json!({}))).expect("a name");
        assert!(!live.is_overdue(timestamp("2027-01-01T00:00:00Z")));
    }

    #[test]
    fn a_pod_has_the_moment_of_its_creation_and_no_later_one_than_now() {
        let created = json!({"metadata": {"creationTimestamp": "2026-01-01T00:10:00Z"}});
        let (_, snapshot) = PodSnapshot::from_pod(&pod(&created)).expect("a name");
        let moment = |time: &str| workload(None, [&snapshot], at(time)).pods[0].created;
        assert_eq!(moment("2026-01-01T00:10:20Z"), Some(Moment::from_millis(40_000)));
        let clock_is_ahead = moment("2026-01-01T00:09:00Z");
        assert_eq!(clock_is_ahead, Some(Moment::from_millis(60_000)));
    }

    fn conditions(type_: &str, status: &str, reason: &str) -> Value {
        json!({"phase": "Pending", "conditions": [{"type": type_, "status": status, "reason": reason}]})
    }

    #[track_caller]
    fn check(change: &Value, expected: Option<PodState>) {
        let (_, snapshot) = PodSnapshot::from_pod(&pod(change)).expect("a name");
        assert_eq!(snapshot.pod.map(|pod| pod.state), expected);
    }

    #[test]
    fn pods_are_classified_by_their_state() {
        check(&json!({}), Some(PodState::NotReady));
        check(
            &json!({"status": conditions("Ready", "True", "")}),
            Some(PodState::Ready),
        );
        check(
            &json!({"status": conditions("Ready", "False", "")}),
            Some(PodState::NotReady),
        );
        let unschedulable = conditions("PodScheduled", "False", "Unschedulable");
        check(&json!({"status": unschedulable}), Some(PodState::Unschedulable));
        let gated = conditions("PodScheduled", "False", "SchedulingGated");
        check(&json!({"status": gated}), Some(PodState::NotReady));
        let deleted = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        check(
            &json!({"metadata": deleted, "status": conditions("Ready", "True", "")}),
            Some(PodState::Draining),
        );
        check(
            &json!({"metadata": deleted, "status": {"phase": "Succeeded"}}),
            None,
        );
        check(&json!({"status": {"phase": "Failed"}}), None);
    }

    #[test]
    fn only_the_operators_deletion_cost_makes_a_candidate() {
        let costs = [
            (CANDIDATE_COST, CostAnnotation::Present),
            ("5", CostAnnotation::Absent),
            ("-1", CostAnnotation::Absent),
        ];
        for (cost, expected) in costs {
            let pod = pod(&json!({"metadata": {"annotations": {DELETION_COST: cost}}}));
            let (_, snapshot) = PodSnapshot::from_pod(&pod).expect("a name");
            assert_eq!(
                workload(None, [&snapshot], at("2026-01-01T00:00:00Z")).pods[0].cost_annotation,
                expected
            );
        }
    }

    #[test]
    fn replicas_are_those_of_the_spec_and_0_without_a_deployment() {
        let replicas = |deployment: Option<&DeploymentSnapshot>| {
            workload(deployment, [], at("2026-01-01T00:00:00Z")).replicas
        };
        assert_eq!(replicas(None), 0);
        let deployment = |replicas: Value| {
            let deployment =
                json!({"metadata": {}, "spec": {"replicas": replicas, "selector": {}, "template": {}}});
            DeploymentSnapshot::from_deployment(&serde_json::from_value(deployment).expect("a deployment"))
        };
        assert_eq!(replicas(Some(&deployment(json!(7)))), 7);
        assert_eq!(replicas(Some(&deployment(Value::Null))), 1);
    }

    #[test]
    fn a_status_of_an_older_generation_is_not_observed() {
        let status = |generation: i64, observed: i64| {
            let status = json!({"observedGeneration": observed, "replicas": 8, "updatedReplicas": 2});
            snapshot(json!({"metadata": {"generation": generation}, "status": status})).status
        };
        let expected = |observed| {
            Some(PodStatus {
                observed,
                replicas: 8,
                updated: 2,
            })
        };
        assert_eq!(status(3, 3), expected(true));
        assert_eq!(status(3, 2), expected(false));
        assert_eq!(snapshot(json!({"metadata": {"generation": 1}})).status, None);
    }

    fn snapshot(deployment: Value) -> DeploymentSnapshot {
        let mut base = json!({"metadata": {"name": "d"}, "spec": {"selector": {}, "template": {}}});
        k8s_openapi::DeepMerge::merge_from(&mut base, deployment);
        DeploymentSnapshot::from_deployment(&serde_json::from_value(base).expect("a deployment"))
    }

    #[test]
    fn a_spec_that_another_field_manager_wrote_is_edited() {
        let entry = |manager: &str, operation: &str, fields: Value| {
            let entry = json!({"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": fields});
            snapshot(json!({"metadata": {"managedFields": [entry]}})).is_edited
        };
        let replicas = json!({"f:spec": {"f:replicas": {}}});
        assert!(!entry(FIELD_MANAGER, "Apply", replicas.clone()));
        assert!(entry(FIELD_MANAGER, "Update", replicas.clone()));
        assert!(entry("kubectl-edit", "Update", replicas));
        assert!(!entry(
            "kube-controller-manager",
            "Update",
            json!({"f:status": {}})
        ));
    }

    #[test]
    fn a_field_taken_by_another_field_manager_changes_our_fields_and_an_added_field_does_not() {
        let fields = |ours: Value, theirs: Value| {
            let entry = |manager: &str, operation: &str, fields: Value| json!({"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": fields});
            let entries = [
                entry("kubectl", "Update", theirs),
                entry(FIELD_MANAGER, "Apply", ours),
            ];
            snapshot(json!({"metadata": {"managedFields": entries}})).our_fields
        };
        let ours = json!({"f:spec": {"f:replicas": {}, "f:template": {}}});
        let added = json!({"f:spec": {"f:minReadySeconds": {}}});
        let before = fields(ours.clone(), json!({}));
        assert!(before.is_some());
        assert_eq!(before, fields(ours, added));
        let taken = json!({"f:spec": {"f:template": {}}});
        assert_ne!(before, fields(taken, json!({"f:spec": {"f:replicas": {}}})));
        assert_eq!(snapshot(json!({})).our_fields, None);
    }

    #[test]
    fn problems_of_pods_and_deployments_have_the_reasons_of_kubernetes() {
        let waiting = |reason: &str| {
            let state = json!({"waiting": {"reason": reason, "message": "secret \"s3\" not found"}});
            let container = json!({"name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
            let pod = pod(&json!({"status": {"phase": "Pending", "containerStatuses": [container]}}));
            PodSnapshot::from_pod(&pod)
                .expect("a name")
                .1
                .problem
                .map(|problem| problem.reason)
        };
        assert_eq!(waiting("ContainerCreating"), None);
        let expected = Some("CreateContainerConfigError".into());
        assert_eq!(waiting("CreateContainerConfigError"), expected);
        let failing = json!({"status": {"conditions": [
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
        ]}});
        let problem = snapshot(failing).problem.expect("a problem");
        assert_eq!(
            (&*problem.reason, &*problem.message),
            ("FailedCreate", "exceeded quota")
        );
    }
}
