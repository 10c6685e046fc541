//! What a worker is told through its environment: names as both binaries know them, values of the plan.

use std::time::Duration;

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, SecretKeySelector};
use separation_contract::environment as env;
use separation_contract::kafka::OffsetReset;

use super::pod::{ADMIN_PORT, CA_FOLDER, CLIENT_FOLDER, SCRATCH_FOLDER, WORK_FOLDER};
use crate::names;
use crate::plan::{FailurePolicy, PoolPlan, Role, RolePlan, SecretKey, Work};

/// All variables of a role's worker. The pool's tag is part of its Kafka client id, where there is one.
pub(crate) fn variables(plan: &PoolPlan, role: &RolePlan, pool_tag: Option<&str>) -> Vec<EnvVar> {
    let mut variables = kafka(plan, pool_tag);
    variables.extend(consumer(plan, role));
    variables.extend(storage(plan));
    variables.push(plain(env::ADMIN_ADDR, format!("0.0.0.0:{ADMIN_PORT}")));
    // As the operator and the API of the chart; `podOverrides` may ask for text.
    variables.push(plain(env::LOG_FORMAT, "json"));
    match role.role {
        Role::Processor => {
            variables.push(plain(env::MODEL_NAME, &plan.model.0));
            variables.push(plain(env::PROVIDER, plan.provider.0));
        }
        Role::Uploader => {
            if !plan.outbound.allow.is_empty() {
                variables.push(plain(env::OUTBOUND_ALLOW, plan.outbound.allow.join(",")));
            }
            variables.extend(
                plan.outbound
                    .webhook_secret
                    .as_ref()
                    .map(|key| secret(env::WEBHOOK_SECRET, key)),
            );
        }
    }
    variables
}

/// How group members are told apart. Kubernetes puts the pod's name into the client id: its variable comes first.
fn identity(pool_tag: Option<&str>) -> Vec<EnvVar> {
    match pool_tag {
        Some(tag) => vec![
            pod_name(names::POD_NAME),
            plain(
                env::KAFKA_CLIENT_ID,
                names::client_id(&format!("$({})", names::POD_NAME), tag),
            ),
        ],
        None => vec![pod_name(env::KAFKA_CLIENT_ID)],
    }
}

fn kafka(plan: &PoolPlan, pool_tag: Option<&str>) -> Vec<EnvVar> {
    let kafka = &plan.kafka;
    let mut variables = vec![
        plain(env::KAFKA_BOOTSTRAP_SERVERS, &kafka.bootstrap_servers),
        plain(env::KAFKA_SECURITY_PROTOCOL, kafka.security_protocol()),
    ];
    variables.extend(identity(pool_tag));
    if let Some(tls) = &kafka.tls {
        let file = |folder: &str, key: &SecretKey| format!("{folder}/{}", key.key);
        variables.extend(
            tls.ca
                .as_ref()
                .map(|ca| plain(env::KAFKA_SSL_CA_LOCATION, file(CA_FOLDER, ca))),
        );
        if let Some(client) = &tls.client {
            let certificate = file(CLIENT_FOLDER, &client.certificate);
            variables.push(plain(env::KAFKA_SSL_CERTIFICATE_LOCATION, certificate));
            variables.push(plain(
                env::KAFKA_SSL_KEY_LOCATION,
                file(CLIENT_FOLDER, &client.private_key),
            ));
        }
    }
    if let Some(sasl) = &kafka.sasl {
        variables.push(plain(env::KAFKA_SASL_MECHANISM, sasl.mechanism));
        variables.push(secret(env::KAFKA_SASL_USERNAME, &sasl.username));
        variables.push(secret(env::KAFKA_SASL_PASSWORD, &sasl.password));
    }
    variables
}

fn consumer(plan: &PoolPlan, role: &RolePlan) -> Vec<EnvVar> {
    let milliseconds = |duration: Duration| duration.as_millis().to_string();
    let mut variables = vec![
        plain(env::KAFKA_TASK_TOPIC, &plan.processor.topic),
        plain(env::KAFKA_RESULT_TOPIC, &plan.uploader.topic),
        plain(env::KAFKA_PROCESSOR_GROUP_ID, &plan.processor.group),
        plain(env::KAFKA_UPLOADER_GROUP_ID, &plan.uploader.group),
        plain(env::KAFKA_DEAD_LETTER_TOPIC, &role.dead_letter_topic),
        plain(
            env::KAFKA_MAX_POLL_INTERVAL_MS,
            milliseconds(role.timings.max_poll_interval),
        ),
        plain(
            env::KAFKA_SESSION_TIMEOUT_MS,
            milliseconds(role.timings.session_timeout),
        ),
        plain(
            env::KAFKA_HEARTBEAT_INTERVAL_MS,
            milliseconds(role.timings.heartbeat_interval),
        ),
        plain(env::KAFKA_ASSIGNOR, role.assignor.name()),
        // Offsets are initialised before the first worker starts; what has none by now is new, and nothing of it is skipped.
        plain(env::KAFKA_AUTO_OFFSET_RESET, OffsetReset::Earliest.name()),
        plain(env::TASK_TIMEOUT_SECONDS, role.task_timeout.as_secs().to_string()),
        plain(env::MAX_ATTEMPTS, role.max_attempts.to_string()),
    ];
    match role.on_failure {
        FailurePolicy::AlwaysCommit => variables.push(plain(env::ON_FAILURE, "AlwaysCommit")),
        FailurePolicy::RetryOnFailure(times) => {
            variables.push(plain(env::ON_FAILURE, "RetryOnFailure"));
            variables.push(plain(env::MAX_RETRIES, times.to_string()));
        }
    }
    variables
}

fn storage(plan: &PoolPlan) -> Vec<EnvVar> {
    let (storage, s3) = (&plan.storage, &plan.storage.s3);
    let mut variables = vec![
        plain(env::S3_ENDPOINT_URL, s3.endpoint.as_deref().unwrap_or_default()),
        plain(env::S3_BUCKET_NAME, &s3.bucket),
        plain(env::S3_PATH_STYLE, s3.path_style.to_string()),
        plain(env::DELETE_INPUT, storage.delete_input.0),
        plain(env::SCRATCH_DIR, SCRATCH_FOLDER),
        plain(env::SCRATCH_LIMIT_BYTES, storage.scratch_bytes.to_string()),
        // The root file system cannot be written to, and libraries may want a place.
        plain("TMPDIR", SCRATCH_FOLDER),
    ];
    // Without endpoint and region, the region is that of the pod's surroundings, as for other AWS programs.
    let region = s3.region.as_deref().or(s3.endpoint.as_ref().map(|_| "auto"));
    variables.extend(region.map(|region| plain(env::AWS_REGION, region)));
    variables.extend(
        s3.public_url
            .as_ref()
            .map(|url| plain(env::S3_PUBLIC_DOMAIN, url)),
    );
    if !s3.input_buckets.is_empty() {
        variables.push(plain(env::S3_INPUT_BUCKETS, s3.input_buckets.join(",")));
    }
    if let Some(key) = &s3.secret {
        variables.push(secret(env::AWS_ACCESS_KEY_ID, &key.access_key_id));
        variables.push(secret(env::AWS_SECRET_ACCESS_KEY, &key.secret_access_key));
    }
    match &storage.work {
        Work::Claim(claim) => {
            variables.push(plain(
                env::TEMP_DIR,
                format!("{WORK_FOLDER}/{}", claim.input_folder),
            ));
            variables.push(plain(
                env::OUTPUT_DIR,
                format!("{WORK_FOLDER}/{}", claim.output_folder),
            ));
        }
        Work::S3Prefix(prefix) => {
            variables.push(plain(env::S3_STAGING, format!("s3://{}/{prefix}", s3.bucket)));
            // Named all the same, so that nothing is written beside the binary.
            variables.push(plain(env::TEMP_DIR, format!("{SCRATCH_FOLDER}/temp")));
            variables.push(plain(env::OUTPUT_DIR, format!("{SCRATCH_FOLDER}/output")));
        }
    }
    variables
}

fn plain(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.into()),
        value_from: None,
    }
}

fn secret(name: &str, key: &SecretKey) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: key.secret.clone(),
                key: key.key.clone(),
                optional: None,
            }),
            ..EnvVarSource::default()
        }),
    }
}

/// The pod's own name.
fn pod_name(name: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".into()),
                field_path: "metadata.name".into(),
            }),
            ..EnvVarSource::default()
        }),
    }
}
