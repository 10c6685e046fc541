//! Publishes one message to all in-sync replicas, or returns an error.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header as NativeHeader, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _, PurgeConfig};
use rdkafka::util::Timeout;

use super::admission::{Accepted, Refusal};
use super::client::{self, Logging};
use super::error::PublishError;
use super::gate::Gate;
use super::message::Position;
use crate::settings::KafkaSettings;

/// `message.timeout.ms`: how long a broker may take to accept one message.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// A header of a message.
#[derive(Debug, Clone)]
pub struct Header {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

/// How often a producer with a message in flight is checked for a fatal error.
const FATAL_INTERVAL: Duration = Duration::from_millis(250);

/// A producer, idempotent unless the settings disable it; cheap to clone.
///
/// After a fatal error, such as a refused request for a producer id, an idempotent producer of librdkafka never
/// publishes again. It is then replaced by a new one.
#[derive(Clone)]
pub struct Producer {
    config: ClientConfig,
    context: Logging,
    current: Arc<Mutex<Current>>,
}

struct Current {
    inner: FutureProducer<Logging>,
    /// Number of producers before this one.
    number: u64,
}

impl Producer {
    /// A producer that connects when first used.
    ///
    /// # Errors
    /// When librdkafka rejects the settings.
    pub fn new(kafka: &KafkaSettings) -> Result<Self, KafkaError> {
        Self::with_context(kafka, Logging::new(kafka, None))
    }

    /// A producer that reports to `gate` whether the brokers accept it.
    ///
    /// # Errors
    /// When librdkafka rejects the settings.
    pub fn with_gate(kafka: &KafkaSettings, gate: Gate) -> Result<Self, KafkaError> {
        Self::with_context(kafka, Logging::new(kafka, Some(gate)))
    }

    fn with_context(kafka: &KafkaSettings, context: Logging) -> Result<Self, KafkaError> {
        let kind = separation_contract::kafka::producer(kafka.idempotent_producer);
        let mut config = client::config(kafka, kind);
        config.set("message.timeout.ms", MESSAGE_TIMEOUT.as_millis().to_string());
        let inner = config.create_with_context(context.clone())?;
        Ok(Self {
            config,
            context,
            current: Arc::new(Mutex::new(Current { inner, number: 0 })),
        })
    }

    fn current(&self) -> (FutureProducer<Logging>, u64) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        (current.inner.clone(), current.number)
    }

    /// Replaces the producer with this number, unless it was replaced already, and returns the old one.
    fn replace(&self, number: u64) -> KafkaResult<Option<FutureProducer<Logging>>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.number != number {
            return Ok(None);
        }
        let fresh = self.config.create_with_context(self.context.clone())?;
        current.number += 1;
        Ok(Some(std::mem::replace(&mut current.inner, fresh)))
    }

    /// Publishes one message and waits until all in-sync replicas have it. Its partition is that of its message key's
    /// hash; without a message key, any.
    ///
    /// # Errors
    /// When no broker accepted it within 30 s, or the brokers refuse it.
    pub async fn publish(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        value: &[u8],
        headers: &[Header],
    ) -> Result<Position, PublishError> {
        self.publish_to(topic, None, key, value, headers).await
    }

    /// The same to `partition`, if there is one.
    ///
    /// # Errors
    /// The same; [`PublishError::NoTopic`] also when the topic has no such partition.
    pub async fn publish_to(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&[u8]>,
        value: &[u8],
        headers: &[Header],
    ) -> Result<Position, PublishError> {
        let mut native = OwnedHeaders::new_with_capacity(headers.len());
        for header in headers {
            native = native.insert(NativeHeader {
                key: header.name,
                value: Some(&header.value),
            });
        }
        let record = FutureRecord {
            key,
            partition,
            ..FutureRecord::to(topic).payload(value).headers(native)
        };
        let (producer, number) = self.current();
        let delivered = tokio::select! {
            biased;
            delivered = producer.send(record, Timeout::After(MESSAGE_TIMEOUT)) => Some(delivered),
            // After a fatal error, librdkafka may keep queued messages until their timeout.
            () = wait_for_fatal_error(&producer) => None,
        };
        let error = match delivered {
            Some(Ok(delivery)) => {
                self.accepted(Accepted::Topic);
                return Ok(Position {
                    partition: delivery.partition,
                    offset: delivery.offset,
                });
            }
            Some(Err((error, _))) => Some(error),
            None => None,
        };
        let topic = topic.to_owned();
        if let Some((code, reason)) = producer.client().fatal_error() {
            match self.replace(number) {
                // Closing a producer blocks until its thread has ended.
                Ok(old) => drop(tokio::task::spawn_blocking(move || drop((old, producer)))),
                Err(source) => return Err(PublishError::Unreachable { topic, source }),
            }
            return Err(PublishError::Fatal { topic, code, reason });
        }
        Err(publish_error(topic, error.unwrap_or(KafkaError::Canceled)))
    }

    /// Asks the brokers now, within `limit`, whether `topic` has partitions.
    pub async fn topic_reachable(&self, topic: &str, limit: Duration) -> bool {
        let (producer, name) = (self.current().0, topic);
        let topic = topic.to_owned();
        // The call blocks.
        let requested = tokio::task::spawn_blocking(move || {
            let metadata = producer.client().fetch_metadata(Some(&topic), limit)?;
            let known = metadata
                .topics()
                .iter()
                .any(|topic| !topic.partitions().is_empty());
            Ok::<_, KafkaError>(known)
        });
        match requested.await {
            Ok(Ok(known)) => {
                self.accepted(Accepted::Client);
                if !known {
                    tracing::warn!(
                        topic = name,
                        "The topic does not exist; fix: create it, with as many partitions as workers"
                    );
                }
                known
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "No broker is reachable");
                false
            }
            Err(_) => false,
        }
    }

    fn accepted(&self, accepted: Accepted) {
        if let Some(gate) = &self.context.gate {
            gate.accepted(accepted);
        }
    }

    /// Waits until the brokers have refused this process for too long; forever without a gate. Checks with `topic`
    /// whether the refusal persists.
    pub async fn refused_too_long(&self, topic: &str) -> Refusal {
        let ask = || {
            let (producer, topic) = (self.clone(), topic.to_owned());
            tokio::spawn(async move {
                producer
                    .topic_reachable(&topic, client::REFUSAL_CHECK_LIMIT)
                    .await
            });
        };
        match &self.context.gate {
            Some(gate) => gate.refused_too_long(ask).await,
            None => std::future::pending().await,
        }
    }

    /// Drops messages that no broker has accepted yet: outcomes of a message that was reassigned to another worker.
    pub fn purge(&self) {
        self.current().0.purge(PurgeConfig::default().queue().inflight());
    }

    /// Waits until the brokers have accepted all messages, at most for `limit`.
    ///
    /// # Errors
    /// When messages are still queued after that.
    pub async fn close(self, limit: Duration) -> Result<(), KafkaError> {
        client::run_blocking(move || self.current().0.flush(limit)).await
    }
}

/// Waits until the producer has a fatal error.
async fn wait_for_fatal_error(producer: &FutureProducer<Logging>) {
    while producer.client().fatal_error().is_none() {
        tokio::time::sleep(FATAL_INTERVAL).await;
    }
}

fn publish_error(topic: String, error: KafkaError) -> PublishError {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition,
        ) => PublishError::NoTopic { topic },
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::MessageBatchTooLarge
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::UnsupportedVersion
            | RDKafkaErrorCode::UnsupportedForMessageFormat
            | RDKafkaErrorCode::PolicyViolation,
        ) => PublishError::Refused { topic, source: error },
        _ => PublishError::Unreachable { topic, source: error },
    }
}
