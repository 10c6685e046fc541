//! Creates the topics that a role publishes to.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client::{self, Logging};
use crate::settings::{ConsumedRole, ConsumerSettings, KafkaSettings};

/// Timeout of one request.
const LIMIT: Duration = Duration::from_secs(10);

/// Pause before the next request while the consumed topic does not exist or no broker is reachable.
const PAUSE: Duration = Duration::from_secs(10);

/// Creates missing topics with the brokers' default replication factor: the dead-letter topic with one partition, and,
/// for a processor, the result topic with as many partitions as the task topic. Waits while the consumed topic does not
/// exist, because a guessed partition count would be permanent.
///
/// # Errors
/// When the brokers refuse. The topics may exist anyway, so publishing shows whether this matters.
pub async fn ensure_topics(kafka: &KafkaSettings, consumer: &ConsumerSettings) -> Result<(), KafkaError> {
    let mut reported = false;
    let partitions = loop {
        match partitions(kafka, &consumer.topic).await {
            Ok(count) if count > 0 => break count,
            answer if !reported => {
                let topic = &consumer.topic;
                tracing::warn!(
                    topic,
                    ?answer,
                    "The topic does not exist or no broker is reachable; topics to publish to are created later"
                );
                reported = true;
            }
            _ => {}
        }
        tokio::time::sleep(PAUSE).await;
    };
    let mut new = vec![topic(&consumer.dead_letter_topic, 1)];
    if consumer.role == ConsumedRole::Processor {
        new.push(topic(&consumer.result_topic, partitions));
    }
    let admin: AdminClient<Logging> =
        client::config(kafka, Vec::new()).create_with_context(Logging::default())?;
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

fn topic(name: &str, partitions: i32) -> NewTopic<'_> {
    NewTopic::new(name, partitions, TopicReplication::Fixed(-1))
}

/// Number of partitions of a topic; 0 if it does not exist. A consumer's metadata request creates no topic.
async fn partitions(kafka: &KafkaSettings, topic: &str) -> Result<i32, KafkaError> {
    let consumer: BaseConsumer<Logging> =
        client::config(kafka, Vec::new()).create_with_context(Logging::default())?;
    let topic = topic.to_owned();
    client::run_blocking(move || {
        let metadata = consumer.fetch_metadata(Some(&topic), LIMIT)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let count = found.map_or(0, |found| found.partitions().len());
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    })
    .await
}
