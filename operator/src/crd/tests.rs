//! Tests of the CRD and of each validation rule.

use separation_testbed::check_generated;
use serde_json::{Value, json};

use super::*;

const COMMITTED: &str = include_str!("../../../crds/separationpools.yaml");

fn schema() -> Value {
    let crd = crd();
    let schema = crd.spec.versions[0].schema.as_ref().expect("a schema");
    serde_json::to_value(&schema.open_api_v3_schema).expect("JSON")
}

fn smallest() -> Value {
    json!({
        "apiVersion": "separation.dev/v1beta1",
        "kind": "SeparationPool",
        "metadata": {"name": "vocals", "namespace": "media"},
        "spec": {
            "kafka": {"bootstrapServers": "kafka:9092"},
            "storage": {"stems": {"bucket": "stems"}, "staging": {"s3": {}}},
        },
    })
}

fn pool(change: &Value) -> Value {
    let mut pool = smallest();
    json_patch::merge(&mut pool, change);
    apply_defaults(&schema(), &mut pool);
    pool
}

/// Messages of the rules that a pool breaks.
fn broken(pool: &Value, old: Option<&Value>) -> Vec<String> {
    match kube::core::cel::Validator::new().validate(&schema(), pool, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(|error| error.message.clone()).collect(),
    }
}

/// A case of `tests/pools/rules.yaml`, which tests against a real API server read too.
#[derive(serde::Deserialize)]
struct Case {
    change: Value,
    message: Option<String>,
}

fn check(case: &Case) {
    let pool = pool(&json!({"spec": case.change}));
    let messages = broken(&pool, None);
    match &case.message {
        None => assert_eq!(messages, Vec::<String>::new(), "{}", case.change),
        Some(expected) => {
            assert_eq!(messages.len(), 1, "{}: {messages:?}", case.change);
            assert!(messages[0].contains(expected), "{}: {messages:?}", case.change);
            assert!(messages[0].contains("fix: "), "{messages:?}");
        }
    }
    // The plan refuses every spec that the API server refuses.
    let typed: SeparationPool = serde_json::from_value(pool).expect("a pool");
    let plan = crate::plan::PoolPlan::from_pool(&typed);
    assert_eq!(plan.is_err(), case.message.is_some(), "{}: {plan:?}", case.change);
}

#[test]
fn the_committed_crd_is_up_to_date() {
    let yaml = to_yaml().unwrap();
    check_generated("crds/separationpools.yaml", &yaml);
    // The chart can only read files in its own directory.
    check_generated("charts/separation-operator/files/separationpools.yaml", &yaml);
}

#[test]
fn the_yaml_parses_as_the_same_crd() {
    let value: Value = serde_saphyr::from_str(COMMITTED).unwrap();
    assert_eq!(value, serde_json::to_value(crd()).unwrap());
}

#[test]
fn a_pool_with_only_required_fields_gets_all_defaults() {
    let pool = pool(&json!({}));
    assert_eq!(broken(&pool, None), Vec::<String>::new());
    insta::assert_json_snapshot!(pool["spec"]);
    let typed: SeparationPool = serde_json::from_value(pool.clone()).unwrap();
    assert_eq!(
        serde_json::to_value(&typed.spec).unwrap()["processor"]["topic"],
        "uvr_tasks"
    );
    let yaml = serde_saphyr::to_string(&smallest()).unwrap();
    assert_eq!(from_yaml(&yaml).unwrap(), typed);
}

#[test]
fn the_example_of_the_documentation_is_valid() {
    let text = include_str!("../../tests/pools/full.yaml");
    let pool = serde_json::to_value(from_yaml(text).unwrap()).unwrap();
    assert_eq!(broken(&pool, None), Vec::<String>::new());
}

#[test]
fn rules_name_the_fix() {
    let cases: Vec<Case> = serde_saphyr::from_str(include_str!("../../tests/pools/rules.yaml")).unwrap();
    cases.iter().for_each(check);
}

#[test]
fn a_name_that_is_too_long_for_pod_names_is_refused() {
    let named = |length: usize| pool(&json!({"metadata": {"name": "a".repeat(length)}}));
    assert_eq!(broken(&named(40), None), Vec::<String>::new());
    let messages = broken(&named(41), None);
    assert!(
        messages.len() == 1 && messages[0].contains("choose a shorter one"),
        "{messages:?}"
    );
}

#[test]
fn only_topic_and_consumer_group_are_immutable() {
    let old = pool(&json!({}));
    for field in ["topic", "consumerGroup"] {
        let messages = broken(
            &pool(&json!({"spec": {"processor": {field: "other"}}})),
            Some(&old),
        );
        assert!(
            messages.len() == 1 && messages[0].contains("fix: create another"),
            "{messages:?}"
        );
    }
    let new = pool(
        &json!({"spec": {"processor": {"consumer": {"assignor": "Range"}, "scaling": {"maxReplicas": 3}}}}),
    );
    assert_eq!(broken(&new, Some(&old)), Vec::<String>::new());
}

/// Each schema below a schema, with its path.
fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), &schema["items"], visit);
    }
}

#[test]
fn the_schema_is_structural_and_bounded() {
    let schema = schema();
    walk("", &schema, &mut |path, schema| {
        let has_type = schema["type"].is_string() || schema["x-kubernetes-int-or-string"] == true;
        assert!(has_type, "{path} has no type");
        for keyword in [
            "$ref",
            "oneOf",
            "anyOf",
            "allOf",
            "not",
            "nullable",
            "uniqueItems",
            "const",
            "definitions",
        ] {
            assert!(schema.get(keyword).is_none(), "{path} has {keyword}");
        }
        let format = schema["format"].as_str();
        assert!(
            format.is_none_or(|format| ["int32", "int64", "double", "date-time"].contains(&format)),
            "{path}: {format:?}"
        );
    });
    // Bounds keep the estimated cost of rules within the server's limit.
    walk(
        "spec",
        &schema["properties"]["spec"],
        &mut |path, schema| match schema["type"].as_str() {
            Some("array") => {
                assert!(schema["maxItems"].is_number(), "{path} is unbounded");
                assert!(
                    schema["x-kubernetes-list-type"].is_string(),
                    "{path} has no list type"
                );
            }
            Some("string") => {
                let bounded = schema["maxLength"].is_number() || schema["enum"].is_array();
                assert!(bounded, "{path} is unbounded");
            }
            Some("integer" | "number") => {
                assert!(
                    schema["minimum"].is_number() && schema["maximum"].is_number(),
                    "{path} is unbounded"
                );
            }
            _ => {}
        },
    );
}

#[test]
fn every_field_is_documented() {
    for part in ["spec", "status"] {
        walk(part, &schema()["properties"][part], &mut |path, schema| {
            let description = schema["description"].as_str().unwrap_or_default();
            // Items of lists are described by their lists.
            assert!(
                path.ends_with("[]") || description.len() > 10,
                "{path} is not documented"
            );
        });
    }
}

#[test]
fn columns_and_names_are_those_of_the_documentation() {
    let crd = crd();
    let names = &crd.spec.names;
    assert_eq!(names.short_names.as_deref(), Some(&["seppool".to_owned()][..]));
    assert_eq!(names.categories.as_deref(), Some(&["all".to_owned()][..]));
    let columns = crd.spec.versions[0].additional_printer_columns.iter().flatten();
    let shown: Vec<_> = columns
        .filter(|column| column.priority.is_none())
        .map(|column| &*column.name)
        .collect();
    assert_eq!(
        shown,
        [
            "Lag", "Min", "Max", "Desired", "Ready", "Busy", "Draining", "Reason", "Age"
        ]
    );
}
