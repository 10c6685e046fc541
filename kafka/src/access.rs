//! The operations that brokers authorize this client for (KIP-430), without executing one.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId, TopicName};

use crate::cluster::TOPICS_PER_REQUEST;
use crate::coordinators::CoordinatorError;
use crate::protocol::text;
use crate::{Cluster, Deadline, ReadError};

/// Expected size of the description of a group, in bytes.
const EXPECTED_DESCRIPTION_BYTES: usize = 50_000;

/// An operation of Kafka's ACLs, with its code in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Consume a topic; join a group and commit its offsets.
    Read = 3,
    /// Publish to a topic.
    Write = 4,
    /// Read the metadata of a topic or a group.
    Describe = 8,
}

impl Operation {
    /// The operation's name in ACLs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Describe => "Describe",
        }
    }

    fn bit(self) -> i32 {
        1 << self as i32
    }
}

/// The operations that a broker authorizes for a topic or a group: bit n stands for the operation with code n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operations(i32);

impl Operations {
    /// `None` if the broker does not report them: a client that gets a description may at least describe.
    fn reported(bits: i32) -> Option<Self> {
        (bits & Operation::Describe.bit() != 0).then_some(Self(bits))
    }

    /// Whether this operation is authorized.
    pub fn include(self, operation: Operation) -> bool {
        self.0 & operation.bit() != 0
    }
}

impl Cluster {
    /// Connects to any broker, authenticates, and returns the number of brokers.
    ///
    /// # Errors
    /// When no broker answers or the credentials are refused.
    pub async fn broker_count(&self, deadline: &Deadline) -> Result<usize, ReadError> {
        // No topics, rather than all.
        let request = MetadataRequest::default()
            .with_topics(Some(Vec::new()))
            .with_allow_auto_topic_creation(false);
        let response = self.send_to_any(&request, deadline).await?;
        Ok(response.brokers.len())
    }

    /// The authorized operations, by topic; without topics that this client may not describe, and those whose operations
    /// the broker does not report.
    ///
    /// # Errors
    /// When no broker answers, or the broker is older than Kafka 2.3.
    pub async fn topic_operations(
        &self,
        names: &[Arc<str>],
        deadline: &Deadline,
    ) -> Result<BTreeMap<Arc<str>, Operations>, ReadError> {
        let mut found = BTreeMap::new();
        for chunk in names.chunks(TOPICS_PER_REQUEST) {
            let topics = chunk
                .iter()
                .map(|name| MetadataRequestTopic::default().with_name(Some(TopicName(text(name)))));
            let request = MetadataRequest::default()
                .with_topics(Some(topics.collect()))
                .with_allow_auto_topic_creation(false)
                .with_include_topic_authorized_operations(true);
            let response = self.send_to_any(&request, deadline).await?;
            found.extend(response.topics.iter().filter_map(|topic| {
                let name: Arc<str> = topic.name.as_ref()?.0.as_str().into();
                Some((name, Operations::reported(topic.topic_authorized_operations)?))
            }));
        }
        Ok(found)
    }

    /// The authorized operations of a group; `None` if the broker does not report them.
    ///
    /// # Errors
    /// When this client may not describe the group, no broker answers, or the broker is older than Kafka 2.3.
    pub async fn group_operations(
        &self,
        group: &Arc<str>,
        deadline: &Deadline,
    ) -> Result<Option<Operations>, ReadError> {
        let request = |_: &[usize]| {
            DescribeGroupsRequest::default()
                .with_groups(vec![GroupId(text(group))])
                .with_include_authorized_operations(true)
        };
        let read = |_: usize, response: &DescribeGroupsResponse| {
            let described = response.groups.first();
            let described = described.ok_or_else(CoordinatorError::group_omitted)?;
            match CoordinatorError::from_code(described.error_code) {
                None => Ok(Operations::reported(described.authorized_operations)),
                Some(error) => Err(error),
            }
        };
        let groups = [Arc::clone(group)];
        let mut found = self
            .send_to_coordinators(&groups, deadline, |_| EXPECTED_DESCRIPTION_BYTES, request, read)
            .await;
        let found = found
            .pop()
            .unwrap_or_else(|| Err(CoordinatorError::group_omitted()));
        found.map_err(CoordinatorError::into_error)
    }
}
