//! Deployments and pods, as decisions and reports see them: the little of them that matters, so that thousands fit. Pure.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use separation_contract::environment::{KAFKA_ASSIGNOR, KAFKA_BOOTSTRAP_SERVERS};

use crate::decide::{self, Marked, PodState, PodStatus, Workload};
use crate::names::{
    DELETION_COST, FIELD_MANAGER, MANIFEST_HASH, MARKED_COST, POD_TEMPLATE_HASH, POOL_LABEL, ROLE_LABEL,
    SECRETS_HASH,
};

/// How much of a message from Kubernetes is kept, in characters: status is no place for a log.
const LONGEST_MESSAGE: usize = 300;

/// How long after the end of its grace period a pod's deletion is overdue: a kubelet takes seconds, and clocks differ.
const DELETION_MARGIN: SignedDuration = SignedDuration::from_secs(60);

/// A role's Deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentSeen {
    /// Its version, as writes give it back.
    pub resource_version: Arc<str>,
    /// Which of its fields are ours, as a hash: another one once somebody else wrote to one of them. (The generation also
    /// changes with annotations, which Kubernetes itself writes, and with fields that others add.)
    pub our_fields: Option<u64>,
    /// Uid of the pool that owns it.
    pub owner: Option<Arc<str>>,
    /// Replicas that are asked for.
    pub replicas: u32,
    /// What its manifest was made of, where we wrote it.
    pub manifest_hash: Option<Arc<str>>,
    /// The hash of the Secrets' contents in its pod template.
    pub secrets_hash: Option<Arc<str>>,
    /// Whether somebody else wrote parts of its spec.
    pub is_edited: bool,
    /// The assignor that its pods are told.
    pub assignor: Option<Arc<str>>,
    /// The brokers that its pods connect to first.
    pub servers: Option<Arc<str>>,
    /// Whether all pods are being replaced at once, and some old ones are still there.
    pub is_replacing_all: bool,
    /// What its status reports of its pods; none before its controller has acted for the first time, when it has no pods.
    pub status: Option<PodStatus>,
    /// Why Kubernetes cannot make its pods.
    pub trouble: Option<Trouble>,
}

/// A pod of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSeen {
    /// Its version, as writes give it back.
    pub resource_version: Arc<str>,
    /// What decisions see of it; none for one that has ended and is only remembered, and for one that no ReplicaSet of
    /// the role's Deployment controls.
    pub pod: Option<decide::Pod>,
    /// When it must be gone, for one that is being deleted: the end of its grace period.
    pub delete_by: Option<Timestamp>,
    /// Why it does not work.
    pub trouble: Option<Trouble>,
}

/// Something in the cluster that a person must look at, in the cluster's words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trouble {
    /// One word, as `ImagePullBackOff`.
    pub reason: Arc<str>,
    /// More of it.
    pub message: Arc<str>,
}

impl DeploymentSeen {
    /// What matters of a Deployment.
    pub fn of(deployment: &Deployment) -> Self {
        let metadata = &deployment.metadata;
        let annotations = metadata.annotations.as_ref();
        let hash = annotations.and_then(|annotations| annotations.get(MANIFEST_HASH));
        Self {
            resource_version: resource_version(metadata),
            our_fields: our_fields(metadata),
            owner: controller_uid(metadata).map(Into::into),
            // The API server fills in 1 where nothing is said.
            replicas: u32::try_from(deployment.spec.replicas.unwrap_or(1)).unwrap_or(0),
            manifest_hash: hash.map(|hash| hash.as_str().into()),
            secrets_hash: secrets_hash(deployment).map(Into::into),
            is_edited: metadata.managed_fields.iter().flatten().any(edits_spec),
            assignor: variable(deployment, KAFKA_ASSIGNOR).map(Into::into),
            servers: variable(deployment, KAFKA_BOOTSTRAP_SERVERS).map(Into::into),
            is_replacing_all: is_replacing_all(deployment),
            status: pod_status(deployment),
            trouble: deployment_trouble(deployment),
        }
    }
}

impl PodSeen {
    /// What matters of a pod; none without a name.
    pub fn of(pod: &Pod) -> Option<(decide::PodName, Self)> {
        let name: decide::PodName = pod.metadata.name.as_deref()?.into();
        let replica_set = replica_set(&pod.metadata);
        let state = state(pod).filter(|_| replica_set.is_some());
        let seen = state.zip(replica_set).map(|(state, replica_set)| decide::Pod {
            name: name.clone(),
            state,
            marked: marked(pod),
            replica_set: replica_set.into(),
        });
        let deleted = pod.metadata.deletion_timestamp.as_ref();
        let seen = Self {
            resource_version: resource_version(&pod.metadata),
            pod: seen,
            delete_by: deleted.map(|time| time.0),
            trouble: state
                .filter(|state| state.is_live())
                .and_then(|_| pod_trouble(pod)),
        };
        Some((name, seen))
    }

    /// Whether it should have been gone some time before `now`.
    fn is_overdue(&self, now: Timestamp) -> bool {
        let overdue = |by: Timestamp| now.duration_since(by) > DELETION_MARGIN;
        self.pod.is_some() && self.delete_by.is_some_and(overdue)
    }

    /// What decisions see of it at `now`.
    fn at(&self, now: Timestamp) -> Option<decide::Pod> {
        let mut pod = self.pod.clone()?;
        if self.is_overdue(now) {
            pod.state = PodState::Overdue;
        }
        Some(pod)
    }
}

/// What the cluster runs for a role: its Deployment, if there is one, and the pods of its ReplicaSets.
pub fn workload<'a>(
    deployment: Option<&DeploymentSeen>,
    pods: impl IntoIterator<Item = &'a PodSeen>,
    now: Timestamp,
) -> Workload {
    Workload {
        replicas: deployment.map_or(0, |deployment| deployment.replicas),
        pods: pods.into_iter().filter_map(|pod| pod.at(now)).collect(),
        status: deployment.and_then(|deployment| deployment.status),
    }
}

/// The name of the ReplicaSet that controls a pod; none where it is not one of the role's Deployment. A ReplicaSet is
/// named after its Deployment and the hash of the pod template, which each of its pods carries as a label.
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

/// Uid of what controls an object: for a Deployment of ours, its pool.
pub fn controller_uid(metadata: &ObjectMeta) -> Option<&str> {
    let mut owners = metadata.owner_references.iter().flatten();
    Some(&owners.find(|owner| owner.controller == Some(true))?.uid)
}

fn resource_version(metadata: &ObjectMeta) -> Arc<str> {
    metadata.resource_version.as_deref().unwrap_or_default().into()
}

fn our_fields(metadata: &ObjectMeta) -> Option<u64> {
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

/// Whether an entry is another manager's, about the spec.
fn edits_spec(entry: &ManagedFieldsEntry) -> bool {
    let fields = entry.fields_v1.as_ref();
    !is_ours(entry) && fields.is_some_and(|fields| fields.0.get("f:spec").is_some())
}

fn secrets_hash(deployment: &Deployment) -> Option<&str> {
    let metadata = deployment.spec.template.metadata.as_ref()?;
    Some(metadata.annotations.as_ref()?.get(SECRETS_HASH)?)
}

/// A variable of the environment of its pods.
fn variable<'a>(deployment: &'a Deployment, name: &str) -> Option<&'a str> {
    let pod = deployment.spec.template.spec.as_ref()?;
    let mut environment = pod
        .containers
        .iter()
        .flat_map(|container| container.env.iter().flatten());
    environment
        .find(|variable| variable.name == name)?
        .value
        .as_deref()
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

fn deployment_trouble(deployment: &Deployment) -> Option<Trouble> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failing = conditions.iter().find(|condition| {
        let status = condition.status.as_deref();
        match condition.type_.as_deref() {
            // A quota or the namespace's rules refuse its pods.
            Some("ReplicaFailure") => status == Some("True"),
            Some("Progressing") => status == Some("False"),
            _ => false,
        }
    })?;
    let reason = failing.reason.as_deref().unwrap_or("Failing");
    Some(Trouble::new(reason, failing.message.as_deref()))
}

/// What a pod is doing; none for one that has ended and is only remembered.
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

fn marked(pod: &Pod) -> Marked {
    let annotations = pod.metadata.annotations.as_ref();
    let cost = annotations.and_then(|annotations| annotations.get(DELETION_COST));
    if cost.is_some_and(|cost| cost == MARKED_COST) {
        Marked::Yes
    } else {
        Marked::No
    }
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

fn pod_trouble(pod: &Pod) -> Option<Trouble> {
    if let Some(condition) = unschedulable(pod) {
        return Some(Trouble::new("Unschedulable", condition.message.as_deref()));
    }
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().flatten();
    containers
        .chain(status.container_statuses.iter().flatten())
        .find_map(container_trouble)
}

/// Why a container waits, unless it merely starts.
fn container_trouble(container: &ContainerStatus) -> Option<Trouble> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    (!matches!(reason, "ContainerCreating" | "PodInitializing"))
        .then(|| Trouble::new(reason, waiting.message.as_deref()))
}

impl Trouble {
    /// Of a reason and what is known of it, shortened.
    pub fn new(reason: &str, message: Option<&str>) -> Self {
        let message: String = message
            .unwrap_or_default()
            .chars()
            .take(LONGEST_MESSAGE)
            .collect();
        Self {
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// What a person must know of pods that should have been gone some time ago.
pub fn stuck_terminating(workload: &Workload) -> Option<Trouble> {
    let pods = workload.pods.iter().filter(|pod| pod.state == PodState::Overdue);
    let names: Vec<&str> = pods.map(|pod| pod.name.as_str()).collect();
    let first = names.first()?;
    let message = format!(
        "{} pods have been terminating for longer than their grace period, {first} for one: their node may be dead; one that \
         is no member of the group does not count towards maxReplicas; fix: look at the node, and delete the pod with \
         --force only once the node is known to be off",
        names.len()
    );
    Some(Trouble::new("PodsStuckTerminating", Some(&message)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

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

    fn at(time: &str) -> Timestamp {
        time.parse().expect("a time")
    }

    #[test]
    fn only_pods_of_a_replica_set_of_the_roles_deployment_count() {
        let seen = |change: Value| {
            let (_, seen) = PodSeen::of(&pod(&change)).expect("a name");
            workload(None, [&seen], at("2026-01-01T00:00:00Z")).pods
        };
        let of_ours = seen(json!({}));
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
            assert_eq!(seen(stray), []);
        }
    }

    #[test]
    fn a_pod_is_overdue_a_minute_after_the_end_of_its_grace_period() {
        let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:10:00Z"}});
        let (_, seen) = PodSeen::of(&pod(&deleted)).expect("a name");
        let state = |time: &str| workload(None, [&seen], at(time)).pods[0].state;
        assert_eq!(state("2026-01-01T00:00:00Z"), PodState::Draining);
        assert_eq!(state("2026-01-01T00:11:00Z"), PodState::Draining);
        assert_eq!(state("2026-01-01T00:11:01Z"), PodState::Overdue);
        let (_, live) = PodSeen::of(&pod(&json!({}))).expect("a name");
        assert!(!live.is_overdue(at("2027-01-01T00:00:00Z")));
    }

    fn conditions(type_: &str, status: &str, reason: &str) -> Value {
        json!({"phase": "Pending", "conditions": [{"type": type_, "status": status, "reason": reason}]})
    }

    #[track_caller]
    fn check(change: &Value, expected: Option<PodState>) {
        let (_, seen) = PodSeen::of(&pod(change)).expect("a name");
        assert_eq!(seen.pod.map(|pod| pod.state), expected);
    }

    #[test]
    fn pods_are_told_apart_by_what_they_are_doing() {
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
    fn only_our_own_mark_is_a_mark() {
        let costs = [(MARKED_COST, Marked::Yes), ("5", Marked::No), ("-1", Marked::No)];
        for (cost, expected) in costs {
            let pod = pod(&json!({"metadata": {"annotations": {DELETION_COST: cost}}}));
            let (_, seen) = PodSeen::of(&pod).expect("a name");
            assert_eq!(
                workload(None, [&seen], at("2026-01-01T00:00:00Z")).pods[0].marked,
                expected
            );
        }
    }

    #[test]
    fn replicas_are_those_asked_for_and_none_without_a_deployment() {
        let replicas = |deployment: Option<&DeploymentSeen>| {
            workload(deployment, [], at("2026-01-01T00:00:00Z")).replicas
        };
        assert_eq!(replicas(None), 0);
        let deployment = |replicas: Value| {
            let deployment =
                json!({"metadata": {}, "spec": {"replicas": replicas, "selector": {}, "template": {}}});
            DeploymentSeen::of(&serde_json::from_value(deployment).expect("a deployment"))
        };
        assert_eq!(replicas(Some(&deployment(json!(7)))), 7);
        assert_eq!(replicas(Some(&deployment(Value::Null))), 1);
    }

    #[test]
    fn a_status_of_an_older_spec_is_noticed() {
        let status = |generation: i64, observed: i64| {
            let status = json!({"observedGeneration": observed, "replicas": 8, "updatedReplicas": 2});
            seen(json!({"metadata": {"generation": generation}, "status": status})).status
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
        assert_eq!(seen(json!({"metadata": {"generation": 1}})).status, None);
    }

    fn seen(deployment: Value) -> DeploymentSeen {
        let mut base = json!({"metadata": {"name": "d"}, "spec": {"selector": {}, "template": {}}});
        k8s_openapi::DeepMerge::merge_from(&mut base, deployment);
        DeploymentSeen::of(&serde_json::from_value(base).expect("a deployment"))
    }

    #[test]
    fn a_spec_that_somebody_else_wrote_is_noticed() {
        let entry = |manager: &str, operation: &str, fields: Value| {
            let entry = json!({"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": fields});
            seen(json!({"metadata": {"managedFields": [entry]}})).is_edited
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
    fn a_field_of_ours_that_somebody_else_wrote_is_noticed_and_what_they_add_is_not() {
        let fields = |ours: Value, theirs: Value| {
            let entry = |manager: &str, operation: &str, fields: Value| json!({"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": fields});
            let entries = [
                entry("kubectl", "Update", theirs),
                entry(FIELD_MANAGER, "Apply", ours),
            ];
            seen(json!({"metadata": {"managedFields": entries}})).our_fields
        };
        let ours = json!({"f:spec": {"f:replicas": {}, "f:template": {}}});
        let added = json!({"f:spec": {"f:minReadySeconds": {}}});
        let before = fields(ours.clone(), json!({}));
        assert!(before.is_some());
        assert_eq!(before, fields(ours, added));
        let taken = json!({"f:spec": {"f:template": {}}});
        assert_ne!(before, fields(taken, json!({"f:spec": {"f:replicas": {}}})));
        assert_eq!(seen(json!({})).our_fields, None);
    }

    #[test]
    fn what_keeps_pods_from_working_is_told_in_the_clusters_words() {
        let waiting = |reason: &str| {
            let state = json!({"waiting": {"reason": reason, "message": "secret \"s3\" not found"}});
            let container = json!({"name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
            let pod = pod(&json!({"status": {"phase": "Pending", "containerStatuses": [container]}}));
            PodSeen::of(&pod)
                .expect("a name")
                .1
                .trouble
                .map(|trouble| trouble.reason)
        };
        assert_eq!(waiting("ContainerCreating"), None);
        let expected = Some("CreateContainerConfigError".into());
        assert_eq!(waiting("CreateContainerConfigError"), expected);
        let failing = json!({"status": {"conditions": [
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
        ]}});
        let trouble = seen(failing).trouble.expect("trouble");
        assert_eq!(
            (&*trouble.reason, &*trouble.message),
            ("FailedCreate", "exceeded quota")
        );
    }
}
