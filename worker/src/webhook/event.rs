//! Webhooks of the HTTP API v1: one attempt of a delivery. The caller schedules the next one.

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;
use separation_contract::message::TaskId;
use sha2::{Digest as _, Sha256};

use super::headers::headers;
use super::signature::Signer;
use crate::error::ErrorClass;
use crate::model::hexadecimal;
use crate::outbound::{self, PostResponse};
use crate::telemetry::TraceContext;

/// Time limit for the receiver's response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes of the hash in an event's id: 128 bits, so that no two are equal.
const ID_HASH_BYTES: usize = 16;

/// A webhook of the HTTP API v1.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// The value of `webhook-id`, the same in every attempt; see [`event_id`].
    pub id: &'a str,
    /// URL of the receiver.
    pub url: &'a str,
    /// The JSON body.
    pub body: &'a [u8],
    /// The task's trace.
    pub trace: TraceContext,
}

/// The result of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// The receiver accepted the webhook with this status.
    Delivered(u16),
    /// No further attempt can succeed.
    Refused {
        /// Status of the response, if there was one.
        status: Option<u16>,
        /// The reason, for logs.
        reason: String,
    },
    /// A later attempt may succeed.
    Failed {
        /// Status of the response, if there was one.
        status: Option<u16>,
        /// The pause that the receiver asks for.
        retry_after: Option<Duration>,
        /// The reason, for logs.
        reason: String,
    },
}

/// The `webhook-id` of the event `kind`, such as `task.succeeded`, of a task: receivers recognize duplicates by it.
pub fn event_id(task: &TaskId, kind: &str) -> String {
    let hash = Sha256::digest(format!("{task}.{kind}"));
    format!("evt_{}", hexadecimal(&hash[..ID_HASH_BYTES]))
}

/// Sends a webhook once, with a signature of each signer. `now` is the time of this attempt in Unix seconds, so that
/// receivers can refuse old requests.
pub async fn send(client: &outbound::Client, signers: &[Signer], event: Event<'_>, now: u64) -> Attempt {
    let headers = headers(signers, event.id, now, event.body, event.trace);
    let posted = client.post_json_once(event.url, &headers, event.body.to_vec(), RESPONSE_TIMEOUT);
    match posted.await {
        Ok(response) => judge(&response, now),
        Err(error) => {
            let reason = crate::work::chain(&error);
            match error.class() {
                ErrorClass::Transient => Attempt::Failed {
                    status: None,
                    retry_after: None,
                    reason,
                },
                _ => Attempt::Refused { status: None, reason },
            }
        }
    }
}

/// 410 means that the receiver is gone, and other client errors that it never accepts this webhook. A redirect is not
/// followed: it may be temporary, so the same address is called again.
fn judge(response: &PostResponse, now: u64) -> Attempt {
    let status = response.status;
    let reason = format!("the webhook's receiver answered {status}");
    match status {
        200..=299 => Attempt::Delivered(status),
        408 | 425 | 429 | 503 => Attempt::Failed {
            status: Some(status),
            retry_after: response
                .retry_after
                .as_deref()
                .filter(|_| matches!(status, 429 | 503))
                .and_then(|value| parse_retry_after(value, now)),
            reason,
        },
        400..=499 => Attempt::Refused {
            status: Some(status),
            reason,
        },
        _ => Attempt::Failed {
            status: Some(status),
            retry_after: None,
            reason,
        },
    }
}

/// The pause in a value of `Retry-After`: seconds, or a date.
fn parse_retry_after(value: &str, now: u64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTimeParser::new().parse_timestamp(value).ok()?;
    let seconds = u64::try_from(date.as_second()).ok()?.checked_sub(now)?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 784_111_777;

    #[test]
    fn the_id_of_an_event_depends_on_its_task_and_kind_alone() {
        let task = TaskId::parse("t1").unwrap();
        let id = event_id(&task, "task.succeeded");
        assert_eq!(id, event_id(&task, "task.succeeded"));
        assert_ne!(id, event_id(&task, "task.failed"));
        assert_eq!(id.len(), "evt_".len() + 32);
    }

    #[track_caller]
    fn check(statuses: impl IntoIterator<Item = u16>, retry_after: Option<&str>, expected: &str) {
        for status in statuses {
            let response = PostResponse {
                status,
                retry_after: retry_after.map(str::to_owned),
            };
            let judged = match judge(&response, NOW) {
                Attempt::Delivered(_) => "delivered".to_owned(),
                Attempt::Refused { .. } => "refused".to_owned(),
                Attempt::Failed { retry_after, .. } => {
                    format!("failed {:?}", retry_after.map(|pause| pause.as_secs()))
                }
            };
            assert_eq!(judged, expected, "{status}");
        }
    }

    #[test]
    fn the_status_decides_whether_a_webhook_is_sent_again() {
        check([200, 202, 204], None, "delivered");
        check(
            [301, 302, 307, 308, 408, 425, 429, 500, 502, 503, 504],
            None,
            "failed None",
        );
        check([400, 401, 404, 410, 413, 422], None, "refused");
    }

    #[test]
    fn a_receiver_that_is_busy_sets_the_pause() {
        check([429, 503], Some("120"), "failed Some(120)");
        check([429], Some("Sun, 06 Nov 1994 08:50:37 GMT"), "failed Some(60)");
        for ignored in ["Sun, 06 Nov 1994 08:49:30 GMT", "soon", "-1", ""] {
            check([503], Some(ignored), "failed None");
        }
        check([500, 408], Some("120"), "failed None");
    }
}
