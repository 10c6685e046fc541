//! Reads a topic up to the end that it has when the reading begins.
//!
//! Joins no group and commits nothing. Blocks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{self, Logging};
use super::error::refused_scope;
use super::message::Position;
use crate::settings::KafkaSettings;

/// Time limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time without a message: enough for the election of a partition's leader.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// Timeout of one poll.
const POLL: Duration = Duration::from_millis(100);

/// A message of a topic, with all its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its position.
    pub position: Position,
    /// Its message key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Kafka's timestamp of the message, in milliseconds since 1970, if it has one.
    pub timestamp_ms: Option<i64>,
    /// Its headers, in order; a header without a value has an empty one.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Why a topic cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadTopicError {
    /// There is no such topic.
    #[error("topic {topic} does not exist")]
    NoTopic {
        /// The topic.
        topic: String,
    },
    /// A request failed.
    #[error("cannot read topic {topic}")]
    Failed {
        /// The topic.
        topic: String,
        /// The client's error.
        #[source]
        source: KafkaError,
    },
}

/// Reads the messages of a topic.
pub struct TopicReader {
    consumer: BaseConsumer<Logging>,
    topic: String,
    /// The partitions that are not read to their end yet, with the ends that they had when the reading began.
    ends: BTreeMap<i32, i64>,
    last_progress: Instant,
    last_error: Option<KafkaError>,
}

impl StoredMessage {
    /// The value of the last header with this name, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rev().find(|(found, _)| found == name)?;
        std::str::from_utf8(value).ok()
    }

    fn copy(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        Self {
            position: Position::of(message),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            timestamp_ms: message.timestamp().to_millis(),
            headers: headers
                .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
                .collect(),
        }
    }
}

impl TopicReader {
    /// A reader of all partitions, from their beginning.
    ///
    /// `group` is only a name that librdkafka demands.
    ///
    /// # Errors
    /// When the topic does not exist, or no broker responds.
    pub fn open(kafka: &KafkaSettings, group: &str, topic: &str) -> Result<Self, ReadTopicError> {
        Self::start(kafka, group, topic, |_| Some(0))
    }

    /// A reader of these partitions only, each from this offset.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_at(
        kafka: &KafkaSettings,
        group: &str,
        topic: &str,
        from: &BTreeMap<i32, i64>,
    ) -> Result<Self, ReadTopicError> {
        Self::start(kafka, group, topic, |partition| from.get(&partition).copied())
    }

    fn start(
        kafka: &KafkaSettings,
        group: &str,
        topic: &str,
        from: impl Fn(i32) -> Option<i64>,
    ) -> Result<Self, ReadTopicError> {
        let failed = |source| ReadTopicError::Failed {
            topic: topic.to_owned(),
            source,
        };
        let reader = || -> KafkaResult<Option<Self>> {
            let consumer = consumer(kafka, group)?;
            let partitions = partitions(&consumer, topic)?;
            if partitions.is_empty() {
                return Ok(None);
            }
            let mut list = TopicPartitionList::new();
            let mut ends = BTreeMap::new();
            for partition in partitions {
                let Some(from) = from(partition) else { continue };
                let (start, end) = consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?;
                let from = from.max(start);
                if from < end {
                    list.add_partition_offset(topic, partition, Offset::Offset(from))?;
                    ends.insert(partition, end);
                }
            }
            consumer.assign(&list)?;
            Ok(Some(Self {
                consumer,
                topic: topic.to_owned(),
                ends,
                last_progress: Instant::now(),
                last_error: None,
            }))
        };
        reader().map_err(failed)?.ok_or_else(|| ReadTopicError::NoTopic {
            topic: topic.to_owned(),
        })
    }

    /// The next message; none once all partitions are read. Messages of one partition are in order.
    ///
    /// # Errors
    /// When the brokers refuse, or there is no response for 30 s.
    pub fn next_message(&mut self) -> Result<Option<StoredMessage>, ReadTopicError> {
        while !self.ends.is_empty() {
            match self.consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    // Messages may follow the end that the partition had.
                    if let Some(&end) = self.ends.get(&partition) {
                        self.last_progress = Instant::now();
                        if offset + 1 >= end {
                            self.ends.remove(&partition);
                        }
                        if offset < end {
                            return Ok(Some(StoredMessage::copy(&message)));
                        }
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.last_progress = Instant::now();
                    self.ends.remove(&partition);
                }
                Some(Err(error)) => {
                    if error.rdkafka_error_code().is_some_and(is_refusal) {
                        return Err(self.failed(error));
                    }
                    // Such as an unreachable broker: the client keeps trying.
                    self.last_error = Some(error);
                }
            }
            if self.last_progress.elapsed() > STALL_LIMIT {
                let timed_out = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
                let error = self.last_error.take().unwrap_or(timed_out);
                return Err(self.failed(error));
            }
        }
        Ok(None)
    }

    fn failed(&self, source: KafkaError) -> ReadTopicError {
        ReadTopicError::Failed {
            topic: self.topic.clone(),
            source,
        }
    }
}

/// Whether the brokers refuse this client, so that trying again does not help. Nothing is needed of the group.
fn is_refusal(code: RDKafkaErrorCode) -> bool {
    code != RDKafkaErrorCode::GroupAuthorizationFailed && refused_scope(code).is_some()
}

/// A consumer that owns no partition of a group. Each partition's end is reported, whatever its last offsets contain.
fn consumer(kafka: &KafkaSettings, group: &str) -> KafkaResult<BaseConsumer<Logging>> {
    let settings = vec![
        ("group.id", group.to_owned()),
        ("enable.auto.commit", "false".to_owned()),
        ("enable.partition.eof", "true".to_owned()),
        // The oldest messages may be deleted while they are read.
        ("auto.offset.reset", "earliest".to_owned()),
        ("fetch.wait.max.ms", "100".to_owned()),
    ];
    let context = Logging::new(kafka, None);
    let consumer: BaseConsumer<Logging> = client::config(kafka, settings).create_with_context(context)?;
    // librdkafka connects only with a token, and takes one only while it is polled, which the first requests do not do.
    if kafka.tokens.is_some()
        && let Some(Err(error)) = consumer.poll(POLL)
    {
        return Err(error);
    }
    Ok(consumer)
}

/// The topic's partitions; none if it does not exist.
fn partitions(consumer: &BaseConsumer<Logging>, topic: &str) -> KafkaResult<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let Some(found) = found else {
        return Ok(Vec::new());
    };
    match found.error().map(RDKafkaErrorCode::from) {
        None | Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(found
            .partitions()
            .iter()
            .map(|partition| partition.id())
            .collect()),
        Some(code) => Err(KafkaError::MetadataFetch(code)),
    }
}
