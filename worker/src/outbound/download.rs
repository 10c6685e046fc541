//! The body of a response, streamed within its limits.

use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, LAST_MODIFIED};
use tokio::time::{Instant, timeout_at};

use super::OutboundError;

/// Limits of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownloadLimits {
    /// Maximum size of the complete content, in bytes.
    pub max_bytes: u64,
    /// Maximum time from the call to the last byte.
    pub total: Duration,
    /// Maximum time to the first piece, and between two pieces.
    pub idle: Duration,
}

/// Where an interrupted download continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeFrom {
    /// Number of bytes that are stored.
    pub offset: u64,
    /// The [`validator`](Download::validator) of the stored bytes.
    pub validator: String,
}

/// A running download.
#[derive(Debug)]
pub struct Download {
    response: reqwest::Response,
    host: String,
    limits: DownloadLimits,
    deadline: Instant,
    offset: u64,
    /// Bytes of the content so far, those before `offset` included.
    received_bytes: u64,
}

impl Download {
    pub(super) fn start(
        response: reqwest::Response,
        from: Option<&ResumeFrom>,
        host: String,
        limits: DownloadLimits,
        deadline: Instant,
    ) -> Result<Self, OutboundError> {
        let is_part = response.status() == StatusCode::PARTIAL_CONTENT;
        let offset = match from {
            Some(from) if is_part => from.offset,
            _ => 0,
        };
        if is_part && !is_rest(response.headers(), offset, from) {
            return Err(OutboundError::Part { host });
        }
        let download = Self {
            response,
            host,
            limits,
            deadline,
            offset,
            received_bytes: offset,
        };
        match download.total_bytes() {
            Some(total) if total > limits.max_bytes => Err(download.too_large()),
            _ => Ok(download),
        }
    }

    /// Position of the first piece in the content; 0 unless the download continues another one.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Size of the complete content, if the server states it. Call it before the first piece is read.
    pub fn total_bytes(&self) -> Option<u64> {
        let rest = self.response.content_length()?;
        rest.checked_add(self.offset)
    }

    /// Identifies the content, for [`ResumeFrom`]: a strong `ETag`, else `Last-Modified`.
    pub fn validator(&self) -> Option<String> {
        validator(self.response.headers()).map(str::to_owned)
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

fn validator(headers: &HeaderMap) -> Option<&str> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let strong = text(ETAG).filter(|etag| !etag.starts_with("W/"));
    strong.or_else(|| text(LAST_MODIFIED))
}

/// Whether a part is everything after `offset`, of the content that `from` names: servers may ignore `If-Range`, or send
/// less than is requested.
fn is_rest(headers: &HeaderMap, offset: u64, from: Option<&ResumeFrom>) -> bool {
    let Some(range) = ContentRange::from_headers(headers) else {
        return false;
    };
    // A part need not repeat the validator of the request.
    let is_same = from.is_none_or(|from| validator(headers).is_none_or(|found| found == from.validator));
    let is_last = range
        .total
        .is_none_or(|total| range.last.checked_add(1) == Some(total));
    is_same && is_last && range.first == offset
}

/// The value of `Content-Range`, such as `bytes 5-9/10`.
struct ContentRange {
    first: u64,
    last: u64,
    /// None if the server does not know it.
    total: Option<u64>,
}

impl ContentRange {
    fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        Some(Self {
            first: first.trim().parse().ok()?,
            last: last.trim().parse().ok()?,
            total: match total.trim() {
                "*" => None,
                total => Some(total.parse().ok()?),
            },
        })
    }
}
