//! A Kafka broker in this process for trial use: librdkafka's mock cluster. It keeps messages only in memory, and
//! supports neither authentication nor describing groups.

use anyhow::Context as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaApiKey;

/// The last version of Metadata before the flexible ones, whose responses the mock ends with a byte too many.
const METADATA_VERSION: i16 = 8;

/// A broker that stops when this is dropped.
pub(super) struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// Starts a broker with these topics of `partitions` partitions.
    pub(super) fn start(topics: &[&str], partitions: i32) -> anyhow::Result<Self> {
        let cluster = MockCluster::new(1).context("cannot start the embedded Kafka")?;
        cluster
            .apiversion(RDKafkaApiKey::Metadata, Some(0), Some(METADATA_VERSION))
            .context("cannot configure the embedded Kafka")?;
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
