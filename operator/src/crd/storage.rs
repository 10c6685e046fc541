//! Where songs, stems and models are, and what workers may call, as people write it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where songs and stems are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageSpec {
    /// The object store that finished stems go to.
    pub s3: S3Spec,
    /// Where songs and stems wait between the API, processors and uploaders.
    pub work: WorkSpec,
    /// When a task's song is deleted, always after its result is committed: AfterSuccess, Always, or Never.
    #[serde(default)]
    pub delete_input: DeleteInputSpec,
    /// The most scratch space that one worker may fill, in bytes. The pod's own volume for it is a tenth larger.
    #[serde(default = "scratch_bytes")]
    #[schemars(range(min = 67_108_864, max = 1_099_511_627_776_i64))]
    pub scratch_bytes: i64,
}

/// An object store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Spec {
    /// Bucket of finished stems.
    #[schemars(length(min = 3, max = 255), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub bucket: String,
    /// Address of the S3 server. Default: AWS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^/\s]+"))]
    pub endpoint: Option<String>,
    /// Region. auto: with an endpoint, one that S3 servers accept; without one, the region of the pod's environment, AWS profile or instance.
    #[serde(default = "region")]
    #[schemars(length(min = 1, max = 64))]
    pub region: String,
    /// Address buckets as endpoint/bucket rather than bucket.endpoint. Default: true where an endpoint is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// What links to stems start with. Default: the object store's own address.
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
    /// Secret with the access key. Default: what the pod is given otherwise, such as a role of its node.
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
    /// Its key with the access key's id.
    #[serde(default = "access_key_id_key")]
    #[schemars(length(min = 1, max = 253))]
    pub access_key_id_key: String,
    /// Its key with the secret access key.
    #[serde(default = "secret_access_key_key")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_access_key_key: String,
}

/// Where songs and stems wait: a shared volume, or the object store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.persistentVolumeClaim) != has(self.s3Prefix)",
    "message": "songs and stems wait in one place; fix: set exactly one of persistentVolumeClaim and s3Prefix"
}]))]
pub struct WorkSpec {
    /// A volume that all workers and the API mount (ReadWriteMany where they run on several nodes).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimSpec>,
    /// What the keys of waiting songs and stems start with, in the bucket of finished stems. Ends with a slash.
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
    /// Folder of the volume that songs are read from; none outside it is read.
    #[serde(default = "input_folder")]
    #[schemars(
        length(min = 1, max = 255),
        regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")
    )]
    pub input_folder: String,
    /// Folder of the volume that stems are written to; nothing outside it is written.
    #[serde(default = "output_folder")]
    #[schemars(
        length(min = 1, max = 255),
        regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")
    )]
    pub output_folder: String,
}

/// When a song is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeleteInputSpec {
    /// When its stems are there.
    #[default]
    AfterSuccess,
    /// Whatever became of it.
    Always,
    /// Not at all.
    Never,
}

/// A model: one that the image knows by name, or a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.name) != has(self.path)",
    "message": "a worker runs one model; fix: set exactly one of name and path"
}]))]
pub struct ModelSpec {
    /// builtin, or the name of a model in the image's folder of models.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[^/]+$"))]
    pub name: Option<String>,
    /// Full path of a model's file (.onnx) in the container; podOverrides mount the volume that it is on.
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

/// What a model runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProviderSpec {
    /// Processors.
    #[default]
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// What workers may call, and how webhooks are signed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutboundSpec {
    /// Hosts, addresses and networks (CIDR) that webhooks may be sent to although they are private.
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

/// A Secret in the pool's namespace with the secret of webhooks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its key: whsec_ and base64, or any text.
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
