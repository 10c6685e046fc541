//! Spec of storage, model and webhooks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Storage of songs and stems.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageSpec {
    /// Object store that finished stems are uploaded to.
    pub s3: S3Spec,
    /// Staging storage of songs and stems between the API, processors and uploaders.
    pub work: WorkSpec,
    /// When a task's input is deleted, always after its result is committed: AfterSuccess, Always, or Never.
    #[serde(default)]
    pub delete_input: DeleteInputSpec,
    /// Maximum scratch space of one worker, in bytes. The pod's scratch volume is a tenth larger.
    #[serde(default = "scratch_bytes")]
    #[schemars(range(min = 67_108_864, max = 1_099_511_627_776_i64))]
    pub scratch_bytes: i64,
}

/// An object store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Spec {
    /// Bucket for finished stems.
    #[schemars(length(min = 3, max = 255), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub bucket: String,
    /// URL of the S3 server. Default: AWS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^/\s]+"))]
    pub endpoint: Option<String>,
    /// Region. auto: with an endpoint, a region that S3 servers accept; without one, the region from the pod's
    /// environment, AWS profile or instance.
    #[serde(default = "region")]
    #[schemars(length(min = 1, max = 64))]
    pub region: String,
    /// Address buckets as endpoint/bucket instead of bucket.endpoint. Default: true if an endpoint is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// Base URL of links to stems. Default: the URL of the bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^/\s]+"))]
    pub public_url: Option<String>,
    /// Further buckets that tasks may name in audio_path (s3://bucket/key).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(length(min = 3, max = 255), regex(pattern = r"^[A-Za-z0-9._-]+$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub input_buckets: Vec<String>,
    /// Secret with the access key. Default: the pod's other AWS credentials, such as a role of its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<S3SecretRef>,
}

/// A Secret in the pool's namespace with an access key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Secret key with the access key ID.
    #[serde(default = "access_key_id_key")]
    #[schemars(length(min = 1, max = 253))]
    pub access_key_id_key: String,
    /// Secret key with the secret access key.
    #[serde(default = "secret_access_key_key")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_access_key_key: String,
}

/// Staging storage of songs and stems: a shared volume, or the object store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.persistentVolumeClaim) != has(self.s3Prefix)",
    "message": "songs and stems are staged in one place; fix: set exactly one of persistentVolumeClaim and s3Prefix"
}]))]
pub struct WorkSpec {
    /// Volume that all workers and the API mount (ReadWriteMany if they run on several nodes).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimSpec>,
    /// Prefix of the object keys of staged songs and stems, in the bucket for finished stems. Ends with a slash.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 512),
        regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/$")
    )]
    pub s3_prefix: Option<String>,
}

/// A shared volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSpec {
    /// Name of a PersistentVolumeClaim in the pool's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// Directory of the volume with the songs; no song outside it is read.
    #[serde(default = "input_folder")]
    #[schemars(
        length(min = 1, max = 255),
        regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")
    )]
    pub input_folder: String,
    /// Directory of the volume that stems are written to; nothing outside it is written.
    #[serde(default = "output_folder")]
    #[schemars(
        length(min = 1, max = 255),
        regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")
    )]
    pub output_folder: String,
}

/// When a task's input is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeleteInputSpec {
    /// After the task succeeded.
    #[default]
    AfterSuccess,
    /// After the task succeeded or failed.
    Always,
    /// Inputs are kept.
    Never,
}

/// Separation model: by name in the image, or a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.name) != has(self.path)",
    "message": "a worker runs one model; fix: set exactly one of name and path"
}]))]
pub struct ModelSpec {
    /// builtin, or the name of a model in the image's model directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[^/]+$"))]
    pub name: Option<String>,
    /// Absolute path of a model file (.onnx) in the container; mount its volume with podOverrides.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1024), regex(pattern = r"^/"))]
    pub path: Option<String>,
}

impl Default for ModelSpec {
    fn default() -> Self {
        Self {
            name: Some("builtin".into()),
            path: None,
        }
    }
}

/// Execution provider of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProviderSpec {
    /// The CPU.
    #[default]
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// Addresses that webhooks may be sent to, and their signing secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutboundSpec {
    /// Private hosts, addresses and networks (CIDR) that webhooks may be sent to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9.:/_-]+$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub allow: Vec<String>,
    /// Secret that webhooks are signed with (Standard Webhooks). Default: they are not signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_secret_ref: Option<WebhookSecretRef>,
}

/// A Secret in the pool's namespace with the signing secret of webhooks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Secret key with the signing secret: whsec_ and base64, or any text.
    #[serde(default = "webhook_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn scratch_bytes() -> i64 {
    8 * 1024 * 1024 * 1024
}

fn region() -> String {
    "auto".into()
}

fn access_key_id_key() -> String {
    "AWS_ACCESS_KEY_ID".into()
}

fn secret_access_key_key() -> String {
    "AWS_SECRET_ACCESS_KEY".into()
}

fn input_folder() -> String {
    "temp".into()
}

fn output_folder() -> String {
    "output".into()
}

fn webhook_key() -> String {
    "secret".into()
}
