//! Carries out what was decided: writes to the API server and to Kafka. Decides nothing.
//!
//! Every write to the API server goes through a client that refuses it once the lease's deadline has passed, and so does
//! every write to Kafka here. A Deployment is written with the version that the decision rests on.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::pool::Manifest;
use super::retry::Pause;
use crate::apply::manifest_hash;
use crate::apply::offsets::Commits;
use crate::crd::{SeparationPool, SeparationPoolStatus};
use crate::decide::{Marked, PodName};
use crate::kafka::{Cluster, Deadline, Unread};
use crate::lease::{Leadership, fenced};
use crate::names::{DELETION_COST, FIELD_MANAGER, MARKED_COST, POOL_LABEL, ROLE_LABEL};
use crate::observe::workload::{DeploymentSeen, PodSeen, Trouble, controller_uid};
use crate::watch::pool_seen;
use crate::watch::world::{PoolSeen, RoleKey};

/// Writes of Deployments at once. An API server answers one in some 10 ms: a thousand take a second.
const DEPLOYMENTS_AT_ONCE: usize = 24;

/// Other requests at once: they must not hold up Deployments.
const OTHERS_AT_ONCE: usize = 8;

/// How long a status waits at most while Deployments wait for their turn, and how often it looks.
const GO_FIRST: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long the requests of one job may take together.
const LONGEST_REQUESTS: Duration = Duration::from_secs(30);

/// How long a commit may take.
const COMMIT_DEADLINE: Duration = Duration::from_secs(10);

/// What carries out writes.
#[derive(Clone)]
pub(super) struct Hands {
    client: Client,
    leadership: Leadership,
    deployments: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

/// Why something was not done.
#[derive(Debug)]
pub(super) struct Failure {
    /// When to try again.
    pub(super) pause: Pause,
    /// What a person should know.
    pub(super) trouble: Option<Trouble>,
    /// The whole error, for the log.
    pub(super) error: String,
}

/// A Deployment after an attempt to write it.
#[derive(Debug)]
pub(super) enum Deployed {
    /// It was written.
    Written(DeploymentSeen),
    /// It is not what was thought: decide again.
    Found(DeploymentSeen),
    /// It was deleted meanwhile: decide again.
    Gone,
}

/// Pods after an attempt to annotate them.
#[derive(Debug, Default)]
pub(super) struct Annotated {
    /// Those that were annotated, as they are now.
    pub(super) pods: Vec<(PodName, PodSeen)>,
    /// Those that do not exist any more.
    pub(super) gone: Vec<PodName>,
    /// Why the others were not.
    pub(super) failure: Option<Failure>,
}

impl Annotated {
    /// None was.
    pub(super) fn failed(failure: Failure) -> Self {
        Self {
            failure: Some(failure),
            ..Self::default()
        }
    }
}

impl Hands {
    pub(super) fn new(client: Client, leadership: Leadership) -> Self {
        Self {
            client,
            leadership,
            deployments: Arc::new(Semaphore::new(DEPLOYMENTS_AT_ONCE)),
            others: Arc::new(Semaphore::new(OTHERS_AT_ONCE)),
        }
    }

    /// Writes a Deployment over the version that is known, or makes it where none is known.
    pub(super) async fn deploy(
        &self,
        key: &RoleKey,
        manifest: &Manifest,
        replicas: u32,
        known: Option<&str>,
    ) -> Result<Deployed, Failure> {
        let _turn = self.deployments.acquire().await;
        // Only now, and on the heap: thousands wait for their turn, and a request under way is 20 kB.
        in_time(self.deploy_now(key, manifest, replicas, known)).await
    }

    async fn deploy_now(
        &self,
        key: &RoleKey,
        manifest: &Manifest,
        replicas: u32,
        known: Option<&str>,
    ) -> Result<Deployed, Failure> {
        let Some(mut deployment) = manifest.with(replicas) else {
            return Err(Failure::passing("the spec has changed meanwhile"));
        };
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &key.pool.namespace);
        let name = deployment.metadata.name.clone().unwrap_or_default();
        let mut known = known.map(str::to_owned);
        if known.is_none()
            && let Some(there) = api.get_opt(&name).await.map_err(|error| failure(&error))?
        {
            match claim(&there, key, &deployment) {
                Claim::Ours => return Ok(Deployed::Found(DeploymentSeen::of(&there))),
                Claim::OursUnlabelled => {
                    // How many were decided on without it: that is decided again once the watch shows it.
                    deployment.spec.replicas = there.spec.replicas;
                    known = there.metadata.resource_version;
                }
                Claim::Foreign => {
                    return Err(Failure::needs_a_person(
                        "NameTaken",
                        &format!(
                            "Deployment {}/{name} is there and is not this pool's; fix: delete or rename it",
                            key.pool.namespace
                        ),
                    ));
                }
            }
        }
        deployment.metadata.resource_version = known;
        let force = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch(&name, &force, &Patch::Apply(&deployment)).await {
            Ok(written) => Ok(Deployed::Written(DeploymentSeen::of(&written))),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                match api.get_opt(&name).await.map_err(|error| failure(&error))? {
                    Some(there) => Ok(Deployed::Found(DeploymentSeen::of(&there))),
                    None => Ok(Deployed::Gone),
                }
            }
            Err(error) => Err(failure(&error)),
        }
    }

    /// Sets the deletion-cost annotation on pods, or removes it, up to the first failure.
    pub(super) async fn annotate(&self, key: &RoleKey, pods: &[PodName], marked: Marked) -> Annotated {
        let _turn = self.others.acquire().await;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.pool.namespace);
        let cost = match marked {
            Marked::Yes => json!(MARKED_COST),
            Marked::No => Value::Null,
        };
        let patch = Patch::Merge(json!({"metadata": {"annotations": {DELETION_COST: cost}}}));
        let by_us = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let deadline = tokio::time::Instant::now() + LONGEST_REQUESTS;
        let mut done = Annotated::default();
        for pod in pods {
            let request = Box::pin(api.patch(pod.as_str(), &by_us, &patch));
            match tokio::time::timeout_at(deadline, request).await {
                Ok(Ok(pod)) => done.pods.extend(PodSeen::of(&pod)),
                Ok(Err(kube::Error::Api(status))) if status.code == 404 => done.gone.push(pod.clone()),
                Ok(Err(error)) => {
                    done.failure = Some(failure(&error));
                    return done;
                }
                Err(_) => {
                    done.failure = Some(Failure::no_answer());
                    return done;
                }
            }
        }
        done
    }

    /// Writes what is said about a pool.
    pub(super) async fn say(
        &self,
        pool: &crate::plan::PoolId,
        uid: &str,
        status: &SeparationPoolStatus,
    ) -> Result<PoolSeen, Failure> {
        let _turn = self.others.acquire().await;
        self.let_deployments_go_first().await;
        in_time(self.say_now(pool, uid, status)).await
    }

    /// Waits, but not for ever, while Deployments are waiting for their turn.
    async fn let_deployments_go_first(&self) {
        let go_first = async {
            while self.deployments.available_permits() == 0 {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        // Not for ever: then what is said is late, and nothing worse.
        let _ = tokio::time::timeout(GO_FIRST, go_first).await;
    }

    async fn say_now(
        &self,
        pool: &crate::plan::PoolId,
        uid: &str,
        status: &SeparationPoolStatus,
    ) -> Result<PoolSeen, Failure> {
        let api: Api<DeserializeGuard<SeparationPool>> =
            Api::namespaced(self.client.clone(), &pool.namespace);
        // The uid: what is said is about this pool, not about one that was made anew under its name.
        let patch = json!({
            "apiVersion": "separation.dev/v1alpha1",
            "kind": "SeparationPool",
            "metadata": {"name": pool.name, "namespace": pool.namespace, "uid": uid},
            "status": status,
        });
        let force = PatchParams::apply(FIELD_MANAGER).force();
        let written = api
            .patch_status(&pool.name, &force, &Patch::Apply(&patch))
            .await
            .map_err(|error| failure(&error))?;
        Ok(pool_seen(&written).1)
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
        let _turn = self.others.acquire().await;
        let deadline = self.commit_deadline()?;
        let committed = cluster.commit(group, topic, commits, &deadline).await;
        committed.map_err(|why| not_committed("OffsetsNotInitialised", &why))
    }

    /// Commits once more what a group without members has committed.
    pub(super) async fn commit_again(
        &self,
        cluster: &Cluster,
        group: &str,
        topic: &str,
        partitions: &[i32],
    ) -> Result<(), Failure> {
        let _turn = self.others.acquire().await;
        let deadline = self.commit_deadline()?;
        let committed = cluster.commit_again(group, topic, partitions, &deadline).await;
        committed.map_err(|why| not_committed("OffsetsNotKept", &why))
    }

    fn commit_deadline(&self) -> Result<Deadline, Failure> {
        let deadline = commit_deadline(self.leadership.deadline(), Instant::now());
        deadline.ok_or_else(|| Failure::passing("another process leads now"))
    }

    /// Reads a secret; none where there is none.
    pub(super) async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, Failure> {
        let _turn = self.others.acquire().await;
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        in_time(async { api.get_opt(name).await.map_err(|error| failure(&error)) }).await
    }
}

/// Whose a Deployment is that the watch does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// Ours: the watch is behind, or it lost its pool (deleted with --cascade=orphan) and is taken over.
    Ours,
    /// Ours, but somebody took the labels away that the watch knows it by.
    OursUnlabelled,
    /// Somebody else's.
    Foreign,
}

fn claim(there: &Deployment, key: &RoleKey, wanted: &Deployment) -> Claim {
    let label = |name: &str| Some(there.metadata.labels.as_ref()?.get(name)?.as_str());
    let labelled = label(POOL_LABEL) == Some(&key.pool.name) && label(ROLE_LABEL) == Some(key.role.name());
    if labelled && manifest_hash(there).is_some() {
        return Claim::Ours;
    }
    let owner = controller_uid(&there.metadata);
    if owner.is_some() && owner == controller_uid(&wanted.metadata) {
        Claim::OursUnlabelled
    } else {
        Claim::Foreign
    }
}

/// Ends requests that nobody answers: what they asked for is asked anew. On the heap, for many wait for their turn.
async fn in_time<T>(requests: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let done = tokio::time::timeout(LONGEST_REQUESTS, Box::pin(requests)).await;
    done.unwrap_or_else(|_| Err(Failure::no_answer()))
}

impl Failure {
    pub(super) fn passing(error: &str) -> Self {
        Self {
            pause: Pause::Growing,
            trouble: None,
            error: error.to_owned(),
        }
    }

    fn no_answer() -> Self {
        Self::passing("the API server did not answer in time")
    }

    fn needs_a_person(reason: &str, message: &str) -> Self {
        Self {
            pause: Pause::Longest,
            trouble: Some(Trouble::new(reason, Some(message))),
            error: message.to_owned(),
        }
    }
}

/// When a commit that begins now must have ended: its own time is over, or the lease is. None without the lease.
fn commit_deadline(lease_ends: Option<Instant>, now: Instant) -> Option<Deadline> {
    let lease_ends = lease_ends.filter(|ends| now < *ends)?;
    Some(Deadline::until(lease_ends.min(now + COMMIT_DEADLINE)))
}

fn not_committed(reason: &str, why: &Unread) -> Failure {
    Failure {
        pause: Pause::Growing,
        trouble: Some(Trouble::new(reason, Some(&why.0))),
        error: why.to_string(),
    }
}

/// What an error of the API server means for the next try.
fn failure(error: &kube::Error) -> Failure {
    if fenced(error).is_some() {
        return Failure::passing("another process leads now");
    }
    match error {
        kube::Error::Api(status) => match status.code {
            409 => Failure {
                pause: Pause::None,
                trouble: None,
                error: status.message.clone(),
            },
            400 | 403 | 404 | 422 => Failure::needs_a_person(
                if status.code == 403 {
                    "Forbidden"
                } else {
                    "Refused"
                },
                &status.message,
            ),
            _ => Failure::passing(&status.message),
        },
        _ => Failure::passing(&chain(error)),
    }
}

/// An error and its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
