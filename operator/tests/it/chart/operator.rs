//! The operator's own objects: names, permissions, selectors, and security settings that no value may weaken.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PodSpec;
use separation_operator::settings::Namespaces;
use separation_testbed::Release;
use serde_json::{Value, json};

use super::{NAME, Rendered, rendered, rendered_as};
use crate::manifests::{read, settings};

/// Cluster-scoped kinds.
const CLUSTER_WIDE: [&str; 3] = ["CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"];

/// All objects of the chart.
fn everything() -> Value {
    json!({
        "rbac": {"aggregate": true},
        "podMonitor": {"enabled": true},
        "alerts": {"enabled": true},
        "dashboards": {"enabled": true},
        "networkPolicy": {"enabled": true},
    })
}

/// Labels of a workload's pods.
fn pod_labels(object: &Value) -> BTreeMap<String, String> {
    let labels = if object["kind"] == "Pod" {
        &object["metadata"]["labels"]
    } else {
        &object["spec"]["template"]["metadata"]["labels"]
    };
    read(labels)
}

/// Deployments and pods of a chart.
fn workloads(objects: &Rendered) -> Vec<&Value> {
    [objects.all("Deployment"), objects.all("Pod")].concat()
}

#[test]
fn every_object_has_the_release_labels_and_a_namespace() {
    let objects = rendered(&everything());
    for object in &objects.0 {
        let metadata = &object["metadata"];
        let labels = &metadata["labels"];
        assert_eq!(labels["app.kubernetes.io/name"], NAME, "{object}");
        assert_eq!(labels["app.kubernetes.io/instance"], NAME);
        assert_eq!(labels["app.kubernetes.io/managed-by"], "Helm");
        assert_eq!(labels["app.kubernetes.io/version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(
            labels["helm.sh/chart"],
            format!("{NAME}-{}", env!("CARGO_PKG_VERSION"))
        );
        let kind = object["kind"].as_str().expect("a kind");
        let namespace = metadata["namespace"].as_str();
        assert_eq!(
            namespace,
            (!CLUSTER_WIDE.contains(&kind)).then_some("separation-system"),
            "{kind}"
        );
    }
    let names: BTreeSet<_> = objects
        .0
        .iter()
        .map(|object| (object["kind"].to_string(), object["metadata"]["name"].to_string()))
        .collect();
    assert_eq!(names.len(), objects.0.len());
}

#[test]
fn every_pod_selector_matches_one_component() {
    let objects = rendered(&everything());
    let workloads = workloads(&objects);
    assert_eq!(workloads.len(), 2);
    let mut selectors = Vec::new();
    for object in &objects.0 {
        let spec = &object["spec"];
        for selector in [
            &spec["selector"]["matchLabels"],
            &spec["podSelector"]["matchLabels"],
        ] {
            if selector.is_object() {
                selectors.push((object, selector));
            }
        }
    }
    for (object, selector) in selectors {
        let wanted: BTreeMap<String, String> = read(selector);
        let chosen = workloads.iter().filter(|workload| {
            let labels = pod_labels(workload);
            wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
        });
        // Pods of pools do not belong to the chart.
        let of_pools = object["metadata"]["name"] == "separation-operator-workers";
        assert_eq!(chosen.count(), usize::from(!of_pools), "{object}");
    }
}

#[test]
fn every_pod_keeps_to_the_restricted_standard() {
    for workload in workloads(&rendered(&everything())) {
        let spec = if workload["kind"] == "Pod" {
            &workload["spec"]
        } else {
            &workload["spec"]["template"]["spec"]
        };
        let pod: PodSpec = read(spec);
        let context = pod.security_context.expect("a context");
        assert_eq!(context.run_as_non_root, Some(true));
        assert_eq!(
            context.seccomp_profile.expect("a profile").type_,
            "RuntimeDefault"
        );
        assert_ne!(pod.host_network, Some(true));
        for container in pod.containers {
            let context = container.security_context.expect("a context");
            assert_eq!(context.allow_privilege_escalation, Some(false));
            assert_eq!(context.read_only_root_filesystem, Some(true));
            let capabilities = context.capabilities.expect("capabilities");
            assert_eq!(capabilities.drop, Some(vec!["ALL".to_owned()]));
            assert_eq!(capabilities.add, None);
            let limits = container.resources.and_then(|resources| resources.limits);
            assert!(limits.is_some_and(|limits| limits.contains_key("memory")));
        }
    }
}

#[test]
fn two_releases_do_not_share_a_lease_or_a_name() {
    let release = Release {
        name: "blue".to_owned(),
        namespace: "tools".to_owned(),
        ..Release::default()
    };
    let objects = rendered_as(&release, &json!({"watchNamespaces": ["media"]}));
    let name = "blue-separation-operator";
    let deployment = objects.one("Deployment", name);
    let pod: PodSpec = read(&deployment["spec"]["template"]["spec"]);
    let understood = settings(&pod.containers[0]);
    assert_eq!(understood.lease.name, name);
    let role = objects.one("Role", &format!("{name}-lease"));
    assert_eq!(role["rules"][0]["resourceNames"], json!([name]));
    assert_eq!(role["metadata"]["namespace"], "tools");
    let binding = objects.one("RoleBinding", name);
    assert_eq!(binding["metadata"]["namespace"], "media");
    assert_eq!(
        binding["subjects"],
        json!([{"kind": "ServiceAccount", "name": name, "namespace": "tools"}])
    );
    let short = rendered_as(&release, &json!({"fullnameOverride": "songs"}));
    short.one("Deployment", "songs");
    short.one("ClusterRole", "songs");
}

#[test]
fn listed_namespaces_get_a_role_each_and_no_object_is_cluster_wide() {
    let values = json!({"watchNamespaces": ["media", "podcasts"], "crds": {"install": false}});
    let objects = rendered(&values);
    for kind in CLUSTER_WIDE {
        assert!(objects.all(kind).is_empty(), "{kind}");
    }
    let roles: BTreeSet<_> = objects
        .all("Role")
        .into_iter()
        .map(|role| role["metadata"]["namespace"].as_str().expect("a namespace"))
        .collect();
    assert_eq!(roles, ["media", "podcasts", "separation-system"].into());
    let understood = settings(&objects.pod().containers[0]);
    let names = ["media", "podcasts"].map(str::to_owned);
    assert_eq!(understood.namespaces, Namespaces::These(names.into()));
}

#[test]
fn rbac_objects_can_be_left_out() {
    let objects = rendered(&json!({
        "rbac": {"create": false},
        "serviceAccount": {"create": false, "name": "ours"},
    }));
    for kind in [
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "ServiceAccount",
    ] {
        assert!(objects.all(kind).is_empty(), "{kind}");
    }
    assert_eq!(objects.pod().service_account_name.as_deref(), Some("ours"));
}

#[test]
fn users_get_permissions_for_pools_with_the_namespace_roles() {
    let objects = rendered(&json!({"rbac": {"aggregate": true}}));
    let aggregated = |name: &str, to: &str| {
        let role = objects.one("ClusterRole", &format!("{NAME}-pools-{name}"));
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{to}");
        assert_eq!(role["metadata"]["labels"][label], "true");
        role["rules"][0]["verbs"].clone()
    };
    assert_eq!(aggregated("view", "view"), json!(["get", "list", "watch"]));
    assert_eq!(aggregated("edit", "edit"), aggregated("edit", "admin"));
}
