//! Status of a pool. It is written when a condition or decision changes, and for changed numbers every few seconds at
//! most; metrics have the numbers of every reading.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::role::InitialOffset;

/// Status of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeparationPoolStatus {
    /// Generation of the spec that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, LagKnown, ScalingLimited, Degraded, DependenciesAvailable, GroupConflict: each with a
    /// reason and a message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Status of the processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processor: Option<RoleStatus>,
    /// Status of the uploaders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uploader: Option<RoleStatus>,
    /// Status of the HTTP API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<ApiStatus>,
}

/// Status of the HTTP API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiStatus {
    /// Pods that the spec asks for.
    pub desired: i32,
    /// Pods that are ready for requests.
    pub ready: i32,
    /// Name of the Service, in the pool's namespace; its port is 80.
    pub service: String,
    /// Reason why the objects of the API could not be written; missing without a problem.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

/// Types of a pool's conditions.
pub mod condition_types {
    /// The spec is valid, offsets are initialized, lag is known, and dependencies are available. Unchanged by a
    /// scale-up.
    pub const READY: &str = "Ready";
    /// The operator changes the pool's Deployments, or they do not yet match the spec (kstatus).
    pub const RECONCILING: &str = "Reconciling";
    /// The pool cannot progress without a change by a person (kstatus).
    pub const STALLED: &str = "Stalled";
    /// Lag of all partitions was read recently.
    pub const LAG_KNOWN: &str = "LagKnown";
    /// A limit keeps desired replicas below the replicas the backlog needs.
    pub const SCALING_LIMITED: &str = "ScalingLimited";
    /// The pool works with problems: pods that cannot be scheduled, expired messages.
    pub const DEGRADED: &str = "Degraded";
    /// Kafka, the object store and the model accept the workers, and the workers are members of their group.
    pub const DEPENDENCIES_AVAILABLE: &str = "DependenciesAvailable";
    /// Another pool or members from outside the pool use the group and topic.
    pub const GROUP_CONFLICT: &str = "GroupConflict";
}

/// Status of one role: its lag, its replicas and the reason for their number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleStatus {
    /// Messages not yet committed, the running ones included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<LagStatus>,
    /// Partitions of the topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions: Option<i32>,
    /// Partitions with messages not yet committed. Workers beyond this number are idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions_with_work: Option<i32>,
    /// Estimated time for the desired replicas to complete the lag, in seconds; only with estimates.taskSeconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_drain_seconds: Option<i64>,
    /// Number of workers by state.
    #[serde(default)]
    pub replicas: ReplicaStatus,
    /// Reason for the desired replicas, in one word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The limit that applied: Min, Max, Partitions, Busy, Draining, Unschedulable, Dependency, Rollout, or None.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub limited_by: String,
    /// The reason as a sentence, with numbers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Times that the operator has learned. Those in scaling.estimates are used instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimates: Option<EstimatesStatus>,
    /// How this pool initialized the group's offsets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offsets: Option<OffsetsStatus>,
    /// Settings in use, from the spec or the operator's defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective: Option<EffectiveSettings>,
}

/// Settings in use, from the spec or the operator's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EffectiveSettings {
    /// Image of the workers.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Separation model.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// Execution provider of the model.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub execution_provider: String,
    /// Target of scaling, such as TasksPerReplica 1.
    pub target: String,
    /// S3 region. Empty: workers find it. auto with an endpoint: AWS_DEFAULT_REGION, else us-east-1.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
}

/// A reading of lag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LagStatus {
    /// Known, Partial (some partitions could not be read), or Unknown.
    pub state: LagState,
    /// Messages of all partitions, or of those that could be read. Missing when unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<i64>,
    /// The lag as text: 12, at least 12, or ?.
    pub summary: String,
    /// When all partitions were last read; only while the lag is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_known_time: Option<Time>,
    /// Reason why partitions could not be read; missing without a problem.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

/// How much of the lag is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LagState {
    /// All partitions were read.
    Known,
    /// Some partitions were read.
    Partial,
    /// No partition was read.
    Unknown,
}

/// Number of workers by state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaStatus {
    /// Desired workers.
    pub desired: i32,
    /// Workers whose model is loaded and whose Kafka client runs.
    pub ready: i32,
    /// Workers with a task; missing when unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy: Option<i32>,
    /// Workers without a task; missing when unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<i32>,
    /// Terminating workers that finish their last task; not counted as desired.
    pub draining: i32,
    /// Workers that cannot be scheduled because no node has room.
    pub unschedulable: i32,
}

/// Learned times of tasks and start-ups. Before 100 tasks or 5 start-ups, the defaults count as well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EstimatesStatus {
    /// Number of tasks that were observed. The last 512 count.
    #[serde(default)]
    pub tasks: i64,
    /// Median time of a task, in seconds; missing before the first one was observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_seconds: Option<i64>,
    /// Time within which 95 % of the tasks complete, in seconds; missing before the first one was observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_tail_seconds: Option<i64>,
    /// Number of start-ups that were observed. The last 64 count.
    #[serde(default)]
    pub starts: i64,
    /// Median time from when a node has room for a pod until it is a member of the consumer group, in seconds; missing before
    /// the first one was observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup_seconds: Option<i64>,
    /// When this last changed.
    pub updated_time: Time,
}

/// How a pool initialized its group's offsets, before its first worker started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OffsetsStatus {
    /// When the offsets were initialized.
    pub initialized_time: Time,
    /// Where partitions without offsets started: Earliest or Latest.
    pub initial_offset: InitialOffset,
    /// Number of partitions whose offsets were initialized; partitions added later start at their first message.
    pub partitions: i32,
    /// ID of the Kafka cluster. In another cluster, offsets are initialized again.
    #[serde(rename = "clusterID", default, skip_serializing_if = "String::is_empty")]
    pub cluster_id: String,
    /// ID of the topic; empty if the brokers report none. Another ID in the same cluster means that the topic was
    /// deleted and recreated.
    #[serde(rename = "topicID", default, skip_serializing_if = "String::is_empty")]
    pub topic_id: String,
    /// Consumer group whose offsets were initialized.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub consumer_group: String,
    /// The group's committed offsets when it last had no workers, one for each partition from 0, and -1 for a partition
    /// without one. The operator commits them again if the brokers have deleted all offsets of the group. Empty for
    /// topics of more than 2,000 partitions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2_000), extend("x-kubernetes-list-type" = "atomic"))]
    pub committed: Vec<i64>,
    /// Whether workers of this pool have been members of the group in this cluster. If the operator uses its own identity
    /// at the brokers, only such a pool keeps others from using the group.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub workers_joined: bool,
}

impl OffsetsStatus {
    /// The fields that distinguish two initializations: those that are not recorded later.
    pub(crate) fn event(&self) -> (i32, InitialOffset, &Time) {
        (self.partitions, self.initial_offset, &self.initialized_time)
    }
}
