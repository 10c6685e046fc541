//! Several field managers of one pool: each owns the fields that it applied, and gets a conflict for others.

use serde_json::{Value, json};

use crate::rig::{Rig, apply, merged, pool};

/// The object that a field manager applies: the smallest pool with a change.
fn applied(change: &Value) -> Value {
    merged(pool("vocals"), &json!({"spec": change}))
}

/// A pool with only a change.
fn only(change: &Value) -> Value {
    let mut pool = pool("vocals");
    pool["spec"] = change.clone();
    pool
}

fn path(rig: &Rig, manager: &str) -> String {
    format!(
        "{}/vocals?fieldManager={manager}&fieldValidation=Strict",
        rig.pools()
    )
}

#[tokio::test]
async fn two_managers_own_different_fields() {
    let rig = Rig::new().await;
    let team = applied(&json!({"processor": {"scaling": {"maxReplicas": 4}}}));
    apply(path(&rig, "team"), &team).accepted(&rig.admin).await;
    let cost = only(&json!({"processor": {"scaling": {"minReplicas": 1}}}));
    let both = apply(path(&rig, "cost"), &cost).accepted(&rig.admin).await;
    let scaling = &both["spec"]["processor"]["scaling"];
    assert_eq!(
        (&scaling["minReplicas"], &scaling["maxReplicas"]),
        (&json!(1), &json!(4))
    );
    // Applying the same again writes nothing.
    let again = apply(path(&rig, "team"), &team).accepted(&rig.admin).await;
    assert_eq!(
        again["metadata"]["resourceVersion"],
        both["metadata"]["resourceVersion"]
    );
    // A field that its manager no longer applies is reset to its default.
    let without = apply(path(&rig, "cost"), &only(&json!({})))
        .accepted(&rig.admin)
        .await;
    assert_eq!(without["spec"]["processor"]["scaling"]["minReplicas"], 0);
}

#[tokio::test]
async fn a_field_of_another_manager_is_a_conflict_that_names_both() {
    let rig = Rig::new().await;
    let team = applied(&json!({"processor": {"scaling": {"maxReplicas": 4}}}));
    apply(path(&rig, "team"), &team).accepted(&rig.admin).await;
    let other = only(&json!({"processor": {"scaling": {"maxReplicas": 6}}}));
    let refusal = apply(path(&rig, "other"), &other).refused(&rig.admin).await;
    assert_eq!(refusal.code, 409);
    for part in ["\"team\"", ".spec.processor.scaling.maxReplicas"] {
        assert!(refusal.message.contains(part), "{}", refusal.message);
    }
    let forced = format!("{}&force=true", path(&rig, "other"));
    let taken = apply(forced, &other).accepted(&rig.admin).await;
    assert_eq!(taken["spec"]["processor"]["scaling"]["maxReplicas"], 6);
    let refusal = apply(path(&rig, "team"), &team).refused(&rig.admin).await;
    assert!(refusal.message.contains("\"other\""), "{}", refusal.message);
}

#[tokio::test]
async fn managers_add_items_to_shared_lists() {
    let rig = Rig::new().await;
    let team = applied(&json!({
        "storage": {"allowedInputBuckets": ["uploads"]},
        "egress": {"allowedPrivateHosts": ["10.0.0.0/8"]},
    }));
    apply(path(&rig, "team"), &team).accepted(&rig.admin).await;
    let other = only(&json!({
        "storage": {"allowedInputBuckets": ["archive"]},
        "egress": {"allowedPrivateHosts": ["hooks.example"]},
    }));
    let both = apply(path(&rig, "other"), &other).accepted(&rig.admin).await;
    let mut buckets = both["spec"]["storage"]["allowedInputBuckets"].clone();
    let buckets = buckets.as_array_mut().expect("a list");
    buckets.sort_by_key(Value::to_string);
    assert_eq!(*buckets, ["archive", "uploads"]);
    let without = apply(path(&rig, "other"), &only(&json!({})))
        .accepted(&rig.admin)
        .await;
    assert_eq!(
        without["spec"]["storage"]["allowedInputBuckets"],
        json!(["uploads"])
    );
    assert_eq!(
        without["spec"]["egress"]["allowedPrivateHosts"],
        json!(["10.0.0.0/8"])
    );
}

#[tokio::test]
async fn pod_settings_are_shared_by_field() {
    let rig = Rig::new().await;
    let team = applied(&json!({"processor": {
        "nodeSelector": {"gpu": "yes"},
        "env": [{"name": "LOG_LEVEL", "value": "debug"}],
        "podTemplate": {"spec": {"hostname": "songs"}},
    }}));
    apply(path(&rig, "team"), &team).accepted(&rig.admin).await;
    let other = only(&json!({"processor": {
        "nodeSelector": {"zone": "a"},
        "env": [{"name": "RUST_BACKTRACE", "value": "1"}],
        "podTemplate": {"metadata": {"labels": {"team": "audio"}}, "spec": {"subdomain": "audio"}},
    }}));
    let both = apply(path(&rig, "other"), &other).accepted(&rig.admin).await;
    let processor = &both["spec"]["processor"];
    assert_eq!(processor["nodeSelector"], json!({"gpu": "yes", "zone": "a"}));
    let variables = processor["env"].as_array().expect("a list");
    let mut names: Vec<_> = variables
        .iter()
        .map(|variable| variable["name"].as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, [Some("LOG_LEVEL"), Some("RUST_BACKTRACE")]);
    assert_eq!(
        processor["podTemplate"],
        json!({
            "metadata": {"labels": {"team": "audio"}},
            "spec": {"hostname": "songs", "subdomain": "audio"},
        })
    );
}

#[tokio::test]
async fn conditions_are_merged_by_type() {
    let rig = Rig::new().await;
    apply(path(&rig, "team"), &applied(&json!({})))
        .accepted(&rig.admin)
        .await;
    let status = |kind: &str| {
        let mut pool = pool("vocals");
        pool.as_object_mut().expect("a pool").remove("spec");
        pool["status"] = json!({"conditions": [{
            "type": kind,
            "status": "True",
            "reason": "Tested",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]});
        pool
    };
    let path = |manager: &str| format!("{}/vocals/status?fieldManager={manager}", rig.pools());
    apply(path("operator"), &status("Ready"))
        .accepted(&rig.admin)
        .await;
    let both = apply(path("auditor"), &status("Audited"))
        .accepted(&rig.admin)
        .await;
    let conditions = both["status"]["conditions"].as_array().expect("a list");
    let mut types: Vec<_> = conditions
        .iter()
        .map(|condition| condition["type"].as_str())
        .collect();
    types.sort_unstable();
    assert_eq!(types, [Some("Audited"), Some("Ready")]);
    let same = apply(path("operator"), &status("Ready"))
        .accepted(&rig.admin)
        .await;
    assert_eq!(
        same["metadata"]["resourceVersion"],
        both["metadata"]["resourceVersion"]
    );
}
