//! The testbed's own connections to the brokers, created on first use.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::FutureProducer;
use tokio::sync::OnceCell;

use crate::background;

/// Timeout of one request to the brokers.
pub(super) const REQUEST: Duration = Duration::from_secs(20);

/// Connections through the listeners that bypass any proxy.
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

    pub(super) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", "testbed")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            // Brokers are stopped and killed here all the time, so those log messages are suppressed.
            .set("log_level", "2");
        config
    }

    pub(super) async fn admin(&self) -> Result<&AdminClient<DefaultClientContext>> {
        let create = || async { self.config().create().context("cannot create an admin client") };
        self.admin.get_or_try_init(create).await
    }

    pub(super) async fn producer(&self) -> Result<&FutureProducer> {
        let create = || async {
            self.config()
                .set("enable.idempotence", "true")
                .set("linger.ms", "0")
                .set("message.max.bytes", "100000000")
                .create()
                .context("cannot create a producer")
        };
        self.producer.get_or_try_init(create).await
    }

    pub(super) async fn metadata(&self) -> Result<Arc<BaseConsumer>> {
        let create = || async {
            Ok(Arc::new(
                self.config().create().context("cannot create a client")?,
            ))
        };
        self.metadata.get_or_try_init(create).await.cloned()
    }

    /// Whether each of these brokers serves clients and knows all of them.
    pub(super) async fn all_serve(&self, running: &[SocketAddr]) -> Result<bool> {
        let count = running.len();
        for address in running {
            let single = Self::new(&[*address]);
            let client = single.metadata().await?;
            let served = background::blocking(move || {
                let metadata = client.fetch_metadata(None, Duration::from_secs(2))?;
                let has_leaders = metadata
                    .topics()
                    .iter()
                    .flat_map(|topic| topic.partitions())
                    .all(|partition| partition.leader() >= 0);
                Ok(has_leaders && metadata.brokers().len() == count)
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

    pub(super) async fn partitions(&self, topic: &str) -> Result<Vec<i32>> {
        let (client, topic) = (self.metadata().await?, topic.to_owned());
        background::blocking(move || partitions(&client, &topic)).await
    }
}

/// The partitions of a topic; empty if there is no such topic.
pub(super) fn partitions(client: &BaseConsumer, topic: &str) -> Result<Vec<i32>> {
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
