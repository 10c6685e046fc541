//! Errors of outbound calls. They contain the host, and nothing else of an address (no passwords, no tokens).

use std::error::Error;
use std::time::Duration;

use super::Rule;
use crate::error::ErrorClass;

/// The cause of a failed call, without the address that was called.
pub(super) type Cause = Box<dyn Error + Send + Sync>;

/// Why an outbound call failed.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The address is not an http(s) URL.
    #[error("not an http(s) address: {0}")]
    Url(&'static str),
    /// The address may not be called.
    #[error("calling {host} is refused: it is {rule}; fix: add the host or its network to OUTBOUND_ALLOW")]
    Refused {
        /// The host, as in the address.
        host: String,
        /// The rule that forbids it.
        rule: Rule,
    },
    /// The address is not encrypted, and its host is not allowed explicitly.
    #[error(
        "calling {host} without encryption is refused; fix: use https, or add the host to OUTBOUND_ALLOW"
    )]
    Unencrypted {
        /// The host, as in the address.
        host: String,
    },
    /// The host name cannot be resolved.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The host.
        host: String,
        /// The resolver's error.
        source: Cause,
    },
    /// Connecting or the TLS handshake failed, or the connection closed before a response.
    #[error("cannot reach {host}")]
    Connect {
        /// The host.
        host: String,
        /// The client's error.
        source: Cause,
    },
    /// The connection closed before the response was complete.
    #[error("the response from {host} ended early")]
    Incomplete {
        /// The host.
        host: String,
        /// The client's error.
        source: Cause,
    },
    /// The call exceeded its total time limit.
    #[error("the call to {host} did not complete within {} s", limit.as_secs_f32())]
    Timeout {
        /// The host.
        host: String,
        /// The time limit.
        limit: Duration,
    },
    /// The call exceeded its idle time limit.
    #[error("no data from {host} for {} s", limit.as_secs_f32())]
    IdleTimeout {
        /// The host.
        host: String,
        /// The time limit.
        limit: Duration,
    },
    /// The response is larger than allowed.
    #[error("the response from {host} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The host.
        host: String,
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// The response is not a success.
    #[error("{host} answered {status}")]
    Status {
        /// The host.
        host: String,
        /// The HTTP status.
        status: u16,
    },
    /// The response is not the requested part.
    #[error(
        "{host} answered a request for the rest of a file with another part, or with one of another file"
    )]
    Part {
        /// The host.
        host: String,
    },
    /// Too many redirects.
    #[error("more than {limit} redirects, the last by {host}")]
    TooManyRedirects {
        /// The last host that redirected.
        host: String,
        /// The maximum number of redirects.
        limit: usize,
    },
    /// A redirect that is not followed.
    #[error("{host} answered {status}, a redirect that is not followed: {reason}")]
    Redirect {
        /// The host that redirected.
        host: String,
        /// The HTTP status.
        status: u16,
        /// Why it is not followed.
        reason: &'static str,
    },
    /// The value or the name of one of our headers is invalid.
    #[error("the header {0} is invalid")]
    Header(&'static str),
}

impl OutboundError {
    /// The error class, which decides whether the call is retried.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Incomplete { .. }
            | Self::Part { .. }
            | Self::Timeout { .. }
            | Self::IdleTimeout { .. } => ErrorClass::Transient,
            Self::Status { status, .. } if is_retryable(*status) => ErrorClass::Transient,
            Self::Url(_)
            | Self::Refused { .. }
            | Self::Unencrypted { .. }
            | Self::TooLarge { .. }
            | Self::Status { .. }
            | Self::TooManyRedirects { .. }
            | Self::Redirect { .. } => ErrorClass::Permanent,
            Self::Header(_) => ErrorClass::Bug,
        }
    }
}

/// Whether a retry may get another status: timeouts, too many requests, and errors of the server.
fn is_retryable(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}
