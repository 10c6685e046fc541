//! The CRD on a real API server.

mod applying;
mod reading;
mod rules;
mod samples;
mod sharing;
mod upgrade;
mod writing;

use serde_json::Value;

/// A pool with most of the fields.
const FULL: &str = include_str!("../../../../operator/tests/pools/full.yaml");

/// The schema of a CRD.
fn schema(crd: &Value) -> &Value {
    &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

/// Each schema below a schema, with its path.
fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), visit);
    }
    if schema["items"].is_object() {
        walk(&schema["items"], &format!("{path}[]"), visit);
    }
}
