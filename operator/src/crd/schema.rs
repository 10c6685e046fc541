//! The definition that is installed in a cluster: what the types say, made fit for the API server.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, JSONSchemaProps,
};
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use super::{RoleDefaults, SeparationPool};

/// The longest name that leaves room for `-processor` and what Kubernetes adds to names of pods (63 in all).
const MAX_NAME_LENGTH: usize = 40;

/// The definition of `SeparationPool`.
pub fn definition() -> CustomResourceDefinition {
    let mut definition = SeparationPool::crd();
    let version = &mut definition.spec.versions[0];
    version.additional_printer_columns = Some(columns());
    let schema = version
        .schema
        .as_mut()
        .and_then(|validation| validation.open_api_v3_schema.as_mut())
        .expect("the derived definition has a schema");
    let mut value = serde_json::to_value(&*schema).expect("a schema is JSON");
    refuse_null(&mut value);
    set_role_defaults(&mut value);
    complete_defaults(&mut value);
    name_must_fit(&mut value);
    *schema = serde_json::from_value::<JSONSchemaProps>(value).expect("a changed schema is still one");
    definition
}

/// The definition as YAML, as it is committed and installed.
///
/// # Errors
/// When it cannot be written as YAML.
pub fn to_yaml() -> Result<String, serde_saphyr::ser::Error> {
    let value = serde_json::to_value(definition()).expect("a definition is JSON");
    let yaml = serde_saphyr::to_string(&value)?;
    Ok(format!(
        "# Generated from operator/src/crd by `cargo xtask generate`; never edited.\n{yaml}"
    ))
}

/// A pool from YAML, with the defaults that the API server would have filled in.
///
/// # Errors
/// When the text is not YAML or not a pool.
pub fn from_yaml(text: &str) -> anyhow::Result<SeparationPool> {
    from_value(serde_saphyr::from_str(text)?)
}

/// Makes a pool of a document, with the defaults that an API server would fill in.
///
/// # Errors
/// When it is no SeparationPool.
pub fn from_value(mut value: Value) -> anyhow::Result<SeparationPool> {
    let schema = serde_json::to_value(definition().spec.versions[0].schema.as_ref())?;
    apply_defaults(&schema["openAPIV3Schema"], &mut value);
    Ok(serde_json::from_value(value)?)
}

/// Fills in defaults as the API server does: where a property is missing, and then inside what was filled in.
pub fn apply_defaults(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            for (name, property) in properties {
                if let (None, Some(default)) = (fields.get(name), property.get("default")) {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(field) = fields.get_mut(name) {
                    apply_defaults(property, field);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                apply_defaults(&schema["items"], item);
            }
        }
        _ => {}
    }
}

/// What `kubectl get separationpools` shows: processors, and with `-o wide` uploaders.
fn columns() -> Vec<CustomResourceColumnDefinition> {
    const SHOWN: Option<i32> = None;
    const WIDE: Option<i32> = Some(1);
    let column = |priority, name: &str, type_: &str, json_path: &str, description: &str| {
        CustomResourceColumnDefinition {
            description: Some(description.into()),
            format: None,
            json_path: json_path.into(),
            name: name.into(),
            priority,
            type_: type_.into(),
        }
    };
    let processor = |field: &str| format!(".status.processor.{field}");
    let uploader = |field: &str| format!(".status.uploader.{field}");
    vec![
        column(
            SHOWN,
            "Lag",
            "string",
            &processor("lag.summary"),
            "Tasks not yet committed, the running ones included; ? when unknown",
        ),
        column(
            SHOWN,
            "Desired",
            "integer",
            &processor("replicas.desired"),
            "Processors asked for",
        ),
        column(
            SHOWN,
            "Ready",
            "integer",
            &processor("replicas.ready"),
            "Processors that are ready for tasks",
        ),
        column(
            SHOWN,
            "Busy",
            "integer",
            &processor("replicas.busy"),
            "Processors that hold a task",
        ),
        column(
            SHOWN,
            "Draining",
            "integer",
            &processor("replicas.draining"),
            "Processors that finish their last task",
        ),
        column(
            SHOWN,
            "Reason",
            "string",
            &processor("reason"),
            "Why there are as many processors as there are",
        ),
        column(
            WIDE,
            "Uploader-Lag",
            "string",
            &uploader("lag.summary"),
            "Results not yet uploaded; ? when unknown",
        ),
        column(
            WIDE,
            "Uploaders",
            "integer",
            &uploader("replicas.desired"),
            "Uploaders asked for",
        ),
        column(
            WIDE,
            "Uploader-Reason",
            "string",
            &uploader("reason"),
            "Why there are as many uploaders as there are",
        ),
        column(
            SHOWN,
            "Age",
            "date",
            ".metadata.creationTimestamp",
            "Since when the pool is there",
        ),
    ]
}

/// `null` means the same as a property that is not there: the server then drops it before it fills in defaults. With
/// `nullable`, rules would meet it.
fn refuse_null(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("nullable");
            fields.values_mut().for_each(refuse_null);
        }
        Value::Array(items) => items.iter_mut().for_each(refuse_null),
        _ => {}
    }
}

fn set_role_defaults(schema: &mut Value) {
    let spec = &mut schema["properties"]["spec"]["properties"];
    for role in [RoleDefaults::PROCESSOR, RoleDefaults::UPLOADER] {
        let fields = &mut spec[role.property]["properties"];
        let poll_ms =
            u64::try_from(role.timings.max_poll_interval.as_millis()).expect("minutes fit into 64 bits");
        fields["topic"]["default"] = json!(role.topic);
        fields["group"]["default"] = json!(role.group);
        fields["maxPollIntervalMs"]["default"] = json!(poll_ms);
        // Whole seconds read better without a decimal point.
        fields["scaling"]["properties"]["pollIntervalSeconds"]["default"] = json!(2);
        fields["scaling"]["default"]["pollIntervalSeconds"] = json!(2);
        spec[role.property]["default"] = json!({});
    }
}

/// Defaults of objects hold those of their fields: the API server checks a default by itself, rules included.
fn complete_defaults(schema: &mut Value) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(complete_defaults);
    }
    if let Some(mut default) = schema
        .get("default")
        .filter(|default| default.is_object())
        .cloned()
    {
        apply_defaults(schema, &mut default);
        schema["default"] = default;
    }
}

fn name_must_fit(schema: &mut Value) {
    schema["x-kubernetes-validations"] = json!([{
        "rule": format!("size(self.metadata.name) <= {MAX_NAME_LENGTH}"),
        "message": format!(
            "the name is longer than {MAX_NAME_LENGTH} characters, and pods are called after it; fix: choose a shorter one"
        ),
        "fieldPath": ".metadata.name",
    }]);
    // Rules on metadata need its properties said; the server adds the rest.
    schema["properties"]["metadata"] = json!({
        "type": "object",
        "properties": BTreeMap::from([("name", json!({"type": "string", "maxLength": 253}))]),
    });
}
