//! Tests of Deployments and of refused pod templates.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::crd::{ByteQuantity, ModelSpec, PodTemplate, ScalingMode, from_yaml};
use crate::plan::Model;
use crate::settings::Allowance;

const FULL: &str = include_str!("../../tests/pools/full.yaml");

const SMALLEST: &str = "
apiVersion: separation.dev/v1beta1
kind: SeparationPool
metadata: {name: vocals, namespace: media, uid: 0f3c1f6e-0000-4000-8000-000000000001}
spec:
  kafka: {bootstrapServers: 'kafka:9092'}
  storage: {stems: {bucket: stems}, staging: {s3: {}}}
";

fn settings() -> WorkerSettings {
    WorkerSettings {
        image: "separation-worker:test".into(),
        image_pull_secrets: Vec::new(),
        model: Model::named("builtin"),
        allowed: BTreeSet::new(),
        audiences: BTreeSet::new(),
    }
}

fn built(pool: &SeparationPool, role: Role, settings: &WorkerSettings) -> Result<Deployment, Problems> {
    let manifest = Manifest {
        owner: owner_reference(pool).map(Arc::new),
        settings: Arc::new(settings.clone()),
        ..manifest(pool, role)
    };
    manifest.deployment(3)
}

fn manifest(pool: &SeparationPool, role: Role) -> Manifest {
    let plan = PoolPlan::from_pool(pool).expect("a plan");
    Manifest::new(Arc::new(plan), role, Arc::new(settings()))
}

fn yaml(deployment: &Deployment) -> String {
    let value = serde_json::to_value(deployment).expect("JSON");
    serde_saphyr::to_string(&value).expect("YAML")
}

fn with_pod_template(template: &Value) -> SeparationPool {
    let mut pool = from_yaml(SMALLEST).expect("a pool");
    pool.spec.processor.role.pod.pod_template = PodTemplate(template.as_object().expect("an object").clone());
    pool
}

fn template(deployment: Deployment) -> Value {
    serde_json::to_value(deployment.spec.template).expect("JSON")
}

#[test]
fn the_smallest_pool_becomes_these_deployments() {
    let pool = from_yaml(SMALLEST).unwrap();
    insta::assert_snapshot!(
        "smallest_processor",
        yaml(&built(&pool, Role::Processor, &settings()).unwrap())
    );
    insta::assert_snapshot!(
        "smallest_uploader",
        yaml(&built(&pool, Role::Uploader, &settings()).unwrap())
    );
}

#[test]
fn the_full_pool_becomes_these_deployments() {
    let pool = from_yaml(FULL).unwrap();
    insta::assert_snapshot!(
        "full_processor",
        yaml(&built(&pool, Role::Processor, &settings()).unwrap())
    );
    insta::assert_snapshot!(
        "full_uploader",
        yaml(&built(&pool, Role::Uploader, &settings()).unwrap())
    );
}

#[test]
fn replicas_never_change_the_template_and_settings_do() {
    let mut pool = from_yaml(SMALLEST).unwrap();
    let with =
        |pool: &SeparationPool, replicas| manifest(pool, Role::Processor).deployment(replicas).unwrap();
    let (three, four) = (with(&pool, 3), with(&pool, 4));
    assert_eq!(manifest_hash(&three), manifest_hash(&four));
    assert_eq!(template(three.clone()), template(four));
    // Nor do limits of up to 100, which only the operator uses.
    let scaling = &mut pool.spec.processor.role.scaling;
    scaling.max_replicas = 3;
    scaling.mode = ScalingMode::Paused;
    let scaled = with(&pool, 3);
    assert_eq!(template(three.clone()), template(scaled));
    pool.spec.processor.role.max_crashes = 5;
    let changed = with(&pool, 3);
    assert_ne!(manifest_hash(&three), manifest_hash(&changed));
    assert_ne!(template(three), template(changed));
}

#[test]
fn changed_secrets_change_the_template_and_unchanged_ones_do_not() {
    let mut manifest = manifest(&from_yaml(SMALLEST).unwrap(), Role::Processor);
    let plain = manifest.deployment(3).unwrap();
    let mut with = |hash: &str| {
        manifest.secrets_hash = Some(hash.into());
        manifest.deployment(3).unwrap()
    };
    let (one, two) = (with("one"), with("two"));
    assert_eq!(one, with("one"));
    assert_eq!(one.spec.replicas, Some(3));
    let hashes = [&plain, &one, &two].map(manifest_hash);
    assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2], "{hashes:?}");
    assert_eq!(
        template(one.clone())["metadata"]["annotations"]["separation.dev/secrets-hash"],
        "one"
    );
    assert_eq!(
        DeploymentSnapshot::from_deployment(&one).secrets_hash.as_deref(),
        Some("one")
    );
}

#[test]
fn the_grace_period_covers_a_task_and_closing_in_whole_seconds() {
    let mut pool = from_yaml(SMALLEST).unwrap();
    pool.spec.processor.role.consumer.max_poll_interval_ms = Some(600_001);
    let spec = built(&pool, Role::Processor, &settings()).unwrap().spec;
    let grace = spec
        .template
        .spec
        .unwrap()
        .termination_grace_period_seconds
        .unwrap();
    assert_eq!(grace, 631);
    assert!(i64::from(spec.progress_deadline_seconds.unwrap()) > grace);
}

#[test]
fn lists_with_names_are_merged_and_others_replaced() {
    let pool = with_pod_template(&json!({
        "metadata": {"annotations": {"team": "audio"}},
        "spec": {
            "nodeSelector": {"gpu": "yes"},
            "terminationGracePeriodSeconds": 3600,
            "containers": [
                {"name": "worker", "env": [{"name": "RUST_LOG", "value": "debug"}], "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "512Mi"}}},
                {"name": "sidecar", "image": "sidecar:1"},
            ],
            "volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "9Gi"}}}}}}],
        },
    }));
    let template = template(built(&pool, Role::Processor, &settings()).unwrap());
    let pod = &template["spec"];
    assert_eq!(template["metadata"]["annotations"]["team"], "audio");
    assert_eq!(
        template["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"],
        "true"
    );
    assert_eq!(pod["terminationGracePeriodSeconds"], 3600);
    assert_eq!(pod["containers"][0]["name"], "worker");
    assert_eq!(pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"], "1");
    // Our request could be above the limit.
    assert_eq!(pod["containers"][0]["resources"]["requests"], json!({"cpu": "1"}));
    let variables = pod["containers"][0]["env"].as_array().unwrap();
    assert!(variables.iter().any(|variable| variable["name"] == "RUST_LOG"));
    assert!(
        variables
            .iter()
            .any(|variable| variable["name"] == "KAFKA_CLIENT_ID")
    );
    assert_eq!(pod["containers"][1]["name"], "sidecar");
    let scratch = pod["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|volume| volume["name"] == "scratch")
        .unwrap();
    assert!(scratch["emptyDir"].is_null() && scratch["ephemeral"].is_object());
}

#[test]
fn templates_that_break_pod_security_are_refused_unless_allowed() {
    let worker = |container: Value| {
        let mut container = container;
        container["name"] = json!("worker");
        json!({"spec": {"containers": [container]}})
    };
    let context = |context: Value| worker(json!({"securityContext": context}));
    let init = |context: Value| json!({"spec": {"initContainers": [{"name": "init", "image": "i", "securityContext": context}]}});
    let volume = |source: Value| json!({"spec": {"volumes": [source]}});
    let cases = [
        (
            Allowance::ServiceAccount,
            json!({"spec": {"serviceAccountName": "admin"}}),
        ),
        (
            Allowance::ServiceAccount,
            json!({"spec": {"automountServiceAccountToken": true}}),
        ),
        (
            Allowance::ServiceAccount,
            volume(json!({"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}})),
        ),
        (Allowance::HostNamespaces, json!({"spec": {"hostNetwork": true}})),
        (Allowance::HostNamespaces, json!({"spec": {"hostPID": true}})),
        (Allowance::HostNamespaces, json!({"spec": {"hostIPC": true}})),
        (
            Allowance::HostNamespaces,
            worker(json!({"ports": [{"containerPort": 1, "hostPort": 1}]})),
        ),
        (
            Allowance::HostPath,
            volume(json!({"name": "h", "hostPath": {"path": "/"}})),
        ),
        (
            Allowance::HostPath,
            volume(json!({"name": "scratch", "hostPath": {"path": "/tmp"}})),
        ),
        (Allowance::Privileged, context(json!({"privileged": true}))),
        (
            Allowance::Privileged,
            context(json!({"allowPrivilegeEscalation": true})),
        ),
        (
            Allowance::Privileged,
            context(json!({"capabilities": {"add": ["SYS_ADMIN"]}})),
        ),
        (Allowance::Privileged, context(json!({"procMount": "Unmasked"}))),
        (
            Allowance::Privileged,
            context(json!({"seccompProfile": {"type": "Unconfined"}})),
        ),
        (Allowance::Privileged, init(json!({"privileged": true}))),
        (
            Allowance::Privileged,
            json!({"spec": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}}),
        ),
        (
            Allowance::Privileged,
            json!({"spec": {"securityContext": {"sysctls": [{"name": "a", "value": "b"}]}}}),
        ),
        (
            Allowance::Root,
            json!({"spec": {"securityContext": {"runAsUser": 0}}}),
        ),
        (
            Allowance::Root,
            json!({"spec": {"securityContext": {"runAsNonRoot": false}}}),
        ),
        (
            Allowance::Root,
            json!({"spec": {"securityContext": {"supplementalGroups": [0]}}}),
        ),
        (Allowance::Root, context(json!({"runAsUser": 0}))),
        (Allowance::Root, init(json!({"runAsGroup": 0}))),
    ];
    for (allowance, overrides) in cases {
        let pool = with_pod_template(&overrides);
        let refused = built(&pool, Role::Processor, &settings()).unwrap_err();
        assert_eq!(refused.0.len(), 1, "{overrides}: {refused}");
        assert!(
            refused.to_string().contains("--allow-in-pod-template"),
            "{refused}"
        );
        let lenient = WorkerSettings {
            allowed: BTreeSet::from([allowance]),
            ..settings()
        };
        assert!(built(&pool, Role::Processor, &lenient).is_ok(), "{overrides}");
    }
}

#[test]
fn fields_that_the_operator_depends_on_cannot_be_overridden() {
    let worker = |container: Value| {
        let mut container = container;
        container["name"] = json!("worker");
        json!({"spec": {"containers": [container]}})
    };
    let refused = [
        json!({"metadata": {"labels": {"separation.dev/pool": "other"}}}),
        json!({"metadata": {"labels": {"separation.dev/more": "1"}}}),
        json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-2000"}}}),
        json!({"metadata": {"annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}}}),
        json!({"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": "false"}}}),
        json!({"metadata": {"annotations": {"separation.dev/secrets-hash": "1"}}}),
        json!({"metadata": {"finalizers": ["example.com/never"]}}),
        json!({"spec": {"terminationGracePeriodSeconds": 30}}),
        json!({"spec": {"restartPolicy": "Never"}}),
        json!({"spec": {"serviceAccount": "admin"}}),
        worker(json!({"command": ["sh"]})),
        worker(json!({"args": ["uploader"]})),
        worker(json!({"lifecycle": {"preStop": {"exec": {"command": ["true"]}}}})),
        worker(json!({"env": [{"name": "KAFKA_CLIENT_ID", "value": "me"}]})),
        worker(json!({"env": [{"name": "KAFKA_AUTO_OFFSET_RESET", "value": "latest"}]})),
        json!({"spec": {"nodeselector": {"gpu": "yes"}}}),
        worker(json!({"resource": {"limits": {"cpu": 1}}})),
        json!({"spec": {"containers": "worker"}}),
    ];
    let messages: Vec<String> = refused
        .iter()
        .map(|overrides| {
            built(&with_pod_template(overrides), Role::Processor, &settings())
                .unwrap_err()
                .to_string()
        })
        .collect();
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn a_changed_assignor_recreates_all_pods_until_the_rollout_is_complete() {
    let mut pool = from_yaml(SMALLEST).unwrap();
    let mut running = built(&pool, Role::Processor, &settings()).unwrap();
    let plan = PoolPlan::from_pool(&pool).unwrap();
    assert_eq!(rollout(None, &plan.processor), Rollout::RollingUpdate);
    assert_eq!(
        rollout(
            Some(&DeploymentSnapshot::from_deployment(&running)),
            &plan.processor
        ),
        Rollout::RollingUpdate
    );

    pool.spec.processor.role.consumer.assignor = crate::crd::AssignorSpec::Range;
    let plan = PoolPlan::from_pool(&pool).unwrap();
    assert_eq!(
        rollout(
            Some(&DeploymentSnapshot::from_deployment(&running)),
            &plan.processor
        ),
        Rollout::Recreate
    );
    let recreate = Manifest {
        rollout: Rollout::Recreate,
        ..manifest(&pool, Role::Processor)
    };
    running = recreate.deployment(3).unwrap();
    assert_eq!(
        rollout(
            Some(&DeploymentSnapshot::from_deployment(&running)),
            &plan.processor
        ),
        Rollout::Recreate
    );
    let status = |observed, old, terminating| k8s_openapi::api::apps::v1::DeploymentStatus {
        observed_generation: Some(observed),
        replicas: Some(3),
        updated_replicas: Some(3 - old),
        terminating_replicas: Some(terminating),
        ..Default::default()
    };
    running.metadata.generation = Some(2);
    for (observed, old, terminating, expected) in [
        (1, 0, 0, Rollout::Recreate),
        (2, 3, 0, Rollout::Recreate),
        (2, 0, 1, Rollout::Recreate),
        (2, 0, 0, Rollout::RollingUpdate),
    ] {
        running.status = Some(status(observed, old, terminating));
        assert_eq!(
            rollout(
                Some(&DeploymentSnapshot::from_deployment(&running)),
                &plan.processor
            ),
            expected
        );
    }
}

#[test]
fn typed_fields_are_merged_before_the_pod_template() {
    let mut pool = from_yaml(SMALLEST).unwrap();
    let fields = json!({
        "image": "worker:cuda",
        "resources": {"limits": {"nvidia.com/gpu": 1, "cpu": "1500m"}},
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "registry"}],
        "priorityClassName": "batch",
        "env": [{"name": "RUST_BACKTRACE", "value": "1"}],
        "podTemplate": {"spec": {"nodeSelector": {"disk": "fast"}}},
    });
    pool.spec.processor.role.pod = serde_json::from_value(fields).unwrap();
    let settings = WorkerSettings {
        image_pull_secrets: ["mirror", "registry"].map(str::to_owned).into(),
        ..settings()
    };
    let template = template(built(&pool, Role::Processor, &settings).unwrap());
    let pod = &template["spec"];
    let worker = &pod["containers"][0];
    assert_eq!(worker["image"], "worker:cuda");
    assert_eq!(
        worker["resources"]["limits"],
        json!({"nvidia.com/gpu": "1", "cpu": "1500m"})
    );
    // Our request of CPU could be above the pool's limit.
    assert_eq!(worker["resources"]["requests"], json!({"memory": "1Gi"}));
    let variable = |name: &str| {
        let variables = worker["env"].as_array().unwrap().iter();
        variables
            .clone()
            .find(|variable| variable["name"] == name)
            .map(|variable| variable["value"].clone())
    };
    assert_eq!(variable("RUST_BACKTRACE"), Some(json!("1")));
    assert_eq!(variable("THREADS"), Some(json!("2")), "1.5 cores, rounded up");
    assert_eq!(pod["nodeSelector"], json!({"disk": "fast"}), "replaced as one");
    assert_eq!(pod["tolerations"][0]["key"], "nvidia.com/gpu");
    let secrets = json!([{"name": "mirror"}, {"name": "registry"}]);
    assert_eq!(pod["imagePullSecrets"], secrets, "each once");
    assert_eq!(pod["priorityClassName"], "batch");
}

#[test]
fn a_processor_has_as_many_threads_as_cores_and_two_by_default() {
    let mut pool = from_yaml(SMALLEST).unwrap();
    let mut given = |fields: Value| {
        pool.spec.processor.role.pod = serde_json::from_value(fields).unwrap();
        let template = template(built(&pool, Role::Processor, &settings()).unwrap());
        let worker = &template["spec"]["containers"][0];
        let mut variables = worker["env"].as_array().unwrap().iter();
        let threads = variables.find(|variable| variable["name"] == "THREADS");
        let threads = threads.expect("a number of threads")["value"].clone();
        (worker["resources"]["requests"]["cpu"].clone(), threads)
    };
    let worker =
        |resources: Value| json!({"spec": {"containers": [{"name": "worker", "resources": resources}]}});
    for (fields, request, threads) in [
        // A node with two cores has less than two for pods.
        (json!({}), json!("1"), "2"),
        (
            json!({"resources": {"limits": {"memory": "4Gi"}}}),
            json!("1"),
            "2",
        ),
        (json!({"resources": {"requests": {"cpu": 1}}}), json!("1"), "1"),
        (
            json!({"resources": {"requests": {"cpu": "100m"}}}),
            json!("100m"),
            "1",
        ),
        (
            json!({"resources": {"requests": {"cpu": 1}, "limits": {"cpu": "3500m"}}}),
            json!("1"),
            "4",
        ),
        (
            json!({"podTemplate": worker(json!({"limits": {"cpu": 4}}))}),
            Value::Null,
            "4",
        ),
        (
            json!({"env": [{"name": "THREADS", "value": "7"}]}),
            json!("1"),
            "7",
        ),
    ] {
        assert_eq!(given(fields.clone()), (request, json!(threads)), "{fields}");
    }
}

#[test]
fn a_model_at_an_address_is_downloaded_into_a_volume_of_its_own() {
    let mut pool = from_yaml(SMALLEST).expect("a pool");
    pool.spec.egress.allowed_private_hosts = vec!["models.media.svc".into()];
    let sha256 = "0f".repeat(32);
    pool.spec.processor.model = Some(ModelSpec {
        uri: Some("https://models.media.svc/a.onnx".into()),
        sha256: Some(sha256.clone()),
        max_memory: Some(ByteQuantity(json!("1Gi"))),
        ..ModelSpec::default()
    });
    let processor = template(built(&pool, Role::Processor, &settings()).expect("a Deployment"));
    let container = &processor["spec"]["containers"][0];
    let variable = |name: &str| {
        let mut variables = container["env"].as_array().expect("a list").iter();
        variables
            .find(|variable| variable["name"] == name)
            .map(|variable| variable["value"].clone())
    };
    assert_eq!(
        variable("MODEL_URI"),
        Some(json!("https://models.media.svc/a.onnx"))
    );
    assert_eq!(variable("MODEL_SHA256"), Some(json!(sha256)));
    assert_eq!(variable("OUTBOUND_ALLOW"), Some(json!("models.media.svc")));
    assert_eq!(variable("MODEL_NAME"), None);
    assert_eq!(variable("MODEL_MAX_MEMORY"), Some(json!("1073")));
    let mounts = container["volumeMounts"].as_array().expect("a list");
    assert!(mounts.contains(&json!({"name": "models", "mountPath": "/scratch/models"})));
    // A cached model of 2 GiB evicts no pod.
    let volumes = processor["spec"]["volumes"].as_array().expect("a list").iter();
    let limits: Vec<_> = volumes.map(|volume| &volume["emptyDir"]["sizeLimit"]).collect();
    assert_eq!(limits, [&json!("9448928051"), &json!("2362232012")]);
    // Other pods have no model.
    let uploader = template(built(&pool, Role::Uploader, &settings()).expect("a Deployment"));
    assert!(!uploader.to_string().contains("models.media.svc/a.onnx"));
}

#[test]
fn a_misspelled_field_without_a_schema_is_named() {
    let mut pool = from_yaml(SMALLEST).unwrap();
    let fields = json!({
        "affinity": {"nodeAfinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}},
        "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "keys": "token"}}}],
    });
    pool.spec.processor.role.pod = serde_json::from_value(fields).unwrap();
    let refused = built(&pool, Role::Processor, &settings()).unwrap_err();
    let fields: Vec<&str> = refused.0.iter().map(|problem| &*problem.field).collect();
    assert_eq!(
        fields,
        [
            "spec.processor.affinity.nodeAfinity",
            "spec.processor.env[TOKEN].valueFrom.secretKeyRef.keys"
        ]
    );
}

#[test]
fn typed_fields_are_refused_as_their_pod_template_would_be() {
    let mut pool = from_yaml(SMALLEST).unwrap();
    let fields = json!({
        "serviceAccountName": "admin",
        "env": [{"name": "KAFKA_CLIENT_ID", "value": "me"}],
    });
    pool.spec.processor.role.pod = serde_json::from_value(fields).unwrap();
    insta::assert_snapshot!(built(&pool, Role::Processor, &settings()).unwrap_err());
}

#[test]
fn the_api_becomes_these_objects() {
    let text = format!(
        "{SMALLEST}  egress: {{allowedPrivateHosts: [10.0.0.0/8]}}\n  api: {{basicAuthSecretRef: {{name: api}}, replicas: 3}}\n"
    );
    let pool = from_yaml(&text).unwrap();
    let plan = PoolPlan::from_pool(&pool).unwrap();
    let owner = owner_reference(&pool);
    let api = plan.api.as_ref().unwrap();
    let objects = api_objects(&plan, api, owner.as_ref(), &settings(), Some("secrets")).unwrap();
    let text = [
        serde_json::to_value(&objects.deployment).unwrap(),
        serde_json::to_value(&objects.service).unwrap(),
        serde_json::to_value(&objects.account).unwrap(),
    ];
    insta::assert_snapshot!(
        text.map(|object| serde_saphyr::to_string(&object).unwrap())
            .join("---\n")
    );
}
