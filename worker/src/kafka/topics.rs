//! Creates the topics that a role publishes to.

use std::sync::Arc;
use std::time::Duration;

use separation_kafka::{Cluster, Deadline, ReadError, Topic};

use super::client;
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
pub async fn ensure_topics(kafka: &KafkaSettings, consumer: &ConsumerSettings) -> Result<(), ReadError> {
    // Not librdkafka's client for administration: its Rust binding never takes a token.
    let cluster = client::cluster(kafka)?;
    let consumed = wait_until_described(&cluster, &consumer.topic).await;
    let mut topics = vec![(&consumer.dead_letter_topic, 1)];
    if consumer.role == ConsumedRole::Processor {
        let partitions = u32::try_from(consumed.partitions.len()).unwrap_or(u32::MAX);
        topics.push((&consumer.result_topic, partitions));
    }
    for (topic, partitions) in topics {
        if describe(&cluster, topic).await.is_err() {
            cluster
                .create_topic(topic, partitions, &Deadline::after(LIMIT))
                .await?;
            tracing::info!(topic, "Created topic");
        }
    }
    Ok(())
}

async fn wait_until_described(cluster: &Cluster, topic: &str) -> Topic {
    let mut reported = false;
    loop {
        match describe(cluster, topic).await {
            Ok(described) => return described,
            Err(error) if !reported => {
                tracing::warn!(
                    topic,
                    %error,
                    "The topic does not exist or no broker is reachable; topics to publish to are created later"
                );
                reported = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn describe(cluster: &Cluster, topic: &str) -> Result<Topic, ReadError> {
    let topics = [Arc::from(topic)];
    let mut described = cluster.topics(&topics, &Deadline::after(LIMIT)).await;
    described
        .remove(&topics[0])
        .expect("each requested topic is described")
}
