//! Messages as they are taken from a topic, and their offsets.

use std::fmt;

use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

use crate::telemetry::TraceContext;

/// Position of a message in the topic that is consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

impl Place {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self {
            offset: self.offset.checked_add(1).expect("offsets end far below 2^63"),
            ..self
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.partition, self.offset)
    }
}

/// A message that was taken.
#[derive(Debug, Clone)]
pub struct Message {
    /// Where it lies.
    pub place: Place,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// When it was published, in milliseconds since 1970, where the topic's log tells.
    pub timestamp_ms: Option<i64>,
    /// The trace that it belongs to; a new one where it names none.
    pub trace: TraceContext,
}

impl Message {
    pub(super) fn of(message: &BorrowedMessage<'_>) -> Self {
        let trace = message.headers().and_then(|headers| {
            let header = headers.iter().find(|header| header.key == TraceContext::HEADER)?;
            header.value
        });
        Self {
            place: Place {
                partition: message.partition(),
                offset: message.offset(),
            },
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            timestamp_ms: message.timestamp().to_millis(),
            trace: TraceContext::from_header(trace),
        }
    }
}
