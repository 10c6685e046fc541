//! What goes wrong with Kafka.

pub use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode;

/// What makes Kafka accept a worker that it refuses.
pub(crate) const KAFKA_FIX: &str =
    "create the topics, and give the worker valid Kafka credentials that may read, write and commit";

/// Why an offset is not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The partition went to another member: the outcome must stay unseen.
    #[error("the partition went to another member of the group")]
    Lost,
    /// The topic does not exist any more.
    #[error("the topic does not exist any more")]
    NoTopic,
    /// The client cannot go on.
    #[error("the consumer failed for good")]
    Fatal(#[source] KafkaError),
}

/// The name of a refusal by the brokers: Kafka's error code, such as `kafka:29`.
pub(super) fn dependency(code: RDKafkaErrorCode) -> String {
    match code {
        // librdkafka's words for what the brokers refuse before they answer requests.
        RDKafkaErrorCode::Authentication => dependency(RDKafkaErrorCode::SaslAuthenticationFailed),
        RDKafkaErrorCode::SSL => "kafka:SSL".to_owned(),
        code => format!("kafka:{}", code as i32),
    }
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
    /// The producer cannot publish anything any more; another one has taken its place.
    #[error("the producer failed for good and was replaced ({code:?}: {reason}); topic {topic}")]
    Fatal {
        /// The topic.
        topic: String,
        /// The error that ended it.
        code: RDKafkaErrorCode,
        /// Its reason, in librdkafka's words.
        reason: String,
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
    /// The refusing dependency and its code, such as `kafka:29`, where the brokers answered and refused.
    pub fn dependency(&self) -> Option<String> {
        let code = match self {
            Self::Away { .. } => return None,
            Self::NoTopic { .. } => RDKafkaErrorCode::UnknownTopicOrPartition,
            Self::Fatal { code, .. } => *code,
            Self::Refused { source, .. } => source.rdkafka_error_code()?,
        };
        Some(dependency(code))
    }

    /// Whether the brokers may have the message all the same: the request may have arrived and its answer not.
    pub fn may_be_stored(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::Fatal { .. })
    }

    /// What this failure says about trying again.
    pub fn class(&self) -> crate::error::ErrorClass {
        match self {
            Self::Away { .. } | Self::NoTopic { .. } | Self::Fatal { .. } => {
                crate::error::ErrorClass::Transient
            }
            Self::Refused { .. } => crate::error::ErrorClass::Permanent,
        }
    }
}
