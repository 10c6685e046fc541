//! Finds partitions in which nothing but markers of transactions follows what is committed.
//!
//! Commits nothing. The end is asked first, and then read up to it by a reader of its own: only what that saw counts,
//! so no message that comes meanwhile is taken for a marker.

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::Logging;
use super::message::Place;

/// How long one question may take.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);

/// How long reading one partition's end may take.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// One wait for the reader.
const POLL: Duration = Duration::from_millis(100);

/// Settings of the reader, besides those of any consumer of the group.
pub(super) fn reader(mut config: ClientConfig) -> ClientConfig {
    config
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "100");
    config
}

/// Of these partitions, the ends that may be committed because no message is before them. Waits in the call.
pub(super) fn find<C: ConsumerContext>(
    consumer: &impl Consumer<C>,
    reader: &ClientConfig,
    topic: &str,
    partitions: &[i32],
) -> KafkaResult<Vec<Place>> {
    let mut asked = TopicPartitionList::with_capacity(partitions.len());
    for &partition in partitions {
        asked.add_partition(topic, partition);
    }
    let committed = consumer.committed_offsets(asked, QUESTION_LIMIT)?;
    let mut found = Vec::new();
    for element in committed.elements() {
        element.error()?;
        let partition = element.partition();
        // The end for readers of committed messages, as this consumer is one: open transactions come after it.
        let (start, end) = consumer.fetch_watermarks(topic, partition, QUESTION_LIMIT)?;
        let from = match element.offset() {
            Offset::Offset(offset) => offset.max(start),
            _ => start,
        };
        let from = Place {
            partition,
            offset: from,
        };
        if from.offset < end && is_empty(reader, topic, from, end)? {
            found.push(Place {
                partition,
                offset: end,
            });
        }
    }
    Ok(found)
}

/// Whether no message is at or after `from` and before `end`.
fn is_empty(reader: &ClientConfig, topic: &str, from: Place, end: i64) -> KafkaResult<bool> {
    let reader: BaseConsumer<Logging> = reader.create_with_context(Logging::default())?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, from.partition, Offset::Offset(from.offset))?;
    reader.assign(&list)?;
    let deadline = Instant::now() + READ_LIMIT;
    while Instant::now() < deadline {
        match reader.poll(POLL) {
            None => {}
            Some(Ok(message)) => return Ok(message.offset() >= end),
            // The reader began after `end` was known, so its own end is not before that.
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(true),
            Some(Err(error)) => return Err(error),
        }
    }
    Err(KafkaError::MessageConsumption(
        RDKafkaErrorCode::OperationTimedOut,
    ))
}
