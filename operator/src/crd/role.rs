//! Spec of processors and of uploaders: one type, two sets of defaults.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use separation_contract::{kafka::Timings, names};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Workers of one role: topic, consumer group, failure policy and scaling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "3 * self.heartbeatIntervalMs < self.sessionTimeoutMs",
        "message": "three heartbeats must fit into the session timeout, or one lost packet removes a worker from the \
                    group; fix: raise sessionTimeoutMs above 3 x heartbeatIntervalMs, or lower heartbeatIntervalMs",
        "fieldPath": ".sessionTimeoutMs"
    },
    {
        "rule": "self.sessionTimeoutMs < self.maxPollIntervalMs",
        "message": "the session timeout must be shorter than the poll interval; \
                    fix: raise maxPollIntervalMs above sessionTimeoutMs, or lower sessionTimeoutMs",
        "fieldPath": ".maxPollIntervalMs"
    },
    {
        "rule": "!has(self.taskTimeoutSeconds) || self.taskTimeoutSeconds * 1000 + (self.maxPollIntervalMs >= 60000 ? 30000 : \
                 self.maxPollIntervalMs / 2) <= self.maxPollIntervalMs",
        "message": "a task and 30 s to finish it (half the poll interval if that is below 60 s) must fit into the poll \
                    interval, or another worker starts the same task; \
                    fix: lower taskTimeoutSeconds or raise maxPollIntervalMs",
        "fieldPath": ".taskTimeoutSeconds"
    }
]))]
pub struct RoleSpec {
    /// Whether the pool has workers of this role. Set false while another system still does their work.
    pub enabled: bool,
    /// Topic that these workers consume. Cannot be changed: committed offsets belong to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self == oldSelf",
        "message": "the topic cannot be changed, because its queued messages would never be consumed; \
                    fix: create another SeparationPool for the new topic and delete this one when its lag is 0"
    }]))]
    pub topic: Option<String>,
    /// Consumer group of these workers. Cannot be changed: committed offsets belong to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self == oldSelf",
        "message": "the group cannot be changed, because its committed offsets would be lost; \
                    fix: create another SeparationPool for the new group and delete this one when its lag is 0"
    }]))]
    pub group: Option<String>,
    /// Dead-letter topic, for messages that cannot be processed. Default: the topic's name with _dead_letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    pub dead_letter_topic: Option<String>,
    /// Kafka max.poll.interval.ms: maximum time between two polls of a worker, and so the maximum duration of a task.
    /// The pods' terminationGracePeriodSeconds is derived from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10_000, max = 86_400_000))]
    pub max_poll_interval_ms: Option<i32>,
    /// Kafka session.timeout.ms: time without heartbeats after which the broker removes a worker from the group.
    #[schemars(range(min = 6_000, max = 1_800_000))]
    pub session_timeout_ms: i32,
    /// Kafka heartbeat.interval.ms.
    #[schemars(range(min = 100, max = 600_000))]
    pub heartbeat_interval_ms: i32,
    /// Kafka partition.assignment.strategy: cooperative-sticky revokes only the partitions that must move; range lets
    /// workers of uvr5-api be members of the same group. The two cannot be mixed, so a change replaces all pods
    /// together.
    pub assignor: AssignorSpec,
    /// Where a consumer group without committed offsets starts: latest or earliest. Used once per partition, before the
    /// first worker starts; messages published after that are never skipped.
    pub auto_offset_reset: OffsetResetSpec,
    /// Time limit of one task, in seconds. Default: maxPollIntervalMs less 30 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub task_timeout_seconds: Option<i32>,
    /// Number of worker crashes on one task after which it is sent to the dead-letter topic.
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: i32,
    /// Handling of tasks that fail with a transient error.
    pub on_failure: OnFailureSpec,
    /// Number of workers and how it follows the lag.
    pub scaling: ScalingSpec,
    /// A partial PodTemplateSpec, merged over the operator's own: nodeSelector, tolerations, resources, GPUs, volumes,
    /// labels. The worker's container is named worker. Service account, host namespaces, hostPath and privileges are
    /// refused unless the operator's settings allow them.
    #[serde(skip_serializing_if = "PodOverrides::is_empty")]
    pub pod_overrides: PodOverrides,
}

/// Defaults that differ between processors and uploaders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleDefaults {
    /// Name of the property in the spec.
    pub property: &'static str,
    /// Topic that the role consumes.
    pub topic: &'static str,
    /// Consumer group.
    pub group: &'static str,
    /// `max.poll.interval.ms`, `session.timeout.ms` and `heartbeat.interval.ms`.
    pub timings: Timings,
}

impl RoleDefaults {
    /// Defaults of processors.
    pub const PROCESSOR: Self = Self {
        property: "processor",
        topic: names::TASK_TOPIC,
        group: names::PROCESSOR_GROUP,
        timings: Timings::PROCESSOR,
    };

    /// Defaults of uploaders.
    pub const UPLOADER: Self = Self {
        property: "uploader",
        topic: names::RESULT_TOPIC,
        group: names::UPLOADER_GROUP,
        timings: Timings::UPLOADER,
    };
}

impl Default for RoleSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            topic: None,
            group: None,
            dead_letter_topic: None,
            max_poll_interval_ms: None,
            session_timeout_ms: 60_000,
            heartbeat_interval_ms: 10_000,
            assignor: AssignorSpec::default(),
            auto_offset_reset: OffsetResetSpec::default(),
            task_timeout_seconds: None,
            max_attempts: 3,
            on_failure: OnFailureSpec::default(),
            scaling: ScalingSpec::default(),
            pod_overrides: PodOverrides::default(),
        }
    }
}

/// Kafka `partition.assignment.strategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AssignorSpec {
    /// Revokes only the partitions that must move.
    #[default]
    #[serde(rename = "cooperative-sticky")]
    CooperativeSticky,
    /// Revokes all partitions in every rebalance.
    #[serde(rename = "range")]
    Range,
}

/// Where a consumer group without committed offsets starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OffsetResetSpec {
    /// After the last message at the time of adoption.
    #[default]
    Latest,
    /// At the first message.
    Earliest,
}

/// Handling of tasks that fail with a transient error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.maxRetries) || self.policy == 'RetryOnFailure'",
    "message": "AlwaysCommit never retries; fix: set policy to RetryOnFailure, or remove maxRetries",
    "fieldPath": ".maxRetries"
}]))]
pub struct OnFailureSpec {
    /// AlwaysCommit publishes the failure and commits the task; RetryOnFailure republishes the task to the end of its
    /// topic.
    pub policy: PolicySpec,
    /// Maximum number of retries with RetryOnFailure. Default: 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub max_retries: Option<i32>,
}

/// A failure policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicySpec {
    /// The failure is published and the task committed.
    #[default]
    AlwaysCommit,
    /// The task is republished to the end of its topic.
    RetryOnFailure,
}

/// Number of workers and how it follows the lag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.minReplicas <= self.maxReplicas",
    "message": "minReplicas must not be above maxReplicas; fix: lower minReplicas or raise maxReplicas",
    "fieldPath": ".minReplicas"
}]))]
pub struct ScalingSpec {
    /// Minimum number of workers, also when the lag is 0. With 0, an idle pool uses no GPU.
    #[schemars(range(min = 0, max = 10_000))]
    pub min_replicas: i32,
    /// Maximum number of workers, draining ones included. A scale-up never exceeds the partitions with messages, except
    /// to reach minReplicas.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_replicas: i32,
    /// How many workers an amount of lag needs.
    pub target: TargetSpec,
    /// Time between two readings of lag, in seconds; fractions are allowed.
    #[schemars(range(min = 0.1, max = 300.0))]
    pub poll_interval_seconds: f64,
    /// How long fewer replicas must have been enough before a scale-down, in seconds.
    #[schemars(range(min = 0, max = 86_400))]
    pub scale_down_stabilization_seconds: i32,
    /// Keeps replicas unchanged, whatever the lag is.
    pub paused: bool,
    /// Decides and reports desired replicas without changing replicas.
    pub recommend_only: bool,
}

impl Default for ScalingSpec {
    fn default() -> Self {
        Self {
            min_replicas: 0,
            max_replicas: 8,
            target: TargetSpec::default(),
            poll_interval_seconds: 2.0,
            scale_down_stabilization_seconds: 120,
            paused: false,
            recommend_only: false,
        }
    }
}

/// How many workers an amount of lag needs: by number of tasks, or by time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.tasksPerReplica) != has(self.drainWithinSeconds)",
        "message": "a target is a number of tasks or a time; fix: set exactly one of tasksPerReplica and drainWithinSeconds"
    },
    {
        "rule": "has(self.drainWithinSeconds) == has(self.expectedTaskSeconds)",
        "message": "a time target needs the expected duration of a task; \
                    fix: set drainWithinSeconds and expectedTaskSeconds together, or neither"
    }
]))]
pub struct TargetSpec {
    /// Tasks per worker, queued and running.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub tasks_per_replica: Option<i32>,
    /// Time within which the workers should complete all tasks, in seconds; requires expectedTaskSeconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub drain_within_seconds: Option<i32>,
    /// Expected duration of one task on one worker, in seconds; requires drainWithinSeconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub expected_task_seconds: Option<i32>,
}

impl Default for TargetSpec {
    fn default() -> Self {
        Self {
            tasks_per_replica: Some(1),
            drain_within_seconds: None,
            expected_task_seconds: None,
        }
    }
}

/// A partial PodTemplateSpec, not validated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodOverrides(pub Map<String, Value>);

impl PodOverrides {
    /// Whether there are no overrides.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl JsonSchema for PodOverrides {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PodOverrides".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
    }
}
