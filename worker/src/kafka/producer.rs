//! Publishing: one message, taken by all in-sync replicas, or an error.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header as NativeHeader, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _, PurgeConfig};
use rdkafka::util::Timeout;

use super::client::{self, Logging};
use super::error::PublishError;
use super::message::Place;
use crate::settings::KafkaSettings;

/// How long one message may wait for a broker.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// A header of a message.
#[derive(Debug, Clone)]
pub struct Header {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

/// A producer that repeats and reorders nothing by itself; cheap to clone.
#[derive(Clone)]
pub struct Producer {
    inner: FutureProducer<Logging>,
}

impl Producer {
    /// A producer. Connects when first used.
    ///
    /// # Errors
    /// When the settings are refused.
    pub fn new(kafka: &KafkaSettings) -> Result<Self, KafkaError> {
        let mut config = client::config(kafka, separation_contract::kafka::producer());
        config.set("message.timeout.ms", MESSAGE_TIMEOUT.as_millis().to_string());
        Ok(Self {
            inner: config.create_with_context(Logging)?,
        })
    }

    /// Publishes one message and waits until all in-sync replicas have it.
    ///
    /// # Errors
    /// When no broker took it within half a minute, or the brokers refuse it.
    pub async fn publish(
        &self,
        topic: &str,
        key: &[u8],
        value: &[u8],
        headers: &[Header],
    ) -> Result<Place, PublishError> {
        let mut native = OwnedHeaders::new_with_capacity(headers.len());
        for header in headers {
            native = native.insert(NativeHeader {
                key: header.name,
                value: Some(&header.value),
            });
        }
        let record = FutureRecord::to(topic).key(key).payload(value).headers(native);
        match self.inner.send(record, Timeout::After(MESSAGE_TIMEOUT)).await {
            Ok(delivery) => Ok(Place {
                partition: delivery.partition,
                offset: delivery.offset,
            }),
            Err((error, _)) => Err(publish_error(topic, error)),
        }
    }

    /// Whether some broker knows `topic`'s partitions, asked now.
    pub async fn reaches(&self, topic: &str, limit: Duration) -> bool {
        let (producer, name) = (self.inner.clone(), topic);
        let topic = topic.to_owned();
        // librdkafka waits in the call.
        let asked = tokio::task::spawn_blocking(move || {
            let metadata = producer.client().fetch_metadata(Some(&topic), limit)?;
            let known = metadata
                .topics()
                .iter()
                .any(|topic| !topic.partitions().is_empty());
            Ok::<_, KafkaError>(known)
        });
        match asked.await {
            Ok(Ok(known)) => {
                if !known {
                    tracing::warn!(
                        topic = name,
                        "The brokers have no such topic; fix: create it, with as many partitions as workers"
                    );
                }
                known
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "No broker can be reached");
                false
            }
            Err(_) => false,
        }
    }

    /// Drops what no broker has taken yet: the outcome of a message that went to another worker.
    pub fn purge(&self) {
        self.inner.purge(PurgeConfig::default().queue().inflight());
    }

    /// Waits, at most for `limit`, until brokers have everything.
    ///
    /// # Errors
    /// When something is still waiting then.
    pub async fn close(self, limit: Duration) -> Result<(), KafkaError> {
        let flushed = tokio::task::spawn_blocking(move || self.inner.flush(limit));
        flushed.await.unwrap_or(Err(KafkaError::Canceled))
    }
}

fn publish_error(topic: &str, error: KafkaError) -> PublishError {
    let topic = topic.to_owned();
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition,
        ) => PublishError::NoTopic { topic },
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::PolicyViolation,
        ) => PublishError::Refused { topic, source: error },
        _ => PublishError::Away { topic, source: error },
    }
}
