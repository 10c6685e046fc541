//! What is said about a pool: numbers, reasons, conditions; and when it is worth a write.
//!
//! Plain functions of what was seen and decided. Times come from outside, and a condition's time changes only with its
//! status.

mod conditions;

#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::crd::{AdoptionStatus, LagState, LagStatus, ReplicaStatus, RoleStatus, SeparationPoolStatus};
use crate::decide::{Explanation, Lag, Target};
use crate::observe::Flag;
use crate::observe::dependencies::Refusal;
use crate::observe::workload::Trouble;
use crate::plan::{Problems, Role};

pub(crate) use conditions::{flag_reason, flag_text};

/// The shortest time between two writes of numbers that nobody acts on: a thousand busy pools write two hundred times a
/// second at most.
const NUMBERS_EVERY: Duration = Duration::from_secs(5);

/// What is known of one role after a decision.
#[derive(Debug, Clone)]
pub struct RoleReport {
    /// Which role.
    pub role: Role,
    /// The decision.
    pub explanation: Explanation,
    /// The lag that it rests on.
    pub lag: Lag,
    /// What is odd about offsets.
    pub flags: Vec<Flag>,
    /// When lag was last read whole.
    pub last_known_at: Option<Time>,
    /// How many workers an amount of work deserves.
    pub target: Target,
    /// How the group's offsets were taken over.
    pub adoption: Option<AdoptionStatus>,
    /// What the cluster says that a person must look at.
    pub troubles: Vec<Trouble>,
    /// Dependencies that refuse workers, or the operator itself.
    pub refusals: Vec<Refusal>,
}

/// What is known of a pool.
#[derive(Debug, Clone)]
pub enum PoolReport {
    /// It cannot be done.
    Refused(Problems),
    /// It is done; the roles that are enabled.
    Running(Vec<RoleReport>),
}

/// Whether a status is worth a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteDue {
    /// Somebody would act on what changed, or numbers changed and the last write is old enough.
    Yes,
    /// Nothing changed, or only numbers did and a moment ago they were written.
    No,
}

/// The status of a pool of this generation. `before` is the status that stands.
pub fn status(
    report: &PoolReport,
    before: Option<&SeparationPoolStatus>,
    generation: Option<i64>,
    now: &Time,
) -> SeparationPoolStatus {
    let conditions = conditions::of(report);
    let previous = before.map(|status| &status.conditions[..]).unwrap_or_default();
    let mut status = SeparationPoolStatus {
        observed_generation: generation,
        conditions: conditions::dated(conditions, previous, generation, now),
        // What was known of the roles stays while a spec is refused: workers go on.
        processor: before.and_then(|before| before.processor.clone()),
        uploader: before.and_then(|before| before.uploader.clone()),
    };
    if let PoolReport::Running(roles) = report {
        let of = |role: Role| roles.iter().find(|report| report.role == role).map(role_status);
        status.processor = of(Role::Processor);
        status.uploader = of(Role::Uploader);
    }
    status
}

/// Whether `after` is worth a write, so long after the last one.
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
    if telling(before) != telling(after) || since_write >= NUMBERS_EVERY {
        WriteDue::Yes
    } else {
        WriteDue::No
    }
}

/// What a person would act on: not how much waits, but what is made of it.
fn telling(status: &SeparationPoolStatus) -> impl PartialEq {
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
    let seen = explanation.work;
    let partitions = seen.map(|seen| seen.partitions.saturating_add(seen.missing));
    let waiting = seen.and_then(|seen| report.target.waiting_time(seen.messages, explanation.desired));
    RoleStatus {
        lag: Some(lag_status(report)),
        partitions: partitions.map(whole),
        partitions_with_work: seen.map(|seen| whole(seen.partitions_with_work)),
        waiting_seconds: waiting.map(|time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX)),
        replicas: replica_status(explanation),
        reason: explanation.reason.name().to_owned(),
        bound: explanation.bound.name().to_owned(),
        message: explanation.to_string(),
        adoption: report.adoption.clone(),
    }
}

fn lag_status(report: &RoleReport) -> LagStatus {
    let messages = |work: &crate::decide::Work| i64::try_from(work.messages()).unwrap_or(i64::MAX);
    let (state, messages, summary, problem) = match &report.lag {
        Lag::Known(work) => {
            let messages = messages(work);
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
        desired: whole(explanation.desired),
        ready: whole(pods.ready),
        // Who cannot be told may hold a task.
        busy: pods
            .activity
            .map(|activity| whole(activity.busy + activity.untold)),
        idle: pods.activity.map(|activity| whole(activity.idle)),
        draining: whole(pods.draining),
        unschedulable: whole(pods.unschedulable),
    }
}

fn whole(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
