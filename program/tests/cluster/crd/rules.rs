//! Pools that the server refuses, and its messages.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{FULL, schema, walk};
use crate::rig::{CRD, Rig, fields, merge_patch, merged, pool, post};

const RULES: &str = include_str!("../../../../operator/tests/pools/rules.yaml");

#[derive(Deserialize)]
struct Case {
    change: Value,
    message: Option<String>,
    field: Option<String>,
}

/// Path of a request that is validated and not stored.
fn dry_run(rig: &Rig) -> String {
    format!("{}?dryRun=All&fieldValidation=Strict", rig.pools())
}

#[tokio::test]
async fn every_rule_names_the_field_and_the_fix() {
    let rig = Rig::new().await;
    let cases: Vec<Case> = serde_saphyr::from_str(RULES).expect("cases");
    for case in cases {
        let tried = merged(pool("vocals"), &json!({"spec": case.change}));
        let call = post(dry_run(&rig), &tried);
        let Some(message) = case.message else {
            call.accepted(&rig.admin).await;
            continue;
        };
        let refusal = call.refused(&rig.admin).await;
        let field = case.field.expect("a refusal names a field");
        assert_eq!(refusal.code, 422, "{refusal:?}");
        assert_eq!(fields(&refusal), [field.as_str()], "{}", refusal.message);
        for part in [message.as_str(), field.as_str(), "fix: "] {
            assert!(refusal.message.contains(part), "`{part}` in: {}", refusal.message);
        }
    }
}

#[test]
fn every_rule_has_a_case() {
    let crd: Value = serde_saphyr::from_str(CRD).expect("YAML");
    let mut messages = Vec::new();
    walk(schema(&crd), "", &mut |_, schema| {
        let rules = schema["x-kubernetes-validations"].as_array();
        for rule in rules.into_iter().flatten() {
            let message = rule["message"].as_str().expect("a message").to_owned();
            let is_transition = rule["rule"].as_str().expect("a rule").contains("oldSelf");
            if !is_transition && !message.contains("the name is longer") {
                messages.push(message);
            }
        }
    });
    let cases: Vec<Case> = serde_saphyr::from_str(RULES).expect("cases");
    for message in messages {
        let is_tried = |case: &Case| case.message.as_ref().is_some_and(|part| message.contains(part));
        assert!(cases.iter().any(is_tried), "no case for: {message}");
    }
}

#[tokio::test]
async fn a_name_that_is_too_long_for_pod_names_is_refused() {
    let rig = Rig::new().await;
    post(dry_run(&rig), &pool(&"a".repeat(40)))
        .accepted(&rig.admin)
        .await;
    let refusal = post(dry_run(&rig), &pool(&"a".repeat(41)))
        .refused(&rig.admin)
        .await;
    assert_eq!(fields(&refusal), ["metadata.name"], "{}", refusal.message);
    assert!(
        refusal.message.contains("fix: choose a shorter one"),
        "{}",
        refusal.message
    );
}

#[tokio::test]
async fn topics_and_groups_are_immutable() {
    let rig = Rig::new().await;
    post(rig.pools(), &pool("vocals")).accepted(&rig.admin).await;
    let path = format!("{}/vocals", rig.pools());
    for role in ["processor", "uploader"] {
        for field in ["topic", "consumerGroup"] {
            let change = json!({"spec": {role: {field: "other"}}});
            let refusal = merge_patch(&path, &change).refused(&rig.admin).await;
            assert_eq!(fields(&refusal), [format!("spec.{role}.{field}")]);
            assert!(
                refusal.message.contains("fix: create another"),
                "{}",
                refusal.message
            );
        }
    }
    let consumer = json!({"assignor": "Range"});
    let change = json!({"spec": {"processor": {"consumer": consumer, "scaling": {"maxReplicas": 3}}}});
    merge_patch(&path, &change).accepted(&rig.admin).await;
}

/// A value of the same type beyond each bound of a schema.
fn beyond(schema: &Value) -> Vec<Value> {
    let mut values = Vec::new();
    match schema["type"].as_str() {
        Some("integer") => {
            values.extend(schema["minimum"].as_f64().map(|least| json!(least as i64 - 1)));
            values.extend(schema["maximum"].as_f64().map(|most| json!(most as i64 + 1)));
        }
        Some("string") => {
            values.extend(
                schema["maxLength"]
                    .as_u64()
                    .map(|most| json!("a".repeat(most as usize + 1))),
            );
            if schema["minLength"].as_u64().is_some_and(|least| least > 0) {
                values.push(json!(""));
            }
            if schema["pattern"].is_string() || schema["enum"].is_array() {
                values.push(json!(" /"));
            }
        }
        Some("boolean") => values.push(json!("true")),
        Some("array") => {
            let many: Vec<_> = (0..=schema["maxItems"].as_u64().expect("a bound"))
                .map(|index| json!(format!("item-{index}")))
                .collect();
            values.push(json!(many));
            values.push(json!(["same", "same"]));
        }
        _ if schema["x-kubernetes-int-or-string"] == true => values.push(json!(" /")),
        _ => {}
    }
    values
}

#[tokio::test]
async fn every_limit_of_the_schema_is_enforced() {
    let rig = Rig::new().await;
    let crd: Value = serde_saphyr::from_str(CRD).expect("YAML");
    let spec = &schema(&crd)["properties"]["spec"];
    let mut tried = Vec::new();
    walk(spec, "spec", &mut |path, schema| {
        tried.extend(beyond(schema).into_iter().map(|value| (path.to_owned(), value)));
    });
    assert!(tried.len() > 100, "{}", tried.len());
    // All fields are set in it, so that no field is refused because a related one is missing.
    let mut full: Value = serde_saphyr::from_str(FULL).expect("YAML");
    full["metadata"] = json!({"name": "vocals"});
    post(dry_run(&rig), &full).accepted(&rig.admin).await;
    for (path, value) in tried {
        let change = path
            .rsplit('.')
            .fold(value, |inner, name| match name.strip_suffix("[]") {
                Some(list) => json!({list: [inner]}),
                None => json!({name: inner}),
            });
        let pool = merged(full.clone(), &change);
        let refusal = post(dry_run(&rig), &pool).refused(&rig.admin).await;
        assert_eq!(refusal.code, 422, "{path}: {refusal:?}");
        let named = fields(&refusal);
        // Of a list, the first item beyond the limit.
        let path = path.replace("[]", "[0]");
        assert!(
            named.iter().any(|field| field.starts_with(&path)),
            "{path}: {named:?}: {}",
            refusal.message
        );
    }
}
