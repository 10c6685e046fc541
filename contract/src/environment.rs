//! Names of the environment variables that workers read and the operator sets.

/// Process that a worker ends with, in order, where one started it on its own machine.
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
/// Topic for messages that nobody can work on; by default the topic's name with `_dead_letters`.
pub const KAFKA_DEAD_LETTER_TOPIC: &str = "KAFKA_DEAD_LETTER_TOPIC";
/// What a member of the group calls itself: the pod's name, so that the operator can tell busy pods from idle ones.
pub const KAFKA_CLIENT_ID: &str = "KAFKA_CLIENT_ID";
/// How long a member may go without polling, in milliseconds.
pub const KAFKA_MAX_POLL_INTERVAL_MS: &str = "KAFKA_MAX_POLL_INTERVAL_MS";
/// How long a member may be silent before it counts as dead, in milliseconds.
pub const KAFKA_SESSION_TIMEOUT_MS: &str = "KAFKA_SESSION_TIMEOUT_MS";
/// How often a member says that it lives, in milliseconds.
pub const KAFKA_HEARTBEAT_INTERVAL_MS: &str = "KAFKA_HEARTBEAT_INTERVAL_MS";
/// `cooperative-sticky` or `range`.
pub const KAFKA_ASSIGNOR: &str = "KAFKA_ASSIGNOR";
/// Where a partition without a committed offset starts: `latest` or `earliest`.
pub const KAFKA_AUTO_OFFSET_RESET: &str = "KAFKA_AUTO_OFFSET_RESET";
/// `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
pub const KAFKA_SECURITY_PROTOCOL: &str = "KAFKA_SECURITY_PROTOCOL";
/// File with the certificates (PEM) that brokers are checked against.
pub const KAFKA_SSL_CA_LOCATION: &str = "KAFKA_SSL_CA_LOCATION";
/// File with the client's certificate (PEM).
pub const KAFKA_SSL_CERTIFICATE_LOCATION: &str = "KAFKA_SSL_CERTIFICATE_LOCATION";
/// File with the client's key (PEM).
pub const KAFKA_SSL_KEY_LOCATION: &str = "KAFKA_SSL_KEY_LOCATION";
/// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
pub const KAFKA_SASL_MECHANISM: &str = "KAFKA_SASL_MECHANISM";
/// Name to log in to Kafka with.
pub const KAFKA_SASL_USERNAME: &str = "KAFKA_SASL_USERNAME";
/// Password to log in to Kafka with.
pub const KAFKA_SASL_PASSWORD: &str = "KAFKA_SASL_PASSWORD";

/// Where the S3 server is; empty means AWS.
pub const S3_ENDPOINT_URL: &str = "S3_ENDPOINT_URL";
/// Access key of S3.
pub const AWS_ACCESS_KEY_ID: &str = "AWS_ACCESS_KEY_ID";
/// Secret key of S3.
pub const AWS_SECRET_ACCESS_KEY: &str = "AWS_SECRET_ACCESS_KEY";
/// Session token of S3: of credentials that were lent for a while.
pub const AWS_SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";
/// Region of S3.
pub const AWS_REGION: &str = "AWS_REGION";
/// Region of S3 where `AWS_REGION` names none.
pub const AWS_DEFAULT_REGION: &str = "AWS_DEFAULT_REGION";
/// Bucket of finished stems.
pub const S3_BUCKET_NAME: &str = "S3_BUCKET_NAME";
/// What public links to stems start with.
pub const S3_PUBLIC_DOMAIN: &str = "S3_PUBLIC_DOMAIN";
/// `true`: `endpoint/bucket/key` rather than `bucket.endpoint/key`.
pub const S3_PATH_STYLE: &str = "S3_PATH_STYLE";
/// `s3://bucket/prefix` where songs and stems wait, in place of shared folders.
pub const S3_STAGING: &str = "S3_STAGING";
/// Buckets that tasks may name in `audio_path`, comma separated, beside the staging one.
pub const S3_INPUT_BUCKETS: &str = "S3_INPUT_BUCKETS";

/// Name that callers of the API log in with.
pub const BASIC_AUTH_USERNAME: &str = "BASIC_AUTH_USERNAME";
/// Password that callers of the API log in with.
pub const BASIC_AUTH_PASSWORD: &str = "BASIC_AUTH_PASSWORD";
/// Address that the API listens on.
pub const API_HOST: &str = "API_HOST";
/// Port that the API listens on.
pub const API_PORT: &str = "API_PORT";
/// The largest song that the API takes, in bytes.
pub const MAX_INPUT_BYTES: &str = "MAX_INPUT_BYTES";
/// The longest time in which the API fetches or receives one song, in seconds.
pub const INPUT_TIMEOUT_SECONDS: &str = "INPUT_TIMEOUT_SECONDS";
/// The longest silence while the API fetches or receives one song, in seconds.
pub const INPUT_IDLE_SECONDS: &str = "INPUT_IDLE_SECONDS";
/// How many songs the API fetches or receives at once.
pub const MAX_CONCURRENT_INPUTS: &str = "MAX_CONCURRENT_INPUTS";

/// `builtin`, or the name of a model in `MODEL_FILE_DIR`.
pub const MODEL_NAME: &str = "MODEL_NAME";
/// Folder of models.
pub const MODEL_FILE_DIR: &str = "MODEL_FILE_DIR";
/// `cpu` or `cuda`.
pub const PROVIDER: &str = "PROVIDER";
/// Folder that songs are read from.
pub const TEMP_DIR: &str = "TEMP_DIR";
/// Folder that stems are written to.
pub const OUTPUT_DIR: &str = "OUTPUT_DIR";
/// Folder for one worker's own files while it works.
pub const SCRATCH_DIR: &str = "SCRATCH_DIR";
/// The most that one attempt may have in `SCRATCH_DIR`, in bytes.
pub const SCRATCH_LIMIT_BYTES: &str = "SCRATCH_LIMIT_BYTES";

/// Address of live, ready, metrics and drain.
pub const ADMIN_ADDR: &str = "ADMIN_ADDR";
/// Hosts and CIDRs that may be called although they are private.
pub const OUTBOUND_ALLOW: &str = "OUTBOUND_ALLOW";
/// Secret that webhooks are signed with.
pub const WEBHOOK_SECRET: &str = "WEBHOOK_SECRET";
/// `AlwaysCommit` or `RetryOnFailure`.
pub const ON_FAILURE: &str = "ON_FAILURE";
/// How often `RetryOnFailure` puts a task back.
pub const MAX_RETRIES: &str = "MAX_RETRIES";
/// How often a task may kill its worker before it is dead-lettered.
pub const MAX_ATTEMPTS: &str = "MAX_ATTEMPTS";
/// How long one task may take, in seconds.
pub const TASK_TIMEOUT_SECONDS: &str = "TASK_TIMEOUT_SECONDS";
/// `after-success`, `always` or `never`: when a task's song is deleted, always after its result is committed.
pub const DELETE_INPUT: &str = "DELETE_INPUT";
/// How long an assignment must stand still before the first task, in milliseconds.
pub const SETTLE_MS: &str = "SETTLE_MS";
/// `text` or `json`.
pub const LOG_FORMAT: &str = "LOG_FORMAT";
/// What to log: a level, or a filter per part.
pub const LOG_LEVEL: &str = "LOG_LEVEL";
