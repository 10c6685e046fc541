//! Creates topics.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use kafka_protocol::messages::{CreateTopicsResponse, TopicName};

use crate::protocol::text;
use crate::{Cluster, Deadline, ReadError};

/// Time in which the broker must create the topic, in milliseconds.
const BROKER_TIMEOUT_MS: i32 = 10_000;

/// The broker chooses the replication factor.
const DEFAULT_REPLICATION: i16 = -1;

impl Cluster {
    /// Creates a topic with the brokers' default replication. One that exists already is no error, and is unchanged.
    ///
    /// # Errors
    /// When the brokers cannot be reached or refuse it.
    pub async fn create_topic(
        &self,
        topic: &str,
        partitions: u32,
        deadline: &Deadline,
    ) -> Result<(), ReadError> {
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(topic)))
            .with_num_partitions(i32::try_from(partitions).unwrap_or(i32::MAX))
            .with_replication_factor(DEFAULT_REPLICATION);
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(BROKER_TIMEOUT_MS);
        // Brokers of clusters with ZooKeeper do not forward the request to their controller.
        let is_final: fn(&CreateTopicsResponse) -> bool = |response| {
            let mut topics = response.topics.iter();
            topics.all(|topic| topic.error_code != ResponseError::NotController.code())
        };
        let response = self.send_until(&request, deadline, is_final).await?;
        let created = response.topics.first();
        let created = created.ok_or_else(|| ReadError::malformed("the broker's response omits the topic"))?;
        match created.error_code {
            0 => Ok(()),
            code if code == ResponseError::TopicAlreadyExists.code() => Ok(()),
            code => Err(ReadError::from_code(code)),
        }
    }
}
