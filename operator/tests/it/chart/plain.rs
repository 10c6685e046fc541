//! The chart and the manifests in `deploy/operator` give the same operator.

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use super::{NAME, Rendered, rendered};
use crate::manifests::{objects, read, settings};

/// Which rights the operator gets.
#[derive(Debug, Clone, Copy)]
enum Rights {
    Everywhere,
    InOneNamespace,
}

/// The plain manifests that give these rights.
fn plain(rights: Rights) -> Rendered {
    let wanted = objects().into_iter().filter(|(path, object)| {
        let kind = object["kind"].as_str().expect("a kind");
        // One file stands in place of the other.
        let is_other = match rights {
            Rights::Everywhere => path.ends_with("one-namespace/rbac.yaml"),
            Rights::InOneNamespace => kind.starts_with("ClusterRole"),
        };
        kind != "Namespace" && !is_other
    });
    Rendered(wanted.map(|(_, object)| object).collect())
}

/// Kind, namespace and name of each object, but what the plain manifests do not have.
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

/// A Deployment without what is only another way of saying the same: labels, and variables, which are compared as the
/// operator understands them.
fn without_words(deployment: &Value) -> Value {
    let mut spec = deployment["spec"].clone();
    spec["selector"] = json!(null);
    spec["template"]["metadata"] = json!(null);
    let pod = &mut spec["template"]["spec"];
    pod["topologySpreadConstraints"][0]["labelSelector"] = json!(null);
    pod["containers"][0]["env"] = json!(null);
    let fields = pod["containers"][0].as_object_mut().expect("a container");
    // What Kubernetes does by itself with a tag.
    assert_eq!(
        fields.remove("imagePullPolicy").unwrap_or(json!("IfNotPresent")),
        "IfNotPresent"
    );
    spec
}

fn check(values: &Value, rights: Rights) {
    let (chart, plain) = (rendered(values), plain(rights));
    assert_eq!(names(&chart), names(&plain));
    for object in &plain.0 {
        let kind = object["kind"].as_str().expect("a kind");
        let name = object["metadata"]["name"].as_str().expect("a name");
        let same = chart.one(kind, name);
        match kind {
            "Deployment" => assert_eq!(without_words(same), without_words(object)),
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
fn the_chart_gives_what_the_plain_manifests_give() {
    check(&json!({}), Rights::Everywhere);
}

#[test]
fn so_it_does_for_one_namespace() {
    check(&json!({"watchNamespaces": ["media"]}), Rights::InOneNamespace);
}

#[test]
fn both_tell_the_operator_the_same() {
    let understood = |objects: &Rendered| {
        let deployment: Deployment = read(objects.one("Deployment", NAME));
        let mut settings = settings(&deployment.spec.template.spec.expect("a pod").containers[0]);
        // Another one at every start.
        settings.lease.identity.clear();
        settings
    };
    assert_eq!(
        understood(&rendered(&json!({}))),
        understood(&plain(Rights::Everywhere))
    );
}
