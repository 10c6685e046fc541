//! A validated pool: later code does not check it again.
//!
//! Every rule of the CRD is checked here again: the CRD in a cluster may be older than this program, and a pool of
//! `separation-operator local` never passes an API server. All problems are reported together, each with its field and
//! its fix.

mod api;
mod brokers;
mod checks;
mod kafka;
mod pod_template;
mod role;
mod sasl;
mod scaling;
mod storage;

#[cfg(test)]
mod tests;

use std::fmt;

use kube::ResourceExt as _;

use crate::crd::{LogsSpec, SeparationPool};
use crate::names::API_COMPONENT;
use checks::Checks;
use pod_template::check_open_fields;
use storage::model_max_memory_bytes;

pub use api::{ApiPlan, BasicAuth};
pub use checks::{Problem, Problems};
pub use kafka::{ClientCertificateSecret, KafkaPlan, TlsPlan};
pub use role::{Role, RolePlan};
pub use sasl::{
    ClientCredentialsPlan, OauthPlan, OauthSource, PasswordPlan, SaslPlan, ServiceAccountToken, Username,
};
pub use scaling::ScaleDownWindows;
pub use storage::{
    DeleteInput, Model, Outbound, Provider, S3Plan, S3Secret, SecretKey, SharedVolume, Staging, StemsPlan,
    StoragePlan,
};

/// A validated pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolPlan {
    /// Namespace and name.
    pub id: PoolId,
    /// Connection to Kafka.
    pub kafka: KafkaPlan,
    /// Storage of songs and stems.
    pub storage: StoragePlan,
    /// Separation model; none means the operator's default.
    pub model: Option<Model>,
    /// Limit of the model's memory.
    pub model_max_memory_bytes: Option<u64>,
    /// Execution provider of the model.
    pub provider: Provider,
    /// Addresses that requests may be sent to, and the signing secrets of webhooks.
    pub outbound: Outbound,
    /// Logs of the workers.
    pub logs: LogsSpec,
    /// Workers that consume tasks.
    pub processor: RolePlan,
    /// Workers that consume results.
    pub uploader: RolePlan,
    /// The HTTP API; none without one.
    pub api: Option<ApiPlan>,
    /// Longest song of an API v1 task, in seconds, also while the API is disabled; none means the workers' default.
    pub max_input_seconds: Option<u32>,
}

/// Identifies a pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl PoolPlan {
    /// Validates a pool.
    ///
    /// # Errors
    /// All invalid fields.
    pub fn from_pool(pool: &SeparationPool) -> Result<Self, Problems> {
        let spec = &pool.spec;
        let mut checks = Checks::default();
        let kafka = KafkaPlan::from_spec(&spec.kafka, &mut checks);
        let storage = StoragePlan::from_spec(&spec.storage, &mut checks);
        let model = Model::from_spec(spec.processor.model.as_ref(), &mut checks);
        let model_max_memory_bytes = model_max_memory_bytes(spec.processor.model.as_ref(), &mut checks);
        check_open_fields(Role::Processor.name(), &spec.processor.role.pod, &mut checks);
        check_open_fields(Role::Uploader.name(), &spec.uploader.pod, &mut checks);
        if let Some(api) = &spec.api {
            check_open_fields(API_COMPONENT, &api.pod, &mut checks);
        }
        let drain_seconds = spec.processor.drain_seconds;
        let processor =
            RolePlan::from_spec(Role::Processor, &spec.processor.role, drain_seconds, &mut checks);
        let uploader = RolePlan::from_spec(Role::Uploader, &spec.uploader, None, &mut checks);
        let api = ApiPlan::from_spec(spec.api.as_ref(), &mut checks);
        let seconds = spec.api.as_ref().and_then(|api| api.max_input_seconds);
        let seconds = checks.optional_integer("api.maxInputSeconds", seconds, 1..=86_400);
        if let (Some(processor), Some(uploader)) = (&processor, &uploader) {
            check_distinct(processor, uploader, &mut checks);
        }
        match (kafka, storage, model, processor, uploader, api, seconds) {
            (
                Some(kafka),
                Some(storage),
                Some(model),
                Some(processor),
                Some(uploader),
                Some(api),
                Some(max_input_seconds),
            ) if checks.problems.is_empty() => Ok(Self {
                id: PoolId {
                    namespace: pool.namespace().unwrap_or_default(),
                    name: pool.name_any(),
                },
                kafka,
                storage,
                model,
                model_max_memory_bytes,
                provider: Provider::from_spec(spec.processor.execution_provider),
                outbound: Outbound::from_spec(spec),
                logs: spec.logs.clone(),
                processor,
                uploader,
                api,
                max_input_seconds,
            }),
            _ => Err(Problems(checks.problems)),
        }
    }

    /// The Secret keys that a role's workers read when they start.
    pub fn secret_keys(&self, role: Role) -> Vec<&SecretKey> {
        let mut keys = self.kafka.secret_keys();
        if let Some(s3) = &self.storage.s3.secret {
            keys.extend(s3.keys());
        }
        if role == Role::Uploader {
            keys.extend(&self.outbound.signing_secrets);
        }
        keys
    }

    /// The Secret keys that the API's pods read when they start; none without an API.
    pub fn api_secret_keys(&self) -> Vec<&SecretKey> {
        if self.api.is_none() {
            return Vec::new();
        }
        let mut keys = self.kafka.secret_keys();
        keys.extend(self.storage.s3.secret.iter().flat_map(S3Secret::keys));
        keys.extend(self.api_client_secret_keys());
        keys
    }

    /// Those of them with the credentials and the signing secrets of the API's clients.
    pub fn api_client_secret_keys(&self) -> Vec<&SecretKey> {
        let Some(api) = &self.api else { return Vec::new() };
        let mut keys: Vec<&SecretKey> = api.client_secret_keys().collect();
        if api.has_client_without_key() {
            keys.extend(&self.outbound.signing_secrets);
        }
        keys
    }

    /// The validated role.
    pub fn role(&self, role: Role) -> &RolePlan {
        match role {
            Role::Processor => &self.processor,
            Role::Uploader => &self.uploader,
        }
    }
}

/// Refuses a topic or a consumer group that both roles have.
fn check_distinct(processor: &RolePlan, uploader: &RolePlan, checks: &mut Checks) {
    for (is_shared, field, consequence) in [
        (
            processor.group == uploader.group,
            "consumerGroup",
            "one group would consume two topics",
        ),
        (
            processor.topic == uploader.topic,
            "topic",
            "results would be consumed as tasks",
        ),
    ] {
        if is_shared {
            let problem = format!("is also the processor's {field}, so {consequence}");
            let fix = format!("give the uploader a {field} of its own");
            let _: Option<()> = checks.refuse(&format!("uploader.{field}"), problem, fix);
        }
    }
}
