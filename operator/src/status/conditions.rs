//! Conditions: what a person or a script waits for.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{PoolReport, RoleReport};
use crate::crd::condition_types;
use crate::decide::{Bound, Lag, Reason};
use crate::observe::Flag;
use crate::observe::workload::Trouble;
use crate::plan::Problems;

/// How many odd partitions are named: a topic may have a thousand.
const FLAGS_NAMED: usize = 5;

/// The longest message. The API server refuses a status with one of more than 32,768 characters, and parts of it come from
/// users and brokers.
const LONGEST_MESSAGE_BYTES: usize = 8 * 1024;

/// A condition without its time.
pub(super) struct Said {
    type_: &'static str,
    holds: Holds,
    reason: Cow<'static, str>,
    message: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    True,
    False,
    Unknown,
}

/// The conditions of a pool, always the same ones in the same order.
pub(super) fn of(report: &PoolReport) -> Vec<Said> {
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

/// Conditions with times: that of `previous` where the status is the same.
pub(super) fn dated(
    said: Vec<Said>,
    previous: &[Condition],
    generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    let each = said.into_iter().map(|said| {
        let status = match said.holds {
            Holds::True => "True",
            Holds::False => "False",
            Holds::Unknown => "Unknown",
        };
        let before = previous
            .iter()
            .find(|before| before.type_ == said.type_ && before.status == status);
        Condition {
            type_: said.type_.to_owned(),
            status: status.to_owned(),
            reason: said.reason.into_owned(),
            message: shortened(said.message),
            observed_generation: generation,
            last_transition_time: before
                .map_or_else(|| now.clone(), |before| before.last_transition_time.clone()),
        }
    });
    each.collect()
}

fn shortened(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE_BYTES));
        message.push('…');
    }
    message
}

fn refused(problems: &Problems) -> Vec<Said> {
    let unknown = |type_| Said {
        type_,
        holds: Holds::Unknown,
        reason: "InvalidSpec".into(),
        message: "the spec cannot be done, so that nothing is decided".to_owned(),
    };
    vec![
        Said {
            type_: condition_types::READY,
            holds: Holds::False,
            reason: "InvalidSpec".into(),
            message: problems.to_string(),
        },
        unknown(condition_types::LAG_KNOWN),
        unknown(condition_types::SCALING_LIMITED),
        Said {
            type_: condition_types::DEGRADED,
            holds: Holds::True,
            reason: "InvalidSpec".into(),
            message: "workers go on as the last valid spec says".to_owned(),
        },
        unknown(condition_types::DEPENDENCIES_AVAILABLE),
        unknown(condition_types::CONFLICT),
    ]
}

fn ready(roles: &[RoleReport]) -> Said {
    let waiting = |report: &&RoleReport| report.explanation.pods.ready < report.explanation.desired;
    let type_ = condition_types::READY;
    match all(roles, waiting, |report| {
        let explanation = &report.explanation;
        format!("{} of {} are ready", explanation.pods.ready, explanation.desired)
    }) {
        None => yes(type_, "AsAsked", "as many workers as are asked for are ready"),
        Some(message) => no(type_, "WorkersStarting", message),
    }
}

fn lag_known(roles: &[RoleReport]) -> Said {
    let type_ = condition_types::LAG_KNOWN;
    let unknown = |report: &&RoleReport| !matches!(report.lag, Lag::Known(_));
    let why = |report: &RoleReport| match &report.lag {
        Lag::Known(_) => String::new(),
        Lag::Partial { missing, why, .. } => format!("{missing} partitions could not be read: {why}"),
        Lag::Unknown { why } => format!("could not be read: {why}"),
    };
    match all(roles, unknown, why) {
        None => yes(type_, "Read", "lag was read whole"),
        Some(message) => no(type_, "CouldNotBeRead", message),
    }
}

fn scaling_limited(roles: &[RoleReport]) -> Said {
    let type_ = condition_types::SCALING_LIMITED;
    let limited = |report: &&RoleReport| {
        let bound = report.explanation.bound;
        matches!(
            bound,
            Bound::Max | Bound::Partitions | Bound::Draining | Bound::Unschedulable | Bound::Dependency
        )
    };
    let reason = roles
        .iter()
        .find(limited)
        .map(|report| match report.explanation.bound {
            Bound::Max => "MaxReplicas",
            Bound::Partitions => "PartitionsWithWork",
            Bound::Draining => "DrainingWorkers",
            Bound::Dependency => "Dependency",
            _ => "Unschedulable",
        });
    match (
        reason,
        all(roles, limited, |report| report.explanation.to_string()),
    ) {
        (Some(reason), Some(message)) => yes(type_, reason, message),
        _ => no(
            type_,
            "NotLimited",
            "there are as many workers as the work deserves".to_owned(),
        ),
    }
}

fn degraded(roles: &[RoleReport]) -> Said {
    let type_ = condition_types::DEGRADED;
    let mut found: Vec<(&str, String)> = Vec::new();
    for report in roles {
        let role = report.role;
        let unschedulable = report.explanation.pods.unschedulable;
        if unschedulable > 0 {
            let trouble = report
                .troubles
                .iter()
                .find(|trouble| &*trouble.reason == "Unschedulable");
            let why = trouble.map_or_else(String::new, |trouble| format!(": {}", trouble.message));
            found.push((
                "Unschedulable",
                format!("{role}: no node has room for {unschedulable} pods{why}"),
            ));
        }
        for trouble in report
            .troubles
            .iter()
            .filter(|trouble| &*trouble.reason != "Unschedulable")
        {
            let Trouble { reason, message } = trouble;
            found.push((reason, format!("{role}: {reason}: {message}")));
        }
        found.extend(
            report
                .flags
                .iter()
                .take(FLAGS_NAMED)
                .map(|flag| (flag_reason(flag), format!("{role}: {}", flag_text(flag)))),
        );
        if let Some(more) = report
            .flags
            .len()
            .checked_sub(FLAGS_NAMED)
            .filter(|more| *more > 0)
        {
            found.push(("MoreOffsets", format!("{role}: and {more} more partitions")));
        }
        let max = report.explanation.bounds.max();
        let partitions = report
            .explanation
            .work
            .filter(|work| work.missing == 0)
            .map(|work| work.partitions);
        if let Some(partitions) = partitions.filter(|partitions| *partitions < max) {
            let text = format!(
                "{role}: maxReplicas is {max} and the topic has {partitions} partitions; fix: add partitions"
            );
            found.push(("FewerPartitionsThanMaxReplicas", text));
        }
    }
    match found.first() {
        None => no(type_, "AllWell", "nothing is odd".to_owned()),
        Some((reason, _)) => {
            let reason = condition_reason(reason);
            let messages: Vec<&str> = found.iter().map(|(_, message)| &**message).collect();
            yes(type_, reason, messages.join("\n"))
        }
    }
}

/// The worst refusal is the reason; the message names all. Without offsets, reports of workers cannot be read.
fn dependencies_available(roles: &[RoleReport]) -> Said {
    let type_ = condition_types::DEPENDENCIES_AVAILABLE;
    let refusals: Vec<_> = roles
        .iter()
        .flat_map(|report| report.refusals.iter().map(move |refusal| (report.role, refusal)))
        .collect();
    if let Some(worst) = refusals.iter().map(|(_, refusal)| refusal.dependency).min() {
        let messages = refusals.iter();
        let messages = messages.map(|(role, refusal)| format!("{role}: {}", refusal.message));
        return no(type_, worst.reason(), messages.collect::<Vec<_>>().join("\n"));
    }
    let unread = |report: &&RoleReport| matches!(report.lag, Lag::Unknown { .. });
    match all(roles, unread, |_| {
        "offsets could not be read, with which workers report refusals".to_owned()
    }) {
        None => yes(type_, "NoProblems", "no dependency refuses a worker"),
        Some(message) => Said {
            type_,
            holds: Holds::Unknown,
            reason: "PartitionsUnreadable".into(),
            message,
        },
    }
}

fn conflict(roles: &[RoleReport]) -> Said {
    let type_ = condition_types::CONFLICT;
    let conflicting = |report: &&RoleReport| report.explanation.reason == Reason::Conflict;
    match all(roles, conflicting, |report| report.explanation.to_string()) {
        None => no(
            type_,
            "Alone",
            "nobody else takes from these groups and topics".to_owned(),
        ),
        Some(message) => yes(type_, "Shared", message),
    }
}

/// A condition's reason: the cluster's own word, where the API server would take it for one.
fn condition_reason(reason: &str) -> String {
    let is_word = reason.chars().all(|letter| letter.is_ascii_alphanumeric())
        && reason.starts_with(|letter: char| letter.is_ascii_alphabetic());
    if is_word {
        reason.to_owned()
    } else {
        "Trouble".to_owned()
    }
}

pub(crate) fn flag_reason(flag: &Flag) -> &'static str {
    match flag {
        Flag::BeyondEnd { .. } => "OffsetBeyondEnd",
        Flag::Expired { .. } => "MessagesExpired",
        Flag::Recreated => "TopicRecreated",
    }
}

pub(crate) fn flag_text(flag: &Flag) -> String {
    match flag {
        Flag::BeyondEnd {
            partition,
            committed,
            end,
        } => format!(
            "partition {partition}: {committed} was committed and the end is {end}; counted from the start"
        ),
        Flag::Expired { partition, messages } => {
            format!("partition {partition}: up to {messages} messages expired before they were read")
        }
        Flag::Recreated => {
            "the topic was made anew since its offsets were initialised; counted from the start".to_owned()
        }
    }
}

/// What is to be said of the roles that `which` picks, by name; none where it picks none.
fn all(
    roles: &[RoleReport],
    which: impl Fn(&&RoleReport) -> bool,
    text: impl Fn(&RoleReport) -> String,
) -> Option<String> {
    let said: Vec<String> = roles
        .iter()
        .filter(which)
        .map(|report| format!("{}: {}", report.role, text(report)))
        .collect();
    (!said.is_empty()).then(|| said.join("\n"))
}

fn yes(type_: &'static str, reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Said {
    Said {
        type_,
        holds: Holds::True,
        reason: reason.into(),
        message: message.into(),
    }
}

fn no(type_: &'static str, reason: &'static str, message: String) -> Said {
    Said {
        type_,
        holds: Holds::False,
        reason: reason.into(),
        message,
    }
}
