//! How the chart keeps the CRD of SeparationPool, and with it all pools.

use serde_json::{Value, json};

use super::rendered;

const COMMITTED: &str = include_str!("../../../../crds/separationpools.yaml");

const KEEP: &str = "helm.sh/resource-policy";

fn crd(values: &Value) -> Value {
    let objects = rendered(values);
    objects
        .one("CustomResourceDefinition", "separationpools.separation.dev")
        .clone()
}

/// Helm writes 2.0 as 2, which is the same number.
fn with_plain_numbers(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(values) => values.iter().map(with_plain_numbers).collect(),
        Value::Object(fields) => {
            let fields = fields.iter();
            Value::Object(
                fields
                    .map(|(name, value)| (name.clone(), with_plain_numbers(value)))
                    .collect(),
            )
        }
        other => other.clone(),
    }
}

#[test]
fn the_chart_has_the_committed_crd() {
    let committed: Value = serde_saphyr::from_str(COMMITTED).expect("YAML");
    let chart = crd(&json!({}));
    assert_eq!(
        with_plain_numbers(&chart["spec"]),
        with_plain_numbers(&committed["spec"])
    );
    assert_eq!(chart["metadata"]["name"], committed["metadata"]["name"]);
    assert_eq!(chart["apiVersion"], committed["apiVersion"]);
}

#[test]
fn pools_outlive_the_release_by_default() {
    assert_eq!(crd(&json!({}))["metadata"]["annotations"][KEEP], "keep");
    let not_kept = crd(&json!({"crds": {"keep": false}}));
    assert!(not_kept["metadata"]["annotations"][KEEP].is_null(), "{not_kept}");
}

#[test]
fn the_crd_can_be_left_out() {
    let without = rendered(&json!({"crds": {"install": false}}));
    assert!(without.all("CustomResourceDefinition").is_empty());
}
