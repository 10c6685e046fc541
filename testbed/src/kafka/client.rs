//! What tests ask of Kafka: topics, records, and what a consumer group has done.
//!
//! All of it goes past the listeners that tests use, so it works also while those are cut off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::OnceCell;

use super::{Kafka, Record};
use crate::background;

/// The longest that one question to the brokers may take.
const REQUEST: Duration = Duration::from_secs(20);
/// The longest that reading a whole topic may take.
const READ: Duration = Duration::from_secs(60);
/// One poll of a consumer.
const POLL: Duration = Duration::from_millis(100);

/// What a consumer group is, by its coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// `Stable`, `Empty`, `PreparingRebalance`, `CompletingRebalance` or `Dead`.
    pub state: String,
    /// The assignor that its members agreed on; empty where it has none.
    pub assignor: String,
    /// Its members, in the order of their client ids.
    pub members: Vec<Member>,
}

/// A member of a consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What it calls itself.
    pub client_id: String,
    /// What the coordinator calls it.
    pub member_id: String,
    /// The partitions that it was assigned, sorted.
    pub partitions: Vec<(String, i32)>,
}

/// How far a group is in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionLag {
    /// The partition.
    pub partition: i32,
    /// The offset that was committed, the next to read; `None` where there is no commit.
    pub committed: Option<i64>,
    /// What was committed with it.
    pub metadata: String,
    /// The offset after the last record.
    pub end: i64,
    /// Records from the committed offset, or from the first record without one, to the end.
    pub lag: i64,
}

/// The testbed's own connections.
pub(super) struct Clients {
    bootstrap: String,
    admin: OnceCell<AdminClient<DefaultClientContext>>,
    producer: OnceCell<FutureProducer>,
    metadata: OnceCell<Arc<BaseConsumer>>,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients")
            .field("bootstrap", &self.bootstrap)
            .finish_non_exhaustive()
    }
}

impl Clients {
    pub(super) fn new(addresses: &[SocketAddr]) -> Self {
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        Self {
            bootstrap: addresses.join(","),
            admin: OnceCell::new(),
            producer: OnceCell::new(),
            metadata: OnceCell::new(),
        }
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", "testbed")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            // Brokers are stopped and killed here all the time: that is no news.
            .set("log_level", "2");
        config
    }

    async fn admin(&self) -> Result<&AdminClient<DefaultClientContext>> {
        let create = || async { self.config().create().context("cannot make an admin client") };
        self.admin.get_or_try_init(create).await
    }

    async fn producer(&self) -> Result<&FutureProducer> {
        let create = || async {
            self.config()
                .set("enable.idempotence", "true")
                .set("linger.ms", "0")
                .set("message.max.bytes", "100000000")
                .create()
                .context("cannot make a producer")
        };
        self.producer.get_or_try_init(create).await
    }

    async fn metadata(&self) -> Result<Arc<BaseConsumer>> {
        let create = || async { Ok(Arc::new(self.config().create().context("cannot make a client")?)) };
        self.metadata.get_or_try_init(create).await.cloned()
    }

    /// Whether every one of these brokers serves clients and knows of all of them.
    pub(super) async fn all_serve(&self, running: &[SocketAddr]) -> Result<bool> {
        let count = running.len();
        for address in running {
            let one = Self::new(&[*address]);
            let client = one.metadata().await?;
            let served = background::blocking(move || {
                let metadata = client.fetch_metadata(None, Duration::from_secs(2))?;
                let led = metadata
                    .topics()
                    .iter()
                    .flat_map(|topic| topic.partitions())
                    .all(|partition| partition.leader() >= 0);
                Ok(led && metadata.brokers().len() == count)
            });
            if !served.await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The id of a partition's leader.
    pub(super) async fn leader(&self, topic: &str, partition: i32) -> Result<Option<i32>> {
        let (client, topic) = (self.metadata().await?, topic.to_owned());
        background::blocking(move || {
            let metadata = client.fetch_metadata(Some(&topic), REQUEST)?;
            let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            Ok(partitions
                .filter(|found| found.id() == partition && found.leader() >= 0)
                .map(|found| found.leader())
                .next())
        })
        .await
    }

    async fn partitions(&self, topic: &str) -> Result<Vec<i32>> {
        let (client, topic) = (self.metadata().await?, topic.to_owned());
        background::blocking(move || partitions(&client, &topic)).await
    }
}

impl Kafka {
    /// Makes a topic and waits until it can be used; with three brokers it has three replicas.
    ///
    /// # Errors
    /// When the brokers refuse.
    pub async fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        self.create_topic_with(name, partitions, &[]).await
    }

    /// Makes a topic with settings such as `("max.message.bytes", "20000000")`.
    ///
    /// # Errors
    /// When the brokers refuse.
    pub async fn create_topic_with(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<()> {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        topic.config.extend_from_slice(settings);
        let made = self
            .clients
            .admin()
            .await?
            .create_topics([&topic], &AdminOptions::new().operation_timeout(Some(REQUEST)))
            .await
            .context("cannot reach Kafka")?;
        expect_done(made, &format!("make topic {name}"))?;
        self.until(&format!("topic {name} has its partitions"), async || {
            let found = self.clients.partitions(name).await;
            Ok(found.is_ok_and(|found| i32::try_from(found.len()) == Ok(partitions)))
        })
        .await
    }

    /// Deletes a topic and waits until it is gone.
    ///
    /// # Errors
    /// When the brokers refuse.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        let deleted = self
            .clients
            .admin()
            .await?
            .delete_topics(&[name], &AdminOptions::new().operation_timeout(Some(REQUEST)))
            .await
            .context("cannot reach Kafka")?;
        expect_done(deleted, &format!("delete topic {name}"))?;
        self.until(&format!("topic {name} is gone"), async || {
            Ok(self.clients.partitions(name).await?.is_empty())
        })
        .await
    }

    /// Raises the number of a topic's partitions to `total`.
    ///
    /// # Errors
    /// When the brokers refuse.
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
        expect_done(added, &format!("add partitions to {topic}"))?;
        self.until(&format!("{topic} has {total} partitions"), async || {
            Ok(self.clients.partitions(topic).await?.len() == total)
        })
        .await
    }

    /// Publishes a record, in the partition of its key, and waits until all replicas that must have it do; gives its
    /// partition and offset.
    ///
    /// # Errors
    /// When the brokers refuse.
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

    /// The same without a key, into any partition.
    ///
    /// # Errors
    /// When the brokers refuse.
    pub async fn publish_keyless(&self, topic: &str, value: impl AsRef<[u8]>) -> Result<(i32, i64)> {
        self.send(FutureRecord::to(topic).payload(value.as_ref()), &[])
            .await
    }

    /// The same into a given partition.
    ///
    /// # Errors
    /// When the brokers refuse.
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
            let again = FutureRecord {
                headers: Some(headers.clone()),
                ..record
            };
            match producer.send(again, REQUEST).await {
                Ok(delivery) => return Ok((delivery.partition, delivery.offset)),
                // The producer looks for new topics and partitions every few minutes, which is too late here.
                Err((KafkaError::MessageProduction(code), _))
                    if is_news(code) && Instant::now() < deadline =>
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

    /// All records of a topic, by partition and offset, those of open or aborted transactions left out.
    ///
    /// # Errors
    /// When they cannot all be read within 60 s.
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

    /// What the coordinator knows of a group; one that nobody ever joined is `Dead` or `Empty`, without members.
    ///
    /// # Errors
    /// When no broker answers.
    pub async fn group(&self, name: &str) -> Result<Group> {
        let (client, name) = (self.clients.metadata().await?, name.to_owned());
        background::blocking(move || describe(&client, &name)).await
    }

    /// How far a group is in every partition of a topic.
    ///
    /// # Errors
    /// When no broker answers, or the topic does not exist.
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
    /// As there.
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
    /// When the group has members, or no broker answers.
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

    /// Waits until a change is seen by the brokers.
    async fn until(&self, what: &str, condition: impl AsyncFn() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + REQUEST;
        while !condition().await? {
            ensure!(Instant::now() < deadline, "not true after {REQUEST:?}: {what}");
            tokio::time::sleep(crate::eventually::POLL).await;
        }
        Ok(())
    }
}

fn expect_done(results: Vec<Result<String, (String, RDKafkaErrorCode)>>, what: &str) -> Result<()> {
    for result in results {
        if let Err((_, code)) = result {
            bail!("cannot {what}: {code}");
        }
    }
    Ok(())
}

/// Whether a producer refuses because it does not know yet what the brokers know.
fn is_news(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
    )
}

/// Empty where there is no such topic.
fn partitions(client: &BaseConsumer, topic: &str) -> Result<Vec<i32>> {
    let metadata = client
        .fetch_metadata(Some(topic), REQUEST)
        .context("cannot reach Kafka")?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    Ok(found.map_or_else(Vec::new, |found| {
        let mut ids: Vec<_> = found
            .partitions()
            .iter()
            .filter(|partition| partition.leader() >= 0)
            .map(|partition| partition.id())
            .collect();
        ids.sort_unstable();
        ids
    }))
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
    let mut trouble = None;
    while !open.is_empty() {
        ensure!(
            Instant::now() < deadline,
            "{topic} has no end after {READ:?}; the last trouble: {trouble:?}"
        );
        match consumer.poll(POLL) {
            None => {}
            Some(Ok(message)) => records.push(Record::copy(&message)),
            Some(Err(KafkaError::PartitionEOF(ended))) => open.retain(|partition| *partition != ended),
            // A broker that is away: another one may lead its partitions by now.
            Some(Err(error)) => trouble = Some(error),
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
                .context("an answer lacks a partition")?;
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
        .with_context(|| format!("cannot ask for group {name}"))?;
    let group = list
        .groups()
        .iter()
        .find(|group| group.name() == name)
        .with_context(|| format!("no broker knows of group {name}"))?;
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

/// Reads a member's assignment: a version (i16), then the topics, each a name and its partitions.
fn assignment(bytes: &[u8]) -> Result<Vec<(String, i32)>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut rest = bytes;
    let mut take = |count: usize| -> Result<&[u8]> {
        let (taken, after) = rest
            .split_at_checked(count)
            .context("an assignment is cut short")?;
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
