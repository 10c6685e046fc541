//! Processors and uploaders, as people write them: one shape, two sets of defaults.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use separation_contract::{kafka::Timings, names};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Workers of one kind: what they read, how they stay members of their group, and how many there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "3 * self.heartbeatIntervalMs < self.sessionTimeoutMs",
        "message": "three heartbeats must fit into a session, or one lost packet costs a worker its membership; \
                    fix: raise sessionTimeoutMs above 3 x heartbeatIntervalMs, or lower heartbeatIntervalMs",
        "fieldPath": ".sessionTimeoutMs"
    },
    {
        "rule": "self.sessionTimeoutMs < self.maxPollIntervalMs",
        "message": "a session must be shorter than the poll interval; \
                    fix: raise maxPollIntervalMs above sessionTimeoutMs, or lower sessionTimeoutMs",
        "fieldPath": ".maxPollIntervalMs"
    },
    {
        "rule": "!has(self.taskTimeoutSeconds) || self.taskTimeoutSeconds * 1000 + (self.maxPollIntervalMs >= 60000 ? 30000 : \
                 self.maxPollIntervalMs / 2) <= self.maxPollIntervalMs",
        "message": "a task and 30 s for closing (half of poll intervals below 60 s) must fit into the poll interval, or another \
                    worker starts the same task; fix: lower taskTimeoutSeconds or raise maxPollIntervalMs",
        "fieldPath": ".taskTimeoutSeconds"
    }
]))]
pub struct RoleSpec {
    /// Whether the pool has workers of this kind. false while another system still has this role.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// Topic that these workers read. Cannot be changed: offsets belong to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self == oldSelf",
        "message": "the topic cannot be changed, for waiting messages would be left behind; \
                    fix: create another SeparationPool for the new topic and delete this one when its lag is 0"
    }]))]
    pub topic: Option<String>,
    /// Consumer group of these workers. Cannot be changed: offsets belong to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self == oldSelf",
        "message": "the group cannot be changed, for its offsets would be left behind; \
                    fix: create another SeparationPool for the new group and delete this one when its lag is 0"
    }]))]
    pub group: Option<String>,
    /// Topic for messages that nobody can work on. Default: the topic's name with _dead_letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    pub dead_letter_topic: Option<String>,
    /// The longest time between two polls of a worker, in milliseconds, and so the longest that a task may take. The
    /// pods' terminationGracePeriodSeconds is derived from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10_000, max = 86_400_000))]
    pub max_poll_interval_ms: Option<i32>,
    /// The longest silence before a worker counts as dead, in milliseconds.
    #[serde(default = "session_timeout_ms")]
    #[schemars(range(min = 6_000, max = 1_800_000))]
    pub session_timeout_ms: i32,
    /// Time between two signs of life of a worker, in milliseconds.
    #[serde(default = "heartbeat_interval_ms")]
    #[schemars(range(min = 100, max = 600_000))]
    pub heartbeat_interval_ms: i32,
    /// How partitions are shared: cooperative-sticky moves only what must move; range is for sharing the group with
    /// workers of another make. The two cannot be mixed, so a change replaces all pods at once.
    #[serde(default)]
    pub assignor: AssignorSpec,
    /// Where an adopted group without offsets starts: latest or earliest. Used once per partition, before the first
    /// worker starts; what is published after that is never skipped.
    #[serde(default)]
    pub auto_offset_reset: OffsetResetSpec,
    /// How long one task may take, in seconds. Default: the poll interval less 30 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub task_timeout_seconds: Option<i32>,
    /// How often a task may kill its worker before it becomes a dead letter.
    #[serde(default = "max_attempts")]
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: i32,
    /// What becomes of a task that failed for a reason that may pass.
    #[serde(default)]
    pub on_failure: OnFailureSpec,
    /// How many workers there are.
    #[serde(default)]
    pub scaling: ScalingSpec,
    /// A partial PodTemplateSpec, merged over the operator's own, last: nodeSelector, tolerations, resources, GPUs,
    /// volumes, labels. The worker's container is called worker. Service account, host namespaces, hostPath and
    /// privileges are refused unless the operator's settings allow them.
    #[serde(default, skip_serializing_if = "PodOverrides::is_empty")]
    pub pod_overrides: PodOverrides,
}

/// Defaults in which processors and uploaders differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleDefaults {
    /// The property in the spec.
    pub property: &'static str,
    /// Topic.
    pub topic: &'static str,
    /// Consumer group.
    pub group: &'static str,
    /// Poll interval and the rest.
    pub timings: Timings,
}

impl RoleDefaults {
    /// Those of processors.
    pub const PROCESSOR: Self = Self {
        property: "processor",
        topic: names::TASK_TOPIC,
        group: names::PROCESSOR_GROUP,
        timings: Timings::PROCESSOR,
    };

    /// Those of uploaders.
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
            enabled: enabled(),
            topic: None,
            group: None,
            dead_letter_topic: None,
            max_poll_interval_ms: None,
            session_timeout_ms: session_timeout_ms(),
            heartbeat_interval_ms: heartbeat_interval_ms(),
            assignor: AssignorSpec::default(),
            auto_offset_reset: OffsetResetSpec::default(),
            task_timeout_seconds: None,
            max_attempts: max_attempts(),
            on_failure: OnFailureSpec::default(),
            scaling: ScalingSpec::default(),
            pod_overrides: PodOverrides::default(),
        }
    }
}

/// How partitions are shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AssignorSpec {
    /// Moves only what must move.
    #[default]
    #[serde(rename = "cooperative-sticky")]
    CooperativeSticky,
    /// Every rebalance stops everybody.
    #[serde(rename = "range")]
    Range,
}

/// Where an adopted group starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OffsetResetSpec {
    /// After everything that is there at adoption.
    #[default]
    Latest,
    /// At the first message.
    Earliest,
}

/// What becomes of a task that failed for a reason that may pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.maxRetries) || self.policy == 'RetryOnFailure'",
    "message": "AlwaysCommit never retries; fix: set policy to RetryOnFailure, or remove maxRetries",
    "fieldPath": ".maxRetries"
}]))]
pub struct OnFailureSpec {
    /// AlwaysCommit publishes the failure and goes on; RetryOnFailure puts the task back at the end of its topic.
    #[serde(default)]
    pub policy: PolicySpec,
    /// How often RetryOnFailure puts a task back. Default: 3.
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
    /// The task goes to the end of its topic.
    RetryOnFailure,
}

/// How many workers there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.minReplicas <= self.maxReplicas",
    "message": "minReplicas must not be above maxReplicas; fix: lower minReplicas or raise maxReplicas",
    "fieldPath": ".minReplicas"
}]))]
pub struct ScalingSpec {
    /// The fewest workers, also when nothing waits. 0 frees every GPU.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000))]
    pub min_replicas: i32,
    /// The most workers, draining ones included. More than there are partitions with work are never asked for.
    #[serde(default = "max_replicas")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_replicas: i32,
    /// How many workers an amount of waiting work deserves.
    #[serde(default)]
    pub target: TargetSpec,
    /// How often lag is read, in seconds; fractions are allowed.
    #[serde(default = "poll_interval_seconds")]
    #[schemars(range(min = 0.1, max = 300.0))]
    pub poll_interval_seconds: f64,
    /// How long fewer workers must have been enough before there are fewer, in seconds.
    #[serde(default = "stabilization_seconds")]
    #[schemars(range(min = 0, max = 86_400))]
    pub scale_down_stabilization_seconds: i32,
    /// Leaves the number of workers as it is, whatever waits.
    #[serde(default)]
    pub paused: bool,
    /// Decides and reports, and changes nothing.
    #[serde(default)]
    pub recommend_only: bool,
}

impl Default for ScalingSpec {
    fn default() -> Self {
        Self {
            min_replicas: 0,
            max_replicas: max_replicas(),
            target: TargetSpec::default(),
            poll_interval_seconds: poll_interval_seconds(),
            scale_down_stabilization_seconds: stabilization_seconds(),
            paused: false,
            recommend_only: false,
        }
    }
}

/// How many workers an amount of waiting work deserves: by number of tasks, or by time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.tasksPerReplica) != has(self.drainWithinSeconds)",
        "message": "a target is a number of tasks or a time; fix: set exactly one of tasksPerReplica and drainWithinSeconds"
    },
    {
        "rule": "has(self.drainWithinSeconds) == has(self.expectedTaskSeconds)",
        "message": "a time target needs to know how long a task takes; \
                    fix: set drainWithinSeconds and expectedTaskSeconds together, or neither"
    }
]))]
pub struct TargetSpec {
    /// One worker for this many tasks, waiting and running.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub tasks_per_replica: Option<i32>,
    /// As many workers as finish everything within this time, in seconds; goes with expectedTaskSeconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub drain_within_seconds: Option<i32>,
    /// How long one worker takes for one task, in seconds; goes with drainWithinSeconds.
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

/// A partial PodTemplateSpec, unchecked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodOverrides(pub Map<String, Value>);

impl PodOverrides {
    /// Whether nothing is overridden.
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

fn enabled() -> bool {
    true
}

fn session_timeout_ms() -> i32 {
    60_000
}

fn heartbeat_interval_ms() -> i32 {
    10_000
}

fn max_attempts() -> i32 {
    3
}

fn max_replicas() -> i32 {
    8
}

fn poll_interval_seconds() -> f64 {
    2.0
}

fn stabilization_seconds() -> i32 {
    120
}
