//! Objects to write: Deployments built from a plan, as values, and a group's offsets.
//!
//! A plan always gives the same Deployment, except for its replicas, so that a change of settings rolls the pods and a
//! change of replicas never does. Nothing here decides replicas.

mod api;
mod environment;
mod grace_period;
mod kafka_variables;
mod labels;
mod layout;
pub mod offsets;
mod pod;
mod pod_fields;
mod pod_template;
mod variable;

#[cfg(test)]
mod kafka_tests;
#[cfg(test)]
mod tests;

pub use api::{ApiObjects, api_name, api_objects};
pub use environment::{api_variables, variables};
pub use grace_period::grace_period_warning;
pub use labels::{deployment_name, selector};
pub use layout::{CA_PATH, CLIENT_PATH, CONTAINER, OAUTH_CA_PATH, SCRATCH_PATH, WORK_PATH};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource as _;
use sha2::{Digest as _, Sha256};

use crate::crd::SeparationPool;
use crate::names::{MANIFEST_HASH, SECRETS_HASH, hex, pool_tag};
use crate::observe::workload::DeploymentSnapshot;
use crate::plan::{PoolPlan, Problems, Role, RolePlan};
use crate::settings::WorkerSettings;
use grace_period::grace_period;

/// Time beyond the grace period after which a rollout counts as stuck: images are pulled and models loaded in it.
const ROLLOUT_MARGIN: Duration = Duration::from_secs(600);

/// How pods are replaced when the template changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollout {
    /// A quarter at a time, without surge. The Deployment controller does not wait for a terminating pod to end: if no
    /// GPU is spare, the new pod is pending until it does.
    RollingUpdate,
    /// All pods end before the first new one starts: members with different assignors cannot share a group.
    Recreate,
}

/// The inputs of a role's Deployment, which are much smaller than the Deployment itself.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The pool.
    pub plan: Arc<PoolPlan>,
    /// The role.
    pub role: Role,
    /// The pool, if it owns the Deployment.
    pub owner: Option<Arc<OwnerReference>>,
    /// Settings of every pool's workers.
    pub settings: Arc<WorkerSettings>,
    /// How pods are replaced.
    pub rollout: Rollout,
    /// Hash of the contents of its Secrets; `None` until they were read. A changed hash replaces the pods, because a
    /// worker reads its credentials once, when it starts.
    pub secrets_hash: Option<Arc<str>>,
}

impl Manifest {
    /// Without an owner, and before Secrets are read.
    pub fn new(plan: Arc<PoolPlan>, role: Role, settings: Arc<WorkerSettings>) -> Self {
        Self {
            plan,
            role,
            owner: None,
            settings,
            rollout: Rollout::RollingUpdate,
            secrets_hash: None,
        }
    }

    /// The Deployment. `replicas` is the current or the decided number; it is always written, because server-side
    /// apply resets a field that its manager stops writing. An annotation has a hash of everything except `replicas`.
    ///
    /// # Errors
    /// Fields of the pods that are not valid in a pod template, or not allowed.
    pub fn deployment(&self, replicas: u32) -> Result<Deployment, Problems> {
        let (plan, role, owner) = (&self.plan, self.role, self.owner.as_deref());
        pod::check_audience(plan, &self.settings)?;
        let role_plan = plan.role(role);
        let tag = owner.map(|owner| pool_tag(&owner.uid));
        let template = pod::template(plan, role_plan, &self.settings, tag.as_deref());
        let mut template = pod_template::merged(role.name(), &role_plan.pod, &template, &self.settings)?;
        if role == Role::Processor && plan.provider.is_cpu() {
            // Before the default requests: only cores that the pool gives count.
            environment::set_threads(&mut template);
        }
        pod_fields::add_default_requests(&mut template, &pod::default_requests(plan, role));
        set_secrets_hash(&mut template, self.secrets_hash.as_deref());
        let mut deployment = Deployment {
            metadata: ObjectMeta {
                name: Some(deployment_name(&plan.id, role)),
                namespace: Some(plan.id.namespace.clone()),
                labels: Some(labels::labels(plan, role)),
                owner_references: owner.map(|owner| vec![owner.clone()]),
                ..ObjectMeta::default()
            },
            spec: DeploymentSpec {
                replicas: None,
                selector: LabelSelector {
                    match_labels: Some(selector(plan, role)),
                    ..LabelSelector::default()
                },
                strategy: Some(strategy(self.rollout)),
                progress_deadline_seconds: Some(seconds(grace_period(role_plan) + ROLLOUT_MARGIN)),
                revision_history_limit: Some(3),
                template,
                ..DeploymentSpec::default()
            },
            status: None,
        };
        let hash = hash(&deployment);
        set_manifest_hash(&mut deployment, hash);
        // maxReplicas is at most 10,000.
        deployment.spec.replicas = Some(i32::try_from(replicas).unwrap_or(i32::MAX));
        Ok(deployment)
    }

    /// The hash that the Deployment is compared by; empty if fields of the pods are invalid.
    pub fn hash(&self) -> Arc<str> {
        let built = self.deployment(0);
        let hash = built.as_ref().ok().and_then(manifest_hash);
        hash.unwrap_or_default().into()
    }
}

fn set_secrets_hash(template: &mut PodTemplateSpec, hash: Option<&str>) {
    if let Some(hash) = hash {
        let metadata = template.metadata.get_or_insert_default();
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(SECRETS_HASH.to_owned(), hash.to_owned());
    }
}

fn set_manifest_hash(deployment: &mut Deployment, hash: String) {
    deployment.metadata.annotations = Some(BTreeMap::from([(MANIFEST_HASH.to_owned(), hash)]));
}

/// The manifest hash in the annotations of a Deployment.
pub fn manifest_hash(deployment: &Deployment) -> Option<&str> {
    let annotations = deployment.metadata.annotations.as_ref()?;
    annotations.get(MANIFEST_HASH).map(String::as_str)
}

fn hash(objects: &impl serde::Serialize) -> String {
    // Maps with string keys always serialize to JSON; if one did not, the API server would refuse the manifest.
    let json = serde_json::to_vec(objects).unwrap_or_default();
    short_hash(&json)
}

/// The first 64 bits of SHA-256, as hexadecimal digits.
pub(crate) fn short_hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..8])
}

/// Owner reference to the pool: its Deployments are deleted with it. The pool's deletion does not wait for them,
/// because a draining pod does not need the pool.
pub fn owner_reference(pool: &SeparationPool) -> Option<OwnerReference> {
    let owner = pool.controller_owner_ref(&())?;
    Some(OwnerReference {
        block_owner_deletion: None,
        ..owner
    })
}

fn strategy(rollout: Rollout) -> DeploymentStrategy {
    match rollout {
        Rollout::RollingUpdate => DeploymentStrategy {
            type_: Some("RollingUpdate".into()),
            rolling_update: Some(RollingUpdateDeployment {
                max_surge: Some(IntOrString::Int(0)),
                // Rounded down, but never to none.
                max_unavailable: Some(IntOrString::String("25%".into())),
            }),
        },
        Rollout::Recreate => DeploymentStrategy {
            type_: Some("Recreate".into()),
            rolling_update: None,
        },
    }
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}

/// How to replace the running pods. A replacement of all pods that has begun is completed.
pub fn rollout(running: Option<&DeploymentSnapshot>, role: &RolePlan) -> Rollout {
    let assignor = running.and_then(|running| running.assignor.as_deref());
    let other_assignor = assignor.is_some_and(|running| running != role.assignor.name());
    if other_assignor || running.is_some_and(|running| running.is_replacing_all) {
        Rollout::Recreate
    } else {
        Rollout::RollingUpdate
    }
}
