//! Pod template of a worker: unprivileged, without a token, with a grace period that covers a running task.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, ExecAction, HTTPGetAction, KeyToPath,
    Lifecycle, LifecycleHandler, LocalObjectReference, PersistentVolumeClaimVolumeSource, PodSecurityContext,
    PodSpec, PodTemplateSpec, Probe, ProjectedVolumeSource, SeccompProfile, SecretProjection,
    SecretVolumeSource, SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use separation_contract::model::MAX_MODEL_BYTES;

use super::environment;
use super::grace_period::grace_period;
use super::labels::labels;
use super::layout::{
    ADMIN_PORT, CA_PATH, CLIENT_PATH, CONTAINER, MODELS_PATH, OAUTH_CA_PATH, SCRATCH_PATH, TOKEN_FILE,
    TOKEN_PATH, WORK_PATH,
};
use super::pod_fields::DefaultRequests;
use crate::names::WORK_VOLUME;
use crate::plan::{
    OauthPlan, OauthSource, PoolPlan, Problem, Problems, Role, RolePlan, SaslPlan, SecretKey,
    ServiceAccountToken, Staging,
};
use crate::settings::{Allowance, WorkerSettings};

/// User and group that workers run as: `nonroot` of distroless images.
const NONROOT: i64 = 65_532;

/// The pod template of a role, before overrides.
pub(super) fn template(
    plan: &PoolPlan,
    role: &RolePlan,
    settings: &WorkerSettings,
    pool_tag: Option<&str>,
) -> PodTemplateSpec {
    let annotations = [
        // Busy pods must not be evicted: their task would be processed twice.
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
        ("karpenter.sh/do-not-disrupt", "true"),
        ("kubectl.kubernetes.io/default-container", CONTAINER),
    ];
    let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let grace = grace_period(role).as_secs();
    // The worker's own limit and a tenth: a pod that fills its volume is evicted and loses its task.
    let scratch_limit = plan.storage.scratch_bytes + plan.storage.scratch_bytes / 10;
    let (mut volumes, mut mounts) = volumes(plan, ScratchLimit(scratch_limit));
    let model = plan.model.as_ref();
    if role.role == Role::Processor && model.is_some_and(|model| model.sha256.is_some()) {
        // The largest model, and a tenth for its parameters. A volume of its own, because songs may fill the other one.
        volumes.push(empty_dir("models", MAX_MODEL_BYTES + MAX_MODEL_BYTES / 10));
        mounts.push(mount("models", MODELS_PATH));
    }
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels(plan, role.role)),
            annotations: Some(BTreeMap::from(annotations)),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            // Explicit, because the API server keeps a former name in the deprecated field `serviceAccount`.
            service_account_name: Some("default".into()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(i64::try_from(grace).unwrap_or(i64::MAX)),
            security_context: Some(pod_security()),
            image_pull_secrets: image_pull_secrets(settings),
            containers: vec![container(plan, role, settings, mounts, pool_tag)],
            volumes: Some(volumes),
            ..PodSpec::default()
        }),
    }
}

fn container(
    plan: &PoolPlan,
    role: &RolePlan,
    settings: &WorkerSettings,
    mounts: Vec<VolumeMount>,
    pool_tag: Option<&str>,
) -> Container {
    Container {
        name: CONTAINER.into(),
        image: Some(role.pod.image.as_ref().unwrap_or(&settings.image).clone()),
        args: Some(vec![role.role.name().into()]),
        env: Some(environment::variables(plan, role, &settings.model, pool_tag)),
        ports: Some(vec![port("admin", ADMIN_PORT)]),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                exec: Some(ExecAction {
                    command: Some(vec!["separation-worker".into(), "drain".into()]),
                }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        // Models may take minutes to load: 150 x 2 s.
        startup_probe: Some(probe("/live", 2, 150)),
        // Liveness does not depend on Kafka: a worker that waits for brokers is not restarted. One that does not
        // respond for a minute is.
        liveness_probe: Some(probe("/live", 10, 6)),
        readiness_probe: Some(probe("/ready", 5, 2)),
        security_context: Some(container_security()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

/// The Secrets of the operator's settings for pulling images; those of a pool are merged over them.
pub(super) fn image_pull_secrets(settings: &WorkerSettings) -> Option<Vec<LocalObjectReference>> {
    let names = settings.image_pull_secrets.iter();
    let secrets: Vec<_> = names
        .map(|name| LocalObjectReference { name: name.clone() })
        .collect();
    (!secrets.is_empty()).then_some(secrets)
}

/// The security context of the pods of workers and API.
pub(super) fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(NONROOT),
        run_as_group: Some(NONROOT),
        fs_group: Some(NONROOT),
        // Otherwise the kubelet would walk a large shared volume at every start.
        fs_group_change_policy: Some("OnRootMismatch".into()),
        seccomp_profile: Some(runtime_default()),
        ..PodSecurityContext::default()
    }
}

/// The security context of their containers.
pub(super) fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".into()]),
            add: None,
        }),
        seccomp_profile: Some(runtime_default()),
        ..SecurityContext::default()
    }
}

/// A TCP port of a container.
pub(super) fn port(name: &str, port: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: port,
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    }
}

/// Size limit of the scratch volume, in bytes.
pub(super) struct ScratchLimit(pub(super) u64);

/// The volumes of a pod, and their mounts: scratch, the shared volume, certificates, and the token for Kafka.
pub(super) fn volumes(
    plan: &PoolPlan,
    ScratchLimit(scratch_limit): ScratchLimit,
) -> (Vec<Volume>, Vec<VolumeMount>) {
    let mut volumes = vec![empty_dir("scratch", scratch_limit)];
    let mut mounts = vec![mount("scratch", SCRATCH_PATH)];
    if let Staging::SharedVolume(shared) = &plan.storage.staging {
        volumes.push(Volume {
            name: WORK_VOLUME.into(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: shared.claim_name.clone(),
                read_only: None,
            }),
            ..Volume::default()
        });
        mounts.push(mount(WORK_VOLUME, WORK_PATH));
    }
    let tls = plan.kafka.tls.as_ref();
    if let Some(tls) = tls.filter(|tls| !tls.cas.is_empty()) {
        volumes.push(ca_volume("kafka-ca", &tls.cas));
        mounts.push(read_only(mount("kafka-ca", CA_PATH)));
    }
    if let Some(client) = tls.and_then(|tls| tls.client.as_ref()) {
        volumes.push(secret_volume(
            "kafka-client",
            &[&client.certificate, &client.private_key],
        ));
        mounts.push(read_only(mount("kafka-client", CLIENT_PATH)));
    }
    if let Some(SaslPlan::Oauth(oauth)) = &plan.kafka.sasl {
        match &oauth.source {
            OauthSource::ClientCredentials(client) if client.cas.is_empty() => {}
            OauthSource::ClientCredentials(client) => {
                volumes.push(ca_volume("kafka-oauth-ca", &client.cas));
                mounts.push(read_only(mount("kafka-oauth-ca", OAUTH_CA_PATH)));
            }
            OauthSource::ServiceAccount(token) => {
                volumes.push(token_volume("kafka-token", token));
                mounts.push(read_only(mount("kafka-token", TOKEN_PATH)));
            }
        }
    }
    (volumes, mounts)
}

/// Refuses a service account token for Kafka whose audience the operator's settings do not allow.
pub(super) fn check_audience(plan: &PoolPlan, settings: &WorkerSettings) -> Result<(), Problems> {
    let Some(SaslPlan::Oauth(OauthPlan {
        source: OauthSource::ServiceAccount(ServiceAccountToken { audience, .. }),
        ..
    })) = &plan.kafka.sasl
    else {
        return Ok(());
    };
    if settings.audiences.contains(audience) || settings.allowed.contains(&Allowance::ServiceAccount) {
        return Ok(());
    }
    Err(Problems(vec![Problem {
        field: "spec.kafka.sasl.oauth.serviceAccountToken.audience".to_owned(),
        problem: format!("the operator does not allow pods to have a token of the audience {audience}"),
        fix: "add it to identity.audiences of the operator's chart (--identity-audiences), or start the operator with \
              --allow-in-pod-template service-account"
            .to_owned(),
    }]))
}

/// Requests of a role's pods whose pool has none; those of a processor fit on a node with two cores. A GPU is the pool's
/// own request.
pub(super) fn default_requests(plan: &PoolPlan, role: Role) -> DefaultRequests {
    let (cpu, memory) = match role {
        Role::Processor if plan.provider.is_cpu() => ("1", "1Gi"),
        Role::Processor => ("1", "2Gi"),
        Role::Uploader => ("100m", "128Mi"),
    };
    DefaultRequests { cpu, memory }
}

/// A volume on the node's disk with a size limit in bytes.
fn empty_dir(name: &str, limit: u64) -> Volume {
    Volume {
        name: name.into(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity(limit.to_string())),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// A volume with the certificates of several Secrets, each in a file of its own.
fn ca_volume(name: &str, cas: &[SecretKey]) -> Volume {
    let sources = cas.iter().enumerate().map(|(number, ca)| VolumeProjection {
        secret: Some(SecretProjection {
            name: ca.secret.clone(),
            items: Some(vec![KeyToPath {
                key: ca.key.clone(),
                path: format!("{number}.crt"),
                ..KeyToPath::default()
            }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    });
    projected(name, sources.collect())
}

/// A volume with a token of the pod's service account, which the kubelet renews. [`check_audience`] keeps it from giving
/// access to the API server.
fn token_volume(name: &str, token: &ServiceAccountToken) -> Volume {
    let source = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(token.audience.clone()),
            expiration_seconds: i64::try_from(token.expiration.as_secs()).ok(),
            path: TOKEN_FILE.into(),
            ..ServiceAccountTokenProjection::default()
        }),
        ..VolumeProjection::default()
    };
    projected(name, vec![source])
}

fn projected(name: &str, sources: Vec<VolumeProjection>) -> Volume {
    Volume {
        name: name.into(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(sources),
            // Readable by the pod's fsGroup.
            default_mode: Some(0o440),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// A volume with only these keys of one Secret.
fn secret_volume(name: &str, keys: &[&SecretKey]) -> Volume {
    let items = keys.iter().map(|key| KeyToPath {
        key: key.key.clone(),
        path: key.key.clone(),
        ..KeyToPath::default()
    });
    Volume {
        name: name.into(),
        secret: Some(SecretVolumeSource {
            secret_name: keys.first().map(|key| key.secret.clone()),
            items: Some(items.collect()),
            // Readable by the pod's fsGroup.
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        ..VolumeMount::default()
    }
}

fn read_only(mount: VolumeMount) -> VolumeMount {
    VolumeMount {
        read_only: Some(true),
        ..mount
    }
}

pub(super) fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("admin".into()),
            scheme: Some("HTTP".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(period_seconds.min(5)),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile {
        type_: "RuntimeDefault".into(),
        localhost_profile: None,
    }
}
