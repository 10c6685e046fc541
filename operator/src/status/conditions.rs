//! Conditions of a pool.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::report::{PoolReport, RoleReport};
use crate::crd::condition_types;
use crate::decide::{Lag, Limit, Reason};
use crate::observe::OffsetAnomaly;
use crate::observe::workload::WorkloadProblem;
use crate::plan::Problems;

/// Offset anomalies named in the message: a topic may have a thousand.
const MAX_NAMED_ANOMALIES: usize = 5;

/// The longest message. The API server refuses a status with one of more than 32,768 characters, and parts of it come
/// from users and brokers.
const MAX_MESSAGE_BYTES: usize = 8 * 1024;

/// A condition without its time.
pub(super) struct ConditionUpdate {
    type_: &'static str,
    status: ConditionStatus,
    reason: Cow<'static, str>,
    message: String,
}

#[derive(Clone, Copy, Debug)]
enum ConditionStatus {
    True,
    False,
    Unknown,
}

/// The conditions of a pool, always the same ones in the same order.
pub(super) fn of_pool(report: &PoolReport) -> Vec<ConditionUpdate> {
    match report {
        PoolReport::Refused(problems) => refused(problems),
        PoolReport::Running(roles) => vec![
            ready(roles),
            lag_known(roles),
            scaling_limited(roles),
            degraded(roles),
            dependencies_available(roles),
            conflict(roles),
        ],
    }
}

/// Adds transition times: that of `previous` where the status is the same.
pub(super) fn with_transition_times(
    updates: Vec<ConditionUpdate>,
    previous: &[Condition],
    generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    let each = updates.into_iter().map(|update| {
        let status = format!("{:?}", update.status);
        let before = previous
            .iter()
            .find(|before| before.type_ == update.type_ && before.status == status);
        Condition {
            type_: update.type_.to_owned(),
            status,
            reason: update.reason.into_owned(),
            message: shortened(update.message),
            observed_generation: generation,
            last_transition_time: before
                .map_or_else(|| now.clone(), |before| before.last_transition_time.clone()),
        }
    });
    each.collect()
}

fn shortened(mut message: String) -> String {
    if message.len() > MAX_MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        message.push('…');
    }
    message
}

fn refused(problems: &Problems) -> Vec<ConditionUpdate> {
    let reason = "InvalidSpec";
    let unknown = |type_| {
        let message = "the spec is invalid; replicas stay unchanged";
        condition(type_, ConditionStatus::Unknown, reason, message)
    };
    vec![
        condition_false(condition_types::READY, reason, problems.to_string()),
        unknown(condition_types::LAG_KNOWN),
        unknown(condition_types::SCALING_LIMITED),
        condition_true(
            condition_types::DEGRADED,
            reason,
            "workers continue with the last valid spec",
        ),
        unknown(condition_types::DEPENDENCIES_AVAILABLE),
        unknown(condition_types::CONFLICT),
    ]
}

fn ready(roles: &[RoleReport]) -> ConditionUpdate {
    let not_ready = |report: &&RoleReport| report.explanation.pods.ready < report.explanation.desired;
    let type_ = condition_types::READY;
    match lines_by_role(roles, not_ready, |report| {
        let explanation = &report.explanation;
        format!("{} of {} are ready", explanation.pods.ready, explanation.desired)
    }) {
        None => condition_true(type_, "DesiredReplicasReady", "the desired replicas are ready"),
        Some(message) => condition_false(type_, "WorkersStarting", message),
    }
}

fn lag_known(roles: &[RoleReport]) -> ConditionUpdate {
    let type_ = condition_types::LAG_KNOWN;
    let unknown = |report: &&RoleReport| !matches!(report.lag, Lag::Known(_));
    let why = |report: &RoleReport| match &report.lag {
        Lag::Known(_) => String::new(),
        Lag::Partial { missing, why, .. } => format!("{missing} partitions could not be read: {why}"),
        Lag::Unknown { why } => format!("could not be read: {why}"),
    };
    match lines_by_role(roles, unknown, why) {
        None => condition_true(type_, "AllPartitionsRead", "all partitions were read"),
        Some(message) => condition_false(type_, "LagUnreadable", message),
    }
}

fn scaling_limited(roles: &[RoleReport]) -> ConditionUpdate {
    let type_ = condition_types::SCALING_LIMITED;
    let limited = |report: &&RoleReport| {
        let limit = report.explanation.limit;
        matches!(
            limit,
            Limit::Max | Limit::Partitions | Limit::Draining | Limit::Unschedulable | Limit::Dependency
        )
    };
    let reason = roles
        .iter()
        .find(limited)
        .map(|report| match report.explanation.limit {
            Limit::Max => "MaxReplicas",
            Limit::Partitions => "PartitionsWithWork",
            Limit::Draining => "DrainingWorkers",
            Limit::Dependency => "Dependency",
            _ => "Unschedulable",
        });
    match (
        reason,
        lines_by_role(roles, limited, |report| report.explanation.to_string()),
    ) {
        (Some(reason), Some(message)) => condition_true(type_, reason, message),
        _ => condition_false(
            type_,
            "NotLimited",
            "desired replicas are the replicas the backlog needs",
        ),
    }
}

fn degraded(roles: &[RoleReport]) -> ConditionUpdate {
    let type_ = condition_types::DEGRADED;
    let mut found: Vec<(&str, String)> = Vec::new();
    for report in roles {
        let role = report.role;
        let unschedulable = report.explanation.pods.unschedulable;
        let is_room = |problem: &&WorkloadProblem| &*problem.reason == "Unschedulable";
        if unschedulable > 0 {
            let problem = report.problems.iter().find(is_room);
            let why = problem.map_or_else(String::new, |problem| format!(": {}", problem.message));
            let text = format!("{role}: no node has room for {unschedulable} pods{why}");
            found.push(("Unschedulable", text));
        }
        for problem in report.problems.iter().filter(|problem| !is_room(problem)) {
            let WorkloadProblem { reason, message } = problem;
            found.push((reason, format!("{role}: {reason}: {message}")));
        }
        for anomaly in report.anomalies.iter().take(MAX_NAMED_ANOMALIES) {
            let text = format!("{role}: {}", anomaly_text(anomaly));
            found.push((anomaly_reason(anomaly), text));
        }
        let more = report.anomalies.len().saturating_sub(MAX_NAMED_ANOMALIES);
        if more > 0 {
            let text = format!("{role}: {more} more partitions with offset anomalies");
            found.push(("MoreOffsets", text));
        }
        let max = report.explanation.limits.max();
        let partitions = report
            .explanation
            .lag
            .filter(|lag| lag.missing == 0)
            .map(|lag| lag.partitions);
        if let Some(partitions) = partitions.filter(|partitions| *partitions < max) {
            let text = format!(
                "{role}: maxReplicas is {max} and the topic has {partitions} partitions; fix: add partitions"
            );
            found.push(("FewerPartitionsThanMaxReplicas", text));
        }
    }
    match found.first() {
        None => condition_false(type_, "NoProblems", "no problems found"),
        Some((reason, _)) => {
            let reason = condition_reason(reason);
            let messages: Vec<&str> = found.iter().map(|(_, message)| &**message).collect();
            condition_true(type_, reason, messages.join("\n"))
        }
    }
}

/// The worst refusal is the reason; the message names all. Workers report refusals in the metadata of committed
/// offsets, so that without offsets nothing is known.
fn dependencies_available(roles: &[RoleReport]) -> ConditionUpdate {
    let type_ = condition_types::DEPENDENCIES_AVAILABLE;
    let refusals: Vec<_> = roles
        .iter()
        .flat_map(|report| report.refusals.iter().map(move |refusal| (report.role, refusal)))
        .collect();
    if let Some(worst) = refusals.iter().map(|(_, refusal)| refusal.dependency).min() {
        let messages = refusals.iter();
        let messages = messages.map(|(role, refusal)| format!("{role}: {}", refusal.message));
        return condition_false(type_, worst.reason(), messages.collect::<Vec<_>>().join("\n"));
    }
    let unread = |report: &&RoleReport| matches!(report.lag, Lag::Unknown { .. });
    match lines_by_role(roles, unread, |_| {
        "workers report refusals with their committed offsets, which could not be read".to_owned()
    }) {
        None => condition_true(type_, "NoProblems", "no dependency refuses a worker"),
        Some(message) => condition(type_, ConditionStatus::Unknown, "PartitionsUnreadable", message),
    }
}

fn conflict(roles: &[RoleReport]) -> ConditionUpdate {
    let type_ = condition_types::CONFLICT;
    let conflicting = |report: &&RoleReport| report.explanation.reason == Reason::Conflict;
    match lines_by_role(roles, conflicting, |report| report.explanation.to_string()) {
        None => condition_false(
            type_,
            "NoConflict",
            "no other pool or consumer uses these groups and topics",
        ),
        Some(message) => condition_true(type_, "GroupShared", message),
    }
}

/// A condition's reason: the cluster's own word, if the API server accepts it as one.
fn condition_reason(reason: &str) -> String {
    let is_word = reason.chars().all(|letter| letter.is_ascii_alphanumeric())
        && reason.starts_with(|letter: char| letter.is_ascii_alphabetic());
    if is_word {
        reason.to_owned()
    } else {
        "Trouble".to_owned()
    }
}

pub(crate) fn anomaly_reason(anomaly: &OffsetAnomaly) -> &'static str {
    match anomaly {
        OffsetAnomaly::BeyondEnd { .. } => "OffsetBeyondEnd",
        OffsetAnomaly::Expired { .. } => "MessagesExpired",
        OffsetAnomaly::Recreated => "TopicRecreated",
    }
}

pub(crate) fn anomaly_text(anomaly: &OffsetAnomaly) -> String {
    match anomaly {
        OffsetAnomaly::BeyondEnd {
            partition,
            committed,
            end,
        } => format!(
            "partition {partition}: committed offset {committed} is beyond the end offset {end}; lag counted from the \
             start"
        ),
        OffsetAnomaly::Expired { partition, messages } => {
            format!("partition {partition}: up to {messages} messages expired before they were consumed")
        }
        OffsetAnomaly::Recreated => {
            "the topic was recreated since its offsets were initialized; lag counted from the start"
                .to_owned()
        }
    }
}

/// One line for each role that `which` selects, with its name; none if it selects none.
fn lines_by_role(
    roles: &[RoleReport],
    which: impl Fn(&&RoleReport) -> bool,
    text: impl Fn(&RoleReport) -> String,
) -> Option<String> {
    let lines: Vec<String> = roles
        .iter()
        .filter(which)
        .map(|report| format!("{}: {}", report.role, text(report)))
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn condition_true(
    type_: &'static str,
    reason: impl Into<Cow<'static, str>>,
    message: impl Into<String>,
) -> ConditionUpdate {
    condition(type_, ConditionStatus::True, reason, message)
}

fn condition_false(type_: &'static str, reason: &'static str, message: impl Into<String>) -> ConditionUpdate {
    condition(type_, ConditionStatus::False, reason, message)
}

fn condition(
    type_: &'static str,
    status: ConditionStatus,
    reason: impl Into<Cow<'static, str>>,
    message: impl Into<String>,
) -> ConditionUpdate {
    ConditionUpdate {
        type_,
        status,
        reason: reason.into(),
        message: message.into(),
    }
}
