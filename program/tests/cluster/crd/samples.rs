//! A real API server accepts the samples.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::rig::{Rig, post};

/// The objects of all samples, each with the name of its file.
fn documents() -> Vec<(String, Value)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/samples");
    let files = fs::read_dir(directory).expect("samples");
    let mut documents: Vec<_> = files
        .flat_map(|file| {
            let path = file.expect("an entry").path();
            let text = fs::read_to_string(&path).expect("text");
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
            documents
                .into_iter()
                .map(move |document| (name.clone(), document))
        })
        .collect();
    documents.sort_by(|one, other| one.0.cmp(&other.0));
    documents
}

/// The sample pools for a cluster, by file name.
pub(super) fn samples() -> Vec<(String, Value)> {
    let mut samples = documents();
    // Without Kafka it is only for `separation-operator local`.
    samples.retain(|(_, object)| object["kind"] == "SeparationPool" && !object["spec"]["kafka"].is_null());
    assert!(!samples.is_empty());
    samples
}

async fn check(rig: &Rig, path: &str, mut object: Value) {
    object["metadata"]["namespace"] = rig.namespace.as_str().into();
    let strictly = format!("{path}?dryRun=All&fieldValidation=Strict");
    post(strictly, &object).accepted(&rig.admin).await;
}

#[tokio::test]
async fn every_sample_is_accepted_as_it_is() {
    let rig = Rig::new().await;
    for (_, pool) in samples() {
        check(&rig, &rig.pools(), pool).await;
    }
}

#[tokio::test]
async fn objects_of_kubernetes_in_samples_are_accepted_as_they_are() {
    let rig = Rig::new().await;
    let namespace = &rig.namespace;
    let mut kinds = Vec::new();
    for (name, object) in documents() {
        let kind = object["kind"].as_str().expect("a kind").to_owned();
        let path = match (object["apiVersion"].as_str(), &*kind) {
            (Some("v1"), "ServiceAccount") => format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
            (Some("networking.k8s.io/v1"), "NetworkPolicy") => {
                format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies")
            }
            // The CRDs of Strimzi are not installed.
            (Some("separation.dev/v1beta1" | "kafka.strimzi.io/v1"), _) => continue,
            other => panic!("{name}: no path for {other:?}"),
        };
        check(&rig, &path, object).await;
        kinds.push(kind);
    }
    kinds.sort_unstable();
    assert_eq!(kinds, ["NetworkPolicy", "ServiceAccount"]);
}
