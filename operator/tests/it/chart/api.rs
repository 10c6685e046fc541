//! The chart's API: it gets the same settings of Kafka and storage as the workers of a pool.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{EnvVar, PodSpec};
use separation_operator::apply::Manifest;
use separation_operator::crd;
use separation_operator::plan::{PoolPlan, Role};
use separation_operator::settings::WorkerSettings;
use serde_json::{Value, json};

use super::{rendered, with_api};
use crate::manifests::read;

const NAME: &str = "separation-operator-api";

const FULL: &str = include_str!("../../pools/full.yaml");
const TRIAL: &str = include_str!("../../../../deploy/samples/pool.yaml");
const SECURED: &str = include_str!("../../../../deploy/samples/secured-kafka.yaml");
const SHARED: &str = include_str!("../../../../deploy/samples/shared-volume.yaml");

/// Variables of a worker's environment for connections and storage, not for consuming messages.
const SHARED_VARIABLES: [&str; 12] = [
    "KAFKA_BOOTSTRAP_SERVERS",
    "KAFKA_SECURITY_PROTOCOL",
    "KAFKA_CLIENT_ID",
    "KAFKA_SSL_",
    "KAFKA_SASL_",
    "KAFKA_TASK_TOPIC",
    "KAFKA_PROCESSOR_GROUP_ID",
    "S3_",
    "AWS_",
    "TEMP_DIR",
    "OUTPUT_DIR",
    "TMPDIR",
];

/// An API with the sections that the chart's documentation says to copy from a pool.
fn values_for(pool: &str) -> Value {
    let pool: Value = serde_saphyr::from_str(pool).expect("YAML");
    let spec = &pool["spec"];
    json!({"api": {
        "enabled": true,
        "kafka": spec["kafka"],
        "storage": {"s3": spec["storage"]["s3"], "work": spec["storage"]["work"]},
        "auth": {"secretRef": {"name": "api"}},
    }})
}

fn pod(deployment: Deployment) -> PodSpec {
    deployment.spec.template.spec.expect("a pod")
}

fn api(values: &Value) -> PodSpec {
    pod(read(rendered(values).one("Deployment", NAME)))
}

fn worker(pool: &str) -> PodSpec {
    let plan = PoolPlan::from_pool(&crd::from_yaml(pool).expect("a pool")).expect("a plan");
    let settings = WorkerSettings {
        image: "separation-worker:test".to_owned(),
        allowed: BTreeSet::new(),
    };
    let manifest = Manifest::new(Arc::new(plan), Role::Processor, Arc::new(settings));
    pod(manifest.deployment(0).expect("a Deployment"))
}

/// Settings in a pod that both need.
fn shared_variables(pod: &PodSpec) -> BTreeMap<String, Value> {
    let variables = pod.containers[0].env.iter().flatten();
    let shared = variables.filter(|variable| {
        let name = variable.name.as_str();
        SHARED_VARIABLES
            .iter()
            .any(|shared| name == *shared || shared.ends_with('_') && name.starts_with(shared))
    });
    shared
        .map(|variable| (variable.name.clone(), normal(variable)))
        .collect()
}

fn normal(variable: &EnvVar) -> Value {
    let mut variable = variable.clone();
    // Defaults that the API server sets.
    if let Some(field) = variable
        .value_from
        .as_mut()
        .and_then(|from| from.field_ref.as_mut())
    {
        field.api_version = None;
    }
    serde_json::to_value(&variable).expect("JSON")
}

/// Volumes that both mount, with their mount paths.
fn mounted(pod: &PodSpec) -> BTreeMap<String, Value> {
    let volumes = pod.volumes.iter().flatten();
    let shared =
        volumes.filter(|volume| ["work", "kafka-ca", "kafka-client"].contains(&volume.name.as_str()));
    shared
        .map(|volume| {
            let mounts = pod.containers[0].volume_mounts.iter().flatten();
            let mounts: Vec<_> = mounts.filter(|mount| mount.name == volume.name).collect();
            (volume.name.clone(), json!({"volume": volume, "mounts": mounts}))
        })
        .collect()
}

#[test]
fn the_api_is_installed_only_if_enabled() {
    let objects = rendered(&json!({}));
    assert_eq!(objects.all("Deployment").len(), 1);
    for kind in ["Service", "Ingress"] {
        assert!(objects.all(kind).is_empty(), "{kind}");
    }
}

#[test]
fn the_api_gets_the_kafka_and_storage_settings_of_the_workers() {
    for pool in [FULL, TRIAL, SECURED, SHARED] {
        let (api, worker) = (api(&values_for(pool)), worker(pool));
        let worker_variables = shared_variables(&worker);
        assert!(worker_variables.len() > 8, "{worker_variables:?}");
        // The API does not consume results.
        assert_eq!(shared_variables(&api), worker_variables, "{pool}");
        assert_eq!(mounted(&api), mounted(&worker), "{pool}");
    }
}

#[test]
fn topics_groups_and_limits_can_be_set() {
    let api = api(&with_api(&json!({"api": {
        "processor": {"topic": "songs", "group": "singers"},
        "limits": {"maxInputBytes": 4_294_967_296_i64, "maxConcurrentInputs": 3},
        "outbound": {"allow": ["10.0.0.0/8", "minio.media.svc"]},
        "extraEnv": [{"name": "AWS_SESSION_TOKEN", "value": "t"}],
    }})));
    let variables = api.containers[0].env.iter().flatten();
    let values: BTreeMap<_, _> = variables
        .map(|variable| {
            (
                variable.name.as_str(),
                variable.value.as_deref().unwrap_or_default(),
            )
        })
        .collect();
    for (name, value) in [
        ("KAFKA_TASK_TOPIC", "songs"),
        ("KAFKA_PROCESSOR_GROUP_ID", "singers"),
        ("MAX_INPUT_BYTES", "4294967296"),
        ("MAX_CONCURRENT_INPUTS", "3"),
        ("OUTBOUND_ALLOW", "10.0.0.0/8,minio.media.svc"),
        ("AWS_SESSION_TOKEN", "t"),
        ("S3_STAGING", "s3://stems/staging/"),
    ] {
        assert_eq!(values.get(name), Some(&value), "{name}");
    }
}

#[test]
fn the_api_is_reachable_by_service_and_ingress() {
    let objects = rendered(&with_api(&json!({"api": {
        "service": {"type": "LoadBalancer", "port": 8080, "annotations": {"a": "b"}},
        "ingress": {
            "enabled": true,
            "className": "nginx",
            "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "2g"},
            "hosts": [{"host": "songs.example", "path": "/api"}, {"host": "songs.test"}],
            "tls": [{"secretName": "songs-tls", "hosts": ["songs.example"]}],
        },
    }})));
    let service = objects.one("Service", NAME);
    assert_eq!(service["spec"]["type"], "LoadBalancer");
    let port = &service["spec"]["ports"][0];
    assert_eq!(
        (&port["port"], &port["targetPort"]),
        (&json!(8080), &json!("http"))
    );
    let ports = &objects.one("Deployment", NAME)["spec"]["template"]["spec"]["containers"][0]["ports"];
    assert_eq!(ports[0], json!({"name": "http", "containerPort": 8000}));
    let ingress = &objects.one("Ingress", NAME)["spec"];
    assert_eq!(ingress["ingressClassName"], "nginx");
    assert_eq!(ingress["tls"][0]["secretName"], "songs-tls");
    let path = |rule: usize| &ingress["rules"][rule]["http"]["paths"][0];
    assert_eq!(
        (&path(0)["path"], &path(1)["path"]),
        (&json!("/api"), &json!("/"))
    );
    assert_eq!(
        path(0)["backend"]["service"],
        json!({"name": NAME, "port": {"name": "http"}})
    );
}

#[test]
fn the_api_ends_after_open_requests_and_has_no_token() {
    let pod = api(&with_api(&json!({})));
    // preStop, running requests (30 s), their background work (35 s), the producer (10 s).
    assert!(pod.termination_grace_period_seconds >= Some(5 + 30 + 35 + 10));
    assert_eq!(pod.automount_service_account_token, Some(false));
    assert_eq!(pod.service_account_name.as_deref(), Some("default"));
    let created = rendered(&with_api(
        &json!({"api": {"serviceAccount": {"create": true, "annotations": {"role": "r"}}}}),
    ));
    let account = created.one("ServiceAccount", NAME);
    assert_eq!(account["metadata"]["annotations"]["role"], "r");
    assert_eq!(account["automountServiceAccountToken"], false);
    let deployment: Deployment = read(created.one("Deployment", NAME));
    assert_eq!(self::pod(deployment).service_account_name.as_deref(), Some(NAME));
}
