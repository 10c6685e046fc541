//! Publishing: one message, taken by all in-sync replicas, or an error.

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

/// How often a producer with a message under way is asked whether it failed for good.
const FATAL_INTERVAL: Duration = Duration::from_millis(250);

/// A producer that repeats and reorders nothing by itself; cheap to clone.
///
/// An idempotent producer of librdkafka that has met a fatal error, such as a refused request for a producer id, never
/// publishes again. Another one takes its place.
#[derive(Clone)]
pub struct Producer {
    config: ClientConfig,
    context: Logging,
    current: Arc<Mutex<Current>>,
}

struct Current {
    inner: FutureProducer<Logging>,
    /// How many producers were before this one.
    number: u64,
}

impl Producer {
    /// A producer. Connects when first used.
    ///
    /// # Errors
    /// When the settings are refused.
    pub fn new(kafka: &KafkaSettings) -> Result<Self, KafkaError> {
        Self::with_context(kafka, Logging::default())
    }

    /// A producer that tells `gate` whether the brokers accept it.
    ///
    /// # Errors
    /// When the settings are refused.
    pub fn watched(kafka: &KafkaSettings, gate: Gate) -> Result<Self, KafkaError> {
        Self::with_context(kafka, Logging(Some(gate)))
    }

    fn with_context(kafka: &KafkaSettings, context: Logging) -> Result<Self, KafkaError> {
        let mut config = client::config(kafka, separation_contract::kafka::producer());
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

    /// Puts another producer in the place of the one of this number, unless that was done, and gives the old one.
    fn replace(&self, number: u64) -> KafkaResult<Option<FutureProducer<Logging>>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.number != number {
            return Ok(None);
        }
        let fresh = self.config.create_with_context(self.context.clone())?;
        current.number += 1;
        Ok(Some(std::mem::replace(&mut current.inner, fresh)))
    }

    /// Publishes one message and waits until all in-sync replicas have it. A message without a key goes to any partition.
    ///
    /// # Errors
    /// When no broker took it within half a minute, or the brokers refuse it.
    pub async fn publish(
        &self,
        topic: &str,
        key: Option<&[u8]>,
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
        let record = FutureRecord {
            key,
            ..FutureRecord::to(topic).payload(value).headers(native)
        };
        let (producer, number) = self.current();
        let delivered = tokio::select! {
            biased;
            delivered = producer.send(record, Timeout::After(MESSAGE_TIMEOUT)) => Some(delivered),
            // Messages that wait when a producer fails for good may be kept until their time is over.
            () = failed_for_good(&producer) => None,
        };
        let error = match delivered {
            Some(Ok(delivery)) => {
                self.accepted(Accepted::Topic);
                return Ok(Place {
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
                // Closing a producer waits for its thread.
                Ok(old) => drop(tokio::task::spawn_blocking(move || drop((old, producer)))),
                Err(source) => return Err(PublishError::Away { topic, source }),
            }
            return Err(PublishError::Fatal { topic, code, reason });
        }
        Err(publish_error(topic, error.unwrap_or(KafkaError::Canceled)))
    }

    /// Whether some broker knows `topic`'s partitions, asked now.
    pub async fn reaches(&self, topic: &str, limit: Duration) -> bool {
        let (producer, name) = (self.current().0, topic);
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
                self.accepted(Accepted::Client);
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

    fn accepted(&self, accepted: Accepted) {
        if let Some(gate) = &self.context.0 {
            gate.accepted(accepted);
        }
    }

    /// Waits until the brokers have refused this process for too long; for ever where that is not watched. Asks for
    /// `topic` from time to time while they do.
    pub async fn refused_for_good(&self, topic: &str) -> Refusal {
        let ask = || {
            let (producer, topic) = (self.clone(), topic.to_owned());
            tokio::spawn(async move { producer.reaches(&topic, client::REFUSAL_QUESTION_LIMIT).await });
        };
        match &self.context.0 {
            Some(gate) => gate.refused_for_good(ask).await,
            None => std::future::pending().await,
        }
    }

    /// Drops what no broker has taken yet: the outcome of a message that went to another worker.
    pub fn purge(&self) {
        self.current().0.purge(PurgeConfig::default().queue().inflight());
    }

    /// Waits, at most for `limit`, until brokers have everything.
    ///
    /// # Errors
    /// When something is still waiting then.
    pub async fn close(self, limit: Duration) -> Result<(), KafkaError> {
        client::waited(move || self.current().0.flush(limit)).await
    }
}

/// Waits until the producer has met a fatal error.
async fn failed_for_good(producer: &FutureProducer<Logging>) {
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
        _ => PublishError::Away { topic, source: error },
    }
}
