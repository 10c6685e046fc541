//! The `SeparationPool` custom resource as users write it, and its schema.
//!
//! `kubectl explain` prints the doc comments of the fields. Rules that the API server can check are declared at the
//! fields they check; [`crate::plan`] checks them again, since the CRD on a server may be older than this program.
//! Nothing here decides, or does I/O.

mod api;
mod kafka;
mod pod;
mod role;
mod scaling;
mod schema;
mod status;
mod storage;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use api::{ApiSpec, BasicAuthSecretRef, KeysSecretRef};
pub use kafka::{
    AwsSpec, CertificateSecretRef, ClientCertificateSecretRef, ClientIdSecretRef, ClientSecretRef, KafkaSpec,
    MechanismSpec, OauthSpec, PasswordSecretRef, ProducerSpec, SaslSpec, ServiceAccountTokenSpec, TlsSpec,
    UsernameSecretRef,
};
pub use pod::{EnvVarSpec, PodFields, PodTemplate};
pub use role::{
    AssignorSpec, ConsumerSpec, ExecutionProvider, InitialOffset, ModelSpec, ProcessorSpec, RoleDefaults,
    RoleSpec,
};
pub use scaling::{EstimatesSpec, ScaleDownSpec, ScalingMode, ScalingSpec, TargetKind, TargetSpec};
pub use schema::{apply_defaults, crd, from_value, from_yaml, to_yaml};
pub use status::{
    ApiStatus, EffectiveSettings, EstimatesStatus, LagState, LagStatus, OffsetsStatus, ReplicaStatus,
    RoleStatus, SeparationPoolStatus, condition_types,
};
pub use storage::{
    ByteQuantity, ClaimSpec, EgressSpec, InputDeletionPolicy, InputsSpec, S3CredentialsSecretRef, S3Spec,
    S3StagingSpec, SigningSecretRef, StagingSpec, StemsSpec, StorageSpec, WebhooksSpec,
};

/// Desired state of the pool: Kafka, storage, and its workers and API.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "separation.dev",
    version = "v1beta1",
    kind = "SeparationPool",
    plural = "separationpools",
    shortname = "seppool",
    category = "all",
    namespaced,
    status = "SeparationPoolStatus",
    derive = "PartialEq",
    doc = "A pool of workers that split songs into vocals and instrumental, scaled by Kafka consumer lag. \
           The operator owns its Deployments: NAME-processor, NAME-uploader and NAME-api."
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.processor.consumerGroup != self.uploader.consumerGroup",
        "message": "processor.consumerGroup and uploader.consumerGroup must differ, or one group would consume two \
                    topics; fix: give the uploader a group of its own",
        "fieldPath": ".uploader.consumerGroup"
    },
    {
        "rule": "self.processor.topic != self.uploader.topic",
        "message": "processor.topic and uploader.topic must differ, or results would be consumed as tasks; \
                    fix: give results a topic of their own",
        "fieldPath": ".uploader.topic"
    }
]))]
pub struct SeparationPoolSpec {
    /// Connection of workers and operator to Kafka.
    pub kafka: KafkaSpec,
    /// Storage of songs and stems.
    pub storage: StorageSpec,
    /// Addresses that workers and the API may send requests to.
    #[serde(default)]
    pub egress: EgressSpec,
    /// Signing of webhooks.
    #[serde(default)]
    pub webhooks: WebhooksSpec,
    /// Logs of the workers.
    #[serde(default)]
    pub logs: LogsSpec,
    /// Workers that consume tasks and produce stems.
    #[serde(default)]
    pub processor: ProcessorSpec,
    /// Workers that consume results, upload stems and deliver webhooks.
    #[serde(default)]
    pub uploader: RoleSpec,
    /// HTTP API that accepts songs. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<ApiSpec>,
}

/// Logs of the workers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogsSpec {
    /// Log level: error, warn, info or debug, or a filter per module, such as info,rdkafka=debug. Default: info.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub level: Option<String>,
    /// Format of log lines: JSON (one object per line) or Text. Default: JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<LogFormat>,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
// An optional field would show a description of its type in place of its own.
#[schemars(description = "")]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    #[serde(rename = "JSON")]
    Json,
    /// One text line per event.
    Text,
}

#[cfg(test)]
mod tests;
