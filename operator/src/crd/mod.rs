//! The `SeparationPool` as people write it, and its schema.
//!
//! Documentation of fields here is what `kubectl explain` prints. Rules that the API server can check stand beside the
//! fields that they are about; [`crate::plan`] checks all of them again, since a definition on a server may be older
//! than this program. Nothing here decides or reads anything.

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
pub use schema::{apply_defaults, definition, from_value, from_yaml, to_yaml};
pub use status::{
    AdoptionStatus, LagState, LagStatus, ReplicaStatus, RoleStatus, SeparationPoolStatus, condition_types,
};
pub use storage::{
    ClaimSpec, DeleteInputSpec, ModelSpec, OutboundSpec, ProviderSpec, S3SecretRef, S3Spec, StorageSpec,
    WebhookSecretRef, WorkSpec,
};

/// A pool of workers: where its work waits, where stems go, and how many workers the waiting work deserves.
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
    doc = "A pool of workers that split songs into vocals and instrumental, as many as the work waiting in Kafka deserves. \
           The operator owns two Deployments for it: NAME-processor and NAME-uploader."
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.processor.group != self.uploader.group",
        "message": "processor.group and uploader.group must differ, or members of one group would read two topics; \
                    fix: give the uploader a group of its own",
        "fieldPath": ".uploader.group"
    },
    {
        "rule": "self.processor.topic != self.uploader.topic",
        "message": "processor.topic and uploader.topic must differ, or results would be read as tasks; \
                    fix: give results a topic of their own",
        "fieldPath": ".uploader.topic"
    }
]))]
pub struct SeparationPoolSpec {
    /// Image of the worker. Default: the one that the operator was started with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// How the workers and the operator reach Kafka.
    pub kafka: KafkaSpec,
    /// Where songs and stems are.
    pub storage: StorageSpec,
    /// The model that separates.
    #[serde(default)]
    pub model: ModelSpec,
    /// What the model runs on: cpu or cuda. A worker that is asked for cuda and does not get it refuses to start; ask
    /// for the GPU itself in processor.podOverrides.
    #[serde(default)]
    pub provider: ProviderSpec,
    /// What workers may call, and how webhooks are signed.
    #[serde(default)]
    pub outbound: OutboundSpec,
    /// Workers that take tasks and make stems.
    #[serde(default)]
    pub processor: RoleSpec,
    /// Workers that take results, upload stems and call webhooks.
    #[serde(default)]
    pub uploader: RoleSpec,
}

#[cfg(test)]
mod tests;
