//! Makes sure that the topics exist that a role publishes to.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client::{self, Logging};
use crate::settings::{ConsumedRole, ConsumerSettings, KafkaSettings};

/// How long the brokers may take for one request.
const LIMIT: Duration = Duration::from_secs(10);

/// Pause before asking again, while the consumed topic does not exist or no broker answers.
const PAUSE: Duration = Duration::from_secs(10);

/// Creates the topics that are missing, with the brokers' default of replicas: the topic of dead letters with one
/// partition, and, for a processor, the result topic with as many as the task topic has, since one uploader reads each.
/// Waits while the consumed topic does not exist: a count of partitions that was guessed would stay.
///
/// # Errors
/// When the brokers refuse; whether that matters shows when something is published.
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
                    "The topic is not known yet; topics to publish to are created later"
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

/// How many partitions a topic has; 0 where it does not exist. A consumer asks, since its question creates no topic.
async fn partitions(kafka: &KafkaSettings, topic: &str) -> Result<i32, KafkaError> {
    let consumer: BaseConsumer<Logging> =
        client::config(kafka, Vec::new()).create_with_context(Logging::default())?;
    let topic = topic.to_owned();
    client::waited(move || {
        let metadata = consumer.fetch_metadata(Some(&topic), LIMIT)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let count = found.map_or(0, |found| found.partitions().len());
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    })
    .await
}
