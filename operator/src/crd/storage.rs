//! Spec of storage and webhooks.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A prefix of object keys: path components that begin with no dot, and a slash at its end.
const KEY_PREFIX: &str = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/$";

/// Storage of songs and stems.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageSpec {
    /// S3 server of stems, and of staged songs and stems. Default: AWS, with the credentials of the pod.
    #[serde(default)]
    pub s3: S3Spec,
    /// Where finished stems are stored.
    pub stems: StemsSpec,
    /// Where the API, processors and uploaders exchange songs and stems. A change takes effect when the lag of both
    /// topics is 0, because queued tasks name the previous location.
    pub staging: StagingSpec,
    /// Songs that no task has deleted. Default: they are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<InputsSpec>,
    /// Further buckets that tasks may name in audio_path (s3://bucket/key). Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(length(min = 3, max = 255), regex(pattern = r"^[A-Za-z0-9._-]+$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub allowed_input_buckets: Vec<String>,
    /// When a task's song is deleted: AfterSuccess; Always (also after failure); or Never. It is deleted only after the
    /// result is committed. Default: AfterSuccess.
    #[serde(default)]
    pub input_deletion_policy: InputDeletionPolicy,
    /// Maximum scratch space of one worker, such as 8Gi; 64Mi to 1Ti. It holds one song and its stems; the pod's volume
    /// is a tenth larger. Default: 8Gi.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scratch_size_limit: Option<ByteQuantity>,
}

/// An S3 server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Spec {
    /// URL of the S3 server, with its scheme and port. Default: AWS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^/\s]+"))]
    pub endpoint: Option<String>,
    /// URL of the S3 server as clients of the API reach it, such as `https://s3.example`. With it, clients upload songs
    /// and download stems of API v1 from the S3 server by presigned links; the bucket need not be publicly readable.
    /// Default: the API itself serves the stems, and there are no presigned uploads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^/\s]+"))]
    pub public_endpoint: Option<String>,
    /// Region, such as eu-central-1. Default: us-east-1 with an endpoint; without one, the region from the pod's
    /// environment, AWS profile or instance, else us-east-1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,
    /// Address buckets as endpoint/bucket instead of bucket.endpoint. Default: true if an endpoint is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force_path_style: Option<bool>,
    /// Secret with the access key. Default: the pod's other AWS credentials, such as a role of its service account or its
    /// node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<S3CredentialsSecretRef>,
}

/// A Secret in the pool's namespace with an access key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3CredentialsSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Secret key with the access key ID. Default: AWS_ACCESS_KEY_ID.
    #[serde(rename = "accessKeyIDKey", default = "access_key_id_key")]
    #[schemars(length(min = 1, max = 253))]
    pub access_key_id_key: String,
    /// Secret key with the secret access key. Default: AWS_SECRET_ACCESS_KEY.
    #[serde(default = "secret_access_key_key")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_access_key_key: String,
    /// Secret key with the session token of temporary credentials. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub session_token_key: Option<String>,
}

/// Where finished stems are stored: PREFIX + TASK_vocals.wav in a bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StemsSpec {
    /// Bucket of the stems.
    #[schemars(length(min = 3, max = 255), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub bucket: String,
    /// Prefix of the object keys, such as stems/; ends with a slash. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 512),
        regex(pattern = KEY_PREFIX)
    )]
    pub prefix: Option<String>,
    /// Base URL of links to stems, such as `https://cdn.example/stems`. Default: the URL of the bucket.
    #[serde(rename = "publicURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^/\s]+"))]
    pub public_url: Option<String>,
    /// Days after which an uploader deletes finished stems, counted from the end of their task. The records of API v1 tasks
    /// are deleted 30 days later. Default: both are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3_650))]
    pub retention_days: Option<i32>,
}

/// Songs that the API stored and that no task has deleted, such as those of failed tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InputsSpec {
    /// Days after which an uploader deletes them from the staging storage. Default: they are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3_650))]
    pub retention_days: Option<i32>,
}

/// Staging storage of songs and stems: a bucket, or a shared volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.persistentVolumeClaim) != has(self.s3)",
    "message": "songs and stems are staged in one place; fix: set exactly one of persistentVolumeClaim and s3"
}]))]
pub struct StagingSpec {
    /// Bucket and prefix on the S3 server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3StagingSpec>,
    /// Volume that all workers and the API mount (ReadWriteMany if they run on several nodes).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimSpec>,
}

/// Staging storage on the S3 server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3StagingSpec {
    /// Bucket of staged songs and stems. Default: the bucket of the stems.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 255), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub bucket: Option<String>,
    /// Prefix of the object keys of staged files, such as staging/; it ends with a slash. Default: staging/.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 512),
        regex(pattern = KEY_PREFIX)
    )]
    pub prefix: Option<String>,
}

/// A shared volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSpec {
    /// Name of a PersistentVolumeClaim in the pool's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// Directory of the volume with the songs; no song outside it is read. Default: temp.
    #[serde(default = "input_sub_path")]
    #[schemars(
        length(min = 1, max = 255),
        regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")
    )]
    pub input_sub_path: String,
    /// Directory of the volume that stems are written to; nothing outside it is written. Default: output.
    #[serde(default = "output_sub_path")]
    #[schemars(
        length(min = 1, max = 255),
        regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")
    )]
    pub output_sub_path: String,
}

/// When a task's song is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InputDeletionPolicy {
    /// After the task succeeded.
    #[default]
    AfterSuccess,
    /// After the task succeeded or failed.
    Always,
    /// Inputs are kept.
    Never,
}

/// A number of bytes as Kubernetes writes it: 8Gi, 500M or 1048576.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteQuantity(pub Value);

impl ByteQuantity {
    /// The number of bytes; none if it is not one.
    pub fn bytes(&self) -> Option<u64> {
        let text = match &self.0 {
            Value::Number(number) => return number.as_u64(),
            Value::String(text) => text,
            _ => return None,
        };
        let digits = text.trim_end_matches(char::is_alphabetic);
        let unit = match &text[digits.len()..] {
            "" => 1,
            "k" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            "T" => 1_000_000_000_000,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            "Ti" => 1 << 40,
            _ => return None,
        };
        digits.parse::<u64>().ok()?.checked_mul(unit)
    }
}

impl JsonSchema for ByteQuantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ByteQuantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": "^[0-9]+(k|M|G|T|Ki|Mi|Gi|Ti)?$",
            "maxLength": 24,
        })
    }
}

/// Signing of webhooks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhooksSpec {
    /// Secrets that webhooks are signed with (Standard Webhooks), the newest first; two during a rotation, so that
    /// receivers accept either. Webhooks of tasks that were posted with an API key are signed with its own secrets
    /// instead. Default: webhooks are not signed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub signing_secret_refs: Vec<SigningSecretRef>,
}

/// A Secret in the pool's namespace with the signing secret of webhooks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SigningSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Secret key with the signing secret: whsec_ and base64, or any text. Default: secret.
    #[serde(default = "signing_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Addresses that workers and the API may send requests to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressSpec {
    /// Private hosts, addresses or networks (CIDR, such as 10.1.0.0/16) that links to songs and webhooks may use.
    /// Public addresses are always allowed. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9.:/_-]+$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub allowed_private_hosts: Vec<String>,
}

fn access_key_id_key() -> String {
    "AWS_ACCESS_KEY_ID".into()
}

fn secret_access_key_key() -> String {
    "AWS_SECRET_ACCESS_KEY".into()
}

fn input_sub_path() -> String {
    "temp".into()
}

fn output_sub_path() -> String {
    "output".into()
}

fn signing_key() -> String {
    "secret".into()
}
