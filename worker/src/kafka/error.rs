//! Errors of commits and publishing, and refusals by the brokers.

pub use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode;

use super::admission::Scope;

/// The fix that is reported while Kafka refuses a worker.
pub(crate) const KAFKA_FIX: &str =
    "create the topics, and give the worker valid Kafka credentials that may read, write and commit";

/// Why an offset is not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// This member no longer owns the partition: the outcome must not be published.
    #[error("this member no longer owns the partition")]
    Lost,
    /// The topic was deleted.
    #[error("the topic no longer exists")]
    NoTopic,
    /// The client cannot continue.
    #[error("the Kafka consumer failed permanently")]
    Fatal(#[source] KafkaError),
}

/// The scope of a refusal by its error code; `None` for other errors.
pub(super) fn refused_scope(code: RDKafkaErrorCode) -> Option<Scope> {
    match code {
        RDKafkaErrorCode::Authentication
        | RDKafkaErrorCode::SaslAuthenticationFailed
        | RDKafkaErrorCode::SSL
        | RDKafkaErrorCode::GroupAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed => Some(Scope::Client),
        RDKafkaErrorCode::TopicAuthorizationFailed => Some(Scope::Topic),
        _ => None,
    }
}

/// Name of a refusal by the brokers, with Kafka's error code: `kafka:29`.
pub(super) fn dependency(code: RDKafkaErrorCode) -> String {
    match code {
        // librdkafka's own codes for refusals before any request.
        RDKafkaErrorCode::Authentication => dependency(RDKafkaErrorCode::SaslAuthenticationFailed),
        RDKafkaErrorCode::SSL => "kafka:SSL".to_owned(),
        code => format!("kafka:{}", code as i32),
    }
}

/// Why a message is not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// No broker accepted it in time.
    #[error("no broker accepted the message for topic {topic} in time")]
    Unreachable {
        /// The topic.
        topic: String,
        /// The client's error.
        #[source]
        source: KafkaError,
    },
    /// There is no such topic.
    #[error("topic {topic} does not exist; fix: create it, or let the brokers create topics")]
    NoTopic {
        /// The topic.
        topic: String,
    },
    /// The producer failed permanently; a new one replaced it.
    #[error("the producer failed permanently and was replaced ({code:?}: {reason}); topic {topic}")]
    Fatal {
        /// The topic.
        topic: String,
        /// The fatal error.
        code: RDKafkaErrorCode,
        /// librdkafka's text for it.
        reason: String,
    },
    /// The brokers refuse it.
    #[error("the brokers refused the message for topic {topic}")]
    Refused {
        /// The topic.
        topic: String,
        /// The client's error.
        #[source]
        source: KafkaError,
    },
}

impl PublishError {
    /// The dependency and its error code, such as `kafka:29`, if the brokers refused the message.
    pub fn dependency(&self) -> Option<String> {
        let code = match self {
            Self::Unreachable { .. } => return None,
            Self::NoTopic { .. } => RDKafkaErrorCode::UnknownTopicOrPartition,
            Self::Fatal { code, .. } => *code,
            Self::Refused { source, .. } => source.rdkafka_error_code()?,
        };
        Some(dependency(code))
    }

    /// Whether the brokers may have stored the message anyway: the request may have arrived and its response got lost.
    pub fn may_be_stored(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Fatal { .. })
    }

    /// Whether a retry can succeed.
    pub fn class(&self) -> crate::error::ErrorClass {
        match self {
            Self::Unreachable { .. } | Self::NoTopic { .. } | Self::Fatal { .. } => {
                crate::error::ErrorClass::Transient
            }
            Self::Refused { .. } => crate::error::ErrorClass::Permanent,
        }
    }
}
