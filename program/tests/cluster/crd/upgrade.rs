//! Pools that were stored under an earlier CRD of the same version keep working under this one; another version is
//! refused.
//!
//! Each test installs the CRD under its own API group, so that other tests do not see it change.

use separation_operator::crd::SeparationPool;
use separation_testbed::eventually;
use serde_json::{Value, json};

use crate::rig::{CRD, Rig, SOON, apply, fields, get, install, merge_patch, merged, pool, pool_of, post};

/// The committed CRD under another group.
fn renamed(group: &str) -> Value {
    let mut crd: Value = serde_saphyr::from_str(CRD).expect("YAML");
    crd["metadata"]["name"] = json!(format!("separationpools.{group}"));
    crd["spec"]["group"] = json!(group);
    crd
}

/// The schema of a field of the spec, to be changed.
fn field<'a>(crd: &'a mut Value, path: &[&str]) -> &'a mut Value {
    let mut found = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    for name in path {
        found = &mut found["properties"][*name];
    }
    found
}

fn remove(object: &mut Value, name: &str) {
    object
        .as_object_mut()
        .expect("an object")
        .remove(name)
        .unwrap_or_else(|| panic!("no {name}"));
}

#[tokio::test]
async fn a_pool_from_before_a_field_was_added_gets_its_default() {
    const GROUP: &str = "fewer.separation.dev";
    let rig = Rig::new().await;
    let new = renamed(GROUP);
    let mut old = new.clone();
    for (parent, name) in [
        (&[][..], "egress"),
        (&["processor"], "maxCrashes"),
        (&["uploader"], "maxCrashes"),
    ] {
        remove(&mut field(&mut old, parent)["properties"], name);
    }
    for role in ["processor", "uploader"] {
        remove(&mut field(&mut old, &[role])["default"], "maxCrashes");
    }
    install(&rig.admin, &old).await;
    let stored = post(rig.pools_of(GROUP), &pool_of(GROUP, "vocals"))
        .accepted(&rig.admin)
        .await;
    assert!(stored["spec"].get("egress").is_none());
    install(&rig.admin, &new).await;
    let path = format!("{}/vocals", rig.pools_of(GROUP));
    let now = eventually("new default", SOON, async || {
        let now = get(&path).accepted(&rig.admin).await;
        (now["spec"]["processor"]["maxCrashes"] == 3).then_some(now)
    })
    .await;
    assert_eq!(now["metadata"]["generation"], 1, "reading writes nothing");
    assert_eq!(
        now["metadata"]["resourceVersion"],
        stored["metadata"]["resourceVersion"]
    );
    serde_json::from_value::<SeparationPool>(now).expect("the operator reads it");
    let change = json!({"spec": {"processor": {"maxCrashes": 5}}});
    let changed = merge_patch(&path, &change).accepted(&rig.admin).await;
    assert_eq!(changed["spec"]["processor"]["maxCrashes"], 5);
}

#[tokio::test]
async fn a_pool_from_before_a_limit_can_be_changed_in_other_fields() {
    const GROUP: &str = "looser.separation.dev";
    let rig = Rig::new().await;
    let new = renamed(GROUP);
    let mut old = new.clone();
    for role in ["processor", "uploader"] {
        let scaling = field(&mut old, &[role, "scaling"]);
        remove(scaling, "x-kubernetes-validations");
        remove(&mut scaling["properties"]["maxReplicas"], "maximum");
        remove(field(&mut old, &[role, "consumerGroup"]), "maxLength");
    }
    install(&rig.admin, &old).await;
    let loose = json!({"spec": {"processor": {
        "consumerGroup": "g".repeat(300),
        "scaling": {"minReplicas": 90, "maxReplicas": 20_000},
    }}});
    let path = format!("{}/vocals", rig.pools_of(GROUP));
    let many = merged(pool_of(GROUP, "vocals"), &loose);
    post(rig.pools_of(GROUP), &many).accepted(&rig.admin).await;
    let crossed = json!({"spec": {"uploader": {"scaling": {"minReplicas": 9, "maxReplicas": 8}}}});
    merge_patch(&path, &crossed).accepted(&rig.admin).await;
    install(&rig.admin, &new).await;
    eventually("new rules", SOON, async || {
        let refusal = post(
            format!("{}?dryRun=All", rig.pools_of(GROUP)),
            &merged(many.clone(), &json!({"metadata": {"name": "another"}})),
        );
        matches!(refusal.try_send(&rig.admin).await, Err(kube::Error::Api(_)))
    })
    .await;
    let now = get(&path).accepted(&rig.admin).await;
    serde_json::from_value::<SeparationPool>(now).expect("the operator reads it");
    // Unchanged fields are not validated again.
    let elsewhere = json!({
        "metadata": {"labels": {"team": "audio"}},
        "spec": {"processor": {"executionProvider": "CUDA"}},
    });
    merge_patch(&path, &elsewhere).accepted(&rig.admin).await;
    let status = json!({"status": {"observedGeneration": 3}});
    merge_patch(format!("{path}/status"), &status)
        .accepted(&rig.admin)
        .await;
    // Changed fields are.
    let worse = json!({"spec": {"processor": {"scaling": {"maxReplicas": 20_001}}}});
    let refusal = merge_patch(&path, &worse).refused(&rig.admin).await;
    assert_eq!(fields(&refusal), ["spec.processor.scaling.maxReplicas"]);
    let still_crossed = json!({"spec": {"uploader": {"scaling": {"minReplicas": 10}}}});
    let refusal = merge_patch(&path, &still_crossed).refused(&rig.admin).await;
    assert!(
        refusal.message.contains("fix: lower minReplicas"),
        "{}",
        refusal.message
    );
    let better = json!({"spec": {
        "processor": {"scaling": {"maxReplicas": 100}},
        "uploader": {"scaling": {"minReplicas": 1}},
    }});
    merge_patch(&path, &better).accepted(&rig.admin).await;
}

#[tokio::test]
async fn a_pool_of_a_newer_crd_loses_only_the_added_field() {
    const GROUP: &str = "newer.separation.dev";
    let rig = Rig::new().await;
    let old = renamed(GROUP);
    let mut new = old.clone();
    field(&mut new, &["processor"])["properties"]["future"] =
        json!({"type": "string", "default": "kept", "description": "a field of a later version"});
    install(&rig.admin, &new).await;
    let stored = eventually("new field", SOON, async || {
        let tried = post(
            format!("{}?dryRun=All", rig.pools_of(GROUP)),
            &pool_of(GROUP, "vocals"),
        );
        let stored = tried.accepted(&rig.admin).await;
        (stored["spec"]["processor"]["future"] == "kept").then_some(stored)
    })
    .await;
    // An operator of this version can read a pool that a later version wrote.
    serde_json::from_value::<SeparationPool>(stored).expect("the operator reads it");
    post(rig.pools_of(GROUP), &pool_of(GROUP, "vocals"))
        .accepted(&rig.admin)
        .await;
    install(&rig.admin, &old).await;
    let path = format!("{}/vocals", rig.pools_of(GROUP));
    eventually("field gone", SOON, async || {
        let now = get(&path).accepted(&rig.admin).await;
        now["spec"]["processor"].get("future").is_none()
    })
    .await;
    let change = json!({"spec": {"processor": {"executionProvider": "CUDA"}}});
    merge_patch(&path, &change).accepted(&rig.admin).await;
}

#[tokio::test]
async fn pools_of_v1alpha1_are_refused_with_the_version_that_they_name() {
    let rig = Rig::new().await;
    // kubectl reads this list, and reports: no matches for kind "SeparationPool" in version "separation.dev/v1alpha1".
    let group = get("/apis/separation.dev").accepted(&rig.admin).await;
    let versions = group["versions"].as_array().expect("versions").iter();
    let versions: Vec<_> = versions.map(|version| &version["version"]).collect();
    assert_eq!(versions, ["v1beta1"]);
    let old = merged(pool("vocals"), &json!({"apiVersion": "separation.dev/v1alpha1"}));
    let old_path = rig.pools().replace("v1beta1", "v1alpha1");
    assert_eq!(post(old_path, &old).refused(&rig.admin).await.code, 404);
    let applied = format!("{}/vocals?fieldManager=test", rig.pools());
    for call in [post(rig.pools(), &old), apply(applied, &old)] {
        let refusal = call.refused(&rig.admin).await;
        assert_eq!(refusal.code, 400, "{refusal:?}");
        assert!(
            refusal.message.contains("separation.dev/v1alpha1"),
            "{}",
            refusal.message
        );
    }
}

#[tokio::test]
async fn a_crd_of_v1alpha1_cannot_be_replaced_by_this_one() {
    const GROUP: &str = "former.separation.dev";
    let rig = Rig::new().await;
    let new = renamed(GROUP);
    let mut old = new.clone();
    old["spec"]["versions"][0]["name"] = json!("v1alpha1");
    install(&rig.admin, &old).await;
    let path = format!(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/separationpools.{GROUP}?fieldManager=tests&force=true"
    );
    let refusal = apply(path, &new).refused(&rig.admin).await;
    // The API server could no longer read pools that are stored in v1alpha1.
    assert_eq!(fields(&refusal), ["status.storedVersions[0]"]);
    assert!(refusal.message.contains("v1alpha1"), "{}", refusal.message);
}
