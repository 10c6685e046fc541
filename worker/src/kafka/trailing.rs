//! Finds partitions with nothing but transaction markers after the committed offset.
//!
//! Commits nothing. It requests the end first and then reads up to it with a separate reader, so a message that is
//! published in the meantime is never mistaken for a marker.

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::Logging;
use super::message::Position;
use crate::settings::KafkaSettings;

/// Timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout of reading to one partition's end.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// Timeout of one poll of the reader.
const POLL: Duration = Duration::from_millis(100);

/// How readers are created.
#[derive(Clone)]
pub(super) struct Reader {
    config: ClientConfig,
    context: Logging,
}

impl Reader {
    /// With settings based on those of the group's consumer.
    pub(super) fn new(mut config: ClientConfig, kafka: &KafkaSettings) -> Self {
        config
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "100");
        let context = Logging::new(kafka, None);
        Self { config, context }
    }
}

/// The ends of these partitions that may be committed because no message precedes them. Blocks.
pub(super) fn find<C: ConsumerContext>(
    consumer: &impl Consumer<C>,
    reader: &Reader,
    topic: &str,
    partitions: &[i32],
) -> KafkaResult<Vec<Position>> {
    let mut requested = TopicPartitionList::with_capacity(partitions.len());
    for &partition in partitions {
        requested.add_partition(topic, partition);
    }
    let committed = consumer.committed_offsets(requested, REQUEST_TIMEOUT)?;
    let mut found = Vec::new();
    for element in committed.elements() {
        element.error()?;
        let partition = element.partition();
        // The consumer reads with `read_committed`, so this is the last stable offset: open transactions follow it.
        let (start, end) = consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?;
        let from = match element.offset() {
            Offset::Offset(offset) => offset.max(start),
            _ => start,
        };
        let from = Position {
            partition,
            offset: from,
        };
        if from.offset < end && is_empty(reader, topic, from, end)? {
            found.push(Position {
                partition,
                offset: end,
            });
        }
    }
    Ok(found)
}

/// Whether no message is in `from..end`.
fn is_empty(reader: &Reader, topic: &str, from: Position, end: i64) -> KafkaResult<bool> {
    let reader: BaseConsumer<Logging> = reader.config.create_with_context(reader.context.clone())?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, from.partition, Offset::Offset(from.offset))?;
    reader.assign(&list)?;
    let deadline = Instant::now() + READ_LIMIT;
    while Instant::now() < deadline {
        match reader.poll(POLL) {
            None => {}
            Some(Ok(message)) => return Ok(message.offset() >= end),
            // The reader started after `end` was read, so the end it reaches is not earlier.
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(true),
            Some(Err(error)) => return Err(error),
        }
    }
    Err(KafkaError::MessageConsumption(
        RDKafkaErrorCode::OperationTimedOut,
    ))
}
