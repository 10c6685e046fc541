//! The W3C trace context of a task: `traceparent` in HTTP and message headers.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Position in a trace. Written and read as `00-<trace id>-<parent id>-<flags>` (W3C Trace Context, version 00).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    parent_id: u64,
    flags: u8,
}

/// Not a valid `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid traceparent of version 00")]
pub struct TraceContextError;

impl TraceContext {
    /// Name of the header.
    pub const HEADER: &'static str = "traceparent";

    /// The start of a new trace.
    pub fn start() -> Self {
        Self {
            trace_id: Uuid::new_v4().as_u128(),
            parent_id: random_parent(),
            flags: 1,
        }
    }

    /// The next step of the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self {
            parent_id: random_parent(),
            ..self
        }
    }

    /// The trace context in a header; a new trace if it is missing or malformed.
    pub fn from_header(value: Option<&[u8]>) -> Self {
        value
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(Self::start)
    }

    /// The trace ID, 32 hexadecimal digits.
    pub fn trace_id(self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace_id, self.parent_id, self.flags
        )
    }
}

impl FromStr for TraceContext {
    type Err = TraceContextError;

    fn from_str(text: &str) -> Result<Self, TraceContextError> {
        let mut parts = text.trim().split('-');
        let mut hexadecimal = |digits: usize| {
            let lower = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            parts
                .next()
                .filter(|part| part.len() == digits && part.chars().all(lower))
                .and_then(|part| u128::from_str_radix(part, 16).ok())
                .ok_or(TraceContextError)
        };
        let (version, trace_id, parent_id, flags) = (
            hexadecimal(2)?,
            hexadecimal(32)?,
            hexadecimal(16)?,
            hexadecimal(2)?,
        );
        if version != 0 || trace_id == 0 || parent_id == 0 || parts.next().is_some() {
            return Err(TraceContextError);
        }
        Ok(Self {
            trace_id,
            // 16 and 2 digits fit.
            parent_id: parent_id as u64,
            flags: flags as u8,
        })
    }
}

/// A random nonzero number; W3C reserves 0. The version bits of a random UUID are never all 0.
fn random_parent() -> u64 {
    (Uuid::new_v4().as_u128() >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_parsed_as_it_is_written() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let read: TraceContext = text.parse().expect("the example of the standard");
        assert_eq!(read.to_string(), text);
        assert_eq!(read.child().trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_ne!(read.child(), read);
    }

    #[test]
    fn a_malformed_header_starts_a_new_trace() {
        for text in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(TraceContextError), "{text}");
            assert_ne!(TraceContext::from_header(Some(text.as_bytes())).trace_id, 0);
        }
    }
}
