//! Kafka operations of tests: topics, records, and the state of consumer groups.
//!
//! They use separate listeners, so they work while those of the tests are cut off.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::admin::{AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::Kafka;
use super::clients::{REQUEST, partitions};
use super::records::Record;
use crate::background;

/// Timeout of reading a complete topic.
const READ: Duration = Duration::from_secs(60);
/// Timeout of one poll of a consumer.
const POLL: Duration = Duration::from_millis(100);

/// A consumer group, as described by its coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The state: `Stable`, `Empty`, `PreparingRebalance`, `CompletingRebalance` or `Dead`.
    pub state: String,
    /// The assignor that its members agreed on; empty if it has none.
    pub assignor: String,
    /// Its members, sorted by client id.
    pub members: Vec<Member>,
}

/// A member of a consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its client id.
    pub client_id: String,
    /// Its member id, assigned by the coordinator.
    pub member_id: String,
    /// Its assigned partitions, sorted.
    pub partitions: Vec<(String, i32)>,
}

/// Progress of a group in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionLag {
    /// The partition.
    pub partition: i32,
    /// The committed offset, which is the next to read; `None` without a commit.
    pub committed: Option<i64>,
    /// The metadata committed with it.
    pub metadata: String,
    /// The offset after the last record.
    pub end: i64,
    /// Records from the committed offset (or from the first record without one) to the end.
    pub lag: i64,
}

impl Kafka {
    /// Creates a topic and waits until it is usable; with three brokers it has three replicas.
    ///
    /// # Errors
    /// If the brokers refuse.
    pub async fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        self.create_topic_with(name, partitions, &[]).await
    }

    /// Creates a topic with settings such as `("max.message.bytes", "20000000")`.
    ///
    /// # Errors
    /// If the brokers refuse.
    pub async fn create_topic_with(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<()> {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        topic.config.extend_from_slice(settings);
        let created = self
            .clients
            .admin()
            .await?
            .create_topics([&topic], &AdminOptions::new().operation_timeout(Some(REQUEST)))
            .await
            .context("cannot reach Kafka")?;
        expect_success(created, &format!("create topic {name}"))?;
        self.wait_until(&format!("topic {name} has its partitions"), async || {
            let found = self.clients.partitions(name).await;
            Ok(found.is_ok_and(|found| i32::try_from(found.len()) == Ok(partitions)))
        })
        .await
    }

    /// Deletes a topic and waits until it is gone.
    ///
    /// # Errors
    /// If the brokers refuse.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        let deleted = self
            .clients
            .admin()
            .await?
            .delete_topics(&[name], &AdminOptions::new().operation_timeout(Some(REQUEST)))
            .await
            .context("cannot reach Kafka")?;
        expect_success(deleted, &format!("delete topic {name}"))?;
        self.wait_until(&format!("topic {name} is gone"), async || {
            Ok(self.clients.partitions(name).await?.is_empty())
        })
        .await
    }

    /// Increases the number of a topic's partitions to `total`.
    ///
    /// # Errors
    /// If the brokers refuse.
    pub async fn add_partitions(&self, topic: &str, total: usize) -> Result<()> {
        let added = self
            .clients
            .admin()
            .await?
            .create_partitions(
                [&NewPartitions::new(topic, total)],
                &AdminOptions::new().operation_timeout(Some(REQUEST)),
            )
            .await
            .context("cannot reach Kafka")?;
        expect_success(added, &format!("add partitions to {topic}"))?;
        self.wait_until(&format!("{topic} has {total} partitions"), async || {
            Ok(self.clients.partitions(topic).await?.len() == total)
        })
        .await
    }

    /// Publishes a record to the partition of its message key, waits for all in-sync replicas, and returns
    /// its partition and offset.
    ///
    /// # Errors
    /// If the brokers refuse.
    pub async fn publish(
        &self,
        topic: &str,
        key: &str,
        value: impl AsRef<[u8]>,
        headers: &[(&str, &str)],
    ) -> Result<(i32, i64)> {
        self.send(FutureRecord::to(topic).key(key).payload(value.as_ref()), headers)
            .await
    }

    /// The same without a message key, to any partition.
    ///
    /// # Errors
    /// If the brokers refuse.
    pub async fn publish_keyless(&self, topic: &str, value: impl AsRef<[u8]>) -> Result<(i32, i64)> {
        self.send(FutureRecord::to(topic).payload(value.as_ref()), &[])
            .await
    }

    /// The same to a given partition.
    ///
    /// # Errors
    /// If the brokers refuse.
    pub async fn publish_to(
        &self,
        topic: &str,
        partition: i32,
        key: &str,
        value: impl AsRef<[u8]>,
    ) -> Result<(i32, i64)> {
        let record = FutureRecord::to(topic).partition(partition);
        self.send(record.key(key).payload(value.as_ref()), &[]).await
    }

    async fn send(
        &self,
        record: FutureRecord<'_, str, [u8]>,
        headers: &[(&str, &str)],
    ) -> Result<(i32, i64)> {
        let producer = self.clients.producer().await?;
        let headers = headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| {
            all.insert(Header {
                key,
                value: Some(*value),
            })
        });
        let deadline = Instant::now() + REQUEST;
        loop {
            let copy = FutureRecord {
                headers: Some(headers.clone()),
                ..record
            };
            match producer.send(copy, REQUEST).await {
                Ok(delivery) => return Ok((delivery.partition, delivery.offset)),
                // The producer refreshes topics and partitions only every few minutes, which is too late
                // here.
                Err((KafkaError::MessageProduction(code), _))
                    if is_stale_metadata(code) && Instant::now() < deadline =>
                {
                    let (producer, topic) = (producer.clone(), record.topic.to_owned());
                    background::blocking(move || {
                        producer.client().fetch_metadata(Some(&topic), REQUEST)?;
                        Ok(())
                    })
                    .await?;
                    tokio::time::sleep(crate::eventually::POLL).await;
                }
                Err((error, _)) => {
                    return Err(error).with_context(|| format!("cannot publish to {}", record.topic));
                }
            }
        }
    }

    /// All records of a topic by partition and offset, without those of open or aborted transactions.
    ///
    /// # Errors
    /// If they cannot all be read within 60 s.
    pub async fn consume_all(&self, topic: &str) -> Result<Vec<Record>> {
        let mut config = self.clients.config();
        config
            .set("group.id", "testbed-reader")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "20")
            .set("fetch.message.max.bytes", "20000000");
        let topic = topic.to_owned();
        background::blocking(move || read_to_the_end(&config, &topic))
            .await
            .context("cannot read a topic")
    }

    /// The coordinator's description of a group. A group that no member ever joined is `Dead` or `Empty`,
    /// without members.
    ///
    /// # Errors
    /// If no broker responds.
    pub async fn group(&self, name: &str) -> Result<Group> {
        let (client, name) = (self.clients.metadata().await?, name.to_owned());
        background::blocking(move || describe(&client, &name)).await
    }

    /// Progress of a group in every partition of a topic.
    ///
    /// # Errors
    /// If no broker responds, or the topic does not exist.
    pub async fn lag(&self, group: &str, topic: &str) -> Result<Vec<PartitionLag>> {
        let mut config = self.clients.config();
        config.set("group.id", group);
        let topic = topic.to_owned();
        background::blocking(move || read_lag(&config, &topic))
            .await
            .with_context(|| format!("cannot read the lag of {group}"))
    }

    /// The sum of [`Self::lag`] over all partitions.
    ///
    /// # Errors
    /// As for [`Self::lag`].
    pub async fn total_lag(&self, group: &str, topic: &str) -> Result<i64> {
        Ok(self
            .lag(group, topic)
            .await?
            .iter()
            .map(|partition| partition.lag)
            .sum())
    }

    /// Commits offsets for a group without members, in partition order from 0.
    ///
    /// # Errors
    /// If the group has members, or no broker responds.
    pub async fn commit(&self, group: &str, topic: &str, offsets: &[i64]) -> Result<()> {
        let mut config = self.clients.config();
        config.set("group.id", group).set("enable.auto.commit", "false");
        let mut list = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(offsets) {
            list.add_partition_offset(topic, partition, Offset::Offset(*offset))?;
        }
        background::blocking(move || {
            let consumer: BaseConsumer = config.create()?;
            consumer.assign(&list)?;
            Ok(consumer.commit(&list, rdkafka::consumer::CommitMode::Sync)?)
        })
        .await
        .with_context(|| format!("cannot commit for {group}"))
    }

    /// Waits until the brokers have applied a change.
    async fn wait_until(&self, what: &str, condition: impl AsyncFn() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + REQUEST;
        while !condition().await? {
            ensure!(Instant::now() < deadline, "not true after {REQUEST:?}: {what}");
            tokio::time::sleep(crate::eventually::POLL).await;
        }
        Ok(())
    }
}

fn expect_success(results: Vec<Result<String, (String, RDKafkaErrorCode)>>, what: &str) -> Result<()> {
    for result in results {
        if let Err((_, code)) = result {
            bail!("cannot {what}: {code}");
        }
    }
    Ok(())
}

/// Whether a producer refuses only because its metadata is older than the brokers'.
fn is_stale_metadata(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
    )
}

fn read_to_the_end(config: &ClientConfig, topic: &str) -> Result<Vec<Record>> {
    let consumer: BaseConsumer = config.create()?;
    let mut list = TopicPartitionList::new();
    let mut open = partitions(&consumer, topic)?;
    ensure!(!open.is_empty(), "there is no topic {topic}");
    for partition in &open {
        list.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let deadline = Instant::now() + READ;
    let mut records = Vec::new();
    let mut last_error = None;
    while !open.is_empty() {
        ensure!(
            Instant::now() < deadline,
            "{topic} has no end after {READ:?}; last error: {last_error:?}"
        );
        match consumer.poll(POLL) {
            None => {}
            Some(Ok(message)) => records.push(Record::copy(&message)),
            Some(Err(KafkaError::PartitionEOF(ended))) => open.retain(|partition| *partition != ended),
            // An unreachable broker: another one may lead its partitions by now.
            Some(Err(error)) => last_error = Some(error),
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}

fn read_lag(config: &ClientConfig, topic: &str) -> Result<Vec<PartitionLag>> {
    let consumer: BaseConsumer = config.create()?;
    let ids = partitions(&consumer, topic)?;
    ensure!(!ids.is_empty(), "there is no topic {topic}");
    let mut list = TopicPartitionList::new();
    for partition in &ids {
        list.add_partition(topic, *partition);
    }
    let committed = consumer.committed_offsets(list, REQUEST)?;
    ids.into_iter()
        .map(|partition| {
            let found = committed
                .find_partition(topic, partition)
                .context("a response lacks a partition")?;
            found.error()?;
            let offset = match found.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            let (first, end) = consumer.fetch_watermarks(topic, partition, REQUEST)?;
            Ok(PartitionLag {
                partition,
                committed: offset,
                metadata: found.metadata().to_owned(),
                end,
                lag: end.saturating_sub(offset.unwrap_or(first).max(first)).max(0),
            })
        })
        .collect()
}

fn describe(client: &BaseConsumer, name: &str) -> Result<Group> {
    let list = client
        .fetch_group_list(Some(name), REQUEST)
        .with_context(|| format!("cannot describe group {name}"))?;
    let group = list
        .groups()
        .iter()
        .find(|group| group.name() == name)
        .with_context(|| format!("no broker knows group {name}"))?;
    let mut members = group
        .members()
        .iter()
        .map(|member| {
            Ok(Member {
                client_id: member.client_id().to_owned(),
                member_id: member.id().to_owned(),
                partitions: assignment(member.assignment().unwrap_or_default())?,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    members.sort_by(|one, other| (&one.client_id, &one.member_id).cmp(&(&other.client_id, &other.member_id)));
    Ok(Group {
        state: group.state().to_owned(),
        assignor: group.protocol().to_owned(),
        members,
    })
}

/// Decodes a member's assignment: a version (i16), then the topics, each with its name and partitions.
fn assignment(bytes: &[u8]) -> Result<Vec<(String, i32)>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut rest = bytes;
    let mut take = |count: usize| -> Result<&[u8]> {
        let (taken, after) = rest
            .split_at_checked(count)
            .context("an assignment is truncated")?;
        rest = after;
        Ok(taken)
    };
    let i16_of = |bytes: &[u8]| Ok::<_, anyhow::Error>(i16::from_be_bytes(bytes.try_into()?));
    let i32_of = |bytes: &[u8]| Ok::<_, anyhow::Error>(i32::from_be_bytes(bytes.try_into()?));
    let _version = i16_of(take(2)?)?;
    let topics = i32_of(take(4)?)?;
    let mut partitions = Vec::new();
    for _ in 0..topics {
        let length = usize::try_from(i16_of(take(2)?)?)?;
        let topic = std::str::from_utf8(take(length)?)?.to_owned();
        for _ in 0..i32_of(take(4)?)? {
            partitions.push((topic.clone(), i32_of(take(4)?)?));
        }
    }
    partitions.sort();
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_and_a_short_one_refused() {
        let bytes = [
            &[0, 3, 0, 0, 0, 1, 0, 2][..],
            b"ab",
            &[0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(
            assignment(&bytes).unwrap(),
            [("ab".to_owned(), 1), ("ab".to_owned(), 7)]
        );
        assert!(assignment(&bytes[..12]).is_err());
        assert_eq!(assignment(&[]).unwrap(), []);
    }
}
