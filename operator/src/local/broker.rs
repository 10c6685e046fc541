//! A Kafka broker in this process for trial use: librdkafka's mock cluster. It keeps messages only in memory, and
//! supports neither authentication nor describing groups.

use std::time::Duration;

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::decide::{LagByPartition, PartitionLag};

/// Timeout of a request; on loopback it takes a millisecond.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A broker that stops when this is dropped.
pub(super) struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

/// Reads one group's lag from the embedded broker. Calls block, so use a blocking thread.
pub(super) struct EmbeddedLag {
    client: BaseConsumer,
    topic: String,
    partitions: i32,
}

impl EmbeddedBroker {
    /// Starts a broker with these topics of `partitions` partitions.
    pub(super) fn start(topics: &[&str], partitions: i32) -> anyhow::Result<Self> {
        let cluster = MockCluster::new(1).context("cannot start the embedded Kafka")?;
        for topic in topics {
            cluster
                .create_topic(topic, partitions, 1)
                .with_context(|| format!("the embedded Kafka cannot create the topic {topic}"))?;
        }
        Ok(Self { cluster })
    }

    /// Its address: `127.0.0.1:port`.
    pub(super) fn bootstrap_servers(&self) -> String {
        self.cluster.bootstrap_servers()
    }
}

impl EmbeddedLag {
    /// A reader of one group's lag on one topic.
    pub(super) fn new(
        bootstrap_servers: &str,
        group: &str,
        topic: &str,
        partitions: i32,
    ) -> anyhow::Result<Self> {
        let client = ClientConfig::new()
            .set("bootstrap.servers", bootstrap_servers)
            .set("group.id", group)
            .create()
            .context("cannot create a Kafka client")?;
        Ok(Self {
            client,
            topic: topic.to_owned(),
            partitions,
        })
    }

    /// The lag of each partition.
    pub(super) fn read(&self) -> anyhow::Result<LagByPartition> {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range(&self.topic, 0, self.partitions - 1);
        let committed = self
            .client
            .committed_offsets(partitions, REQUEST_TIMEOUT)
            .context("committed offsets")?;
        let mut work = Vec::new();
        for element in committed.elements_for_topic(&self.topic) {
            let partition = element.partition();
            let (start, end) = self
                .client
                .fetch_watermarks(&self.topic, partition, REQUEST_TIMEOUT)
                .with_context(|| format!("offsets of partition {partition}"))?;
            let next = match element.offset() {
                Offset::Offset(next) => next,
                _ => start,
            };
            work.push(PartitionLag {
                partition,
                messages: u64::try_from(end.saturating_sub(next)).unwrap_or(0),
            });
        }
        Ok(LagByPartition::new(work))
    }
}
