//! What goes wrong with Kafka.

pub use rdkafka::error::KafkaError;

/// Why an offset is not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The partition went to another member: the outcome must stay unseen.
    #[error("the partition went to another member of the group")]
    Lost,
    /// The client cannot go on.
    #[error("the consumer failed for good")]
    Fatal(#[source] KafkaError),
}

/// Why a message is not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// No broker took it in time.
    #[error("no broker took the message for topic {topic} in time")]
    Away {
        /// The topic.
        topic: String,
        /// What the client says.
        #[source]
        source: KafkaError,
    },
    /// There is no such topic.
    #[error("there is no topic {topic}; fix: create it, or let the brokers create topics")]
    NoTopic {
        /// The topic.
        topic: String,
    },
    /// The brokers refuse it.
    #[error("the brokers refused the message for topic {topic}")]
    Refused {
        /// The topic.
        topic: String,
        /// What the client says.
        #[source]
        source: KafkaError,
    },
}

impl PublishError {
    /// What this failure says about trying again.
    pub fn class(&self) -> crate::error::ErrorClass {
        match self {
            Self::Away { .. } | Self::NoTopic { .. } => crate::error::ErrorClass::Transient,
            Self::Refused { .. } => crate::error::ErrorClass::Permanent,
        }
    }
}
