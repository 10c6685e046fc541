//! Names of the environment variables that workers read and the operator sets.

/// Process ID of the parent on the same machine; the worker shuts down gracefully when that process is gone.
pub const PARENT_PROCESS: &str = "PARENT_PROCESS";

/// Brokers, `host:port`, comma separated.
pub const KAFKA_BOOTSTRAP_SERVERS: &str = "KAFKA_BOOTSTRAP_SERVERS";
/// Topic of tasks.
pub const KAFKA_TASK_TOPIC: &str = "KAFKA_TASK_TOPIC";
/// Topic of results.
pub const KAFKA_RESULT_TOPIC: &str = "KAFKA_RESULT_TOPIC";
/// Group of the processors.
pub const KAFKA_PROCESSOR_GROUP_ID: &str = "KAFKA_PROCESSOR_GROUP_ID";
/// Group of the uploaders.
pub const KAFKA_UPLOADER_GROUP_ID: &str = "KAFKA_UPLOADER_GROUP_ID";
/// Dead-letter topic; by default the consumed topic's name with `_dead_letters`.
pub const KAFKA_DEAD_LETTER_TOPIC: &str = "KAFKA_DEAD_LETTER_TOPIC";
/// Kafka `client.id`: the pod's name, so that the operator can distinguish busy and idle pods.
pub const KAFKA_CLIENT_ID: &str = "KAFKA_CLIENT_ID";
/// Kafka `max.poll.interval.ms`: longest time between two polls, in milliseconds.
pub const KAFKA_MAX_POLL_INTERVAL_MS: &str = "KAFKA_MAX_POLL_INTERVAL_MS";
/// Kafka `session.timeout.ms`: time without heartbeats after which the broker removes a member, in milliseconds.
pub const KAFKA_SESSION_TIMEOUT_MS: &str = "KAFKA_SESSION_TIMEOUT_MS";
/// Kafka `heartbeat.interval.ms`: time between two heartbeats, in milliseconds.
pub const KAFKA_HEARTBEAT_INTERVAL_MS: &str = "KAFKA_HEARTBEAT_INTERVAL_MS";
/// `cooperative-sticky` or `range`.
pub const KAFKA_ASSIGNOR: &str = "KAFKA_ASSIGNOR";
/// Where a partition without a committed offset starts: `latest` or `earliest`.
pub const KAFKA_AUTO_OFFSET_RESET: &str = "KAFKA_AUTO_OFFSET_RESET";
/// `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
pub const KAFKA_SECURITY_PROTOCOL: &str = "KAFKA_SECURITY_PROTOCOL";
/// File with the CA certificates (PEM) that verify the brokers, or a directory of such files.
pub const KAFKA_SSL_CA_LOCATION: &str = "KAFKA_SSL_CA_LOCATION";
/// File with the client's certificate (PEM).
pub const KAFKA_SSL_CERTIFICATE_LOCATION: &str = "KAFKA_SSL_CERTIFICATE_LOCATION";
/// File with the client's private key (PEM).
pub const KAFKA_SSL_KEY_LOCATION: &str = "KAFKA_SSL_KEY_LOCATION";
/// `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`, `OAUTHBEARER` or `AWS_MSK_IAM`.
pub const KAFKA_SASL_MECHANISM: &str = "KAFKA_SASL_MECHANISM";
/// SASL username for Kafka.
pub const KAFKA_SASL_USERNAME: &str = "KAFKA_SASL_USERNAME";
/// SASL password for Kafka.
pub const KAFKA_SASL_PASSWORD: &str = "KAFKA_SASL_PASSWORD";
/// URL of the token endpoint that exchanges client credentials for a token (`OAUTHBEARER`).
pub const KAFKA_OAUTH_TOKEN_ENDPOINT: &str = "KAFKA_OAUTH_TOKEN_ENDPOINT";
/// Client ID for the token endpoint.
pub const KAFKA_OAUTH_CLIENT_ID: &str = "KAFKA_OAUTH_CLIENT_ID";
/// Client secret for the token endpoint.
pub const KAFKA_OAUTH_CLIENT_SECRET: &str = "KAFKA_OAUTH_CLIENT_SECRET";
/// Scope that is requested from the token endpoint.
pub const KAFKA_OAUTH_SCOPE: &str = "KAFKA_OAUTH_SCOPE";
/// File with the CA certificates (PEM) that verify the token endpoint, or a directory of such files.
pub const KAFKA_OAUTH_CA_LOCATION: &str = "KAFKA_OAUTH_CA_LOCATION";
/// File with a token (JWT) that another process renews, such as a projected service account token (`OAUTHBEARER`).
pub const KAFKA_OAUTH_TOKEN_FILE: &str = "KAFKA_OAUTH_TOKEN_FILE";
/// AWS region of the brokers, for `AWS_MSK_IAM`.
pub const KAFKA_AWS_REGION: &str = "KAFKA_AWS_REGION";
/// Whether producers are idempotent.
pub const KAFKA_ENABLE_IDEMPOTENCE: &str = "KAFKA_ENABLE_IDEMPOTENCE";
/// Longest time in seconds that a running task may take after a shutdown request.
pub const DRAIN_SECONDS: &str = "DRAIN_SECONDS";

/// URL of the S3 server; empty means AWS.
pub const S3_ENDPOINT_URL: &str = "S3_ENDPOINT_URL";
/// S3 access key ID.
pub const AWS_ACCESS_KEY_ID: &str = "AWS_ACCESS_KEY_ID";
/// S3 secret access key.
pub const AWS_SECRET_ACCESS_KEY: &str = "AWS_SECRET_ACCESS_KEY";
/// S3 session token of temporary credentials.
pub const AWS_SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";
/// S3 region.
pub const AWS_REGION: &str = "AWS_REGION";
/// S3 region if `AWS_REGION` is empty or `auto`.
pub const AWS_DEFAULT_REGION: &str = "AWS_DEFAULT_REGION";
/// Bucket of finished stems.
pub const S3_BUCKET_NAME: &str = "S3_BUCKET_NAME";
/// Prefix of the object keys of finished stems.
pub const S3_STEMS_PREFIX: &str = "S3_STEMS_PREFIX";
/// URL of the S3 server as clients of the API reach it, for presigned links.
pub const S3_PUBLIC_ENDPOINT: &str = "S3_PUBLIC_ENDPOINT";
/// Days after which finished stems are deleted.
pub const STEMS_RETENTION_DAYS: &str = "STEMS_RETENTION_DAYS";
/// Days after which songs that no task deleted are deleted.
pub const INPUTS_RETENTION_DAYS: &str = "INPUTS_RETENTION_DAYS";
/// URL prefix of public links to stems.
pub const S3_PUBLIC_DOMAIN: &str = "S3_PUBLIC_DOMAIN";
/// `true`: `endpoint/bucket/key` rather than `bucket.endpoint/key`.
pub const S3_PATH_STYLE: &str = "S3_PATH_STYLE";
/// `s3://bucket/prefix` for staged songs and stems, in place of the shared directories.
pub const S3_STAGING: &str = "S3_STAGING";
/// Buckets that tasks may name in `audio_path` besides the staging bucket, comma separated.
pub const S3_INPUT_BUCKETS: &str = "S3_INPUT_BUCKETS";

/// Username for the API.
pub const BASIC_AUTH_USERNAME: &str = "BASIC_AUTH_USERNAME";
/// Password for the API.
pub const BASIC_AUTH_PASSWORD: &str = "BASIC_AUTH_PASSWORD";
/// Address that the API listens on.
pub const API_HOST: &str = "API_HOST";
/// Port that the API listens on.
pub const API_PORT: &str = "API_PORT";
/// Keys of the API's clients, as JSON.
pub const API_KEYS: &str = "API_KEYS";
/// URL of the API as its clients reach it, for links in responses and webhooks.
pub const API_PUBLIC_URL: &str = "API_PUBLIC_URL";
/// The longest song of an API v1 task, in seconds.
pub const MAX_INPUT_SECONDS: &str = "MAX_INPUT_SECONDS";
/// How the API chooses the partition of a task: `idle` or `key`.
pub const PLACEMENT: &str = "PLACEMENT";
/// Seconds between two commits of a running task's progress.
pub const PROGRESS_SECONDS: &str = "PROGRESS_SECONDS";
/// The largest song that the API accepts, in bytes.
pub const MAX_INPUT_BYTES: &str = "MAX_INPUT_BYTES";
/// Time limit for fetching or receiving one song, in seconds.
pub const INPUT_TIMEOUT_SECONDS: &str = "INPUT_TIMEOUT_SECONDS";
/// Longest time without data while the API fetches or receives a song, in seconds.
pub const INPUT_IDLE_SECONDS: &str = "INPUT_IDLE_SECONDS";
/// How many songs the API fetches or receives simultaneously.
pub const MAX_CONCURRENT_INPUTS: &str = "MAX_CONCURRENT_INPUTS";

/// Name of an installed model, such as `spleeter` or `builtin`, or a model file.
pub const MODEL_NAME: &str = "MODEL_NAME";
/// Directory of models that is searched for `MODEL_NAME` first.
pub const MODEL_FILE_DIR: &str = "MODEL_FILE_DIR";
/// Address of a model in place of `MODEL_NAME`: `https://…` or `s3://bucket/key`.
pub const MODEL_URI: &str = "MODEL_URI";
/// SHA-256 of the file at `MODEL_URI`, in hexadecimal digits.
pub const MODEL_SHA256: &str = "MODEL_SHA256";
/// Directory of fetched and downloaded models.
pub const MODEL_CACHE_DIR: &str = "MODEL_CACHE_DIR";
/// Limit of the memory of separations, in megabytes (10^6 bytes).
pub const MODEL_MAX_MEMORY: &str = "MODEL_MAX_MEMORY";
/// CPU threads of the model.
pub const THREADS: &str = "THREADS";
/// `cpu` or `cuda`.
pub const PROVIDER: &str = "PROVIDER";
/// Directory that songs are read from.
pub const TEMP_DIR: &str = "TEMP_DIR";
/// Directory that stems are written to.
pub const OUTPUT_DIR: &str = "OUTPUT_DIR";
/// Directory for one worker's temporary files.
pub const SCRATCH_DIR: &str = "SCRATCH_DIR";
/// Limit of one attempt's files in `SCRATCH_DIR`, in bytes.
pub const SCRATCH_LIMIT_BYTES: &str = "SCRATCH_LIMIT_BYTES";

/// Address of the endpoints `/live`, `/ready`, `/metrics` and `/drain`.
pub const ADMIN_ADDR: &str = "ADMIN_ADDR";
/// Hosts and CIDRs that may be called although they are private.
pub const OUTBOUND_ALLOW: &str = "OUTBOUND_ALLOW";
/// Secret that webhooks are signed with.
pub const WEBHOOK_SECRET: &str = "WEBHOOK_SECRET";
/// The signing secret before the last rotation: webhooks have a signature of both.
pub const WEBHOOK_PREVIOUS_SECRET: &str = "WEBHOOK_PREVIOUS_SECRET";
/// `AlwaysCommit` or `RetryOnFailure`.
pub const ON_FAILURE: &str = "ON_FAILURE";
/// How often `RetryOnFailure` requeues a task.
pub const MAX_RETRIES: &str = "MAX_RETRIES";
/// Number of worker crashes on one task after which it is sent to the dead-letter topic.
pub const MAX_ATTEMPTS: &str = "MAX_ATTEMPTS";
/// Time limit of one task, in seconds.
pub const TASK_TIMEOUT_SECONDS: &str = "TASK_TIMEOUT_SECONDS";
/// `after-success`, `always` or `never`: when a task's song is deleted, always after its result is committed.
pub const DELETE_INPUT: &str = "DELETE_INPUT";
/// How long the assignment must be unchanged before the first task, in milliseconds.
pub const SETTLE_MS: &str = "SETTLE_MS";
/// `text` or `json`.
pub const LOG_FORMAT: &str = "LOG_FORMAT";
/// Log level, or a filter per module.
pub const LOG_LEVEL: &str = "LOG_LEVEL";
