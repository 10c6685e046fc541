//! Executes decided writes, to the API server and to Kafka. Decides nothing.
//!
//! Every write to the API server uses the fenced client, which refuses it once the lease's deadline has passed; every
//! write to Kafka ends at that deadline too. A Deployment is written with the resourceVersion that the decision was
//! based on.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::{Api, Client};
use separation_daemon::chain;
use separation_kafka::{Cluster, Deadline, ReadError};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::retry::Pause;
use crate::apply::offsets::Commits;
use crate::apply::{Manifest, manifest_hash};
use crate::crd::{SeparationPool, SeparationPoolStatus};
use crate::decide::{CostAnnotation, PodName};
use crate::lease::{Leadership, fenced};
use crate::names::{CANDIDATE_COST, DELETION_COST, FIELD_MANAGER, POOL_LABEL, ROLE_LABEL, TOPIC_MISSING};
use crate::observe::workload::{DeploymentSnapshot, PodSnapshot, WorkloadProblem, controller_uid};
use crate::plan::RolePlan;
use crate::watch::cache::{PoolSnapshot, RoleKey};
use crate::watch::pool_snapshot;

/// Concurrent writes of Deployments. An API server answers one in about 10 ms, so a thousand take less than a second.
const MAX_CONCURRENT_DEPLOYMENTS: usize = 24;

/// Concurrent other requests; few, so that they do not delay Deployments.
const MAX_CONCURRENT_OTHERS: usize = 8;

/// The longest wait of a status write while Deployments are queued, and the interval of its checks.
const MAX_DEPLOYMENT_WAIT: Duration = Duration::from_secs(10);
const DEPLOYMENT_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Time for all requests of one job.
const JOB_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for a commit.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Executes writes; cheap to clone.
#[derive(Clone)]
pub(super) struct ApiWriter {
    pub(super) client: Client,
    leadership: Leadership,
    deployments: Arc<Semaphore>,
    pub(super) others: Arc<Semaphore>,
}

/// Why a write or a read failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// When to retry.
    pub(super) pause: Pause,
    /// The problem to report to users, if there is one.
    pub(super) problem: Option<WorkloadProblem>,
    /// The error with its causes, for the log.
    pub(super) error: String,
}

/// A Deployment after an attempt to write it.
#[derive(Debug)]
pub(super) enum DeployOutcome {
    /// It was written.
    Written(DeploymentSnapshot),
    /// It exists in another version than expected: decide again.
    OtherVersion(DeploymentSnapshot),
    /// It was deleted: decide again.
    Deleted,
}

/// Partitions of a dead-letter topic, which is rarely written to; a worker creates a missing one likewise.
const DEAD_LETTER_PARTITIONS: u32 = 1;

/// A role's topic to create, and its dead-letter topic.
#[derive(Debug)]
pub(super) struct NewTopic {
    name: String,
    partitions: u32,
    dead_letters: String,
    /// The command by which a user creates both.
    command: String,
}

impl NewTopic {
    pub(super) fn new(servers: &str, plan: &RolePlan, partitions: u32) -> Self {
        let (name, dead_letters) = (plan.topic.clone(), plan.dead_letter_topic.clone());
        let create = |topic: &str, partitions: u32| {
            format!(
                "kafka-topics.sh --bootstrap-server {servers} --create --topic {topic} --partitions {partitions}"
            )
        };
        Self {
            command: format!(
                "{} && {}",
                create(&name, partitions),
                create(&dead_letters, DEAD_LETTER_PARTITIONS)
            ),
            name,
            partitions,
            dead_letters,
        }
    }
}

/// Pods after an attempt to annotate them.
#[derive(Debug, Default)]
pub(super) struct AnnotateOutcome {
    /// The annotated pods, after the write.
    pub(super) pods: Vec<(PodName, PodSnapshot)>,
    /// Pods that no longer exist.
    pub(super) deleted: Vec<PodName>,
    /// Why the remaining pods were not annotated.
    pub(super) failure: Option<Failure>,
}

impl AnnotateOutcome {
    pub(super) fn failed(failure: Failure) -> Self {
        Self {
            failure: Some(failure),
            ..Self::default()
        }
    }
}

impl ApiWriter {
    pub(super) fn new(client: Client, leadership: Leadership) -> Self {
        Self {
            client,
            leadership,
            deployments: Arc::new(Semaphore::new(MAX_CONCURRENT_DEPLOYMENTS)),
            others: Arc::new(Semaphore::new(MAX_CONCURRENT_OTHERS)),
        }
    }

    /// Writes a Deployment over the `known` resourceVersion, or creates it if none is known.
    pub(super) async fn deploy(
        &self,
        key: &RoleKey,
        manifest: &Manifest,
        replicas: u32,
        known: Option<&str>,
    ) -> Result<DeployOutcome, Failure> {
        let _permit = self.deployments.acquire().await;
        // Created only now, and on the heap: thousands may be queued, and a request in flight takes 20 kB.
        with_timeout(self.deploy_now(key, manifest, replicas, known)).await
    }

    async fn deploy_now(
        &self,
        key: &RoleKey,
        manifest: &Manifest,
        replicas: u32,
        known: Option<&str>,
    ) -> Result<DeployOutcome, Failure> {
        let Ok(mut deployment) = manifest.deployment(replicas) else {
            return Err(Failure::transient("the spec has changed"));
        };
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &key.pool.namespace);
        let name = deployment.metadata.name.clone().unwrap_or_default();
        let mut known = known.map(str::to_owned);
        if known.is_none()
            && let Some(existing) = api.get_opt(&name).await.map_err(|error| classify(&error))?
        {
            match ownership(&existing, key, &deployment) {
                Ownership::Ours => {
                    return Ok(DeployOutcome::OtherVersion(DeploymentSnapshot::from_deployment(
                        &existing,
                    )));
                }
                Ownership::OursWithoutLabels => {
                    // Replicas were decided without knowing it, so its own are kept until the watch shows it.
                    deployment.spec.replicas = existing.spec.replicas;
                    known = existing.metadata.resource_version;
                }
                Ownership::Foreign => {
                    return Err(Failure::needs_user(
                        "NameTaken",
                        &format!(
                            "Deployment {}/{name} exists and does not belong to this pool; fix: delete or rename it",
                            key.pool.namespace
                        ),
                    ));
                }
            }
        }
        deployment.metadata.resource_version = known;
        let force = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch(&name, &force, &Patch::Apply(&deployment)).await {
            Ok(written) => Ok(DeployOutcome::Written(DeploymentSnapshot::from_deployment(
                &written,
            ))),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                match api.get_opt(&name).await.map_err(|error| classify(&error))? {
                    Some(existing) => Ok(DeployOutcome::OtherVersion(DeploymentSnapshot::from_deployment(
                        &existing,
                    ))),
                    None => Ok(DeployOutcome::Deleted),
                }
            }
            Err(error) => Err(classify(&error)),
        }
    }

    /// Sets the deletion-cost annotation on pods, or removes it, up to the first failure.
    pub(super) async fn annotate(
        &self,
        key: &RoleKey,
        pods: &[PodName],
        cost_annotation: CostAnnotation,
    ) -> AnnotateOutcome {
        let _permit = self.others.acquire().await;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.pool.namespace);
        let cost = match cost_annotation {
            CostAnnotation::Present => json!(CANDIDATE_COST),
            CostAnnotation::Absent => Value::Null,
        };
        let patch = Patch::Merge(json!({"metadata": {"annotations": {DELETION_COST: cost}}}));
        let by_us = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let deadline = tokio::time::Instant::now() + JOB_TIMEOUT;
        let mut result = AnnotateOutcome::default();
        for pod in pods {
            let request = Box::pin(api.patch(pod.as_str(), &by_us, &patch));
            match tokio::time::timeout_at(deadline, request).await {
                Ok(Ok(pod)) => result.pods.extend(PodSnapshot::from_pod(&pod)),
                Ok(Err(kube::Error::Api(status))) if status.code == 404 => result.deleted.push(pod.clone()),
                Ok(Err(error)) => {
                    result.failure = Some(classify(&error));
                    return result;
                }
                Err(_) => {
                    result.failure = Some(Failure::timed_out());
                    return result;
                }
            }
        }
        result
    }

    /// Writes a pool's status.
    pub(super) async fn update_status(
        &self,
        pool: &crate::plan::PoolId,
        uid: &str,
        status: &SeparationPoolStatus,
    ) -> Result<PoolSnapshot, Failure> {
        let _permit = self.others.acquire().await;
        self.wait_for_queued_deployments().await;
        with_timeout(self.update_status_now(pool, uid, status)).await
    }

    /// Waits while Deployments are queued, at most [`MAX_DEPLOYMENT_WAIT`].
    async fn wait_for_queued_deployments(&self) {
        let go_first = async {
            while self.deployments.available_permits() == 0 {
                tokio::time::sleep(DEPLOYMENT_CHECK_INTERVAL).await;
            }
        };
        // After the timeout the status is written anyway; it is only late.
        let _ = tokio::time::timeout(MAX_DEPLOYMENT_WAIT, go_first).await;
    }

    async fn update_status_now(
        &self,
        pool: &crate::plan::PoolId,
        uid: &str,
        status: &SeparationPoolStatus,
    ) -> Result<PoolSnapshot, Failure> {
        let api: Api<DeserializeGuard<SeparationPool>> =
            Api::namespaced(self.client.clone(), &pool.namespace);
        // The uid is a precondition: a recreated pool of the same name must not get this status.
        let patch = json!({
            "apiVersion": "separation.dev/v1beta1",
            "kind": "SeparationPool",
            "metadata": {"name": pool.name, "namespace": pool.namespace, "uid": uid},
            "status": status,
        });
        let force = PatchParams::apply(FIELD_MANAGER).force();
        let written = api
            .patch_status(&pool.name, &force, &Patch::Apply(&patch))
            .await
            .map_err(|error| classify(&error))?;
        Ok(pool_snapshot(&written).1)
    }

    /// Creates a topic after its dead-letter topic, which is not retried once the topic exists: a worker creates a
    /// missing one when it starts.
    pub(super) async fn create_topic(&self, cluster: &Cluster, topic: &NewTopic) -> Result<(), Failure> {
        let _permit = self.others.acquire().await;
        let deadline = self.commit_deadline()?;
        let created = cluster.create_topic(&topic.dead_letters, DEAD_LETTER_PARTITIONS, &deadline);
        if let Err(error) = created.await {
            tracing::warn!(topic = topic.dead_letters, %error, "The dead-letter topic could not be created");
        }
        let created = cluster
            .create_topic(&topic.name, topic.partitions, &deadline)
            .await;
        created.map_err(|why| {
            let message = format!(
                "the topic {} does not exist and could not be created: {why}; fix: {}",
                topic.name, topic.command
            );
            Failure {
                pause: Pause::Growing,
                // Not shortened: the command is its end.
                problem: Some(WorkloadProblem {
                    reason: TOPIC_MISSING.into(),
                    message: message.as_str().into(),
                }),
                error: message,
            }
        })
    }

    /// Commits offsets of a group without members.
    pub(super) async fn commit(
        &self,
        cluster: &Cluster,
        group: &str,
        topic: &str,
        commits: &Commits,
    ) -> Result<(), Failure> {
        if commits.is_empty() {
            return Ok(());
        }
        let _permit = self.others.acquire().await;
        let deadline = self.commit_deadline()?;
        let committed = cluster.commit(group, topic, commits, &deadline).await;
        committed.map_err(|why| commit_failure("OffsetsNotInitialized", &why))
    }

    /// Commits the current offsets of a group without members again.
    pub(super) async fn commit_again(
        &self,
        cluster: &Cluster,
        group: &str,
        topic: &str,
        partitions: &[i32],
    ) -> Result<(), Failure> {
        let _permit = self.others.acquire().await;
        let deadline = self.commit_deadline()?;
        let committed = cluster.commit_again(group, topic, partitions, &deadline).await;
        committed.map_err(|why| commit_failure("OffsetsNotKept", &why))
    }

    fn commit_deadline(&self) -> Result<Deadline, Failure> {
        let deadline = commit_deadline(self.leadership.deadline(), Instant::now());
        deadline.ok_or_else(|| Failure::transient("this replica no longer leads"))
    }

    /// Reads a Secret; `None` if it does not exist.
    pub(super) async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, Failure> {
        let _permit = self.others.acquire().await;
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        with_timeout(async { api.get_opt(name).await.map_err(|error| classify(&error)) }).await
    }
}

/// The owner of a Deployment that exists although the watch does not show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ownership {
    /// This pool: the watch is behind, or its former pool was deleted with `--cascade=orphan`, and it is adopted.
    Ours,
    /// This pool, but the labels that the watch selects by were removed.
    OursWithoutLabels,
    /// Another owner.
    Foreign,
}

fn ownership(existing: &Deployment, key: &RoleKey, planned: &Deployment) -> Ownership {
    let label = |name: &str| Some(existing.metadata.labels.as_ref()?.get(name)?.as_str());
    let labelled = label(POOL_LABEL) == Some(&key.pool.name) && label(ROLE_LABEL) == Some(key.role.name());
    if labelled && manifest_hash(existing).is_some() {
        return Ownership::Ours;
    }
    let owner = controller_uid(&existing.metadata);
    if owner.is_some() && owner == controller_uid(&planned.metadata) {
        Ownership::OursWithoutLabels
    } else {
        Ownership::Foreign
    }
}

/// Ends requests without a response, so that they are retried. Boxed, because many jobs may be queued.
pub(super) async fn with_timeout<T>(
    requests: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let result = tokio::time::timeout(JOB_TIMEOUT, Box::pin(requests)).await;
    result.unwrap_or_else(|_| Err(Failure::timed_out()))
}

impl Failure {
    pub(super) fn transient(error: &str) -> Self {
        Self {
            pause: Pause::Growing,
            problem: None,
            error: error.to_owned(),
        }
    }

    fn timed_out() -> Self {
        Self::transient("the API server did not answer in time")
    }

    pub(super) fn needs_user(reason: &str, message: &str) -> Self {
        Self {
            pause: Pause::Longest,
            problem: Some(WorkloadProblem::new(reason, Some(message))),
            error: message.to_owned(),
        }
    }
}

/// The deadline of a commit that begins now: its own timeout, or the lease's deadline if earlier. `None` without the
/// lease.
fn commit_deadline(lease_ends: Option<Instant>, now: Instant) -> Option<Deadline> {
    let lease_ends = lease_ends.filter(|ends| now < *ends)?;
    Some(Deadline::until(lease_ends.min(now + COMMIT_TIMEOUT)))
}

fn commit_failure(reason: &str, error: &ReadError) -> Failure {
    Failure {
        pause: Pause::Growing,
        problem: Some(WorkloadProblem::new(reason, Some(&error.why))),
        error: error.to_string(),
    }
}

/// Classifies an error of the API server for the retry.
pub(super) fn classify(error: &kube::Error) -> Failure {
    if fenced(error).is_some() {
        return Failure::transient("this replica no longer leads");
    }
    match error {
        kube::Error::Api(status) => match status.code {
            409 => Failure {
                pause: Pause::None,
                problem: None,
                error: status.message.clone(),
            },
            400 | 403 | 404 | 422 => Failure::needs_user(
                if status.code == 403 {
                    "Forbidden"
                } else {
                    "Refused"
                },
                &status.message,
            ),
            _ => Failure::transient(&status.message),
        },
        _ => Failure::transient(&chain(error)),
    }
}

#[cfg(test)]
mod tests;
