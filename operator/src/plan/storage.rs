//! Where songs, stems and models are, and what workers may call, checked.

use super::Checks;
use crate::crd::{DeleteInputSpec, ModelSpec, OutboundSpec, ProviderSpec, StorageSpec};

/// Where songs and stems are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoragePlan {
    /// The object store of finished stems.
    pub s3: S3Plan,
    /// Where songs and stems wait.
    pub work: Work,
    /// When a task's song is deleted.
    pub delete_input: DeleteInput,
    /// The most scratch space that one worker may fill.
    pub scratch_bytes: u64,
}

/// An object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Plan {
    /// Bucket of finished stems.
    pub bucket: String,
    /// The server; none means AWS.
    pub endpoint: Option<String>,
    /// Region; none where the pool leaves it open (`auto`).
    pub region: Option<String>,
    /// `endpoint/bucket/key` rather than `bucket.endpoint/key`.
    pub path_style: bool,
    /// What links to stems start with.
    pub public_url: Option<String>,
    /// Further buckets that tasks may name.
    pub input_buckets: Vec<String>,
    /// The access key.
    pub secret: Option<S3Secret>,
}

/// A secret's keys with an access key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Secret {
    /// The access key's id.
    pub access_key_id: SecretKey,
    /// The secret access key.
    pub secret_access_key: SecretKey,
}

/// A key of a secret in the pool's namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretKey {
    /// The secret's name.
    pub secret: String,
    /// The key in it.
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

/// Where songs and stems wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// On a shared volume.
    Claim(Claim),
    /// In the bucket of finished stems, under keys that start so.
    S3Prefix(String),
}

/// A shared volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The claim's name.
    pub name: String,
    /// Its folder of songs.
    pub input_folder: String,
    /// Its folder of stems.
    pub output_folder: String,
}

/// When a task's song is deleted, as workers know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteInput(pub &'static str);

/// What separates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model(pub String);

/// What a model runs on, as workers know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provider(pub &'static str);

/// What workers may call, and how webhooks are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// Hosts, addresses and networks that may be called although they are private.
    pub allow: Vec<String>,
    /// The secret of webhooks.
    pub webhook_secret: Option<SecretKey>,
}

impl StoragePlan {
    pub(super) fn of(spec: &StorageSpec, checks: &mut Checks) -> Option<Self> {
        let s3 = &spec.s3;
        for (field, url) in [
            ("storage.s3.endpoint", &s3.endpoint),
            ("storage.s3.publicUrl", &s3.public_url),
        ] {
            if let Some(url) = url.as_ref().filter(|url| !is_http(url)) {
                let _: Option<()> = checks.refuse(
                    field,
                    format!("`{url}` is no http(s) address"),
                    "write https://host",
                );
            }
        }
        let work = match (&spec.work.persistent_volume_claim, &spec.work.s3_prefix) {
            (Some(claim), None) => Some(Work::Claim(Claim {
                name: claim.claim_name.clone(),
                input_folder: claim.input_folder.clone(),
                output_folder: claim.output_folder.clone(),
            })),
            (None, Some(prefix)) => Some(Work::S3Prefix(prefix.clone())),
            _ => checks.refuse(
                "storage.work",
                "songs and stems wait in one place",
                "set exactly one of persistentVolumeClaim and s3Prefix",
            ),
        };
        let scratch_bytes = checks.whole("storage.scratchBytes", spec.scratch_bytes, 64 << 20..=1 << 40);
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
            work: work?,
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
    pub(super) fn of(spec: &ModelSpec, checks: &mut Checks) -> Option<Self> {
        match (&spec.name, &spec.path) {
            (Some(model), None) => Some(Self(model.clone())),
            (None, Some(path)) if path.starts_with('/') => Some(Self(path.clone())),
            (None, Some(path)) => checks.refuse(
                "model.path",
                format!("`{path}` is no full path"),
                "write the path in the container, from /",
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
    pub(super) fn of(spec: ProviderSpec) -> Self {
        Self(match spec {
            ProviderSpec::Cpu => "cpu",
            ProviderSpec::Cuda => "cuda",
        })
    }
}

impl Outbound {
    pub(super) fn of(spec: &OutboundSpec) -> Self {
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
