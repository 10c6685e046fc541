//! Validated storage, model and webhook settings.

use super::checks::Checks;
use crate::crd::{
    ByteQuantity, ExecutionProvider, InputDeletionPolicy, ModelSpec, S3CredentialsSecretRef,
    SeparationPoolSpec, StorageSpec,
};

/// Default region of a server with an endpoint of its own.
const ENDPOINT_REGION: &str = "auto";

/// Default prefix of staged songs and stems.
const STAGING_PREFIX: &str = "staging/";

/// Default of `scratchSizeLimit`.
const SCRATCH_BYTES: u64 = 8 << 30;

/// Range of `scratchSizeLimit` and `maxMemory`.
const LIMIT_RANGE: std::ops::RangeInclusive<u64> = 64 << 20..=1 << 40;

/// Range of `retentionDays`: a day to ten years.
const RETENTION_DAYS: std::ops::RangeInclusive<i64> = 1..=3_650;

/// Storage of songs and stems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoragePlan {
    /// S3 server.
    pub s3: S3Plan,
    /// Where finished stems are stored.
    pub stems: StemsPlan,
    /// Staging storage.
    pub staging: Staging,
    /// Days after which songs that no task deleted are deleted; none: never.
    pub inputs_retention_days: Option<u32>,
    /// Further buckets that tasks may name.
    pub input_buckets: Vec<String>,
    /// When a task's input is deleted.
    pub delete_input: DeleteInput,
    /// Maximum scratch space of one worker.
    pub scratch_bytes: u64,
}

/// An S3 server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Plan {
    /// URL of the server; none means AWS.
    pub endpoint: Option<String>,
    /// URL of the server as clients of the API reach it, for presigned links; none: there are no such links.
    pub public_endpoint: Option<String>,
    /// Region; none means that the AWS SDK of the workers finds it.
    pub region: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// The access key.
    pub secret: Option<S3Secret>,
}

/// Where finished stems are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StemsPlan {
    /// Bucket.
    pub bucket: String,
    /// Prefix of the object keys; empty or with a slash at its end.
    pub prefix: String,
    /// Base URL of links to stems.
    pub public_url: Option<String>,
    /// Days after which they are deleted; none: never.
    pub retention_days: Option<u32>,
}

/// Secret keys of an S3 access key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Secret {
    /// The access key ID.
    pub access_key_id: SecretKey,
    /// The secret access key.
    pub secret_access_key: SecretKey,
    /// The session token of temporary credentials.
    pub session_token: Option<SecretKey>,
}

impl S3Secret {
    fn from_spec(spec: &S3CredentialsSecretRef) -> Self {
        let key = |key: &str| SecretKey::new(&spec.name, key);
        Self {
            access_key_id: key(&spec.access_key_id_key),
            secret_access_key: key(&spec.secret_access_key_key),
            session_token: spec.session_token_key.as_deref().map(key),
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &SecretKey> {
        [&self.access_key_id, &self.secret_access_key]
            .into_iter()
            .chain(&self.session_token)
    }
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
    /// On the S3 server: bucket, and prefix of the object keys.
    S3 {
        /// Bucket.
        bucket: String,
        /// Prefix, with a slash at its end.
        prefix: String,
    },
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

/// The separation model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Its name, its path, or the address that workers download it from.
    pub name: String,
    /// SHA-256 of the file at an address; none for a name or a path.
    pub sha256: Option<String>,
}

/// Execution provider of the model, in the worker's spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provider(pub &'static str);

/// Addresses that requests may be sent to, and the signing secrets of webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// Private hosts, addresses and networks that links and webhooks may name.
    pub allow: Vec<String>,
    /// The signing secrets, the newest first.
    pub signing_secrets: Vec<SecretKey>,
}

impl StoragePlan {
    pub(super) fn from_spec(spec: &StorageSpec, checks: &mut Checks) -> Option<Self> {
        let s3 = &spec.s3;
        for (field, url) in [
            ("storage.s3.endpoint", &s3.endpoint),
            ("storage.s3.publicEndpoint", &s3.public_endpoint),
            ("storage.stems.publicURL", &spec.stems.public_url),
        ] {
            checks.http_url(field, url.as_deref());
        }
        let stems_days = spec.stems.retention_days;
        let stems_days = checks.optional_integer("storage.stems.retentionDays", stems_days, RETENTION_DAYS);
        let inputs_days = spec.inputs.as_ref().and_then(|inputs| inputs.retention_days);
        let inputs_days =
            checks.optional_integer("storage.inputs.retentionDays", inputs_days, RETENTION_DAYS);
        let staging = match (&spec.staging.persistent_volume_claim, &spec.staging.s3) {
            (Some(claim), None) => Some(Staging::SharedVolume(SharedVolume {
                claim_name: claim.claim_name.clone(),
                input_directory: claim.input_sub_path.clone(),
                output_directory: claim.output_sub_path.clone(),
            })),
            (None, Some(staging)) => Some(Staging::S3 {
                bucket: staging.bucket.as_ref().unwrap_or(&spec.stems.bucket).clone(),
                prefix: staging
                    .prefix
                    .clone()
                    .unwrap_or_else(|| STAGING_PREFIX.to_owned()),
            }),
            _ => checks.refuse(
                "storage.staging",
                "songs and stems are staged in one place",
                "set exactly one of persistentVolumeClaim and s3",
            ),
        };
        Some(Self {
            s3: S3Plan {
                endpoint: s3.endpoint.clone(),
                public_endpoint: s3.public_endpoint.clone(),
                region: s3
                    .region
                    .clone()
                    .or_else(|| s3.endpoint.as_ref().map(|_| ENDPOINT_REGION.to_owned())),
                path_style: s3.force_path_style.unwrap_or(s3.endpoint.is_some()),
                secret: s3.credentials_secret_ref.as_ref().map(S3Secret::from_spec),
            },
            stems: StemsPlan {
                bucket: spec.stems.bucket.clone(),
                prefix: spec.stems.prefix.clone().unwrap_or_default(),
                public_url: spec.stems.public_url.clone(),
                retention_days: stems_days?,
            },
            staging: staging?,
            inputs_retention_days: inputs_days?,
            input_buckets: spec.allowed_input_buckets.clone(),
            delete_input: DeleteInput(match spec.input_deletion_policy {
                InputDeletionPolicy::AfterSuccess => "after-success",
                InputDeletionPolicy::Always => "always",
                InputDeletionPolicy::Never => "never",
            }),
            scratch_bytes: scratch_bytes(spec, checks)?,
        })
    }
}

fn scratch_bytes(spec: &StorageSpec, checks: &mut Checks) -> Option<u64> {
    let limit = spec.scratch_size_limit.as_ref();
    limit.map_or(Some(SCRATCH_BYTES), |limit| {
        in_range("storage.scratchSizeLimit", limit, checks)
    })
}

/// The bytes of a limit, or a problem.
fn in_range(field: &str, limit: &ByteQuantity, checks: &mut Checks) -> Option<u64> {
    let bytes = limit.bytes().filter(|bytes| LIMIT_RANGE.contains(bytes));
    bytes.or_else(|| {
        checks.refuse(
            field,
            format!("{} is out of range", limit.0),
            "choose 64Mi to 1Ti",
        )
    })
}

impl Model {
    /// A model that workers have: by name or path.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            sha256: None,
        }
    }

    /// The model of a pool, none for the operator's default; the outer `None` after a problem.
    pub(super) fn from_spec(spec: Option<&ModelSpec>, checks: &mut Checks) -> Option<Option<Self>> {
        let Some(spec) = spec else { return Some(None) };
        match (&spec.name, &spec.path, &spec.uri, &spec.sha256) {
            (None, None, None, None) if spec.max_memory.is_some() => Some(None),
            (Some(name), None, None, None) => Some(Some(Self::named(name))),
            (None, Some(path), None, None) if path.starts_with('/') => Some(Some(Self::named(path))),
            (None, Some(path), None, None) => checks.refuse(
                "processor.model.path",
                format!("`{path}` is not an absolute path"),
                "write the path in the container, starting with /",
            ),
            (None, None, Some(uri), Some(sha256)) => Some(Some(Self {
                name: uri.clone(),
                sha256: Some(sha256.clone()),
            })),
            (None, None, Some(_), None) => checks.refuse(
                "processor.model.sha256",
                "a downloaded model needs the SHA-256 of its file",
                "set it to what sha256sum prints for the file",
            ),
            _ => checks.refuse(
                "processor.model",
                "a worker runs one model",
                "set exactly one of name, path, and uri with sha256, or maxMemory alone for the default model",
            ),
        }
    }
}

/// The limit of the model's memory; none without one, and after a problem.
pub(super) fn model_max_memory_bytes(spec: Option<&ModelSpec>, checks: &mut Checks) -> Option<u64> {
    let limit = spec?.max_memory.as_ref()?;
    in_range("processor.model.maxMemory", limit, checks)
}

impl Provider {
    /// Whether it is the CPU.
    pub(crate) fn is_cpu(self) -> bool {
        self.0 == "cpu"
    }

    pub(super) fn from_spec(spec: Option<ExecutionProvider>) -> Self {
        Self(match spec.unwrap_or_default() {
            ExecutionProvider::Cpu => "cpu",
            ExecutionProvider::Cuda => "cuda",
        })
    }
}

impl Outbound {
    pub(super) fn from_spec(spec: &SeparationPoolSpec) -> Self {
        let secrets = spec.webhooks.signing_secret_refs.iter();
        Self {
            allow: spec.egress.allowed_private_hosts.clone(),
            signing_secrets: secrets
                .map(|secret| SecretKey::new(&secret.name, &secret.key))
                .collect(),
        }
    }
}
