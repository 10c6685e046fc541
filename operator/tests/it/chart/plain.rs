//! The chart and the manifests in `deploy/operator` give the same operator.

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use super::{NAME, Rendered, rendered};
use crate::manifests::{objects, read, settings};

/// Permissions of the operator.
#[derive(Debug, Clone, Copy)]
enum Permissions {
    Everywhere,
    InOneNamespace,
}

/// The plain manifests that grant these permissions.
fn plain(permissions: Permissions) -> Rendered {
    let selected = objects().into_iter().filter(|(path, object)| {
        let kind = object["kind"].as_str().expect("a kind");
        // One file replaces the other.
        let is_other = match permissions {
            Permissions::Everywhere => path.ends_with("one-namespace/rbac.yaml"),
            Permissions::InOneNamespace => kind.starts_with("ClusterRole"),
        };
        kind != "Namespace" && !is_other
    });
    Rendered(selected.map(|(_, object)| object).collect())
}

/// Kind, namespace and name of each object, except objects that the plain manifests do not have.
fn names(objects: &Rendered) -> Vec<String> {
    let objects = objects.0.iter().filter(|object| {
        object["kind"] != "CustomResourceDefinition"
            && object["metadata"]["annotations"]["helm.sh/hook"].is_null()
    });
    let mut names: Vec<_> = objects
        .map(|object| {
            let metadata = &object["metadata"];
            format!(
                "{} {} {}",
                object["kind"], metadata["namespace"], metadata["name"]
            )
        })
        .collect();
    names.sort();
    names
}

/// An image's name and tag without its registry: the plain manifests may have the placeholder, which the chart refuses.
fn without_registry(image: &str) -> &str {
    image.rsplit('/').next().unwrap_or(image)
}

/// A Deployment without equivalent differences: labels, registries, and variables, which are compared as the operator
/// parses them.
fn without_equivalent_fields(deployment: &Value) -> Value {
    let mut spec = deployment["spec"].clone();
    spec["selector"] = json!(null);
    spec["template"]["metadata"] = json!(null);
    let pod = &mut spec["template"]["spec"];
    pod["topologySpreadConstraints"][0]["labelSelector"] = json!(null);
    pod["containers"][0]["env"] = json!(null);
    let image = pod["containers"][0]["image"].as_str().expect("an image");
    pod["containers"][0]["image"] = json!(without_registry(image));
    let fields = pod["containers"][0].as_object_mut().expect("a container");
    // Kubernetes' default for an image with a tag.
    assert_eq!(
        fields.remove("imagePullPolicy").unwrap_or(json!("IfNotPresent")),
        "IfNotPresent"
    );
    spec
}

fn check(values: &Value, permissions: Permissions) {
    let (chart, plain) = (rendered(values), plain(permissions));
    assert_eq!(names(&chart), names(&plain));
    for object in &plain.0 {
        let kind = object["kind"].as_str().expect("a kind");
        let name = object["metadata"]["name"].as_str().expect("a name");
        let same = chart.one(kind, name);
        match kind {
            "Deployment" => assert_eq!(without_equivalent_fields(same), without_equivalent_fields(object)),
            "PodDisruptionBudget" => {
                assert_eq!(same["spec"]["maxUnavailable"], object["spec"]["maxUnavailable"]);
            }
            _ => {
                for part in ["rules", "roleRef", "subjects"] {
                    assert_eq!(same[part], object[part], "{kind} {name}");
                }
            }
        }
    }
}

#[test]
fn the_chart_renders_the_plain_manifests() {
    check(&json!({}), Permissions::Everywhere);
}

#[test]
fn the_chart_renders_the_plain_manifests_for_one_namespace() {
    check(
        &json!({"watchNamespaces": ["media"]}),
        Permissions::InOneNamespace,
    );
}

#[test]
fn chart_and_manifests_configure_the_operator_alike() {
    let parsed_settings = |objects: &Rendered| {
        let deployment: Deployment = read(objects.one("Deployment", NAME));
        let mut settings = settings(&deployment.spec.template.spec.expect("a pod").containers[0]);
        // Differs at every start.
        settings.lease.identity.clear();
        settings.workers.image = without_registry(&settings.workers.image).to_owned();
        settings
    };
    assert_eq!(
        parsed_settings(&rendered(&json!({}))),
        parsed_settings(&plain(Permissions::Everywhere))
    );
}
