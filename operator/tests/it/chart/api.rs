//! The API beside the operator: told of Kafka and storage what workers of a pool are told.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{EnvVar, PodSpec};
use separation_operator::apply::{self, Rollout};
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

/// What of a worker's environment is about reaching Kafka and songs, and not about taking messages.
const SHARED_WORDS: [&str; 12] = [
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

/// An API with the sections of a pool that the chart says to copy.
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
    let plan = PoolPlan::of(&crd::from_yaml(pool).expect("a pool")).expect("a plan");
    let settings = WorkerSettings {
        image: "separation-worker:test".to_owned(),
        allowed: BTreeSet::new(),
    };
    let built = apply::deployment(&plan, Role::Processor, None, &settings, 0, Rollout::Rolling);
    pod(built.expect("a Deployment"))
}

/// What a pod is told that both have to be told.
fn told(pod: &PodSpec) -> BTreeMap<String, Value> {
    let variables = pod.containers[0].env.iter().flatten();
    let shared = variables.filter(|variable| {
        let name = variable.name.as_str();
        SHARED_WORDS
            .iter()
            .any(|word| name == *word || word.ends_with('_') && name.starts_with(word))
    });
    shared
        .map(|variable| (variable.name.clone(), normal(variable)))
        .collect()
}

fn normal(variable: &EnvVar) -> Value {
    let mut variable = variable.clone();
    // What the API server fills in.
    if let Some(field) = variable
        .value_from
        .as_mut()
        .and_then(|from| from.field_ref.as_mut())
    {
        field.api_version = None;
    }
    serde_json::to_value(&variable).expect("JSON")
}

/// Volumes of files that both read, each with where it is mounted.
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
fn there_is_none_unless_it_is_asked_for() {
    let objects = rendered(&json!({}));
    assert_eq!(objects.all("Deployment").len(), 1);
    for kind in ["Service", "Ingress"] {
        assert!(objects.all(kind).is_empty(), "{kind}");
    }
}

#[test]
fn it_is_told_of_kafka_and_storage_what_workers_are_told() {
    for pool in [FULL, TRIAL, SECURED, SHARED] {
        let (api, worker) = (api(&values_for(pool)), worker(pool));
        let told_to_worker = told(&worker);
        assert!(told_to_worker.len() > 8, "{told_to_worker:?}");
        // Results are none of the API's business.
        assert_eq!(told(&api), told_to_worker, "{pool}");
        assert_eq!(mounted(&api), mounted(&worker), "{pool}");
    }
}

#[test]
fn topics_groups_and_limits_can_be_others() {
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
fn callers_reach_it_by_service_and_ingress() {
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
fn it_ends_after_its_callers_and_holds_no_token() {
    let pod = api(&with_api(&json!({})));
    // preStop, running requests (30 s), what they left (35 s), the producer (10 s).
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
