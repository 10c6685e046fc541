//! Status of a pool: numbers, reasons, conditions; and when a change is worth a write.
//!
//! Plain functions of the observation and the decision. Times are arguments, and a condition's time changes only with
//! its status.

mod conditions;
mod report;

#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::crd::{LagState, LagStatus, ReplicaStatus, RoleStatus, SeparationPoolStatus};
use crate::decide::{Explanation, Lag, LagByPartition};
use crate::plan::Role;

pub(crate) use conditions::{anomaly_reason, anomaly_text};
pub use report::{PoolReport, RoleReport};

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
    let conditions = conditions::of_pool(report);
    let previous = before.map(|status| &status.conditions[..]).unwrap_or_default();
    let mut status = SeparationPoolStatus {
        observed_generation: generation,
        conditions: conditions::with_transition_times(conditions, previous, generation, now),
        // While a spec is invalid the roles' status is kept: workers continue with the last valid spec.
        processor: before.and_then(|before| before.processor.clone()),
        uploader: before.and_then(|before| before.uploader.clone()),
    };
    if let PoolReport::Running(roles) = report {
        let role = |role: Role| roles.iter().find(|report| report.role == role).map(role_status);
        status.processor = role(Role::Processor);
        status.uploader = role(Role::Uploader);
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
        return WriteDue::Yes;
    };
    if before == after {
        return WriteDue::No;
    }
    if immediate_fields(before) != immediate_fields(after) || since_write >= NUMBERS_EVERY {
        WriteDue::Yes
    } else {
        WriteDue::No
    }
}

/// The parts that are written immediately when they change: decisions and conditions, not numbers of messages or pods.
fn immediate_fields(status: &SeparationPoolStatus) -> impl PartialEq {
    let condition = |condition: &Condition| {
        (
            condition.type_.clone(),
            condition.status.clone(),
            condition.reason.clone(),
        )
    };
    let role = |role: &Option<RoleStatus>| {
        let role = role.as_ref()?;
        let lag = role.lag.as_ref().map(|lag| lag.state);
        let ReplicaStatus {
            desired,
            unschedulable,
            ..
        } = role.replicas;
        Some((
            role.reason.clone(),
            role.bound.clone(),
            lag,
            desired,
            unschedulable,
            // Not the ids and offsets that are recorded with it.
            role.adoption
                .as_ref()
                .map(|adoption| (adoption.partitions, adoption.policy.clone(), adoption.at.clone())),
        ))
    };
    (
        status.observed_generation,
        status.conditions.iter().map(condition).collect::<Vec<_>>(),
        role(&status.processor),
        role(&status.uploader),
    )
}

fn role_status(report: &RoleReport) -> RoleStatus {
    let explanation = &report.explanation;
    let lag = explanation.lag;
    let partitions = lag.map(|lag| lag.partitions.saturating_add(lag.missing));
    let completion = lag.and_then(|lag| report.target.completion_time(lag.messages, explanation.desired));
    RoleStatus {
        lag: Some(lag_status(report)),
        partitions: partitions.map(to_i32),
        partitions_with_work: lag.map(|lag| to_i32(lag.partitions_with_work)),
        waiting_seconds: completion.map(|time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX)),
        replicas: replica_status(explanation),
        reason: explanation.reason.name().to_owned(),
        bound: explanation.limit.name().to_owned(),
        message: explanation.to_string(),
        adoption: report.adoption.clone(),
    }
}

fn lag_status(report: &RoleReport) -> LagStatus {
    let messages = |lag: &LagByPartition| i64::try_from(lag.messages()).unwrap_or(i64::MAX);
    let (state, messages, summary, problem) = match &report.lag {
        Lag::Known(lag) => {
            let messages = messages(lag);
            (
                LagState::Known,
                Some(messages),
                messages.to_string(),
                String::new(),
            )
        }
        Lag::Partial { known, missing, why } => {
            let messages = messages(known);
            let problem = format!("{missing} partitions: {why}");
            (
                LagState::Partial,
                Some(messages),
                format!("at least {messages}"),
                problem,
            )
        }
        Lag::Unknown { why } => (LagState::Unknown, None, "?".to_owned(), why.to_string()),
    };
    LagStatus {
        state,
        messages,
        summary,
        // A time that changes with every reading would make every reading a write.
        last_known_at: report.last_known_at.clone().filter(|_| state != LagState::Known),
        problem,
    }
}

fn replica_status(explanation: &Explanation) -> ReplicaStatus {
    let pods = explanation.pods;
    ReplicaStatus {
        desired: to_i32(explanation.desired),
        ready: to_i32(pods.ready),
        // Pods with unknown activity may hold a task.
        busy: pods
            .activity
            .map(|activity| to_i32(activity.busy + activity.unknown)),
        idle: pods.activity.map(|activity| to_i32(activity.idle)),
        draining: to_i32(pods.draining),
        unschedulable: to_i32(pods.unschedulable),
    }
}

fn to_i32(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
