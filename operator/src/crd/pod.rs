//! Spec of pods: image, resources, placement, and a partial template for the rest.
//!
//! Fields without a schema accept every value here, so that a malformed one does not make the complete pool unreadable.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LocalObjectReference, ResourceRequirements, Toleration};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Image, resources, placement and other settings of a role's pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodFields {
    /// Image of the container. Default: the operator's --worker-image.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Requests and limits of the container, such as {limits: {nvidia.com/gpu: 1}}. With the CPU as execution provider, a
    /// processor has as many threads as limits.cpu, else requests.cpu, rounded up; 2 without both. Default: requests of
    /// 1 CPU and 1Gi for processors (2Gi with CUDA), 100m and 128Mi for uploaders and the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "resources")]
    pub resources: Option<ResourceRequirements>,
    /// Labels that a node must have to run these pods, such as {gpu: a10}. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "node_selector")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pods tolerate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "tolerations")]
    pub tolerations: Vec<Toleration>,
    /// Affinity of the pods, as in spec.affinity of a Pod (kubectl explain pod.spec.affinity).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub affinity: Option<Value>,
    /// Service account of the pods, for clouds that assign identities to service accounts. Its token for the API server
    /// is not mounted. Refused unless the operator allows it (--allow-in-pod-template service-account).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// Secrets for pulling the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "image_pull_secrets")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// PriorityClass of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Further environment variables of the container. Variables that are derived from the pool are refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "environment")]
    pub env: Vec<EnvVarSpec>,
    /// A partial PodTemplateSpec for everything else, such as volumes and labels, merged over the operator's own. The
    /// container is named worker. Host namespaces, hostPath and privileges are refused unless the operator's settings
    /// allow them.
    #[serde(skip_serializing_if = "PodTemplate::is_empty")]
    pub pod_template: PodTemplate,
}

/// An environment variable of the container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvVarSpec {
    /// Name of the variable.
    pub name: String,
    /// Value of the variable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Source of the value, not validated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_from: Option<Value>,
}

/// A partial PodTemplateSpec, not validated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodTemplate(pub Map<String, Value>);

impl PodTemplate {
    /// Whether it has no fields.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl JsonSchema for PodTemplate {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PodTemplate".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        any_object(generator)
    }
}

/// Longest names and values of Kubernetes: 253 for object names, 316 for a prefixed label.
const NAME: u32 = 253;
const LABEL: u32 = 316;

fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn text(description: &str, max_length: u32) -> Value {
    json!({"type": "string", "maxLength": max_length, "description": description})
}

fn resources(_: &mut SchemaGenerator) -> Schema {
    let amounts = |description: &str| {
        json!({
            "type": "object",
            "description": description,
            "maxProperties": 32,
            "additionalProperties": {
                "x-kubernetes-int-or-string": true,
                "pattern": "^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][0-9]+)?$",
                "maxLength": 24,
            },
        })
    };
    json_schema!({
        "type": "object",
        "properties": {
            "requests": amounts("Resources that a node must have free, such as {cpu: 2, memory: 4Gi}."),
            "limits": amounts("Resources that the container cannot exceed, such as {nvidia.com/gpu: 1}."),
        },
    })
}

fn node_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}

fn tolerations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "object",
            "properties": {
                "key": text("Key of the taint. Without it, all keys.", LABEL),
                "operator": {
                    "type": "string",
                    "enum": ["Equal", "Exists"],
                    "description": "Equal compares value; Exists tolerates all values. Default: Equal.",
                },
                "value": text("Value of the taint.", 63),
                "effect": {
                    "type": "string",
                    "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"],
                    "description": "Effect of the taint. Without it, all effects.",
                },
                "tolerationSeconds": {
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                    "maximum": 31_536_000,
                    "description": "How long a NoExecute taint is tolerated, in seconds. Without it, without limit.",
                },
            },
        },
    })
}

fn image_pull_secrets(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": text("Name of the Secret.", NAME)},
        },
    })
}

fn environment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": text("Name of the variable.", NAME),
                "value": text("Value of the variable.", 8_192),
                "valueFrom": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": true,
                    "description": "Source of the value, as in a Pod: secretKeyRef, configMapKeyRef, fieldRef or \
                                    resourceFieldRef.",
                },
            },
        },
    })
}
