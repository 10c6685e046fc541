//! Each value has its documented effect, and the defaults are the operator's own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use separation_operator::apply::{Manifest, api_objects};
use separation_operator::plan::{Model, PoolPlan, Role};
use separation_operator::settings::{Allowance, WorkerSettings};
use separation_testbed::Release;
use serde_json::{Value, json};

use super::{NAME, refusal, rendered};
use crate::manifests::settings;

#[test]
fn images_are_named_by_tag_or_by_digest() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let objects = rendered(&json!({
        "image": {"repository": "r.example/o", "tag": "1.2", "digest": digest, "pullPolicy": "Always"},
        "worker": {"image": {"repository": "r.example/w", "tag": "1.2-cuda"}},
    }));
    let pod = objects.pod();
    let container = &pod.containers[0];
    assert_eq!(container.image, Some(format!("r.example/o@{digest}")));
    assert_eq!(container.image_pull_policy.as_deref(), Some("Always"));
    assert_eq!(settings(container).workers.image, "r.example/w:1.2-cuda");
}

#[test]
fn every_setting_reaches_the_operator() {
    let objects = rendered(&json!({
        "worker": {"model": "UVR-MDX-NET-Inst_HQ_4", "allowInPodTemplate": ["host-path", "root"]},
        "settings": {
            "logLevel": "info,separation_operator=debug",
            "logFormat": "text",
            "shutdownSeconds": 7,
            "keepOffsetsSeconds": 604_800,
            "offsetRefreshSeconds": 11,
            "secretRefreshSeconds": 12,
            "lease": {"durationSeconds": 30, "renewDeadlineSeconds": 20.5, "retryPeriodSeconds": 0.5},
        },
        "extraEnv": [{"name": "HEALTH_ADDRESS", "value": "[::]:8080"}],
    }));
    let understood = settings(&objects.pod().containers[0]);
    assert_eq!(understood.workers.model.name, "UVR-MDX-NET-Inst_HQ_4");
    assert_eq!(
        understood.workers.allowed,
        [Allowance::HostPath, Allowance::Root].into()
    );
    let seconds = Duration::from_secs;
    assert_eq!(understood.shutdown, seconds(7));
    assert_eq!(understood.keep_offsets_after, seconds(604_800));
    assert_eq!(understood.refresh.offsets, seconds(11));
    assert_eq!(understood.refresh.secrets, seconds(12));
    let timings = understood.lease.timings;
    assert_eq!(timings.duration(), seconds(30));
    assert_eq!(timings.renew_deadline(), Duration::from_millis(20_500));
    assert_eq!(timings.retry_period(), Duration::from_millis(500));
    assert_eq!(understood.health_address.to_string(), "[::]:8080");
}

#[test]
fn pods_get_the_scheduling_settings() {
    let spread = json!([{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]);
    let placement = json!({
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": spread,
        "priorityClassName": "system-cluster-critical",
    });
    let mut values = json!({"imagePullSecrets": [{"name": "registry"}]});
    json_patch::merge(&mut values, &placement);
    let objects = rendered(&values);
    let pod = &objects.one("Deployment", NAME)["spec"]["template"]["spec"];
    for (field, value) in values.as_object().expect("fields") {
        assert_eq!(&pod[field], value);
    }
    // They are spread by default.
    let spread = &rendered(&json!({}))
        .pod()
        .topology_spread_constraints
        .expect("some")[0];
    assert_eq!(spread.topology_key, "kubernetes.io/hostname");
}

#[test]
fn pull_secrets_reach_the_pods_of_operator_test_workers_and_apis() {
    let secrets = json!([{"name": "registry"}, {"name": "mirror"}]);
    let objects = rendered(&json!({"imagePullSecrets": secrets}));
    let test = objects.one("Pod", "separation-operator-test");
    assert_eq!(test["spec"]["imagePullSecrets"], secrets);
    let operator = objects.pod();
    let names = settings(&operator.containers[0]).workers.image_pull_secrets;
    assert_eq!(names, ["registry", "mirror"]);
    for deployment in deployments_of_a_pool(names) {
        let pod = deployment.spec.template.spec.expect("a pod");
        assert_eq!(json!(pod.image_pull_secrets), secrets);
    }
}

#[test]
fn extra_objects_are_rendered_with_the_release() {
    let notes = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "{{ .Release.Name }}-notes"},
        "data": {"braces": "{}"},
    });
    let objects = rendered(&json!({"extraObjects": [notes, notes]}));
    let found: Vec<_> = objects.all("ConfigMap");
    assert_eq!(found.len(), 2);
    for object in found {
        assert_eq!(object["metadata"]["name"], "separation-operator-notes");
        assert_eq!(object["data"]["braces"], "{}");
    }
    let incomplete = refusal(&json!({"extraObjects": [{"kind": "ConfigMap"}]}));
    assert!(incomplete.contains("/extraObjects/0"), "{incomplete}");
}

#[test]
fn labels_annotations_and_resources_are_added() {
    let objects = rendered(&json!({
        "commonLabels": {"team": "audio"},
        "podLabels": {"tier": "control"},
        "podAnnotations": {"note": "1"},
        "serviceAccount": {"annotations": {"role": "r"}},
        "resources": {"limits": {"memory": "1Gi"}},
        "replicas": 3,
    }));
    assert!(
        objects
            .0
            .iter()
            .all(|object| object["metadata"]["labels"]["team"] == "audio")
    );
    let spec = &objects.one("Deployment", NAME)["spec"];
    assert_eq!(spec["replicas"], 3);
    let pod = &spec["template"];
    assert_eq!(pod["metadata"]["labels"]["tier"], "control");
    assert_eq!(pod["metadata"]["labels"]["team"], "audio");
    assert_eq!(pod["metadata"]["annotations"]["note"], "1");
    assert_eq!(
        pod["spec"]["containers"][0]["resources"]["limits"]["memory"],
        "1Gi"
    );
    assert!(
        spec["selector"]["matchLabels"].get("team").is_none(),
        "selectors never change"
    );
    let account = objects.one("ServiceAccount", NAME);
    assert_eq!(account["metadata"]["annotations"]["role"], "r");
}

#[test]
fn a_budget_can_be_left_out_or_changed() {
    let without = rendered(&json!({"podDisruptionBudget": {"enabled": false}}));
    assert!(without.all("PodDisruptionBudget").is_empty());
    let half = rendered(&json!({"podDisruptionBudget": {"maxUnavailable": "50%"}}));
    assert_eq!(
        half.one("PodDisruptionBudget", NAME)["spec"]["maxUnavailable"],
        "50%"
    );
}

#[test]
fn prometheus_finds_the_operator_and_the_workers() {
    assert!(rendered(&json!({})).all("PodMonitor").is_empty());
    let values = json!({
        "podMonitor": {"enabled": true, "interval": "10s", "labels": {"release": "prometheus"}},
    });
    let objects = rendered(&values);
    let operator = objects.one("PodMonitor", NAME);
    assert_eq!(operator["metadata"]["labels"]["release"], "prometheus");
    let endpoint = &operator["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["interval"], "10s");
    // The label `namespace` is the pool's.
    assert_eq!(endpoint["honorLabels"], true);
    let ports = objects.pod().containers[0].ports.clone().expect("ports");
    assert!(
        ports
            .iter()
            .any(|port| port.name.as_deref() == endpoint["port"].as_str())
    );
    let workers = objects.one("PodMonitor", "separation-operator-workers");
    assert_eq!(workers["spec"]["namespaceSelector"], json!({"any": true}));
    let mut listed = values.clone();
    json_patch::merge(&mut listed, &json!({"watchNamespaces": ["media"]}));
    let listed = rendered(&listed);
    let workers = listed.one("PodMonitor", "separation-operator-workers");
    assert_eq!(
        workers["spec"]["namespaceSelector"],
        json!({"matchNames": ["media"]})
    );
    let mut alone = values;
    json_patch::merge(&mut alone, &json!({"podMonitor": {"workers": false}}));
    assert_eq!(rendered(&alone).all("PodMonitor").len(), 1);
}

#[test]
fn prometheus_finds_all_pods_of_a_pool() {
    let objects = rendered(&json!({"podMonitor": {"enabled": true}}));
    let spec = &objects.one("PodMonitor", "separation-operator-workers")["spec"];
    let selector = spec["selector"]["matchLabels"].as_object().expect("labels");
    let endpoint = &spec["podMetricsEndpoints"][0];
    let relabelings = endpoint["relabelings"].as_array().expect("labels");
    let port = endpoint["port"].as_str();
    for deployment in deployments_of_a_pool(Vec::new()) {
        let template = deployment.spec.template;
        let labels = template
            .metadata
            .and_then(|metadata| metadata.labels)
            .expect("labels");
        for (name, value) in selector {
            assert_eq!(labels.get(name).map(String::as_str), value.as_str(), "{labels:?}");
        }
        // Prometheus replaces what is not allowed in its names by `_`.
        let discovered = |name: &str| name.replace(['.', '/', '-'], "_");
        for relabeling in relabelings {
            let source = relabeling["sourceLabels"][0].as_str().expect("a name");
            let source = source
                .strip_prefix("__meta_kubernetes_pod_label_")
                .expect("a label");
            assert!(labels.keys().any(|name| discovered(name) == source), "{labels:?}");
        }
        let containers = template.spec.expect("a pod").containers;
        let mut ports = containers[0].ports.iter().flatten();
        assert!(ports.any(|found| found.name.as_deref() == port), "{labels:?}");
    }
}

/// The Deployments of a pool with an API.
fn deployments_of_a_pool(image_pull_secrets: Vec<String>) -> [Deployment; 3] {
    let pool = separation_operator::crd::from_yaml(include_str!("../../pools/full.yaml")).expect("a pool");
    let plan = Arc::new(PoolPlan::from_pool(&pool).expect("a plan"));
    let settings = Arc::new(WorkerSettings {
        image: "separation-worker:test".to_owned(),
        image_pull_secrets,
        model: Model::named("builtin"),
        allowed: BTreeSet::new(),
        audiences: BTreeSet::new(),
    });
    let api = plan.api.as_ref().expect("an API");
    let api = api_objects(&plan, api, None, &settings, None).expect("objects");
    let of_role = |role| {
        let manifest = Manifest::new(Arc::clone(&plan), role, Arc::clone(&settings));
        manifest.deployment(0).expect("a Deployment")
    };
    [of_role(Role::Processor), of_role(Role::Uploader), api.deployment]
}

#[test]
fn the_network_policy_allows_the_needed_connections() {
    assert!(rendered(&json!({})).all("NetworkPolicy").is_empty());
    let from = json!([{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]);
    let objects = rendered(&json!({"networkPolicy": {
        "enabled": true,
        "metricsFrom": from,
        "kafkaPorts": [9094],
        "extraEgress": [{"ports": [{"port": 8088}]}],
    }}));
    let policy = &objects.one("NetworkPolicy", NAME)["spec"];
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(
        policy["ingress"],
        json!([{"ports": [{"port": "health"}], "from": from}])
    );
    let open: Vec<i64> = policy["egress"]
        .as_array()
        .expect("rules")
        .iter()
        .flat_map(|rule| rule["ports"].as_array().into_iter().flatten())
        .filter_map(|port| port["port"].as_i64())
        .collect();
    assert_eq!(open, [53, 53, 443, 6443, 9094, 8088]);
}

#[test]
fn helm_lint_reports_no_problem() {
    Release::default().lint(&json!({})).expect("no fault");
}

#[test]
fn notes_name_the_next_steps_and_missing_metrics() {
    let notes = |values: &Value| Release::default().notes(values).expect("notes");
    let bare = notes(&json!({}));
    for part in [
        "all namespaces",
        "helm test separation-operator -n separation-system",
    ] {
        assert!(bare.contains(part), "{part} is not in\n{bare}");
    }
    let named = notes(&json!({"crds": {"keep": false}, "watchNamespaces": ["media"]}));
    for part in ["SeparationPools of media.", "uninstalling deletes"] {
        assert!(named.contains(part), "{part} is not in\n{named}");
    }
    for (alerts, monitor) in [(false, false), (true, false), (true, true)] {
        let values = json!({"alerts": {"enabled": alerts}, "podMonitor": {"enabled": monitor}});
        let notes = notes(&values);
        let warns = notes.contains("fix: set podMonitor.enabled=true");
        assert_eq!(warns, alerts && !monitor, "{notes}");
    }
}
