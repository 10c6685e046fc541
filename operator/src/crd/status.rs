//! What the operator says about a pool. Numbers that change at every reading are metrics; these change when a person
//! would act on them, or every few seconds at most.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator says about a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeparationPoolStatus {
    /// The generation of the spec that the rest is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, LagKnown, ScalingLimited, Degraded, DependenciesAvailable, Conflict: each with a reason and a message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What is known about the processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processor: Option<RoleStatus>,
    /// What is known about the uploaders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uploader: Option<RoleStatus>,
}

/// Types of a pool's conditions.
pub mod condition_types {
    /// The spec is valid, its Deployments are written, and as many workers as are asked for are ready.
    pub const READY: &str = "Ready";
    /// Lag was read, whole and recently.
    pub const LAG_KNOWN: &str = "LagKnown";
    /// Fewer workers than the work deserves: a bound bites.
    pub const SCALING_LIMITED: &str = "ScalingLimited";
    /// Something works, but not as it should: pods that cannot be scheduled, too few partitions, expiring offsets.
    pub const DEGRADED: &str = "Degraded";
    /// Kafka, the object store and the model accept the workers, and the workers are members of their group.
    pub const DEPENDENCIES_AVAILABLE: &str = "DependenciesAvailable";
    /// Another pool or foreign members share the group and topic.
    pub const CONFLICT: &str = "Conflict";
}

/// Workers of one kind, and why there are as many as there are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleStatus {
    /// Messages not yet committed, the running ones included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<LagStatus>,
    /// Partitions of the topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions: Option<i32>,
    /// Partitions with messages not yet committed: more workers than these have nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions_with_work: Option<i32>,
    /// How long the workers that are asked for will take for what waits, in seconds; only with a time target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_seconds: Option<i64>,
    /// Workers by what they do.
    #[serde(default)]
    pub replicas: ReplicaStatus,
    /// Why the number of workers is what it is, in one word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The limit that applied: Min, Max, Partitions, Busy, Draining, Unschedulable, Dependency, Rollout, or None.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bound: String,
    /// The same as a sentence, with numbers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// How this pool took over the group's offsets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adoption: Option<AdoptionStatus>,
}

/// A reading of lag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LagStatus {
    /// Known, Partial (some partitions could not be read), or Unknown.
    pub state: LagState,
    /// Messages: all of them, or those that could be counted. Not there when unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<i64>,
    /// The same for people: 12, at least 12, or ?.
    pub summary: String,
    /// When lag was last read whole; only while it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_known_at: Option<Time>,
    /// What could not be read, and why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

/// How much of the lag is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LagState {
    /// All of it.
    Known,
    /// That of some partitions.
    Partial,
    /// Nothing.
    Unknown,
}

/// Workers by what they do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    /// Workers asked for.
    #[serde(default)]
    pub desired: i32,
    /// Workers whose model is loaded and whose Kafka client runs.
    #[serde(default)]
    pub ready: i32,
    /// Workers that hold a task, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy: Option<i32>,
    /// Workers that hold none, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<i32>,
    /// Workers that finish their last task and are not counted among those asked for.
    #[serde(default)]
    pub draining: i32,
    /// Workers that no node has room for.
    #[serde(default)]
    pub unschedulable: i32,
}

/// How a pool took over a group's offsets, before its first worker started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdoptionStatus {
    /// Id of the topic; empty where the brokers report none. Another id in the same cluster means that the topic was deleted
    /// and created again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub topic_id: String,
    /// Id of the Kafka cluster that has the topic. Another one is adopted as if nothing had been initialized before.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster_id: String,
    /// The consumer group whose offsets were initialized.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub consumer_group: String,
    /// The group's committed offsets when it last had no workers, one for each partition from 0, and -1 for a partition
    /// without one. They are committed again where the brokers have lost all of the group's offsets. Empty for topics of
    /// more than 2,000 partitions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2_000), extend("x-kubernetes-list-type" = "atomic"))]
    pub offsets: Vec<i64>,
    /// How many partitions had their offsets initialised; later ones start at their first message.
    pub partitions: i32,
    /// Where partitions without offsets started: latest or earliest.
    pub policy: String,
    /// When that was done.
    pub at: Time,
}
