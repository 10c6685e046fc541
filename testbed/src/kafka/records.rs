//! Records as consumed by tests.

use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};

/// One record of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its partition.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
    /// Its message key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order; a header without a value has an empty one.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its creation time, in milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// The message key as text; empty if it has none.
    pub fn key_text(&self) -> String {
        text(self.key.as_deref())
    }

    /// The value as text; empty if it has none.
    pub fn text(&self) -> String {
        text(self.value.as_deref())
    }

    /// The value as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(self.value.as_deref().unwrap_or_default())
            .unwrap_or_else(|error| panic!("the record is not JSON ({error}): {}", self.text()))
    }

    /// The value of the last header with this name, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let header = self.headers.iter().rev().find(|(found, _)| found == name)?;
        Some(text(Some(&header.1)))
    }

    pub(super) fn copy(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
                .collect()
        });
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
            timestamp_ms: message.timestamp().to_millis(),
        }
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}
