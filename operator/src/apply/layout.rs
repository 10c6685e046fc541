//! Fixed names, ports and paths in a worker's pod.

/// Name of the worker's container; `podTemplate` refers to it.
pub const CONTAINER: &str = "worker";

/// Port of `/live`, `/ready` and `/metrics`.
pub(super) const ADMIN_PORT: i32 = 8081;

/// Mount path of the shared volume.
pub const WORK_PATH: &str = "/shared";

/// Mount path of a worker's scratch volume.
pub const SCRATCH_PATH: &str = "/scratch";

/// Mount path of downloaded models: the image's `MODEL_CACHE_DIR`.
pub(super) const MODELS_PATH: &str = "/scratch/models";

/// Mount path of CA certificates.
pub const CA_PATH: &str = "/etc/separation/kafka-ca";

/// Mount path of the client certificate.
pub const CLIENT_PATH: &str = "/etc/separation/kafka-client";

/// Mount path of the CA certificates of the OAuth 2 token endpoint.
pub const OAUTH_CA_PATH: &str = "/etc/separation/kafka-oauth-ca";

/// Mount path of the service account's token for Kafka.
pub(super) const TOKEN_PATH: &str = "/etc/separation/kafka-token";

/// Name of its file.
pub(super) const TOKEN_FILE: &str = "token";
