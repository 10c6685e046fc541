//! Spec of scaling: limits, target, and how fast replicas change.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Number of workers and how it follows the lag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.minReplicas <= self.maxReplicas",
    "message": "minReplicas must not be above maxReplicas; fix: lower minReplicas or raise maxReplicas",
    "fieldPath": ".minReplicas"
}]))]
pub struct ScalingSpec {
    /// Minimum number of workers, also when the lag is 0. With 0, an idle pool uses no GPU. Default: 0.
    #[schemars(range(min = 0, max = 10_000))]
    pub min_replicas: i32,
    /// Maximum number of workers, draining ones included. A scale-up never exceeds the partitions with messages, except
    /// to reach minReplicas. Default: 8.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_replicas: i32,
    /// How many workers an amount of lag needs. Default: one worker for each task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetSpec>,
    /// Estimated times, for targets that are deadlines. A time that is set replaces the one that the operator learns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimates: Option<EstimatesSpec>,
    /// Auto changes replicas; DryRun decides and reports desired replicas without changing them; Paused keeps replicas,
    /// whatever the lag is. Default: Auto.
    pub mode: ScalingMode,
    /// Time between two readings of lag, in seconds. Default: 2.
    #[schemars(range(min = 1, max = 300))]
    pub lag_check_period_seconds: i32,
    /// When replicas are removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_down: Option<ScaleDownSpec>,
}

impl Default for ScalingSpec {
    fn default() -> Self {
        Self {
            min_replicas: 0,
            max_replicas: 8,
            target: None,
            estimates: None,
            mode: ScalingMode::default(),
            lag_check_period_seconds: 2,
            scale_down: None,
        }
    }
}

/// Whether the operator changes replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScalingMode {
    /// Replicas follow the lag.
    #[default]
    Auto,
    /// Desired replicas are only reported.
    DryRun,
    /// Replicas stay unchanged.
    Paused,
}

/// When replicas are removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleDownSpec {
    /// How long fewer replicas must have been enough before one is removed, in seconds. Default: 120; with StartDeadline,
    /// 3 times the start-up time, from 60 to 180.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub stabilization_window_seconds: Option<i32>,
    /// How long zero replicas must have been enough before the last one is removed, in seconds. Default:
    /// stabilizationWindowSeconds; if that is not set and the target is StartDeadline, 4 times the start-up time, from
    /// 120 to 240.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub last_replica_stabilization_window_seconds: Option<i32>,
}

/// How many workers an amount of lag needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.type == 'TasksPerReplica' || !has(self.tasksPerReplica)",
        "message": "tasksPerReplica belongs to another type; fix: set type to TasksPerReplica, or remove tasksPerReplica",
        "fieldPath": ".tasksPerReplica"
    },
    {
        "rule": "(self.type == 'DrainDeadline') == has(self.drainDeadlineSeconds)",
        "message": "drainDeadlineSeconds belongs to type DrainDeadline; fix: set both, or neither"
    },
    {
        "rule": "(self.type == 'StartDeadline') == has(self.startDeadlineSeconds)",
        "message": "startDeadlineSeconds belongs to type StartDeadline; fix: set both, or neither"
    }
]))]
pub struct TargetSpec {
    /// TasksPerReplica: a number of tasks for each worker. DrainDeadline: all tasks complete within a time; needs
    /// scaling.estimates.taskSeconds. StartDeadline: each task begins within a time after it was queued, with as few
    /// workers as possible.
    #[serde(rename = "type")]
    pub kind: TargetKind,
    /// Tasks per worker, queued and running. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub tasks_per_replica: Option<i32>,
    /// Time within which the workers should complete all tasks, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub drain_deadline_seconds: Option<i32>,
    /// Time within which each task should begin, in seconds. A task that only a new worker can begin takes the start-up
    /// time, even if the deadline is shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub start_deadline_seconds: Option<i32>,
}

/// Kind of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TargetKind {
    /// A number of tasks for each worker.
    TasksPerReplica,
    /// All tasks complete within a time.
    DrainDeadline,
    /// Each task begins within a time.
    StartDeadline,
}

/// Estimated times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EstimatesSpec {
    /// Duration of one task on one worker, in seconds, such as 90: the average for DrainDeadline, which requires it, and
    /// the median for StartDeadline. Default: learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub task_seconds: Option<i32>,
    /// Time from a scale-up until a new worker begins its first task, in seconds, such as 60. Default: learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub startup_seconds: Option<i32>,
}
