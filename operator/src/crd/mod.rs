//! The `SeparationPool` custom resource as users write it, and its schema.
//!
//! `kubectl explain` prints the doc comments of the fields. Rules that the API server can check are declared at the
//! fields they check; [`crate::plan`] checks them again, since the CRD on a server may be older than this program.
//! Nothing here decides, or does I/O.

mod kafka;
mod role;
mod schema;
mod status;
mod storage;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use kafka::{
    CaSecretRef, ClientCertificateSecretRef, KafkaSpec, MechanismSpec, SaslSecretRef, SaslSpec, TlsSpec,
};
pub use role::{
    AssignorSpec, OffsetResetSpec, OnFailureSpec, PodOverrides, PolicySpec, RoleDefaults, RoleSpec,
    ScalingSpec, TargetSpec,
};
pub use schema::{apply_defaults, crd, from_value, from_yaml, to_yaml};
pub use status::{
    AdoptionStatus, LagState, LagStatus, ReplicaStatus, RoleStatus, SeparationPoolStatus, condition_types,
};
pub use storage::{
    ClaimSpec, DeleteInputSpec, ModelSpec, OutboundSpec, ProviderSpec, S3SecretRef, S3Spec, StorageSpec,
    WebhookSecretRef, WorkSpec,
};

/// A pool of workers: its Kafka topics, its storage, and how it scales.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "separation.dev",
    version = "v1alpha1",
    kind = "SeparationPool",
    plural = "separationpools",
    shortname = "sp",
    shortname = "seppool",
    category = "all",
    namespaced,
    status = "SeparationPoolStatus",
    derive = "PartialEq",
    doc = "A pool of workers that split songs into vocals and instrumental, scaled by Kafka consumer lag. \
           The operator owns two Deployments for it: NAME-processor and NAME-uploader."
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.processor.group != self.uploader.group",
        "message": "processor.group and uploader.group must differ, or one group would consume two topics; \
                    fix: give the uploader a group of its own",
        "fieldPath": ".uploader.group"
    },
    {
        "rule": "self.processor.topic != self.uploader.topic",
        "message": "processor.topic and uploader.topic must differ, or results would be consumed as tasks; \
                    fix: give results a topic of their own",
        "fieldPath": ".uploader.topic"
    }
]))]
pub struct SeparationPoolSpec {
    /// Worker image. Default: the operator's --worker-image.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Connection of workers and operator to Kafka.
    pub kafka: KafkaSpec,
    /// Storage of songs and stems.
    pub storage: StorageSpec,
    /// The separation model.
    #[serde(default)]
    pub model: ModelSpec,
    /// Execution provider of the model: cpu or cuda. With cuda, a worker that cannot use it does not start; request the
    /// GPU itself in processor.podOverrides.
    #[serde(default)]
    pub provider: ProviderSpec,
    /// Addresses that webhooks may be sent to, and their signing secret.
    #[serde(default)]
    pub outbound: OutboundSpec,
    /// Workers that consume tasks and produce stems.
    #[serde(default)]
    pub processor: RoleSpec,
    /// Workers that consume results, upload stems and deliver webhooks.
    #[serde(default)]
    pub uploader: RoleSpec,
}

#[cfg(test)]
mod tests;
