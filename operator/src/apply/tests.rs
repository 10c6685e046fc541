//! Tests of Deployments and of refused overrides.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::crd::{PodOverrides, from_yaml};
use crate::settings::Allowance;

const FULL: &str = include_str!("../../tests/pools/full.yaml");

const SMALLEST: &str = "
apiVersion: separation.dev/v1alpha1
kind: SeparationPool
metadata: {name: vocals, namespace: media, uid: 0f3c1f6e-0000-4000-8000-000000000001}
spec:
  kafka: {bootstrapServers: 'kafka:9092'}
  storage: {s3: {bucket: stems}, work: {s3Prefix: staging/}}
";

fn settings() -> WorkerSettings {
    WorkerSettings {
        image: "separation-worker:test".into(),
        allowed: BTreeSet::new(),
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

fn with_overrides(overrides: &Value) -> SeparationPool {
    let mut pool = from_yaml(SMALLEST).expect("a pool");
    pool.spec.processor.pod_overrides = PodOverrides(overrides.as_object().expect("an object").clone());
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
    // Nor do limits, which only the operator uses.
    pool.spec.processor.scaling.max_replicas = 3;
    pool.spec.processor.scaling.paused = true;
    let scaled = with(&pool, 3);
    assert_eq!(template(three.clone()), template(scaled));
    pool.spec.processor.max_attempts = 5;
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
    pool.spec.processor.max_poll_interval_ms = Some(600_001);
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
    let pool = with_overrides(&json!({
        "metadata": {"annotations": {"team": "audio"}},
        "spec": {
            "nodeSelector": {"gpu": "yes"},
            "terminationGracePeriodSeconds": 3600,
            "containers": [
                {"name": "worker", "env": [{"name": "RUST_LOG", "value": "debug"}], "resources": {"limits": {"nvidia.com/gpu": 1}}},
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
fn overrides_that_break_pod_security_are_refused_unless_allowed() {
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
            json!({"spec": {"serviceAccount": "admin"}}),
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
        let pool = with_overrides(&overrides);
        let refused = built(&pool, Role::Processor, &settings()).unwrap_err();
        assert_eq!(refused.0.len(), 1, "{overrides}: {refused}");
        assert!(refused.to_string().contains("--allow-in-overrides"), "{refused}");
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
            built(&with_overrides(overrides), Role::Processor, &settings())
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

    pool.spec.processor.assignor = crate::crd::AssignorSpec::Range;
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
