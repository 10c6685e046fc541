//! Why a request to Kafka failed, with the message for users.

use std::error::Error;
use std::sync::Arc;

use kafka_protocol::ResponseError;

/// The longest text of a [`ReadError`], in bytes: parts of it come from brokers, and it is written to a pool's status.
const MAX_MESSAGE_BYTES: usize = 500;

/// Message for an address without a Kafka broker. It is the same for a name that cannot be resolved, a closed port, a
/// filtered one and another service: a user who can write a pool must not learn from it which addresses the operator
/// can reach.
const NO_BROKER_MESSAGE: &str = "no Kafka broker answers; fix: check the address, and whether the port requires TLS \
                                 or credentials; the debug log has the cause";

/// Why a request failed; cheap to copy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct ReadError {
    /// The message for users.
    pub why: Arc<str>,
    /// The class.
    pub kind: ReadErrorKind,
}

/// The class of a [`ReadError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadErrorKind {
    /// No broker answers, or the responsible one is unavailable.
    Unreachable,
    /// No response arrived before the deadline.
    TimedOut,
    /// The broker rejected the credentials or a certificate, or the user is not authorized.
    Unauthorized,
    /// The broker refused the request with another error code of the Kafka protocol.
    Refused(i16),
    /// The broker does not have the request.
    Unsupported,
    /// The broker has the request, in no version that this client supports.
    NoCommonVersion,
    /// A response is malformed or too large, or omits what was requested.
    Malformed,
    /// Anything else, such as an invalid setting.
    Other,
}

impl ReadError {
    /// An error of class [`ReadErrorKind::Other`]; a long text is truncated.
    pub fn new(why: impl AsRef<str>) -> Self {
        Self::with_kind(why, ReadErrorKind::Other)
    }

    /// An error of a class; a long text is truncated.
    pub fn with_kind(why: impl AsRef<str>, kind: ReadErrorKind) -> Self {
        let why = why.as_ref();
        let why = if why.len() <= MAX_MESSAGE_BYTES {
            why.into()
        } else {
            let end = why.floor_char_boundary(MAX_MESSAGE_BYTES);
            format!("{}…", &why[..end]).into()
        };
        Self { why, kind }
    }

    pub(crate) fn unreachable(why: impl AsRef<str>) -> Self {
        Self::with_kind(why, ReadErrorKind::Unreachable)
    }

    pub(crate) fn timed_out(why: impl AsRef<str>) -> Self {
        Self::with_kind(why, ReadErrorKind::TimedOut)
    }

    pub(crate) fn unauthorized(why: impl AsRef<str>) -> Self {
        Self::with_kind(why, ReadErrorKind::Unauthorized)
    }

    pub(crate) fn malformed(why: impl AsRef<str>) -> Self {
        Self::with_kind(why, ReadErrorKind::Malformed)
    }

    /// An error code in a broker's response.
    pub(crate) fn from_code(code: i16) -> Self {
        Self::with_kind(message_of_code(code), kind_of_code(code))
    }
}

/// The error for an address without a Kafka broker; the cause is only logged.
pub(crate) fn no_broker(host: &str, cause: &str) -> ReadError {
    // The operator's log levels are documented for its own targets.
    tracing::debug!(target: "separation_operator::kafka", host, cause, "No Kafka broker answers");
    ReadError::unreachable(NO_BROKER_MESSAGE)
}

/// The start of a text of another system, for a message: at most `max_bytes`, without control characters.
pub(crate) fn excerpt(text: &str, max_bytes: usize) -> String {
    let start = &text[..text.floor_char_boundary(max_bytes)];
    start.replace(char::is_control, " ")
}

/// An error and its causes, separated by colons.
pub(crate) fn causes(error: &(dyn Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The class of an error code.
fn kind_of_code(code: i16) -> ReadErrorKind {
    match ResponseError::try_from_code(code) {
        Some(
            ResponseError::TopicAuthorizationFailed
            | ResponseError::GroupAuthorizationFailed
            | ResponseError::ClusterAuthorizationFailed
            | ResponseError::SaslAuthenticationFailed
            | ResponseError::UnsupportedSaslMechanism
            | ResponseError::IllegalSaslState,
        ) => ReadErrorKind::Unauthorized,
        Some(ResponseError::RequestTimedOut) => ReadErrorKind::TimedOut,
        Some(
            ResponseError::LeaderNotAvailable
            | ResponseError::NotLeaderOrFollower
            | ResponseError::BrokerNotAvailable
            | ResponseError::OffsetNotAvailable
            | ResponseError::CoordinatorLoadInProgress
            | ResponseError::CoordinatorNotAvailable
            | ResponseError::NotCoordinator,
        ) => ReadErrorKind::Unreachable,
        _ => ReadErrorKind::Refused(code),
    }
}

/// The message for an error code.
fn message_of_code(code: i16) -> String {
    let Some(error) = ResponseError::try_from_code(code) else {
        return "no error".to_owned();
    };
    match error {
        ResponseError::UnknownTopicOrPartition => "the broker has no such topic or partition".to_owned(),
        ResponseError::LeaderNotAvailable => "the partition has no leader".to_owned(),
        ResponseError::NotLeaderOrFollower => "the broker is no longer the partition's leader".to_owned(),
        ResponseError::OffsetNotAvailable => "the new leader does not know the end offset yet".to_owned(),
        ResponseError::CoordinatorLoadInProgress => "the coordinator is still loading its groups".to_owned(),
        ResponseError::CoordinatorNotAvailable => "the group has no coordinator".to_owned(),
        ResponseError::NotCoordinator => "the broker is no longer the group's coordinator".to_owned(),
        ResponseError::TopicAuthorizationFailed => {
            "not authorized; fix: allow this user to describe the topic".to_owned()
        }
        ResponseError::GroupAuthorizationFailed => {
            "not authorized; fix: allow this user to describe and read the group".to_owned()
        }
        ResponseError::ClusterAuthorizationFailed => {
            "not authorized; fix: allow this user to describe the cluster".to_owned()
        }
        error => format!("Kafka returned {error} ({code})"),
    }
}
