//! Conditions of a pool.

use std::borrow::Cow;
use std::iter;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::report::{ApiReport, PendingChange, PoolReport, RoleReport};
use crate::crd::condition_types;
use crate::decide::{Lag, Limit, Reason};
use crate::names::{API_COMPONENT, TOPIC_MISSING};
use crate::observe::OffsetAnomaly;
use crate::observe::workload::WorkloadProblem;
use crate::plan::{Problems, Role};

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

/// How long lag may be unknown before a pool is not ready: a restart of brokers is shorter.
const LAG_GRACE: SignedDuration = SignedDuration::from_mins(5);

/// Whether a pool whose lag was last known at `last_known` may still be ready.
pub(crate) fn is_recent(last_known: &Time, now: &Time) -> bool {
    now.0.duration_since(last_known.0) <= LAG_GRACE
}

/// The conditions of a pool, always the same ones in the same order.
pub(super) fn of_pool(report: &PoolReport, now: &Time) -> Vec<ConditionUpdate> {
    match report {
        PoolReport::Refused(problems) => refused(problems),
        PoolReport::Running { roles, stuck, api } => {
            let (dependencies, conflict) = (dependencies_available(roles), group_conflict(roles));
            vec![
                ready(roles, &dependencies, now),
                reconciling(roles, api),
                stalled(&conflict),
                lag_known(roles),
                scaling_limited(roles),
                degraded(roles, stuck, api),
                dependencies,
                conflict,
            ]
        }
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
        condition_false(condition_types::RECONCILING, reason, "waits for a valid spec"),
        condition_true(condition_types::STALLED, reason, problems.to_string()),
        unknown(condition_types::LAG_KNOWN),
        unknown(condition_types::SCALING_LIMITED),
        condition_true(
            condition_types::DEGRADED,
            reason,
            "workers continue with the last valid spec",
        ),
        unknown(condition_types::DEPENDENCIES_AVAILABLE),
        unknown(condition_types::GROUP_CONFLICT),
    ]
}

/// Whether the pool can serve tasks; a scale-up changes nothing here.
fn ready(roles: &[RoleReport], dependencies: &ConditionUpdate, now: &Time) -> ConditionUpdate {
    let type_ = condition_types::READY;
    let not_initialized = |report: &RoleReport| {
        topic_problem(report).map_or_else(
            || "the offsets of the consumer group are not initialized; workers start afterwards".to_owned(),
            |problem| problem.message.to_string(),
        )
    };
    if let Some(message) = lines_by_role(roles, |report| report.offsets.is_none(), not_initialized) {
        return condition_false(type_, "OffsetsNotInitialized", message);
    }
    if matches!(dependencies.status, ConditionStatus::False) {
        return condition_false(type_, dependencies.reason.clone(), dependencies.message.clone());
    }
    let unknown = |report: &&RoleReport| {
        let last_known = report.last_known_time.as_ref();
        !matches!(report.lag, Lag::Known(_)) && !last_known.is_some_and(|at| is_recent(at, now))
    };
    if let Some(message) = lines_by_role(roles, unknown, |report| {
        format!(
            "lag has been unknown for 5 minutes or more: {}",
            why_unknown(report)
        )
    }) {
        return condition_false(type_, "LagUnknown", message);
    }
    condition_true(type_, "Available", "tasks are processed as the lag requires")
}

/// Why the topic is missing, if the operator could not create it.
fn topic_problem(report: &RoleReport) -> Option<&WorkloadProblem> {
    let mut problems = report.problems.iter();
    problems.find(|problem| &*problem.reason == TOPIC_MISSING)
}

/// Whether Deployments do not yet match the spec; replicas that follow the lag do not count.
fn reconciling(roles: &[RoleReport], api: &ApiReport) -> ConditionUpdate {
    let type_ = condition_types::RECONCILING;
    let reasons = [
        (
            PendingChange::Staging,
            "StagingChangeWaits",
            "storage.staging changes when the lag of both topics is 0 and the pods of the API have ended, because \
             queued tasks name the previous location; if they cannot be processed there, create its bucket or claim, \
             or let them fail: set enabled: false for both roles, delete their Deployments, and set it to true again",
        ),
        (
            PendingChange::RollingOut,
            "RollingOut",
            "pods are being replaced by pods of the current spec",
        ),
    ];
    let stopped = api.is_stopped.then(|| {
        format!(
            "{API_COMPONENT}: stopped while storage.staging changes; it starts once no worker uses the previous one"
        )
    });
    for (change, reason, message) in reasons {
        let is_pending = |report: &&RoleReport| report.pending == Some(change);
        if let Some(message) = lines_by_role(roles, is_pending, |_| message.to_owned()) {
            let lines: Vec<&str> = iter::once(&*message).chain(stopped.as_deref()).collect();
            return condition_true(type_, reason, lines.join("\n"));
        }
    }
    let is_new = |report: &&RoleReport| {
        let is_held = report.explanation.reason == Reason::Conflict || topic_problem(report).is_some();
        report.offsets.is_none() && !is_held
    };
    if let Some(message) = lines_by_role(roles, is_new, |_| {
        "the offsets of the consumer group are being initialized".to_owned()
    }) {
        return condition_true(type_, "InitializingOffsets", message);
    }
    if let Some(message) = stopped {
        return condition_true(type_, "RollingOut", message);
    }
    if let Some(status) = api.status.as_ref().filter(|_| api.is_rolling_out) {
        let (ready, desired) = (status.ready, status.desired);
        let message = format!(
            "{API_COMPONENT}: pods of the current spec are being started; {ready} of {desired} pods are ready"
        );
        return condition_true(type_, "RollingOut", message);
    }
    condition_false(type_, "UpToDate", "the Deployments match the spec")
}

/// Whether only a change by a person lets the pool progress.
fn stalled(conflict: &ConditionUpdate) -> ConditionUpdate {
    let type_ = condition_types::STALLED;
    match conflict.status {
        ConditionStatus::True => condition_true(type_, conflict.reason.clone(), conflict.message.clone()),
        _ => condition_false(type_, "NotStalled", "the pool progresses by itself"),
    }
}

fn why_unknown(report: &RoleReport) -> String {
    match &report.lag {
        Lag::Known(_) => String::new(),
        Lag::Partial { missing, why, .. } => format!("{missing} partitions could not be read: {why}"),
        Lag::Unknown { why } => format!("could not be read: {why}"),
    }
}

fn lag_known(roles: &[RoleReport]) -> ConditionUpdate {
    let type_ = condition_types::LAG_KNOWN;
    let unknown = |report: &&RoleReport| !matches!(report.lag, Lag::Known(_));
    match lines_by_role(roles, unknown, why_unknown) {
        None => condition_true(type_, "AllPartitionsRead", "all partitions were read"),
        Some(message) => condition_false(type_, "PartitionsUnreadable", message),
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
        _ => match lines_by_role(roles, has_few_partitions, |report| {
            let partitions = report.explanation.lag.map_or(0, |lag| lag.partitions);
            let max = report.explanation.limits.max();
            format!("maxReplicas is {max} and the topic has {partitions} partitions; fix: add partitions")
        }) {
            Some(message) => condition_true(type_, "FewerPartitionsThanMaxReplicas", message),
            None => condition_false(
                type_,
                "NotLimited",
                "desired replicas are the replicas the backlog needs",
            ),
        },
    }
}

/// Whether the topic has fewer partitions than `maxReplicas`, so that some replicas are never needed.
fn has_few_partitions(report: &&RoleReport) -> bool {
    let lag = report.explanation.lag.filter(|lag| lag.missing == 0);
    lag.is_some_and(|lag| lag.partitions < report.explanation.limits.max())
}

fn degraded(roles: &[RoleReport], stuck: &[(Role, WorkloadProblem)], api: &ApiReport) -> ConditionUpdate {
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
    }
    for (role, WorkloadProblem { reason, message }) in stuck {
        found.push((reason, format!("{role}: {reason}: {message}")));
    }
    for WorkloadProblem { reason, message } in &api.problems {
        found.push((reason, format!("{API_COMPONENT}: {reason}: {message}")));
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

fn group_conflict(roles: &[RoleReport]) -> ConditionUpdate {
    let type_ = condition_types::GROUP_CONFLICT;
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

fn condition_false(
    type_: &'static str,
    reason: impl Into<Cow<'static, str>>,
    message: impl Into<String>,
) -> ConditionUpdate {
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
