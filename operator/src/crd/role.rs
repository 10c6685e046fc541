//! Spec of processors and of uploaders: what both have, and what only processors have.

use schemars::JsonSchema;
use separation_contract::kafka::{OffsetReset, Timings};
use separation_contract::names;
use serde::{Deserialize, Serialize};

use super::pod::PodFields;
use super::scaling::ScalingSpec;
use super::storage::ByteQuantity;

/// Processors: workers that consume tasks and produce stems.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProcessorSpec {
    /// What processors have in common with uploaders.
    #[serde(flatten)]
    pub role: RoleSpec,
    /// Separation model. Default: the operator's --worker-model, spleeter unless changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSpec>,
    /// Execution provider of the model: CPU or CUDA. With CUDA, a worker that cannot use it does not start; request the
    /// GPU itself in resources. Default: CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_provider: Option<ExecutionProvider>,
    /// Longest time that a running task may take after its pod is asked to end, in seconds. A task that is expected to
    /// take longer is released immediately, and another worker starts it again. The pods' terminationGracePeriodSeconds
    /// is 5 s longer. Set 25 for spot nodes with 30 s notice. Default: consumer.maxPollIntervalMs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub drain_seconds: Option<i32>,
}

/// Workers of one role: topic, consumer group, failures and scaling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleSpec {
    /// Whether this role runs. Set false while another implementation processes its topic. Default: true.
    pub enabled: bool,
    /// Topic that these workers consume; created with maxReplicas partitions if it does not exist. Cannot be changed:
    /// committed offsets belong to it. Default: uvr_tasks for processors, uvr_results for uploaders.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self == oldSelf",
        "message": "the topic cannot be changed, because its queued messages would never be consumed; \
                    fix: create another SeparationPool for the new topic and delete this one when its lag is 0"
    }]))]
    pub topic: Option<String>,
    /// Consumer group of these workers. Cannot be changed: committed offsets belong to it. Default: uvr_processor_group
    /// for processors, uvr_uploader_group for uploaders.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self == oldSelf",
        "message": "the consumer group cannot be changed, because its committed offsets would be lost; \
                    fix: create another SeparationPool for the new group and delete this one when its lag is 0"
    }]))]
    pub consumer_group: Option<String>,
    /// Dead-letter topic, for messages that cannot be processed; created with one partition if it does not exist. Default:
    /// the topic's name with _dead_letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    pub dead_letter_topic: Option<String>,
    /// Where a consumer group without committed offsets starts: Earliest, or Latest. Used once per partition, before the
    /// first worker starts; messages published after that are never skipped. Default: Earliest.
    pub initial_offset: InitialOffset,
    /// Kafka settings of the consumers, with Kafka's names and units.
    pub consumer: ConsumerSpec,
    /// Maximum duration of one task, in seconds. Default: consumer.maxPollIntervalMs less 30 s, or half of it if it is
    /// below 60 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub task_deadline_seconds: Option<i32>,
    /// Number of worker crashes on one task after which it is sent to the dead-letter topic. Default: 3.
    #[schemars(range(min = 1, max = 100))]
    pub max_crashes: i32,
    /// Number of times a task that fails with a transient error or times out is published again to the end of its
    /// topic. With 0, the failure is reported immediately. Default: 0.
    #[schemars(range(min = 0, max = 1_000))]
    pub max_retries: i32,
    /// Number of workers and how it follows the lag.
    pub scaling: ScalingSpec,
    /// Image, resources, placement and other settings of the pods.
    #[serde(flatten)]
    pub pod: PodFields,
}

impl Default for RoleSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            topic: None,
            consumer_group: None,
            dead_letter_topic: None,
            initial_offset: InitialOffset::default(),
            consumer: ConsumerSpec::default(),
            task_deadline_seconds: None,
            max_crashes: 3,
            max_retries: 0,
            scaling: ScalingSpec::default(),
            pod: PodFields::default(),
        }
    }
}

/// Kafka settings of a role's consumers.
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
    }
]))]
pub struct ConsumerSpec {
    /// Kafka max.poll.interval.ms: maximum time between two polls of a worker, and so the maximum duration of a task,
    /// in milliseconds. The pods' terminationGracePeriodSeconds is 30 s longer, unless drainSeconds is set. Default:
    /// 600000 for processors, 300000 for uploaders.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10_000, max = 86_400_000))]
    pub max_poll_interval_ms: Option<i32>,
    /// Kafka session.timeout.ms: time without heartbeats after which the broker removes a worker from the group, in
    /// milliseconds. Default: 60000.
    #[schemars(range(min = 6_000, max = 1_800_000))]
    pub session_timeout_ms: i32,
    /// Kafka heartbeat.interval.ms: time between heartbeats of a worker, in milliseconds. Default: 10000.
    #[schemars(range(min = 100, max = 600_000))]
    pub heartbeat_interval_ms: i32,
    /// Kafka partition.assignment.strategy: CooperativeSticky revokes only the partitions that must move; Range lets
    /// workers of uvr5-api be members of the same group. The two cannot be mixed, so a change replaces all pods
    /// together. Default: CooperativeSticky.
    pub assignor: AssignorSpec,
}

impl Default for ConsumerSpec {
    fn default() -> Self {
        Self {
            max_poll_interval_ms: None,
            session_timeout_ms: 60_000,
            heartbeat_interval_ms: 10_000,
            assignor: AssignorSpec::default(),
        }
    }
}

/// Kafka `partition.assignment.strategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AssignorSpec {
    /// Revokes only the partitions that must move.
    #[default]
    CooperativeSticky,
    /// Revokes all partitions in every rebalance.
    Range,
}

/// Where a consumer group without committed offsets starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InitialOffset {
    /// At the first message.
    #[default]
    Earliest,
    /// After the last message at the time of adoption.
    Latest,
}

impl From<OffsetReset> for InitialOffset {
    fn from(reset: OffsetReset) -> Self {
        match reset {
            OffsetReset::Earliest => Self::Earliest,
            OffsetReset::Latest => Self::Latest,
        }
    }
}

/// Separation model: by name in the image, a file, or an address; and a limit of its memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "[has(self.name), has(self.path), has(self.uri)].filter(given, given).size() \
                 == (has(self.name) || has(self.path) || has(self.uri) || !has(self.maxMemory) ? 1 : 0)",
        "message": "a worker runs one model; fix: set exactly one of name, path, and uri with sha256, \
                    or maxMemory alone for the default model"
    },
    {
        "rule": "has(self.uri) == has(self.sha256)",
        "message": "a downloaded model needs the SHA-256 of its file, and no other model has one; \
                    fix: set sha256 together with uri, or remove it"
    }
]))]
pub struct ModelSpec {
    /// Name of a model in the image, such as spleeter or builtin, or in its model directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[^/]+$"))]
    pub name: Option<String>,
    /// Absolute path of a model file (.onnx) in the container, such as /models/UVR-MDX-NET-Inst_HQ_4.onnx; mount its
    /// volume with podTemplate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1024), regex(pattern = r"^/"))]
    pub path: Option<String>,
    /// Address of a model file, such as `https://models.example/vocals.onnx` or s3://models/vocals.onnx, without user
    /// name, password and query. Processors download it when they start, with the credentials of storage.s3 for s3://,
    /// and check sha256. Parameters are read from the same address with .json in place of .onnx.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 1024), regex(pattern = r"^(https|s3)://[^?#@ ]+$"))]
    pub uri: Option<String>,
    /// SHA-256 of the file at uri, as sha256sum prints it: 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: Option<String>,
    /// Limit of the memory of a worker while it separates, or with CUDA of the model on the GPU, such as 600M; 64Mi to
    /// 1Ti. It is measured when the worker starts, which fails if the limit is not enough. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<ByteQuantity>,
}

/// Execution provider of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
// An optional field would show a description of its type in place of its own.
#[schemars(description = "")]
pub enum ExecutionProvider {
    /// The CPU.
    #[default]
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
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
