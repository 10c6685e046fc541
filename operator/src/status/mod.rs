//! Status of a pool: numbers, reasons, conditions; and when a change is worth a write.
//!
//! Plain functions of the observation and the decision. Times are arguments, and a condition's time changes only with
//! its status.

mod conditions;
mod estimates;
mod report;

#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::crd::{LagState, LagStatus, OffsetsStatus, ReplicaStatus, RoleStatus, SeparationPoolStatus};
use crate::decide::{Explanation, Lag, LagByPartition, completion_time};
use crate::plan::Role;

pub(crate) use conditions::{anomaly_reason, anomaly_text, is_recent};
pub(crate) use estimates::learned;
pub use report::{ApiReport, PendingChange, PoolReport, RoleReport};

use estimates::estimates_status;

/// Minimum time between two writes of numbers only: a thousand busy pools write at most two hundred times a second.
const NUMBERS_EVERY: Duration = Duration::from_secs(5);

/// Whether a status is worth a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteDue {
    /// More than numbers changed, or numbers changed and the last write is old enough.
    Yes,
    /// Nothing changed, or only numbers did and the last write is recent.
    No,
}

/// The status of a pool of this generation. `before` is its current status.
pub fn status(
    report: &PoolReport,
    before: Option<&SeparationPoolStatus>,
    generation: Option<i64>,
    now: &Time,
) -> SeparationPoolStatus {
    let conditions = conditions::of_pool(report, now);
    let previous = before.map(|status| &status.conditions[..]).unwrap_or_default();
    let mut status = SeparationPoolStatus {
        observed_generation: generation,
        conditions: conditions::with_transition_times(conditions, previous, generation, now),
        // While a spec is invalid the roles' status is kept: workers continue with the last valid spec.
        processor: before.and_then(|before| before.processor.clone()),
        uploader: before.and_then(|before| before.uploader.clone()),
        api: before.and_then(|before| before.api.clone()),
    };
    if let PoolReport::Running { roles, api, .. } = report {
        let role = |role: Role, before: Option<&RoleStatus>| {
            let report = roles.iter().find(|report| report.role == role);
            report.map(|report| role_status(report, before, now))
        };
        status.processor = role(Role::Processor, status.processor.as_ref());
        status.uploader = role(Role::Uploader, status.uploader.as_ref());
        status.api = api.status.clone();
    }
    status
}

/// Whether `after` is worth a write, `since_write` after the last one.
pub fn write_due(
    before: Option<&SeparationPoolStatus>,
    after: &SeparationPoolStatus,
    since_write: Duration,
) -> WriteDue {
    let Some(before) = before else {
        // The status of a pool that cannot be decoded is never seen: it must not be written in a loop.
        return if since_write >= NUMBERS_EVERY {
            WriteDue::Yes
        } else {
            WriteDue::No
        };
    };
    if before == after || *before == with_estimates_of(after, before) {
        return WriteDue::No;
    }
    if immediate_fields(before) != immediate_fields(after) || since_write >= NUMBERS_EVERY {
        WriteDue::Yes
    } else {
        WriteDue::No
    }
}

/// A status with the learned times of another one: those alone are never worth a write, because what they are learned
/// from changes other numbers too.
fn with_estimates_of(status: &SeparationPoolStatus, other: &SeparationPoolStatus) -> SeparationPoolStatus {
    let mut status = status.clone();
    for (role, other) in [
        (&mut status.processor, &other.processor),
        (&mut status.uploader, &other.uploader),
    ] {
        if let (Some(role), Some(other)) = (role, other) {
            role.estimates.clone_from(&other.estimates);
        }
    }
    status
}

/// The parts that are written immediately when they change: decisions and conditions, not numbers of messages or pods.
fn immediate_fields(status: &SeparationPoolStatus) -> impl PartialEq {
    let conditions = status.conditions.iter();
    let conditions = conditions.map(|condition| (&condition.type_, &condition.status, &condition.reason));
    (
        status.observed_generation,
        conditions.collect::<Vec<_>>(),
        status.processor.as_ref().map(immediate_role_fields),
        status.uploader.as_ref().map(immediate_role_fields),
        status
            .api
            .as_ref()
            .map(|api| (api.desired, &api.service, &api.problem)),
    )
}

fn immediate_role_fields(role: &RoleStatus) -> impl PartialEq {
    (
        &role.reason,
        &role.limited_by,
        role.lag.as_ref().map(|lag| lag.state),
        role.replicas.desired,
        role.replicas.unschedulable,
        role.offsets.as_ref().map(OffsetsStatus::event),
    )
}

fn role_status(report: &RoleReport, before: Option<&RoleStatus>, now: &Time) -> RoleStatus {
    let explanation = &report.explanation;
    let lag = explanation.lag;
    let partitions = lag.map(|lag| lag.partitions.saturating_add(lag.missing));
    let completion = lag
        .zip(report.task)
        .map(|(lag, task)| completion_time(task, lag.messages, explanation.desired));
    RoleStatus {
        lag: Some(lag_status(report)),
        partitions: partitions.map(to_i32),
        partitions_with_work: lag.map(|lag| to_i32(lag.partitions_with_work)),
        estimated_drain_seconds: completion.map(|time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX)),
        replicas: replica_status(explanation),
        reason: explanation.reason.name().to_owned(),
        limited_by: explanation.limit.to_string(),
        message: explanation.to_string(),
        estimates: estimates_status(&report.learned, before, now),
        offsets: report.offsets.clone(),
        effective: Some(report.effective.clone()),
    }
}

fn lag_status(report: &RoleReport) -> LagStatus {
    let messages = |lag: &LagByPartition| i64::try_from(lag.messages()).unwrap_or(i64::MAX);
    let (state, messages, at_least, problem) = match &report.lag {
        Lag::Known(lag) => (LagState::Known, Some(messages(lag)), "", String::new()),
        Lag::Partial { known, missing, why } => {
            let problem = format!("{missing} partitions: {why}");
            (LagState::Partial, Some(messages(known)), "at least ", problem)
        }
        Lag::Unknown { why } => (LagState::Unknown, None, "", why.to_string()),
    };
    LagStatus {
        state,
        messages,
        summary: messages.map_or_else(|| "?".to_owned(), |messages| format!("{at_least}{messages}")),
        // A time that changes with every reading would make every reading a write.
        last_known_time: report
            .last_known_time
            .clone()
            .filter(|_| state != LagState::Known),
        problem,
    }
}

fn replica_status(explanation: &Explanation) -> ReplicaStatus {
    let pods = explanation.pods;
    ReplicaStatus {
        desired: to_i32(explanation.desired),
        ready: to_i32(pods.ready),
        busy: pods.activity.map(|activity| to_i32(activity.possibly_busy())),
        idle: pods.activity.map(|activity| to_i32(activity.idle)),
        draining: to_i32(pods.draining),
        unschedulable: to_i32(pods.unschedulable),
    }
}

fn to_i32(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
