//! Environment variables of a worker: names shared by both binaries, values from the plan.

use std::time::Duration;

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, SecretKeySelector};
use separation_contract::environment as env;
use separation_contract::failure_policy::FailurePolicy;
use separation_contract::kafka::OffsetReset;

use super::layout::{ADMIN_PORT, CA_PATH, CLIENT_PATH, SCRATCH_PATH, WORK_PATH};
use crate::names;
use crate::plan::{PoolPlan, Role, RolePlan, SecretKey, Staging};

/// All environment variables of a role's worker. The pool's tag, if any, becomes part of its Kafka client id.
pub fn variables(plan: &PoolPlan, role: &RolePlan, pool_tag: Option<&str>) -> Vec<EnvVar> {
    let mut variables = kafka(plan, pool_tag);
    variables.extend(consumer(plan, role));
    variables.extend(storage(plan));
    variables.push(plain(env::ADMIN_ADDR, format!("0.0.0.0:{ADMIN_PORT}")));
    // As for the operator and the API in the chart; `podOverrides` may set text.
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
            let key = plan.outbound.webhook_secret.as_ref();
            variables.extend(key.map(|key| secret(env::WEBHOOK_SECRET, key)));
        }
    }
    variables
}

/// The Kafka client id, which identifies the group member. Kubernetes substitutes the pod's name, whose variable must
/// come first.
fn kafka_client_id(pool_tag: Option<&str>) -> Vec<EnvVar> {
    match pool_tag {
        Some(tag) => {
            let client_id = names::client_id(&format!("$({})", names::POD_NAME), tag);
            vec![pod_name(names::POD_NAME), plain(env::KAFKA_CLIENT_ID, client_id)]
        }
        None => vec![pod_name(env::KAFKA_CLIENT_ID)],
    }
}

fn kafka(plan: &PoolPlan, pool_tag: Option<&str>) -> Vec<EnvVar> {
    let kafka = &plan.kafka;
    let mut variables = vec![
        plain(env::KAFKA_BOOTSTRAP_SERVERS, &kafka.bootstrap_servers),
        plain(env::KAFKA_SECURITY_PROTOCOL, kafka.security_protocol()),
    ];
    variables.extend(kafka_client_id(pool_tag));
    if let Some(tls) = &kafka.tls {
        let file =
            |name: &str, directory: &str, key: &SecretKey| plain(name, format!("{directory}/{}", key.key));
        let ca = tls.ca.as_ref();
        variables.extend(ca.map(|ca| file(env::KAFKA_SSL_CA_LOCATION, CA_PATH, ca)));
        if let Some(client) = &tls.client {
            variables.push(file(
                env::KAFKA_SSL_CERTIFICATE_LOCATION,
                CLIENT_PATH,
                &client.certificate,
            ));
            variables.push(file(
                env::KAFKA_SSL_KEY_LOCATION,
                CLIENT_PATH,
                &client.private_key,
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
        plain(env::MAX_ATTEMPTS, role.max_attempts.to_string()),
        plain(env::ON_FAILURE, role.on_failure.name()),
    ];
    if let FailurePolicy::RetryOnFailure(times) = role.on_failure {
        variables.push(plain(env::MAX_RETRIES, times.to_string()));
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
        plain(env::SCRATCH_DIR, SCRATCH_PATH),
        plain(env::SCRATCH_LIMIT_BYTES, storage.scratch_bytes.to_string()),
        // The root file system is read-only, and libraries may write temporary files.
        plain("TMPDIR", SCRATCH_PATH),
    ];
    // Without endpoint and region, the AWS SDK takes the region from the pod's environment.
    let region = s3.region.as_deref().or(s3.endpoint.as_ref().map(|_| "auto"));
    variables.extend(region.map(|region| plain(env::AWS_REGION, region)));
    let public_url = s3.public_url.as_ref();
    variables.extend(public_url.map(|url| plain(env::S3_PUBLIC_DOMAIN, url)));
    if !s3.input_buckets.is_empty() {
        variables.push(plain(env::S3_INPUT_BUCKETS, s3.input_buckets.join(",")));
    }
    if let Some(key) = &s3.secret {
        variables.push(secret(env::AWS_ACCESS_KEY_ID, &key.access_key_id));
        variables.push(secret(env::AWS_SECRET_ACCESS_KEY, &key.secret_access_key));
    }
    let (parent, input, output) = match &storage.staging {
        Staging::SharedVolume(shared) => (WORK_PATH, &*shared.input_directory, &*shared.output_directory),
        Staging::S3Prefix(prefix) => {
            variables.push(plain(env::S3_STAGING, format!("s3://{}/{prefix}", s3.bucket)));
            // Set although unused, so that nothing is written into the binary's directory.
            (SCRATCH_PATH, "temp", "output")
        }
    };
    variables.push(plain(env::TEMP_DIR, format!("{parent}/{input}")));
    variables.push(plain(env::OUTPUT_DIR, format!("{parent}/{output}")));
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
    let key = SecretKeySelector {
        name: key.secret.clone(),
        key: key.key.clone(),
        optional: None,
    };
    with_source(
        name,
        EnvVarSource {
            secret_key_ref: Some(key),
            ..EnvVarSource::default()
        },
    )
}

/// A variable with the pod's name.
fn pod_name(name: &str) -> EnvVar {
    let field = ObjectFieldSelector {
        api_version: Some("v1".into()),
        field_path: "metadata.name".into(),
    };
    with_source(
        name,
        EnvVarSource {
            field_ref: Some(field),
            ..EnvVarSource::default()
        },
    )
}

fn with_source(name: &str, source: EnvVarSource) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(source),
    }
}
