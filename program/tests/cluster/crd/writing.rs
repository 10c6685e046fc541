//! How the server stores a pool: defaults, unknown fields, status.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition,
};
use separation_operator::crd::{SeparationPool, apply_defaults};
use serde_json::{Value, json};

use super::schema;
use crate::rig::{CRD, Rig, apply, get, install, merge_patch, merged, pool, post, put};

#[tokio::test]
async fn applying_the_crd_again_changes_nothing() {
    let rig = Rig::new().await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/separationpools.separation.dev";
    let crd: Value = serde_saphyr::from_str(CRD).expect("YAML");
    let before = get(path).accepted(&rig.admin).await;
    install(&rig.admin, &crd).await;
    let after = get(path).accepted(&rig.admin).await;
    assert_eq!(
        before["metadata"]["resourceVersion"],
        after["metadata"]["resourceVersion"]
    );
    // The server stores it unchanged and sets only defaults of every CRD.
    let stored: CustomResourceDefinition = serde_json::from_value(after).expect("a CRD");
    let mut expected = separation_operator::crd::crd().spec;
    expected.names.list_kind = Some("SeparationPoolList".into());
    expected.conversion = Some(CustomResourceConversion {
        strategy: "None".into(),
        ..Default::default()
    });
    assert_eq!(stored.spec, expected);
    let conditions = stored
        .status
        .and_then(|status| status.conditions)
        .unwrap_or_default();
    let complaint = conditions
        .iter()
        .find(|condition| condition.type_ == "NonStructuralSchema");
    assert_eq!(complaint, None);
}

#[tokio::test]
async fn the_server_fills_in_the_defaults_that_the_operator_expects() {
    let rig = Rig::new().await;
    let stored = post(rig.pools(), &pool("vocals")).accepted(&rig.admin).await;
    let crd: Value = serde_saphyr::from_str(CRD).expect("YAML");
    let mut expected = pool("vocals");
    apply_defaults(schema(&crd), &mut expected);
    assert_eq!(stored["spec"], expected["spec"]);
    // The types lose nothing: an object that was read can be written back and is the same.
    let typed: SeparationPool = serde_json::from_value(stored).expect("a pool");
    let path = format!("{}/vocals?fieldValidation=Strict", rig.pools());
    let written = put(path, &serde_json::to_value(&typed).expect("JSON"))
        .accepted(&rig.admin)
        .await;
    let written: SeparationPool = serde_json::from_value(written).expect("a pool");
    assert_eq!(written.spec, typed.spec);
}

#[tokio::test]
async fn null_counts_as_a_missing_field() {
    let rig = Rig::new().await;
    let mut with_nulls = pool("vocals");
    with_nulls["spec"]["egress"] = Value::Null;
    with_nulls["spec"]["processor"] =
        json!({"maxCrashes": null, "consumer": {"assignor": null}, "scaling": null, "model": null});
    let stored = post(rig.pools(), &with_nulls).accepted(&rig.admin).await;
    assert!(stored["spec"]["egress"].is_object(), "{stored}");
    let processor = &stored["spec"]["processor"];
    assert_eq!(processor["maxCrashes"], 3);
    assert_eq!(processor["consumer"]["assignor"], "CooperativeSticky");
    assert_eq!(processor["scaling"]["maxReplicas"], 8);
    assert!(processor.get("model").is_none(), "{processor}");
}

#[tokio::test]
async fn unknown_fields_are_refused_or_dropped_by_the_validation_mode() {
    let rig = Rig::new().await;
    let misspelt = merged(
        pool("vocals"),
        &json!({"spec": {"processor": {"scalling": {"maxReplicas": 1}}}}),
    );
    let strict = format!("{}?fieldValidation=Strict", rig.pools());
    let refusal = post(strict, &misspelt).refused(&rig.admin).await;
    assert_eq!(refusal.code, 400);
    assert!(
        refusal
            .message
            .contains("unknown field \"spec.processor.scalling\""),
        "{}",
        refusal.message
    );
    let stored = post(rig.pools(), &misspelt).accepted(&rig.admin).await;
    assert!(stored["spec"]["processor"].get("scalling").is_none());
    // The CRD has no schema for pod templates.
    let free = json!({"spec": {"processor": {"podTemplate": {"spec": {"anything": [{"at": "all"}]}}}}});
    let path = format!("{}/vocals?fieldValidation=Strict", rig.pools());
    let stored = merge_patch(path, &free).accepted(&rig.admin).await;
    assert_eq!(
        stored["spec"]["processor"]["podTemplate"],
        free["spec"]["processor"]["podTemplate"]
    );
}

#[tokio::test]
async fn spec_and_status_are_written_separately() {
    let rig = Rig::new().await;
    let path = format!("{}/vocals", rig.pools());
    let with_status = merged(pool("vocals"), &json!({"status": {"observedGeneration": 7}}));
    let stored = post(rig.pools(), &with_status).accepted(&rig.admin).await;
    // Until the operator writes a status, tools see one of no generation.
    assert_eq!(stored["status"], json!({"observedGeneration": -1}));
    let status = json!({
        "spec": {"processor": {"executionProvider": "CUDA"}},
        "status": {
            "observedGeneration": 1,
            "processor": {"reason": "Working", "replicas": {"desired": 3, "ready": 2, "draining": 0}},
            "conditions": [{
                "type": "Ready",
                "status": "True",
                "reason": "Working",
                "message": "3 processors for 3 tasks",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        },
    });
    let stored = merge_patch(format!("{path}/status"), &status)
        .accepted(&rig.admin)
        .await;
    assert_eq!(stored["spec"]["processor"].get("executionProvider"), None);
    assert_eq!(stored["metadata"]["generation"], 1);
    assert_eq!(stored["status"]["processor"]["replicas"]["desired"], 3);
    let change = json!({
        "spec": {"processor": {"executionProvider": "CUDA"}},
        "status": {"processor": {"reason": "Other"}},
    });
    let changed = merge_patch(&path, &change).accepted(&rig.admin).await;
    assert_eq!(changed["metadata"]["generation"], 2);
    assert_eq!(changed["spec"]["processor"]["executionProvider"], "CUDA");
    assert_eq!(changed["status"], stored["status"]);
    // The types lose nothing.
    let typed: SeparationPool = serde_json::from_value(changed.clone()).expect("a pool");
    assert_eq!(
        serde_json::to_value(&typed.status).expect("JSON"),
        changed["status"]
    );
}

#[tokio::test]
async fn an_invalid_status_is_refused() {
    let rig = Rig::new().await;
    post(rig.pools(), &pool("vocals")).accepted(&rig.admin).await;
    let path = format!("{}/vocals/status", rig.pools());
    let condition = json!({"status": {"conditions": [{"type": "Ready"}]}});
    let refusal = merge_patch(&path, &condition).refused(&rig.admin).await;
    assert_eq!(refusal.code, 422, "{}", refusal.message);
    let unknown = json!({"status": {"processor": {"replicas": {"sleeping": 1}}}});
    let path = format!("{path}?fieldManager=test&fieldValidation=Strict");
    let refusal = apply(path, &merged(pool("vocals"), &unknown))
        .refused(&rig.admin)
        .await;
    assert!(
        refusal.message.contains(".status.processor.replicas.sleeping"),
        "{}",
        refusal.message
    );
}
