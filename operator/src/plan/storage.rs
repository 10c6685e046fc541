//! Validated storage, model and webhook settings.

use super::checks::Checks;
use crate::crd::{DeleteInputSpec, ModelSpec, OutboundSpec, ProviderSpec, StorageSpec};

/// Storage of songs and stems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoragePlan {
    /// Object store for finished stems.
    pub s3: S3Plan,
    /// Staging storage.
    pub staging: Staging,
    /// When a task's input is deleted.
    pub delete_input: DeleteInput,
    /// Maximum scratch space of one worker.
    pub scratch_bytes: u64,
}

/// An object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Plan {
    /// Bucket for finished stems.
    pub bucket: String,
    /// URL of the server; none means AWS.
    pub endpoint: Option<String>,
    /// Region; none if it is `auto`.
    pub region: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// Base URL of links to stems.
    pub public_url: Option<String>,
    /// Further buckets that tasks may name.
    pub input_buckets: Vec<String>,
    /// The access key.
    pub secret: Option<S3Secret>,
}

/// Secret keys of an S3 access key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Secret {
    /// The access key ID.
    pub access_key_id: SecretKey,
    /// The secret access key.
    pub secret_access_key: SecretKey,
}

/// A key of a Secret in the pool's namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretKey {
    /// Name of the Secret.
    pub secret: String,
    /// Key in the Secret.
    pub key: String,
}

impl SecretKey {
    pub(super) fn new(secret: &str, key: &str) -> Self {
        Self {
            secret: secret.to_owned(),
            key: key.to_owned(),
        }
    }
}

/// Staging storage of songs and stems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Staging {
    /// On a shared volume.
    SharedVolume(SharedVolume),
    /// In the bucket for finished stems, under this prefix of object keys.
    S3Prefix(String),
}

/// A shared volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedVolume {
    /// Name of the PersistentVolumeClaim.
    pub claim_name: String,
    /// Directory of songs.
    pub input_directory: String,
    /// Directory of stems.
    pub output_directory: String,
}

/// When a task's input is deleted, in the worker's spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteInput(pub &'static str);

/// Name or path of the separation model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model(pub String);

/// Execution provider of the model, in the worker's spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provider(pub &'static str);

/// Addresses that webhooks may be sent to, and their signing secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// Private hosts, addresses and networks that webhooks may be sent to.
    pub allow: Vec<String>,
    /// The signing secret.
    pub webhook_secret: Option<SecretKey>,
}

impl StoragePlan {
    pub(super) fn from_spec(spec: &StorageSpec, checks: &mut Checks) -> Option<Self> {
        let s3 = &spec.s3;
        for (field, url) in [
            ("storage.s3.endpoint", &s3.endpoint),
            ("storage.s3.publicUrl", &s3.public_url),
        ] {
            if let Some(url) = url.as_ref().filter(|url| !is_http(url)) {
                let problem = format!("`{url}` is not an http(s) URL");
                let _: Option<()> = checks.refuse(field, problem, "write https://host");
            }
        }
        let staging = match (&spec.work.persistent_volume_claim, &spec.work.s3_prefix) {
            (Some(claim), None) => Some(Staging::SharedVolume(SharedVolume {
                claim_name: claim.claim_name.clone(),
                input_directory: claim.input_folder.clone(),
                output_directory: claim.output_folder.clone(),
            })),
            (None, Some(prefix)) => Some(Staging::S3Prefix(prefix.clone())),
            _ => checks.refuse(
                "storage.work",
                "songs and stems are staged in one place",
                "set exactly one of persistentVolumeClaim and s3Prefix",
            ),
        };
        let scratch_bytes = checks.integer("storage.scratchBytes", spec.scratch_bytes, 64 << 20..=1 << 40);
        Some(Self {
            s3: S3Plan {
                bucket: s3.bucket.clone(),
                endpoint: s3.endpoint.clone(),
                region: Some(s3.region.clone()).filter(|region| region != "auto"),
                path_style: s3.path_style.unwrap_or(s3.endpoint.is_some()),
                public_url: s3.public_url.clone(),
                input_buckets: s3.input_buckets.clone(),
                secret: s3.secret_ref.as_ref().map(|secret| S3Secret {
                    access_key_id: SecretKey::new(&secret.name, &secret.access_key_id_key),
                    secret_access_key: SecretKey::new(&secret.name, &secret.secret_access_key_key),
                }),
            },
            staging: staging?,
            delete_input: DeleteInput(match spec.delete_input {
                DeleteInputSpec::AfterSuccess => "after-success",
                DeleteInputSpec::Always => "always",
                DeleteInputSpec::Never => "never",
            }),
            scratch_bytes: scratch_bytes?,
        })
    }
}

impl Model {
    pub(super) fn from_spec(spec: &ModelSpec, checks: &mut Checks) -> Option<Self> {
        match (&spec.name, &spec.path) {
            (Some(model), None) => Some(Self(model.clone())),
            (None, Some(path)) if path.starts_with('/') => Some(Self(path.clone())),
            (None, Some(path)) => checks.refuse(
                "model.path",
                format!("`{path}` is not an absolute path"),
                "write the path in the container, starting with /",
            ),
            _ => checks.refuse(
                "model",
                "a worker runs one model",
                "set exactly one of name and path",
            ),
        }
    }
}

impl Provider {
    pub(super) fn from_spec(spec: ProviderSpec) -> Self {
        Self(match spec {
            ProviderSpec::Cpu => "cpu",
            ProviderSpec::Cuda => "cuda",
        })
    }
}

impl Outbound {
    pub(super) fn from_spec(spec: &OutboundSpec) -> Self {
        let secret = spec.webhook_secret_ref.as_ref();
        Self {
            allow: spec.allow.clone(),
            webhook_secret: secret.map(|secret| SecretKey::new(&secret.name, &secret.key)),
        }
    }
}

fn is_http(url: &str) -> bool {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace))
}
