//! The body of a response, streamed within its limits.

use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::time::{Instant, timeout_at};

use super::OutboundError;

/// Limits of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownloadLimits {
    /// Maximum size, in bytes.
    pub max_bytes: u64,
    /// Maximum time from the call to the last byte.
    pub total: Duration,
    /// Maximum time to the first piece, and between two pieces.
    pub idle: Duration,
}

/// A running download.
#[derive(Debug)]
pub struct Download {
    response: reqwest::Response,
    host: String,
    limits: DownloadLimits,
    deadline: Instant,
    received_bytes: u64,
}

impl Download {
    pub(super) fn start(
        response: reqwest::Response,
        host: String,
        limits: DownloadLimits,
        deadline: Instant,
    ) -> Result<Self, OutboundError> {
        let download = Self {
            response,
            host,
            limits,
            deadline,
            received_bytes: 0,
        };
        match download.response.content_length() {
            Some(length) if length > limits.max_bytes => Err(download.too_large()),
            _ => Ok(download),
        }
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// When the response ends early or exceeds a limit.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, OutboundError> {
        let idle_deadline = Instant::now() + self.limits.idle;
        let read = timeout_at(self.deadline.min(idle_deadline), self.response.chunk()).await;
        let host = || self.host.clone();
        let chunk = match read {
            Err(_) if idle_deadline < self.deadline => {
                return Err(OutboundError::IdleTimeout {
                    host: host(),
                    limit: self.limits.idle,
                });
            }
            Err(_) => {
                return Err(OutboundError::Timeout {
                    host: host(),
                    limit: self.limits.total,
                });
            }
            Ok(Err(error)) => {
                return Err(OutboundError::Incomplete {
                    host: host(),
                    source: error.without_url().into(),
                });
            }
            Ok(Ok(None)) => return Ok(None),
            Ok(Ok(Some(chunk))) => chunk,
        };
        self.received_bytes += chunk.len() as u64;
        if self.received_bytes > self.limits.max_bytes {
            return Err(self.too_large());
        }
        Ok(Some(chunk))
    }

    /// All pieces in order; ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, OutboundError>> + Send {
        futures_util::stream::unfold(Some(self), |download| async {
            let mut download = download?;
            match download.chunk().await {
                Ok(chunk) => chunk.map(|chunk| (Ok(chunk), Some(download))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    fn too_large(&self) -> OutboundError {
        OutboundError::TooLarge {
            host: self.host.clone(),
            limit_bytes: self.limits.max_bytes,
        }
    }
}
