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

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource as _;
use separation_contract::kafka::{CLOSE_MARGIN, Timings};

use crate::crd::SeparationPool;
use crate::names::{FIELD_MANAGER, POOL_LABEL, ROLE_LABEL};
use crate::plan::{PoolPlan, Problems, Role, RolePlan};
use crate::settings::WorkerSettings;

/// How long after the grace period a rollout counts as stuck: images are pulled and models loaded in it.
const ROLLOUT_MARGIN: Duration = Duration::from_secs(600);

/// How pods are replaced when the template changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollout {
    /// A quarter at a time, and none beside those that are to be replaced: no GPU is spare.
    Rolling,
    /// All of them go before the first new one comes: members with different assignors cannot share a group.
    AllAtOnce,
}

/// A pool's Deployment of one role.
///
/// `owner` is the pool as it was read: with its uid, or without one where nothing is to own the Deployment. `replicas` is
/// the number that stands or was decided, and always written, since what one manager stops writing is reset.
///
/// # Errors
/// What of `podOverrides` is no pod, or not allowed.
pub fn deployment(
    plan: &PoolPlan,
    role: Role,
    owner: &SeparationPool,
    settings: &WorkerSettings,
    replicas: u32,
    rollout: Rollout,
) -> Result<Deployment, Problems> {
    let role_plan = plan.role(role);
    let template = overrides::merged(
        plan,
        role_plan,
        pod::template(plan, role_plan, settings),
        settings,
    )?;
    Ok(Deployment {
        metadata: ObjectMeta {
            name: Some(deployment_name(plan, role)),
            namespace: Some(plan.id.namespace.clone()),
            labels: Some(labels(plan, role)),
            owner_references: owner_reference(owner).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: DeploymentSpec {
            // Bounds are at most 10,000.
            replicas: Some(i32::try_from(replicas).unwrap_or(i32::MAX)),
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
    })
}

/// Name of a role's Deployment.
pub fn deployment_name(plan: &PoolPlan, role: Role) -> String {
    format!("{}-{role}", plan.id.name)
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
fn owner_reference(pool: &SeparationPool) -> Option<OwnerReference> {
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

/// Whether a change from what runs needs all pods to go first.
pub fn rollout(running: Option<&Deployment>, role: &RolePlan) -> Rollout {
    let template = running.and_then(|running| running.spec.template.spec.as_ref());
    let containers = template.map(|pod| &pod.containers).into_iter().flatten();
    let mut environment = containers.flat_map(|container| container.env.iter().flatten());
    let assignor =
        environment.find(|variable| variable.name == separation_contract::environment::KAFKA_ASSIGNOR);
    match assignor.and_then(|variable| variable.value.as_deref()) {
        Some(running) if running != role.assignor.name() => Rollout::AllAtOnce,
        _ if is_replacing_all(running) => Rollout::AllAtOnce,
        _ => Rollout::Rolling,
    }
}

/// Whether all pods are being replaced at once, and some old ones are still there: that must not be cut short.
fn is_replacing_all(running: Option<&Deployment>) -> bool {
    let Some(running) = running else { return false };
    let strategy = running.spec.strategy.as_ref();
    let recreates = strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate"));
    let Some(status) = &running.status else {
        return recreates;
    };
    let unobserved = status.observed_generation < running.metadata.generation;
    let old = status.replicas.unwrap_or(0) > status.updated_replicas.unwrap_or(0);
    recreates && (unobserved || old || status.terminating_replicas.unwrap_or(0) > 0)
}
