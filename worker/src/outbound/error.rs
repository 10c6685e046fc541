//! Why a call to somebody else failed. Hosts are named; what addresses carry besides (passwords, tokens) never is.

use std::error::Error;
use std::time::Duration;

use super::Rule;
use crate::error::ErrorClass;

/// What a failed call came from: any error, without the address that was called.
pub(super) type Cause = Box<dyn Error + Send + Sync>;

/// A call to somebody else that failed.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The address is none that can be called.
    #[error("not an http(s) address: {0}")]
    Url(&'static str),
    /// The address may not be called.
    #[error("calling {host} is refused: it is {rule}; fix: name the host or its network in OUTBOUND_ALLOW")]
    Refused {
        /// The host as the address has it.
        host: String,
        /// What forbids it.
        rule: Rule,
    },
    /// The name means nothing.
    #[error("cannot find the address of {host}")]
    Resolve {
        /// The host.
        host: String,
        /// What the system said.
        source: Cause,
    },
    /// No connection, or none that could be trusted, or it broke before an answer.
    #[error("cannot reach {host}")]
    Connect {
        /// The host.
        host: String,
        /// What happened.
        source: Cause,
    },
    /// The connection broke in the middle of an answer.
    #[error("the answer of {host} broke off")]
    Broken {
        /// The host.
        host: String,
        /// What happened.
        source: Cause,
    },
    /// The whole took too long.
    #[error("{host} was not done within {} s", limit.as_secs_f32())]
    TooSlow {
        /// The host.
        host: String,
        /// How long it had.
        limit: Duration,
    },
    /// Nothing came for too long.
    #[error("nothing came from {host} for {} s", limit.as_secs_f32())]
    Silent {
        /// The host.
        host: String,
        /// How long it may be silent.
        limit: Duration,
    },
    /// The answer is larger than allowed.
    #[error("the answer of {host} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The host.
        host: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// The answer is not the one that was hoped for.
    #[error("{host} answered {status}")]
    Status {
        /// The host.
        host: String,
        /// The HTTP status.
        status: u16,
    },
    /// Sent on too often.
    #[error("sent on more than {limit} times, last by {host}")]
    TooManyRedirects {
        /// The last host that sent on.
        host: String,
        /// How often is allowed.
        limit: usize,
    },
    /// Sent on in a way that is not followed.
    #[error("{host} answered {status}, which is not followed: {reason}")]
    Redirect {
        /// The host that sent on.
        host: String,
        /// The HTTP status.
        status: u16,
        /// Why it is not followed.
        reason: &'static str,
    },
    /// A header that we made cannot be sent.
    #[error("the header {0} cannot be sent")]
    Header(&'static str),
}

impl OutboundError {
    /// What this failure says about trying again.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Broken { .. }
            | Self::TooSlow { .. }
            | Self::Silent { .. } => ErrorClass::Transient,
            Self::Status { status, .. } if may_pass(*status) => ErrorClass::Transient,
            Self::Url(_)
            | Self::Refused { .. }
            | Self::TooLarge { .. }
            | Self::Status { .. }
            | Self::TooManyRedirects { .. }
            | Self::Redirect { .. } => ErrorClass::Permanent,
            Self::Header(_) => ErrorClass::Bug,
        }
    }
}

/// Whether another try may get another status: timeouts, too many requests, and troubles of the server's own.
fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}
