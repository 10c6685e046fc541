//! The objects of a pool's HTTP API: a Deployment, its Service, and a service account without permissions or token.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Container, Lifecycle, LifecycleHandler, PodSpec, PodTemplateSpec, Service, ServiceAccount, ServicePort,
    ServiceSpec, SleepAction, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::environment;
use super::labels::{component_labels, component_selector};
use super::layout::{ADMIN_PORT, CONTAINER};
use super::pod::{self, ScratchLimit};
use super::pod_fields::{DefaultRequests, add_default_requests};
use super::pod_template::merged;
use super::{hash, set_manifest_hash, set_secrets_hash};
use crate::names::API_COMPONENT;
use crate::plan::{ApiPlan, PoolId, PoolPlan, Problems};
use crate::settings::WorkerSettings;

/// Port of the HTTP API in its pods, and of its Service.
const API_PORT: i32 = 8000;
const SERVICE_PORT: i32 = 80;

/// Songs are only buffered on the scratch volume while they are uploaded.
const SCRATCH_BYTES: u64 = 64 << 20;

/// Requests of pods whose pool has none.
const DEFAULT_REQUESTS: DefaultRequests = DefaultRequests {
    cpu: "100m",
    memory: "128Mi",
};

/// Until no node routes requests to a pod that ends.
const PRE_STOP_SECONDS: i64 = 5;

/// preStop, then the limits of running requests (30 s), their remaining work (35 s) and the producer (10 s).
const GRACE_SECONDS: i64 = 90;

/// The objects of a pool's API, which are applied together.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiObjects {
    /// Runs the API.
    pub deployment: Deployment,
    /// Its address in the cluster.
    pub service: Service,
    /// Identity of the pods, for clouds that assign identities; none if the pool names another.
    pub account: Option<ServiceAccount>,
}

/// Name of the Deployment, the Service and the service account.
pub fn api_name(pool: &PoolId) -> String {
    format!("{}-{API_COMPONENT}", pool.name)
}

/// The objects of the API of `plan`.
///
/// # Errors
/// Fields of the pods that are not valid in a pod template, or not allowed.
pub fn api_objects(
    plan: &PoolPlan,
    api: &ApiPlan,
    owner: Option<&OwnerReference>,
    settings: &WorkerSettings,
    secrets_hash: Option<&str>,
) -> Result<ApiObjects, Problems> {
    pod::check_audience(plan, settings)?;
    let mut template = merged(API_COMPONENT, &api.pod, &template(plan, api, settings), settings)?;
    add_default_requests(&mut template, &DEFAULT_REQUESTS);
    set_secrets_hash(&mut template, secrets_hash);
    let metadata = || ObjectMeta {
        name: Some(api_name(&plan.id)),
        namespace: Some(plan.id.namespace.clone()),
        labels: Some(component_labels(&plan.id, API_COMPONENT)),
        owner_references: owner.map(|owner| vec![owner.clone()]),
        ..ObjectMeta::default()
    };
    let selector = component_selector(&plan.id, API_COMPONENT);
    let mut deployment = Deployment {
        metadata: metadata(),
        spec: DeploymentSpec {
            replicas: Some(i32::try_from(api.replicas).unwrap_or(i32::MAX)),
            selector: LabelSelector {
                match_labels: Some(selector.clone()),
                ..LabelSelector::default()
            },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            revision_history_limit: Some(3),
            template,
            ..DeploymentSpec::default()
        },
        status: None,
    };
    let service = Service {
        metadata: metadata(),
        spec: Some(ServiceSpec {
            selector: Some(selector),
            ports: Some(vec![ServicePort {
                name: Some("http".into()),
                port: SERVICE_PORT,
                target_port: Some(IntOrString::String("http".into())),
                protocol: Some("TCP".into()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    };
    let account = api.pod.service_account_name.is_none().then(|| ServiceAccount {
        metadata: metadata(),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    });
    // Of all three: the Deployment, which is written last, shows whether another version wrote any of them.
    let hash = hash(&(&deployment, &service, &account));
    set_manifest_hash(&mut deployment, hash);
    Ok(ApiObjects {
        deployment,
        service,
        account,
    })
}

fn template(plan: &PoolPlan, api: &ApiPlan, settings: &WorkerSettings) -> PodTemplateSpec {
    let (volumes, mounts) = pod::volumes(plan, ScratchLimit(SCRATCH_BYTES));
    let labels = component_labels(&plan.id, API_COMPONENT);
    let container = Container {
        name: CONTAINER.into(),
        image: Some(api.pod.image.as_ref().unwrap_or(&settings.image).clone()),
        args: Some(vec![API_COMPONENT.into()]),
        env: Some(environment::api_variables(plan, api, API_PORT)),
        ports: Some(vec![pod::port("http", API_PORT), pod::port("admin", ADMIN_PORT)]),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction {
                    seconds: PRE_STOP_SECONDS,
                }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        liveness_probe: Some(pod::probe("/live", 10, 6)),
        readiness_probe: Some(pod::probe("/ready", 5, 2)),
        security_context: Some(pod::container_security()),
        volume_mounts: Some(mounts),
        ..Container::default()
    };
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some(BTreeMap::from([(
                "kubectl.kubernetes.io/default-container".to_owned(),
                CONTAINER.to_owned(),
            )])),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            service_account_name: Some(api_name(&plan.id)),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            security_context: Some(pod::pod_security()),
            image_pull_secrets: pod::image_pull_secrets(settings),
            topology_spread_constraints: Some(vec![spread(plan)]),
            containers: vec![container],
            volumes: Some(volumes),
            ..PodSpec::default()
        }),
    }
}

/// Spreads the pods over nodes if possible.
fn spread(plan: &PoolPlan) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        label_selector: Some(LabelSelector {
            match_labels: Some(component_selector(&plan.id, API_COMPONENT)),
            ..LabelSelector::default()
        }),
        ..TopologySpreadConstraint::default()
    }
}
