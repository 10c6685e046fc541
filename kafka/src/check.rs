//! Whether a client's credentials suffice for its topics and groups, as findings for people. Joins, commits and publishes
//! nothing.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use separation_contract::check::{CheckResult, Finding};

use crate::access::{Operation, Operations};
use crate::{Cluster, Deadline, ReadError, ReadErrorKind, Topic};

/// A topic that a client needs.
#[derive(Debug, Clone, Copy)]
pub struct NeededTopic<'a> {
    /// Its name.
    pub name: &'a str,
    /// The operations that the client executes.
    pub operations: &'a [Operation],
    /// The number of its consumers: one that gets no partition stays idle.
    pub consumers: usize,
    /// The result if it does not exist; a topic that cannot be described for another reason is a problem.
    pub if_missing: CheckResult,
}

/// Connects with the credentials of `cluster`, whose bootstrap servers are `servers`, and checks that the topics exist and
/// the operations are authorized.
///
/// # Errors
/// When no broker accepts the connection.
pub async fn check_access(
    cluster: &Cluster,
    servers: &str,
    topics: &[NeededTopic<'_>],
    groups: &[Arc<str>],
    deadline: &Deadline,
) -> Result<Vec<Finding>, ReadError> {
    let brokers = cluster.broker_count(deadline).await?;
    let connected = format!("{servers} accepts the connection; brokers of the cluster: {brokers}");
    let mut findings = vec![Finding::ok("kafka", connected)];
    let names: Vec<Arc<str>> = topics.iter().map(|topic| topic.name.into()).collect();
    let described = cluster.topics(&names, deadline).await;
    // Brokers that do not report operations may refuse the request.
    let operations = cluster
        .topic_operations(&names, deadline)
        .await
        .unwrap_or_default();
    let mut rights = Rights::default();
    for topic in topics {
        let Some(found) = described.get(topic.name) else {
            continue;
        };
        findings.push(topic_finding(topic, found));
        if found.is_ok() {
            let object = format!("topic {}", topic.name);
            rights.record(&object, operations.get(topic.name).copied(), topic.operations);
        }
    }
    let described = cluster.describe_groups(groups, deadline).await;
    for (group, described) in groups.iter().zip(described) {
        match described {
            Ok(_) => {
                let operations = cluster.group_operations(group, deadline).await.ok().flatten();
                rights.record(&format!("group {group}"), operations, &[Operation::Read]);
            }
            Err(why) => findings.push(Finding::problem("rights", format!("group {group}: {why}"))),
        }
    }
    findings.extend(rights.finding());
    Ok(findings)
}

fn topic_finding(topic: &NeededTopic<'_>, found: &Result<Topic, ReadError>) -> Finding {
    let NeededTopic { name, consumers, .. } = topic;
    let found = match found {
        Ok(found) => found,
        Err(why) => {
            let unknown = ReadErrorKind::Refused(ResponseError::UnknownTopicOrPartition.code());
            let result = match why.kind == unknown {
                true => topic.if_missing,
                false => CheckResult::Problem,
            };
            return Finding::new("topics", result, format!("topic {name}: {why}"));
        }
    };
    let partitions = found.partitions.len();
    if partitions < *consumers {
        return Finding::warning(
            "topics",
            format!(
                "topic {name} has {partitions} partitions, so of {consumers} replicas {} stay idle; fix: add partitions, or \
                 lower maxReplicas",
                consumers - partitions
            ),
        );
    }
    Finding::ok("topics", format!("topic {name} exists; partitions: {partitions}"))
}

/// The operations that a client lacks.
#[derive(Debug, Default)]
struct Rights {
    checked: Vec<String>,
    lacking: Vec<String>,
    unknown: Vec<String>,
}

impl Rights {
    fn record(&mut self, object: &str, allowed: Option<Operations>, needed: &[Operation]) {
        self.checked.push(object.to_owned());
        let Some(allowed) = allowed else {
            self.unknown.push(object.to_owned());
            return;
        };
        let lacking = needed.iter().filter(|operation| !allowed.include(**operation));
        self.lacking
            .extend(lacking.map(|operation| format!("{} on {object}", operation.name())));
    }

    /// `None` if nothing was checked.
    fn finding(self) -> Option<Finding> {
        if !self.lacking.is_empty() {
            let lacking = self.lacking.join(", ");
            let text = format!("the Kafka user lacks {lacking}; fix: add these operations to its ACLs");
            return Some(Finding::problem("rights", text));
        }
        if !self.unknown.is_empty() {
            let unknown = self.unknown.join(", ");
            let text = format!(
                "the brokers do not report the rights of this Kafka user on {unknown}; fix: check that its ACLs allow Read, \
                 Write and Describe on the topics, and Read on the groups"
            );
            return Some(Finding::warning("rights", text));
        }
        let checked = self.checked.join(", ");
        (!checked.is_empty()).then(|| {
            let text = format!("the Kafka user has the needed rights on {checked}");
            Finding::ok("rights", text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_may_be_missing_is_a_problem_for_every_other_reason() {
        let topic = NeededTopic {
            name: "results",
            operations: &[Operation::Write],
            consumers: 0,
            if_missing: CheckResult::Warning,
        };
        let code = |error: ResponseError| ReadError::from_code(error.code());
        for (why, expected) in [
            (code(ResponseError::UnknownTopicOrPartition), CheckResult::Warning),
            (
                code(ResponseError::TopicAuthorizationFailed),
                CheckResult::Problem,
            ),
            (code(ResponseError::LeaderNotAvailable), CheckResult::Problem),
            (ReadError::timed_out("no answer"), CheckResult::Problem),
        ] {
            let finding = topic_finding(&topic, &Err(why));
            assert_eq!(finding.result, expected, "{finding:?}");
        }
    }
}
