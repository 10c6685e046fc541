//! The CRD that is installed in a cluster: the derived schema, completed for the API server.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, JSONSchemaProps,
};
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use super::{RoleDefaults, SeparationPool};

/// Longest pool name: leaves room for `-processor` and the suffix of pod names (63 characters in all).
const MAX_NAME_LENGTH: usize = 40;

/// The CRD of `SeparationPool`.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = SeparationPool::crd();
    let version = &mut crd.spec.versions[0];
    version.additional_printer_columns = Some(columns());
    let schema = version
        .schema
        .as_mut()
        .and_then(|validation| validation.open_api_v3_schema.as_mut())
        .expect("the derived CRD has a schema");
    let mut value = serde_json::to_value(&*schema).expect("a schema is JSON");
    refuse_null(&mut value);
    set_role_defaults(&mut value);
    complete_defaults(&mut value);
    name_must_fit(&mut value);
    // Until the operator writes the first status, tools that follow kstatus see a pool in progress.
    value["properties"]["status"]["default"] = json!({"observedGeneration": -1});
    *schema = serde_json::from_value::<JSONSchemaProps>(value).expect("a changed schema is still valid");
    crd
}

/// The CRD as YAML, as it is committed and installed.
///
/// # Errors
/// If it cannot be serialized as YAML.
pub fn to_yaml() -> Result<String, serde_saphyr::ser::Error> {
    let value = serde_json::to_value(crd()).expect("a CRD is JSON");
    let yaml = serde_saphyr::to_string(&value)?;
    Ok(format!(
        "# Generated from operator/src/crd by `cargo xtask generate`; never edited.\n{yaml}"
    ))
}

/// A pool from YAML, with the defaults that the API server would set.
///
/// # Errors
/// If the text is not valid YAML or not a valid `SeparationPool`.
pub fn from_yaml(text: &str) -> anyhow::Result<SeparationPool> {
    from_value(serde_saphyr::from_str(text)?)
}

/// A pool from a document, with the defaults that the API server would set.
///
/// # Errors
/// If it is not a valid `SeparationPool`.
pub fn from_value(mut value: Value) -> anyhow::Result<SeparationPool> {
    let schema = serde_json::to_value(crd().spec.versions[0].schema.as_ref())?;
    apply_defaults(&schema["openAPIV3Schema"], &mut value);
    Ok(serde_json::from_value(value)?)
}

/// Sets defaults as the API server does: for missing properties, then inside the defaults.
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

/// Columns of `kubectl get separationpools`: processors, and with `-o wide` uploaders.
fn columns() -> Vec<CustomResourceColumnDefinition> {
    let age = column(
        SHOWN,
        "Age",
        "date",
        ".metadata.creationTimestamp",
        "Age of the pool",
    );
    processor_columns()
        .into_iter()
        .chain(uploader_columns())
        .chain([age])
        .collect()
}

/// Priority of a column that is always shown.
const SHOWN: Option<i32> = None;

/// Priority of a column that is shown with `-o wide`.
const WIDE: Option<i32> = Some(1);

fn processor_columns() -> [CustomResourceColumnDefinition; 8] {
    let column = |name: &str, type_: &str, path: &str, description: &str| {
        column(SHOWN, name, type_, path, description)
    };
    [
        column(
            "Lag",
            "string",
            ".status.processor.lag.summary",
            "Tasks not yet committed, the running ones included; ? when unknown",
        ),
        column(
            "Min",
            "integer",
            ".spec.processor.scaling.minReplicas",
            "Minimum number of processors",
        ),
        column(
            "Max",
            "integer",
            ".spec.processor.scaling.maxReplicas",
            "Maximum number of processors",
        ),
        column(
            "Desired",
            "integer",
            ".status.processor.replicas.desired",
            "Desired processors",
        ),
        column(
            "Ready",
            "integer",
            ".status.processor.replicas.ready",
            "Processors that are ready for tasks",
        ),
        column(
            "Busy",
            "integer",
            ".status.processor.replicas.busy",
            "Processors that hold a task",
        ),
        column(
            "Draining",
            "integer",
            ".status.processor.replicas.draining",
            "Terminating processors that finish their last task",
        ),
        column(
            "Reason",
            "string",
            ".status.processor.reason",
            "Reason for the desired processors",
        ),
    ]
}

fn uploader_columns() -> [CustomResourceColumnDefinition; 3] {
    let column = |name: &str, type_: &str, field: &str, description: &str| {
        let path = format!(".status.uploader.{field}");
        column(WIDE, name, type_, &path, description)
    };
    [
        column(
            "Uploader-Lag",
            "string",
            "lag.summary",
            "Results not yet uploaded; ? when unknown",
        ),
        column("Uploaders", "integer", "replicas.desired", "Desired uploaders"),
        column(
            "Uploader-Reason",
            "string",
            "reason",
            "Reason for the desired uploaders",
        ),
    ]
}

fn column(
    priority: Option<i32>,
    name: &str,
    type_: &str,
    json_path: &str,
    description: &str,
) -> CustomResourceColumnDefinition {
    CustomResourceColumnDefinition {
        description: Some(description.into()),
        format: None,
        json_path: json_path.into(),
        name: name.into(),
        priority,
        type_: type_.into(),
    }
}

/// Without `nullable`, the server drops a `null` before it sets defaults, so that it equals a missing property and
/// rules never see it.
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

/// The rule of a role about its task deadline and its poll interval. Here, because it spans two objects.
fn task_fits_poll_interval() -> Value {
    json!([{
        "rule": "!has(self.taskDeadlineSeconds) || self.taskDeadlineSeconds * 1000 + \
                 (self.consumer.maxPollIntervalMs >= 60000 ? 30000 : self.consumer.maxPollIntervalMs / 2) <= \
                 self.consumer.maxPollIntervalMs",
        "message": "a task and 30 s to finish it (half the poll interval if that is below 60 s) must fit into the poll \
                    interval, or another worker starts the same task; \
                    fix: lower taskDeadlineSeconds or raise consumer.maxPollIntervalMs",
        "fieldPath": ".taskDeadlineSeconds"
    }, {
        "rule": "!has(self.scaling.target) || self.scaling.target.type != 'DrainDeadline' || \
                 (has(self.scaling.estimates) && has(self.scaling.estimates.taskSeconds))",
        "message": "a drain deadline needs the duration of a task; fix: set scaling.estimates.taskSeconds",
        "fieldPath": ".scaling.target"
    }])
}

/// The rule of processors about their poll interval and the time that a task may take during a drain.
fn drain_fits_poll_interval() -> Value {
    json!({
        "rule": "!has(self.drainSeconds) || self.drainSeconds * 1000 <= self.consumer.maxPollIntervalMs",
        "message": "after the poll interval another worker starts the task anyway, so drainSeconds must not be longer; \
                    fix: lower drainSeconds or raise consumer.maxPollIntervalMs",
        "fieldPath": ".drainSeconds"
    })
}

fn set_role_defaults(schema: &mut Value) {
    let spec = &mut schema["properties"]["spec"]["properties"];
    for role in [RoleDefaults::PROCESSOR, RoleDefaults::UPLOADER] {
        let fields = &mut spec[role.property]["properties"];
        let poll_ms =
            u64::try_from(role.timings.max_poll_interval.as_millis()).expect("minutes fit into 64 bits");
        fields["topic"]["default"] = json!(role.topic);
        fields["consumerGroup"]["default"] = json!(role.group);
        fields["consumer"]["properties"]["maxPollIntervalMs"]["default"] = json!(poll_ms);
        spec[role.property]["default"] = json!({});
        let mut rules = task_fits_poll_interval();
        if role == RoleDefaults::PROCESSOR {
            let rules = rules.as_array_mut().expect("a list of rules");
            rules.push(drain_fits_poll_interval());
        }
        spec[role.property]["x-kubernetes-validations"] = rules;
    }
}

/// Adds the defaults of fields to the defaults of objects: the API server validates a default by itself, rules
/// included.
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
            "the name is longer than {MAX_NAME_LENGTH} characters, and pod names start with it; \
             fix: choose a shorter one"
        ),
        "fieldPath": ".metadata.name",
    }]);
    // Rules on metadata need its properties declared; the server adds the rest.
    schema["properties"]["metadata"] = json!({
        "type": "object",
        "properties": BTreeMap::from([("name", json!({"type": "string", "maxLength": 253}))]),
    });
}
