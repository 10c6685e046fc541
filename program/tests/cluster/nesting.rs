//! Objects that nest deeper than a JSON parser accepts, or are as large as the API server accepts, affect no other
//! pool.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use separation_operator::crd::SeparationPoolStatus;
use serde_json::{Value, json};

use crate::rig::{Rig, SOON, patch_text, post_text};
use crate::subject::{OperatorProcess, PoolUnderTest};

/// An object that is nested this many levels deep.
fn nested(levels: usize) -> String {
    format!("{}{}{}", r#"{"a":"#.repeat(levels), 1, "}".repeat(levels))
}

/// Creates a pool with this pod template, written as text: a value would overflow the stack of this test.
async fn create(pool: &PoolUnderTest<'_>, template: &str) {
    let object = pool.object(&json!({"processor": {"podTemplate": "TEMPLATE"}}));
    let text = object.to_string().replace("\"TEMPLATE\"", template);
    post_text(pool.rig.pools(), text)
        .send_text(&pool.rig.admin)
        .await
        .expect("the API server stores it");
}

/// The message of a pool that is refused.
async fn until_refused(pool: &PoolUnderTest<'_>) -> String {
    let refused = |status: &SeparationPoolStatus| {
        let ready = status.conditions.iter().find(|found| found.type_ == "Ready")?;
        (ready.reason == "InvalidSpec").then(|| ready.message.clone())
    };
    let status = pool
        .until_status("refused spec", SOON, |status| refused(status).is_some())
        .await;
    refused(&status).expect("it is there")
}

/// A manager's fields that nest deeply.
fn deep_fields() -> String {
    let entry = json!({"manager": "deep", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
                       "time": "2026-01-01T00:00:00Z", "fieldsV1": "FIELDS"});
    let fields = nested(200).replace("\"a\"", "\"f:a\"").replace(":1}", ":{}}");
    entry.to_string().replace("\"FIELDS\"", &fields)
}

/// A pod with the labels of a pool's, in whose managed fields something nests deeply.
async fn create_deep_pod(pool: &PoolUnderTest<'_>) -> Result<String, kube::Error> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "deep",
            "labels": {"separation.dev/pool": pool.name, "separation.dev/role": "processor"},
            "managedFields": ["ENTRY"],
        },
        "spec": {"containers": [{"name": "worker", "image": "worker"}]},
    });
    let text = pod.to_string().replace("\"ENTRY\"", &deep_fields());
    let path = format!("/api/v1/namespaces/{}/pods", pool.rig.namespace);
    post_text(path, text).send_text(&pool.rig.admin).await
}

#[tokio::test]
async fn pools_that_nest_too_deeply_or_are_too_large_are_reported_and_others_continue() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 3).await;
    pool.apply(&json!({})).await;
    let deep = PoolUnderTest::named(&rig, "deep", 1).await;
    create(&deep, &nested(130)).await;
    let deeper = PoolUnderTest::named(&rig, "deeper", 1).await;
    create(&deeper, &nested(5_000)).await;
    let large = PoolUnderTest::named(&rig, "large", 1).await;
    let annotation: Value = json!({"spec": {"hostname": "x".repeat(1024 * 1024)}});
    create(&large, &annotation.to_string()).await;

    let operator = OperatorProcess::start(&rig);
    pool.until_adopted().await;
    pool.publish_one_each(1).await;
    pool.until_replicas(1, SOON).await;
    for (pool, part) in [
        (&deep, "spec.processor.podTemplate.a.a"),
        (&deeper, "spec.processor.podTemplate.a.a"),
        (&large, "spec.processor.podTemplate: has 1024 KiB"),
    ] {
        let message = until_refused(pool).await;
        assert!(message.contains(part) && message.contains("fix:"), "{message}");
    }

    // The same in pods and Deployments, as far as the API server accepts it.
    let stored = create_deep_pod(&pool).await.expect("a pod");
    assert!(stored.contains(r#""name":"deep""#));
    let path = format!(
        "/apis/apps/v1/namespaces/{}/deployments/{}",
        rig.namespace,
        pool.deployment_name()
    );
    let patch = format!(r#"{{"metadata":{{"managedFields":[{}]}}}}"#, deep_fields());
    let _ = patch_text(path, patch).send_text(&rig.admin).await;
    pool.publish_one_each(2).await;
    pool.until_replicas(2, SOON).await;
    operator.end().await;

    // Another operator begins with a list of all of them.
    let operator = OperatorProcess::start(&rig);
    pool.publish_one_each(3).await;
    pool.until_replicas(3, SOON).await;
    // Corrected, a pool works like any other.
    deep.pools()
        .delete(&deep.name, &Default::default())
        .await
        .expect("a pool");
    deep.apply(&json!({})).await;
    deep.until_adopted().await;
    let pods: Api<Pod> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    assert!(pods.list(&ListParams::default()).await.is_ok());
    operator.end().await;
}
