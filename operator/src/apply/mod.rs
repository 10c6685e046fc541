//! What is written: Deployments made of a plan, as values, and a group's offsets.
//!
//! A plan gives the same Deployment every time, but for its replicas: so that a change of settings rolls the pods, and a
//! change of replicas never does. Nothing here decides how many workers there are.

mod environment;
pub mod offsets;
mod overrides;
mod pod;

#[cfg(test)]
mod tests;

#[cfg(feature = "local")]
pub(crate) use environment::variables;
#[cfg(feature = "local")]
pub(crate) use pod::{CA_FOLDER, CLIENT_FOLDER, SCRATCH_FOLDER, WORK_FOLDER};

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource as _;
use separation_contract::kafka::{CLOSE_MARGIN, Timings};
use sha2::{Digest as _, Sha256};

use crate::crd::SeparationPool;
use crate::names::{FIELD_MANAGER, MANIFEST_HASH, POOL_LABEL, ROLE_LABEL, SECRETS_HASH, hex, pool_tag};
use crate::observe::workload::DeploymentSeen;
use crate::plan::{PoolId, PoolPlan, Problems, Role, RolePlan};
use crate::settings::WorkerSettings;

/// How long after the grace period a rollout counts as stuck: images are pulled and models loaded in it.
const ROLLOUT_MARGIN: Duration = Duration::from_secs(600);

/// How pods are replaced when the template changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollout {
    /// A quarter at a time, and none beside those that are to be replaced. The Deployment controller does not wait for a
    /// terminating pod to end: where no GPU is spare, the new pod is pending until it does.
    Rolling,
    /// All of them go before the first new one comes: members with different assignors cannot share a group.
    AllAtOnce,
}

/// A pool's Deployment of one role.
///
/// `owner` is the pool, where it is to own the Deployment. `replicas` is the number that stands or was decided, and always
/// written, since what one manager stops writing is reset. An annotation carries a hash of all but them.
///
/// # Errors
/// What of `podOverrides` is no pod, or not allowed.
pub fn deployment(
    plan: &PoolPlan,
    role: Role,
    owner: Option<&OwnerReference>,
    settings: &WorkerSettings,
    replicas: u32,
    rollout: Rollout,
) -> Result<Deployment, Problems> {
    let role_plan = plan.role(role);
    let tag = owner.map(|owner| pool_tag(&owner.uid));
    let template = pod::template(plan, role_plan, settings, tag.as_deref());
    let template = overrides::merged(role_plan, template, settings)?;
    let deployment = Deployment {
        metadata: ObjectMeta {
            name: Some(deployment_name(&plan.id, role)),
            namespace: Some(plan.id.namespace.clone()),
            labels: Some(labels(plan, role)),
            owner_references: owner.map(|owner| vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: DeploymentSpec {
            replicas: None,
            selector: LabelSelector {
                match_labels: Some(selector(plan, role)),
                ..LabelSelector::default()
            },
            strategy: Some(strategy(rollout)),
            progress_deadline_seconds: Some(seconds(grace_period(&role_plan.timings) + ROLLOUT_MARGIN)),
            revision_history_limit: Some(3),
            template,
            ..DeploymentSpec::default()
        },
        status: None,
    };
    // Bounds are at most 10,000.
    let replicas = i32::try_from(replicas).unwrap_or(i32::MAX);
    Ok(hashed(deployment, Some(replicas)))
}

/// The same Deployment with a hash of the Secrets' contents in its pod template: another one replaces the pods, because a
/// worker reads its credentials once, when it starts.
pub fn with_secrets_hash(mut deployment: Deployment, secrets_hash: &str) -> Deployment {
    let metadata = deployment.spec.template.metadata.get_or_insert_default();
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(SECRETS_HASH.to_owned(), secrets_hash.to_owned());
    let replicas = deployment.spec.replicas.take();
    deployment.metadata.annotations = None;
    hashed(deployment, replicas)
}

/// A manifest without replicas and without its hash, completed by both.
fn hashed(mut deployment: Deployment, replicas: Option<i32>) -> Deployment {
    let hash = (MANIFEST_HASH.to_owned(), hash(&deployment));
    deployment.metadata.annotations = Some(BTreeMap::from([hash]));
    deployment.spec.replicas = replicas;
    deployment
}

/// The hash that a Deployment of ours carries.
pub fn manifest_hash(deployment: &Deployment) -> Option<&str> {
    let annotations = deployment.metadata.annotations.as_ref()?;
    annotations.get(MANIFEST_HASH).map(String::as_str)
}

/// Hash of a manifest.
fn hash(deployment: &Deployment) -> String {
    // Maps with string keys are always JSON; a manifest that were none would be refused when it is sent.
    let json = serde_json::to_vec(deployment).unwrap_or_default();
    short_hash(&json)
}

/// The first 64 bits of SHA-256, as hexadecimal digits.
pub(crate) fn short_hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..8])
}

/// Name of a role's Deployment.
pub fn deployment_name(pool: &PoolId, role: Role) -> String {
    format!("{}-{role}", pool.name)
}

/// Labels that tell a role's pods from all others. They never change: the API server refuses it.
pub fn selector(plan: &PoolPlan, role: Role) -> BTreeMap<String, String> {
    BTreeMap::from([
        (POOL_LABEL.to_owned(), plan.id.name.clone()),
        (ROLE_LABEL.to_owned(), role.name().to_owned()),
    ])
}

/// How long a pod may take to finish its task and to close: the poll interval, in whole seconds, and a margin.
pub fn grace_period(timings: &Timings) -> Duration {
    let whole = timings.max_poll_interval.as_millis().div_ceil(1_000);
    Duration::from_secs(u64::try_from(whole).unwrap_or(u64::MAX)) + CLOSE_MARGIN
}

fn labels(plan: &PoolPlan, role: Role) -> BTreeMap<String, String> {
    let mut labels = selector(plan, role);
    labels.extend([
        (
            "app.kubernetes.io/name".to_owned(),
            "separation-worker".to_owned(),
        ),
        ("app.kubernetes.io/instance".to_owned(), plan.id.name.clone()),
        ("app.kubernetes.io/component".to_owned(), role.name().to_owned()),
        (
            "app.kubernetes.io/managed-by".to_owned(),
            FIELD_MANAGER.to_owned(),
        ),
    ]);
    labels
}

/// The pool deletes its Deployments with it. It does not wait for them: a draining pod needs no pool.
pub fn owner_reference(pool: &SeparationPool) -> Option<OwnerReference> {
    let owner = pool.controller_owner_ref(&())?;
    Some(OwnerReference {
        block_owner_deletion: None,
        ..owner
    })
}

fn strategy(rollout: Rollout) -> DeploymentStrategy {
    match rollout {
        Rollout::Rolling => DeploymentStrategy {
            type_: Some("RollingUpdate".into()),
            rolling_update: Some(RollingUpdateDeployment {
                max_surge: Some(IntOrString::Int(0)),
                // Rounded down, but never to none.
                max_unavailable: Some(IntOrString::String("25%".into())),
            }),
        },
        Rollout::AllAtOnce => DeploymentStrategy {
            type_: Some("Recreate".into()),
            rolling_update: None,
        },
    }
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}

/// Whether a change from what runs needs all pods to go first; once begun, that is not cut short.
pub fn rollout(running: Option<&DeploymentSeen>, role: &RolePlan) -> Rollout {
    let assignor = running.and_then(|running| running.assignor.as_deref());
    let other_assignor = assignor.is_some_and(|running| running != role.assignor.name());
    if other_assignor || running.is_some_and(|running| running.is_replacing_all) {
        Rollout::AllAtOnce
    } else {
        Rollout::Rolling
    }
}
