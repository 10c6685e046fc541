//! Environment variables of a worker: names shared by both binaries, values from the plan.

use std::time::Duration;

use k8s_openapi::api::core::v1::{EnvVar, PodTemplateSpec};
use separation_contract::environment as env;
use separation_contract::failure_policy::FailurePolicy;
use separation_contract::kafka::OffsetReset;

use super::kafka_variables::connection;
use super::layout::{ADMIN_PORT, SCRATCH_PATH, WORK_PATH};
use super::pod_fields;
use super::variable::{plain, secret};
use crate::crd::LogFormat;
use crate::plan::{ApiPlan, BasicAuth, Model, PoolPlan, Role, RolePlan, Staging};

/// Threads of the model in a container without requests or limits of CPU: more than its default request, so that the
/// second thread uses a core that is free.
const DEFAULT_THREADS: u32 = 2;

/// With more processors than this, each commits its progress less often: 1,000 busy processors then make 100 commits a
/// second instead of 333.
const MANY_REPLICAS: u32 = 100;

/// Seconds between two commits of the progress of many processors; the worker's default is 3.
const PROGRESS_SECONDS_OF_MANY: &str = "10";

/// All environment variables of a role's worker. `default_model` is that of pools that name none. The pool's tag, if any,
/// becomes part of the Kafka client id.
pub fn variables(
    plan: &PoolPlan,
    role: &RolePlan,
    default_model: &Model,
    pool_tag: Option<&str>,
) -> Vec<EnvVar> {
    let mut variables = connection(&plan.kafka, pool_tag);
    variables.extend(consumer(plan, role));
    variables.extend(storage(plan));
    variables.extend(logs(plan));
    variables.extend([
        plain(env::DELETE_INPUT, plan.storage.delete_input.0),
        plain(env::SCRATCH_DIR, SCRATCH_PATH),
        plain(env::SCRATCH_LIMIT_BYTES, plan.storage.scratch_bytes.to_string()),
    ]);
    match role.role {
        Role::Processor => {
            if role.policy.limits.max() > MANY_REPLICAS {
                variables.push(plain(env::PROGRESS_SECONDS, PROGRESS_SECONDS_OF_MANY));
            }
            let drain = role.drain;
            variables.extend(drain.map(|drain| plain(env::DRAIN_SECONDS, drain.as_secs().to_string())));
            variables.extend(max_input_seconds(plan));
            let model = plan.model.as_ref().unwrap_or(default_model);
            match &model.sha256 {
                None => variables.push(plain(env::MODEL_NAME, &model.name)),
                Some(sha256) => {
                    variables.push(plain(env::MODEL_URI, &model.name));
                    variables.push(plain(env::MODEL_SHA256, sha256));
                    variables.extend(allowed_hosts(plan));
                }
            }
            variables.push(plain(env::PROVIDER, plan.provider.0));
            let limit = plan.model_max_memory_bytes;
            variables
                .extend(limit.map(|bytes| plain(env::MODEL_MAX_MEMORY, (bytes / 1_000_000).to_string())));
        }
        Role::Uploader => {
            variables.extend(allowed_hosts(plan));
            variables.extend(signing_secrets(plan));
            variables.extend(stems_retention(plan));
            let days = plan.storage.inputs_retention_days;
            variables.extend(days.map(|days| plain(env::INPUTS_RETENTION_DAYS, days.to_string())));
        }
    }
    variables
}

/// All environment variables of the API.
pub fn api_variables(plan: &PoolPlan, api: &ApiPlan, port: i32) -> Vec<EnvVar> {
    let mut variables = connection(&plan.kafka, None);
    variables.extend(storage(plan));
    variables.extend(logs(plan));
    variables.extend(allowed_hosts(plan));
    variables.extend([
        plain(env::KAFKA_TASK_TOPIC, &plan.processor.topic),
        plain(env::KAFKA_PROCESSOR_GROUP_ID, &plan.processor.group),
        plain(env::API_HOST, "0.0.0.0"),
        plain(env::API_PORT, port.to_string()),
    ]);
    variables.extend(client_credentials(plan, api));
    variables.extend([
        plain(env::MAX_INPUT_BYTES, api.max_input_bytes.to_string()),
        plain(
            env::INPUT_TIMEOUT_SECONDS,
            api.input_timeout.as_secs().to_string(),
        ),
        plain(env::INPUT_IDLE_SECONDS, api.input_idle.as_secs().to_string()),
        plain(env::MAX_CONCURRENT_INPUTS, api.max_concurrent_inputs.to_string()),
    ]);
    let url = api.public_url.as_ref();
    variables.extend(url.map(|url| plain(env::API_PUBLIC_URL, url)));
    let endpoint = plan.storage.s3.public_endpoint.as_ref();
    variables.extend(endpoint.map(|url| plain(env::S3_PUBLIC_ENDPOINT, url)));
    variables.extend(stems_retention(plan));
    variables.extend(max_input_seconds(plan));
    variables
}

fn client_credentials(plan: &PoolPlan, api: &ApiPlan) -> Vec<EnvVar> {
    let mut variables = Vec::new();
    if let Some(BasicAuth { username, password }) = &api.basic_auth {
        variables.push(secret(env::BASIC_AUTH_USERNAME, username));
        variables.push(secret(env::BASIC_AUTH_PASSWORD, password));
    }
    if api.has_client_without_key() {
        variables.extend(signing_secrets(plan));
    }
    variables.extend(api.keys.as_ref().map(|keys| secret(env::API_KEYS, keys)));
    variables
}

fn signing_secrets(plan: &PoolPlan) -> impl Iterator<Item = EnvVar> {
    let names = [env::WEBHOOK_SECRET, env::WEBHOOK_PREVIOUS_SECRET];
    let secrets = names.into_iter().zip(&plan.outbound.signing_secrets);
    secrets.map(|(name, key)| secret(name, key))
}

fn stems_retention(plan: &PoolPlan) -> Option<EnvVar> {
    let days = plan.storage.stems.retention_days?;
    Some(plain(env::STEMS_RETENTION_DAYS, days.to_string()))
}

fn max_input_seconds(plan: &PoolPlan) -> Option<EnvVar> {
    let seconds = plan.max_input_seconds?;
    Some(plain(env::MAX_INPUT_SECONDS, seconds.to_string()))
}

fn allowed_hosts(plan: &PoolPlan) -> Option<EnvVar> {
    let allowed = &plan.outbound.allow;
    (!allowed.is_empty()).then(|| plain(env::OUTBOUND_ALLOW, allowed.join(",")))
}

fn logs(plan: &PoolPlan) -> Vec<EnvVar> {
    let format = match plan.logs.format.unwrap_or_default() {
        LogFormat::Json => "json",
        LogFormat::Text => "text",
    };
    let mut variables = vec![
        plain(env::ADMIN_ADDR, format!("0.0.0.0:{ADMIN_PORT}")),
        plain(env::LOG_FORMAT, format),
    ];
    let level = plan.logs.level.as_ref();
    variables.extend(level.map(|level| plain(env::LOG_LEVEL, level)));
    variables
}

/// Sets as many threads of the model as the pool gives the container cores, unless the pool sets them.
pub(super) fn set_threads(template: &mut PodTemplateSpec) {
    let threads = pod_fields::cores(template).unwrap_or(DEFAULT_THREADS);
    if let Some(worker) = pod_fields::worker_mut(template) {
        let variables = worker.env.get_or_insert_default();
        if variables.iter().all(|variable| variable.name != env::THREADS) {
            variables.push(plain(env::THREADS, threads.to_string()));
        }
    }
}

fn consumer(plan: &PoolPlan, role: &RolePlan) -> Vec<EnvVar> {
    let milliseconds = |name, duration: Duration| plain(name, duration.as_millis().to_string());
    let timings = &role.timings;
    let mut variables = vec![
        plain(env::KAFKA_TASK_TOPIC, &plan.processor.topic),
        plain(env::KAFKA_RESULT_TOPIC, &plan.uploader.topic),
        plain(env::KAFKA_PROCESSOR_GROUP_ID, &plan.processor.group),
        plain(env::KAFKA_UPLOADER_GROUP_ID, &plan.uploader.group),
        plain(env::KAFKA_DEAD_LETTER_TOPIC, &role.dead_letter_topic),
        milliseconds(env::KAFKA_MAX_POLL_INTERVAL_MS, timings.max_poll_interval),
        milliseconds(env::KAFKA_SESSION_TIMEOUT_MS, timings.session_timeout),
        milliseconds(env::KAFKA_HEARTBEAT_INTERVAL_MS, timings.heartbeat_interval),
        plain(env::KAFKA_ASSIGNOR, role.assignor.name()),
        // Offsets are initialized before the first worker starts. A partition without one is new, and none of its
        // messages may be skipped.
        plain(env::KAFKA_AUTO_OFFSET_RESET, OffsetReset::Earliest.name()),
        plain(env::TASK_TIMEOUT_SECONDS, role.task_timeout.as_secs().to_string()),
        plain(env::MAX_ATTEMPTS, role.max_crashes.to_string()),
    ];
    let on_failure = match role.max_retries {
        0 => FailurePolicy::AlwaysCommit,
        retries => FailurePolicy::RetryOnFailure(retries),
    };
    variables.push(plain(env::ON_FAILURE, on_failure.name()));
    if let FailurePolicy::RetryOnFailure(retries) = on_failure {
        variables.push(plain(env::MAX_RETRIES, retries.to_string()));
    }
    variables
}

fn storage(plan: &PoolPlan) -> Vec<EnvVar> {
    let (storage, s3) = (&plan.storage, &plan.storage.s3);
    let mut variables = vec![
        plain(env::S3_ENDPOINT_URL, s3.endpoint.as_deref().unwrap_or_default()),
        plain(env::S3_BUCKET_NAME, &storage.stems.bucket),
        plain(env::S3_PATH_STYLE, s3.path_style.to_string()),
        // The root file system is read-only, and libraries may write temporary files.
        plain("TMPDIR", SCRATCH_PATH),
    ];
    let region = s3.region.as_ref();
    variables.extend(region.map(|region| plain(env::AWS_REGION, region)));
    let stems = &storage.stems;
    if !stems.prefix.is_empty() {
        variables.push(plain(env::S3_STEMS_PREFIX, &stems.prefix));
    }
    let public_url = stems.public_url.as_ref();
    variables.extend(public_url.map(|url| plain(env::S3_PUBLIC_DOMAIN, url)));
    if !storage.input_buckets.is_empty() {
        variables.push(plain(env::S3_INPUT_BUCKETS, storage.input_buckets.join(",")));
    }
    if let Some(key) = &s3.secret {
        variables.push(secret(env::AWS_ACCESS_KEY_ID, &key.access_key_id));
        variables.push(secret(env::AWS_SECRET_ACCESS_KEY, &key.secret_access_key));
        let token = key.session_token.as_ref();
        variables.extend(token.map(|token| secret(env::AWS_SESSION_TOKEN, token)));
    }
    let (parent, input, output) = match &storage.staging {
        Staging::SharedVolume(shared) => (WORK_PATH, &*shared.input_directory, &*shared.output_directory),
        Staging::S3 { bucket, prefix } => {
            variables.push(plain(env::S3_STAGING, format!("s3://{bucket}/{prefix}")));
            // Set although unused, so that nothing is written into the binary's directory.
            (SCRATCH_PATH, "temp", "output")
        }
    };
    variables.push(plain(env::TEMP_DIR, format!("{parent}/{input}")));
    variables.push(plain(env::OUTPUT_DIR, format!("{parent}/{output}")));
    variables
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::json;

    use super::*;
    use crate::crd::{SeparationPool, from_yaml};

    const FULL: &str = include_str!("../../tests/pools/full.yaml");

    fn plan(pool: &SeparationPool) -> PoolPlan {
        PoolPlan::from_pool(pool).expect("a plan")
    }

    /// The values by name; `None` for a value from a Secret or a field.
    fn values(variables: Vec<EnvVar>) -> BTreeMap<String, Option<String>> {
        let variables = variables.into_iter();
        variables
            .map(|variable| (variable.name, variable.value))
            .collect()
    }

    fn api_values(pool: &SeparationPool) -> BTreeMap<String, Option<String>> {
        let plan = plan(pool);
        values(api_variables(&plan, plan.api.as_ref().expect("an API"), 8000))
    }

    #[test]
    fn the_api_gets_what_its_clients_need() {
        let mut pool = from_yaml(FULL).expect("a pool");
        let full = api_values(&pool);
        for (name, value) in [
            (env::API_PUBLIC_URL, "https://songs.example"),
            (env::S3_PUBLIC_ENDPOINT, "https://s3.example"),
            (env::STEMS_RETENTION_DAYS, "30"),
            (env::MAX_INPUT_SECONDS, "3600"),
        ] {
            assert_eq!(full[name].as_deref(), Some(value), "{name}");
        }
        assert_eq!(full[env::API_KEYS], None, "it is in a Secret");
        // The signing secrets of the pool sign webhooks of the client with the password only.
        pool.spec.api.as_mut().expect("an API").basic_auth_secret_ref = None;
        let keys = api_values(&pool);
        let of_password: Vec<&String> = full.keys().filter(|name| !keys.contains_key(*name)).collect();
        assert_eq!(
            of_password,
            [
                env::BASIC_AUTH_PASSWORD,
                env::BASIC_AUTH_USERNAME,
                env::WEBHOOK_SECRET
            ]
        );
    }

    #[test]
    fn the_api_has_the_same_connection_to_kafka_as_the_workers() {
        let mut pool = from_yaml(FULL).expect("a pool");
        let oauth = json!({"tokenEndpoint": "https://login.example/token", "clientID": "songs",
                           "clientSecretRef": {"name": "client"}});
        pool.spec.kafka.sasl =
            serde_json::from_value(json!({"mechanism": "OAUTHBEARER", "oauth": oauth})).ok();
        pool.spec.kafka.producer = serde_json::from_value(json!({"idempotence": false})).ok();
        let plan = plan(&pool);
        let connection = |variables: Vec<EnvVar>| {
            let of_connection = ["KAFKA_SASL", "KAFKA_OAUTH", "KAFKA_SSL", "KAFKA_ENABLE"];
            let variables = variables.into_iter();
            let found = variables
                .filter(|variable| of_connection.iter().any(|start| variable.name.starts_with(start)));
            found.collect::<Vec<_>>()
        };
        let api = connection(api_variables(&plan, plan.api.as_ref().expect("an API"), 8000));
        let model = Model::named("builtin");
        assert_eq!(api, connection(variables(&plan, &plan.uploader, &model, None)));
        assert_eq!(api.len(), 8, "{api:?}");
    }

    #[test]
    fn a_drain_is_limited_only_if_the_pool_limits_it_and_only_of_processors() {
        let drain = |seconds, role| {
            let mut pool = from_yaml(FULL).expect("a pool");
            pool.spec.processor.drain_seconds = seconds;
            let plan = plan(&pool);
            let values = values(variables(&plan, plan.role(role), &Model::named("builtin"), None));
            values.get(env::DRAIN_SECONDS).cloned().flatten()
        };
        assert_eq!(drain(None, Role::Processor), None);
        assert_eq!(drain(Some(25), Role::Processor).as_deref(), Some("25"));
        assert_eq!(drain(Some(25), Role::Uploader), None);
    }

    #[test]
    fn a_change_of_each_secret_that_the_api_reads_replaces_its_pods() {
        let plan = plan(&from_yaml(FULL).expect("a pool"));
        let variables = api_variables(&plan, plan.api.as_ref().expect("an API"), 8000);
        let read = variables.iter().filter_map(|variable| {
            let source = variable.value_from.as_ref()?.secret_key_ref.as_ref()?;
            Some((source.name.as_str(), source.key.as_str()))
        });
        let hashed = plan.api_secret_keys().into_iter();
        let hashed: BTreeSet<_> = hashed.map(|key| (&*key.secret, &*key.key)).collect();
        let missing: Vec<_> = read.filter(|key| !hashed.contains(key)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn more_than_100_processors_commit_their_progress_less_often() {
        let progress = |max| {
            let mut pool = from_yaml(FULL).expect("a pool");
            pool.spec.processor.role.scaling.max_replicas = max;
            let plan = plan(&pool);
            let values = values(variables(&plan, &plan.processor, &Model::named("builtin"), None));
            values.get(env::PROGRESS_SECONDS).cloned().flatten()
        };
        assert_eq!(progress(100), None);
        assert_eq!(progress(101).as_deref(), Some("10"));
    }
}
