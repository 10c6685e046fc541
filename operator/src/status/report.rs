//! The state of a pool from which its status is derived.

use std::num::NonZeroU32;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::crd::{EffectiveSettings, OffsetsStatus};
use crate::decide::{Explanation, Lag};
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
    /// Estimated duration of a task, in seconds.
    pub task_seconds: Option<NonZeroU32>,
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

/// A pool after validation and, if it is valid, decisions.
#[derive(Debug, Clone)]
pub enum PoolReport {
    /// The spec is invalid.
    Refused(Problems),
    /// The spec is valid; one report for each enabled role.
    Running(Vec<RoleReport>),
}
