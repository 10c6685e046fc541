//! Makes sure that topics to publish to exist.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client::{self, Logging};
use crate::settings::KafkaSettings;

/// How long the brokers may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Creates those of `topics` that are missing, with the brokers' default of replicas and one partition.
///
/// # Errors
/// When the brokers refuse or cannot be reached; whether that matters shows when something is published.
pub async fn ensure_topics(kafka: &KafkaSettings, topics: &[&str]) -> Result<(), KafkaError> {
    let admin: AdminClient<Logging> = client::config(kafka, Vec::new()).create_with_context(Logging)?;
    let new: Vec<_> = topics
        .iter()
        .map(|topic| NewTopic::new(topic, 1, TopicReplication::Fixed(-1)))
        .collect();
    let options = AdminOptions::new()
        .request_timeout(Some(LIMIT))
        .operation_timeout(Some(LIMIT));
    for created in admin.create_topics(&new, &options).await? {
        match created {
            Ok(topic) => tracing::info!(topic, "Created topic"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(KafkaError::AdminOp(code)),
        }
    }
    Ok(())
}
