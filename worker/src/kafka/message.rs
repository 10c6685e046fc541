//! Consumed messages and their positions.

use std::fmt;

use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

use crate::telemetry::TraceContext;

/// Position of a message in the consumed topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

impl Position {
    pub(super) fn of(message: &BorrowedMessage<'_>) -> Self {
        Self {
            partition: message.partition(),
            offset: message.offset(),
        }
    }

    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self {
            offset: self.offset.checked_add(1).expect("offsets end far below 2^63"),
            ..self
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.partition, self.offset)
    }
}

/// A consumed message.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its position.
    pub position: Position,
    /// Its message key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Kafka's timestamp of the message, in milliseconds since 1970, if it has one.
    pub timestamp_ms: Option<i64>,
    /// Its trace; a new one if its header has none.
    pub trace: TraceContext,
}

impl Message {
    pub(super) fn from_borrowed(message: &BorrowedMessage<'_>) -> Self {
        let trace = message.headers().and_then(|headers| {
            let header = headers.iter().find(|header| header.key == TraceContext::HEADER)?;
            header.value
        });
        Self {
            position: Position::of(message),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            timestamp_ms: message.timestamp().to_millis(),
            trace: TraceContext::from_header(trace),
        }
    }
}

#[cfg(test)]
impl Message {
    pub(super) fn without_contents(position: Position, timestamp_ms: Option<i64>) -> Self {
        Self {
            position,
            key: None,
            value: None,
            timestamp_ms,
            trace: TraceContext::from_header(None),
        }
    }
}
