//! The state of a pool from which its status is derived.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::crd::{ApiStatus, EffectiveSettings, OffsetsStatus};
use crate::decide::{Explanation, Lag, LearnedSummary};
use crate::observe::OffsetAnomaly;
use crate::observe::dependencies::Refusal;
use crate::observe::workload::WorkloadProblem;
use crate::plan::{Problems, Role};

/// A part of the spec that pods do not have yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingChange {
    /// Pods are being replaced.
    RollingOut,
    /// The new staging storage waits until no message is queued.
    Staging,
}

/// One role after a decision.
#[derive(Debug, Clone)]
pub struct RoleReport {
    /// Processor or uploader.
    pub role: Role,
    /// The decision.
    pub explanation: Explanation,
    /// The lag that it is based on.
    pub lag: Lag,
    /// Offset anomalies.
    pub anomalies: Vec<OffsetAnomaly>,
    /// When all partitions were last read.
    pub last_known_time: Option<Time>,
    /// Estimated time of a task.
    pub task: Option<Duration>,
    /// Learned times.
    pub learned: LearnedSummary,
    /// How the group's offsets were initialized.
    pub offsets: Option<OffsetsStatus>,
    /// The part of the spec that pods do not have yet.
    pub pending: Option<PendingChange>,
    /// Settings in effect.
    pub effective: EffectiveSettings,
    /// Problems that the cluster reports and a person must solve.
    pub problems: Vec<WorkloadProblem>,
    /// Dependencies that refuse workers, or the operator itself.
    pub refusals: Vec<Refusal>,
}

/// The HTTP API of a pool.
#[derive(Debug, Clone, Default)]
pub struct ApiReport {
    /// Its part of the status; none without an API.
    pub status: Option<ApiStatus>,
    /// Whether its pods are started for the first time, or replaced, or none is ready. A pod that restarts beside a ready
    /// one changes nothing here.
    pub is_rolling_out: bool,
    /// Whether it has no pods while the staging storage changes.
    pub is_stopped: bool,
    /// Problems that the cluster reports and a person must solve.
    pub problems: Vec<WorkloadProblem>,
}

/// A pool after validation and, if it is valid, decisions.
#[derive(Debug, Clone)]
pub enum PoolReport {
    /// The spec is invalid.
    Refused(Problems),
    /// The spec is valid.
    Running {
        /// The enabled roles.
        roles: Vec<RoleReport>,
        /// Pods of disabled roles whose deletion is overdue.
        stuck: Vec<(Role, WorkloadProblem)>,
        /// The HTTP API.
        api: ApiReport,
    },
}
