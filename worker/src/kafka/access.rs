//! Whether the credentials of a role suffice for its topics and its group, without joining it.

use std::sync::Arc;
use std::time::Duration;

use separation_contract::check::{CheckResult, Finding};
use separation_contract::failure_policy::FailurePolicy;
use separation_kafka::{Deadline, NeededTopic, Operation, check_access};

use super::client;
use crate::settings::{ConsumedRole, ConsumerSettings, KafkaSettings};

/// Time limit of all requests together.
const LIMIT: Duration = Duration::from_secs(15);

/// Connects as a worker of this role and checks its topics and rights.
pub async fn check_role_access(kafka: &KafkaSettings, consumer: &ConsumerSettings) -> Vec<Finding> {
    let cluster = match client::cluster(kafka) {
        Ok(cluster) => cluster,
        Err(why) => return vec![Finding::problem("kafka", why.to_string())],
    };
    let republishes = matches!(consumer.policy, FailurePolicy::RetryOnFailure(retries) if retries > 0);
    let consumed: &[Operation] = if republishes {
        &[Operation::Read, Operation::Write]
    } else {
        &[Operation::Read]
    };
    // Workers create the topics that they publish to, if they may.
    let published = |name| NeededTopic {
        name,
        operations: &[Operation::Write],
        consumers: 0,
        if_missing: CheckResult::Warning,
    };
    let mut topics = vec![
        NeededTopic {
            name: &consumer.topic,
            operations: consumed,
            consumers: 1,
            if_missing: CheckResult::Problem,
        },
        published(consumer.dead_letter_topic.as_str()),
    ];
    if consumer.role == ConsumedRole::Processor {
        topics.push(published(consumer.result_topic.as_str()));
    }
    let groups = [Arc::from(consumer.group.as_str())];
    let deadline = Deadline::after(LIMIT);
    let servers = &kafka.bootstrap_servers;
    let found = check_access(&cluster, servers, &topics, &groups, &deadline).await;
    found.unwrap_or_else(|why| vec![Finding::problem("kafka", format!("{servers}: {why}"))])
}
