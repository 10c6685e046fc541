//! A Kafka broker in this process: librdkafka's own, for trying out. It keeps messages in memory only, and knows neither
//! logins nor who is in a group.

use std::time::Duration;

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::decide::{PartitionWork, Work};

/// A question on loopback takes a millisecond.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A broker that ends with this value.
pub(super) struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

/// Reads one group's lag from the embedded broker. Calls wait: use a thread that may.
pub(super) struct EmbeddedLag {
    client: BaseConsumer,
    topic: String,
    partitions: i32,
}

impl EmbeddedBroker {
    /// Starts a broker with these topics.
    pub(super) fn start(topics: &[&str], partitions: i32) -> anyhow::Result<Self> {
        let cluster = MockCluster::new(1).context("cannot start the embedded Kafka")?;
        for topic in topics {
            cluster
                .create_topic(topic, partitions, 1)
                .with_context(|| format!("the embedded Kafka cannot make the topic {topic}"))?;
        }
        Ok(Self { cluster })
    }

    /// Where it listens: `127.0.0.1:port`.
    pub(super) fn bootstrap_servers(&self) -> String {
        self.cluster.bootstrap_servers()
    }
}

impl EmbeddedLag {
    /// A reader of one group's lag in one topic.
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
            .context("cannot make a Kafka client")?;
        Ok(Self {
            client,
            topic: topic.to_owned(),
            partitions,
        })
    }

    /// Messages that are not committed, of each partition.
    pub(super) fn read(&self) -> anyhow::Result<Work> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(&self.topic, 0, self.partitions - 1);
        let committed = self
            .client
            .committed_offsets(asked, ANSWER_WITHIN)
            .context("committed offsets")?;
        let mut work = Vec::new();
        for element in committed.elements_for_topic(&self.topic) {
            let partition = element.partition();
            let (start, end) = self
                .client
                .fetch_watermarks(&self.topic, partition, ANSWER_WITHIN)
                .with_context(|| format!("offsets of partition {partition}"))?;
            let next = match element.offset() {
                Offset::Offset(next) => next,
                _ => start,
            };
            work.push(PartitionWork {
                partition,
                messages: u64::try_from(end.saturating_sub(next)).unwrap_or(0),
            });
        }
        Ok(Work::new(work))
    }
}
